"""What holds for all tests."""

import logging
import os
from collections.abc import Iterator

import pytest

os.environ.pop("HYDRA_FULL_ERROR", None)  # a developer's setting; users, and so the tests, see one sentence
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tests run in two processes, each on a core of its own


@pytest.fixture
def own_logging() -> Iterator[None]:
    """For runs within this process: Hydra sets logging up anew for each of them, which ends with the test."""
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers
