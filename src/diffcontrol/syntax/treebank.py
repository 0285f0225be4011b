"""Treebank: a corpus whose examples a parser has annotated with trees and tags, once for each data set and parser."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from diffcontrol.allowed import Rules, arguments, optional, whole
from diffcontrol.data.corpus import SPLITS, Corpus, Example, Lazy, content_digest, spaced
from diffcontrol.drafts import write_whole
from diffcontrol.judges.grammar import GrammarJudge
from diffcontrol.recipe import Stage
from diffcontrol.refused import Refused
from diffcontrol.syntax.parser import Parse, Parser, bar
from diffcontrol.syntax.tags import universal
from diffcontrol.text import Vocabulary

CHUNK = 500  # sentences parsed between two writings to the file: what a killed run loses
FILE = "parses.jsonl"


class Treebank(Corpus, Stage):
    """`data` with every tree, tag and universal tag made anew by `parser`; a split is parsed when it is first read.

    train, dev, test: how many texts of each split there are, evenly spaced over it (files are often sorted); null: all.
    Words, ids, vocabulary, forms and length are those of `data`.
    """

    allowed: ClassVar[Rules] = dict.fromkeys(SPLITS, optional(whole(1)))  # texts; null: all of them
    made_by_store = True
    deferred_arguments = ("parser",)
    parts = SPLITS
    learned = ("train",)
    sources = ("data",)

    def __init__(self, data: Corpus, parser: Callable[[], Parser], train: int | None = 10000, dev: int | None = 1000,
                 test: int | None = 1000, version: int = 1):  # fmt: skip
        arguments(self, train=train, dev=dev, test=test)
        self.data, self.parser, self.length = data, parser, data.length
        self.sizes: dict[str, int | None] = {"train": train, "dev": dev, "test": test}

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
        return self.digest_of_training()

    @cached_property
    def splits(self) -> Mapping[str, list[Example]]:
        return Lazy(self.read)

    def read(self, split: str) -> list[Example]:
        chosen = self._chosen(split)
        parses = stored(self.folder(split) / FILE)
        parses[()] = Parse("", ())
        if missing := sorted({example.words for example in chosen} - parses.keys()):
            raise Refused(
                f"{self.folder(split)} holds no parse of {' '.join(missing[0])!r}; remove that folder to parse it again"
            )
        return [_annotated(example, parses[example.words]) for example in chosen]

    def content(self, part: str) -> str:
        return content_digest(self._chosen(part))

    def make(self, part: str, draft: Path) -> None:
        """Appends parses of the distinct texts of a split, chunk by chunk, longest first: a text that is too long for
        the parser is said at once."""
        file = draft / FILE
        done = stored(file, whole=False)
        kept = "".join(map(_line, done.items())).encode()  # without the line a kill cut
        write_whole(file, lambda opened: opened.write(kept))
        texts = {example.words for example in self._chosen(part) if example.words}
        left = sorted(texts - done.keys(), key=lambda words: (-len(words), words))
        parser = self.parser()
        with bar(True) as progress, file.open("a", encoding="utf-8") as lines:
            task = progress.add_task(f"parsing: {part}", total=len(texts), completed=len(texts) - len(left))
            for start in range(0, len(left), CHUNK):
                chunk = left[start : start + CHUNK]
                lines.writelines(map(_line, zip(chunk, parser.parse(chunk), strict=True)))
                lines.flush()
                progress.advance(task, len(chunk))

    def _chosen(self, split: str) -> list[Example]:
        return spaced(self.data.splits[split], self.sizes[split])


def _line(parsed: tuple[Sequence[str], Parse]) -> str:
    words, parse = parsed
    row = {"words": words, "tree": parse.tree, "tags": parse.tags}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _annotated(example: Example, parse: Parse) -> Example:
    universals = universal(parse.tags, example.words)
    return replace(example, tree=parse.tree, tags=parse.tags, universal=universals)


def stored(file: Path, whole: bool = True) -> dict[tuple[str, ...], Parse]:
    """words → parse of every line. With `whole` a line that is no parse is an error, else it ends the reading.

    Raises:
        Refused: the file is not there, or a line of it is no parse.
    """
    if not whole and not file.exists():
        return {}
    found: dict[tuple[str, ...], Parse] = {}
    try:
        for words, parse in _rows(file):
            found[words] = parse
    except (OSError, ValueError, KeyError, TypeError) as error:
        if whole or isinstance(error, OSError):
            raise Refused(f"{file} holds no readable parses ({error}); remove its folder to parse again") from error
    return found


def _rows(file: Path) -> Iterator[tuple[tuple[str, ...], Parse]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield tuple(row["words"]), Parse(row["tree"], tuple(row["tags"]))
