"""One CSV file of texts: its rows, tokenised and with their fields and labels, each with what is wrong with it.

Read with `datasets`, tokenised with spaCy's blank English tokeniser and kept in the cache of `datasets`, so that only
the first reading is slow. Both packages are imported when something is read, not before.
"""

import csv
import glob
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffcontrol.data import meaning
from diffcontrol.data.meaning import Columns, annotate
from diffcontrol.refused import Refused

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Sheet:
    """A CSV file. name: what messages call it; split: the name under which `datasets` has it."""

    path: Path
    name: str
    split: str
    delimiter: str

    def rows(self, columns: Columns, rename: dict[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """First line of every row and the row as `annotate` gives it; `fault` says what is wrong with it, if anything.

        Raises:
            Refused: it is no CSV file in UTF-8, it has no text, or not the columns that are asked for.
        """
        (_, header), *rows = list(self.records()) or [(1, [])]
        header = [column or f"(column {number})" for number, column in enumerate(header, 1)]  # as pandas' index
        self._check(header, columns)
        if not rows:
            raise Refused(f"{self.name} has no text below its header")
        for (line, cells), row in zip(rows, self._annotated(header, columns, rename).to_list(), strict=True):
            if not cells:
                continue  # an empty line is no row
            if len(cells) != len(header):
                row["fault"] = f"{len(cells)} values for {len(header)} columns, the row is {cells}"
            yield line, row

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """First line and cells of every record, the header's first; the file's lines are counted from 1."""
        line = 1
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self.delimiter)
                for cells in reader:
                    if any("\0" in cell for cell in cells):
                        raise Refused(f"{self.path} line {line}: a NUL character stands in it, which no text has")
                    yield line, cells
                    line = reader.line_num + 1
        except UnicodeDecodeError as error:  # it reads ahead, so `line` is before what is wrong
            line = self._undecodable()
            raise Refused(f"{self.path} line {line}: not in UTF-8 ({error.reason}); save the file as UTF-8") from error
        except csv.Error as error:
            raise Refused(f"{self.path} line {line}: not a CSV file from here on ({error})") from error

    def _undecodable(self) -> int:
        """The first line that is not in UTF-8, counted from 1."""
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
        return 1

    def _check(self, header: list[str], columns: Columns) -> None:
        if not header:
            raise Refused(f"{self.name}: its first line is empty, which is to name the columns")
        for column in columns.needed:
            if column not in header:
                there = ", ".join(map(repr, header))
                raise Refused(f"data.columns: {self.name} has no column {column!r}; it has {there}.")
        doubled = [column for column in header if header.count(column) > 1]
        if doubled:
            raise Refused(f"{self.name} has two columns {doubled[0]!r}.")

    def _read(self, header: list[str]) -> "Dataset":
        from datasets import Features, Value, load_dataset
        from datasets.exceptions import DatasetGenerationError

        try:
            return load_dataset(
                "csv",
                data_files={self.split: glob.escape(str(self.path.absolute()))},
                split=self.split,
                features=Features({column: Value("string") for column in header}),
                sep=self.delimiter,
                names=list(header),
                header=0,
                usecols=list(header),  # with it pandas reads rows that are too long as rows
                index_col=False,
                keep_default_na=False,  # "None" is a word
                skip_blank_lines=False,
            )
        except DatasetGenerationError as error:
            *_, (line, _) = self.records()
            wrong = f"{self.name} is no CSV file ({error.__cause__ or error})"
            raise Refused(f"{wrong}; its last row is at line {line}.") from error

    def _annotated(self, header: list[str], columns: Columns, rename: dict[str, str]) -> "Dataset":
        """The rows as `annotate` gives them, kept by `datasets` under a name made of all that bears on them."""
        content = hashlib.sha256(self.path.read_bytes()).hexdigest()
        recipe = [content, self.split, repr(columns), sorted(rename.items()), self.delimiter]
        recipe.append(importlib.metadata.version("spacy"))
        code = b"".join(Path(str(file)).read_bytes() for file in (__file__, meaning.__file__))
        fingerprint = hashlib.sha256(json.dumps(recipe).encode() + code).hexdigest()[:16]
        job = partial(annotate, columns=columns, rename=rename)
        return self._read(header).map(job, batched=True, remove_columns=list(header), new_fingerprint=fingerprint)
