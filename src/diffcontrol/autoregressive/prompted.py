"""Models that read a task's target as words before the text: FUDGE's predictor, the fine-tuned expert, and the
conditional diffusion LM.

B rows · P positions of the prompt
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.draws import seed_of
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask, Target
from diffcontrol.training import Trainable

TRIES = 16  # draws of a target that a text does not meet


class Asked:
    """What may be asked of every training text, as a table that positive and negative targets are drawn from.

    Attributes: `words`, the different serialised targets; `flat`, indices into them of all texts one after another;
    `starts` [N + 1], where a text's own begin in it; `counts` [N], how many it has; `carriers`, texts that have any.
    """

    def __init__(self, task: ControlTask, examples: Sequence[Example]):
        numbers: dict[tuple[str, ...], int] = {}
        flat: list[int] = []
        starts = [0]
        for example in examples:
            own = dict.fromkeys(tuple(task.serialize(target)) for target in task.targets(task.annotate(example)))
            flat += [numbers.setdefault(words, len(numbers)) for words in own]
            starts.append(len(flat))
        if len(numbers) < 2:
            raise Refused(
                f"{type(task).__name__}: the training texts need at least 2 different targets, and have {len(numbers)}"
            )
        self.words, self.flat, self.starts = list(numbers), torch.tensor(flat), torch.tensor(starts)
        letters = {word: i for i, word in enumerate(dict.fromkeys(word for words in numbers for word in words))}
        self._spelled = pad_sequence(
            [torch.tensor([letters[word] for word in words]) for words in numbers], batch_first=True, padding_value=-1
        )  # [targets P]
        self.counts = self.starts.diff()
        self.carriers = self.counts.nonzero()[:, 0]
        owners = torch.arange(len(examples)).repeat_interleave(self.counts)
        self._pairs = (owners * len(numbers) + self.flat).sort().values

    def draw(self, texts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A target that each text meets, and one of another text's that it does not: of TRIES, half of the time the
        first and half of the time the one spelled most like the positive (food : Thai for food : Italian), as they
        are what has to be told apart.

        Returns [≤ 2B]: indices into `words`, rows of `texts`, labels. A text without target is no positive.
        """
        others = torch.randint(len(self.carriers), (len(texts), TRIES), generator=generator)
        negative = self.pick(self.carriers[others], generator)
        foreign = ~self._met(texts[:, None], negative)
        rows = torch.arange(len(texts))
        with_targets, with_negative = rows[self.counts[texts] > 0], rows[foreign.any(1)]
        positive = self.pick(texts[with_targets], generator)
        likeness = torch.zeros_like(negative)
        alike = self._spelled[negative[with_targets]] == self._spelled[positive][:, None]
        likeness[with_targets] = (alike & (self._spelled[positive][:, None] >= 0)).sum(-1)
        hard = torch.rand((len(texts), 1), generator=generator) < 0.5
        chosen = (foreign * (1 + hard * likeness)).argmax(1, keepdim=True)
        negative = negative.gather(1, chosen)[:, 0]
        labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(with_negative))])
        return torch.cat([positive, negative[with_negative]]), torch.cat([with_targets, with_negative]), labels

    def pick(self, texts: Tensor, generator: torch.Generator) -> Tensor:
        """One of each text's own targets."""
        drawn = torch.rand(texts.shape, generator=generator, dtype=torch.float64)
        return self.flat[self.starts[texts] + (drawn * self.counts[texts]).long()]

    def _met(self, texts: Tensor, targets: Tensor) -> Tensor:
        pairs = texts * len(self.words) + targets
        return self._pairs[torch.searchsorted(self._pairs, pairs).clamp(max=len(self._pairs) - 1)] == pairs


def check_targets(method: str, tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
    """For methods whose models read the targets of the tasks, before anything is trained: whether the training texts
    have two different ones. Of texts that are not parsed yet it is not asked.

    Raises:
        Refused: they have fewer.
    """
    for name, task in tasks.items():
        data = task.reads or corpus
        if data.made_by_store:
            continue
        seen: set[tuple[str, ...]] = set()
        for example in data.splits["train"]:
            seen |= {tuple(task.serialize(target)) for target in task.targets(task.annotate(example))}
            if len(seen) > 1:
                break
        else:
            raise Refused(f"{method}: its model of {name} learns to tell targets apart, and all training texts "
                          f"together have {len(seen)}; it needs at least 2")  # fmt: skip


class Prompted(Trainable):
    """Ids of prompts: words that prompt and text have in common share theirs, so that a value asked for can be matched
    with its mention; words of targets that no text has follow the vocabulary."""

    def __init__(self, data: Corpus, task: ControlTask, optim: Mapping[str, Any], model_seed: int = 0):
        super().__init__(data, optim, model_seed)
        self.task, self.token_evaluations = task, 0
        self.asked = Asked(task, data.splits["train"])
        self.ids = dict(data.vocabulary.ids)
        for words in self.asked.words:
            for word in words:
                self.ids.setdefault(word, len(self.ids))
        self.separator, self.blank = len(self.ids), len(self.ids) + 1
        self.prompt_length = 1 + max(map(len, self.asked.words))

    def prompts(self, serialised: Sequence[Sequence[str]]) -> Tensor:
        """Ids [B P] of words, separator, blanks; words that training never saw become UNK."""
        most = self.prompt_length - 1
        cut = max(map(len, serialised)) - most
        if cut > 0:
            logging.getLogger(__name__).warning(
                "%s: a target is %d words longer than any in training; it is cut", type(self.task).__name__, cut
            )
        unknown = self.ids["UNK"]
        rows = [[*(self.ids.get(word, unknown) for word in words[:most]), self.separator] for words in serialised]
        longest = max(map(len, rows))
        return torch.tensor([row + [self.blank] * (longest - len(row)) for row in rows])

    def filled(self, serialised: Sequence[Sequence[str]]) -> Tensor:
        """`prompts` filled up with blanks to `prompt_length` positions P, [B P]: the i-th tag of a target always stands
        at the same distance from the i-th word of the text."""
        rows = self.prompts(serialised)
        return pad(rows, (0, self.prompt_length - rows.shape[1]), value=self.blank)

    def asks(self, targets: Sequence[Target]) -> Tensor:
        """Prompts of targets, [B P]."""
        return self.filled([self.task.serialize(target) for target in targets]).to(self.device)

    def own(self, indices: list[int]) -> Tensor:
        """Prompts [B P] of one of each training text's own targets, drawn as a function of the model seed and the texts
        alone."""
        generator = torch.Generator().manual_seed(seed_of(self.model_seed, *indices))
        return self.filled([self.asked.words[i] for i in self.asked.pick(torch.tensor(indices), generator).tolist()])
