import itertools
import math

import pytest
import torch

from diffcontrol.masked.lm import MaskedLM
from diffcontrol.text import PAD
from tests.fakes import OPTIM, FakeCorpus, train

MODEL = {"embedding": 8, "width": 16, "depth": 1, "heads": 2, "dropout": 0.0}


def lm(corpus=None, **options) -> MaskedLM:
    torch.manual_seed(0)
    model = MaskedLM(corpus or FakeCorpus(), MODEL, OPTIM, **options)
    torch.nn.init.normal_(model.readout.layer.weight, std=0.3)
    return model


@pytest.fixture(scope="module")
def ids():
    return FakeCorpus().ids["train"][:6]


def by_hand(model, ids):
    """The bound of one text [L] as a sum over all ways to mask it: m of L places are masked with density
    t^m (1 − t)^(L − m) at time t, and ∫ 1/t · t^m (1 − t)^(L − m) dt = (m − 1)! (L − m)! / L!."""
    L, total = len(ids), 0.0
    for masked in itertools.product([False, True], repeat=L):
        m, hidden = sum(masked), torch.tensor(masked)
        if m:
            logits = model(model.one_hot(ids.masked_fill(hidden, model.mask)[None])).logits[0]
            nll = -logits.log_softmax(-1).gather(-1, ids[:, None])[hidden].sum().item()
            total += math.factorial(m - 1) * math.factorial(L - m) / math.factorial(L) * nll
    return total


def test_the_loss_is_the_bound_over_all_masks(ids):
    model, text = lm().eval(), ids[0, 1:3]
    with torch.no_grad():
        torch.manual_seed(0)
        losses = [model.losses(text.expand(4000, 2))["nelbo"].item() for _ in range(5)]
        assert sum(losses) / 5 == pytest.approx(by_hand(model, text) / 2, rel=0.03)  # for each place


def test_the_bound_of_a_text_is_that_too_and_counts_words_and_end():
    corpus = FakeCorpus(length=6)
    model = lm(corpus).eval()
    texts = [["a", "cat", "sees"], ["a"]]
    nats, tokens = model.bound(texts, draws=1200)
    assert tokens == [4, 2]
    with torch.no_grad():
        expected = [by_hand(model, corpus.vocabulary.encode(words, 6)) for words in texts]
    assert nats == pytest.approx(expected, rel=0.01)


def test_the_bound_is_the_same_each_time_and_leaves_the_generator_alone():
    model = lm()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert model.bound([["a", "cat"]], 4) == model.bound([["a", "cat"]], 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_uniform_model_pays_log_v_for_each_place():
    model = lm()
    torch.nn.init.zeros_(model.readout.layer.weight)
    nats, _ = model.bound([["a", "cat"]], draws=3)
    assert nats[0] == pytest.approx(10 * math.log(len(model.corpus.vocabulary)), rel=1e-5)


def test_words_that_show_are_carried_over_and_the_mask_is_no_word(ids):
    model = lm().eval()
    z = model.noisy(ids, torch.full((6,), 0.5))
    prediction, masked = model(z), z[..., -1] > 0.5
    assert prediction.logits.shape[-1] == len(model.corpus.vocabulary) == model.mask
    assert 0 < masked.sum() < masked.numel()
    probabilities = prediction.logits.softmax(-1)
    torch.testing.assert_close(probabilities[~masked], model.one_hot(ids)[~masked][:, :-1])
    torch.testing.assert_close(prediction.x0[~masked], model.table()[ids[~masked]])
    torch.testing.assert_close(prediction.x0[masked], probabilities[masked] @ model.table())


def test_words_are_masked_as_often_as_the_time_says(ids):
    model, t = lm(), torch.tensor([0.1, 0.3, 0.9])
    z = torch.stack([model.noisy(ids[:3], t) for _ in range(2000)])
    torch.testing.assert_close(z[..., -1].mean((0, 2)), t, atol=0.02, rtol=0)
    assert torch.equal(z.argmax(-1)[z[..., -1] < 0.5], ids[:3].expand(2000, 3, 10)[z[..., -1] < 0.5])


def test_times_are_stratified():
    times = lm().times(64)
    share = (times - 1e-3) / (1 - 1e-3)
    assert sorted((share * 64).long().tolist()) == list(range(64))


def test_the_network_reads_no_time(ids):
    model = lm().eval()
    z = model.noisy(ids, torch.full((6,), 0.5))
    one, other = (model.predict(z, torch.full((6,), t)).logits for t in (0.1, 0.9))
    assert torch.equal(one, other)


def test_training_lowers_the_bound_and_learns_the_layout():
    corpus = FakeCorpus()
    model, texts = lm(corpus, window=8), [example.words for example in corpus.splits["dev"]]
    per_word = lambda: math.exp(sum(model.bound(texts)[0]) / sum(model.bound(texts)[1]))  # noqa: E731
    before = per_word()
    model.options = type(model.options)(**(OPTIM | {"batch_size": 32, "lr": 1e-2}))
    train(model, 150)
    assert per_word() < 0.2 * before
    alone = model(model.one_hot(torch.full((1, 10), model.mask))).logits.softmax(-1)[0]
    assert alone[0, 0] > 0.9 and alone[9, PAD] > 0.5


def test_a_window_crops_three_steps_of_four():
    model = lm(window=7)
    steps = model.steps()
    assert [model.collate(steps.indices(step)).shape[1] for step in range(4)] == [10, 7, 7, 7]


def test_evaluations_count_positions(ids):
    model = lm()
    model(model.one_hot(ids))
    assert model.token_evaluations == ids.numel()
