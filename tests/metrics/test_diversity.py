import itertools
import random

import pytest

from diffcontrol.metrics import diversity


def words(text: str) -> list[str]:
    return text.split()


def invented(n: int, length: int = 25, seed: int = 0) -> list[list[str]]:
    rng = random.Random(seed)
    return [[f"w{int(rng.paretovariate(0.6)) % 300}" for _ in range(length)] for _ in range(n)]


def of(texts, name):
    """The mean of one measure of texts for as many targets."""
    return diversity.measure([[text] for text in texts])[name]["mean"]


def test_distinct_worked_by_hand():
    texts = [words("a b a b"), words("a c")]
    assert of(texts, "distinct_1") == pytest.approx(3 / 6)  # a b c of six words
    assert of(texts, "distinct_2") == pytest.approx(3 / 4)  # ab ba ac of ab ba ab ac


def test_distinct_without_ngrams_is_zero():
    assert of([words("one")], "distinct_2") == 0.0
    assert of([[]], "distinct_1") == 0.0


@pytest.mark.parametrize("text", ["the bar serves cheap italian food", "two words", "one"])
def test_identical_texts_have_self_bleu_one(text):
    assert diversity.self_bleu([words(text)] * 4) == pytest.approx([1.0] * 4)


def test_disjoint_texts_have_self_bleu_zero():
    assert diversity.self_bleu([words("a b c d e"), words("f g h i j"), words("k l m n o")]) == pytest.approx([0.0] * 3)


def test_entropy_worked_by_hand():
    assert of([words("a b"), words("c d")], "word_entropy") == pytest.approx(2.0)  # four words, equally often
    assert of([words("a a b c")], "word_entropy") == pytest.approx(1.5)  # 1/2 · 1 + 2 · 1/4 · 2
    assert of([words("a a a")], "word_entropy") == of([[]], "word_entropy") == 0.0


def test_the_interval_of_entropy_is_that_of_leaving_each_target_out():
    texts = invented(12)
    found = diversity.measure([[text] for text in texts])["word_entropy"]
    left_out = [of(texts[:k] + texts[k + 1 :], "word_entropy") for k in range(12)]
    middle = sum(left_out) / 12
    half = 1.96 * (11 / 12 * sum((value - middle) ** 2 for value in left_out)) ** 0.5
    assert found["ci95"] == pytest.approx([found["mean"] - half, found["mean"] + half])


def test_a_single_text_has_no_self_bleu():
    assert "self_bleu" not in diversity.measure([[words("a b c d")]])
    assert diversity.measure([[words("a b c d")] * 2])["self_bleu"]["mean"] == pytest.approx(1.0)


def test_self_bleu_of_nothing_to_compare():
    assert diversity.self_bleu([words("a b c d")]) == [0.0]
    assert diversity.self_bleu([[], words("a b c d")]) == [0.0, 0.0]


def test_self_bleu_is_bounded_in_work_and_repeatable(monkeypatch):
    compared = []
    monkeypatch.setattr(diversity, "sentence_bleu", lambda references, *_, **__: compared.append(len(references)) or 1)
    assert len(diversity.self_bleu(invented(3000))) == diversity.REFERENCES
    assert compared == [diversity.REFERENCES - 1] * diversity.REFERENCES
    monkeypatch.undo()
    assert diversity.self_bleu(invented(200), limit=20) == diversity.self_bleu(invented(200), limit=20)


def test_measure_covers_each_number_and_contains_its_mean():
    measures = diversity.measure([[text] for text in invented(40)])
    assert set(measures) == {"distinct_1", "distinct_2", "self_bleu", "word_entropy", "length"}
    for measure in measures.values():
        low, high = measure["ci95"]
        assert low <= measure["mean"] <= high
        assert measure["n"] == 40
    pairs = [pair for text in invented(40) for pair in itertools.pairwise(text)]
    assert measures["distinct_2"]["mean"] == pytest.approx(len(set(pairs)) / len(pairs))
    assert measures["length"] == {"mean": 25.0, "ci95": [25.0, 25.0], "n": 40}


def test_more_samples_a_target_do_not_move_the_scale():
    texts = invented(40)
    one = diversity.measure([[text] for text in texts])
    copies = diversity.measure([[text] * 3 for text in texts])
    for name in ("distinct_1", "distinct_2", "self_bleu", "word_entropy"):
        assert copies[name]["mean"] == pytest.approx(one[name]["mean"])
    assert copies["self_bleu_within"]["mean"] == pytest.approx(1.0)  # collapse shows here


def test_a_single_target_is_judged_by_its_samples():
    measures = diversity.measure([[words("a b c d e")] * 3])
    assert measures["self_bleu"]["mean"] == pytest.approx(1.0)
    assert measures["distinct_1"]["mean"] == pytest.approx(5 / 15)
    assert measures["length"]["n"] == 1


def test_empty_texts_are_counted_not_refused():
    measures = diversity.measure([[[]], [words("a b")]])
    assert measures["length"]["mean"] == 1.0
    assert measures["distinct_1"]["mean"] == 1.0


@pytest.mark.parametrize("groups", [[], [[]], [[words("a")], []]])
def test_a_target_without_texts_is_an_error(groups):
    with pytest.raises(ValueError, match="at least one text"):
        diversity.measure(groups)


def test_distinct_interval_matches_the_spread_of_fresh_draws():
    """The jackknife's width is right within a factor of two; a bootstrap would lie beside the value altogether."""
    drawn = [list(itertools.chain.from_iterable(invented(60, seed=s))) for s in range(60)]
    values = [len(set(text)) / len(text) for text in drawn]
    mean = sum(values) / len(values)
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    low, high = diversity.measure([[text] for text in invented(60, seed=99)])["distinct_1"]["ci95"]
    assert 0.5 < (high - low) / (2 * 1.96 * spread) < 2.0
