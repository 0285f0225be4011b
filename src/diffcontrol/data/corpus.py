"""What every data set gives: annotated examples by split, a vocabulary, and the word ids of its texts."""

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor

from diffcontrol import ranks
from diffcontrol.allowed import Rules, whole
from diffcontrol.recipe import Content
from diffcontrol.text import Vocabulary

if TYPE_CHECKING:
    from diffcontrol.judges.grammar import GrammarJudge

T = TypeVar("T")
log = logging.getLogger(__name__)
SPLITS = ("train", "dev", "test")  # models are trained on train, strengths tuned on dev, results reported on test


@dataclass(frozen=True)
class Example:
    """One text and what is known of it.

    `fields` is the meaning representation (field → value), `labels` are properties of the whole text
    (tone → warning), `tree` is a constituency tree in brackets on one line, `tags` and `universal` hold one
    Penn and one universal tag a word. What a data set does not know stays empty.
    """

    words: tuple[str, ...]
    fields: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    tree: str = ""
    tags: tuple[str, ...] = ()
    universal: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gapped(Example):
    """An example whose words gap[0] to gap[1] − 1 several people wrote: `references` holds what they wrote."""

    gap: tuple[int, int] = (0, 0)
    references: tuple[tuple[str, ...], ...] = ()


class Lazy(Mapping[str, T]):
    """split → what `make` makes of it, when it is first asked for."""

    def __init__(self, make: Callable[[str], T]):
        self.make, self.made = make, dict[str, T]()

    def __getitem__(self, split: str) -> T:
        if split not in self.made:
            self.made[split] = self.make(split)
        return self.made[split]

    def __iter__(self) -> Iterator[str]:
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)


class Corpus(Content):
    """Base of the data sets. `length` is the number of positions of a text, START and END included."""

    allowed: ClassVar[Rules] = {"length": whole(3)}  # START, a word, END

    length: int
    #: field → value → the ways in which a text may mention it, words joined by spaces; a value that is not listed
    #: counts as itself
    forms: Mapping[str, Mapping[str, Sequence[str]]] = {}
    #: whether the store makes the examples, as those of a treebank, so that to read them may take long
    made_by_store: bool = False

    @abstractmethod
    def read(self, split: str) -> list[Example]:
        """Examples of one of SPLITS, in a fixed order."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Short hash of what models learn from, part of the address of every model trained on it."""

    @cached_property
    def splits(self) -> Mapping[str, list[Example]]:
        return {split: self.read(split) for split in SPLITS}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.count(e.words for e in self.splits["train"])

    @cached_property
    def ids(self) -> Mapping[str, Tensor]:
        """Word ids of every split, [N length]. A warning says how many texts are cut."""
        return Lazy(self._encoded)

    def _encoded(self, split: str) -> Tensor:
        sizes = [len(example.words) + 2 for example in self.splits[split]]  # with START and END
        if (cut := sum(size > self.length for size in sizes)) and ranks.is_first():
            log.warning("data.length=%d: %d of %d texts (%s) are longer and are cut; data.length=%d reads all of them "
                        "whole", self.length, cut, len(sizes), split, max(sizes))  # fmt: skip
        return torch.stack([self.vocabulary.encode(e.words, self.length) for e in self.splits[split]])

    def digest_of_training(self, *more: Any) -> str:
        """`content_digest` of the training texts and of whatever else is content.

        Models learn from these alone, so a model is found again by whoever tunes or tests on other texts.
        """
        return content_digest(self.splits["train"], *more)

    def grammar(self) -> "GrammarJudge | None":
        """Tells which texts are grammatical; None where there is no grammar of the data, as of what people wrote."""
        return None

    def __deepcopy__(self, memo: dict) -> "Corpus":
        return self  # weight averaging copies models; the data they read need not be


def spaced(items: Sequence[T], most: int | None) -> list[T]:
    """At most `most` of the items, evenly spaced and in their order; all where it is None."""
    count = len(items) if most is None else min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def content_digest(examples: Iterable[Example], *more: Any) -> str:
    """Hash of examples, the order of their fields included, and of whatever else (JSON-able) is content.

    It is taken of the examples as they are used rather than of the file they are read from, as they depend on the
    tokeniser and on how the file is read, too.
    """
    sha = hashlib.sha256(json.dumps(more, ensure_ascii=False).encode())
    for example in examples:
        sha.update(json.dumps(vars(example), ensure_ascii=False).encode() + b"\n")
    return sha.hexdigest()[:16]
