"""Words and their ids: the vocabulary, and the layout START words END PAD… of a fixed number of positions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

START, END, UNK, PAD = 0, 1, 2, 3  # released code, improved_diffusion/text_datasets.py
SPECIALS = ("START", "END", "UNK", "PAD")


class Vocabulary:
    """Word ↔ id. Ids 0–3 are START, END, UNK, PAD; words follow in first-seen order."""

    def __init__(self, words: Iterable[str]):
        self.words = (*SPECIALS, *words)
        self.ids = {word: i for i, word in enumerate(self.words)}
        if len(self.ids) != len(self.words):
            doubled = next(w for w, n in Counter(self.words).items() if n > 1)
            raise ValueError(f"vocabulary: the word {doubled!r} stands in it twice")

    @classmethod
    def count(cls, texts: Iterable[Sequence[str]], more_than: int = 0) -> "Vocabulary":
        """Words seen more than `more_than` times (paper: 10) in `texts`, in first-seen order."""
        seen = Counter(word for text in texts for word in text)
        return cls(w for w, n in seen.items() if n > more_than and w not in SPECIALS)

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def spellings(self) -> dict[str, list[int]]:
        """A word in lower case → ids of all words that are it in some case."""
        found: dict[str, list[int]] = {}
        for word, i in self.ids.items():
            found.setdefault(word.lower(), []).append(i)
        return found

    def encode(self, text: Sequence[str], length: int) -> Tensor:
        """Ids [length] of START text END PAD…; unknown words become UNK, a longer text is cut (and loses END)."""
        ids = [START, *(UNK if word in SPECIALS else self.ids.get(word, UNK) for word in text), END]
        return torch.tensor((ids + [PAD] * length)[:length])

    def decode(self, ids: Iterable[int], known: Mapping[int, str] = {}) -> list[str]:
        """Words after START up to the first END; of a text that does not end, up to the PAD that fills it.

        START, PAD and UNK within the text stay visible as words, so that no scorer takes such a text for a clean one;
        UNK not where it is `known` which word stands there.
        """
        row = [int(i) for i in ids]
        stop = row.index(END) if END in row else max((n for n, i in enumerate(row, 1) if i != PAD), default=0)
        first = int(row[:1] == [START])
        return [known.get(place, self.words[row[place]]) for place in range(first, stop)]


def crop(ids: Tensor) -> Tensor:
    """Without the columns that are PAD in every row."""
    return ids[:, : int((ids != PAD).any(0).sum())]


def lengths(ids: Tensor) -> Tensor:
    """Positions of each text that are not PAD, [B L] → [B]."""
    return (ids != PAD).sum(1)
