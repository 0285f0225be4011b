"""PPLM's attribute model: which classes a text has, read off the language model's own hidden states.

As in the released code (run_pplm_discrim_train.py) a linear layer on the mean of the last hidden states of whole texts.
That one text can have several of a task's classes (the fields it mentions) makes each class a yes or no here.

B batch · H hidden width · K classes · N tasks
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from diffcontrol.autoregressive.causal_lm import CausalLM
from diffcontrol.data.corpus import Corpus
from diffcontrol.task import ControlTask, Target
from diffcontrol.text import PAD, crop, lengths
from diffcontrol.training import Trainable


class Discriminator(Trainable):
    """log p(class | mean hidden state) for the classes of all tasks of a run.

    Classes are numbered in the order of the tasks' names. The order in which a run names its tasks does not enter an
    address, so it must not change what a weight stands for.
    """

    def __init__(self, data: Corpus, lm: CausalLM, tasks: Mapping[str, ControlTask], optim: Mapping[str, Any],
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        self.lm, self.tasks = lm, dict(sorted(tasks.items()))
        asked = [self._key(name, target) for name, task in self.tasks.items() for target in task.classes()]
        self.numbers = {key: i for i, key in enumerate(asked)}
        self.logits = nn.Linear(lm.network.config.n_embd, len(asked))

    @staticmethod
    def _key(task: str, target: Target) -> str:
        return json.dumps([task, target])

    @cached_property
    def truth(self) -> list[list[int]]:
        """Numbers of the classes that each training text has."""
        return [
            [self.numbers[self._key(n, target)] for n, task in self.tasks.items() for target in _own(task, example)]
            for example in self.corpus.splits["train"]
        ]

    def collate(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Texts [B T], which classes they have [B K]."""
        has = torch.zeros(len(indices), len(self.numbers))
        for row, i in enumerate(indices):
            has[row, self.truth[i]] = 1.0
        return crop(super().collate(indices)), has

    def losses(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        ids, has = batch
        with torch.no_grad():
            hidden = self.lm.network.transformer(ids, use_cache=False).last_hidden_state
            written = (ids != PAD)[..., None]
            mean = (hidden * written).sum(1) / lengths(ids)[:, None]
        errors = binary_cross_entropy_with_logits(self.logits(mean), has, reduction="none")
        return {"bce": errors.sum(1).mean()}

    def classes(self, task: str, targets: Sequence[Target]) -> Tensor:
        """The number of each target, [B]."""
        return torch.tensor([self.numbers[self._key(task, target)] for target in targets], device=self.device)

    def log_probs(self, mean: Tensor, classes: Sequence[Tensor]) -> Tensor:
        """log p(class) of each task, mean hidden states [B H], classes [B] of each of N tasks → [B N]."""
        return logsigmoid(self.logits(mean)).gather(1, torch.stack(list(classes), 1))


def _own(task: ControlTask, example: Any) -> list[Target]:
    return task.targets(task.annotate(example))
