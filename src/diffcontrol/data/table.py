"""Texts with labels in CSV files: E2E's released files, or any labelled CSV whose columns are named in conf, one file
a split or one file that is split here. `sheet.py` reads a file.
"""

import json
import logging
import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from diffcontrol.allowed import CHARACTER, Allowed, Rules, arguments, error_or_skip, number, optional, whole
from diffcontrol.data.corpus import SPLITS, Corpus, Example, spaced
from diffcontrol.data.meaning import Columns, spelled
from diffcontrol.data.sheet import Sheet
from diffcontrol.refused import Refused
from diffcontrol.text import SPECIALS, Vocabulary

log = logging.getLogger(__name__)

WHOLE = "whole"  # the one file that is split here
TEXTS = Allowed(
    "a list of texts, at least one",
    lambda value: isinstance(value, list | tuple) and bool(value) and all(isinstance(text, str) for text in value),
)
SHOWN = 10  # line numbers named in a warning


class Table(Corpus):
    """Labelled texts from one CSV file a split (`files` of `folder`, or `urls`), or from one `file` of all texts.

    The different texts of `file` are dealt out to the splits by `split_seed`, so that equal texts fall together:
    `shares` of them to dev and to test, the rest to train. `text`, `labels` and `fields` name columns, before `columns`
    do. `limit`: split → examples at most, evenly spaced; none or null: all.

    Fields' values are spelled as tokenised texts are (`£ 20 - 25`), which is the spelling of Diffusion-LM's targets:
    `field : value words` names a field and the very string that stands in `Example.fields`.
    """

    # The digest is of the training texts as they were read, so it holds what these lead to.
    location_arguments = (
        "folder", "urls", "files", "file", "shares", "split_seed", "columns", "text", "labels", "fields", "rename",
        "labels_from_fields", "delimiter", "malformed", "limit",
    )  # fmt: skip

    allowed: ClassVar[Rules] = {
        "delimiter": CHARACTER, "malformed": error_or_skip("a malformed row"), "shares.*": number(above=0, below=1),
        "split_seed": whole(), "more_than": whole(0), "limit.*": optional(whole(1)), "forms.*.*": TEXTS,
    }  # fmt: skip

    def __init__(
        self,
        folder: str | None,
        files: Mapping[str, str],
        columns: Mapping[str, Any],
        urls: Mapping[str, str] | None = None,
        rename: Mapping[str, str] | None = None,
        labels_from_fields: Sequence[str] = (),
        forms: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        length: int = 64,
        more_than: int = 10,
        malformed: str = "error",
        delimiter: str = ",",
        file: str | None = None,
        shares: Mapping[str, float] | None = None,
        split_seed: int = 0,
        text: str | None = None,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        limit: Mapping[str, int | None] | None = None,
    ):
        arguments(self, malformed=malformed)
        missing = [split for split in SPLITS if not files.get(split)]
        if missing:
            raise Refused(f"data.files must name a file for each of {', '.join(SPLITS)}; {missing[0]} has none")
        if file and folder:
            raise Refused(
                f"data.file={file} and data.folder={folder}: texts lie in one file or in a folder, not in both"
            )
        self.folder, self.files, self.urls = folder, dict(files), dict(urls or {})
        self.file, self.shares, self.split_seed = file, {"dev": 0.1, "test": 0.1} | dict(shares or {}), split_seed
        if sum(self.shares.values()) >= 1:
            raise Refused(f"data.shares={self.shares}: dev and test together leave nothing of the texts for train")
        self.columns, self.rename = Columns.of(columns, text, fields or {}, labels or {}), dict(rename or {})
        self.limit = dict(limit or {})
        self.labels_from_fields, self.given_forms = tuple(labels_from_fields), forms or {}
        self.length, self.more_than, self.malformed, self.delimiter = length, more_than, malformed, delimiter
        #: split → number of malformed rows left out, once the split is read
        self.skipped: dict[str, int] = {}

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Where the files lie, by split, or by WHOLE where there is but one; downloaded if neither is given."""
        if self.file:
            if not Path(self.file).is_file():
                raise Refused(f"data.file={self.file}: there is no such file")
            return {WHOLE: Path(self.file)}
        files = ", ".join(self.files.values())
        advice = f"say with data.folder=<folder> (for data=e2e: paths.e2e=<folder>) where {files} lie"
        if not self.urls:
            advice += ", or with data.file=<file> which one file holds all texts"
        if self.folder:
            paths = {split: Path(self.folder, self.files[split]) for split in SPLITS}
            absent = [path for path in paths.values() if not path.is_file()]
            if absent:
                raise Refused(f"There is no file {absent[0]}; {advice}.")
            return paths
        if any(split not in self.urls for split in SPLITS):
            raise Refused(f"The data has neither a folder nor a URL for each split; {advice}.")
        from datasets import DownloadManager

        try:
            got = DownloadManager().download({split: self.urls[split] for split in SPLITS})
        except Exception as error:  # what it raises depends on protocol and version
            raise Refused(
                f"{self.urls['train']} could not be downloaded ({type(error).__name__}); {advice}."
            ) from error
        return {split: Path(path) for split, path in got.items()}

    @cached_property
    def digest(self) -> str:
        return self.digest_of_training(self.forms)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        found = Vocabulary.count((e.words for e in self.splits["train"]), self.more_than)
        if len(found) == len(SPECIALS):
            raise Refused(
                f"data.more_than={self.more_than}: no word of the {len(self.splits['train'])} training texts is seen "
                "more often; a lower number keeps more words, 0 all"
            )
        return found

    @cached_property
    def forms(self) -> dict[str, dict[str, list[str]]]:  # type: ignore[override]
        """field → value → ways of saying it, all spelled as tokenised texts are."""
        return {
            field: {spelled(str(value)): [spelled(str(form)) for form in ways] for value, ways in values.items()}
            for field, values in self.given_forms.items()
        }

    def read(self, split: str) -> list[Example]:
        found = self.dealt[split] if self.file else self._read(split)
        return spaced(found, self.limit.get(split))

    @cached_property
    def dealt(self) -> dict[str, list[Example]]:
        """The examples of `file` by split, in the file's order.

        Raises:
            Refused: it has fewer different texts than there are splits.
        """
        examples = self._read(WHOLE)
        texts = sorted({example.words for example in examples})
        if len(texts) < len(SPLITS):
            raise Refused(f"{self.file} has {len(texts)} different texts; train, dev and test need one each at least")
        random.Random(self.split_seed).shuffle(texts)
        of: dict[tuple[str, ...], str] = {}
        for split in ("dev", "test"):
            count = max(1, round(self.shares[split] * len(texts)))
            of |= dict.fromkeys(texts[len(of) : len(of) + count], split)
        found: dict[str, list[Example]] = {split: [] for split in SPLITS}
        for example in examples:
            found[of.get(example.words, "train")].append(example)
        if not found["train"]:
            raise Refused(f"{self.file}: data.shares={self.shares} leave none of its {len(texts)} texts for train")
        dealt = ", ".join(f"{len(own)} to {split}" for split, own in found.items())
        log.info("%s: %d rows, of which %s (data.split_seed=%d)", self.file, len(examples), dealt, self.split_seed)
        return found

    def _read(self, split: str) -> list[Example]:
        path = self.paths[split]
        name = str(path) if self.folder or self.file else self.urls[split]
        examples: list[Example] = []
        faults: list[tuple[int, str]] = []
        for line, row in Sheet(path, name, split, self.delimiter).rows(self.columns, self.rename):
            if not row["fault"]:
                fields = json.loads(row["fields"])
                labels = {f: fields[f] for f in self.labels_from_fields if f in fields} | json.loads(row["labels"])
                examples.append(Example(tuple(row["words"].split(" ")), fields, labels))
            elif self.malformed == "error":
                hint = "data.malformed=skip leaves such rows out"
                raise Refused(f"{name} line {line}: {row['fault']} ({hint}).")
            else:
                faults.append((line, row["fault"]))
        self.skipped[split] = len(faults)
        if faults:
            lines = ", ".join(str(line) for line, _ in faults[:SHOWN]) + (", …" if len(faults) > SHOWN else "")
            log.warning("%s: %d malformed rows left out, lines %s", name, len(faults), lines)
        if not examples:
            raise Refused(f"{name} has no text below its header")
        return examples
