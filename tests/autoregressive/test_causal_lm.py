"""CausalLM: its loss and scores by hand, batches as a function of the step, sampling."""

import math

import pytest
import torch

from diffcontrol.autoregressive.causal_lm import CausalLM
from diffcontrol.draws import Draws
from diffcontrol.text import END, PAD, START, UNK
from tests.fakes import GPT2, OPTIM, FakeCorpus, ended, ids_of, train


@pytest.fixture(scope="module")
def lm() -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(FakeCorpus(), GPT2, OPTIM).eval()


def by_hand(lm: CausalLM, ids: torch.Tensor) -> float:
    total = 0.0
    for place in range(1, ids.shape[1]):
        logits = lm.network(ids[:, :place]).logits[0, -1].tolist()
        total += math.log(sum(math.exp(x) for x in logits)) - logits[int(ids[0, place])]
    return total


def test_nll_by_hand(lm: CausalLM) -> None:
    texts = ["a red cat sees the cat", "", "a dog likes"]
    sums, counts = lm.nll([text.split() for text in texts], batch_size=2)
    assert counts == [7, 1, 4]
    for text, total in zip(texts, sums, strict=True):
        assert total == pytest.approx(by_hand(lm, ended(ids_of(lm.corpus, text))), abs=1e-4)


def test_unknown_words_count_as_unk(lm: CausalLM) -> None:
    ids = torch.tensor([[START, UNK, END]])
    sums, counts = lm.nll([["zebra"]])
    assert sums[0] == pytest.approx(by_hand(lm, ids), abs=1e-4) and counts == [2]


def test_nll_cuts_what_is_too_long(lm: CausalLM) -> None:
    assert lm.nll([["a"] * 50])[1] == [lm.corpus.length - 1]


def test_loss_is_the_mean_over_words_and_end(lm: CausalLM) -> None:
    indices = [0, 1, 2, 3]
    sums, counts = lm.nll([lm.corpus.splits["train"][i].words for i in indices])
    assert lm.losses(lm.collate(indices))["nll"].item() == pytest.approx(sum(sums) / sum(counts), abs=1e-5)


def test_batches_are_cropped_and_of_like_length(lm: CausalLM) -> None:
    batches = [lm.collate(lm.steps().indices(step)) for step in range(16)]
    assert all((batch[:, -1] != PAD).any() for batch in batches)
    padded = sum(int((batch == PAD).sum()) for batch in batches) / sum(batch.numel() for batch in batches)
    assert padded < 0.08


def test_muon_trains_the_hidden_layers_and_adamw_the_words(lm: CausalLM) -> None:
    own = CausalLM(FakeCorpus(), GPT2, {**OPTIM, "muon": 0.01})
    adamw, muon = own.configure_optimizers()[0][0].parts
    taken = [{id(p) for group in part.param_groups for p in group["params"]} for part in (adamw, muon)]
    assert id(own.network.transformer.wte.weight) in taken[0] and not taken[0] & taken[1]
    assert len(taken[1]) == 4 * GPT2["depth"] and taken[0] | taken[1] == {id(p) for p in own.parameters()}


def test_a_step_does_not_depend_on_earlier_steps(lm: CausalLM) -> None:
    steps = lm.steps()
    walked = [steps.indices(step) for step in range(40)]
    assert lm.steps().indices(37) == walked[37]


def test_it_learns_and_writes() -> None:
    torch.manual_seed(0)
    lm = CausalLM(FakeCorpus(), GPT2, OPTIM)
    losses = train(lm, 60)
    assert losses[-1] < 0.6 * losses[0]
    before = torch.random.get_rng_state()
    ids = lm.generate(Draws(range(6)))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(ids, lm.generate(Draws(range(6))))
    assert (ids[:, 0] == START).all() and ids.shape[1] <= lm.corpus.length
    assert lm.token_evaluations == 2 * 6 * (ids.shape[1] - 1)
