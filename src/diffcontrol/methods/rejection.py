"""Rejection sampling's writer: a causal LM that nothing steers, and a predictor that says which texts to keep.

`diffcontrol.methods.candidates.BestOf` keeps the best of k. Of all baselines it asks the least: it needs no more
than a verdict on whole texts, and its texts are as fluent as the language model's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from diffcontrol.autoregressive.causal_lm import CausalLM
from diffcontrol.autoregressive.predictor import Predictor, verdicts
from diffcontrol.autoregressive.prompted import check_targets
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws
from diffcontrol.method import Method, Progress
from diffcontrol.methods.fudge import FudgeProcessor
from diffcontrol.task import ControlTask, Request


class Sampled(Method):
    """Samples from `lm`; the product of the tasks' `predictors` is its opinion of the texts."""

    def __init__(self, lm: CausalLM, predictors: Mapping[str, Predictor], chunk: int = 50, seed: int = 0,
                 temperature: float = 1.0):  # fmt: skip
        super().__init__(chunk, seed)
        self.lm, self.predictors, self.temperature = lm, dict(predictors), temperature

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        check_targets("rejection", tasks, corpus)

    def models(self) -> list[nn.Module]:
        return [self.lm, *self.predictors.values()]

    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        processor = FudgeProcessor([], 0, 0)  # forbids words that no text has
        ids = self.lm.generate(draws, [processor], self.temperature)
        return [self.lm.corpus.vocabulary.decode(row) for row in ids.tolist()]

    def opinion(self, requests: Sequence[Request], texts: Sequence[Sequence[str]]) -> Tensor:
        return verdicts(self.predictors, requests, texts)
