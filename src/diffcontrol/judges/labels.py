"""LabelJudge: says which value each label of a text has; and the table of labels that it shares with what guides.

B batch · L positions · K values of all labels, one label's beside each other
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.diffusion.lm import cropped
from diffcontrol.metrics import interval
from diffcontrol.refused import Refused
from diffcontrol.shares import rand
from diffcontrol.text import PAD, UNK
from diffcontrol.training import Trainable

FORGOTTEN = 0.1  # of the words, in the judge's training


class Labels:
    """label → its values, numbered. A label that is the same in all texts tells nothing and is left out."""

    def __init__(self, examples: Iterable[Example]):
        seen: dict[str, set[str]] = {}
        for example in examples:
            for label, value in example.labels.items():
                seen.setdefault(label, set()).add(value)
        self.values = {label: sorted(seen[label]) for label in sorted(seen) if len(seen[label]) > 1}
        #: label → its value, of those that are left out
        self.alike = {label: value for label, (value, *others) in seen.items() if not others}
        self.numbers = {pair: i for i, pair in enumerate((lab, v) for lab, vs in self.values.items() for v in vs)}

    def __len__(self) -> int:
        return len(self.numbers)

    def log_probs(self, scores: Tensor) -> Tensor:
        """A softmax for each label, [B K] → [B K]."""
        parts = scores.float().split([len(values) for values in self.values.values()], -1)
        return torch.cat([part.log_softmax(-1) for part in parts], -1)

    def loss(self, log_probs: Tensor, rows: Sequence[Iterable[tuple[str, str]]]) -> Tensor:
        """Mean over texts of −Σ log p of their labels, [B K] and (label, value) pairs of each text → []."""
        truth = torch.zeros_like(log_probs)
        for row, pairs in enumerate(rows):
            for label, value in pairs:
                truth[row, self.numbers[label, value]] = 1
        return -(truth * log_probs).sum(1).mean()


class LabelJudge(Trainable):
    """Reads plain texts: two convolutions over five words, scores summed over the words. No part of it guides.

    Raises:
        Refused: in the texts that it learns from each label has but one value.
    """

    def __init__(self, data: Corpus, optim: Mapping[str, Any], width: int = 96, model_seed: int = 0, version: int = 1):
        super().__init__(data, optim, model_seed)
        self.labels = Labels(data.splits["train"])
        if not self.labels:
            raise Refused(f"attribute: in the {len(data.splits['train'])} texts that its judge learns from, each label "
                          "has one value only, so there is nothing to tell apart; more texts are needed")  # fmt: skip
        self.words = nn.Embedding(len(data.vocabulary), width)
        self.near = nn.ModuleList(nn.Conv1d(width, width, kernel_size=5, padding=2) for _ in range(2))
        self.score = nn.Linear(width, len(self.labels))

    def collate(self, indices: list[int]) -> tuple[Tensor, list[list[tuple[str, str]]]]:
        examples = [self.corpus.splits["train"][i] for i in indices]
        longest = 2 + max(len(example.words) for example in examples)
        return cropped(self.corpus.ids["train"][indices], longest), [self._pairs(example) for example in examples]

    def _pairs(self, example: Example) -> list[tuple[str, str]]:
        return [pair for pair in example.labels.items() if pair in self.labels.numbers]

    def forward(self, ids: Tensor) -> Tensor:
        """Log-probabilities of every value, ids [B L] → [B K]."""
        there = (ids != PAD)[:, None]
        h = self.words(ids).transpose(1, 2) * there
        for near in self.near:
            h = h + nn.functional.gelu(near(h)) * there
        return self.labels.log_probs(self.score((h * there).sum(2)) / 4)  # sums over some twenty words

    def losses(self, batch: tuple[Tensor, list[list[tuple[str, str]]]]) -> dict[str, Tensor]:
        ids, rows = batch
        kept = rand(ids) > FORGOTTEN
        return {"nll": self.labels.loss(self(torch.where(kept | (ids == PAD), ids, UNK)), rows)}

    @torch.inference_mode()
    def judge(self, texts: Sequence[Sequence[str]], batch_size: int = 256) -> list[dict[str, dict[str, float]]]:
        """For each text label → value → probability."""
        self.eval()
        ids = torch.stack([self.corpus.vocabulary.encode(text, self.corpus.length) for text in texts])
        probs = torch.cat([self(part.to(self.device)).exp().cpu() for part in ids.split(batch_size)]).tolist()
        return [
            {label: {value: row[self.labels.numbers[label, value]] for value in values}
             for label, values in self.labels.values.items()}
            for row in probs
        ]  # fmt: skip

    def quality(self, corpus: Corpus) -> Mapping[str, Any]:
        """Accuracy on held-out texts, label by label."""
        examples = [example for example in corpus.splits["test"] if example.labels.keys() & self.labels.values.keys()]
        judged = self.judge([example.words for example in examples]) if examples else []
        found: dict[str, list[bool]] = {}
        for example, said in zip(examples, judged, strict=True):
            for label in example.labels.keys() & said.keys():
                found.setdefault(label, []).append(likeliest(said[label]) == example.labels[label])
        return {f"{label}_accuracy": interval.measure(right, interval.SHARE) for label, right in found.items()}


def likeliest(probs: Mapping[str, float]) -> str:
    return max(probs, key=probs.__getitem__)
