"""What every option of conf/guidance must keep, on an exact denoiser and with a control of one word.

A new guidance is found here by its file in conf/guidance.
"""

import pytest
import torch
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
from tests.composing import composed, options
from tests.exact import NOTHING, WORDS, D, Deaf, First, L, Posterior, step, steps_of, walk
from tests.fakes import OPTIM, FakeCorpus

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
ROWS = 60
TARGETS = [WORDS[row % len(WORDS)] for row in range(ROWS)]


@pytest.fixture(scope="module", params=options("guidance"))
def node(request) -> dict:
    return composed(f"guidance={request.param}")["guidance"]


@pytest.fixture(scope="module")
def acts(node):
    """Its constructor from conf with some arguments changed, if it acts at all."""
    if isinstance(instantiate(node), Unguided):
        pytest.skip("it is the one that does nothing")
    return lambda **changes: instantiate({**node, **changes})


class Blurred(Posterior):
    """Its x̂₀ is not the expected word vector, as that of a network which predicts vectors and rounds them."""

    def __call__(self, x_t, t, previous=None):
        found = super().__call__(x_t, t, previous)
        return Prediction(0.9 * found.x0 + 0.05, found.logits, found.hidden)


def obeying(predictions) -> float:
    """The share of rows whose first word is their target."""
    return (predictions[-1].logits[:, 0].argmax(-1) == torch.tensor(TARGETS)).float().mean().item()


def differ(one: Prediction, other: Prediction) -> bool:
    return any(not torch.equal(a, b) for a, b in ((one.x0, other.x0), (one.logits, other.logits)))


def test_its_file_in_conf_makes_a_guidance_and_lists_all_that_can_be_set(node):
    guidance = instantiate(node)
    assert isinstance(guidance, Guidance)
    if not isinstance(guidance, Unguided):
        assert {"start", "stop", "stride"} <= set(node)


def test_it_makes_texts_obey_at_some_strength(acts):
    free = obeying(walk(rows=ROWS))
    shares = [obeying(walk(acts(), Weighted([(strength, First(TARGETS))]), ROWS)) for strength in STRENGTHS]
    assert free < 0.4 and max(shares) > free + 0.5, shares  # by chance 1 in 6


def test_rows_are_moved_by_their_own_target_alone(acts):
    one = walk(acts(), Weighted([(3.0, First([4, 5, 6]))]), 3)
    other = walk(acts(), Weighted([(3.0, First([4, 8, 6]))]), 3)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.x0[[0, 2]], b.x0[[0, 2]], atol=1e-4, rtol=1e-4)
    assert (one[-1].x0[1] - other[-1].x0[1]).abs().max() > 0.1


@pytest.mark.parametrize("objective", [CrossEntropy(), EndToEnd()], ids=["cross_entropy", "end_to_end"])
def test_without_a_control_it_leaves_everything_as_it_is(node, objective):
    torch.manual_seed(0)
    model = {"embedding": 8, "width": 16, "depth": 1, "heads": 2, "dropout": 0.0}
    lm = DiffusionLM(FakeCorpus(), model, objective, Sqrt(), OPTIM).eval().requires_grad_(False)
    texts = [
        GuidedDiffusion(lm, DDIM(4), guidance, Rounding(1.2), {}, {}).generate([Request({})], 5)
        for guidance in (instantiate(node), Unguided())
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("denoiser", [Posterior, Blurred])
def test_of_those_that_change_the_prediction_strength_0_is_unguided(acts, denoiser):
    if type(acts()).predict is Guidance.predict:
        pytest.skip("it moves the draw, and its fluency term acts by itself")
    for control in (NOTHING, Weighted([(0.0, First([4, 5, 6]))])):
        found, free = walk(acts(), control, denoiser=denoiser()), walk(denoiser=denoiser())
        assert not any(differ(a, b) for a, b in zip(found, free, strict=True))


def test_a_control_without_a_gradient_is_borne(acts):
    control = Weighted([(1.0, Deaf()), (3.0, First([4, 5, 6]))])
    assert differ(walk(acts(), control)[-1], walk()[-1])
    assert walk(acts(), Weighted([(1.0, Deaf())]))[-1].x0.isfinite().all()


def test_nothing_that_is_handed_on_carries_a_graph(acts):
    x_s, _, prediction = step(acts(), Weighted([(3.0, First([4, 5, 6]))]))
    assert not any(tensor.requires_grad for tensor in (x_s, prediction.x0, prediction.logits, prediction.hidden))
    for prediction in walk(acts(), Weighted([(3.0, First([4, 5, 6]))])):
        assert not any(tensor.requires_grad for tensor in (prediction.x0, prediction.logits, prediction.hidden))


def test_it_works_where_gradients_are_switched_off(acts):
    with torch.no_grad():
        quiet = walk(acts(), Weighted([(3.0, First([4, 5, 6]))]))
    loud = walk(acts(), Weighted([(3.0, First([4, 5, 6]))]))
    torch.testing.assert_close(quiet[-1].x0, loud[-1].x0)


@pytest.mark.parametrize(("window", "count"), [
    ({}, 30), ({"start": 0.5}, 15), ({"stop": 0.5}, 15), ({"start": 0.7, "stop": 0.2}, 15), ({"stride": 3}, 10),
    ({"start": 0.5, "stride": 4}, 4), ({"start": 0.2, "stop": 0.4}, 0),
])  # fmt: skip
def test_start_stop_and_stride_say_at_which_steps_it_acts(acts, window, count):
    guidance, control, denoiser = acts(**window), First([4, 5, 6]), Posterior()
    found, free = walk(guidance, Weighted([(3.0, control)]), denoiser=denoiser), walk()
    steps = steps_of(DDIM(30), denoiser.low)
    inside = guidance.acting([t for t, _ in steps] + [steps[-1][1]], denoiser.low)
    width = 1 - denoiser.low
    least, most = (denoiser.low + width * window.get(name, edge) for name, edge in (("stop", 0.0), ("start", 1.0)))
    assert abs(len(inside) - count) <= 1 and all(least - 1e-5 <= s <= most + 1e-5 for _, s in inside)
    # The control is asked at one end of these steps: before the transition, or after the draw.
    asked = list(dict.fromkeys(control.times))
    assert asked in ([t for t, _ in inside], [s for _, s in inside])
    # Until it acts for the first time all is as it would be without it.
    before = steps.index(inside[0]) if inside else len(steps) + 1
    assert not any(differ(a, b) for a, b in zip(found[:before], free[:before], strict=True))
    assert not inside or differ(found[-1], free[-1])


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
            logits[:, 2:, 3] = 1e4
            return Prediction(logits.softmax(-1) @ self.table(), logits, found.hidden)

    walk(acts(), Weighted([(3.0, Seeing([4, 5, 6]))]), denoiser=Short(), length=L + 3)
    assert all(len(sizes) == 1 for sizes in seen) and seen[-1] == {3}
    assert D == 8
