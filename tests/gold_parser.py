"""A parser that looks the gold trees up, for tests of what is scored with one."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from diffcontrol.data.corpus import Corpus


class GoldParser:
    """The corpus's own tree and tags of its texts and of `more`, bracketed trees; of any other text, a flat one."""

    def __init__(self, corpus: Corpus | None = None, more: Sequence[str] = ()):
        from diffcontrol.syntax import trees

        self.known: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {(): ("", ())}
        for split in corpus.splits.values() if corpus else ():
            self.known |= {example.words: (example.tree, example.tags) for example in split}
        for tree in more:
            found = trees.read(tree)
            self.known[found.leaves] = (tree, found.tags)

    def parse(self, texts: Sequence[Sequence[str]], title: str = "") -> list[Any]:
        found = []
        for text in texts:
            flat = f"(TOP {' '.join(f'(NN {word})' for word in text)})", ("NN",) * len(text)
            tree, tags = self.known.get(tuple(text), flat)
            found.append(SimpleNamespace(tree=tree, tags=tags))
        return found


class GoldLabels:
    """A judge of labels that looks them up; of any other text it knows none."""

    def __init__(self, corpus: Corpus):
        self.known = {example.words: example.labels for split in corpus.splits.values() for example in split}

    def judge(self, texts: Sequence[Sequence[str]]) -> list[dict[str, dict[str, float]]]:
        found = [self.known.get(tuple(text), {}) for text in texts]
        return [{label: {value: 1.0} for label, value in labels.items()} for labels in found]
