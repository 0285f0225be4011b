import json

import pytest

from diffcontrol.layout import of_text
from diffcontrol.refused import Refused
from diffcontrol.requests import choose, sources
from diffcontrol.task import Request
from tests.fakes import COLOURS, FakeCorpus, FakeTask

ANIMALS = ("cat", "dog", "bird")


@pytest.fixture(scope="module")
def corpus() -> FakeCorpus:
    return FakeCorpus()


@pytest.fixture
def colour() -> dict[str, FakeTask]:
    return {"colour": FakeTask()}


@pytest.fixture
def both() -> dict[str, FakeTask]:
    return {"colour": FakeTask(), "animal": FakeTask(ANIMALS)}


@pytest.mark.parametrize(("source", "split"), [("heldout", "test"), ("dev", "dev")])
def test_sentences_come_from_their_split_and_carry_the_target(corpus, colour, source, split):
    found = choose(colour, corpus, source, None, 0)
    with_colour = [example for example in corpus.splits[split] if set(example.words) & set(COLOURS)]
    assert sorted(request.source.words for request in found) == sorted(example.words for example in with_colour)
    assert all(request.targets["colour"] in request.source.words for request in found)


def test_the_same_seed_draws_the_same_sentences_and_another_seed_others(corpus, colour):
    drawn = {seed: choose(colour, corpus, "heldout", 5, seed) for seed in range(4)}
    assert drawn[1] == choose(colour, FakeCorpus(), "heldout", 5, 1)
    assert all(len(found) == 5 for found in drawn.values())
    assert len({tuple(request.source.words for request in found) for found in drawn.values()}) > 1


def test_fewer_targets_are_the_first_of_more(corpus, colour):
    assert choose(colour, corpus, "heldout", 3, 0) == choose(colour, corpus, "heldout", 6, 0)[:3]


def test_any_target_of_a_sentence_may_be_drawn(corpus):
    task = {"word": FakeTask(("a", "cat", "the", "sees"))}
    asked: dict[tuple[str, ...], set[str]] = {}
    for seed in range(12):
        for request in choose(task, corpus, "heldout", None, seed):
            asked.setdefault(request.source.words, set()).add(request.targets["word"])
    for example in corpus.splits["test"]:
        assert asked[example.words] == set(task["word"].annotate(example))


def test_composed_targets_come_from_one_sentence(corpus, both):
    found = choose(both, corpus, "heldout", None, 0)
    assert found
    for request in found:
        assert request.targets["colour"] in request.source.words and request.targets["animal"] in request.source.words
    one = [request.source for request in choose({"animal": both["animal"]}, corpus, "heldout", None, 0)]
    assert len(found) < len(one)  # a sentence without a colour has nothing for the first task


def test_sources_are_a_text_for_each_request(corpus, colour):
    found = choose(colour, corpus, "dev", 2, 0)
    assert sources(found) == [[list(request.source.words)] for request in found]
    assert sources([*found, Request({"colour": "red"})]) is None  # a user's own target has no gold sentence


def test_a_file_of_json_lines(tmp_path, corpus, colour, both):
    file = tmp_path / "targets.jsonl"
    file.write_text('"red"\n\n{"colour": "blue"}\n"green"\n')
    found = choose(colour, corpus, str(file), None, 0)
    assert [request.targets for request in found] == [{"colour": c} for c in ("red", "blue", "green")]
    assert all(request.source is None for request in found)
    assert choose(colour, corpus, str(file), 2, 0) == found[:2]
    file.write_text('{"animal": "dog", "colour": "blue"}\n')
    assert choose(both, corpus, str(file), None, 0) == [Request({"colour": "blue", "animal": "dog"})]


@pytest.mark.parametrize(
    ("line", "said"), [('["red"', "JSON"), ("red", "JSON"), ('"purple"', "purple.*red, green, blue")]
)
def test_a_bad_line_is_named_with_its_file(tmp_path, corpus, colour, line, said):
    file = tmp_path / "targets.jsonl"
    file.write_text(f'"red"\n\n{line}\n')
    with pytest.raises(Refused, match=rf"targets.jsonl, line 3: .*{said}"):
        choose(colour, corpus, str(file), None, 0)


def test_invalid_targets_can_be_left_out_and_are_counted(caplog, corpus, colour):
    given = ["red", "purple", "blue", "mauve"]
    assert [r.targets["colour"] for r in choose(colour, corpus, given, 2, 0, "skip")] == ["red", "blue"]
    assert "2 invalid" in caplog.text and "entry 2" in caplog.text and "purple" in caplog.text
    with pytest.raises(Refused, match="no target for colour"):
        choose(colour, corpus, ["purple"], None, 0, "skip")
    with pytest.raises(Refused, match=r"targets.on_invalid='ignore': allowed is error, or skip"):
        choose(colour, corpus, given, 2, 0, "ignore")


@pytest.mark.parametrize("on_invalid", ["error", "skip"])
def test_a_fault_of_a_task_is_not_taken_for_an_invalid_target(corpus, colour, monkeypatch, on_invalid):
    monkeypatch.setattr(colour["colour"], "parse", lambda target: [].index(target))
    with pytest.raises(ValueError, match="not in list") as raised:
        choose(colour, corpus, ["red"], None, 0, on_invalid)
    assert not isinstance(raised.value, Refused)


def test_a_literal_list_and_a_bad_entry_of_it(corpus, colour, both):
    assert [r.targets for r in choose(colour, corpus, ["red", "blue"], 1, 0)] == [{"colour": "red"}]
    with pytest.raises(Refused, match=r"entry 2: .*'purple'.*red, green, blue"):
        choose(colour, corpus, ["red", "purple"], None, 0)
    with pytest.raises(Refused, match=r"entry 1: .*no target for animal"):
        choose(both, corpus, [{"colour": "red"}], None, 0)
    with pytest.raises(Refused, match=r"entry 1: 'red' does not say which task"):
        choose(both, corpus, ["red"], None, 0)


def test_a_file_that_is_not_there(tmp_path, corpus, colour):
    with pytest.raises(Refused, match=r"nosuch.jsonl.*heldout, dev, a file"):
        choose(colour, corpus, str(tmp_path / "nosuch.jsonl"), None, 0)


@pytest.mark.parametrize("given", ["heldout", [], "empty"])
def test_nothing_to_ask_for(tmp_path, corpus, given):
    (tmp_path / "empty").write_text("\n\n")
    source = str(tmp_path / "empty") if given == "empty" else given
    with pytest.raises(Refused, match="no target for colour"):
        choose({"colour": FakeTask(["purple"])}, corpus, source, None, 0)


def test_targets_can_be_written_down_and_read_back(tmp_path, corpus, both):
    found = choose(both, corpus, "heldout", None, 0)
    file = tmp_path / "targets.jsonl"
    file.write_text("".join(json.dumps(dict(request.targets)) + "\n" for request in found))
    assert [r.targets for r in choose(both, corpus, str(file), None, 0)] == [r.targets for r in found]


class Lined(FakeTask):
    """A FakeTask that also reads lines of the authors' files, under a key of its own."""

    def __init__(self, key, words=COLOURS):
        super().__init__(words)
        self.key = key

    def parse(self, target):
        return super().parse(target[self.key] if isinstance(target, dict) else target)


def test_a_line_of_the_authors_files_brings_its_sentence(corpus):
    line = {"colour": "red", "animal": "cat", "words_": ["START", "a", "red", "cat", "\n", "END"]}
    alone = choose({"one": Lined("colour")}, corpus, [line], None, 0)
    assert alone[0].targets == {"one": "red"} and sources(alone) == [[["a", "red", "cat"]]]
    both = choose({"one": Lined("colour"), "other": Lined("animal", ANIMALS)}, corpus, [line], None, 0)
    assert both[0].targets == {"one": "red", "other": "cat"} and both[0].source.words == ("a", "red", "cat")
    assert sources(choose({"one": Lined("colour")}, corpus, [line, "blue"], None, 0)) is None


def test_a_length_that_no_layout_has_is_refused(corpus, monkeypatch):
    tasks = {name: FakeTask(COLOURS, corpus) for name in ("gap", "tags")}
    monkeypatch.setattr(tasks["gap"], "layouts", lambda target: [of_text({}, end, 20) for end in (4, 5, 6)])
    monkeypatch.setattr(tasks["tags"], "words", lambda target: 8)
    with pytest.raises(Refused, match="entry 1: tags asks for 8 words, .* leaves room for 3 to 5"):
        choose(tasks, corpus, [{"gap": "red", "tags": "red"}], None, 0)
    monkeypatch.setattr(tasks["tags"], "words", lambda target: 4)
    assert len(choose(tasks, corpus, [{"gap": "red", "tags": "red"}], None, 0)) == 1


def test_targets_of_different_lengths_are_refused(corpus, monkeypatch):
    tasks = {name: FakeTask(COLOURS, corpus) for name in ("one", "other")}
    for task, words in zip(tasks.values(), (7, 3), strict=True):
        monkeypatch.setattr(task, "words", lambda target, words=words: words)
    with pytest.raises(Refused, match=r"entry 1: .*different lengths \(7 words by one, 3 words by other\)"):
        choose(tasks, corpus, [{"one": "red", "other": "red"}], None, 0)


def test_a_target_that_needs_more_words_than_another_allows_is_refused(corpus, monkeypatch):
    tasks = {name: FakeTask(COLOURS, corpus) for name in ("one", "other")}
    monkeypatch.setattr(tasks["one"], "words", lambda target: 3)
    monkeypatch.setattr(tasks["other"], "least_words", lambda target: 4)
    with pytest.raises(Refused, match="entry 1: other needs 4 words at least, and one allows 3 at most"):
        choose(tasks, corpus, [{"one": "red", "other": "red"}], None, 0)
    monkeypatch.setattr(tasks["other"], "least_words", lambda target: 3)
    assert choose(tasks, corpus, [{"one": "red", "other": "red"}], None, 0)


def test_a_target_of_a_task_that_is_not_chosen_is_mentioned(corpus, colour, caplog):
    assert choose(colour, corpus, [{"colour": "red", "animal": "cat"}], None, 0)[0].targets == {"colour": "red"}
    assert "targets: animal are not used, as task= does not choose them" in caplog.text


def test_half_of_a_character_is_refused_where_it_stands():
    with pytest.raises(
        Refused, match=r"targets\.from, entry 1: the target holds '\\ud83d', which is half of a character"
    ):
        choose({"word": FakeTask(["\ud83d"])}, FakeCorpus(), ["\ud83d"], None, 0)
