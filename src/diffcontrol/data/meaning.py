"""What a row of a labelled table says: its words, its labels, and its fields, plain or as E2E writes them.

E2E: `name[The Vaults], eatType[pub]` is the meaning representation of a text.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from diffcontrol.refused import Refused

COLUMNS = ("text", "meaning", "fields", "labels")
FIELD = re.compile(r"([^\[\],]+)\[([^\[\]]*)\]")
BETWEEN = re.compile(r"\s*,\s*")


def parse(meaning: str) -> dict[str, str]:
    """Field → value in the order of the text, spelled as there.

    Raises:
        Refused: what is wrong and where; the caller adds file and line.
    """
    text = meaning.strip()
    if not text:
        raise Refused("the meaning representation is empty")
    fields: dict[str, str] = {}
    at = 0
    while True:
        match = FIELD.match(text, at)
        if match is None:
            raise Refused(f"the meaning representation does not parse as field[value], … at {text[at:]!r}")
        name, value = match[1].strip(), match[2].strip()
        if not name or not value:
            raise Refused(f"{'a value' if name else 'a field name'} is empty in {match[0]!r}")
        if name in fields:
            raise Refused(f"the field {name!r} stands twice in the meaning representation")
        fields[name] = value
        at = match.end()
        if at == len(text):
            return fields
        comma = BETWEEN.match(text, at)
        if comma is None:
            raise Refused(f"stray text between fields at {text[at:]!r}")
        at = comma.end()


def renamed(fields: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    """The fields under their other names; two fields must not fall together."""
    out: dict[str, str] = {}
    for field, value in fields.items():
        name = names.get(field, field)
        if name in out:
            raise Refused(f"the field {name!r} stands twice in the meaning representation (data.rename: {field})")
        out[name] = value
    return out


@cache
def tokeniser() -> Any:
    import spacy  # here, because a kept reading needs no spaCy

    return spacy.blank("en").tokenizer


def tokens(text: str) -> list[str]:
    """Words of a text, case kept. Unlike in the released code, line ends and doubled spaces are no words."""
    return [token.text for token in tokeniser()(text.strip()) if not token.is_space]


@cache
def spelled(value: str) -> str:
    """A value or form as it stands in a tokenised text: `£20-25` → `£ 20 - 25`."""
    return " ".join(tokens(value))


@dataclass(frozen=True)
class Columns:
    """Which column of the file holds what: the text, E2E's meaning representation, plain fields, labels of the text."""

    text: str
    meaning: str | None
    fields: dict[str, str]
    labels: dict[str, str]

    @classmethod
    def of(cls, columns: Mapping[str, Any], text: str | None, more_fields: Mapping[str, str],
           more_labels: Mapping[str, str]) -> "Columns":  # fmt: skip
        """Those of `columns`, before which come the column of the text and further ones of fields and labels.

        Raises:
            Refused: a key of `columns` is unknown, or nothing names the column of the text.
        """
        unknown, text = sorted(set(columns) - set(COLUMNS)), text or columns.get("text")
        if unknown or not text:
            wrong = f"has the unknown key {unknown[0]!r}" if unknown else "must name the column of the text (text: …)"
            raise Refused(f"data.columns {wrong}; keys are {', '.join(COLUMNS)}")
        fields, labels = (dict(columns.get(key) or {}) for key in ("fields", "labels"))
        return cls(text, columns.get("meaning"), {**fields, **more_fields}, {**labels, **more_labels})

    @property
    def needed(self) -> list[str]:
        return [c for c in (self.text, self.meaning, *self.fields.values(), *self.labels.values()) if c]


def annotated(row: Mapping[str, str], columns: Columns, rename: dict[str, str]) -> tuple[list[str], dict, dict]:
    """Words, fields and labels of one row; Refused says what is wrong with it."""
    words = tokens(row[columns.text])
    if not words:
        raise Refused(f"the text (column {columns.text!r}) is empty")
    fields = renamed(parse(row[columns.meaning]), rename) if columns.meaning else {}
    for field, column in columns.fields.items():
        value = row[column].strip()
        if value and field in fields:
            raise Refused(f"the field {field!r} stands both in {columns.meaning!r} and in {column!r}")
        if value:
            fields[field] = value
    labels = {label: row[column].strip() for label, column in columns.labels.items() if row[column].strip()}
    return words, {field: spelled(value) for field, value in fields.items()}, labels


def annotate(batch: Mapping[str, list], columns: Columns, rename: dict[str, str]) -> dict[str, list[str]]:
    """Rows as read → words, fields, labels and what is wrong, each one string a row."""
    out: dict[str, list[str]] = {"words": [], "fields": [], "labels": [], "fault": []}
    for cells in zip(*batch.values(), strict=True):
        row = {column: cell or "" for column, cell in zip(batch, cells, strict=True)}
        words: list[str] = []
        fields: dict[str, str] = {}
        labels: dict[str, str] = {}
        fault = ""
        try:
            words, fields, labels = annotated(row, columns, rename)
        except Refused as error:
            fault = f"{error}, the row is {[row[c] for c in columns.needed]}"
        out["words"].append(" ".join(words))
        out["fields"].append(json.dumps(fields))
        out["labels"].append(json.dumps(labels))
        out["fault"].append(fault)
    return out
