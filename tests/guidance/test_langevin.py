import pytest
import torch

from diffcontrol.diffusion.sampler import DDIM, DDPM
from diffcontrol.guidance.base import Unguided
from diffcontrol.guidance.langevin import Langevin, Sign
from diffcontrol.steering.base import Weighted
from tests.exact import NOTHING, WORDS, D, First, L, Posterior, Quadratic, step, walk


@pytest.fixture
def wanted():
    return 3 * torch.randn(3, L, D, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("lr", [0.1, 0.03])
def test_a_sign_step_moves_every_coordinate_by_lr_towards_what_is_wanted(wanted, lr):
    drawn, *_ = step(Unguided(), NOTHING)
    moved, *_ = step(Langevin(optimiser=Sign, inner=1, lr=lr, fluency=0.0), Quadratic(wanted))
    torch.testing.assert_close(moved - drawn, lr * (wanted - drawn).sign())


def test_three_sign_steps_go_three_times_as_far(wanted):
    far = 1e3 * wanted.sign()
    drawn, *_ = step(Unguided(), NOTHING)
    moved, *_ = step(Langevin(optimiser=Sign, inner=3, lr=0.1, fluency=0.0), Quadratic(far))
    torch.testing.assert_close(moved - drawn, 0.3 * (far - drawn).sign())


@pytest.mark.parametrize("fluency", [0.01, 1.0])
@pytest.mark.parametrize("strength", [0.2, 5.0])
def test_the_objective_is_strength_times_log_p_less_fluency_times_distance_over_sigma(wanted, fluency, strength):
    drawn, normal, _ = step(Unguided(), NOTHING)
    control = Weighted([(strength, Quadratic(wanted))])
    sgd = lambda params, lr: torch.optim.SGD(params, lr=lr)  # noqa: E731  shows the gradient itself
    moved, *_ = step(Langevin(optimiser=sgd, inner=1, lr=1e-3, fluency=fluency), control)
    gradient = strength * (wanted - drawn) - 2 * fluency * (drawn - normal.mean) / normal.stddev
    torch.testing.assert_close(moved - drawn, 1e-3 * gradient, atol=1e-5, rtol=1e-3)


def test_strengths_of_several_controls_add_up(wanted):
    sgd = lambda params, lr: torch.optim.SGD(params, lr=lr)  # noqa: E731
    guidance = Langevin(optimiser=sgd, inner=1, lr=1e-2, fluency=0.0)
    drawn, *_ = step(Unguided(), NOTHING)
    one, other = (step(guidance, Weighted([(k, Quadratic(w))]))[0] - drawn for k, w in ((2.0, wanted), (0.5, -wanted)))
    both, *_ = step(guidance, Weighted([(2.0, Quadratic(wanted)), (0.5, Quadratic(-wanted))]))
    torch.testing.assert_close(both - drawn, one + other, atol=1e-5, rtol=1e-4)


def test_fluency_alone_pulls_to_the_mean():
    drawn, normal, _ = step(Unguided(), NOTHING)
    moved, *_ = step(Langevin(optimiser=Sign, inner=200, lr=0.01, fluency=1e3), NOTHING)
    mean = normal.mean
    assert (drawn - mean).abs().max() > 0.1
    assert (moved - mean).abs().max() <= 0.01 + 1e-5
    outweighed = Quadratic(mean + 5)
    against, *_ = step(Langevin(optimiser=Sign, inner=200, lr=0.01, fluency=1e3), outweighed)
    assert (against - mean).abs().max() <= 0.02 + 1e-5


def test_without_control_and_fluency_it_is_the_unguided_step():
    drawn, _, predicted = step(Unguided(), NOTHING)
    moved, _, prediction = step(Langevin(optimiser=Sign, inner=3, lr=0.1, fluency=0.0), NOTHING)
    assert torch.equal(moved, drawn) and torch.equal(prediction.x0, predicted.x0)


def test_what_is_handed_on_carries_no_graph(wanted):
    x_s, _, prediction = step(Langevin(optimiser=Sign), Quadratic(wanted))
    assert not any(tensor.requires_grad for tensor in (x_s, prediction.x0, prediction.logits, prediction.hidden))


def test_a_transition_without_spread_is_guided_too(wanted):
    moved, *_ = step(
        Langevin(optimiser=Sign, fluency=1.0), Weighted([(1e3, Quadratic(wanted))]), sampler=DDIM(10, eta=0.0)
    )
    drawn, *_ = step(Unguided(), NOTHING, sampler=DDIM(10, eta=0.0))
    torch.testing.assert_close(moved - drawn, 0.1 * (wanted - drawn).sign())


@pytest.mark.parametrize("sampler", [DDIM(200, eta=1.0), DDPM(200)], ids=["ddim", "ddpm"])
@pytest.mark.parametrize(("start", "stop", "guided"), [
    (1.0, 0.0, range(200)), (1.0, 0.05, range(10, 200)), (0.5, 0.05, range(10, 101)), (0.5, 0.25, range(50, 101)),
])  # fmt: skip
def test_guidance_acts_between_stop_and_start(sampler, start, stop, guided):
    """`guided`: the released indices i, whose step leads to s = i/200; they skip i < 10."""
    control = Quadratic(torch.zeros(1, L, D))
    walk(Langevin(start=start, stop=stop), control, 1, Posterior(low=0.0), sampler)
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
    drawn, *_ = step(Unguided(), NOTHING)
    results = {}
    for optimiser in (torch.optim.Adagrad, Sign):
        for inner in (1, 2):
            moved, *_ = step(Langevin(optimiser=optimiser, inner=inner, lr=0.1, fluency=0.0), Quadratic(wanted))
            results[optimiser, inner] = moved
    torch.testing.assert_close(results[torch.optim.Adagrad, 1], results[Sign, 1], atol=1e-6, rtol=0)
    once = results[Sign, 1]
    first, second = wanted - drawn, wanted - once
    expected = once + 0.1 * second / (first**2 + second**2).sqrt()  # Duchi et al. 2011
    torch.testing.assert_close(results[torch.optim.Adagrad, 2], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(results[Sign, 2], once + 0.1 * second.sign())


@pytest.mark.parametrize("optimiser", [Sign, torch.optim.Adagrad])
def test_guided_texts_obey_more_often_than_unguided_ones(optimiser):
    targets = [WORDS[row % len(WORDS)] for row in range(60)]
    control = Weighted([(20.0, First(targets))])
    guidance = Langevin(optimiser=optimiser, inner=3, lr=0.1, fluency=1.0)
    free, guided = walk(rows=60)[-1], walk(guidance, control, rows=60)[-1]
    hits = [(p.logits[:, 0].argmax(-1) == torch.tensor(targets)).float().mean().item() for p in (free, guided)]
    assert hits[0] < 0.4 and hits[1] > 0.9  # by chance 1 in 6


def test_rows_are_moved_by_their_own_target_alone():
    guidance = Langevin(optimiser=Sign, inner=2, lr=0.1, fluency=0.0)
    one, *_ = step(guidance, First([4, 5, 6]))
    other, *_ = step(guidance, First([4, 8, 6]))
    assert torch.equal(one[[0, 2]], other[[0, 2]])
    assert (one[1] - other[1]).abs().max() > 0.1


def test_released_settings_cost_what_they_say():
    denoiser, control = Posterior(low=0.0), First([4])
    walk(Langevin(inner=3, stop=0.1), control, 1, denoiser, DDIM(20))
    assert denoiser.calls == 20 + 3 * 18 + 1  # a look a step, three more at 18 of 20, one for the words


def test_a_control_that_does_not_ask_for_the_prediction_costs_no_call_of_the_denoiser():
    """encoder=noisy once ran the denoiser at every inner step, although nothing read what it said."""
    denoiser, free = Posterior(), Posterior()
    walk(Langevin(inner=3), Quadratic(torch.zeros(1, L, D)), 1, denoiser)
    walk(rows=1, denoiser=free)
    assert denoiser.calls == free.calls == 31


@pytest.mark.parametrize("sampler", [DDIM, DDPM])
def test_the_noise_scales_the_draw_and_not_the_spread_that_guidance_divides_by(sampler, wanted):
    """The gradient of fluency, and what a control is told of the spread, are those of the published transition."""
    told = []

    class Told(Quadratic):
        def log_prob(self, look):
            told.append(look.spread)
            return super().log_prob(look)

    sgd = lambda params, lr: torch.optim.SGD(params, lr=lr)  # noqa: E731  shows the gradient itself
    for noise in (1.0, 0.5, 0.0):
        quiet = sampler(10, noise=noise)
        drawn, normal, _ = step(Unguided(), NOTHING, sampler=quiet)
        moved, *_ = step(Langevin(optimiser=sgd, lr=1e-3), Told(wanted), sampler=quiet)
        gradient = wanted - drawn - 2 * (drawn - normal.mean) / normal.stddev
        torch.testing.assert_close(moved - drawn, 1e-3 * gradient, atol=1e-5, rtol=1e-3)
        assert torch.equal(told[-1], told[0]) and torch.equal(normal.stddev, told[0])
