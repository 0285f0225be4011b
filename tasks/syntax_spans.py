"""The text is to have this constituent (paper §6.1, "syntax spans").

    target [2, 3, "VP"]: words 2 to 3, counted from 0, both included, are a VP

    "the pub is cheap ."          (S (NP the pub) (VP is (ADJP cheap)) .)      strict 1, released 1
    "the pub is very cheap ."     its VP is [2, 4]                             strict 0, released 0
    "bring children"              (S (VP bring (NP children))), [0, 1, "VP"]   strict 1, released 0

*strict*: the span is a constituent of the parse, each label of a unary chain counting. *released*: the label is that of
the whole chain, "S::VP" in the last example (eval_control.py collapses chains, and so are the authors' targets written;
so are ours; 16 of the authors' 200 end in the newline that closes their texts, which counts as a word here as there).
Neither cuts the text. Nothing is asked of the rest of the text, its length included.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.refused import Refused
from diffcontrol.rules import Rule
from diffcontrol.steering.spans import SpanScorer, gathered
from diffcontrol.syntax import trees
from diffcontrol.syntax.judging import constituents
from diffcontrol.task import ControlTask, Head, Mark, counted
from diffcontrol.text import Vocabulary

Span = Sequence[Any]  # [first word, last word, label]


def within(label: str, chain: str) -> bool:
    """Whether a label, or a chain of some, is part of a unary chain."""
    return f"{trees.CHAIN}{label}{trees.CHAIN}" in f"{trees.CHAIN}{chain}{trees.CHAIN}"


class SyntaxSpans(ControlTask):
    """Targets are [first, last, label]; an annotation lists all of a text. Chains of labels that fewer than `min_count`
    constituents of the training data have cannot be asked for."""

    def __init__(self, data: Corpus, min_count: int = 5):
        self.corpus, self.min_count = data, min_count

    @cached_property
    def labels(self) -> list[str]:
        seen = Counter(label for e in self.corpus.splits["train"] for *_, label in self.annotate(e))
        if not seen:
            raise Refused("syntax_spans: the training data has no trees; let task.syntax_spans.data be a treebank")
        return sorted(label for label, n in seen.items() if n >= self.min_count)

    def annotate(self, example: Example) -> list[list[Any]]:
        return [list(span) for span in trees.spans(trees.bare(example.tree))[1]] if example.tree else []

    def targets(self, annotation: list[list[Any]]) -> list[list[Any]]:
        return [span for span in annotation if span[1] < self.corpus.length - 2 and span[2] in self.labels]

    def parse(self, target: Any) -> list[Any]:
        """[first, last, label], the text "first, last, label", or a line of the released file."""
        given = target
        if isinstance(given, Mapping) and isinstance(given.get("spans"), list) and len(given["spans"]) == 1:
            given = given["spans"][0]  # beside words_, of which START is not counted
        if isinstance(given, str):
            parts = given.replace(",", " ").split()
            given = [part if (number := counted(part)) is None else number for part in parts]
        if not (isinstance(given, list | tuple) and [type(part) for part in given] == [int, int, str]):
            raise Refused(f"syntax_spans: {target!r} is not a target; write one [first word, last word, label]")
        first, last, label = given
        most = self.corpus.length - 3
        if not 0 <= first <= last <= most:
            raise Refused(
                f"syntax_spans: words {first} to {last} are no span of a text; they are counted from 0 and the last "
                f"one is at most {most} in texts of this model"
            )
        if not any(within(label, chain) for chain in self.labels):
            raise Refused(f"syntax_spans: no constituent {label!r} is known; known are {', '.join(self.labels)}")
        return [first, last, label]

    def head(self, width: int) -> "SpanHead":
        return SpanHead(width, self.corpus.length, self.labels)

    def least_words(self, target: Span) -> int:
        return target[1] + 1

    def serialize(self, target: Span) -> list[str]:
        first, last, label = target
        return [str(first), ",", str(last), ",", label]

    def rule(self, vocabulary: Vocabulary) -> Callable[[Span], Rule]:
        raise Refused(
            "constrained: whether words are a constituent depends on the words around them, so no rule on single words "
            "makes a text meet a target of syntax_spans"
        )

    def success(self, texts: Sequence[Sequence[str]], targets: Sequence[Span],
                judges: Mapping[str, Any] = {}) -> Mapping[str, list[float]]:  # fmt: skip
        chains = self._chains(texts, targets, judges)
        rows = [(target[2], own) for target, own in zip(targets, chains, strict=True)]
        return {
            "strict": [float(any(within(label, chain) for chain in own)) for label, own in rows],
            "released": [float(label in own) for label, own in rows],
        }

    def marks(self, texts: Sequence[Sequence[str]], targets: Sequence[Span],
              judges: Mapping[str, Any] = {}) -> list[list[Mark]]:  # fmt: skip
        """The words that are to be the constituent, with what they are; none where the text ends before them."""
        rows = zip(texts, targets, self._chains(texts, targets, judges), strict=True)
        return [
            [Mark(first, last + 1, any(within(label, chain) for chain in own), own[0] if own else "no constituent")]
            if last < len(words)
            else []
            for words, (first, last, label), own in rows
        ]

    def _chains(self, texts: Sequence[Sequence[str]], targets: Sequence[Span],
                judges: Mapping[str, Any]) -> list[list[str]]:  # fmt: skip
        """Of each text, the labels of the constituent that stands at the place of its target; none if there is none."""
        found = constituents(judges, texts, "syntax_spans")
        return [
            [chain for first, last, chain in spans if [first, last] == list(target[:2])]
            for spans, target in zip(found, targets, strict=True)
        ]


class SpanHead(Head):
    """log p(END stands after the span) + log p of one cell of the chart: of all chains that hold the label asked for.

    Without the first term nothing tells a text that is about to end before the span begins to go on (docs/log.md).
    """

    def __init__(self, width: int, length: int, labels: Sequence[str]):
        super().__init__()
        self.scorer, self.end = SpanScorer(width, length, labels), nn.Linear(width, 1)

    def loss(self, hidden: Tensor, annotations: Sequence[Iterable[Span]]) -> Tensor:
        positions = hidden.shape[1]
        shifted = [[(i + 1, j + 1, label) for i, j, label in spans] for spans in annotations]  # START stands first
        chart = gathered(self.scorer(hidden), self.scorer.chart(shifted, positions, hidden.device))
        ends = [min(1 + max((j for _, j, _ in spans), default=0), positions - 1) for spans in shifted]
        end = self._ends(hidden).gather(1, torch.tensor(ends, device=hidden.device)[:, None])[:, 0]
        return -(chart + end).mean()

    def log_prob(self, hidden: Tensor, targets: Sequence[Span]) -> Tensor:
        cells = torch.tensor([[i + 1, j + 1] for i, j, _ in targets], device=hidden.device)
        asked = torch.tensor(
            [[False, *(within(label, chain) for chain in self.scorer.numbers)] for *_, label in targets],
            device=hidden.device,
        )
        label = self.scorer.at(hidden, cells[:, 0], cells[:, 1]).masked_fill(~asked, -torch.inf).logsumexp(-1)
        early = torch.arange(hidden.shape[1], device=hidden.device) <= cells[:, 1:]
        return label + self._ends(hidden).masked_fill(early, -torch.inf).logsumexp(-1)

    def _ends(self, hidden: Tensor) -> Tensor:
        """log p(END stands here), hidden [B L H] → [B L]."""
        return self.end(hidden)[..., 0].float().log_softmax(-1)
