import math

import pytest
import torch

from diffcontrol.metrics import overlap as module
from diffcontrol.metrics.overlap import cider, overlap

TEXTS = ["the cat sat on a mat .", "a dog", "he bought new toys for the kids .", "zebra", ""]
REFERENCES = [
    ["the cat sat on the mat .", "a cat was on the mat ."], ["a big dog barked"],
    ["the smiths bought toys for the kids .", "they had bought a lot of presents ."], ["the cat sat"], ["a"],
]  # fmt: skip


def words(texts):
    return [text.split() for text in texts]


def test_cider_is_that_of_pycocoevalcap():
    """Its CiderScorer(n=4, sigma=6) on the first four, over ten."""
    found = cider(words(TEXTS[:4]), [words(group) for group in REFERENCES[:4]])
    assert found == pytest.approx([0.38602367658595643, 0.1384562219596209, 0.3015453252728013, 0.0])


def test_the_reference_itself_shares_everything_and_nothing_shares_nothing():
    found = overlap(words(["a big dog barked", "very cheap", "zebra", ""]), [words(g) for g in (
        ["no", "a big dog barked"], ["very cheap"], ["a cat"], ["a cat"])])  # fmt: skip
    assert set(found) == {"bleu_4", "rouge_l", "cider"}
    assert found["bleu_4"] == pytest.approx([1, 1, 0, 0]) and found["rouge_l"] == pytest.approx([1, 1, 0, 0])
    assert found["cider"][1] > 0.3 and found["cider"][2:] == [0, 0]


def test_bleu_of_a_text_without_four_words_in_common_is_that_of_the_words_it_shares():
    """Lin & Och 2004: one is added to the matches and counts of 2-, 3- and 4-grams."""
    (found,) = overlap(words(["the cheap pub near town"]), [words(["the cheap pub by the water"])])["bleu_4"]
    precisions = [3 / 5, (2 + 1) / (4 + 1), (1 + 1) / (3 + 1), (0 + 1) / (2 + 1)]
    assert found == pytest.approx(math.prod(precisions) ** (1 / 4) * math.exp(1 - 6 / 5))


def test_a_text_in_any_script_shares_everything_with_itself():
    found = overlap(words(["очень хороший café"]), [words(["Очень хороший café ."])])
    assert found["rouge_l"] == [1]


def test_cider_is_the_same_however_many_texts_are_compared_with_one_target():
    texts, golds = words(TEXTS[:3]), [words(group) for group in REFERENCES[:3]]
    assert cider([t for t in texts for _ in range(3)], [g for g in golds for _ in range(3)])[::3] == cider(texts, golds)


def test_bert_score_reads_its_model_once_and_takes_the_best_reference_of_each_text(monkeypatch):
    calls = []

    def score(texts, references, **_):
        calls.append(len(texts))
        return {"f1": torch.tensor([float(r == t) + len(r) / 100 for t, r in zip(texts, references, strict=True)])}

    monkeypatch.setattr("torchmetrics.functional.text.bert_score", score)
    found = module.bert_score(["a b", "c"], [["a", "a b", "abc"], ["dd"]], "made up")
    assert found == pytest.approx([1.03, 0.02]) and calls == [4]


def test_bert_score_is_left_out_where_its_model_is_not_to_be_had(monkeypatch, caplog):
    monkeypatch.setattr(module, "_told", set())
    for _ in range(2):
        assert "bert_score" not in overlap([["a"]], [[["a"]]], bert="/nowhere/no-such-model")
    assert len([record for record in caplog.records if "BERTScore is left out" in record.message]) == 1
