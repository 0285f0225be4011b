"""Exact: what a task's automaton makes of the network's posterior, with nothing trained.

The network's logits give every position a distribution of its own. Under it, the probability that a text meets the
target is a sum over the automaton's states (`diffcontrol.chain`); guidance may follow its gradient, as Diffinity does
(2602.12468), or condition on it (`guidance/conditioning.py`). It knows the rule that `constrained`, `smc` and
`lookahead` know, so it is to be compared with these, not with methods that learn what a target means.

B batch · L positions · V vocabulary
"""

from collections.abc import Sequence

from torch import Tensor

from diffcontrol.automaton import Automaton, Stacked
from diffcontrol.chain import Chain
from diffcontrol.data.corpus import Corpus
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.steering.base import ByTask, Control, Look
from diffcontrol.task import ControlTask, Target

BLUR = 1e-6  # of the probability is spread over all words, so that no text is impossible before the words are settled


def probabilities(logits: Tensor) -> Tensor:
    """Of the words at the positions behind START, blurred, [B L V] → [B L−1 V]."""
    return (1 - BLUR) * logits[:, 1:].softmax(-1) + BLUR / logits.shape[-1]


class Exact(ByTask):
    """The probability that independent words make a text of the task's automaton."""

    def __init__(self, task: ControlTask, lm: DiffusionLM):
        self.task, self.automaton = task, task.automaton(lm.corpus.vocabulary)

    @classmethod
    def check(cls, task: ControlTask, corpus: Corpus) -> None:
        task.automaton(corpus.vocabulary)

    def completed(self, words: Sequence[str], target: Target) -> list[str]:
        return self.task.completed(words, target)

    def control(self, targets: Sequence[Target]) -> Control:
        return ExactControl([self.automaton(target) for target in targets])


class ExactControl(Control):
    """An automaton for each row."""

    def __init__(self, automata: Sequence[Automaton]):
        self.rows, self.stacked = automata, Stacked.of(automata)

    @property
    def automata(self) -> Sequence[Automaton]:
        return self.rows

    def log_prob(self, look: Look) -> Tensor:
        return Chain(self.stacked, probabilities(look.prediction.logits)).log_prob()
