"""Denoisers that are exact, and controls with closed forms, for tests of whatever samples.

N texts · B batch · L positions · D embedding width · V vocabulary
"""

from itertools import pairwise

import torch
from torch.nn import functional as F

from diffcontrol.diffusion.denoiser import IMPOSSIBLE, Prediction
from diffcontrol.diffusion.sampler import DDIM
from diffcontrol.diffusion.schedule import Sqrt
from diffcontrol.draws import Draws
from diffcontrol.guidance.base import Unguided
from diffcontrol.steering.base import Control, Weighted
from diffcontrol.text import SPECIALS

V, D, L = 10, 8, 4
TABLE = F.normalize(torch.randn(V, D, generator=torch.Generator().manual_seed(0)), dim=-1) * D**0.5
NOTHING = Weighted([])
WORDS = range(len(SPECIALS), V)


class Gaussian:
    """The exact denoiser of x₀ ~ N(0, I): E[x₀ | x_t] = √ᾱ_t · x_t. It has no words."""

    def __init__(self, schedule=None, low=0.0):
        self.schedule, self.low = schedule or Sqrt(), low

    def table(self):
        return TABLE

    def __call__(self, x_t, t, previous=None):
        x0 = self.schedule.alpha_bar(t)[:, None, None].sqrt() * x_t
        return Prediction(x0, torch.zeros(*x_t.shape[:2], V), x0)


class Posterior:
    """The exact denoiser of texts whose words are independent and equally likely; no special is a word."""

    def __init__(self, low=0.02):
        self.schedule, self.low, self.calls = Sqrt(), low, 0

    def table(self):
        return TABLE

    def likelihood(self, x_t, t):
        """log p(x_t | word) of every position and word, up to a constant."""
        alpha_bar = self.schedule.alpha_bar(t)[:, None, None]
        return (alpha_bar.sqrt() / (1 - alpha_bar).clamp(min=1e-4) * x_t) @ TABLE.T

    def __call__(self, x_t, t, previous=None):
        self.calls += 1
        logits = self.likelihood(x_t, t).masked_fill(torch.arange(V) < len(SPECIALS), IMPOSSIBLE)
        return Prediction(logits.softmax(-1) @ TABLE, logits, logits)


class Texts(Posterior):
    """The exact denoiser of a few texts [N L], all as likely. Of a shorter x_t it knows the first positions alone."""

    def __init__(self, ids, low=0.02):
        super().__init__(low)
        self.ids, self.positions = ids, 0

    def __call__(self, x_t, t, previous=None):
        self.calls, self.positions = self.calls + 1, self.positions + x_t.shape[0] * x_t.shape[1]
        spelled = F.one_hot(self.ids[:, : x_t.shape[1]], V).float()  # [N L V]
        which = torch.einsum("blv,nlv->bn", self.likelihood(x_t, t), spelled).softmax(-1)
        probs = torch.einsum("bn,nlv->blv", which, spelled)
        return Prediction(probs @ TABLE, probs.clamp(min=1e-30).log(), probs)


class Quadratic(Control):
    """log p = −½‖x_t − wanted‖²: its gradient is wanted − x_t. Keeps the times it was asked at."""

    def __init__(self, wanted):
        self.wanted, self.times = wanted, []

    def log_prob(self, look):
        self.times.append(float(look.t[0]))
        return -0.5 * (look.x_t - self.wanted).square().sum((1, 2))


class Linear(Control):
    """log p = ⟨a, x̂₀⟩ + const: its gradient by x̂₀ is a [B L D]."""

    def __init__(self, a):
        self.a = a

    def log_prob(self, look):
        return (self.a * look.prediction.x0).sum((1, 2)) - 100.0


class First(Control):
    """The first word is the row's target, as far as x̂₀ can tell. Keeps the times it was asked at."""

    def __init__(self, targets):
        self.targets, self.times = torch.tensor(targets), []

    def log_prob(self, look):
        self.times.append(float(look.t[0]))
        logits = look.prediction.x0[:, 0] @ TABLE.T
        return logits.log_softmax(-1).gather(1, self.targets[:, None])[:, 0]


class Deaf(Control):
    """A control without a gradient: it reads nothing."""

    def log_prob(self, look):
        return look.x_t.new_full((len(look.x_t),), -1.0)


def walk(guidance=None, control=NOTHING, rows=3, denoiser=None, sampler=None, seed=0, length=L):
    """All predictions of a run from noise to words, the last one decides."""
    denoiser, sampler = denoiser or Posterior(), sampler or DDIM(30)
    draws = Draws(range(1000 * seed, 1000 * seed + rows))
    x = draws.normal(length, D)
    guided, move = (guidance or Unguided()).bind(denoiser, control, sampler.times(denoiser.low))
    return list(sampler(guided, x, draws, move=move))


def step(guidance, control, rows=3, t=0.6, s=0.5, sampler=None, denoiser=None, seed=1):
    """One reverse step from the same place with the same noise: x_s, the transition, the prediction."""
    denoiser, sampler = denoiser or Posterior(), sampler or DDIM(10)
    draws = Draws(range(1000 * seed, 1000 * seed + rows))
    x_t = draws.normal(L, D)
    guided, move = guidance.bind(denoiser, control, torch.tensor([t, s]))
    t, s = torch.tensor(t).expand(rows), torch.tensor(s).expand(rows)
    prediction = guided(x_t, t)
    normal = sampler.transition(denoiser.schedule, x_t, t, s, prediction.x0)
    return move(sampler.draw(normal, draws), normal, s, prediction), normal, prediction


def steps_of(sampler, low):
    """(t, s) of every step of a sampler."""
    return list(pairwise(sampler.times(low).tolist()))
