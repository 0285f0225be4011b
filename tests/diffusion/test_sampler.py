import pytest
import torch

from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.sampler import DDIM, DDPM
from diffcontrol.diffusion.schedule import Cosine, Linear, Sqrt
from diffcontrol.guidance.base import Unguided
from diffcontrol.steering.base import Weighted


class Gaussian:
    """The exact denoiser of x₀ ~ N(0, I): E[x₀ | x_t] = √ᾱ_t · x_t."""

    def __init__(self, schedule, low=0.0):
        self.schedule, self.low = schedule, low

    def __call__(self, x_t, t, previous=None):
        x0 = self.schedule.alpha_bar(t)[:, None, None].sqrt() * x_t
        return Prediction(x0, x0, x0)


def run(sampler, denoiser, shape=(64, 32, 16)):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    *_, last = sampler(denoiser, Unguided(), Weighted([]), x, generator)
    return last.x0


@pytest.mark.parametrize("schedule", [Sqrt(), Cosine(), Linear()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("sampler", [DDIM(800, eta=0.0), DDPM(400), DDIM(400, eta=1.0)], ids=["ddim0", "ddpm", "ddim1"])
def test_the_exact_denoiser_of_unit_gaussians_gives_unit_variance(sampler, schedule):
    x = run(sampler, Gaussian(schedule))
    assert x.mean().item() == pytest.approx(0, abs=0.02)
    # The discretisation's own error falls with the number of steps; the stochastic samplers' is the larger.
    assert x.var().item() == pytest.approx(1, abs=0.06)


def test_ddim_with_eta_one_is_ddpm():
    schedule, x_t, x0 = Sqrt(), torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    t, s = torch.tensor([0.9, 0.5, 0.3]), torch.tensor([0.8, 0.1, 0.29])
    one, other = (sampler.transition(schedule, x_t, t, s, x0) for sampler in (DDIM(1, eta=1.0), DDPM(1)))
    torch.testing.assert_close(one.mean, other.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.stddev, other.stddev, atol=1e-5, rtol=1e-4)


# σ of the released 200-step control runs at index i (reference values computed from their formula).
@pytest.mark.parametrize(
    ("i", "sigma"), [(190, 0.318), (150, 0.146), (100, 0.109), (50, 0.099), (20, 0.106), (10, 0.116)]
)
def test_ddim_spread_is_that_of_the_released_runs(i, sigma):
    t, s = torch.tensor([(i + 1) / 200]), torch.tensor([i / 200])
    spread = DDIM(200, eta=1.0).transition(Sqrt(), torch.zeros(1, 1, 1), t, s, torch.zeros(1, 1, 1)).stddev.item()
    assert spread == pytest.approx(sigma, abs=1.5e-3)


def test_ddim_without_noise_goes_where_x0_and_epsilon_say():
    schedule, t, s = Sqrt(), torch.tensor([0.9]), torch.tensor([0.4])
    x0, epsilon = torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    ab_t, ab_s = schedule.alpha_bar(t), schedule.alpha_bar(s)
    x_t = ab_t.sqrt() * x0 + (1 - ab_t).sqrt() * epsilon
    moved = DDIM(1, eta=0.0).transition(schedule, x_t, t, s, x0)
    torch.testing.assert_close(moved.mean, ab_s.sqrt() * x0 + (1 - ab_s).sqrt() * epsilon, atol=1e-4, rtol=1e-4)
    assert moved.stddev.max() == 0


def test_same_seed_same_text_other_seed_other_text():
    sampler, denoiser = DDIM(10), Gaussian(Sqrt())
    torch.testing.assert_close(run(sampler, denoiser), run(sampler, denoiser))


def test_no_steps_is_refused():
    with pytest.raises(ValueError, match="sampler.steps=0"):
        DDIM(0)
