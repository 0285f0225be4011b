import torch

from diffcontrol.chain import Chain
from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.guidance.base import Unguided
from diffcontrol.guidance.conditioning import Conditioning
from diffcontrol.steering.base import Control, Look, Weighted
from diffcontrol.steering.exact import ExactControl, probabilities
from tests.test_chain import V, phrase, two_words

L, D = 5, 8
TABLE = torch.eye(V, D)


class Independent:
    """A denoiser whose words do not depend on x_t."""

    low, schedule = 0.1, None

    def __init__(self, logits):
        self.logits = logits

    def table(self):
        return TABLE

    def __call__(self, x_t, t, previous=None):
        return Prediction(self.logits.softmax(-1) @ TABLE, self.logits, self.logits)


class Learned(Control):
    def log_prob(self, look):
        return look.prediction.x0.sum((1, 2))


def logits(rows=2, seed=0):
    return torch.randn(rows, L, V, generator=torch.Generator().manual_seed(seed))


def predict(guidance, control, at=0.5, rows=2):
    t = torch.full((rows,), at)
    return guidance.predict(Independent(logits(rows)), control, torch.zeros(rows, L, D), t, None)


def test_exact_controls_of_a_row_are_conditioned_on_together():
    both = Weighted([(1.0, ExactControl([phrase()] * 2)), (1.0, ExactControl([two_words()] * 2))])
    found = predict(Conditioning(Unguided()), both).logits[:, 1:].softmax(-1)
    # The text is 4 5 END PAD: nothing else contains 4 5 and has two words.
    assert torch.equal(found.argmax(-1), torch.tensor([[4, 5, 1, 3]] * 2))
    assert (found.max(-1).values > 0.999).all()


def test_the_first_position_stays_as_it_is():
    control = Weighted([(1.0, ExactControl([phrase()] * 2))])
    assert torch.equal(predict(Conditioning(Unguided()), control).logits[:, 0], logits()[:, 0])


def test_log_prob_is_that_of_the_factorised_posterior():
    control = ExactControl([phrase(), two_words()])
    found = control.log_prob(Look(torch.zeros(2, L, D), torch.ones(2), lambda: Independent(logits())(None, None)))
    torch.testing.assert_close(found, Chain(control.stacked, probabilities(logits())).log_prob())


def test_early_conditioning_is_a_share_that_grows_to_all_of_it_at_the_least_noise():
    control = Weighted([(1.0, ExactControl([phrase()] * 2))])
    whole = predict(Conditioning(Unguided()), control).logits - logits()
    none = predict(Conditioning(Unguided(), early=0.0), control, at=1.0).logits - logits()
    half = predict(Conditioning(Unguided(), early=0.0), control, at=0.55).logits - logits()  # 0.1 is the least
    last = predict(Conditioning(Unguided(), early=0.0), control, at=0.1).logits - logits()
    torch.testing.assert_close(none, torch.zeros_like(none))
    torch.testing.assert_close(half, whole / 2, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(last, whole, atol=1e-5, rtol=1e-4)


def test_controls_without_an_automaton_are_left_to_the_other_guidance_at_its_own_times():
    seen = []

    class Counting(Unguided):
        def predict(self, denoiser, control, x_t, t, previous):
            seen.append((len(control.parts), float(t[0])))
            return super().predict(denoiser, control, x_t, t, previous)

    control = Weighted([(1.0, ExactControl([phrase()] * 2)), (2.0, Learned())])
    times = torch.tensor([1.0, 0.7, 0.4, 0.1])
    denoiser, _ = Conditioning(Counting(stop=0.5)).bind(Independent(logits()), control, times)
    for t in times[:-1]:
        denoiser(torch.zeros(2, L, D), t.expand(2))
    assert seen == [(1, 1.0)]  # the step to 0.7; the next one leads to 0.4, below (0.1 + 1) / 2
