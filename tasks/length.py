"""The text is to have this many words (paper §6.1, "length").

    target 5      "the pub is cheap ."           strict 1, released 1, within_2 1
                  "the pub is very cheap ."      strict 0, released 0, within_2 1
                  "the pub"                      strict 0, released 0, within_2 0

*strict* and *released*: exactly that many (the released scorer; eval_control.py has the paper's ±2 commented out, which
stands beside it as *within_2*). Punctuation marks are words, START and END are none: the paper's lengths of 10 to 40
count both, and the newline that ends its texts.

Guided diffusion is told in one of three ways: `control=anchor` fixes START, END and PAD at their places,
`control=pull` pulls x̂₀ towards START and END (the paper), `control=classifier` follows a head.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.automaton import Automaton, Some, anything, pattern
from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.layout import Layout, of_text
from diffcontrol.refused import Refused
from diffcontrol.rules import Ends, Rule
from diffcontrol.task import ControlTask, Head, Mark, counted
from diffcontrol.text import Vocabulary


class Length(ControlTask):
    """Targets and annotations are numbers of words."""

    def __init__(self, data: Corpus):
        self.corpus, self.most = data, data.length - 2  # START and END

    def annotate(self, example: Example) -> int:
        return len(example.words)

    def targets(self, annotation: int) -> list[int]:
        return [annotation] if 1 <= annotation <= self.most else []

    def parse(self, target: Any) -> int:
        if isinstance(target, str) and (number := counted(target)) is not None:
            target = number
        if isinstance(target, bool) or not isinstance(target, int) or not 1 <= target <= self.most:
            raise Refused(f"length: {target!r} is not a target; write a number of words from 1 to {self.most}")
        return target

    def layouts(self, target: int) -> list[Layout]:
        return [of_text({}, target + 1, self.corpus.length)]

    def head(self, width: int) -> "EndHead":
        return EndHead(width)

    def words(self, target: int) -> int:
        return target

    def serialize(self, target: int) -> list[str]:
        return [str(target)]

    def rule(self, vocabulary: Vocabulary) -> Callable[[int], Rule]:
        """END after the last word and not before: exact, without a model of anything."""
        return lambda target: Ends(target, vocabulary)

    def automaton(self, vocabulary: Vocabulary) -> Callable[[int], Automaton]:
        size = len(vocabulary)
        return lambda target: pattern([Some(anything(size), target, target)], size)

    def classes(self) -> list[int]:
        return list(range(1, self.most + 1))

    def success(self, texts: Sequence[Sequence[str]], targets: Sequence[int],
                judges: Mapping[str, Any] = {}) -> Mapping[str, list[float]]:  # fmt: skip
        off = [abs(len(words) - target) for words, target in zip(texts, targets, strict=True)]
        exact = [float(n == 0) for n in off]
        return {"strict": exact, "released": exact, "within_2": [float(n <= 2) for n in off]}

    def marks(self, texts: Sequence[Sequence[str]], targets: Sequence[int],
              judges: Mapping[str, Any] = {}) -> list[list[Mark]]:  # fmt: skip
        sizes = [(len(words), target) for words, target in zip(texts, targets, strict=True)]
        return [[Mark(0, n, n == target, f"{n} words")] if n else [] for n, target in sizes]


class EndHead(Head):
    """log p(END stands after the last word): one softmax over the positions."""

    ends = True

    def __init__(self, width: int):
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def log_prob(self, hidden: Tensor, targets: Sequence[int]) -> Tensor:
        ends = torch.tensor([min(n + 1, hidden.shape[1] - 1) for n in targets], device=hidden.device)
        return self.score(hidden)[..., 0].float().log_softmax(-1).gather(1, ends[:, None])[:, 0]

    def loss(self, hidden: Tensor, annotations: Sequence[int]) -> Tensor:
        return -self.log_prob(hidden, annotations).mean()
