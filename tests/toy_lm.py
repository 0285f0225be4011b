"""A causal LM so small that sums over all its texts can be written down."""

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN, CausalLM
from diffcontrol.data.corpus import Example
from diffcontrol.method import Method
from diffcontrol.task import Request
from diffcontrol.text import END, START
from tests.fakes import GPT2, OPTIM, FakeCorpus

LETTERS, MOST = "abc", 4


class Letters(FakeCorpus):
    """Texts of at most MOST letters."""

    def __init__(self):
        super().__init__(n=8, length=MOST + 2)

    def _example(self, drawn):
        return Example(tuple(LETTERS))


class Bigrams(nn.Module):
    """The next word by the last one alone, in place of a causal LM's network."""

    def __init__(self, size: int):
        super().__init__()
        self.table = nn.Parameter(torch.randn(size, size))

    def forward(self, ids: Any, past_key_values: Any = None, use_cache: bool = True) -> Any:
        return SimpleNamespace(logits=self.table[ids])


def toy_lm(seed: int) -> CausalLM:
    torch.manual_seed(seed)
    lm = CausalLM(Letters(), GPT2, OPTIM).eval()
    lm.network = Bigrams(len(lm.corpus.vocabulary))
    return lm


def texts() -> list[tuple[str, ...]]:
    return [text for n in range(MOST + 1) for text in itertools.product(LETTERS, repeat=n)]


def posterior(lm: CausalLM, obeys: Callable[[str], float], temperature: float = 1.0) -> tuple[dict[str, float], float]:
    """p(text | it obeys) of all texts, and p(it obeys)."""
    ids, table = lm.corpus.vocabulary.ids, lm.network.table.detach().clone()
    table[:, list(NEVER_WRITTEN)] = -torch.inf
    log_p = (table / temperature).log_softmax(1)
    found = {}
    for text in texts():
        numbers = [START, *(ids[word] for word in text), END]
        p = sum(log_p[one, two].item() for one, two in itertools.pairwise(numbers))
        found["".join(text)] = math.exp(p) * obeys("".join(text))
    total = sum(found.values())
    return {text: p / total for text, p in found.items()}, total


def written(method: Method, n: int) -> list[str]:
    ((*found,),) = method.generate([Request({"t": "red"})], n)
    return ["".join(text) for text in found]


def distance(found: list[str], exact: dict[str, float]) -> float:
    """Total variation between texts and what they should be samples of."""
    return sum(abs(found.count(text) / len(found) - p) for text, p in exact.items()) / 2
