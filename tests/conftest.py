"""What holds for all tests."""

import os

os.environ.pop("HYDRA_FULL_ERROR", None)  # a developer's setting; users, and so the tests, see one sentence
