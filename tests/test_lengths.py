from diffcontrol.layout import Layout
from diffcontrol.lengths import TrainingLengths
from tests.fakes import COLOURS, FakeCorpus, FakeTask


def lengths(corpus: FakeCorpus, **options) -> TrainingLengths:
    task = FakeTask(COLOURS, corpus)
    return TrainingLengths(corpus, {"colour": task, "animal": FakeTask(("cat", "dog", "bird"), corpus)}, **options)


def drawn(own: TrainingLengths, targets: dict[str, str], least: int = 0) -> set[int]:
    return {own.draw(targets, least, i / 200) for i in range(200)}


def test_a_text_is_as_long_as_one_that_meets_the_target():
    corpus = FakeCorpus()
    own = lengths(corpus, enough=1)
    red = {len(example.words) for example in corpus.splits["train"] if "red" in example.words}
    every = {len(example.words) for example in corpus.splits["train"]}
    assert drawn(own, {"colour": "red"}) == red < every
    assert drawn(own, {}) == every
    both = drawn(own, {"colour": "red", "animal": "cat"})
    assert both in (red, {len(e.words) for e in corpus.splits["train"] if "cat" in e.words})


def test_where_too_few_meet_it_all_texts_count_and_none_is_too_short():
    corpus = FakeCorpus()
    every = {len(example.words) for example in corpus.splits["train"]}
    own = lengths(corpus, enough=1000)
    assert drawn(own, {"colour": "red"}) == every
    assert min(drawn(own, {"colour": "red"}, least=max(every))) == max(every)
    assert drawn(own, {}, least=30) == {30}


def test_no_text_is_longer_than_the_target_allows():
    own = lengths(FakeCorpus(), enough=1)
    shortest = min(drawn(own, {"colour": "red"}))
    assert {own.draw({"colour": "red"}, 0, i / 200, shortest) for i in range(200)} == {shortest}
    assert own.draw({}, 30, 0.5, 31) == 30


def test_a_rare_target_is_looked_for_in_all_texts():
    corpus = FakeCorpus()
    everywhere, few = lengths(corpus, enough=1), lengths(corpus, texts=1, enough=2)
    for target in ("red", "blue"):
        assert drawn(few, {"colour": target}) == drawn(everywhere, {"colour": target})


def test_texts_that_are_cut_do_not_count_and_end_always_has_room():
    corpus = FakeCorpus(length=6)  # START, four words, END
    own = lengths(corpus, enough=1)
    assert max(len(example.words) for example in corpus.splits["train"]) > 4
    assert max(drawn(own, {})) <= 4 and max(drawn(own, {"colour": "red"})) <= 4
    assert own.end(Layout(), {}, 30, 0.5, 6).end == 5


def test_of_several_targets_the_one_that_the_smallest_share_of_texts_meets_decides():
    """A rare one is looked for in all texts, a common one in some of them, so their counts do not compare."""
    corpus = FakeCorpus()
    own = lengths(corpus, texts=4, enough=2)
    met = {"colour": ([3] * 9, 1000), "animal": ([5] * 3, 4)}  # lengths, of how many texts
    own._meeting = lambda name, target: met[name]
    assert drawn(own, {"colour": "red", "animal": "cat"}) == {3}
