"""Known words at known places, as a task's layouts give them: fixed there, or pulled towards them as the paper does.

B batch · L positions · D embedding width
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from diffcontrol.data.corpus import Corpus
from diffcontrol.layout import Layout, taken
from diffcontrol.refused import Refused
from diffcontrol.steering.base import Steering
from diffcontrol.task import ControlTask, Target


class Anchor(Steering):
    """The words of the task's layouts are fixed; nothing is guided, so no strength is used."""

    def __init__(self, task: ControlTask):
        self.task = task

    @classmethod
    def check(cls, task: ControlTask, corpus: Corpus) -> None:
        needs_layouts("anchor", task)

    def layouts(self, target: Target) -> Sequence[Layout]:
        return self.task.layouts(target)

    def positions(self, target: Target) -> int | None:
        return taken(self.task.layouts(target))


class Writer(Protocol):
    """What of a language model is needed to place words."""

    corpus: Corpus
    length: int

    @property
    def device(self) -> torch.device: ...


def needs_layouts(control: str, task: ControlTask) -> None:
    """Checks that the task says which words stand where.

    Raises:
        Refused: it does not.
    """
    if type(task).layouts is ControlTask.layouts:
        raise Refused(f"control={control} is not applicable to {type(task).__name__}, whose targets fix no word at a "
                      "known place; control=own chooses one that is")  # fmt: skip


def known(layouts: Sequence[Layout], lm: Writer, pad: bool = True) -> tuple[Tensor, Tensor]:
    """Ids [B L] and where they are known [B L]; words that the vocabulary lacks are UNK."""
    vocabulary = lm.corpus.vocabulary
    ids = torch.zeros(len(layouts), lm.length, dtype=torch.long)
    mask = torch.zeros(len(layouts), lm.length, dtype=torch.bool)
    for row, layout in enumerate(layouts):
        for place, word in layout.words.items():
            if pad or word != "PAD":
                ids[row, place], mask[row, place] = vocabulary.ids.get(word, vocabulary.ids["UNK"]), True
    return ids.to(lm.device), mask.to(lm.device)


def within(layouts: Sequence[Layout], length: int) -> Tensor:
    """The places that are left to be written before a known END, [B L]: these hold words."""
    return torch.tensor([
        [layout.end is not None and place < layout.end and place not in layout.words for place in range(length)]
        for layout in layouts
    ])  # fmt: skip
