"""A corpus of a few words and a task on it, for tests of everything that needs both."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from diffcontrol.data.corpus import Corpus, Example, content_digest
from diffcontrol.draws import seed_of
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask, Head, Target
from diffcontrol.text import END, START
from diffcontrol.training import Trainable

torch.set_num_threads(1)  # on networks this small threads only wait for each other

COLOURS = ("red", "green", "blue")
OPTIM = {"steps": 100, "batch_size": 8, "lr": 3e-3, "warmup": 5}
GPT2 = {"width": 16, "depth": 2, "heads": 2, "dropout": 0.0}


class FakeCorpus(Corpus):
    """'a big red cat sees the cat': one colour at most, fields and tags of every text, splits of n, n/4, n/4 texts."""

    def __init__(self, n: int = 64, length: int = 10, seed: int = 0):
        self.n, self.length, self.seed = n, length, seed

    def read(self, split: str) -> list[Example]:
        place = ("train", "dev", "test").index(split)
        generator = torch.Generator().manual_seed(seed_of(self.seed, place))
        count = self.n if split == "train" else max(1, self.n // 4)
        return [self._example(torch.randint(10**6, (5,), generator=generator).tolist()) for _ in range(count)]

    def _example(self, drawn: list[int]) -> Example:
        colour = ("", *COLOURS)[drawn[0] % 4]
        animal, verb = ("cat", "dog", "bird")[drawn[1] % 3], ("sees", "likes")[drawn[2] % 2]
        words, tags = ["a"], ["DT"]
        for word in ["big"] * (drawn[3] % 2) + [colour] * bool(colour):
            words, tags = [*words, word], [*tags, "JJ"]
        words, tags = [*words, animal, verb], [*tags, "NN", "VBZ"]
        if drawn[4] % 2:
            words, tags = [*words, "the", "cat"], [*tags, "DT", "NN"]
        universal = {"DT": "DET", "JJ": "ADJ", "NN": "NOUN", "VBZ": "VERB"}
        fields = {"animal": animal, "colour": colour} if colour else {"animal": animal}
        labels = {"mood": "fond" if verb == "likes" else "neutral"}
        return Example(tuple(words), fields, labels, "", tuple(tags), tuple(universal[tag] for tag in tags))

    @property
    def digest(self) -> str:
        return content_digest(self.splits["train"])


class FakeHead(Head):
    """Each word of the task, anywhere in the text: logits from the mean hidden state."""

    def __init__(self, width: int, words: Sequence[str]):
        super().__init__()
        self.words, self.logits = list(words), nn.Linear(width, len(words))

    def loss(self, hidden: Tensor, annotations: Sequence[Sequence[str]]) -> Tensor:
        present = torch.tensor([[float(w in a) for w in self.words] for a in annotations], device=hidden.device)
        return binary_cross_entropy_with_logits(self.logits(hidden.mean(1)), present)

    def log_prob(self, hidden: Tensor, targets: Sequence[Target]) -> Tensor:
        asked = torch.tensor([[self.words.index(target)] for target in targets], device=hidden.device)
        return logsigmoid(self.logits(hidden.mean(1))).gather(1, asked)[:, 0]


class FakeTask(ControlTask):
    """The text contains the word w, one of `words`."""

    def __init__(self, words: Sequence[str] = COLOURS, data: Corpus | None = None):
        self.asked, self.corpus = list(words), data

    def annotate(self, example: Example) -> list[str]:
        return [word for word in self.asked if word in example.words]

    def targets(self, annotation: list[str]) -> list[Target]:
        return list(annotation)

    def parse(self, target: Any) -> Target:
        if target not in self.asked:
            raise Refused(f"the word {target!r} cannot be asked for; allowed are {', '.join(self.asked)}")
        return target

    def head(self, width: int) -> Head:
        return FakeHead(width, self.asked)

    def serialize(self, target: Target) -> list[str]:
        return [target]

    def success(self, texts: Sequence[Sequence[str]], targets: Sequence[Target],
                judges: Mapping[str, Any] = {}) -> Mapping[str, list[float]]:  # fmt: skip
        found = [float(target in text) for text, target in zip(texts, targets, strict=True)]
        return {"strict": found, "released": found}


def train(model: Trainable, steps: int) -> list[float]:
    """Losses of a short training without Lightning's Trainer."""
    optimiser, sampler = torch.optim.AdamW(model.parameters(), lr=model.options.lr), model.steps()
    model.train()
    losses = []
    for step in range(steps):
        torch.manual_seed(seed_of(model.model_seed, step))
        loss = torch.stack(list(model.losses(model.collate(sampler.indices(step))).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    model.eval()
    return losses


def ids_of(corpus: Corpus, text: str) -> Tensor:
    """START words [1 T] without END."""
    return torch.tensor([[START, *(corpus.vocabulary.ids[word] for word in text.split())]])


def ended(ids: Tensor) -> Tensor:
    return torch.cat([ids, ids.new_full((len(ids), 1), END)], 1)
