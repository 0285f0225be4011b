"""A masked language model that is exact: a table of the probabilities of all texts of a few places."""

import itertools

import torch

from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.masked.guidance import Questions
from diffcontrol.steering.base import Control, Weighted
from diffcontrol.text import SPECIALS

FIRST = len(SPECIALS)  # the id of the first word
IMPOSSIBLE = 1e-300  # the probability of a text that is none of the table's


class Tabular:
    """Texts of `places` words, each one of `words`; their joint probabilities are drawn at random."""

    def __init__(self, places=3, words=3, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.texts = torch.tensor(list(itertools.product(range(FIRST, FIRST + words), repeat=places)))
        self.joint = (1.5 * torch.randn(len(self.texts), generator=generator, dtype=torch.float64)).softmax(0)
        self.places, self.mask, self.calls = places, FIRST + words, 0

    def one_hot(self, ids):
        return torch.nn.functional.one_hot(ids, self.mask + 1).double()

    def agreement(self, z):
        """p(z | x) up to what all texts share, for z [B L V+1] → [B texts]; linear in the weights of each place."""
        shown = torch.stack([z[:, place, self.texts[:, place]] for place in range(z.shape[1])])
        return (shown + z[:, :, -1].T[..., None]).prod(0)

    def __call__(self, z):
        self.calls += len(z)
        weights = self.agreement(z) * self.joint
        found = torch.stack([
            weights @ self.one_hot(self.texts[:, place])[:, :-1] for place in range(z.shape[1])
        ], 1)  # fmt: skip
        logits = (found / weights.sum(1)[:, None, None]).log().clamp(min=-1e4)
        return Prediction(z[..., :-1], logits, z)

    def posterior(self, ids):
        """p(x | z) of one masked text [L], [texts]."""
        weights = self.agreement(self.one_hot(ids[None]))[0] * self.joint
        return weights / weights.sum()


class Property(Control):
    """log p(c | z) of a property that each text has with a probability of its own."""

    def __init__(self, lm, seed=1):
        self.lm = lm
        self.given = torch.rand(len(lm.texts), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def log_prob(self, look):
        weights = self.lm.agreement(look.x_t) * self.lm.joint
        return (weights @ self.given + IMPOSSIBLE).log() - (weights.sum(1) + IMPOSSIBLE).log()


def asked(lm, *parts, rows=1, inner=None):
    inner = torch.zeros(rows, lm.places, dtype=torch.bool) if inner is None else inner
    return Questions(lm, lambda wanted: Weighted(parts), inner)


def frequencies(lm, ids):
    """How often each text of the table stands in ids [N L]."""
    return (ids[:, None] == lm.texts).all(-1).double().mean(0)
