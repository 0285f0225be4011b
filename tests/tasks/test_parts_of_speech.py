import json
import logging
from pathlib import Path

import pytest
import torch
from diffcontrol.tasks.parts_of_speech import CLASSES, PartsOfSpeech

from diffcontrol.data.corpus import Example
from tests.fakes import FakeCorpus
from tests.gold_parser import GoldParser

CHEAP = "(TOP (S (NP (DT the) (NN pub)) (VP (VBZ is) (ADJP (JJ cheap))) (. .)))"
SELLS = "(TOP (S (NP (DT the) (NN pub)) (VP (VBZ sells) (NP (NN fish))) (. .)))"
SHORT = "(TOP (S (NP (DT the) (NN pub)) (VP (VBZ is) (ADJP (JJ cheap)))))"
TARGET = ["DET", "NOUN", "AUX", "ADJ", "PUNCT"]
RELEASED = Path(__file__).parents[3] / "shared/data/control_targets/target_pos.json"


@pytest.fixture(scope="module")
def task() -> PartsOfSpeech:
    return PartsOfSpeech(FakeCorpus(length=8))


@pytest.mark.parametrize(("text", "strict", "released", "edit"), [
    ("the pub is cheap .", 1, 1, 1),
    ("the pub sells fish .", 3 / 5, 3 / 5, 3 / 5),
    ("the pub is cheap", 0, 4 / 5, 4 / 5),
    ("fish the pub is cheap .", 0, 0, 5 / 6),  # all are one place late
    ("", 0, 0, 0),
])  # fmt: skip
def test_tags_of_what_is_written_are_compared(task, text, strict, released, edit):
    late = "(TOP (NP (NN fish)) (S (NP (DT the) (NN pub)) (VP (VBZ is) (ADJP (JJ cheap))) (. .)))"
    judges = {"parser": GoldParser(more=[CHEAP, SELLS, SHORT, late])}
    scores = {name: values[0] for name, values in task.success([text.split()], [TARGET], judges).items()}
    assert scores == pytest.approx({"strict": strict, "released": released, "edit": edit})


def test_scoring_needs_a_parser(task):
    with pytest.raises(ValueError, match="parts_of_speech: scoring needs the judge `parser`"):
        task.success([["fish"]], [["NOUN"]])


@pytest.mark.parametrize("given", [
    TARGET, tuple(TARGET), "DET NOUN AUX ADJ PUNCT", "DET, NOUN, AUX, ADJ, PUNCT",
    {"pos": ["START", *TARGET, "END"]}, {"pos": TARGET, "words_": ["the", "pub", "is", "cheap", "."]},
    {"pos": ["START", *TARGET, "PROPN", "END"], "words_": ["START", *["the", "pub", "is", "cheap", "."], "\n", "END"]},
])  # fmt: skip
def test_a_target_is_a_list_a_string_or_the_released_form(task, given):
    assert task.parse(given) == TARGET


@pytest.mark.parametrize(("given", "said"), [
    (["DET", "NN"], "no tag 'NN'; known are ADJ, ADP, .*, X"), (["det"], "no tag 'det'"), ([3], "no tag 3"),
    (["START", "NOUN"], "no tag 'START'"), (["NOUN"] * 7, "7 tags are asked for, .* at most 6 words"),
    ([], "is not a target; write a list of tags"), ({}, "not a target"), ({"pos": []}, "not a target"),
    ({"tags": ["DET"]}, "not a target"), (3, "3 is not a target"),
])  # fmt: skip
def test_what_is_no_target_is_refused_with_what_is_known(task, given, said):
    with pytest.raises(ValueError, match=f"parts_of_speech: .*{said}"):
        task.parse(given)


def test_an_annotation_is_the_universal_tags(task):
    example = Example(("a", "cat"), tags=("DT", "NN"), universal=("DET", "NOUN"))
    assert (
        task.annotate(example) == ["DET", "NOUN"] == task.targets(["DET", "NOUN"])[0] == task.serialize(["DET", "NOUN"])
    )
    assert task.targets([]) == [] and task.targets(["NOUN"] * 7) == []  # untagged; too long for 8 positions


def test_data_without_tags_are_refused():
    class Plain(FakeCorpus):
        def read(self, split):
            return [Example(example.words) for example in super().read(split)]

    with pytest.raises(ValueError, match="parts_of_speech: the training data has no tags; .* treebank"):
        PartsOfSpeech(Plain()).parse(TARGET)


def test_the_head_labels_every_position(task):
    """Against its definition; START, END and PAD are labels too, so that the length is asked for as well."""
    torch.manual_seed(0)
    head, hidden = task.head(6), torch.randn(1, 8, 6)
    log_probs = head.score(hidden)[0].log_softmax(-1)
    labels = ["START", *TARGET, "END", "PAD"]
    expected = sum(log_probs[i, CLASSES.index(label)] for i, label in enumerate(labels))
    torch.testing.assert_close(head.log_prob(hidden, [TARGET])[0], expected)
    assert head.loss(hidden, [["NOUN"] * 20]).isfinite()  # a text that was cut


def test_a_spacy_model_that_is_missing_is_named_with_how_to_get_it():
    with pytest.raises(ValueError, match="no such spaCy model; python -m spacy download no_such_model installs it"):
        PartsOfSpeech(FakeCorpus(), tagger="no_such_model")


def test_a_spacy_model_makes_targets_and_scores(tmp_path):
    import spacy

    pipeline = spacy.blank("en")  # tags by rules, so that nothing is downloaded
    ruler = pipeline.add_pipe("attribute_ruler")
    for word, tag in (("a", "DET"), ("cat", "NOUN"), ("sees", "VERB")):
        ruler.add([[{"ORTH": word}]], {"POS": tag})
    pipeline.to_disk(tmp_path / "model")
    task = PartsOfSpeech(FakeCorpus(), tagger=str(tmp_path / "model"))
    assert task.annotate(Example(("a", "cat", "sees"), universal=("X", "X", "X"))) == ["DET", "NOUN", "VERB"]
    scores = task.success([["a", "cat"], ["cat", "sees"]], [["DET", "NOUN"]] * 2)
    assert scores["strict"] == [1, 0] and scores["edit"] == [1, 0]


@pytest.mark.skipif(not RELEASED.exists(), reason=f"the released targets are not at {RELEASED}")
def test_the_released_file_can_be_read_and_says_what_is_dropped_once(caplog):
    task, lines = PartsOfSpeech(FakeCorpus(length=64)), RELEASED.read_text(encoding="utf-8").splitlines()
    with caplog.at_level(logging.WARNING):
        targets = [task.parse(json.loads(line)) for line in lines]
    assert len(targets) == 200
    for line, tags in zip(lines, targets, strict=True):
        assert len(tags) == len([word for word in json.loads(line)["words_"] if word not in ("START", "END", "\n")])
    assert [record.message.count("newline") for record in caplog.records] == [1]
