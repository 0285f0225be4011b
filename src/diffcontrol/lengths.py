"""How long a text is to be, where its target leaves that open: as long as a training text that meets the target.

A diffusion LM settles the length of a text early, by where END and PAD stand at high noise. A low temperature makes
these likelier, so texts become fluent and short at once (docs/log.md). With END fixed at a drawn place the two come
apart; to settle the length first is usual in non-autoregressive translation (Gu et al. 2018).
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

from diffcontrol.allowed import Rules, whole
from diffcontrol.data.corpus import Corpus, Example, spaced
from diffcontrol.layout import Layout, of_text
from diffcontrol.recipe import Shared
from diffcontrol.task import ControlTask, Target

Lengths = list[int]  # numbers of words, sorted


class TrainingLengths(Shared):
    """Lengths of training texts, by what they meet.

    Texts that the models cut, as they are longer than `data.length` has room for, do not count.

    texts: how many are looked at, evenly spaced; where fewer than `enough` of them meet a target, all are looked at.
    enough: how many texts have to meet a target for these to count alone.
    """

    allowed: ClassVar[Rules] = {"texts": whole(1), "enough": whole(1)}

    def __init__(self, data: Corpus, tasks: Mapping[str, ControlTask], texts: int = 4000, enough: int = 10):
        self.corpus, self.tasks, self.texts, self.enough = data, dict(tasks), texts, enough
        self.most = data.length - 2  # words beside START and END
        self.by_target: dict[tuple[str, int], dict[str, Lengths]] = {}

    def draw(self, targets: Mapping[str, Target], least: int, uniform: float, most: int | None = None) -> int:
        """A number of words, from `least` to `most` where there is one, for a text that is to meet the targets, by a
        number from [0, 1). Of several targets that which the smallest share of training texts meets decides."""
        found = [self._meeting(name, target) for name, target in targets.items()]
        known = [(len(own) / texts, own) for own, texts in found if len(own) >= self.enough]
        choices = min(known, key=lambda one: one[0])[1] if known else self._all
        within = range(least, 1 + (self.most if most is None else most))
        able = [n for n in choices if n in within] or [n for n in self._all if n in within] or [least]
        return able[int(uniform * len(able))]

    def end(self, layout: Layout, targets: Mapping[str, Target], least: int, uniform: float, length: int,
            said: int | None = None, most: int | None = None) -> Layout:  # fmt: skip
        """The layout of a row of `length` positions with END after as many words as the targets say (`said`), else
        after a drawn number, at most `most`, behind what the layout fixes."""
        words = said or self.draw(targets, max(least, *layout.words, 1), uniform, most)
        return of_text(layout.words, min(words, length - 2) + 1, length)

    @cached_property
    def _all(self) -> Lengths:
        looked_at = spaced(self.corpus.splits["train"], self.texts)
        return sorted(n for example in looked_at if (n := len(example.words)) <= self.most) or [self.most]

    def _meeting(self, name: str, target: Target) -> tuple[Lengths, int]:
        """Lengths of the texts that meet a target, and of how many texts."""
        key, whole = _key(target), len(self._examples(self.tasks[name]))
        for texts in (min(self.texts, whole), whole):
            if (name, texts) not in self.by_target:
                self.by_target[name, texts] = self._index(self.tasks[name], texts)
            found = self.by_target[name, texts].get(key, [])
            if len(found) >= self.enough:
                break
        return found, texts

    def _examples(self, task: ControlTask) -> Sequence[Example]:
        return (task.reads or self.corpus).splits["train"]

    def _index(self, task: ControlTask, texts: int) -> dict[str, Lengths]:
        """Target → lengths of those of `texts` training texts that meet it."""
        found: dict[str, Lengths] = {}
        for example in spaced(self._examples(task), texts):
            if len(example.words) > self.most:
                continue
            for key in {_key(target) for target in task.targets(task.annotate(example))}:
                found.setdefault(key, []).append(len(example.words))
        return {key: sorted(lengths) for key, lengths in found.items()}


def _key(target: Target) -> str:
    return json.dumps(target, sort_keys=True)
