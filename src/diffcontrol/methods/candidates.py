"""One text of several candidates: by agreement among them, or by the writer's own opinion; never by the judge.

    mbr     the candidate with the highest mean BLEU against the others (minimum Bayes risk; Li et al. 2022, §5.3, from
            Kumar & Byrne 2004); released code: mean pairwise smoothed sentence BLEU, the candidate itself left out
    best    the candidate that the method's own guide (control classifier, FUDGE's predictor) finds likeliest to obey

Each is a row of its own beside the method that writes the candidates, whose texts are not chosen.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hydra.utils import get_object
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws
from diffcontrol.method import Method, Progress
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask, Request

# Adds one to the counts of bigrams and longer; e2e-metrics does so to those of single words, too.
_SMOOTH = SmoothingFunction().method2


class Chosen(Method):
    """The best of `k` texts of `method`. `method` is None where its row is not in the run."""

    def __init__(self, method: Method | None, k: int, chunk: int = 50, seed: int = 0):
        super().__init__(max(1, chunk // k), seed)
        assert method is not None  # `check` says so before
        self.method, self.k = method, k

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        if node["method"] is None:
            raise Refused("candidates are chosen among the texts of a method that is not in this run; add it to "
                             "method=[…], guided_diffusion unless you say otherwise")  # fmt: skip
        Method.check_node(node["method"], tasks, corpus)

    def models(self) -> list[torch.nn.Module]:
        return self.method.models()

    def positions(self, request: Request) -> int:
        return self.method.positions(request)

    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        rows = [request for request in requests for _ in range(self.k)]
        texts = self.method.write(rows, draws.children(self.k), progress)
        groups = [texts[i : i + self.k] for i in range(0, len(texts), self.k)]
        scores = self.scores(requests, groups)
        return [group[own.index(max(own))] for group, own in zip(groups, scores, strict=True)]

    @abstractmethod
    def scores(self, requests: Sequence[Request], groups: Sequence[list[list[str]]]) -> list[list[float]]:
        """Of each candidate, [requests][k]."""


class MinimumBayesRisk(Chosen):
    """The candidate most like the others; of one or two, the first."""

    def scores(self, requests: Sequence[Request], groups: Sequence[list[list[str]]]) -> list[list[float]]:
        return [agreement(group) for group in groups]


def agreement(texts: Sequence[Sequence[str]]) -> list[float]:
    """Mean sentence BLEU of each text with every other one as its reference."""
    return [
        sum(_bleu(other, text) for j, other in enumerate(texts) if j != i) / max(1, len(texts) - 1)
        for i, text in enumerate(texts)
    ]


def _bleu(reference: Sequence[str], text: Sequence[str]) -> float:
    return float(sentence_bleu([reference], text, smoothing_function=_SMOOTH)) if text else float(not reference)


class BestOf(Chosen):
    """The candidate that the method's own guide likes best."""

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        super().check(node, tasks, corpus)
        kind = get_object(node["method"]["_target_"])
        if not kind.has_opinion(node["method"]):
            raise Refused(f"best: {kind.__name__} has no guide of its own here, so it cannot choose among its texts")

    def scores(self, requests: Sequence[Request], groups: Sequence[list[list[str]]]) -> list[list[float]]:
        rows = [request for request in requests for _ in range(self.k)]
        flat = self.method.opinion(rows, [text for group in groups for text in group]).tolist()
        return [flat[i : i + self.k] for i in range(0, len(flat), self.k)]
