"""Part: one of several disjoint parts of a corpus's training texts, so that a judge learns from none of a guide's."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property

from diffcontrol.data.corpus import SPLITS, Corpus, Example, Lazy
from diffcontrol.judges.grammar import GrammarJudge
from diffcontrol.refused import Refused
from diffcontrol.text import Vocabulary

MOST_ALIKE = 50


class Part(Corpus):
    """The training texts of `data` whose hash falls on `part` of `of`; dev and test are whole, words and ids its own.

    Texts of one meaning representation share a part: E2E has up to forty of each, which say the same. Where fields do
    not tell texts apart, as a table's one column of cuisines, each text goes to a part by its words.
    """

    def __init__(self, data: Corpus, part: int, of: int = 2):
        if not 0 <= part < of:
            raise Refused(f"data part {part} of {of}: parts are counted from 0")
        self.data, self.part, self.of, self.length = data, part, of, data.length

    @property
    def made_by_store(self) -> bool:  # type: ignore[override]
        return self.data.made_by_store

    @property
    def forms(self) -> Mapping[str, Mapping[str, Sequence[str]]]:  # type: ignore[override]
        return self.data.forms

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return self.data.vocabulary

    def grammar(self) -> GrammarJudge | None:
        return self.data.grammar()

    @property
    def digest(self) -> str:
        own = f"{self.part}-{self.of}"
        return own if self.made_by_store else f"{self.data.digest}-{own}"  # the recipe of a treebank says what it holds

    @cached_property
    def splits(self) -> Mapping[str, list[Example]]:
        return Lazy(self.read)

    def read(self, split: str) -> list[Example]:
        """
        Raises:
            Refused: no training text falls on this part.
        """
        examples = self.data.splits[split]
        found = [e for e in examples if self._place(e) == self.part] if split == SPLITS[0] else list(examples)
        if examples and not found:
            raise Refused(f"data: of {len(examples)} training texts none falls on part {self.part + 1} of {self.of}, "
                          "which guide and judge do not share; more texts are needed")  # fmt: skip
        return found

    @cached_property
    def _by_meaning(self) -> bool:
        """Whether the fields tell texts apart: on average at most MOST_ALIKE texts have the same."""
        examples = self.data.splits[SPLITS[0]]
        return len(examples) <= MOST_ALIKE * len({_meaning(example) for example in examples if example.fields})

    def _place(self, example: Example) -> int:
        about = _meaning(example) if example.fields and self._by_meaning else json.dumps(list(example.words))
        return hashlib.sha256(about.encode()).digest()[0] % self.of


def _meaning(example: Example) -> str:
    return json.dumps(dict(example.fields), sort_keys=True)
