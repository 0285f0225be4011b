"""LstmLM: its loss and scores by hand, and that it learns."""

import pytest
import torch

from diffcontrol.judges.lstm import LstmLM
from diffcontrol.text import END, PAD, START, UNK
from tests.fakes import OPTIM, FakeCorpus, ended, ids_of, train

MODEL = {"width": 16, "depth": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def lm() -> LstmLM:
    torch.manual_seed(0)
    return LstmLM(FakeCorpus(), MODEL, OPTIM).eval()


def by_hand(lm: LstmLM, ids: torch.Tensor) -> float:
    """Each word from the words before it alone, one network call a word."""
    return -sum(
        lm.network(ids[:, :place])[0, -1].log_softmax(0)[ids[0, place]].item() for place in range(1, ids.shape[1])
    )


def test_nll_by_hand(lm: LstmLM) -> None:
    texts = ["a red cat sees the cat", "", "a dog likes"]
    sums, counts = lm.nll([text.split() for text in texts], batch_size=2)
    assert counts == [7, 1, 4]
    for text, total in zip(texts, sums, strict=True):
        assert total == pytest.approx(by_hand(lm, ended(ids_of(lm.corpus, text))), abs=1e-4)


def test_unknown_words_count_as_unk_and_what_is_too_long_is_cut(lm: LstmLM) -> None:
    sums, counts = lm.nll([["zebra"], ["a"] * 50])
    assert sums[0] == pytest.approx(by_hand(lm, torch.tensor([[START, UNK, END]])), abs=1e-4)
    assert counts == [2, lm.corpus.length - 1]


def test_loss_is_the_mean_over_words_and_end(lm: LstmLM) -> None:
    indices = [0, 1, 2, 3]
    sums, counts = lm.nll([lm.corpus.splits["train"][i].words for i in indices])
    assert lm.losses(lm.collate(indices))["nll"].item() == pytest.approx(sum(sums) / sum(counts), abs=1e-5)


def test_words_have_one_vector_at_the_input_and_at_the_output() -> None:
    lm = LstmLM(FakeCorpus(), MODEL, OPTIM)
    tables = [p for p in lm.parameters() if p.ndim == 2 and len(p) == len(lm.corpus.vocabulary)]
    assert len(tables) == 1


def test_batches_are_cropped_and_a_step_does_not_depend_on_earlier_steps(lm: LstmLM) -> None:
    steps = lm.steps()
    walked = [steps.indices(step) for step in range(20)]
    assert lm.steps().indices(17) == walked[17]
    assert all((lm.collate(indices)[:, -1] != PAD).any() for indices in walked)


def test_it_learns_that_a_colour_comes_before_an_animal() -> None:
    torch.manual_seed(0)
    lm = LstmLM(FakeCorpus(), MODEL, {**OPTIM, "lr": 3e-2})
    losses = train(lm, 60)
    assert losses[-1] < 0.6 * losses[0]
    (right, wrong), _ = lm.nll([["a", "red", "cat", "sees"], ["a", "cat", "red", "sees"]])
    assert right < wrong
