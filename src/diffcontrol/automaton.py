"""Automata: the texts that meet a target, as a small machine that reads a text from left to right.

An automaton says exactly which texts are meant, the future included, where a `Rule` speaks of one word at a time. As
it has few states, the probability that a text will be accepted can be computed under any model that is a chain (an
HMM, independent positions) by a sum over its states instead of one over all texts.

It reads all that stands after START: words, END, then PAD. A text is accepted if the state after END accepts; PAD
leaves it there. UNK is a word. Words that an automaton does not tell apart share a class.

Q states · K classes · V vocabulary · B texts · L positions
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from diffcontrol.text import END, PAD, START

State = TypeVar("State", bound=Hashable)
DEAD = 0  # the state that nothing leads out of; every automaton has it
_DONE = 1  # in the making: the state after END
_NEVER, _ENDS, _FILLS, _WORDS = 0, 1, 2, 3  # in the making: classes of START, END, PAD; those of words follow


@dataclass(frozen=True, eq=False)
class Automaton:
    """A deterministic automaton over word ids.

    Fields: `classes` [V], the class of every id; `table` [Q K], the state that each class leads to; `accepting` [Q];
    `start`, the state after START. State 0 is dead.
    """

    classes: Tensor
    table: Tensor
    accepting: Tensor
    start: int

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def next(self) -> Tensor:
        """The state that each word leads to, [Q V]."""
        return self.table[:, self.classes]

    def step(self, states: Tensor, words: Tensor) -> Tensor:
        """The states after one more word each, [...], [...] → [...]."""
        return self.table[states, self.classes[words]]

    def read(self, ids: Tensor) -> Tensor:
        """The state after the words of each text, of which START is not one, [B T] → [B]."""
        states = torch.full((len(ids),), self.start)
        for words in ids.T:
            states = self.step(states, words)
        return states

    def accepts(self, ids: Tensor) -> Tensor:
        """Whether each text, laid out as START words END PAD…, is one of those that are meant, [B L] → [B]."""
        return self.accepting[self.read(ids[:, 1:])] & (ids[:, 0] == START)

    @cached_property
    def left(self) -> Tensor:
        """How many more ids each state takes to accept at least, END being one of them, [Q]; infinite if it cannot."""
        least = torch.where(self.accepting, 0.0, torch.inf)
        for _ in range(len(self)):
            least = torch.minimum(least, 1 + least[self.table].amin(1))
        return least

    def __and__(self, other: "Automaton") -> "Automaton":
        """The automaton of the texts that both accept."""
        pairs, classes = torch.stack([self.classes, other.classes], 1).unique(dim=0, return_inverse=True)
        one, two = self.table[:, pairs[:, 0]], other.table[:, pairs[:, 1]]  # [Q K], [Q' K]
        table = one[:, None] * len(other) + two
        table = table.masked_fill((one[:, None] == DEAD) | (two == DEAD), DEAD).flatten(0, 1)
        accepting = (self.accepting[:, None] & other.accepting).flatten()
        return Automaton(classes, table, accepting, self.start * len(other) + other.start).minimal()

    def minimal(self) -> "Automaton":
        """The same texts with as few states and classes as can be (Moore 1956)."""
        reached = self._reached()
        number = torch.zeros(len(self), dtype=torch.long)
        number[reached] = torch.arange(len(reached))
        table, accepting = number[self.table[reached]], self.accepting[reached]
        blocks, count = accepting.long(), 0
        while count < (count := int(blocks.max()) + 1):  # states of a block part if their words lead apart
            blocks = torch.cat([blocks[:, None], blocks[table]], 1).unique(dim=0, return_inverse=True)[1]
        blocks = torch.where(blocks == blocks[DEAD], -1, blocks).unique(return_inverse=True)[1]  # the dead one first
        one_each = torch.zeros(int(blocks.max()) + 1, dtype=torch.long).scatter(0, blocks, torch.arange(len(blocks)))
        table, merged = blocks[table[one_each]].unique(dim=1, return_inverse=True)
        return Automaton(merged[self.classes], table, accepting[one_each], int(blocks[number[self.start]]))

    def _reached(self) -> Tensor:
        """The states that some text leads to, and the dead one, in order."""
        reached = torch.zeros(len(self), dtype=torch.bool)
        news = torch.tensor([DEAD, self.start])
        while len(news):
            reached[news] = True
            news = self.table[news].unique()
            news = news[~reached[news]]
        return reached.nonzero()[:, 0]


@dataclass(frozen=True, eq=False)
class Stacked:
    """Automata of several texts in one, filled up with dead states: `classes` [B V], `table` [B Q K], `accepting`
    [B Q], `start` [B]."""

    classes: Tensor
    table: Tensor
    accepting: Tensor
    start: Tensor

    @classmethod
    def of(cls, automata: Sequence[Automaton]) -> "Stacked":
        states, classes = (max(one.table.shape[i] for one in automata) for i in (0, 1))
        table = torch.full((len(automata), states, classes), DEAD)
        accepting = torch.zeros(len(automata), states, dtype=torch.bool)
        for row, one in enumerate(automata):
            table[row, : len(one), : one.table.shape[1]] = one.table
            accepting[row, : len(one)] = one.accepting
        return cls(torch.stack([one.classes for one in automata]), table, accepting,
                   torch.tensor([one.start for one in automata]))  # fmt: skip

    @cached_property
    def _copies(self) -> dict[torch.device, "Stacked"]:
        return {self.start.device: self}

    def to(self, device: torch.device) -> "Stacked":
        """These automata on a device; copied there once."""
        if device not in self._copies:
            parts = (self.classes, self.table, self.accepting, self.start)
            self._copies[device] = Stacked(*(part.to(device) for part in parts))
        return self._copies[device]

    @cached_property
    def _reached(self) -> list[Tensor]:
        return [torch.nn.functional.one_hot(self.start, self.table.shape[1])]

    def reachable(self, length: int) -> list[Tensor]:
        """Which states, the dead one excepted, some text is in before each of `length` positions and behind the last
        one, length + 1 of [B Q]: 1 or 0. Found once, as a reverse process asks for it at every step."""
        while len(self._reached) <= length:
            states = self._reached[-1]
            led = states[..., None].expand_as(self.table)
            states = torch.zeros_like(states).scatter_add(1, self.table.flatten(1), led.flatten(1)).clamp(max=1)
            states[:, DEAD] = 0
            self._reached.append(states)
        return self._reached[: length + 1]


def classed(masks: Sequence[Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Words that no mask tells apart share a class, masks of words [M] × [V]. Returns the class of every word [V] and
    which classes each mask holds [M K]; classes count from 0."""
    stacked = torch.stack([torch.zeros(size, dtype=torch.bool), *masks])
    members, classes = stacked.unique(dim=1, return_inverse=True)
    return classes, members[1:]


def explored(classes: Tensor, start: State, step: Callable[[State, int], State | None],
             ends: Callable[[State], bool]) -> Automaton:  # fmt: skip
    """The automaton of a machine that is given by what it does.

    classes: the class of every word [V]; step: the state after a word of a class, None if no text goes on like that;
    ends: whether a text may end in a state.
    """
    count, known = int(classes.max()) + 1, {start: _DONE + 1}
    rows: list[list[int]] = [[DEAD] * (_WORDS + count), [DEAD] * (_WORDS + count)]
    rows[_DONE][_FILLS] = _DONE
    waiting = [start]
    for state in waiting:
        row = [DEAD, _DONE if ends(state) else DEAD, DEAD]
        for word in range(count):
            found = step(state, word)
            if found is not None and found not in known:
                known[found] = len(known) + _DONE + 1
                waiting.append(found)
            row.append(DEAD if found is None else known[found])
        rows.append(row)
    laid = classes + _WORDS
    laid[[START, END, PAD]] = torch.tensor([_NEVER, _ENDS, _FILLS])
    accepting = torch.arange(len(rows)) == _DONE
    return Automaton(laid, torch.tensor(rows), accepting, _DONE + 1).minimal()


@dataclass(frozen=True, eq=False)
class Some:
    """Between `least` and `most` words of a set, a mask [V]; `most` None: as many as there is room for."""

    words: Tensor
    least: int = 1
    most: int | None = 1


def pattern(parts: Iterable[Some], size: int) -> Automaton:
    """Texts that are these parts one after another and nothing else.

    size: words of the vocabulary. The sets of places that a text may have come to are the states (Rabin & Scott 1959).
    """
    items: list[tuple[int, bool, bool]] = []  # number of the set, whether it may be left out, whether it repeats
    masks: list[Tensor] = []
    for number, part in enumerate(parts):
        masks.append(part.words)
        items += [(number, False, False)] * part.least
        items += [(number, True, True)] if part.most is None else [(number, True, False)] * (part.most - part.least)
    classes, members = classed(masks, size)
    allowed = members.tolist()

    def closed(places: Iterable[int]) -> frozenset[int]:
        """With the places that leaving out parts leads to."""
        found: set[int] = set()
        for place in places:
            found.add(place)
            while place < len(items) and items[place][1]:
                place += 1
                found.add(place)
        return frozenset(found)

    def step(places: frozenset[int], word: int) -> frozenset[int] | None:
        news = [
            place if items[place][2] else place + 1
            for place in places
            if place < len(items) and allowed[items[place][0]][word]
        ]
        return closed(news) if news else None

    return explored(classes, closed([0]), step, lambda places: len(items) in places)


def words(ids: Iterable[int], size: int) -> Tensor:
    """The set of these words, a mask [V]."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(ids)] = True
    return mask


def anything(size: int) -> Tensor:
    """The set of all words, UNK among them, a mask [V]; START, END and PAD are none."""
    return ~words([START, END, PAD], size)
