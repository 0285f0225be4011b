"""x̂₀ pulled towards known words: in closed form, and in the paper's own setting for length."""

import pytest
import torch
from diffcontrol.tasks.length import Length

from diffcontrol.diffusion.decoding import Rounding
from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.objective import CrossEntropy
from diffcontrol.diffusion.sampler import DDIM
from diffcontrol.diffusion.schedule import Sqrt
from diffcontrol.guidance.langevin import Langevin
from diffcontrol.methods.guided_diffusion import GuidedDiffusion
from diffcontrol.steering.base import Look
from diffcontrol.steering.pull import Pull
from diffcontrol.task import Request
from tests.fakes import OPTIM, FakeCorpus, train

MODEL = {"embedding": 16, "width": 32, "depth": 1, "heads": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def lm() -> DiffusionLM:
    torch.manual_seed(0)
    model = DiffusionLM(FakeCorpus(), MODEL, CrossEntropy(), Sqrt(), OPTIM | {"batch_size": 32, "lr": 1e-2})
    train(model, 150)
    return model.eval().requires_grad_(False)


def by_hand(lm, x0, lengths):
    """Squared distances of START and END, and of nothing behind END."""
    start, end = lm.table()[0], lm.table()[1]
    return torch.stack([
        -((x0[i, 0] - start) ** 2).sum() - ((x0[i, n + 1] - end) ** 2).sum() for i, n in enumerate(lengths)
    ])  # fmt: skip


@pytest.mark.parametrize("sigma", [0.998, 0.1, None])
def test_pulling_is_the_squared_distance_to_the_words_up_to_end_over_sigma(lm, sigma):
    """As released (langevin_fn_length); a strength cannot stand for σ, which falls from 0.998 to about 0.1."""
    x0 = torch.randn(2, 10, 16)
    spread = None if sigma is None else torch.tensor(sigma).expand(2, 10, 16)
    look = Look(x0, torch.zeros(2), lambda: Prediction(x0, x0, x0), spread)
    found = Pull(Length(lm.corpus), lm).control([3, 8]).log_prob(look)
    torch.testing.assert_close(found, by_hand(lm, x0, (3, 8)) / (sigma or 1.0), atol=1e-3, rtol=1e-4)


def test_of_fewer_positions_those_that_are_there_are_pulled(lm):
    x0 = torch.randn(1, 5, 16)
    look = Look(x0, torch.zeros(1), lambda: Prediction(x0, x0, x0), torch.ones(1, 5, 16))
    found = Pull(Length(lm.corpus), lm).control([3]).log_prob(look)
    torch.testing.assert_close(found, by_hand(lm, x0, (3,)))
    assert Pull(Length(lm.corpus), lm).least(3) == 5  # the sampler leaves at least so many


def write(lm, decoding, strength, lengths=range(1, 9), samples=5):
    pull = Pull(Length(lm.corpus), lm)
    guidance = Langevin({"length": strength}, inner=3)
    method = GuidedDiffusion(lm, DDIM(25), guidance, decoding, {"length": pull}, seed=3)
    return method.generate([Request({"length": n}) for n in lengths], samples)


@pytest.mark.parametrize("clamp", [0.0, 1.0])
def test_pulling_reaches_the_length_also_where_everything_is_clamped(lm, clamp):
    """The paper's own setting clamps at all times. The nearest word of x̂₀ has no gradient, so that once only the
    fluency term acted; the control reads the network's own prediction."""
    strengths = (3.0, 30.0)
    texts = {strength: write(lm, Rounding(clamp=clamp), strength) for strength in (0.0, *strengths)}
    exact = {
        strength: sum(len(text) == n for n, group in zip(range(1, 9), found, strict=True) for text in group) / 40
        for strength, found in texts.items()
    }
    assert exact[0.0] < 0.4 and max(exact[strength] for strength in strengths) > exact[0.0] + 0.4, exact


def test_the_control_has_a_gradient_where_everything_is_clamped(lm):
    gradients = []

    class Watching(Langevin):
        def gradient(self, *args):
            found = super().gradient(*args)
            gradients.append(found.abs().amax((1, 2)))
            return found

    pull = Pull(Length(lm.corpus), lm)
    method = GuidedDiffusion(lm, DDIM(5), Watching({"length": 1.0}), Rounding(clamp=1.0), {"length": pull})
    method.generate([Request({"length": 4})], 2)
    assert len(gradients) == 5 and (gradients[0] > 0.1).all() and all((gradient > 0).all() for gradient in gradients)
