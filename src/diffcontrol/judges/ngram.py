"""A judge of fluency that counts: an interpolated Kneser–Ney n-gram model of the training texts.

Kneser & Ney 1995, interpolated as in Chen & Goodman 1999, *An Empirical Study of Smoothing Techniques for Language
Modeling*, §3 and §4.1.6 (one discount an order, estimated as n1 / (n1 + 2 n2)). It sees four words back and shares
nothing with any network, so what it and a neural judge agree on is not the taste of one architecture.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from typing import ClassVar

from torch import Tensor

from diffcontrol.allowed import Rules, whole
from diffcontrol.data.corpus import Corpus
from diffcontrol.recipe import Shared
from diffcontrol.text import PAD, START

Gram = tuple[int, ...]
NEVER_FOLLOW = (START, PAD)
WITHOUT_SINGLES = 0.5  # the discount where nothing was seen once, so that something is left for what was not seen


class Order:
    """The n-grams of one length: their counts, and the sums over all words that follow a context."""

    def __init__(self, counts: Counter[Gram]):
        self.counts = counts
        self.total: Counter[Gram] = Counter()  # context → sum of the counts of what follows
        self.kinds: Counter[Gram] = Counter()  # context → number of different words that follow
        for gram, count in counts.items():
            self.total[gram[:-1]] += count
            self.kinds[gram[:-1]] += 1
        often = Counter(counts.values())
        self.discount = often[1] / (often[1] + 2 * often[2]) if often[1] else WITHOUT_SINGLES


class KneserNey(Shared):
    """p(word | the order − 1 words before it). It is fitted when first asked, in a few seconds."""

    allowed: ClassVar[Rules] = {"order": whole(1)}

    def __init__(self, data: Corpus, order: int = 5):
        self.corpus, self.order = data, order
        self.outcomes = len(data.vocabulary) - len(NEVER_FOLLOW)  # words, UNK and END
        self.probability = cache(self._probability)

    @cached_property
    def orders(self) -> list[Order]:
        """Of 1, 2, … words. The longest have the counts of the texts, and so has what begins with START; all others
        count how many different words stand before them."""
        texts = [ids_of(row) for row in self.corpus.ids["train"]]
        counts = [Counter(grams(texts, self.order))]
        for size in range(self.order - 1, 0, -1):
            fewer = Counter(gram[1:] for gram in counts[0])
            if size > 1:
                fewer.update(tuple(ids[:size]) for ids in texts if len(ids) >= size)
            counts.insert(0, fewer)
        return [Order(found) for found in counts]

    def _probability(self, word: int, context: Gram) -> float:
        """Of a word (not START, not PAD) after at most order − 1 others; the recursion ends at an even distribution."""
        own = self.orders[len(context)]
        shorter = self.probability(word, context[1:]) if context else 1 / self.outcomes
        if not (total := own.total[context]):
            return shorter
        count = own.counts[(*context, word)]
        return (max(count - own.discount, 0.0) + own.discount * own.kinds[context] * shorter) / total

    def nll(self, texts: Sequence[Sequence[str]]) -> tuple[list[float], list[int]]:
        """Nats of each text, and the words and END they are the sum over.

        Unknown words count as UNK; an empty text is its END; a text is cut at the corpus' length.
        """
        rows = [ids_of(self.corpus.vocabulary.encode(text, self.corpus.length)) for text in texts]
        back = self.order - 1
        nats = [
            -sum(math.log(self.probability(row[i], tuple(row[max(0, i - back) : i]))) for i in range(1, len(row)))
            for row in rows
        ]
        return nats, [len(row) - 1 for row in rows]


def ids_of(row: Tensor) -> list[int]:
    """START words END, without the PAD that fills it."""
    return [i for i in row.tolist() if i != PAD]


def grams(texts: Iterable[Sequence[int]], size: int) -> Iterator[Gram]:
    """All runs of `size` ids; START alone is none."""
    for ids in texts:
        yield from (tuple(ids[i : i + size]) for i in range(size == 1, len(ids) - size + 1))
