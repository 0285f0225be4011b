import itertools

import pytest
import torch
from torch.nn import functional as F

from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.sampler import DDIM, DDPM
from diffcontrol.diffusion.schedule import Sqrt
from diffcontrol.guidance.base import Unguided
from diffcontrol.guidance.langevin import Langevin, Sign
from diffcontrol.steering.base import Control, Weighted

V, D, L = 6, 8, 4
TABLE = F.normalize(torch.randn(V, D, generator=torch.Generator().manual_seed(0)), dim=-1) * D**0.5


class Posterior:
    """The exact denoiser of texts whose words are independent and equally likely."""

    low = 0.02

    def __init__(self):
        self.schedule, self.calls = Sqrt(), 0

    def table(self):
        return TABLE

    def __call__(self, x_t, t, previous=None):
        self.calls += 1
        alpha_bar = self.schedule.alpha_bar(t)[:, None, None]
        logits = (alpha_bar.sqrt() / (1 - alpha_bar) * x_t) @ TABLE.T
        return Prediction(logits.softmax(-1) @ TABLE, logits, logits)


class Quadratic(Control):
    """log p = −½‖x_t − wanted‖²: its gradient is wanted − x_t."""

    def __init__(self, wanted):
        self.wanted, self.times = wanted, []

    def log_prob(self, x_t, t, prediction):
        self.times.append(float(t[0]))
        return -0.5 * (x_t - self.wanted).square().sum((1, 2))


class Words(Control):
    """The first word is the row's target, as far as the prediction can tell."""

    def __init__(self, targets):
        self.targets = torch.tensor(targets)

    def log_prob(self, x_t, t, prediction):
        return prediction.logits[:, 0].log_softmax(-1).gather(1, self.targets[:, None])[:, 0]


NOTHING = Weighted([])


def step(guidance, control, rows=3, t=0.6, s=0.5, sampler=None, seed=1):
    """One reverse step from the same place with the same noise."""
    generator = torch.Generator().manual_seed(seed)
    x_t = torch.randn(rows, L, D, generator=generator)
    t, s = torch.full((rows,), t), torch.full((rows,), s)
    return guidance.step(sampler or DDIM(10), Posterior(), control, x_t, t, s, None, generator)


def transition(rows=3, t=0.6, s=0.5, seed=1):
    denoiser, generator = Posterior(), torch.Generator().manual_seed(seed)
    x_t = torch.randn(rows, L, D, generator=generator)
    t, s = torch.full((rows,), t), torch.full((rows,), s)
    return DDIM(10).transition(denoiser.schedule, x_t, t, s, denoiser(x_t, t).x0)


@pytest.fixture
def wanted():
    return 3 * torch.randn(3, L, D, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("lr", [0.1, 0.03])
def test_a_sign_step_moves_every_coordinate_by_lr_towards_what_is_wanted(wanted, lr):
    drawn, _ = step(Unguided(), NOTHING)
    moved, _ = step(Langevin(Sign, inner=1, lr=lr, fluency=0.0), Quadratic(wanted))
    torch.testing.assert_close(moved - drawn, lr * (wanted - drawn).sign())


def test_three_sign_steps_go_three_times_as_far(wanted):
    far = 1e3 * wanted.sign()
    drawn, _ = step(Unguided(), NOTHING)
    moved, _ = step(Langevin(Sign, inner=3, lr=0.1, fluency=0.0), Quadratic(far))
    torch.testing.assert_close(moved - drawn, 0.3 * (far - drawn).sign())


@pytest.mark.parametrize("fluency", [0.01, 1.0])
@pytest.mark.parametrize("strength", [0.2, 5.0])
def test_the_objective_is_strength_times_log_p_less_fluency_times_distance_over_sigma(wanted, fluency, strength):
    drawn, _ = step(Unguided(), NOTHING)
    control = Weighted([(strength, Quadratic(wanted))])
    sgd = lambda params, lr: torch.optim.SGD(params, lr=lr)  # noqa: E731  shows the gradient itself
    moved, _ = step(Langevin(sgd, inner=1, lr=1e-3, fluency=fluency), control)
    normal = transition()
    gradient = strength * (wanted - drawn) - 2 * fluency * (drawn - normal.mean) / normal.stddev
    torch.testing.assert_close(moved - drawn, 1e-3 * gradient, atol=1e-5, rtol=1e-3)


def test_strengths_of_several_controls_add_up(wanted):
    sgd = lambda params, lr: torch.optim.SGD(params, lr=lr)  # noqa: E731
    guidance = Langevin(sgd, inner=1, lr=1e-2, fluency=0.0)
    drawn, _ = step(Unguided(), NOTHING)
    one, other = (step(guidance, Weighted([(k, Quadratic(w))]))[0] - drawn for k, w in ((2.0, wanted), (0.5, -wanted)))
    both, _ = step(guidance, Weighted([(2.0, Quadratic(wanted)), (0.5, Quadratic(-wanted))]))
    torch.testing.assert_close(both - drawn, one + other, atol=1e-5, rtol=1e-4)


def test_fluency_alone_pulls_to_the_mean():
    drawn, _ = step(Unguided(), NOTHING)
    moved, _ = step(Langevin(Sign, inner=200, lr=0.01, fluency=1e3), NOTHING)
    mean = transition().mean
    assert (drawn - mean).abs().max() > 0.1
    assert (moved - mean).abs().max() <= 0.01 + 1e-5
    against, _ = step(Langevin(Sign, inner=200, lr=0.01, fluency=1e3), Quadratic(mean + 5))  # the control is outweighed
    assert (against - mean).abs().max() <= 0.02 + 1e-5


def test_without_control_and_fluency_it_is_the_unguided_step():
    drawn, predicted = step(Unguided(), NOTHING)
    moved, prediction = step(Langevin(Sign, inner=3, lr=0.1, fluency=0.0), NOTHING)
    assert torch.equal(moved, drawn) and torch.equal(prediction.x0, predicted.x0)


def test_what_is_handed_on_carries_no_graph(wanted):
    x_s, prediction = step(Langevin(Sign), Quadratic(wanted))
    assert not any(tensor.requires_grad for tensor in (x_s, prediction.x0, prediction.logits, prediction.hidden))


def test_a_transition_without_spread_is_guided_too(wanted):
    moved, _ = step(Langevin(Sign, fluency=1.0), Weighted([(1e3, Quadratic(wanted))]), sampler=DDIM(10, eta=0.0))
    drawn, _ = step(Unguided(), NOTHING, sampler=DDIM(10, eta=0.0))
    torch.testing.assert_close(moved - drawn, 0.1 * (wanted - drawn).sign())


@pytest.mark.parametrize("sampler", [DDIM(200, eta=1.0), DDPM(200)], ids=["ddim", "ddpm"])
@pytest.mark.parametrize(("start", "stop", "guided"), [
    (1.0, 0.0, range(200)), (1.0, 0.05, range(10, 200)), (0.5, 0.05, range(10, 101)), (0.5, 0.25, range(50, 101)),
])  # fmt: skip
def test_guidance_acts_between_stop_and_start(sampler, start, stop, guided):
    """`guided`: the released indices i, whose step leads to s = i/200; they skip i < 10."""
    denoiser, control = Posterior(), Quadratic(torch.zeros(1, L, D))
    denoiser.low = 0.0
    generator = torch.Generator().manual_seed(0)
    times = sampler.times(0.0)
    for t, s in itertools.pairwise(times):
        Langevin(start=start, stop=stop).step(sampler, denoiser, control, torch.randn(1, L, D), t[None], s[None],
                                              None, generator)  # fmt: skip
    assert [round(200 * time) for time in control.times] == list(reversed(guided))


def test_outside_of_its_times_the_control_changes_nothing(wanted):
    for outside in (Langevin(start=0.4), Langevin(stop=0.6)):
        assert torch.equal(step(outside, Quadratic(wanted))[0], step(Unguided(), NOTHING)[0])


def test_the_share_of_times_is_of_those_in_use(wanted):
    guidance = Langevin(stop=0.5)  # the middle of [0.02, 1] is 0.51
    assert torch.equal(step(guidance, Quadratic(wanted), s=0.505)[0], step(Unguided(), NOTHING, s=0.505)[0])
    assert not torch.equal(step(guidance, Quadratic(wanted), s=0.515)[0], step(Unguided(), NOTHING, s=0.515)[0])


def test_the_control_is_asked_at_the_time_it_is_told(wanted):
    control = Quadratic(wanted)
    step(Langevin(inner=3), control, s=0.5)
    assert control.times == [0.5] * 3


def test_adagrad_lives_through_the_inner_steps_and_sign_has_no_memory(wanted):
    drawn, _ = step(Unguided(), NOTHING)
    results = {}
    for optimiser in (torch.optim.Adagrad, Sign):
        for inner in (1, 2):
            moved, _ = step(Langevin(optimiser, inner=inner, lr=0.1, fluency=0.0), Quadratic(wanted))
            results[optimiser, inner] = moved
    torch.testing.assert_close(results[torch.optim.Adagrad, 1], results[Sign, 1], atol=1e-6, rtol=0)
    once = results[Sign, 1]
    first, second = wanted - drawn, wanted - once
    expected = once + 0.1 * second / (first**2 + second**2).sqrt()  # Duchi et al. 2011
    torch.testing.assert_close(results[torch.optim.Adagrad, 2], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(results[Sign, 2], once + 0.1 * second.sign())


def write(guidance, control, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, L, D, generator=generator)
    *_, last = DDIM(30)(Posterior(), guidance, control, x, generator)
    return last


@pytest.mark.parametrize("optimiser", [Sign, torch.optim.Adagrad])
def test_guided_texts_obey_more_often_than_unguided_ones(optimiser):
    targets = [row % V for row in range(60)]
    control = Weighted([(20.0, Words(targets))])
    free = write(Unguided(), NOTHING, 60)
    guided = write(Langevin(optimiser, inner=3, lr=0.1, fluency=1.0), control, 60)
    hits = [(p.logits[:, 0].argmax(-1) == torch.tensor(targets)).float().mean().item() for p in (free, guided)]
    assert hits[0] < 0.4 and hits[1] > 0.9  # by chance 1 in 6
    t = torch.full((60,), 0.02)
    assert (Words(targets).log_prob(None, t, guided) - Words(targets).log_prob(None, t, free)).mean() > 1


def test_rows_are_moved_by_their_own_target_alone():
    guidance = Langevin(Sign, inner=2, lr=0.1, fluency=0.0)
    one, _ = step(guidance, Words([0, 1, 2]))
    other, _ = step(guidance, Words([0, 4, 2]))
    assert torch.equal(one[[0, 2]], other[[0, 2]])
    assert (one[1] - other[1]).abs().max() > 0.1


def test_released_settings_cost_what_they_say():
    denoiser, generator = Posterior(), torch.Generator().manual_seed(0)
    denoiser.low = 0.0
    control = Quadratic(torch.zeros(1, L, D))
    for _ in DDIM(20)(denoiser, Langevin(inner=3, stop=0.1), control, torch.randn(1, L, D), generator):
        pass
    assert denoiser.calls == 20 + 3 * 18 + 1  # a look a step, three more at 18 of 20, one for the words
