"""The embedded corpus: reproducible, disjoint, and true in every annotation that the controls are judged by."""

import math
import random
from collections import Counter
from itertools import islice

import pytest
from nltk import Tree

from diffcontrol.data.corpus import SPLITS, Example
from diffcontrol.data.lexicon import TONES
from diffcontrol.data.restaurants import Restaurants, describe

UPOS = {
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
    *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
}


@pytest.fixture(scope="module")
def corpus() -> Restaurants:
    return Restaurants(size=6000, dev=300, test=700)


@pytest.fixture(scope="module")
def trees(corpus: Restaurants) -> list[Tree]:
    return [Tree.fromstring(e.tree) for e in corpus.examples[:3000]]


def mentioned(words: tuple[str, ...], forms: dict[str, list[str]]) -> set[str]:
    """Values whose form is in the text as whole tokens; a form inside a longer form of another value counts not."""
    spans = []
    text = f" {' '.join(words)} "
    for value, ways in forms.items():
        for form in (f for f in {*ways, value} if f" {f} " in text):
            wanted = tuple(form.split())
            starts = range(len(words) - len(wanted) + 1)
            spans += [(i, i + len(wanted), value) for i in starts if words[i : i + len(wanted)] == wanted]
    return {v for a, b, v in spans if not any(c <= a and b <= d and d - c > b - a for c, d, _ in spans)}


def test_the_same_arguments_give_the_same_corpus_and_another_seed_another():
    one, two, other = (Restaurants(size=200, dev=20, test=20, seed=seed) for seed in (3, 3, 4))
    assert [one.read(s) for s in SPLITS] == [two.read(s) for s in SPLITS]
    assert one.digest == two.digest != other.digest


def test_a_seed_writes_the_texts_it_always_wrote():
    """Trained models are stored under the digest: a change to the rules that changes a text orphans them all."""
    assert Restaurants(size=200, dev=20, test=20, seed=3).digest == "de91a47e373debd5"


def test_a_limit_leaves_out_test_texts_and_changes_no_model():
    whole, less = Restaurants(size=200, dev=20, test=20), Restaurants(size=200, dev=20, test=20, limit={"test": 5})
    assert less.splits["train"] == whole.splits["train"] and less.digest == whole.digest
    assert less.splits["test"] == whole.splits["test"][::4] and len(less.splits["dev"]) == 20


def test_splits_have_the_sizes_asked_for_and_share_no_text(corpus: Restaurants):
    assert [len(corpus.read(s)) for s in SPLITS] == [6000, 300, 700]
    assert len({e.words for s in SPLITS for e in corpus.read(s)}) == 7000


def test_texts_fit_their_positions_and_differ_in_length(corpus: Restaurants):
    lengths = Counter(len(e.words) for e in corpus.examples)
    assert max(lengths) + 2 <= corpus.length
    assert min(lengths) <= 6 and max(lengths) > 30
    short = Restaurants(size=100, dev=0, test=0, length=12)
    assert max(len(e.words) for e in short.examples) <= 10


def test_asking_for_more_texts_than_there_are_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="only .* found; ask for fewer"):
        _ = Restaurants(size=100, length=6, dev=0, test=0).examples
    with pytest.raises(ValueError, match="no split 'valid'"):
        Restaurants(size=1, dev=0, test=0).read("valid")
    with pytest.raises(ValueError, match="size, dev and test"):
        Restaurants(size=-1)


def test_trees_are_of_the_words_and_tags_of_the_text(corpus: Restaurants, trees: list[Tree]):
    for example, tree in zip(corpus.examples, trees, strict=False):
        assert tree.label() == "TOP" and all(sentence.label() in ("S", "SINV") for sentence in tree)
        assert tuple(tree.leaves()) == example.words
        assert tuple(tag for _, tag in tree.pos()) == example.tags
        assert len(example.universal) == len(example.words) and set(example.universal) <= UPOS


def test_universal_tags_tell_auxiliaries_and_conjunctions_from_words_that_look_alike(corpus: Restaurants):
    of: dict[str, set[str]] = {}
    for example in corpus.examples:
        for word, tag in zip(example.words, example.universal, strict=True):
            of.setdefault(word, set()).add(tag)
    assert of["is"] == of["are"] == of["does"] == {"AUX"} and of["has"] == {"AUX", "VERB"}
    assert of["although"] == of["if"] == {"SCONJ"} and of["near"] == {"ADP"} and of["not"] == of["n't"] == {"PART"}


def test_a_and_an_agree_with_the_next_word(corpus: Restaurants):
    for example in corpus.examples:
        for article, following in zip(example.words, example.words[1:], strict=False):
            if article in ("a", "an"):
                sounded = following[0].lower() in "aeiou" and not following.startswith("one")
                assert (article == "an") == sounded, " ".join(example.words)


def test_the_kinds_of_clauses_all_occur_in_more_than_a_hundredth_of_the_texts(trees: list[Tree]):
    def parts(tree: Tree) -> list[str]:
        return [part.label() for part in tree if isinstance(part, Tree)]

    def participle(tag: str):
        return lambda t: t.label() == "VP" and parts(t)[0] == tag

    def fronted(label: str):
        return lambda t: t.label() == "S" and parts(t)[:2] == [label, ","]

    kinds = {
        "subordinate": lambda t: t.label() == "SBAR" and parts(t)[0] == "IN",
        "relative": lambda t: t.label() == "SBAR" and parts(t)[0].startswith("WH"),
        "participial": participle("VBG"),
        "passive": lambda t: t.label() == "VP" and t[0].leaves()[0] == "is" and participle("VBN")(t[-1]),
        "existential": lambda t: t.label() == "EX",
        "fronted PP": fronted("PP"),
        "fronted participle": fronted("S"),
        "imperative": participle("VB"),
        "negation": lambda t: t.label() == "VP" and len(t) > 1 and t[1].leaves()[0] in ("not", "n't"),
        **{f"joined {x}": lambda t, x=x: parts(t)[::2] == [x, x] and t.label() == x for x in ("VP", "NP", "ADJP")},
        "joined S": lambda t: parts(t)[:4] == ["S", ",", "CC", "S"],
    }
    for kind, found in kinds.items():
        share = sum(any(found(t) for t in tree.subtrees()) for tree in trees) / len(trees)
        assert share > (0.003 if kind in ("joined NP", "joined ADJP") else 0.01), (kind, share)
    assert 0.2 < sum(len(tree) == 2 for tree in trees) / len(trees) < 0.7  # texts of two sentences


def test_what_a_text_says_is_found_in_it_and_nothing_else():
    """Strict scoring trusts the forms: they find every field said, and never another value or an unsaid field."""
    unsaid = 0
    for example, said in islice(describe(random.Random(1)), 2000):
        assert 1 <= len(said) <= 6 and said <= set(example.fields)
        for field, forms in Restaurants.forms.items():
            expected = {example.fields[field]} if field in said else set()
            assert mentioned(example.words, forms) == expected, (field, " ".join(example.words))
        unsaid += len(example.fields) > len(said)
    assert 200 < unsaid < 1000  # a minority of texts keeps something to itself, so that "known" is not "said"


def test_forms_belong_to_one_value_of_one_field():
    owner: dict[str, tuple[str, str]] = {}
    for field, values in Restaurants.forms.items():
        for value, ways in values.items():
            for form in {value, *ways}:
                assert owner.setdefault(form, (field, value)) == (field, value), form
    for form, (field, _) in owner.items():
        for longer, (other, _) in owner.items():
            assert field == other or f" {form} " not in f" {longer} ", (form, longer)


def test_no_word_settles_the_tone(corpus: Restaurants):
    seen: dict[str, Counter[str]] = {}
    for example in corpus.examples:
        for word in set(example.words):
            seen.setdefault(word, Counter())[example.labels["tone"]] += 1
    for word, tones in seen.items():
        n = sum(tones.values())
        if n >= 100:
            share = max(tones.values()) / n
            assert set(tones) == set(TONES) and share - 2 * math.sqrt(share * (1 - share) / n) < 0.75, (word, tones)


def test_words_together_tell_the_tone_mostly(corpus: Restaurants):
    """Naive Bayes on the training split, judged on the test split: well above any one word, well below certainty."""
    words = {tone: Counter[str]() for tone in TONES}
    for example in corpus.read("train"):
        words[example.labels["tone"]].update(example.words)
    total = {tone: sum(words[tone].values()) + len(corpus.vocabulary) for tone in TONES}

    def guess(example: Example) -> str:
        return max(TONES, key=lambda t: sum(math.log((words[t][w] + 1) / total[t]) for w in example.words))

    test = corpus.read("test")
    assert 0.75 < sum(guess(e) == e.labels["tone"] for e in test) / len(test) < 0.95
