"""How much of a reference a text shares: BLEU-4, ROUGE-L, CIDEr, BERTScore, one value a text.

BLEU-4 is of one text, so that a mean has an interval; the paper's 7.1 is that of all texts together. It is smoothed, as
few single texts share four words in a row: one is added to the counts of bigrams and longer (Lin & Och 2004). Of texts
of fewer than four words it counts the n-grams that they have.
ROUGE-L is the F-measure (Lin 2004, β = 1; e2e-metrics has 1.2) with the best of the references, of words in lower case
without punctuation.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

import torch
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from diffcontrol.metrics.diversity import ngrams

Text = Sequence[str]
log = logging.getLogger(__name__)
_SMOOTH = SmoothingFunction().method2
_told: set[str] = set()  # models whose absence was mentioned


def overlap(
    texts: Sequence[Text], references: Sequence[Sequence[Text]], bert: str | None = None
) -> dict[str, list[float]]:
    """Scores by name, each one value a text. `bert`: the model of BERTScore; left out where it is not available."""
    from torchmetrics.functional.text import rouge_score  # slow to import

    joined = [" ".join(text) for text in texts]
    golds = [[" ".join(reference) for reference in group] for group in references]
    pairs = list(zip(joined, golds, strict=True))
    scores = {
        "bleu_4": [_bleu(text, group) for text, group in zip(texts, references, strict=True)],
        "rouge_l": [
            float(
                rouge_score(text, [group], rouge_keys="rougeL", accumulate="best", normalizer=_plain)["rougeL_fmeasure"]
            )
            if text
            else 0.0
            for text, group in pairs
        ],
        "cider": cider(texts, references),
    }
    return scores | ({"bert_score": found} if bert and (found := bert_score(joined, golds, bert)) else {})


def _bleu(text: Text, group: Sequence[Text]) -> float:
    """Of n-grams up to 4, or as many words as the text or all of its references have, if fewer: else no short text
    could be right."""
    if not text or not any(group):
        return 0.0
    n = min(4, len(text), max(map(len, group)))
    return float(sentence_bleu(list(group), text, weights=(1 / n,) * n, smoothing_function=_SMOOTH))


def _plain(text: str) -> str:
    """Lower case without punctuation, in any script; what torchmetrics does by itself drops all but a-z and 0-9."""
    return re.sub(r"[\W_]+", " ", text.lower())


def cider(
    texts: Sequence[Text], references: Sequence[Sequence[Text]], longest: int = 4, sigma: float = 6.0
) -> list[float]:
    """CIDEr-D (Vedantam et al. 2015) as in pycocoevalcap, whose published numbers are 100 × a tenth of its scale:
    here 1 is 10 there. Words are not stemmed, as there. Document frequencies are those of the references given, where
    those of one target count once, however many texts are compared with them."""
    frequency: Counter[tuple[str, ...]] = Counter()
    documents = {tuple(map(tuple, group)) for group in references}
    for group in documents:
        frequency.update({gram for text in group for n in range(1, longest + 1) for gram in ngrams(text, n)})
    log_count = math.log(max(len(documents), 2))

    def vector(text: Text, n: int) -> dict[tuple[str, ...], float]:
        return {g: k * (log_count - math.log(max(1, frequency[g]))) for g, k in Counter(ngrams(text, n)).items()}

    def norm(v: dict) -> float:
        return math.sqrt(sum(value * value for value in v.values()))

    def likeness(text: Text, reference: Text) -> float:
        total = 0.0
        for n in range(1, longest + 1):
            a, b = vector(text, n), vector(reference, n)
            size = norm(a) * norm(b)
            total += sum(min(a[g], b[g]) * b[g] for g in a.keys() & b.keys()) / size if size else 0.0
        return total / longest * math.exp(-((len(text) - len(reference)) ** 2) / (2 * sigma**2))

    return [
        sum(likeness(text, reference) for reference in group) / len(group) if group else 0.0
        for text, group in zip(texts, references, strict=True)
    ]


def bert_score(texts: Sequence[str], references: Sequence[Sequence[str]], model: str) -> list[float] | None:
    """F of BERTScore (Zhang et al. 2020), the best of the references; None, said once, where there is no such model."""
    from torchmetrics.functional.text import bert_score as score

    try:
        pairs = [(text, reference) for text, group in zip(texts, references, strict=True) for reference in group]
        # in one call, as each reads the model from the disk
        scores = score([text for text, _ in pairs], [reference for _, reference in pairs], model_name_or_path=model,
                       truncation=True)["f1"]  # fmt: skip
        each = iter(torch.as_tensor(scores).reshape(-1).tolist())
        return [max(islice(each, len(group))) for group in references]
    except (OSError, ValueError, ModuleNotFoundError) as error:
        if model not in _told:
            log.warning("BERTScore is left out: its model %s is not available (%s)", model, str(error).splitlines()[0])
        _told.add(model)
        return None
