"""Layout: words that stand at known places whatever is written around them, and how several tasks agree on one."""

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate

from diffcontrol.text import END, SPECIALS


@dataclass(frozen=True)
class Layout:
    """Position → word, START's position being 0; the specials of `text.SPECIALS` are words here.

    Where END is among them, every other position before it holds a word: no special, and so no shorter text.
    `weight`: of the layouts a target allows, how likely this one is to be drawn.
    """

    words: Mapping[int, str] = field(default_factory=dict)
    weight: float = 1.0

    @property
    def end(self) -> int | None:
        """The position of END, if it is fixed."""
        return next((place for place, word in self.words.items() if word == SPECIALS[END]), None)

    def agrees(self, other: "Layout") -> bool:
        """Whether both can hold at once."""
        if any(other.words.get(place, word) != word for place, word in self.words.items()):
            return False
        return all(
            word not in SPECIALS or not 0 < place < one.end
            for one, two in ((self, other), (other, self))
            if one.end is not None
            for place, word in two.words.items()
        )

    def joined(self, other: "Layout") -> "Layout":
        return Layout({**self.words, **other.words}, self.weight * other.weight)


def of_text(words: Mapping[int, str], end: int, length: int, weight: float = 1.0) -> Layout:
    """Known words of a text that ends at position `end`: START, the words, END, and PAD after it."""
    after = dict.fromkeys(range(end + 1, length), "PAD")
    return Layout({0: "START", **words, end: "END", **after}, weight)


def taken(layouts: Sequence[Layout]) -> int | None:
    """How many positions the longest of them takes, END included; None where one does not fix END, or there is none."""
    ends = [layout.end for layout in layouts if layout.end is not None]
    return 1 + max(ends) if ends and len(ends) == len(layouts) else None


def joint(choices: Sequence[Sequence[Layout]]) -> list[Layout]:
    """The layouts that agree with one of each task's; tasks that fix nothing give none and are left out.

    Nothing fixed by any is one layout without words; an empty list says that the tasks contradict each other.
    """

    def join(found: list[Layout], options: Sequence[Layout]) -> list[Layout]:
        return [one.joined(other) for one in found for other in options if one.agrees(other)]

    return reduce(join, [options for options in choices if options], [Layout()])


def drawn(layouts: Sequence[Layout], uniform: float) -> Layout:
    """One of them, by weight and a number from [0, 1)."""
    upto = list(accumulate(layout.weight for layout in layouts))
    return layouts[min(bisect(upto, uniform * upto[-1]), len(layouts) - 1)]
