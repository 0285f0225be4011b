import pytest
import torch

from diffcontrol.diffusion.decoding import Rounding
from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.sampler import DDIM, DDPM, positions_in_use
from diffcontrol.diffusion.schedule import Cosine, Linear, Sqrt
from diffcontrol.draws import Draws
from diffcontrol.text import END, PAD, START
from tests.exact import TABLE, D, Gaussian, Posterior, Texts, V

TEXTS = torch.tensor([
    [START, 4, 5, END, PAD, PAD, PAD, PAD],
    [START, 6, END, PAD, PAD, PAD, PAD, PAD],
    [START, 7, 8, 9, END, PAD, PAD, PAD],
    [START, 4, 4, 4, END, PAD, PAD, PAD],
])  # fmt: skip


def run(sampler, denoiser, shape=(64, 32, 16), seed=0, **options):
    draws = Draws(range(1000 * seed, 1000 * seed + shape[0]))
    *_, last = sampler(denoiser, draws.normal(*shape[1:]), draws, **options)
    return last


@pytest.mark.parametrize("schedule", [Sqrt(), Cosine(), Linear()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("sampler", [DDIM(800, eta=0.0), DDPM(400), DDIM(400, eta=1.0)], ids=["ddim0", "ddpm", "ddim1"])
def test_the_exact_denoiser_of_unit_gaussians_gives_unit_variance(sampler, schedule):
    x = run(sampler, Gaussian(schedule)).x0
    assert x.mean().item() == pytest.approx(0, abs=0.02)
    # The discretisation's own error falls with the number of steps; the stochastic samplers' is the larger.
    assert x.var().item() == pytest.approx(1, abs=0.09)


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
    one, same, other = (run(sampler, denoiser, seed=seed).x0 for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize(("options", "said"), [((0,), "DDPM: steps=0"), ((5, -0.1), "DDPM: noise=-0.1")])
def test_nonsense_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        DDPM(*options)


def test_the_noise_scales_the_draw_alone():
    """The transition that guidance is told of stays as published."""
    t, s = torch.tensor([0.6]), torch.tensor([0.5])
    x_t, x0 = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    for make in (DDIM, DDPM):
        draws = {}
        for noise in (1.0, 0.5, 0.0):
            sampler = make(10, noise=noise)
            step = sampler.transition(Sqrt(), x_t, t, s, x0)
            draws[noise] = sampler.draw(step, Draws(range(1)))
            assert torch.equal(step.stddev, make(10).transition(Sqrt(), x_t, t, s, x0).stddev)
        assert torch.equal(draws[0.0], step.mean)
        torch.testing.assert_close(2 * (draws[0.5] - step.mean), draws[1.0] - step.mean)


def test_the_step_goes_to_the_decoded_estimate_and_self_conditioning_reads_the_raw_one():
    """Decoding is between prediction and transition: neither the denoiser nor `move` sees what comes of it."""
    given, steps = [], []

    class Peek(Posterior):
        def __call__(self, x_t, t, previous=None):
            given.append(previous)
            return super().__call__(x_t, t, previous)

    def move(x_s, step, s, prediction):
        steps.append((step, s, prediction))
        return x_s

    target = torch.full((2, 4, D), 3.0)
    draws = Draws(range(2))
    sampler, x_t = DDIM(5), draws.normal(4, D)
    found = list(sampler(Peek(), x_t, draws, lambda prediction, t: target, move))
    assert given[0] is None and all(torch.equal(g.x0, p.x0) for g, p in zip(given[1:], found[:-1], strict=True))
    assert all(told is said for (*_, told), said in zip(steps, found[:-1], strict=True))
    for said in found:
        torch.testing.assert_close(said.x0, said.logits.softmax(-1) @ TABLE)
    first, s, _ = steps[0]
    expected = sampler.transition(Sqrt(), x_t, torch.ones(2), s, target)
    torch.testing.assert_close(first.mean, expected.mean)


def test_clamping_at_all_times_gives_words_all_the_same():
    rounding = lambda prediction, t: Rounding(clamp=1.0)(prediction, t, TABLE)  # noqa: E731
    last = run(DDIM(30), Posterior(), (20, 4, D), decode=rounding)
    assert (last.logits.softmax(-1).amax(-1) > 0.99).all()


# --- positions behind the end of all texts


def padded(ids, certainty):
    """A prediction of these words, each with this probability."""
    probs = torch.full((*ids.shape, V), (1 - certainty) / (V - 1)).scatter(-1, ids[..., None], certainty)
    return Prediction(probs @ TABLE, probs.log(), probs)


def test_one_position_more_than_the_longest_text_is_in_use():
    assert positions_in_use(padded(TEXTS, 0.999)) == 6  # up to END at 4, and one
    assert positions_in_use(padded(TEXTS[:2], 0.999)) == 5
    assert positions_in_use(padded(torch.full((2, 8), PAD), 0.999)) == 2
    assert positions_in_use(padded(torch.full((2, 8), 5), 0.999)) == 8


def test_positions_that_are_not_certainly_padding_are_in_use():
    assert positions_in_use(padded(TEXTS, 0.98)) == 8
    doubtful = padded(TEXTS, 0.999)
    doubtful.logits[1, 6, PAD] = 0.0  # logits need not be normalised
    doubtful.logits[1, 6, 5] = 0.0
    assert positions_in_use(doubtful) == 8
    doubtful.logits[...] += 7
    assert positions_in_use(doubtful) == 8


def test_cropping_leaves_the_texts_as_they_are_and_costs_less():
    cropping, whole = Texts(TEXTS), Texts(TEXTS)
    found = run(DDIM(30, eta=0.0), cropping, (40, 8, D))
    expected = run(DDIM(30, eta=0.0, crop=False), whole, (40, 8, D))
    used = found.logits.shape[1]
    assert used == 6 and expected.logits.shape[1] == 8
    words = expected.logits.argmax(-1)
    assert torch.equal(found.logits.argmax(-1), words[:, :used]) and (words[:, used:] == PAD).all()
    assert len(words.unique(dim=0)) == 4
    assert cropping.calls == whole.calls and cropping.positions < 0.95 * whole.positions == 0.95 * 40 * 8 * whole.calls


def test_with_noise_all_that_is_written_is_a_text_that_there_is():
    last = run(DDIM(50), Texts(TEXTS), (200, 8, D))
    used = last.logits.shape[1]
    which = (last.logits.argmax(-1)[:, None] == TEXTS[:, :used]).all(-1)  # [B N]
    assert which.any(1).all()
    assert which.float().mean(0).tolist() == pytest.approx([0.25] * 4, abs=0.1)


def test_the_first_positions_are_computed_whatever_the_texts_are():
    """A control may read places behind the end of what is being written."""
    last = run(DDIM(10, eta=0.0), Texts(TEXTS), (20, 8, D), least=7)
    assert last.logits.shape[1] == 7
    assert run(DDIM(10, eta=0.0), Texts(TEXTS), (20, 8, D), least=100).logits.shape[1] == 8
