import copy
import math
from contextlib import contextmanager
from dataclasses import replace

import mpmath
import pytest
import torch
from diffcontrol.tasks.length import Length
from diffcontrol.tasks.parts_of_speech import PartsOfSpeech
from diffcontrol.tasks.semantic_content import MentionHead, SemanticContent
from diffcontrol.tasks.syntax_spans import SyntaxSpans

from diffcontrol.diffusion.decoding import Rounding
from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.objective import CrossEntropy
from diffcontrol.diffusion.sampler import DDIM
from diffcontrol.diffusion.schedule import Sqrt
from diffcontrol.guidance.langevin import Langevin
from diffcontrol.methods.guided_diffusion import GuidedDiffusion
from diffcontrol.steering.base import Look, Weighted
from diffcontrol.steering.classifier import ControlClassifier, DenoiserEncoder, NoisyEncoder, StackedEncoder
from diffcontrol.task import Request
from tests.fakes import COLOURS, OPTIM, FakeCorpus, FakeTask, train

MODEL = {"embedding": 16, "width": 32, "depth": 1, "heads": 2, "dropout": 0.0}
LEARN = OPTIM | {"batch_size": 32, "lr": 1e-2}
ENCODERS = {"denoiser": DenoiserEncoder(), "noisy": NoisyEncoder(width=12, depth=1, heads=2),
            "stacked": StackedEncoder(width=12, depth=1, heads=2)}  # fmt: skip


@pytest.fixture(scope="module")
def lm() -> DiffusionLM:
    torch.manual_seed(0)
    model = DiffusionLM(FakeCorpus(), MODEL, CrossEntropy(), Sqrt(margin=6.0), LEARN)
    train(model, 100)
    return model.eval().requires_grad_(False)


def classifier(lm, encoder="denoiser", task=None) -> ControlClassifier:
    torch.manual_seed(1)
    return ControlClassifier(task or FakeTask(), lm, ENCODERS[encoder], lm.corpus, OPTIM)


def look(x_t, t, prediction) -> Look:
    return Look(x_t, t, lambda: prediction)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_mention_is_a_noisy_or_over_positions_and_no_rival_is_mentioned():
    torch.manual_seed(0)
    pairs = {("food", "Italian"): 0, ("food", "Thai"): 1, ("area", "riverside"): 2}
    head = MentionHead(5, pairs)
    torch.nn.init.normal_(head.score[-1].bias)
    hidden = torch.randn(3, 4, 5)
    scores = head.score(hidden).tolist()
    present = [[1 - math.prod(1 - sigmoid(scores[b][p][k]) for p in range(4)) for k in range(3)] for b in range(3)]
    asked = [("area", "riverside"), ("food", "Italian"), ("food", "Italian")]
    rivals = {("food", "Italian"): [1], ("food", "Thai"): [0], ("area", "riverside"): []}  # of the same field
    expected = [
        math.log(present[b][pairs[pair]]) + sum(math.log(1 - present[b][k]) for k in rivals[pair])
        for b, pair in enumerate(asked)
    ]
    assert head.log_prob(hidden, asked).tolist() == pytest.approx(expected, rel=1e-4)
    annotations = [[["food", "Thai"], ["area", "riverside"]], [], [["food", "Italian"]]]
    nll = 0.0
    for b, annotation in enumerate(annotations):
        for pair, k in pairs.items():
            nll -= math.log(present[b][k] if list(pair) in annotation else 1 - present[b][k])
    assert head.loss(hidden, annotations).item() == pytest.approx(nll / 3, rel=1e-4)


def test_a_mention_no_position_hints_at_still_has_a_gradient():
    head = MentionHead(5, {("food", "Italian"): 0})
    torch.nn.init.constant_(head.score[-1].bias, -40.0)
    hidden = torch.randn(1, 4, 5, requires_grad=True)
    log_prob = head.log_prob(hidden, [("food", "Italian")])
    assert log_prob.isfinite().all() and log_prob < -35
    (gradient,) = torch.autograd.grad(log_prob.sum(), hidden)
    assert gradient.abs().max() > 1e-3


def test_encoder_denoiser_reads_the_prediction_and_has_no_network(lm):
    model = classifier(lm)
    hidden, x0 = torch.randn(2, 10, 32), torch.randn(2, 10, 16)
    prediction = Prediction(x0, torch.zeros(2, 10, 15), hidden)
    control = model.control(["red", "blue"])
    expected = model.head.log_prob(torch.cat([hidden, x0], -1), ["red", "blue"])
    for x_t in (torch.zeros(2, 10, 16), torch.randn(2, 10, 16)):
        torch.testing.assert_close(control.log_prob(look(x_t, torch.tensor([0.1, 0.9]), prediction)), expected)
    assert not list(model.network.parameters())


def test_encoder_denoiser_gives_a_gradient_through_the_denoiser(lm):
    model, t = classifier(lm), torch.full((2,), 0.5)
    x_t = torch.randn(2, 10, 16, requires_grad=True)
    log_prob = model.control(["red", "blue"]).log_prob(look(x_t, t, lm(x_t, t)))
    (gradient,) = torch.autograd.grad(log_prob.sum(), x_t)
    assert (gradient.abs().sum((1, 2)) > 0).all()


def test_encoder_noisy_has_a_network_of_its_own_that_reads_x_t_and_the_time(lm):
    model, t = classifier(lm, "noisy"), torch.full((2,), 0.5)
    for block in model.network.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.1)
    assert model.network.positions.shape == (10, 12) and model.head.logits.in_features == 12
    x_t = torch.randn(2, 10, 16, requires_grad=True)
    control = model.control(["red", "blue"])
    log_prob = control.log_prob(look(x_t, t, None))  # nothing of the language model is needed
    (gradient,) = torch.autograd.grad(log_prob.sum(), x_t)
    assert (gradient.abs().sum((1, 2)) > 0).all()
    assert (control.log_prob(look(x_t, t - 0.4, None)) - log_prob).abs().max() > 1e-4


def test_encoder_stacked_reads_the_prediction_and_the_time_with_a_network_that_muon_may_train(lm):
    model, t = classifier(lm, "stacked"), torch.full((2,), 0.5)
    for block in model.network.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.1)
    hidden = torch.randn(2, 10, 32, requires_grad=True)
    prediction = Prediction(torch.randn(2, 10, 16, requires_grad=True), torch.zeros(2, 10, 15), hidden)
    control = model.control(["red", "blue"])
    log_prob = control.log_prob(look(torch.zeros(2, 10, 16), t, prediction))
    for gradient in torch.autograd.grad(log_prob.sum(), (prediction.hidden, prediction.x0)):
        assert (gradient.abs().sum((1, 2)) > 0).all()
    torch.testing.assert_close(control.log_prob(look(torch.randn(2, 10, 16), t, prediction)), log_prob)
    assert (control.log_prob(look(torch.zeros(2, 10, 16), t - 0.4, prediction)) - log_prob).abs().max() > 1e-4
    assert {p.shape for p in model.hidden()} >= {(36, 12), (12, 12)} and not classifier(lm).hidden()


def test_a_second_network_is_counted_in_what_guidance_costs(lm):
    x_t, t = torch.randn(2, 10, 16), torch.full((2,), 0.5)
    prediction = lm(x_t, t)
    for encoder, expected in (("denoiser", 0), ("noisy", 2 * 10), ("stacked", 2 * 10)):
        model = classifier(lm, encoder)
        model.control(["red", "blue"]).log_prob(look(x_t, t, prediction))
        assert model.token_evaluations == expected


@pytest.mark.parametrize("encoder", ENCODERS)
def test_guidance_runs_the_denoiser_at_inner_steps_only_if_the_encoder_reads_it(lm, encoder):
    """A separate network reads x_t alone: guided by it, the denoiser runs as often as unguided."""
    torch.manual_seed(1)
    model = classifier(lm, encoder).eval().requires_grad_(False)
    guided, free = (
        GuidedDiffusion(lm, DDIM(6), Langevin({"colour": 1.0}, inner=2), Rounding(), steering)
        for steering in ({"colour": model}, {})
    )
    requests, costs = [Request({"colour": colour}) for colour in COLOURS], []
    with counted(lm) as calls:
        for method in (guided, free):
            method.generate(requests, 1)
            costs.append(len(calls))
            calls.clear()
    assert costs[1] == 7
    assert costs[0] == 7 + (0 if encoder == "noisy" else 2 * 6)
    assert bool(model.token_evaluations) == (encoder != "denoiser")


@contextmanager
def counted(lm):
    """The calls of a language model's forward pass."""
    calls = []
    handle = lm.register_forward_pre_hook(lambda *_: calls.append(1))
    yield calls
    handle.remove()


def test_training_a_second_network_runs_no_denoiser(lm):
    with counted(lm) as calls:
        for encoder, expected in (("noisy", {0}), ("denoiser", {1, 2}), ("stacked", {1, 2})):
            model = classifier(lm, encoder)
            model.losses(model.collate([0, 1, 2]))
            assert len(calls) in expected
            calls.clear()


def test_heads_read_the_prediction_as_they_were_trained_on_it(lm):
    """At temperature 1, whatever the decoding of the reverse step is; they were read at 1.2 before."""
    read = []

    class Spying(DenoiserEncoder):
        def hidden(self, network, look):
            read.append(look.prediction)
            return super().hidden(network, look)

    torch.manual_seed(1)
    model = ControlClassifier(FakeTask(), lm, Spying(), lm.corpus, OPTIM).eval().requires_grad_(False)
    for decoding in (Rounding(1.2), Rounding(0.5, clamp=1.0)):
        method = GuidedDiffusion(lm, DDIM(4), Langevin({"colour": 1.0}), decoding, {"colour": model})
        method.generate([Request({"colour": "red"})], 2)
    assert len(read) == 8
    for prediction in read:
        torch.testing.assert_close(prediction.x0, prediction.logits.softmax(-1) @ lm.table())


@pytest.mark.parametrize("absent", [1e-30, 1e-20, 1e-10, 1e-7, 1e-6, 1e-3, 0.1, 0.69, 0.7, 1.0, 5.0, 20.0, 80.0])
def test_how_sure_a_mention_is_and_its_gradient_are_right_however_unlikely_it_is(absent):
    """log(1 − e^(−a)) and 1/(e^a − 1); below a = 1e-6 there once was no gradient, just where control needs it."""
    with mpmath.workdps(60):
        a = mpmath.mpf(absent)
        value, slope = float(mpmath.log(1 - mpmath.exp(-a))), float(1 / (mpmath.exp(a) - 1))
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        given = torch.tensor(absent, dtype=dtype, requires_grad=True)
        found = MentionHead._log_present(given)
        (gradient,) = torch.autograd.grad(found, given)
        assert found.item() == pytest.approx(value, rel=tolerance, abs=1e-37)
        assert gradient.item() == pytest.approx(slope, rel=tolerance, abs=1e-37)


def test_an_impossible_mention_is_borne():
    given = torch.tensor([0.0, 1e-45, 200.0], requires_grad=True)
    found = MentionHead._log_present(given)
    (gradient,) = torch.autograd.grad(found.sum(), given)
    assert found.isfinite().all() and gradient.isfinite().all()


def test_a_control_of_a_place_behind_the_texts_end_still_reads_it(lm):
    """Words 5 to 6 are to be a noun phrase, while the language model's texts end before."""
    model = ControlClassifier(SyntaxSpans(Trees()), lm, DenoiserEncoder(), lm.corpus, OPTIM).eval()
    model.requires_grad_(False)
    assert model.least([5, 6, "NP"]) == 9 and model.positions([5, 6, "NP"]) is None
    method = GuidedDiffusion(lm, DDIM(8), Langevin({"spans": 1.0}), Rounding(), {"spans": model})
    assert len(method.generate([Request({"spans": [5, 6, "NP"]})], 3)[0]) == 3


class Trees(FakeCorpus):
    """Every text is one noun phrase."""

    def _example(self, drawn):
        example = super()._example(drawn)
        return replace(example, tree=f"(TOP (NP {' '.join(f'(NN {word})' for word in example.words)}))")


def test_texts_of_a_known_number_of_words_take_as_many_positions(lm):
    for task, target, words in ((PartsOfSpeech(lm.corpus), ["DET", "NOUN"], 2), (Length(lm.corpus), 5, 5)):
        model = ControlClassifier(task, lm, DenoiserEncoder(), lm.corpus, OPTIM)
        assert model.positions(target) == model.least(target) == words + 2
    assert classifier(lm).positions("red") is None


@pytest.mark.parametrize("encoder", ENCODERS)
def test_only_the_classifier_trains(lm, encoder):
    model, before = classifier(lm, encoder), copy.deepcopy(lm.state_dict())
    own = {name: weight.clone() for name, weight in model.named_parameters() if not name.startswith("lm.")}
    train(model, 3)
    assert all(torch.equal(weight, before[name]) for name, weight in lm.state_dict().items())
    assert all(not torch.equal(model.get_parameter(name), weight) for name, weight in own.items())


def test_it_learns_to_tell_what_a_noisy_text_says(lm):
    torch.manual_seed(1)
    model = ControlClassifier(SemanticContent(lm.corpus), lm, DenoiserEncoder(), lm.corpus, LEARN)
    train(model, 250)
    values = [{field: value for field, value, *_ in found} for found in model.annotations]
    said = [(i, found["colour"]) for i, found in enumerate(values) if "colour" in found]
    ids = lm.corpus.ids["train"][[i for i, _ in said]]
    t = torch.full((len(ids),), lm.low)
    x_t = lm.noised(lm.table()[ids], t)
    asked = [model.control([["colour", colour]] * len(ids)).log_prob(look(x_t, t, lm(x_t, t))) for colour in COLOURS]
    best = torch.stack(asked).argmax(0).tolist()
    right = sum(COLOURS[k] == colour for k, (_, colour) in zip(best, said, strict=True))
    assert right > 0.85 * len(said)  # by chance 1 in 3


def test_a_control_asks_each_row_for_its_own_target(lm):
    model, t = classifier(lm), torch.full((3,), 0.3)
    x_t = torch.randn(3, 10, 16)
    prediction = lm(x_t, t)
    mixed = model.control(["red", "green", "red"]).log_prob(look(x_t, t, prediction))
    red, green = (model.control([c] * 3).log_prob(look(x_t, t, prediction)) for c in ("red", "green"))
    torch.testing.assert_close(mixed, torch.stack([red[0], green[1], red[2]]))


def test_a_weighted_sum_of_controls(lm):
    one, other, t = classifier(lm), classifier(lm, task=FakeTask(["cat", "dog"])), torch.full((2,), 0.3)
    x_t = torch.randn(2, 10, 16)
    prediction = lm(x_t, t)
    red, cat = one.control(["red", "red"]), other.control(["cat", "dog"])
    total = Weighted([(2.0, red), (0.5, cat)]).log_prob(look(x_t, t, prediction))
    expected = 2 * red.log_prob(look(x_t, t, prediction)) + 0.5 * cat.log_prob(look(x_t, t, prediction))
    torch.testing.assert_close(total, expected)
    assert Weighted([]).log_prob(look(x_t, t, prediction)).tolist() == [0, 0]


def test_annotations_belong_to_the_texts_of_the_batch(lm):
    model = classifier(lm, task=SemanticContent(lm.corpus))
    indices = model.steps().indices(3)
    ids, annotations = model.collate(indices)
    for row, annotation in zip(ids.tolist(), annotations, strict=True):
        words = lm.corpus.vocabulary.decode(row)
        assert annotation and all(value in words for _, value, *_ in annotation)
