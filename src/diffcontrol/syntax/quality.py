"""How good a parser is on gold trees: the judge's own ceiling, reported beside every result that it judged."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from diffcontrol.data.corpus import Example
from diffcontrol.metrics import interval
from diffcontrol.metrics.brackets import f1
from diffcontrol.syntax.trees import read

TEXTS = 200  # of the held-out gold trees, at most: seconds in a run, an interval of about ± 1 point


class Parses(Protocol):
    """A parser, as far as its quality is concerned."""

    def parse(self, texts: Sequence[Sequence[str]], title: str = "") -> list[Any]:
        """The parse of each text: its `tree` and `tags`."""
        ...


def quality(parser: Parses, examples: Sequence[Example]) -> Mapping[str, Any]:
    """Mean labelled F1 (EVALB's conventions) and share of right tags of a text; empty where there is no gold tree."""
    gold = [example for example in examples if example.tree][:TEXTS]
    if not gold:
        return {}
    parses = parser.parse([example.words for example in gold], title="the judge on gold trees")
    pairs = list(zip(gold, parses, strict=True))
    right = [[a == b for a, b in zip(read(e.tree).tags, parse.tags, strict=True)] for e, parse in pairs]
    return {
        "f1": interval.measure([f1(example.tree, parse.tree) for example, parse in pairs], interval.SHARE),
        "tag_accuracy": interval.measure([sum(each) / len(each) for each in right], interval.SHARE),
    }
