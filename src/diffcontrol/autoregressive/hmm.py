"""A hidden Markov model that stands for a causal LM where sums over all texts are needed.

Zhang et al. 2023, *Tractable Control for Autoregressive Language Generation* (GeLaTo, 2304.07438), and Zhang et al.
2024, *Adaptable Logical Control for Large Language Models* (Ctrl-G, 2406.13892), train one on samples of the language
model: that is, they lessen the divergence of the one from the other. How likely the rest of a text will make it meet a
target is no question that a causal LM can answer; an HMM answers it exactly for every automaton. Its likelihood is
exact and differentiable, and is raised here by Adam, not by EM: as the store trains all else.

S hidden states · V vocabulary · Q states and K classes of an automaton · B texts · T positions
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.automaton import Automaton
from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN, CausalLM
from diffcontrol.autoregressive.writing import Writing
from diffcontrol.batches import Steps
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import seed_of
from diffcontrol.likelihood import BUCKET
from diffcontrol.text import END, PAD, START, crop, lengths
from diffcontrol.training import Trainable

AT_ONCE = 500  # samples of the language model drawn together


class Hmm(Trainable):
    """p(words END) = Σ over z of p(z_1) Π p(z_i | z_i−1) p(x_i | z_i), trained on `samples` texts of `lm`."""

    def __init__(self, data: Corpus, lm: CausalLM, optim: Mapping[str, Any], states: int = 128, samples: int = 8000,
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        self.lm, self.samples = lm, samples
        self.first = nn.Parameter(0.1 * torch.randn(1, states))
        self.following = nn.Parameter(0.5 * torch.randn(states, states))
        self.written = nn.Parameter(torch.randn(states, len(data.vocabulary)))

    @cached_property
    def texts(self) -> Tensor:
        """What the language model writes, a function of the model seed, [samples L]."""
        parts = []
        for first in range(0, self.samples, AT_ONCE):
            generator = torch.Generator().manual_seed(seed_of(self.model_seed, first))
            parts.append(sampled(self.lm, min(AT_ONCE, self.samples - first), generator))
        return torch.cat(parts)

    def steps(self) -> Steps:
        return self._steps([torch.arange(self.samples)], lengths=lengths(self.texts), bucket=BUCKET)

    def collate(self, indices: list[int]) -> Tensor:
        return crop(self.texts[indices])

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        return {"nll": -self.log_likelihood(batch).sum() / self.weight(batch)}

    def weight(self, batch: Tensor) -> Tensor:
        return (batch[:, 1:] != PAD).sum()

    def probabilities(self) -> tuple[Tensor, Tensor, Tensor]:
        """p(z_1) [S], p(z_i | z_i−1) [S S], p(x_i | z_i) [S V]."""
        never = torch.tensor(NEVER_WRITTEN, device=self.written.device)
        written = self.written.index_fill(1, never, -torch.inf)
        return self.first[0].softmax(0), self.following.softmax(1), written.softmax(1)

    def log_likelihood(self, ids: Tensor) -> Tensor:
        """log p(words END) of each text, START words END PAD…, [B T] → [B]."""
        with torch.autocast(ids.device.type, enabled=False):  # sums of small numbers
            first, following, written = self.probabilities()
            state, total = first.expand(len(ids), -1), torch.zeros(len(ids), device=ids.device)
            for words in ids.T[1:]:
                joint = state * written.T[words]
                here = joint.sum(1, keepdim=True).clamp(min=1e-30)
                total = total + torch.where(words == PAD, 0.0, here[:, 0].log())
                state = (joint / here) @ following
            return total


def sampled(lm: CausalLM, rows: int, generator: torch.Generator) -> Tensor:
    """Texts of the language model, filled up to its length, [rows L]; those that do not end in time have no END."""
    ids = torch.full((rows, lm.corpus.length), PAD)
    ids[:, 0] = START
    running, writing = torch.arange(rows), Writing(lm, rows)
    for place in range(1, ids.shape[1]):
        words = torch.multinomial(writing.log_probs.exp(), 1, generator=generator)[:, 0]
        ids[running, place] = words
        kept = (words != END).nonzero()[:, 0]
        running = running[kept]
        if not len(running):
            break
        writing.go_on(kept, words[kept])
    return ids


class Outlook:
    """How likely it is that an HMM's text will be accepted by an automaton, in at most `most` ids after START.

    `after[r]` [Q S]: the probability when the automaton is in q, the id that it has just read came from the hidden
    state z, and at most r more ids follow, END included. In double precision, as many fixed words together are very
    unlikely.
    """

    def __init__(self, probabilities: tuple[Tensor, Tensor, Tensor], automaton: Automaton, most: int):
        self.first, self.following, self.written = (p.detach().double().cpu() for p in probabilities)
        self.automaton, self.most = automaton, most
        classes = torch.zeros(automaton.table.shape[1], len(self.first), dtype=torch.double)
        classes.index_add_(0, automaton.classes, self.written.T)  # p(a word of the class | z) [K S]
        accepted = automaton.accepting[:, None].double().expand(-1, len(self.first))
        self.after = [accepted]
        for _ in range(most):
            ahead = torch.einsum("qks,ks->qs", self.after[-1][automaton.table], classes)  # z: that of the next id
            self.after.append(torch.where(automaton.accepting[:, None], accepted, ahead @ self.following.T))

    def of_words(self, state: int, hidden: Tensor, left: int) -> tuple[Tensor, Tensor]:
        """p(the next id is w and the text is accepted, in at most `left` ids from w on) and p(the next id is w), of all
        w, with its hidden state distributed as `hidden` [S] → [V], [V]."""
        joint = self.written * hidden[:, None]  # [S V]
        return torch.einsum("sv,vs->v", joint, self.after[left - 1][self.automaton.next[state]]), joint.sum(0)

    def next_hidden(self, hidden: Tensor, word: int) -> Tensor:
        """How the hidden state is distributed after one more word, [S] → [S]."""
        joint = hidden * self.written[:, word]
        return (joint / joint.sum()) @ self.following
