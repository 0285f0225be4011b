"""The smallest things the store can train, with faults that a test switches on."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.data.corpus import Corpus
from diffcontrol.training import Trainable

torch.set_num_threads(1)  # on networks this small threads only wait for each other


class Faults:
    """What goes wrong, at which step; outside every recipe, so that a faulty and a sound run share an address."""

    crash: int | None = None  # raises
    nan: int | None = None  # the loss is no number from here on
    sleep: float = 0.0  # seconds a step


class Toy(Trainable):
    """Learns a number a word from noisy looks at it; keeps which steps it ran and its weights after each."""

    def __init__(self, data: Corpus, optim: Mapping[str, Any], width: int = 3, shift: float = 0.5,
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        self.words, self.mix = nn.Embedding(len(data.vocabulary), width), nn.Linear(width, width)
        self.shift = shift
        self.seen: list[tuple[int, list[int]]] = []  # step, ids
        self.history: list[Tensor] = []

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        step = self.global_step
        self.seen.append((step, batch.flatten().tolist()))
        if step == Faults.crash:
            raise ConnectionError("the power went off")
        time.sleep(Faults.sleep)
        noisy = self.mix(self.words(batch) + torch.randn(self.words.embedding_dim))
        loss = (noisy - self.shift - batch[..., None] / 10).square().mean()
        return {"error": loss * (torch.nan if Faults.nan is not None and step >= Faults.nan else 1.0)}

    def on_train_batch_end(self, *_: Any) -> None:
        self.history.append(self.words.weight.detach().clone())


class Deep(Toy):
    """A toy with hidden layers."""

    def __init__(self, data: Corpus, optim: Mapping[str, Any], width: int = 3, shift: float = 0.5,
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, width, shift, model_seed, version)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def hidden(self) -> list[Tensor]:
        return [self.up.weight, self.down.weight]

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        terms = super().losses(batch)
        return terms | {"deep": self.down(self.up(self.words(batch)).tanh()).square().mean()}


class Child(Toy):
    """A toy that needs another one, as a classifier needs its language model."""

    def __init__(self, data: Corpus, parent: Toy, optim: Mapping[str, Any], model_seed: int = 0):
        super().__init__(data, optim, model_seed=model_seed)
        self.parent, self.dropout = parent, nn.Dropout(0.5)
        self.modes: list[tuple[bool, bool]] = []  # own, parent's

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        self.modes.append((self.training, self.parent.training))
        return {"error": (self.dropout(self.words(batch)) - self.parent.words(batch)).square().mean()}


def data(**changes: Any) -> dict[str, Any]:
    return {"_target_": "tests.fakes.FakeCorpus", "n": 32, "length": 10, "seed": 0, **changes}


def toy(**optim: Any) -> dict[str, Any]:
    """Recipe of a Toy."""
    return {
        "_target_": "tests.toys.Toy", "version": 1, "model_seed": 0, "width": 3, "shift": 0.5, "data": data(),
        "optim": {"steps": 20, "batch_size": 4, "lr": 0.05, "warmup": 2, "checkpoint": 5, **optim},
    }  # fmt: skip


def deep(**optim: Any) -> dict[str, Any]:
    """Recipe of a Deep."""
    return toy(**optim) | {"_target_": "tests.toys.Deep"}


def child(**optim: Any) -> dict[str, Any]:
    """Recipe of a Child of a toy."""
    return {"_target_": "tests.toys.Child", "model_seed": 1, "parent": toy(), "data": data(),
            "optim": {"steps": 6, "batch_size": 4, "lr": 0.05, **optim}}  # fmt: skip
