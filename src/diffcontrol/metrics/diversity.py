"""How varied texts are: distinct-n, self-BLEU, entropy, length.

Perplexity can be bought with short, plain, repeated text.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from diffcontrol.metrics import interval
from diffcontrol.metrics.interval import Measure

Text = Sequence[str]
REFERENCES = 100  # self-BLEU grows with the number of references, so it is fixed
SIBLINGS = 10  # samples of one target that are compared with each other
_SMOOTH = SmoothingFunction().method1  # else a text that shares no 4-gram with any other counts as sharing nothing


def ngrams(text: Text, n: int) -> list[tuple[str, ...]]:
    return list(zip(*(text[i:] for i in range(n)), strict=False))


def entropy(counts: Counter[str]) -> float:
    """Shannon entropy of words that stand so often in some texts, in bits a word: of the relative frequencies as they
    are, so that it is too low for few texts, by the same amount for equally many. It falls where words are repeated."""
    size = counts.total()
    return math.log2(size) - sum(count * math.log2(count) for count in counts.values()) / size if size else 0.0


def self_bleu(texts: Sequence[Text], limit: int = REFERENCES) -> list[float]:
    """BLEU-4, 0..1, of each text against the others; of more than `limit` texts, a fixed random choice is scored."""
    if len(texts) > limit:
        texts = random.Random(0).sample(list(texts), limit)
    words = [list(text) for text in texts]
    return [_bleu(words[:i] + words[i + 1 :], text) for i, text in enumerate(words)]


def _bleu(references: list[list[str]], text: list[str]) -> float:
    if not references:
        return 0.0
    if not text:  # an empty text is the same as another empty one, and shares nothing with words
        return float([] in references)
    return float(sentence_bleu(references, text, smoothing_function=_SMOOTH, auto_reweigh=True))


def measure(groups: Sequence[Sequence[Text]]) -> dict[str, Measure]:
    """`distinct_1`, `distinct_2`, `self_bleu`, `word_entropy` (in bits) and `length` of the texts written for each
    target.

    Distinct-n, entropy and self-BLEU take one text a target, so a method with 50 samples a target stands on the same
    scale as the gold sentences; the first two are then averaged over samples. `self_bleu_within`, present if there are
    several samples a target, compares the samples of a target with each other: it shows collapse onto one answer. A
    single text is compared with nothing, and has no `self_bleu`.

    Raises:
        ValueError: no targets, or a target without texts.
    """
    if not groups or not all(groups):
        raise ValueError("diversity: every target needs at least one text")
    length = interval.measure([float(np.mean([len(text) for text in group])) for group in groups])
    several = [group for group in groups if len(group) > 1]
    apart = groups if len(groups) > 1 else [[text] for text in groups[0]]  # one target: its samples are all there is
    compared = {"self_bleu": interval.measure(self_bleu([group[0] for group in apart]))} if len(apart) > 1 else {}
    measures = {
        "distinct_1": _distinct_measure(apart, 1),
        "distinct_2": _distinct_measure(apart, 2),
        **compared,
        "word_entropy": _entropy_measure(apart),
        "length": length,
    }
    if several:
        measures["self_bleu_within"] = _within(several)
    return measures


def _within(groups: Sequence[Sequence[Text]]) -> Measure:
    """Mean self-BLEU among the first samples of a target; at the limits it costs what `self_bleu` costs."""
    chosen = groups if len(groups) <= REFERENCES else random.Random(0).sample(list(groups), REFERENCES)
    return interval.measure([float(np.mean(self_bleu(group[:SIBLINGS]))) for group in chosen])


def _distinct_measure(groups: Sequence[Sequence[Text]], n: int) -> Measure:
    """Distinct-n (distinct n-grams over all n-grams, 0..1) of the i-th samples of all targets, averaged over i, with a
    jackknife interval over targets. It falls as texts are added: compare equal numbers only."""
    rounds = min(len(group) for group in groups)
    values, left_out = [], np.zeros(len(groups))
    for i in range(rounds):
        counts = [Counter(ngrams(group[i], n)) for group in groups]
        total = Counter(chain.from_iterable(count.elements() for count in counts))
        size = total.total()
        values.append(len(total) / size if size else 0.0)
        for k, count in enumerate(counts):
            own = sum(total[gram] == times for gram, times in count.items())  # n-grams that vanish with this target
            rest = size - count.total()
            left_out[k] += (len(total) - own) / rest / rounds if rest else 0.0
    return interval.jackknife(float(np.mean(values)), left_out, bounds=(0.0, 1.0))


def _entropy_measure(groups: Sequence[Sequence[Text]]) -> Measure:
    """Entropy of the i-th samples of all targets, averaged over i, with a jackknife interval over targets."""
    rounds = min(len(group) for group in groups)
    values, left_out = [], np.zeros(len(groups))
    for i in range(rounds):
        counts = [Counter(group[i]) for group in groups]
        total = Counter(chain.from_iterable(group[i] for group in groups))
        values.append(entropy(total))
        for k, count in enumerate(counts):
            left_out[k] += entropy(total - count) / rounds
    return interval.jackknife(float(np.mean(values)), left_out, bounds=(0.0, math.inf))
