"""ControlClassifier: a task's head on hidden states of noisy texts, and the encoders that make these.

B batch · L positions · D embedding width · H hidden width
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from diffcontrol.allowed import Allowed, Rules
from diffcontrol.batches import Steps
from diffcontrol.data.corpus import Corpus
from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.lm import cropped, windowed
from diffcontrol.diffusion.transformer import Transformer
from diffcontrol.refused import Refused
from diffcontrol.steering.base import ByTask, Control, Look
from diffcontrol.task import ControlTask, Target
from diffcontrol.training import Trainable, shared_out


class NoisyLM(Protocol):
    """A language model of noisy texts, as a classifier reads it: the continuous one or the masked one.

    What x_t is it knows itself: noisy word vectors [B L D], or the one-hot words and masks [B L V+1].
    """

    corpus: Corpus
    embedding: nn.Embedding
    inputs: int  # the width of x_t
    width: int  # of its hidden states
    length: int
    window: int
    low: float  # the least time that it is trained at

    def times(self, size: int) -> Tensor:
        """Times [size] to train at, those that are sampled."""
        ...

    def noisy(self, ids: Tensor, t: Tensor) -> Tensor:
        """A draw of x_t of word ids [B L] at t [B]."""
        ...

    def predict(self, x_t: Tensor, t: Tensor) -> Prediction:
        """What it says of x_t at t [B]."""
        ...


class Encoder(ABC):
    """Where the head's hidden states come from."""

    @abstractmethod
    def build(self, lm: NoisyLM) -> tuple[nn.Module, int]:
        """The network of its own (or an empty one), and the width of its hidden states."""

    @abstractmethod
    def hidden(self, network: nn.Module, look: Look) -> Tensor:
        """[B L H], differentiable in x_t."""


class DenoiserEncoder(Encoder):
    """The language model's own hidden states beside its x̂₀: no second network has to be trained or run.

    x̂₀ is there because words that can stand in the same places (expensive, inexpensive) have much the same hidden
    state (docs/log.md).
    """

    def build(self, lm: NoisyLM) -> tuple[nn.Module, int]:
        return nn.Identity(), lm.width + lm.embedding.embedding_dim

    def hidden(self, network: nn.Module, look: Look) -> Tensor:
        return torch.cat([look.prediction.hidden, look.prediction.x0], -1)


class NetworkEncoder(Encoder):
    """A time-aware network of its own; what it reads, a subclass says."""

    def __init__(self, width: int, depth: int, heads: int, dropout: float = 0.0):
        self.sizes = {"width": width, "depth": depth, "heads": heads, "dropout": dropout}

    def build(self, lm: NoisyLM) -> tuple[nn.Module, int]:
        network = Transformer(self.inputs(lm), positions=lm.length, **self.sizes)  # type: ignore[arg-type]
        return network, int(self.sizes["width"])

    def hidden(self, network: nn.Module, look: Look) -> Tensor:
        return network(self.read(look), look.t)

    @abstractmethod
    def inputs(self, lm: NoisyLM) -> int:
        """The width of what it reads."""

    @abstractmethod
    def read(self, look: Look) -> Tensor:
        """[B L inputs], differentiable in x_t."""


class StackedEncoder(NetworkEncoder):
    """Layers of its own on what `DenoiserEncoder` hands to the head. For labels that depend on many words and that a
    head alone cannot read off the denoiser's states, such as tags and trees of real text (docs/log.md)."""

    below = DenoiserEncoder()

    def inputs(self, lm: NoisyLM) -> int:
        return self.below.build(lm)[1]

    def read(self, look: Look) -> Tensor:
        return self.below.hidden(nn.Identity(), look)


class NoisyEncoder(NetworkEncoder):
    """A separate network on noisy texts, trained from scratch (paper App. D)."""

    def inputs(self, lm: NoisyLM) -> int:
        return lm.inputs

    def read(self, look: Look) -> Tensor:
        return look.x_t


ENCODER = Allowed("an encoder, of a width that is a multiple of its heads",
                  lambda value: isinstance(value, Mapping) and shared_out(value))  # fmt: skip


class ControlClassifier(Trainable, ByTask):
    """log p(target | x_t): trained on annotated texts at all the times that are sampled, the LM frozen."""

    allowed: ClassVar[Rules] = {"encoder": ENCODER}

    def __init__(self, task: ControlTask, lm: NoisyLM, encoder: Encoder, data: Corpus, optim: Mapping[str, Any],
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        if data.vocabulary.words != lm.corpus.vocabulary.words:
            raise Refused("the data of a control classifier have other words than those of its language model")
        self.task, self.lm, self.encoder, self.window = task, lm, encoder, lm.window
        self.network, width = encoder.build(lm)
        self.head = task.head(width)
        self.ends = self.head.ends
        self.token_evaluations = 0  # by a network of its own

    @classmethod
    def check(cls, task: ControlTask, corpus: Corpus) -> None:
        if type(task).head is ControlTask.head:
            task.head(0)  # it says why there is none

    def hidden(self) -> list[Tensor]:
        return self.network.matrices() if isinstance(self.network, Transformer) else []

    @cached_property
    def annotations(self) -> list[Any]:
        return [self.task.annotate(example) for example in self.corpus.splits["train"]]

    def steps(self) -> Steps:
        return windowed(self)

    def collate(self, indices: list[int]) -> tuple[Tensor, list[Any]]:
        return cropped(self.corpus.ids["train"][indices], self.window), [self.annotations[i] for i in indices]

    def losses(self, batch: tuple[Tensor, list[Any]]) -> dict[str, Tensor]:
        ids, annotations = batch
        with torch.no_grad():
            t = self.lm.times(len(ids))
            x_t = self.lm.noisy(ids, t)
        return {"nll": self.head.loss(self.read(x_t, t), annotations)}

    def read(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The hidden states [B L H] that the head reads of x_t at t [B]. The language model is not differentiated."""
        return self.encoder.hidden(self.network, Look(x_t, t, lambda: self._predict(x_t, t)))

    @torch.no_grad()
    def _predict(self, x_t: Tensor, t: Tensor) -> Prediction:
        return self.lm.predict(x_t, t)

    def control(self, targets: Sequence[Target]) -> "ClassifierControl":
        """The control that asks row i for targets[i]."""
        return ClassifierControl(self, targets)


class ClassifierControl(Control):
    """A classifier bound to a target per row."""

    def __init__(self, classifier: ControlClassifier, targets: Sequence[Target]):
        self.classifier, self.targets = classifier, targets

    def log_prob(self, look: Look) -> Tensor:
        if not isinstance(self.classifier.network, nn.Identity):
            self.classifier.token_evaluations += look.x_t.shape[0] * look.x_t.shape[1]
        hidden = self.classifier.encoder.hidden(self.classifier.network, look)
        return self.classifier.head.log_prob(hidden, self.targets)
