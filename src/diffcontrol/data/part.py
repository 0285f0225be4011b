"""Part: one of several disjoint parts of a corpus's training texts, so that a judge learns from none of a guide's."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property

from diffcontrol.data.corpus import SPLITS, Corpus, Example, Lazy
from diffcontrol.judges.grammar import GrammarJudge
from diffcontrol.refused import Refused
from diffcontrol.text import Vocabulary


class Part(Corpus):
    """The training texts of `data` whose hash falls on `part` of `of`; dev and test are whole, words and ids its own.

    Texts of one meaning representation share a part: E2E has up to forty of each, which say the same.
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
        examples = self.data.splits[split]
        return [e for e in examples if self._place(e) == self.part] if split == SPLITS[0] else list(examples)

    def _place(self, example: Example) -> int:
        about = json.dumps(dict(example.fields) or list(example.words), sort_keys=True)
        return hashlib.sha256(about.encode()).digest()[0] % self.of
