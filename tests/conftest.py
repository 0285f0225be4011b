"""What holds for all tests."""

import os

os.environ.pop("HYDRA_FULL_ERROR", None)  # a developer's setting; users, and so the tests, see one sentence
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tests run in two processes, each on a core of its own
