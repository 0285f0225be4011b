import math

import pytest
import torch
from torch.distributions import Normal
from torch.nn import functional as F

from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.objective import CrossEntropy, EndToEnd
from diffcontrol.diffusion.schedule import Cosine, Linear, Sqrt
from diffcontrol.text import PAD
from tests.fakes import OPTIM, FakeCorpus, train

MODEL = {"embedding": 8, "width": 16, "depth": 1, "heads": 2, "dropout": 0.0}


def lm(objective=None, schedule=None, corpus=None, seed=0, **kwargs) -> DiffusionLM:
    torch.manual_seed(seed)
    return DiffusionLM(corpus or FakeCorpus(), MODEL, objective or CrossEntropy(), schedule or Sqrt(), OPTIM, **kwargs)


@pytest.fixture(scope="module")
def ids():
    return FakeCorpus().ids["train"][:6]


# --- word vectors and noise


def test_word_vectors_have_norm_sqrt_d_under_cross_entropy_and_are_free_in_the_papers_objective():
    model = lm()
    model.embedding.weight.data *= torch.rand(len(model.embedding.weight), 1) * 5
    torch.testing.assert_close(model.table().norm(dim=-1), torch.full((15,), 8**0.5))
    torch.testing.assert_close(
        F.cosine_similarity(model.table(), model.embedding.weight), torch.ones(15)
    )  # only the length is fixed
    free = lm(EndToEnd())
    assert torch.equal(free.table(), free.embedding.weight)


@pytest.mark.parametrize("schedule", [Sqrt(), Cosine(), Linear()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("time", [0.02, 0.3, 0.9])
def test_moments_of_x_t_given_x_0(schedule, time):
    x0, count = torch.tensor([1.0, -2.0, 0.5, 0, 0, 3, 0, 0]), 20000
    x_t = lm(schedule=schedule).noised(x0.expand(count, 1, 8), torch.full((count,), time))[:, 0]
    alpha_bar = schedule.alpha_bar(torch.tensor(time)).item()
    torch.testing.assert_close(x_t.mean(0), math.sqrt(alpha_bar) * x0, atol=0.04, rtol=0)
    torch.testing.assert_close(x_t.T.cov(), (1 - alpha_bar) * torch.eye(8), atol=0.04, rtol=0)


def test_rows_are_noised_each_at_its_own_time():
    model = lm()
    x_t = model.noised(torch.zeros(2, 500, 8), torch.tensor([0.01, 0.9]))
    expected = (1 - model.schedule.alpha_bar(torch.tensor([0.01, 0.9]))).sqrt()
    torch.testing.assert_close(x_t.std(dim=(1, 2)), expected, atol=0.03, rtol=0)


def test_times_cover_what_is_in_use_evenly():
    model = lm()
    times = model.times(64)
    assert model.low > 0 and (times >= model.low).all() and (times <= 1).all()
    share = (times - model.low) / (1 - model.low)
    assert sorted((share * 64).long().tolist()) == list(range(64))  # one in each 64th
    assert share.tolist() != sorted(share.tolist())  # whichever row it falls to


# --- cross-entropy


@pytest.mark.parametrize("schedule", [Sqrt(), Sqrt(margin=None), Cosine(), Linear()], ids=["sqrt", "all", "cos", "lin"])
def test_rounding_undoes_embedding_for_a_fresh_model(schedule, ids):
    model = lm(schedule=schedule).eval()
    for time in (model.low, 0.5, 0.9):  # of equal vectors each is most like itself, however faint
        t = torch.full((len(ids),), time)
        prediction = model(model.schedule.alpha_bar(t)[:, None, None].sqrt() * model.table()[ids], t)
        assert torch.equal(prediction.logits.argmax(-1), ids)
        assert prediction.x0.isfinite().all()


def test_at_the_least_time_words_can_be_told_apart_through_the_noise(ids):
    model = lm(schedule=Sqrt(margin=20.0)).eval()
    t = torch.full((len(ids),), model.low)
    prediction = model(model.noised(model.table()[ids], t), t)
    assert torch.equal(prediction.logits.argmax(-1), ids)
    assert (prediction.x0 - model.table()[ids]).abs().max() < 0.1


@pytest.mark.parametrize("time", [0.05, 0.5, 0.95])
def test_the_likelihood_is_the_exact_posterior_where_nothing_is_known_of_the_words(time, ids):
    model, t = lm().eval(), torch.full((len(ids),), time)
    alpha_bar = model.schedule.alpha_bar(torch.tensor(time))
    x_t = model.noised(model.table()[ids], t)
    given_word = Normal(alpha_bar.sqrt() * model.table(), (1 - alpha_bar).sqrt())  # [V D]
    joint = given_word.log_prob(x_t[:, :, None]).sum(-1)  # [B L V], words equally likely beforehand
    posterior = joint.softmax(-1)
    prediction = model(x_t, t)
    torch.testing.assert_close(prediction.logits.softmax(-1), posterior, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(prediction.x0, posterior @ model.table(), atol=1e-3, rtol=1e-3)


def test_without_the_likelihood_a_fresh_model_knows_nothing(ids):
    model = lm(CrossEntropy(likelihood=False)).eval()
    prediction = model(model.table()[ids], torch.full((len(ids),), 0.1))
    torch.testing.assert_close(prediction.logits.softmax(-1), torch.full((len(ids), 10, 15), 1 / 15))


def test_cross_entropy_is_that_of_the_true_words(ids):
    model, t = lm(CrossEntropy(self_conditioning=0.0)), torch.linspace(0.1, 0.9, 6)
    torch.nn.init.normal_(model.readout.layer.weight)
    torch.manual_seed(5)
    (name, loss), = model.objective.losses(model, ids, t).items()  # fmt: skip
    torch.manual_seed(5)
    logits = model(model.noised(model.table()[ids], t), t).logits
    by_hand = [-logits[b, p].log_softmax(-1)[ids[b, p]] for b in range(6) for p in range(10)]  # PAD included
    assert name == "cross_entropy"
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())


def test_self_conditioning_is_an_input_only_where_it_is_trained(ids):
    with_it, without = lm(CrossEntropy(0.5)), lm(CrossEntropy(0.0))
    assert with_it.transformer.enter.weight.shape[1] - without.transformer.enter.weight.shape[1] == 8
    x_t, t = torch.randn(6, 10, 8), torch.full((6,), 0.5)
    torch.nn.init.normal_(with_it.readout.layer.weight)
    previous = with_it(x_t, t)
    assert (with_it(x_t, t, previous).logits - previous.logits).abs().max() > 1e-3
    torch.nn.init.normal_(without.readout.layer.weight)
    first = without(x_t, t)
    torch.testing.assert_close(without(x_t, t, first).logits, first.logits)


# --- the paper's objective


def by_hand(model, ids, t, seed):
    """The three terms of diffusion_lm.md §3.2 from the same draws."""
    torch.manual_seed(seed)
    embedded = model.embedding.weight[ids]
    x0 = embedded + math.sqrt(1 - 0.98536) * torch.randn(embedded.shape)  # ᾱ of the first of 2,000 steps
    epsilon = torch.randn(embedded.shape)
    f = lambda u: 1 - math.sqrt(u + 1e-4)  # noqa: E731
    rows = []
    for b, time in enumerate(t.tolist()):
        alpha_bar = max(f(time) / f(0), 2e-7)
        rows.append(math.sqrt(alpha_bar) * x0[b] + math.sqrt(1 - alpha_bar) * epsilon[b])
    predicted = model(torch.stack(rows), t).x0
    errors = [((embedded[b] if t[b] <= 1 / 2000 else x0[b]) - predicted[b]).square().mean() for b in range(len(ids))]
    logits = x0 @ model.embedding.weight.T + model.readout.bias
    rounding = -logits.log_softmax(-1).gather(-1, ids[..., None]).mean()
    return {"mse": torch.stack(errors).mean(), "rounding": rounding, "L_T": (math.sqrt(2e-7) * x0).square().mean()}


def test_the_papers_terms_by_hand(ids):
    model = lm(EndToEnd(), Sqrt(margin=None))
    t = torch.tensor([1 / 2000, 0.001, 0.3, 0.6, 0.9, 1.0])
    expected = by_hand(model, ids, t, seed=3)
    torch.manual_seed(3)
    terms = model.objective.losses(model, ids, t)
    assert set(terms) == {"mse", "rounding", "L_T"}
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name], rtol=2e-3, atol=1e-9)


def test_only_the_first_step_wants_the_clean_embedding(ids):
    model = lm(EndToEnd(), Sqrt(margin=None))
    for time, clean in ((1 / 2000, True), (2 / 2000, False)):
        t = torch.full((6,), time)
        model.forward = lambda x_t, t, previous=None: model.readout(torch.zeros(6, 10, 16), None, model.table())
        zero = model(torch.zeros(6, 10, 8), t).x0
        torch.manual_seed(1)
        mse = model.objective.losses(model, ids, t)["mse"]
        torch.manual_seed(1)
        x0 = model.embedding.weight[ids] + math.sqrt(1 - 0.98536) * torch.randn(6, 10, 8)
        wanted = model.embedding.weight[ids] if clean else x0
        torch.testing.assert_close(mse, (wanted - zero).square().mean(), rtol=1e-3, atol=0)


def test_l_t_is_as_inert_as_released(ids):
    model = lm(EndToEnd())
    term = model.objective.losses(model, ids, torch.full((6,), 0.5))["L_T"].item()
    mean_square = model.table()[ids].square().mean().item() + 0.121**2  # σ₀² is added to every coordinate
    assert term == pytest.approx(2e-7 * mean_square, rel=0.05)


def test_words_are_read_off_x0_by_the_tied_layer(ids):
    model = lm(EndToEnd()).eval()
    model.readout.bias.data.normal_()
    prediction = model(torch.randn(6, 10, 8), torch.full((6,), 0.5))
    torch.testing.assert_close(prediction.logits, prediction.x0 @ model.embedding.weight.T + model.readout.bias)


def test_the_bias_of_lm_head_starts_at_zero_and_is_not_decayed():
    """nn.Linear's bias in the released code; as a matrix [1 V] it was drawn from N(0, 1) and decayed."""
    model = lm(EndToEnd())
    assert model.readout.bias.shape == (15,) and not model.readout.bias.any()
    ((optimiser,), _) = model.configure_optimizers()
    decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert decays[id(model.readout.bias)] == 0 < decays[id(model.embedding.weight)]


@pytest.mark.parametrize("objective", [CrossEntropy(), EndToEnd()], ids=["cross_entropy", "end_to_end"])
def test_the_readout_owns_the_output_layers(objective, ids):
    """Hidden states, and what x_t alone says, are all that a prediction is made of."""
    model, t = lm(objective).eval(), torch.full((6,), 0.4)
    for parameter in model.readout.parameters():
        torch.nn.init.normal_(parameter)
    x_t = torch.randn(6, 10, 8)
    prediction = model(x_t, t)
    likelihood = model.log_likelihood(x_t, t) if objective.likelihood else None
    again = model.readout(prediction.hidden, likelihood, model.table())
    torch.testing.assert_close(again.x0, prediction.x0)
    torch.testing.assert_close(again.logits, prediction.logits)
    assert again.hidden is prediction.hidden
    outside = {n for n, _ in model.named_parameters() if n.split(".")[0] not in ("embedding", "transformer", "readout")}
    assert not outside


def test_the_likelihood_is_computed_once_a_look(ids, monkeypatch):
    calls = []
    model, whole = lm(CrossEntropy(0.0)).eval(), DiffusionLM.log_likelihood
    monkeypatch.setattr(DiffusionLM, "log_likelihood", lambda *args: calls.append(1) or whole(*args))
    model(torch.randn(6, 10, 8), torch.full((6,), 0.4))
    assert len(calls) == 1


@pytest.mark.parametrize("objective", [CrossEntropy(0.0), EndToEnd()], ids=["cross_entropy", "end_to_end"])
def test_the_gradient_reaches_the_word_vectors(objective, ids):
    model = lm(objective)
    for name, term in model.objective.losses(model, ids, torch.linspace(0.1, 0.9, 6)).items():
        (gradient,) = torch.autograd.grad(term, model.embedding.weight, retain_graph=True)
        assert (gradient[ids.unique()].abs().sum(-1) > 0).all(), name


@pytest.mark.parametrize("objective", [CrossEntropy(), EndToEnd()], ids=["cross_entropy", "end_to_end"])
def test_training_lowers_the_loss(objective):
    model = lm(objective, window=8)
    losses = train(model, 100)
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])


# --- what is read


def test_few_texts_that_fit_a_window_are_not_learned_by_heart():
    model = lm(window=5)
    fitting = (model.corpus.ids["train"][:, 5:] == PAD).all(-1)
    assert 0 < fitting.sum() < len(fitting) / 2
    read = [i for step in range(40) for i in model.steps().indices(step)]
    assert abs(fitting[read].float().mean() - fitting.float().mean()) < 0.1


def test_a_window_crops_three_steps_of_four_and_loses_no_word():
    model = lm(window=7)
    corpus, steps = model.corpus, model.steps()
    assert any(len(example.words) > 5 for example in corpus.splits["train"])
    for step in range(12):
        indices = steps.indices(step)
        batch = model.collate(indices)
        texts = [corpus.vocabulary.decode(row) for row in batch.tolist()]
        assert texts == [list(corpus.splits["train"][i].words) for i in indices]
        if step % 4:
            assert batch.shape[1] == 7
    assert {model.collate(steps.indices(step)).shape[1] for step in range(0, 40, 4)} == {10}


def test_evaluations_count_positions(ids):
    model = lm()
    model(torch.randn(3, 10, 8), torch.full((3,), 0.5))
    model(torch.randn(2, 7, 8), torch.full((2,), 0.5))
    assert model.token_evaluations == 30 + 14
