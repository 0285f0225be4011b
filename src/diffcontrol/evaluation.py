"""Scores of written texts: control success by the tasks' scorers, fluency by two language models and the
grammar, diversity."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from diffcontrol.data.corpus import Corpus
from diffcontrol.metrics import diversity, interval
from diffcontrol.metrics.interval import SHARE
from diffcontrol.task import ControlTask, Mark, Request
from diffcontrol.text import SPECIALS

ALL = "all"  # stands beside several tasks where each of them has its scores: their success at once
BOTH = "met_and_grammatical"  # the score of texts that meet the target in full and that the data's grammar can write
Texts = Sequence[Sequence[Sequence[str]]]  # [requests][samples], each a list of words


class Teacher(Protocol):
    def nll(self, texts: Sequence[Sequence[str]]) -> tuple[list[float], list[int]]:
        """Summed nats and number of tokens (words and END) of each text."""
        ...


@dataclass
class Evaluation:
    """Scores of one method; arrays are [requests, samples]."""

    texts: Texts
    success: dict[str, dict[str, np.ndarray]]  # task → score's name → array
    nats: np.ndarray
    tokens: np.ndarray
    grammatical: np.ndarray | None = None  # 1 or 0; None where the data have no grammar
    nll_ngram: np.ndarray | None = None  # nats a token by the n-gram judge; None where there is none
    mauve: float | None = None  # of all texts together; None where there is no such judge
    extra: dict[str, Any] = field(default_factory=dict)  # seconds_per_sample, …

    @property
    def nll(self) -> np.ndarray:
        """Nats a token of each text, [requests, samples]."""
        return self.nats / self.tokens

    def row(self) -> dict[str, Any]:
        """The method's entry of results.json."""
        micro = float(self.nats.sum() / self.tokens.sum())
        judged = {}
        if self.grammatical is not None:
            judged["grammatical"] = interval.measure(self.grammatical.mean(1), SHARE)
        if self.nll_ngram is not None:
            judged["perplexity_ngram"] = interval.perplexity(self.nll_ngram.mean(1))
            judged["nll_ngram"] = interval.measure(self.nll_ngram.mean(1))
        return {
            "success": {
                task: {name: interval.measure(values.mean(1), SHARE) for name, values in scores.items()}
                for task, scores in self.success.items()
            },
            "fluency": {
                "perplexity": interval.perplexity(self.nll.mean(1)),
                "nll": interval.measure(self.nll.mean(1)),
                "nll_micro": micro,
                "perplexity_micro": float(np.exp(micro)),
                **judged,
            },
            "diversity": diversity.measure(self.texts) | ({} if self.mauve is None else {"mauve": self.mauve}),
            **self.extra,
        }

    def samples(self, method: str, requests: Sequence[Request]) -> Iterator[dict[str, Any]]:
        """Lines of samples.jsonl."""
        for r, request in enumerate(requests):
            for s, words in enumerate(self.texts[r]):
                scores = {t: {n: float(v[r, s]) for n, v in named.items()} for t, named in self.success.items()}
                judged = {"nll_ngram": self.nll_ngram, "grammatical": self.grammatical}
                more = {name: float(values[r, s]) for name, values in judged.items() if values is not None}
                yield {"method": method, "row": r, "tasks": dict(request.targets), "sample": s, "words": list(words),
                       "scores": scores, "nll": float(self.nll[r, s]), **more}  # fmt: skip


def evaluate(
    texts: Texts, requests: Sequence[Request], tasks: Mapping[str, ControlTask], judges: Mapping[str, Any]
) -> Evaluation:
    """Scores texts [requests][samples]; of the judges, `teacher` measures fluency and `ngram` (where there is one) does
    so again, `grammar` (where the data have one) tells which texts are grammatical, `mauve` (where it was chosen) how
    near the first text of every target, taken together, are to people's, and the tasks take what they need.
    """
    teacher: Teacher = judges["teacher"]
    success, grammatical = succeeded(texts, requests, tasks, judges)
    shape = (len(texts), len(texts[0]))
    flat = [words for group in texts for words in group]
    nats, tokens = (np.reshape(values, shape) for values in teacher.nll(flat))
    ngram: Teacher | None = judges.get("ngram")
    second = np.divide(*(np.reshape(values, shape) for values in ngram.nll(flat))) if ngram else None
    mauve = judges["mauve"].score([group[0] for group in texts]) if "mauve" in judges else None
    return Evaluation(texts, success, nats, tokens, grammatical, second, mauve)


def succeeded(
    texts: Texts, requests: Sequence[Request], tasks: Mapping[str, ControlTask], judges: Mapping[str, Any]
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray | None]:
    """`success` and `grammatical` of an Evaluation of texts [requests][samples]; needs no teacher."""
    flat = [words for group in texts for words in group]
    shape = (len(texts), len(texts[0]))
    success: dict[str, dict[str, np.ndarray]] = {}
    sources = [request.source for request in requests for _ in range(shape[1])]
    for name, task in tasks.items():
        targets = [request.targets[name] for request in requests for _ in range(shape[1])]
        scored = dict(task.success(flat, targets, judges))
        scored["strict"] = [score * _clean(words) for words, score in zip(flat, scored["strict"], strict=True)]
        if all(sources):
            scored |= task.compared(flat, targets, [source for source in sources if source])
        success[name] = {key: np.asarray(values, float).reshape(shape) for key, values in scored.items()}
    if len(tasks) > 1:
        success[ALL] = {key: _at_once([scores[key] for scores in success.values()]) for key in ("strict", "released")}
    grammatical = None
    if grammar := judges.get("grammar"):
        grammatical = np.asarray(grammar.accepts(flat), float).reshape(shape)
        for scores in success.values():
            scores[BOTH] = _at_once([scores["strict"], grammatical])
    return success, grammatical


def annotated(
    samples: Sequence[dict[str, Any]], tasks: Mapping[str, ControlTask], judges: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The lines of samples.jsonl with what a reader wants beside them, by task: `asked`, the target in words, and
    `marks`, [first word, past the last, met, label] of what shows of it in the text."""
    texts = [sample["words"] for sample in samples]
    asked: list[dict[str, str]] = [{} for _ in samples]
    marks: list[dict[str, list[Mark]]] = [{} for _ in samples]
    for name, task in tasks.items():
        targets = [sample["tasks"][name] for sample in samples]
        for i, (target, own) in enumerate(zip(targets, task.marks(texts, targets, judges), strict=True)):
            asked[i][name], marks[i][name] = " ".join(task.serialize(target)), own
    return [{**sample, "asked": said, "marks": own} for sample, said, own in zip(samples, asked, marks, strict=True)]


def _clean(words: Sequence[str]) -> bool:
    """Whether a text is made of words: one in which START, END, UNK or PAD stands meets no target strictly."""
    return not set(words) & set(SPECIALS)


def _at_once(scores: Sequence[np.ndarray]) -> np.ndarray:
    """1 where every score is met in full."""
    return np.logical_and.reduce([values > 1 - 1e-9 for values in scores]).astype(float)


def quality(judges: Mapping[str, Any], corpus: Corpus) -> dict[str, dict[str, Any]]:
    """How good the judges themselves are: measures by judge and name, of those that the corpus has a truth for."""
    found = {name: judge.quality(corpus) for name, judge in judges.items() if hasattr(judge, "quality")}
    return {name: dict(measures) for name, measures in found.items() if measures}


def differences(evaluations: Mapping[str, Evaluation], first: str) -> dict[str, Any]:
    """`first` minus every other method, paired by target."""
    one, found = evaluations[first], {}
    for name, other in evaluations.items():
        if name in (first, "gold"):
            continue
        found[f"{first} - {name}"] = {
            "success": {
                task: {
                    key: interval.paired(v.mean(1), other.success[task][key].mean(1), SHARE)
                    for key, v in scores.items()
                }
                for task, scores in one.success.items()
            },
            "nll": interval.paired(one.nll.mean(1), other.nll.mean(1)),
        }
    return found
