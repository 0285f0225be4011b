"""SpanScorer: a label, or none, for every pair of positions of a text; the labels of a pair sum to one.

Locally normalised over the chart, as in the released classifier (modeling_bert.py, tree head): Diffusion-LM's score of
a tree is the sum over all cells, those past the end of the text among them, so that it also fixes the length.

B batch · L positions · H hidden width · P = L (L + 1) / 2 cells, row by row · K labels, none first
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

Span = tuple[int, int, str]  # first position, last position, label
NONE, IGNORED = 0, -100


class SpanScorer(nn.Module):
    """log p(label | hidden states at both ends, their distance).

    Two projections of the hidden states are added, one for either end, so that each cell costs only `size` numbers;
    the released head runs 1536 through a layer of 768.
    """

    def __init__(self, width: int, length: int, labels: Sequence[str], size: int = 64):
        super().__init__()
        self.numbers = {label: i for i, label in enumerate(labels, 1)}
        self.ends = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 2 * size))
        self.distance = nn.Embedding(length, size)
        self.label = nn.Linear(size, len(labels) + 1)
        nn.init.normal_(self.distance.weight, std=0.1)
        with torch.no_grad():
            self.label.bias[NONE] += 4.0  # most pairs are no constituent

    def forward(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of every cell, hidden [B L H] → [B P K]."""
        first, last = torch.triu_indices(hidden.shape[1], hidden.shape[1], device=hidden.device)
        left, right = self.ends(hidden).chunk(2, -1)
        return self._labels(left[:, first] + right[:, last], last - first)

    def at(self, hidden: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Log-probabilities of one cell a row, hidden [B L H], first and last [B] → [B K]."""
        rows = torch.arange(len(hidden), device=hidden.device)
        left, right = self.ends(torch.stack([hidden[rows, first], hidden[rows, last]])).chunk(2, -1)
        return self._labels(left[0] + right[1], last - first)

    def _labels(self, ends: Tensor, distance: Tensor) -> Tensor:
        cells = nn.functional.gelu(ends + self.distance(distance))
        return self.label(cells).float().log_softmax(-1)

    def chart(self, rows: Sequence[Iterable[Span]], length: int, device: torch.device | None = None) -> Tensor:
        """Number of the label of every cell, [B P]: NONE where no span is, IGNORED where its label is not known.

        Spans that reach beyond `length` positions are left out.
        """
        table = torch.full((len(rows), length * (length + 1) // 2), NONE)
        for row, spans in enumerate(rows):
            inside = [span for span in spans if span[1] < length]
            if inside:
                table[row, [cell(first, last, length) for first, last, _ in inside]] = torch.tensor(
                    [self.numbers.get(label, IGNORED) for *_, label in inside]
                )
        return table.to(device)


def cell(first: int, last: int, length: int) -> int:
    """Where the pair of positions stands in a chart, row by row of its upper triangle."""
    return first * length - first * (first - 1) // 2 + last - first


def gathered(log_probs: Tensor, chart: Tensor) -> Tensor:
    """Sum of the log-probabilities that a chart names, [B P K], [B P] → [B]; ignored cells count nothing."""
    named = log_probs.gather(-1, chart.clamp(min=0)[..., None])[..., 0]
    return named.masked_fill(chart == IGNORED, 0.0).sum(-1)
