"""D-CBG, classifier guidance of a discrete diffusion (Schiff et al. 2024, 2412.10193, eqs. 9–12).

A step draws each place by itself, and a classifier p(c | z) of noisy texts tilts the draw of place l:

    p(w | z_t, c)  ∝  p(w | z_t) · p(c | z_t with w in place l)^γ                              exact
    log p(c | z_t with w in place l)  ≈  log p(c | z_t) + ⟨∂ log p(c | z_t)/∂z_t, e_w − e_mask⟩_l    first order

The strength is γ; with γ = 1 and one place a step the exact form is Bayes' rule. The first order reads every word off
one backward pass with respect to the one-hot text. The exact form asks the classifier about a text for each word of
each place; here only about the places that the step writes, and of each the `top_k` likeliest words, as L·V texts a
step are too many. The others are not written. Which places a step writes is left to the language model: the released
code weighs the mask as one more word, so that guidance also moves the time at which a place is written; with an exact
classifier and γ = 1 the two agree.

n texts · L positions · V vocabulary
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffcontrol.allowed import Rules, arguments, whole
from diffcontrol.diffusion.denoiser import Prediction, known_words, words_within
from diffcontrol.masked.lm import MaskedLM
from diffcontrol.steering.base import Look, Weighted
from diffcontrol.text import END, PAD, START


@dataclass(frozen=True)
class Questions:
    """What is asked of the texts of a chunk.

    Fields: `control`, which makes the weighted sum of controls of so many texts, the i-th asked for what row rows[i]
    is; `inner` [B L], places that hold words, none of the specials.
    """

    lm: MaskedLM
    control: Callable[[Sequence[int]], Weighted]
    inner: Tensor

    def look(self, z: Tensor) -> Look:
        """A look at noisy texts [n L V+1]. The time is the share of their words that is masked: where a text ends is
        known or still masked, and what is known of its length says nothing of the time."""
        shown = z.detach()
        words = shown.shape[1] - shown[..., [START, END, PAD]].sum((1, 2))
        return Look(z, shown[..., -1].sum(1) / words.clamp(min=1), lambda: self.lm(z))

    def words(self, prediction: Prediction, rows: Sequence[int]) -> Tensor:
        """log p(w | z) without regard to the controls, [n L V]."""
        logits = prediction.logits.detach()
        return words_within(logits, self.inner[list(rows), : logits.shape[1]]).log_softmax(-1)


class MaskedGuidance(ABC):
    """Which words are likely at the places that a step writes."""

    @abstractmethod
    def predict(self, asked: Questions, ids: Tensor, places: Tensor, rows: list[int]) -> Tensor:
        """Logits of the words [n L V] for texts [n L] with masks, of which `places` [n L] are about to be written."""


class Unguided(MaskedGuidance):
    """The language model's own words."""

    def predict(self, asked: Questions, ids: Tensor, places: Tensor, rows: list[int]) -> Tensor:
        return asked.words(asked.lm(asked.lm.one_hot(ids)), rows)


class FirstOrder(MaskedGuidance):
    """D-CBG to first order (eq. 12; `use_approx` in the released code): a forward and a backward pass a step."""

    def predict(self, asked: Questions, ids: Tensor, places: Tensor, rows: list[int]) -> Tensor:
        z = asked.lm.one_hot(ids).requires_grad_(True)
        with torch.enable_grad():
            look = asked.look(z)
            gain = asked.control(rows).log_prob(look).sum()
        (g,) = torch.autograd.grad(gain, z)
        return asked.words(look.prediction, rows) + g[..., :-1] - g[..., -1:]


class Exact(MaskedGuidance):
    """D-CBG as it stands (eq. 11), of the `top_k` likeliest words of each place; `block` texts are read at once."""

    allowed: ClassVar[Rules] = {"top_k": whole(1), "block": whole(1)}

    def __init__(self, top_k: int = 20, block: int = 512):
        arguments(self, top_k=top_k)
        self.top_k, self.block = top_k, block

    def predict(self, asked: Questions, ids: Tensor, places: Tensor, rows: list[int]) -> Tensor:
        words = Unguided().predict(asked, ids, places, rows)
        texts, positions = places.nonzero().unbind(1)
        likely = known_words(words[texts, positions]).topk(min(self.top_k, words.shape[-1]))  # [P k], UNK is none
        k = likely.indices.shape[1]
        owners = texts.repeat_interleave(k)
        candidates = ids[owners].scatter(1, positions.repeat_interleave(k)[:, None], likely.indices.view(-1, 1))
        gains = [
            self.gain(asked, candidates[block], [rows[i] for i in owners[block].tolist()])
            for block in torch.arange(len(candidates), device=ids.device).split(self.block)
        ]
        tilted = likely.values + torch.cat(gains).view(-1, k)
        written = torch.full_like(words[texts, positions], -torch.inf).scatter(1, likely.indices, tilted)
        return words.index_put((texts, positions), written)

    @torch.no_grad()
    def gain(self, asked: Questions, ids: Tensor, rows: list[int]) -> Tensor:
        """Σ_k γ_k · log p(c_k | z) of texts [N L] with masks, [N]."""
        return asked.control(rows).log_prob(asked.look(asked.lm.one_hot(ids)))
