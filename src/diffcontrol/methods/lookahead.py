"""A causal LM that is told, before each word, how likely the rest of the text is to meet the target.

Zhang et al. 2023, *Tractable Control for Autoregressive Language Generation* (GeLaTo, 2304.07438), and Zhang et al.
2024, *Adaptable Logical Control for Large Language Models* (Ctrl-G, 2406.13892):

    p(x_i | x_<i, c)  ∝  p_LM(x_i | x_<i) · p_HMM(c | x_≤i)

c is that the tasks' automata accept the text in the places that are left. An HMM distilled from the language model
(`autoregressive.hmm`) gives its probability exactly, as a sum over the states of HMM and automaton, and so no word is
written after which the target can no longer be met. Several tasks are the product of their automata.

As the HMM is not the language model, the texts are not quite samples of p_LM(x | c). With `particles` > 1 they are
weighed and resampled as in `smc`; p_HMM(c | x_≤i) only anticipates and is divided out, so with many particles they are
exact samples.

S hidden states · V vocabulary
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.automaton import DEAD
from diffcontrol.autoregressive.causal_lm import CausalLM
from diffcontrol.autoregressive.hmm import Hmm, Outlook
from diffcontrol.data.corpus import Corpus
from diffcontrol.methods.smc import Smc
from diffcontrol.rules import Rule
from diffcontrol.task import ControlTask, Request


class Ahead(Rule):
    """log p_HMM(c | x_≤i) − log p_HMM(c | x_<i) of every next word."""

    def __init__(self, outlook: Outlook):
        self.outlook = outlook
        self.known: dict[tuple[int, ...], tuple[int, Tensor]] = {(): (outlook.automaton.start, outlook.first)}

    def factors(self, words: Sequence[int]) -> Tensor:
        return self.weighed(words)[0]

    def weighed(self, words: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What draws adds up to −log p_HMM(c) for all texts that are accepted; what counts is that they are."""
        state, hidden = self._read(tuple(words))
        met, written = self.outlook.of_words(state, hidden, self.outlook.most - len(words))
        gains = met.log() - written.log() - met.sum().log()
        possible = (met > 0) & (self.outlook.automaton.next[state] != DEAD)
        return gains.masked_fill(~possible, -torch.inf).float(), torch.where(possible, 0.0, -torch.inf)

    def _read(self, words: tuple[int, ...]) -> tuple[int, Tensor]:
        """The automaton's state after the words, and how the hidden state of the next id is distributed [S]."""
        if words not in self.known:
            state, hidden = self._read(words[:-1])
            automaton = self.outlook.automaton
            self.known[words] = int(automaton.next[state, words[-1]]), self.outlook.next_hidden(hidden, words[-1])
        return self.known[words]


class Lookahead(Smc):
    """Samples from `lm` weighed by the outlook of `hmm`; `scale` multiplies `weight`, the power of the outlook."""

    def __init__(self, lm: CausalLM, hmm: Hmm, tasks: Mapping[str, ControlTask], particles: int = 1,
                 threshold: float = 0.25, temperature: float = 1.0, weight: float = 1.0, scale: float = 1.0,
                 chunk: int = 25, seed: int = 0):  # fmt: skip
        super().__init__(lm, {}, particles=particles, threshold=threshold, temperature=temperature, weight=weight,
                         scale=scale, chunk=chunk, seed=seed)  # fmt: skip
        self.hmm, self.tasks = hmm, dict(tasks)
        self.automata = {name: task.automaton(lm.corpus.vocabulary) for name, task in tasks.items()}

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        for task in tasks.values():
            task.automaton(corpus.vocabulary)

    def models(self) -> list[nn.Module]:
        return [self.lm, self.hmm]

    def asked(self, request: Request) -> list[Rule]:
        automaton = reduce(and_, [make(request.targets[name]) for name, make in self.automata.items()])
        return [Ahead(Outlook(self.hmm.probabilities(), automaton, self.lm.corpus.length - 1))]
