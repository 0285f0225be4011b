"""What every option of conf/guidance must keep, on an exact denoiser and with a control of one word.

A new guidance is found here by its file in conf/guidance.
"""

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from diffcontrol.diffusion.decoding import Rounding
from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.objective import CrossEntropy, EndToEnd
from diffcontrol.diffusion.sampler import DDIM
from diffcontrol.diffusion.schedule import Sqrt
from diffcontrol.guidance.base import Guidance, Unguided
from diffcontrol.methods.guided_diffusion import GuidedDiffusion
from diffcontrol.steering.base import Weighted
from diffcontrol.task import Request
from diffcontrol.text import PAD
from tests.composing import composed, options
from tests.exact import NOTHING, WORDS, Deaf, First, L, Posterior, step, steps_of, walk
from tests.fakes import OPTIM, FakeCorpus

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
ROWS = 60
TARGETS = [WORDS[row % len(WORDS)] for row in range(ROWS)]
THREE, OTHER = [4, 5, 6], [4, 8, 6]


@pytest.fixture(scope="module", params=options("guidance"))
def node(request) -> dict:
    return composed(f"guidance={request.param}")["guidance"]


@pytest.fixture(scope="module")
def acts(node):
    """Its constructor from conf with some arguments changed, if it acts at all; of a guidance around another one both
    are changed."""
    if isinstance(instantiate(node), Unguided):
        pytest.skip("it is the one that does nothing")

    def changed(of: dict, arguments: dict) -> dict:
        inner = {key: value for key, value in of.items() if isinstance(value, dict) and "stride" in value}
        return {**of, **{key: changed(value, arguments) for key, value in inner.items()}, **arguments}

    return lambda **arguments: instantiate(changed(node, arguments))


class Blurred(Posterior):
    """Its x̂₀ is not the expected word vector, as that of a network which predicts vectors and rounds them."""

    def __call__(self, x_t, t, previous=None):
        found = super().__call__(x_t, t, previous)
        return Prediction(0.9 * found.x0 + 0.05, found.logits, found.hidden)


def asked(guidance, targets, strength=3.0, of=First):
    """The control of the first word, for all particles of each text."""
    return Weighted([(strength, of([target for target in targets for _ in range(guidance.particles)]))])


def guided(guidance, targets, strength=3.0, of=First, **options) -> list[Prediction]:
    return walk(guidance, asked(guidance, targets, strength, of), len(targets) * guidance.particles, **options)


def unguided(guidance, rows=3, **options) -> list[Prediction]:
    """The same places and noise without guidance."""
    return walk(rows=rows * guidance.particles, **options)


def obeying(predictions, guidance) -> float:
    """The share of texts whose first word is their target."""
    words = predictions[-1].logits[:: guidance.particles, 0].argmax(-1)
    return (words == torch.tensor(TARGETS)).float().mean().item()


def differ(one: Prediction, other: Prediction) -> bool:
    return any(not torch.equal(a, b) for a, b in ((one.x0, other.x0), (one.logits, other.logits)))


def test_its_file_in_conf_makes_a_guidance_and_lists_all_that_can_be_set(node):
    guidance = instantiate(node)
    assert isinstance(guidance, Guidance)
    if not isinstance(guidance, Unguided):
        assert {"start", "stop", "stride"} <= set(node)
        assert "default" in guidance.strength and guidance.strength["default"] > 0


def test_it_makes_texts_obey_at_some_strength(acts):
    free = obeying(unguided(acts(), ROWS), acts())
    shares = [obeying(guided(acts(), TARGETS, strength), acts()) for strength in STRENGTHS]
    assert free < 0.4 and max(shares) > free + 0.5, shares  # by chance 1 in 6


def test_rows_are_moved_by_their_own_target_alone(acts):
    one, other = guided(acts(), THREE, seed=1), guided(acts(), OTHER, seed=1)
    k = acts().particles
    for a, b in zip(one, other, strict=True):
        for rows in (slice(k), slice(2 * k, 3 * k)):
            torch.testing.assert_close(a.x0[rows], b.x0[rows], atol=1e-4, rtol=1e-4)
    assert (one[-1].x0[k : 2 * k] - other[-1].x0[k : 2 * k]).abs().max() > 0.1


@pytest.mark.parametrize("objective", [CrossEntropy(), EndToEnd()], ids=["cross_entropy", "end_to_end"])
def test_without_a_control_it_leaves_everything_as_it_is(node, objective):
    torch.manual_seed(0)
    model = {"embedding": 8, "width": 16, "depth": 1, "heads": 2, "dropout": 0.0}
    lm = DiffusionLM(FakeCorpus(), model, objective, Sqrt(), OPTIM).eval().requires_grad_(False)
    texts = [
        GuidedDiffusion(lm, DDIM(4), guidance, Rounding(1.2), {}).generate([Request({})], 5)
        for guidance in (instantiate(node), Unguided())
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("denoiser", [Posterior, Blurred])
def test_of_those_that_change_the_prediction_strength_0_is_unguided(acts, denoiser):
    kind = type(acts())
    if kind.predict is Guidance.predict or kind.move is not Guidance.move or kind.bind is not Guidance.bind:
        pytest.skip("it moves the draw, or lets another guidance do it")
    for control in (NOTHING, Weighted([(0.0, First(THREE))])):
        found, free = walk(acts(), control, denoiser=denoiser()), walk(denoiser=denoiser())
        assert not any(differ(a, b) for a, b in zip(found, free, strict=True))


def test_a_control_without_a_gradient_is_borne(acts):
    rows, deaf = 3 * acts().particles, (1.0, Deaf())
    control = Weighted([deaf, *asked(acts(), THREE).parts])
    assert differ(walk(acts(), control, rows)[-1], walk(rows=rows)[-1])
    assert walk(acts(), Weighted([deaf]), rows)[-1].x0.isfinite().all()


def test_nothing_that_is_handed_on_carries_a_graph(acts):
    x_s, _, prediction = step(acts(), asked(acts(), THREE), rows=3 * acts().particles)
    assert not any(tensor.requires_grad for tensor in (x_s, prediction.x0, prediction.logits, prediction.hidden))
    for prediction in guided(acts(), THREE):
        assert not any(tensor.requires_grad for tensor in (prediction.x0, prediction.logits, prediction.hidden))


def test_it_works_where_gradients_are_switched_off(acts):
    with torch.no_grad():
        quiet = guided(acts(), THREE)
    torch.testing.assert_close(quiet[-1].x0, guided(acts(), THREE)[-1].x0)


@pytest.mark.parametrize(("window", "count"), [
    ({}, 30), ({"start": 0.5}, 15), ({"stop": 0.5}, 15), ({"start": 0.7, "stop": 0.2}, 15), ({"stride": 3}, 10),
    ({"start": 0.5, "stride": 4}, 4), ({"start": 0.41, "stop": 0.41}, 0),
])  # fmt: skip
def test_start_stop_and_stride_say_at_which_steps_it_acts(acts, window, count):
    guidance, denoiser = acts(**{"stride": 1} | window), Posterior()
    control = asked(guidance, THREE)
    found = walk(guidance, control, 3 * guidance.particles, denoiser)
    free = unguided(guidance)
    steps = steps_of(DDIM(30), denoiser.low)
    inside = guidance.acting([t for t, _ in steps] + [steps[-1][1]], denoiser.low)
    width = 1 - denoiser.low
    least, most = (denoiser.low + width * window.get(name, edge) for name, edge in (("stop", 0.0), ("start", 1.0)))
    assert abs(len(inside) - count) <= 1 and all(least - 1e-5 <= s <= most + 1e-5 for _, s in inside)
    # Until it acts for the first time all is as it would be without it.
    before = steps.index(inside[0]) if inside else len(steps) + 1
    assert not any(differ(a, b) for a, b in zip(found[:before], free[:before], strict=True))
    assert not inside or differ(found[-1], free[-1])
    if type(guidance).bind is Guidance.bind:
        # The control is asked at one end of these steps: before the transition, or after the draw. What acts before
        # it also acts on the last look, which decides the words.
        times = list(dict.fromkeys(control.parts[0][1].times))
        last = [s for _, s in inside[-1:] if s == steps[-1][1]]
        assert times in ([t for t, _ in inside] + last, [s for _, s in inside])


def test_one_that_would_act_nowhere_is_refused(acts):
    with pytest.raises(
        InstantiationException, match=r"guidance.start=0.2: it is less than guidance.stop=0.4, so no step"
    ):
        acts(start=0.2, stop=0.4)


def test_it_is_told_of_fewer_positions_when_texts_have_ended(acts):
    """The control sees no more positions than are still computed, and as many in x_t, σ and the prediction."""
    seen = []

    class Seeing(First):
        def log_prob(self, look):
            spread = look.x_t if look.spread is None else look.spread
            seen.append({look.x_t.shape[1], look.prediction.x0.shape[1], spread.shape[1]})
            return super().log_prob(look)

    class Short(Posterior):
        """Words 0 and 1, then PAD."""

        def __call__(self, x_t, t, previous=None):
            found = super().__call__(x_t, t, previous)
            logits = found.logits.clone()
            logits[:, 2:, PAD] = 1e4
            return Prediction(logits.softmax(-1) @ self.table(), logits, found.hidden)

    guided(acts(), THREE, of=Seeing, denoiser=Short(), length=L + 3)
    assert all(len(sizes) == 1 for sizes in seen) and seen[-1] == {3}
