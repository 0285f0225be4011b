"""The strongest control of single words: a causal LM whose next word is reweighed by what the word itself says.

    log p(x_i | x_<i, c)  =  log p(x_i | x_<i)  +  weight · log p(c_i | x_i)  +  const

with −∞ for words that cannot be part of a text that meets the target. A tag lexicon, the place of END or the words of
a value (`ControlTask.rule`) need no training, look at one word at a time and see nothing of the future: what this
reaches takes no understanding of a sentence. Several tasks add up. V vocabulary
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor

from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN, CausalLM
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws
from diffcontrol.method import Method, Progress
from diffcontrol.rules import Rule
from diffcontrol.task import ControlTask, Request
from diffcontrol.text import END


class ConstrainedProcessor(LogitsProcessor):
    """Adds weight × the factors of all constraints of a row. Where they leave no word, as those of two tasks may, the
    text ends."""

    def __init__(self, rows: Sequence[Sequence[Rule]], weight: float = 1.0):
        self.rows, self.weight = rows, weight

    @torch.inference_mode()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.clone()
        scores[:, list(NEVER_WRITTEN)] = -torch.inf
        for row in (~(input_ids == END).any(1)).nonzero()[:, 0].tolist():
            added = self._added(row, input_ids[row, 1:].tolist()).to(scores)
            allowed = scores[row] + added
            if not allowed.isfinite().any():
                allowed[END] = 0.0
            scores[row] = allowed
        return scores

    def _added(self, row: int, words: list[int]) -> Tensor:
        total = sum((constraint.factors(words) for constraint in self.rows[row]), torch.zeros(()))
        return torch.where(total.isfinite(), self.weight * total, total)  # 0 × −∞ is still forbidden


class Constrained(Method):
    """Samples from `lm` under the tasks' constraints; `scale` multiplies `weight`, `temperature` divides the sum of
    both terms."""

    def __init__(self, lm: CausalLM, tasks: Mapping[str, ControlTask], weight: float = 1.0, scale: float = 1.0,
                 chunk: int = 50, seed: int = 0, temperature: float = 1.0):  # fmt: skip
        super().__init__(chunk, seed)
        self.lm, self.weight, self.temperature = lm, scale * weight, temperature
        self.tasks = dict(tasks)
        self.constraints = {name: task.rule(lm.corpus.vocabulary) for name, task in tasks.items()}

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        for task in tasks.values():
            task.rule(corpus.vocabulary)

    def models(self) -> list[nn.Module]:
        return [self.lm]

    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        rows = [[make(request.targets[name]) for name, make in self.constraints.items()] for request in requests]
        processor = ConstrainedProcessor(rows, self.weight)
        ids = self.lm.generate(draws, [processor], self.temperature)
        texts = [self.lm.corpus.vocabulary.decode(row) for row in ids.tolist()]
        return [request.completed(words, self.tasks) for request, words in zip(requests, texts, strict=True)]
