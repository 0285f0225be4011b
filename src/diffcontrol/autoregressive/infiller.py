"""The infiller: a causal LM that reads both contexts of a gap and learned to write what stands between them.

Donahue et al. 2020, *Enabling Language Models to Fill in the Blanks*; Li et al. 2022 §6.4 train theirs on the sentences
before, after and between, in this order.

B batch · T positions of the longest row
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2LMHeadModel

from diffcontrol.allowed import Rules
from diffcontrol.autoregressive.causal_lm import SIZES_OF_GPT2, gpt2, matrices
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import seed_of
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask, GapTask
from diffcontrol.text import END, PAD, START
from diffcontrol.training import Trainable


class Infiller(Trainable):
    """Reads START, the serialised target, a separator, the middle, END; the loss is that of the middle and END.

    The words by which targets ask for a length follow the vocabulary, then the separator.

    Raises:
        Refused: the task's targets have no gap, or it cuts nothing out of any training text.
    """

    allowed: ClassVar[Rules] = {"model": SIZES_OF_GPT2}

    def __init__(self, data: Corpus, task: ControlTask, model: Mapping[str, Any], optim: Mapping[str, Any],
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        if not isinstance(task, GapTask):
            raise Refused(f"infill: a target of {type(task).__name__} gives no words around a gap")
        self.task, self.token_evaluations = task, 0
        examples = data.splits["train"]
        self.targets = [task.targets(task.annotate(example)) for example in examples]
        self.carriers = torch.tensor([i for i, targets in enumerate(self.targets) if targets])
        if not len(self.carriers):
            raise Refused(f"infill: {type(task).__name__} cuts nothing out of any training text")
        self.ids = dict(data.vocabulary.ids)
        known = {word for example in examples for word in example.words}  # rare words stay UNK
        for targets in self.targets:
            for target in targets:
                for word in task.serialize(target):
                    if word not in known:
                        self.ids.setdefault(word, len(self.ids))
        self.separator = len(self.ids)
        self.positions = 2 * data.length
        self.network = GPT2LMHeadModel(gpt2(model, self.separator + 1, self.positions))

    def hidden(self) -> list[Tensor]:
        return matrices(self.network)

    def steps(self) -> Any:
        return self._steps([self.carriers])

    def prompt(self, target: Any) -> list[int]:
        unknown = self.ids["UNK"]
        words = [self.ids.get(word, unknown) for word in self.task.serialize(target)]
        return [START, *words, self.separator]

    def collate(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Rows [B T] and which of their positions are to be written [B T]; which gap is drawn with the model seed."""
        generator = torch.Generator().manual_seed(seed_of(self.model_seed, *indices))
        rows, written = [], []
        for i in indices:
            target = self.targets[i][int(torch.randint(len(self.targets[i]), (), generator=generator))]
            left, right = self.task.gap(target)
            words = self.corpus.splits["train"][i].words
            middle = [self.ids.get(word, self.ids["UNK"]) for word in words[len(left) : len(words) - len(right)]]
            prompt = self.prompt(target)
            rows.append(torch.tensor([*prompt, *middle, END]))
            written.append(torch.tensor([False] * len(prompt) + [True] * (len(middle) + 1)))
        return pad_sequence(rows, batch_first=True, padding_value=PAD), pad_sequence(written, batch_first=True)

    def losses(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        ids, written = batch
        logits = self.network(ids[:, :-1], use_cache=False).logits
        wanted = ids[:, 1:].masked_fill(~written[:, 1:], -100)
        return {"nll": cross_entropy(logits.transpose(1, 2), wanted)}

    def weight(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return batch[1][:, 1:].sum()
