"""Words to the left and right are given, the middle is to be written (paper §6.4, "infilling").

    target {"left": ["the", "pub", "is"], "right": ["."], "length": 2}, as one text "the pub is [2] ."

    "the pub is very cheap ."        strict 1, released 1
    "the pub is cheap ."             strict 0 (one word), released 1
    "the inn is very cheap ."        strict 0, released 0 (the left context is another)
    "the pub is very UNK ."          strict 0, released 1

`length` is a number of words, a range [2, 5] ("[2-5]") or null, any number ("[]"). *strict*: both contexts word for
word and between them a middle of the length asked for, without UNK or PAD. *released*: both contexts, whatever is
between (the released code fixes both and ten places, in which PAD and UNK may stand). Beside them stands how much the
middle shares with what was cut out: `bleu_4`, `rouge_l`, `cider` and, where its model is at hand, `bert_score`
(`metrics/overlap.py`).

What is cut out of a text: a constituent, where it has a tree, else a piece that a comma, a preposition or the like
begins; for aNLG the sentence between the two that are given.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from diffcontrol.automaton import Automaton, Some, anything, pattern, words
from diffcontrol.data.corpus import Corpus, Example, Gapped
from diffcontrol.layout import Layout, of_text
from diffcontrol.metrics.overlap import overlap
from diffcontrol.refused import Refused
from diffcontrol.rules import Follows, Rule
from diffcontrol.syntax import trees
from diffcontrol.task import GapTask, Mark, Target
from diffcontrol.text import SPECIALS, UNK, Vocabulary

CUT = range(2, 13)  # words of a middle that is cut out
SLACK = 2  # words that a range leaves to either side of what was cut out
ASKED = ("exact", "range", "free")
MARKS = {",", ".", ";", ":", "!", "?"}
BEGINS = MARKS | {
    "in", "on", "at", "by", "with", "near", "for", "from", "to", "of", "that", "which", "who", "where", "and", "but",
    "or", "is", "are", "was", "has", "serves", "serving", "located",
}  # fmt: skip
_GAP = re.compile(r"\[(?:(\d{1,6})(?:-(\d{1,6}))?)?\]")


class Infilling(GapTask):
    """An annotation is the text and where pieces may be cut out of it. `length`: what is asked of the middle of a text
    cut so: exact (as long as what was cut), range (±2 words), free, or a number of words; bert: BERTScore's model."""

    def __init__(self, data: Corpus, length: str | int = "exact", bert: str | None = None):
        if length not in ASKED and (type(length) is not int or length < 1):
            raise Refused(f"task.infilling.length={length} is neither one of {', '.join(ASKED)} nor a number of words")
        self.corpus, self.length, self.bert, self.most = data, length, bert, data.length - 2

    def annotate(self, example: Example) -> dict[str, Any]:
        if isinstance(example, Gapped):
            gaps = [list(example.gap)]
        elif example.tree:
            found = trees.spans(trees.bare(example.tree))[1]
            gaps = [list(span) for span in sorted({(i, j + 1) for i, j, _ in found}) if span[1] - span[0] in CUT]
        else:
            gaps = [piece for piece in pieces(example.words) if piece[1] - piece[0] in CUT]
        return {"words": list(example.words), "gaps": gaps}

    def targets(self, annotation: Mapping[str, Any]) -> list[Target]:
        words = annotation["words"]
        found: list[Target] = []
        if not all(map(_is_word, words)):  # a text may hold the word END, which a model cannot write
            return found
        for start, end in annotation["gaps"]:
            length = self._asked(end - start)
            left, right = words[:start], words[end:]
            if (
                left
                and right
                and len(left) + len(right) + _bounds(length, "")[0] <= self.most
                and len(words) <= self.most
            ):
                found.append({"left": left, "right": right, "length": length})
        return found

    def _asked(self, cut: int) -> int | list[int] | None:
        asked: dict[str, int | list[int] | None] = {
            "exact": cut,
            "range": [max(1, cut - SLACK), cut + SLACK],
            "free": None,
        }
        return asked[self.length] if isinstance(self.length, str) else self.length

    def parse(self, target: Any) -> Target:
        given = self._read(target) if isinstance(target, str) else target
        if not isinstance(given, Mapping) or not {"left", "right"} <= set(given) <= {"left", "right", "length"}:
            raise Refused(f'infilling: {target!r} is not a target; write "words to the left [3] words to the right"')
        left, right = (side.split() if isinstance(side, str) else side for side in (given["left"], given["right"]))
        if not all(isinstance(side, list | tuple) and all(map(_is_word, side)) for side in (left, right)):
            raise Refused(
                f"infilling: {target!r}: left and right must be lists of words other than START, END, UNK and PAD"
            )
        low, high = _bounds(length := given.get("length"), target)
        room = self.most - len(left) - len(right)
        if not 1 <= low <= min(high, room):
            asked = "a middle" if length is None else f"a middle of {length} words"
            left_over = f"has room for 1 to {room}" if room > 0 else f"has no room: it has {self.most} at most"
            raise Refused(
                f"infilling: {target!r} asks for {asked}; with {len(left) + len(right)} words around it, a text of "
                f"this model {left_over}"
            )
        return {
            "left": list(left),
            "right": list(right),
            "length": list(length) if isinstance(length, tuple) else length,
        }

    @staticmethod
    def _read(text: str) -> dict[str, Any] | None:
        """The parts of "the pub is [2] .", if there is one gap in it."""
        words = text.split()
        gaps = [(i, found) for i, word in enumerate(words) if (found := _GAP.fullmatch(word))]
        if len(gaps) != 1:
            return None
        i, (low, high) = gaps[0][0], gaps[0][1].groups()
        length = [int(low), int(high)] if high else int(low) if low else None
        return {"left": words[:i], "right": words[i + 1 :], "length": length}

    @cached_property
    def _lengths(self) -> Counter[int]:
        """How many training texts have so many words."""
        return Counter(len(example.words) for example in self.corpus.splits["train"])

    @cached_property
    def _middles(self) -> Counter[int]:
        """How many training texts have a gap of so many words; none where texts do not say where their gap is."""
        texts = self.corpus.splits["train"]
        return Counter(text.gap[1] - text.gap[0] for text in texts if isinstance(text, Gapped))

    def layouts(self, target: Mapping[str, Any]) -> list[Layout]:
        """One for each length of the middle. It is as likely as middles of that length are where texts have a gap of
        their own, else as texts of the whole's length."""
        left, right = target["left"], target["right"]
        low, high = _bounds(target["length"], target)
        found, around = [], len(left) + len(right)
        for middle in range(low, 1 + min(high, self.most - around)):
            start, total = 1 + len(left) + middle, around + middle
            known = {**dict(enumerate(left, 1)), **dict(enumerate(right, start))}
            seen = self._middles[middle] if self._middles else self._lengths[total]
            found.append(of_text(known, total + 1, self.corpus.length, 0.01 + seen))
        return found

    def words(self, target: Mapping[str, Any]) -> int | None:
        low, high = _bounds(target["length"], target)
        return self.least_words(target) if low == high else None

    def least_words(self, target: Mapping[str, Any]) -> int:
        return len(target["left"]) + _bounds(target["length"], target)[0] + len(target["right"])

    def most_words(self, target: Mapping[str, Any]) -> int:
        return len(target["left"]) + _bounds(target["length"], target)[1] + len(target["right"])

    def gap(self, target: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        return target["left"], target["right"]

    def longest(self, target: Mapping[str, Any]) -> int | None:
        high = _bounds(target["length"], target)[1]
        return None if target["length"] is None else high

    def rule(self, vocabulary: Vocabulary) -> Callable[[Mapping[str, Any]], Rule]:
        """The words of both contexts at their places, and a middle of the length asked for."""
        make = self.automaton(vocabulary)
        return lambda target: Follows(make(target), self.most)

    def automaton(self, vocabulary: Vocabulary) -> Callable[[Mapping[str, Any]], Automaton]:
        """Where a context has a word that is not in the vocabulary, any word may stand: `completed` puts it there."""
        size = len(vocabulary)

        def fixed(side: Iterable[str]) -> list[Some]:
            known = vocabulary.ids
            return [Some(words([known[word]], size) if word in known else anything(size)) for word in side]

        def make(target: Mapping[str, Any]) -> Automaton:
            low, high = _bounds(target["length"], target)
            high = min(high, self.most)
            middle = Some(anything(size) & ~words([UNK], size), low, None if target["length"] is None else high)
            return pattern([*fixed(target["left"]), middle, *fixed(target["right"])], size)

        return make

    def completed(self, words: Sequence[str], target: Mapping[str, Any]) -> list[str]:
        known, (left, right) = self.corpus.vocabulary.ids, (target["left"], target["right"])
        found = list(words)
        if len(found) < len(left) + len(right):  # nothing stands at the places of some
            return found
        for place, word in [*enumerate(left), *enumerate(right, len(found) - len(right))]:
            if word not in known:
                found[place] = word
        return found

    def serialize(self, target: Mapping[str, Any]) -> list[str]:
        length = target["length"]
        asked = "" if length is None else "-".join(map(str, length)) if isinstance(length, list) else str(length)
        return [*target["left"], f"[{asked}]", *target["right"]]

    def middle(self, words: Sequence[str], target: Mapping[str, Any]) -> list[str]:
        """What stands in the gap's place, whether or not the contexts stand around it."""
        return list(words[len(target["left"]) : max(len(target["left"]), len(words) - len(target["right"]))])

    def _kept(self, words: Sequence[str], target: Mapping[str, Any]) -> bool:
        whole = [*target["left"], *self.middle(words, target), *target["right"]]
        return list(words) == whole and len(self.middle(words, target)) > 0

    def _obeys(self, words: Sequence[str], target: Mapping[str, Any]) -> bool:
        low, high = _bounds(target["length"], target)
        middle = self.middle(words, target)
        return self._kept(words, target) and low <= len(middle) <= high and not set(middle) & set(SPECIALS)

    def success(self, texts: Sequence[Sequence[str]], targets: Sequence[Mapping[str, Any]],
                judges: Mapping[str, Any] = {}) -> Mapping[str, list[float]]:  # fmt: skip
        rows = list(zip(texts, targets, strict=True))
        return {
            "strict": [float(self._obeys(words, target)) for words, target in rows],
            "released": [float(self._kept(words, target)) for words, target in rows],
        }

    def marks(self, texts: Sequence[Sequence[str]], targets: Sequence[Mapping[str, Any]],
              judges: Mapping[str, Any] = {}) -> list[list[Mark]]:  # fmt: skip
        """Both contexts, met where they are word for word, and the middle between them."""
        return [self._marked(list(words), target) for words, target in zip(texts, targets, strict=True)]

    def _marked(self, words: list[str], target: Mapping[str, Any]) -> list[Mark]:
        left = min(len(target["left"]), len(words))
        right = max(left, len(words) - len(target["right"]))
        middle = f"{right - left} words"
        found = [
            Mark(0, left, words[:left] == target["left"], "given"),
            Mark(left, right, self._obeys(words, target), middle),
            Mark(right, len(words), words[right:] == target["right"], "given"),
        ]
        return [mark for mark in found if mark.start < mark.end]

    def compared(self, texts: Sequence[Sequence[str]], targets: Sequence[Mapping[str, Any]],
                 sources: Sequence[Example]) -> Mapping[str, list[float]]:  # fmt: skip
        written = [self.middle(words, target) for words, target in zip(texts, targets, strict=True)]
        golds = [
            list(source.references) if isinstance(source, Gapped) else [self.middle(source.words, target)]
            for source, target in zip(sources, targets, strict=True)
        ]
        return overlap(written, golds, self.bert)


def pieces(words: Sequence[str]) -> list[list[int]]:
    """[first, past the last] of stretches from one word that begins something to the next; marks are part of none."""
    starts = [i for i, word in enumerate(words) if word.lower() in BEGINS]
    return [[i + (words[i] in MARKS), end] for i, end in pairwise([*starts, len(words)])]


def _is_word(word: Any) -> bool:
    return isinstance(word, str) and bool(word) and " " not in word and word not in SPECIALS


def _bounds(length: Any, target: Any) -> tuple[int, int]:
    """Least and greatest number of words in the middle."""
    if length is None:
        return 1, 10**6
    both = [length, length] if isinstance(length, int) else length
    if not isinstance(both, list | tuple) or [type(n) for n in both] != [int, int]:
        raise Refused(f"infilling: {target!r}: its length is a number of words, two of them, or null")
    return both[0], both[1]
