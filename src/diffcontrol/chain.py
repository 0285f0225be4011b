"""Chains: what an automaton makes of a text whose positions are independent of each other.

Given probabilities p_i(w) of the word at each position, the probability that the text is accepted, and each word's
probability given that it is, are sums over the automaton's states instead of over all texts:

    β_i(q) = Σ_w p_i(w) β_{i+1}(δ(q, w)),   β after the last position: whether q accepts
    α_{i+1}(q') = Σ_{q, w: δ(q, w) = q'} α_i(q) p_i(w),   α at the first position: q is the start
    p_i(w | accepted) ∝ p_i(w) · Σ_q α_i(q) β_{i+1}(δ(q, w))

(Rabiner 1989, with an automaton in place of the hidden states; on a diffusion LM's posterior: Diffinity, 2602.12468.)

B texts · L positions, START's left out · V vocabulary · Q states · K classes of words
"""

import torch
from torch import Tensor

from diffcontrol.automaton import Stacked

TINY = 1e-300


class Chain:
    """Texts of independent words, probs [B L V], and the automata of one target each.

    It is computed in double precision: some words in a row that are all but impossible are less than float32 holds.
    """

    def __init__(self, automata: Stacked, probs: Tensor):
        self.automata = automata = automata.to(probs.device)
        self.dtype, probs = probs.dtype, probs.double()
        B, L, _ = probs.shape
        count = automata.table.shape[2]
        self.classes = automata.classes[:, None].expand(-1, L, -1)  # [B L V]
        self.probs = probs.new_zeros(B, L, count).scatter_add(2, self.classes, probs)  # of a class of words, [B L K]
        self.later, self.scale = self._backward()

    def _next(self, of_state: Tensor) -> Tensor:
        """Values of the states that each class leads to, [B Q] → [B Q K]."""
        table = self.automata.table
        return of_state.gather(1, table.flatten(1)).view(table.shape)

    def _backward(self) -> tuple[list[Tensor], Tensor]:
        """β behind each position, L + 1 of [B Q], each scaled to a maximum of 1; the logarithms of the scales, summed
        [B]. States that no text can be in there are left out, as theirs would be the scale, and the others vanish."""
        reachable = self.automata.reachable(self.probs.shape[1])
        beta = self.automata.accepting.to(self.probs) * reachable[-1]
        later, scale = [beta], beta.new_zeros(len(beta))
        for i in reversed(range(self.probs.shape[1])):
            beta = (self._next(beta) * self.probs[:, i, None]).sum(2) * reachable[i]
            largest = beta.amax(1, keepdim=True).clamp(min=TINY)
            beta = beta / largest
            scale = scale + largest[:, 0].log()
            later.append(beta)
        return later[::-1], scale

    def log_prob(self) -> Tensor:
        """log p(accepted), [B]; differentiable in the probabilities."""
        first = self.later[0].gather(1, self.automata.start[:, None])[:, 0]
        return (first.clamp(min=TINY).log() + self.scale).to(self.dtype)

    def factors(self) -> Tensor:
        """log p_i(w | accepted) − log p_i(w) up to a constant at each position, [B L V]; its greatest value is 0."""
        table, found = self.automata.table, []
        alpha = torch.nn.functional.one_hot(self.automata.start, table.shape[1]).to(self.probs)
        for i in range(self.probs.shape[1]):
            found.append((alpha[..., None] * self._next(self.later[i + 1])).sum(1))  # [B K]
            moved = alpha[..., None] * self.probs[:, i, None]  # [B Q K]
            alpha = torch.zeros_like(alpha).scatter_add(1, table.flatten(1), moved.flatten(1))
            alpha = alpha * (self.later[i + 1] > 0)  # else the dead state's share grows until the others' vanish
            alpha = alpha / alpha.amax(1, keepdim=True).clamp(min=TINY)
        factors = torch.stack(found, 1)
        factors = (factors / factors.amax(2, keepdim=True).clamp(min=TINY)).clamp(min=TINY).log()
        return factors.to(self.dtype).gather(2, self.classes)
