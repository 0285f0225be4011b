"""The fault script with few of each; `python -m tests.faults` has many."""

import pytest

from tests.faults.__main__ import outcomes
from tests.faults.outcome import SURVIVED


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_fault_loses_work_passes_in_silence_or_ends_in_a_traceback(tmp_path):
    found = list(outcomes(tmp_path, kill=2, processes=2, inputs=2))
    assert {each.kind for each in found} == {"SIGKILL", "parallel", "full disk", "entry", "checkpoint", "input"}
    assert [each for each in found if each.verdict != SURVIVED] == []
