"""ROCStories with aNLG: train on neighbouring sentences of stories, fill in between a first and a last sentence.

Mostafazadeh et al. 2016; Bhagavatula et al. 2020, *Abductive Commonsense Reasoning*, as prepared for Diffusion-LM:
items of dev and test have a first and a last observation and, between them, several sentences that people wrote. About
one in twenty of them begins and ends like a story of the released validation file (docs/log.md); such stories are left
out of train.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from diffcontrol.allowed import Rules, optional, whole
from diffcontrol.data.corpus import Corpus, Example, Gapped, spaced
from diffcontrol.data.meaning import tokens
from diffcontrol.refused import Refused
from diffcontrol.text import Vocabulary

_BETWEEN = re.compile(r"""(?<=[.!?]) +|(?<=[.!?]["']) +""")
Item = tuple[str, str, list[str]]  # observations, what stands between them


class RocStories(Corpus):
    """`sentences` neighbours of a story are a training text (3: as the paper's autoregressive baseline reads; 5: all),
    its inner sentences the gap. Files of `folder`: stories (a JSON list a line, the story its first entry), dev and
    test (JSON objects with obs1, obs2, gold_labels), references (item → list). Without a folder, all is read from the
    hub."""

    allowed: ClassVar[Rules] = {"more_than": whole(0), "limit.*": optional(whole(1))}
    location_arguments = ("folder", "files", "hub", "limit")  # the digest knows how many there are

    def __init__(self, folder: str | None, files: Mapping[str, str], hub: Mapping[str, str], sentences: int = 3,
                 length: int = 64, more_than: int = 10, limit: Mapping[str, int | None] | None = None):  # fmt: skip
        if not 3 <= sentences <= 5:
            raise Refused(f"data.sentences={sentences}: a text has 3 to 5 sentences of a story")
        self.folder, self.files, self.hub = folder, dict(files), dict(hub)
        self.sentences, self.length, self.more_than = sentences, length, more_than
        self.limit = dict(limit or {})

    @cached_property
    def paths(self) -> dict[str, Path]:
        assert self.folder
        paths = {name: Path(self.folder, file) for name, file in self.files.items()}
        for path in paths.values():
            if not path.is_file():
                raise Refused(
                    f"There is no file {path}; set paths.rocstories=<folder> to the folder that holds "
                    f"{', '.join(self.files.values())}, or data.files.stories=<file> to the file with the stories."
                )
        return paths

    @cached_property
    def digest(self) -> str:
        return self.digest_of_training()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        if not self.splits["train"]:
            raise Refused("data=rocstories: no story has five sentences outside the items of dev and test")
        return Vocabulary.count((e.words for e in self.splits["train"]), self.more_than)

    def read(self, split: str) -> list[Example]:
        return spaced(self._all(split), self.limit.get(split))

    def _all(self, split: str) -> list[Example]:
        if split != "train":
            return [_between(tokens(one), [tokens(m) for m in mid], tokens(two)) for one, two, mid in self.items[split]]
        asked = {(one, two) for part in ("dev", "test") for one, two, _ in self.items[part]}
        found: list[Example] = []
        for story in self._stories():
            told = _BETWEEN.split(story.strip())
            if len(told) == 5 and (told[0], told[-1]) not in asked:
                words = [tokens(sentence) for sentence in told]
                found.extend(self._windows(words))
        return found

    def _windows(self, story: Sequence[list[str]]) -> Iterator[Example]:
        for i in range(len(story) - self.sentences + 1):
            part = story[i : i + self.sentences]
            middle = [word for sentence in part[1:-1] for word in sentence]
            yield _between(part[0], [middle], part[-1])

    def _stories(self) -> Iterator[str]:
        if not self.folder:
            for row in _hub(self.hub["stories"], "train"):
                yield row["text"]
            return
        path = self.paths["stories"]
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if not line.strip():
                continue
            try:
                story = json.loads(line)
            except ValueError:
                story = None
            if not isinstance(story, list) or not story or not isinstance(story[0], str):
                raise Refused(f"{path} line {number}: {line[:60]!r} is not a JSON list with a story")
            yield story[0]

    @cached_property
    def items(self) -> dict[str, list[Item]]:
        """The items of dev and test, in the order of the file or the hub."""
        if not self.folder:
            return {"dev": self._art("train", 2000), "test": self._art("validation", None)}
        references = self._object("references")
        return {split: self._items(split, references) for split in ("dev", "test")}

    def _object(self, name: str) -> dict[str, Any]:
        path = self.paths[name]
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise Refused(f"{path} is not JSON ({error})") from error
        if not isinstance(found, dict):
            raise Refused(f"{path} holds no JSON object of items")
        return found

    def _items(self, split: str, references: Mapping[str, list[str]]) -> list[Item]:
        found = []
        for name, item in self._object(split).items():
            try:
                between = item["gold_labels"] or references.get(name, [])
                found.append((item["obs1"], item["obs2"], list(between)))
            except (KeyError, TypeError) as error:
                raise Refused(f"{self.paths[split]}: item {name} has no {error}") from error
        return [item for item in found if item[2]]

    def _art(self, split: str, most: int | None) -> list[Item]:
        """Items of the hub's ART, the hypotheses that were found plausible gathered by their observations."""
        gathered: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
        for row in _hub(self.hub["items"], split):
            if most is not None and len(gathered) == most:
                break
            better = row["hypothesis_1"] if int(row["label"]) == 1 else row["hypothesis_2"]
            gathered[row["observation_1"], row["observation_2"]][better] = None
        return [(one, two, list(between)) for (one, two), between in gathered.items()]


def _between(left: list[str], middles: Sequence[list[str]], right: list[str]) -> Gapped:
    """The text with the first of its middles, and all of them."""
    gap = (len(left), len(left) + len(middles[0]))
    return Gapped((*left, *middles[0], *right), gap=gap, references=tuple(map(tuple, middles)))


def _hub(name: str, split: str) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(name, split=split)
    except Exception as error:  # what it raises depends on network and version
        raise Refused(
            f"{name} could not be read from the Hugging Face hub ({type(error).__name__}); set "
            "paths.rocstories=<folder> to a folder that holds the files."
        ) from error
