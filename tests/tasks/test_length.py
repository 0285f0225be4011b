import pytest
import torch
from diffcontrol.tasks.length import Length

from tests.fakes import FakeCorpus


@pytest.fixture(scope="module")
def task() -> Length:
    return Length(FakeCorpus())


@pytest.mark.parametrize(("text", "strict", "near"), [
    ("the pub is cheap .", 1, 1), ("the pub is very cheap .", 0, 1), ("the pub is", 0, 1), ("the pub", 0, 0),
    ("", 0, 0),
])  # fmt: skip
def test_words_are_counted(task, text, strict, near):
    assert task.success([text.split()], [5]) == {"strict": [strict], "released": [strict], "within_2": [near]}


@pytest.mark.parametrize("given", [8, "8", " 8 "])
def test_a_target_is_a_number(task, given):
    assert task.parse(given) == 8


@pytest.mark.parametrize("given", [0, 9, -1, True, "nine", 2.0, "²"])
def test_what_does_not_fit_is_refused_with_what_does(task, given):
    with pytest.raises(ValueError, match=f"length: {given!r} is not a target; write a number of words from 1 to 8"):
        task.parse(given)


def test_the_head_is_a_softmax_over_the_places_of_end(task):
    head, hidden = task.head(6), torch.randn(1, 10, 6)
    every = torch.stack([head.log_prob(hidden, [n]) for n in range(-1, 9)])
    torch.testing.assert_close(every.exp().sum(), torch.tensor(1.0))
    torch.testing.assert_close(every[5, 0], head.score(hidden)[0, :, 0].log_softmax(0)[5])  # START, four words, END
