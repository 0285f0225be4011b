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


def test_a_rare_target_is_looked_for_in_all_texts():
    corpus = FakeCorpus()
    everywhere, few = lengths(corpus, enough=1), lengths(corpus, texts=1, enough=2)
    for target in ("red", "blue"):
        assert drawn(few, {"colour": target}) == drawn(everywhere, {"colour": target})
