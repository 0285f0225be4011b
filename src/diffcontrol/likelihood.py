"""How likely texts are under a model that reads them from left to right: what such models share.

B batch · T positions of the longest text in it · V vocabulary
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from diffcontrol.data.corpus import Corpus
from diffcontrol.text import PAD, crop, lengths

BUCKET = 16  # batches sorted by length together


def cross_entropies(logits: Tensor, ids: Tensor) -> Tensor:
    """−log p of every word and END, 0 at PAD, from the logits of what follows each position but the last.

    Shapes: logits [B T−1 V], ids [B T] → [B T−1].
    """
    return cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=PAD, reduction="none")


def mean(negatives: Tensor, ids: Tensor) -> Tensor:
    """The mean over words and END of `negatives` [B T−1], those of the texts `ids` [B T]."""
    return negatives.sum() / (ids[:, 1:] != PAD).sum()


def summed(
    negatives: Callable[[Tensor], Tensor], texts: Sequence[Sequence[str]], corpus: Corpus, device: torch.device,
    batch_size: int,
) -> tuple[list[float], list[int], int]:  # fmt: skip
    """Nats of each text, the words and END they are the sum over, and the token evaluations that it took.

    negatives: ids [B T] → −log p of every word and END, 0 at PAD, [B T−1].
    """
    ids = torch.stack([corpus.vocabulary.encode(text, corpus.length) for text in texts])
    sums, evaluations = torch.zeros(len(ids), dtype=torch.float64), 0
    for rows in lengths(ids).argsort(stable=True).split(batch_size):
        found = negatives(crop(ids[rows]).to(device))
        sums[rows] = found.double().sum(1).cpu()
        evaluations += found.numel()
    return sums.tolist(), (lengths(ids) - 1).tolist(), evaluations
