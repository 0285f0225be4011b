"""The judge of grammar: it accepts what the generator writes, refuses damaged texts, and agrees with a chart parser."""

import random
from collections.abc import Callable, Sequence

import nltk
import pytest

from diffcontrol.data.corpus import SPLITS
from diffcontrol.data.grammar import Grammar, parse_rules
from diffcontrol.data.part import Part
from diffcontrol.data.restaurants import GRAMMAR, Restaurants
from diffcontrol.judges.grammar import GrammarJudge, articles
from diffcontrol.syntax.treebank import Treebank
from diffcontrol.text import SPECIALS
from tests.fakes import FakeCorpus

Text = Sequence[str]


@pytest.fixture(scope="module")
def judge() -> GrammarJudge:
    return GrammarJudge(GRAMMAR)


@pytest.fixture(scope="module")
def texts() -> list[Text]:
    return [example.words for example in Restaurants(size=1600, dev=200, test=200, seed=5).examples]


def toy(text: str, values: dict[str, dict[str, str]] | None = None) -> GrammarJudge:
    ways = {s: {v: parse_rules(f"X: {o}", 1)["X"] for v, o in own.items()} for s, own in (values or {}).items()}
    return GrammarJudge(Grammar(parse_rules(text, 1), ways))


@pytest.mark.parametrize(("rules", "good", "bad"), [
    ("TEXT: 1 (S (NN x) (NN y))", ["x y"], ["", "x", "y", "y x", "x y x", "x x y"]),
    ("TEXT: 1 (S <MAYBE> (NN x) <MAYBE>)\nMAYBE: 1 | 1 (RB very)", ["x", "very x", "x very", "very x very"],
     ["", "very", "x x", "very very x"]),
    ("TEXT: 1 <MAYBE> <MAYBE>\nMAYBE: 1 | 1 (NN x)", ["x", "x x"], ["x x x"]),
    ("TEXT: 1 (S (NN x) <TEXT> (NN y)) | 1 (S (NN x) (NN y))", ["x y", "x x y y", "x x x y y y"], ["x x y", "x y y"]),
    ("TEXT: 1 (S (NN x) <TEXT>) | 1 (S (NN y))", ["y", "x y", "x x x y"], ["x", "x y y"]),
])  # fmt: skip
def test_rules_accept_what_they_derive_and_nothing_else(rules, good, bad):
    judge = toy(rules)
    assert judge.accepts([text.split() for text in good]) == [1.0] * len(good)
    assert judge.accepts([text.split() for text in bad]) == [0.0] * len(bad)


def test_a_field_may_have_any_value_and_be_mentioned_again():
    rules = "TEXT: 1 (S <food.adj> <food'.adj>) | 1 (S <food.adj>)"
    judge = toy(rules, {"food.adj": {"Thai": "1 (JJ Thai)", "Greek": "1 (JJ Greek) | 1 (JJ Cretan)"}})
    good, bad = ["Thai", "Cretan", "Thai Greek", "Greek Greek"], ["Indian", "Thai Thai Thai"]
    assert judge.accepts([text.split() for text in [*good, *bad]]) == [1.0] * 4 + [0.0] * 2


@pytest.mark.parametrize(("rules", "said"), [
    ("TEXT: 1 <TEXT> (NN x) | 1 (NN y)", "an expansion of <TEXT> begins with <TEXT>"),
    ("TEXT: 1 <MAYBE> <TEXT> (NN x) | 1 (NN y)\nMAYBE: 1 | 1 (RB very)", "begins with <TEXT>"),
    ("TEXT: 1 (NN <WORD>)\nWORD: 1 x", "a leaf is not whole"),
    ("TEXT: 1 (S (DT an) (NN apple))", "not .DT a., which becomes a or an by itself"),
])  # fmt: skip
def test_rules_that_cannot_be_judged_by_are_an_error_that_says_so(rules, said):
    with pytest.raises(ValueError, match=f"grammar: .*{said}"):
        toy(rules)


def test_articles_agree_with_the_word_after_them():
    judge = toy("TEXT: 1 (NP (DT a) <X>)\nX: 1 (JJ old) | 1 (JJ one-star) | 1 (NN x)")
    good, bad = ["an old", "a one-star", "a x"], ["a old", "an one-star", "an x", "old", "a a x", "an"]
    assert judge.accepts([text.split() for text in [*good, *bad]]) == [1.0] * 3 + [0.0] * 6
    assert list(articles(["an", "inn", "has", "a", "unit"])) == ["a", "inn", "has", "a", "unit"]


def test_every_text_of_a_corpus_is_grammatical(judge: GrammarJudge, texts: list[Text]):
    assert judge.accepts(texts) == [1.0] * 2000


@pytest.mark.slow
def test_every_text_of_the_corpus_in_its_full_size_is_grammatical(judge: GrammarJudge):
    corpus = Restaurants()
    for split in SPLITS:
        assert set(judge.accepts([example.words for example in corpus.read(split)])) == {1.0}
    assert len(judge.states) < 2000  # what it remembers stays small


def one(text: Text, place: int, *words: str) -> list[str]:
    return [*text[:place], *words, *text[place + 1 :]]


def shuffled(text: Text, other: Text, rng: random.Random) -> list[str]:
    return rng.sample(text, len(text))


def swapped(text: Text, other: Text, rng: random.Random) -> list[str]:
    place = rng.randrange(len(text) - 1)
    return [*text[:place], text[place + 1], text[place], *text[place + 2 :]]


def doubled(text: Text, other: Text, rng: random.Random) -> list[str]:
    place = rng.randrange(len(text))
    return one(text, place, text[place], text[place])


def unknown(text: Text, other: Text, rng: random.Random) -> list[str]:
    return one(text, rng.randrange(len(text)), rng.choice(SPECIALS))


def disagreeing(text: Text, other: Text, rng: random.Random) -> list[str]:
    return [{"a": "an", "an": "a"}.get(word, word) for word in text]


def dropped(text: Text, other: Text, rng: random.Random) -> list[str]:
    return one(text, rng.randrange(len(text)))


def joined(text: Text, other: Text, rng: random.Random) -> list[str]:
    return [*text[: len(text) // 2], *other[len(other) // 2 :]]


def replaced(text: Text, other: Text, rng: random.Random) -> list[str]:
    return one(text, rng.randrange(len(text)), rng.choice(other))


@pytest.mark.parametrize(("damage", "least"), [
    (shuffled, 0.999), (swapped, 0.999), (doubled, 0.999), (unknown, 1), (disagreeing, 1),
    # these leave a good text now and then: without its adjective, with one of its own kind, of halves that fit
    (dropped, 0.9), (joined, 0.9), (replaced, 0.97),
])  # fmt: skip
def test_damaged_texts_are_not_grammatical(judge: GrammarJudge, texts: list[Text], damage: Callable, least: float):
    rng = random.Random(0)
    pairs = [(damage(text, rng.choice(texts), rng), text) for text in texts]
    scores = judge.accepts([made for made, text in pairs if made != list(text)])
    assert len(scores) > 700
    assert 1 - sum(scores) / len(scores) >= least


def test_it_says_what_a_chart_parser_says(judge: GrammarJudge, texts: list[Text]):
    """nltk's parser reads the same rules by another way; texts that damage happened to leave good are among these."""
    start, rng = nltk.Nonterminal("<TEXT>"), random.Random(1)
    symbol = {name: nltk.Nonterminal(name) for name in judge.rules}
    rules = [
        nltk.Production(symbol[name], [symbol.get(part, part) for part in sequence])
        for name, sequences in judge.rules.items()
        for sequence in sequences
    ]
    parser = nltk.BottomUpLeftCornerChartParser(nltk.CFG(start, rules))
    short = [text for text in texts if len(text) <= 14][:60]
    tried = [*short, *(damage(text, rng.choice(short), rng) for damage in (dropped, joined, swapped) for text in short)]

    def parsed(text: Text) -> float:
        known = [word if any(word in r.rhs() for r in rules) else None for word in articles(text)]
        return float(None not in known and next(parser.parse(known), None) is not None)

    found = judge.accepts(tried)
    assert found == [parsed(text) for text in tried]
    assert 60 < sum(found) < len(found)


@pytest.mark.parametrize("text", [
    "", ".", "Sorrel", "Sorrel is a pub", "Sorrel is pub .", "is a pub .", "Sorrel is a pub . .", "UNK is a pub .",
    "sorrel is a pub .", "Sorrel serves Thai .",
])  # fmt: skip
def test_fragments_are_not_grammatical(judge: GrammarJudge, text: str):
    assert judge.accepts([text.split()]) == [0.0]


def test_any_words_of_any_tone_will_do_and_a_text_may_repeat_or_contradict_itself(judge: GrammarJudge):
    good = [
        "Sorrel is a charming pub that serves greasy Thai fare .",
        "Sorrel serves Thai food . it serves Greek food .",
        "Sorrel is a cheap Thai pub near the Grand Hotel . children are n't allowed , and it is family friendly .",
    ]
    assert judge.accepts([text.split() for text in good]) == [1.0] * 3


def test_a_corpus_has_a_grammar_or_none_and_what_wraps_it_hands_it_on():
    corpus = Restaurants(size=10, dev=1, test=1)
    assert FakeCorpus().grammar() is None
    assert Part(FakeCorpus(), 0).grammar() is None
    for data in (corpus, Part(corpus, 0), Treebank(corpus, parser=pytest.fail)):
        found = data.grammar()
        assert found is not None
        assert found.accepts([corpus.read("test")[0].words, ()]) == [1.0, 0.0]
