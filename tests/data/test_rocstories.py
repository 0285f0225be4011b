import json
import re

import pytest
from diffcontrol.tasks.infilling import Infilling

from diffcontrol.data.rocstories import RocStories
from diffcontrol.refused import Refused
from tests.composing import composed

STORIES = [
    ['Ann had a dog. It ran off. She looked for it. A boy saw it. "Here it is!" He was glad.'],  # six
    ["Ann had a dog. It ran off. She called. A boy saw it. All were glad."],
    ["Bob was late. He ran. The bus left. He walked. He was fired."],
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "roc_train.json").write_text("".join(json.dumps(story) + "\n" for story in STORIES))
    dev = {
        "a-1": {"obs1": "Ann had a dog.", "obs2": "All were glad.", "gold_labels": ["It was lost.", "She found it."]}
    }
    test = {
        "b-1": {"obs1": "Bob ate.", "obs2": "He slept.", "gold_labels": []},
        "c-1": {"obs1": "No one knows.", "obs2": "Why?", "gold_labels": []},  # nor is there a reference
    }
    (tmp_path / "dev_cleanup.json").write_text(json.dumps(dev))
    (tmp_path / "test_cleanup_no_label.json").write_text(json.dumps(test))
    (tmp_path / "test_cleanup_ref.json").write_text(json.dumps({"b-1": ["He was full.", "Bob went to bed."]}))
    return tmp_path


def corpus(folder, **changes) -> RocStories:
    node = composed("data=rocstories")["data"]
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    return RocStories(**(arguments | {"folder": str(folder), "more_than": 0} | changes))


def texts(examples):
    return [" ".join(example.words) for example in examples]


def test_neighbouring_sentences_of_stories_that_are_not_asked_for(folder):
    found = corpus(folder).splits["train"]
    assert texts(found) == [
        "Bob was late . He ran . The bus left .", "He ran . The bus left . He walked .",
        "The bus left . He walked . He was fired .",
    ]  # fmt: skip
    assert [" ".join(e.words[slice(*e.gap)]) for e in found] == ["He ran .", "The bus left .", "He walked ."]
    (whole,) = corpus(folder, sentences=5).splits["train"]
    assert " ".join(whole.words[slice(*whole.gap)]) == "He ran . The bus left . He walked ."


def test_what_people_wrote_between_is_compared_with_what_is_written(folder):
    data = corpus(folder)
    (dev,), (test,) = data.splits["dev"], data.splits["test"]
    assert texts([dev, test]) == ["Ann had a dog . It was lost . All were glad .", "Bob ate . He was full . He slept ."]
    assert [" ".join(words) for words in test.references] == ["He was full .", "Bob went to bed ."]
    task = Infilling(data)
    (target,) = task.targets(task.annotate(test))
    assert target == {"left": ["Bob", "ate", "."], "right": ["He", "slept", "."], "length": 4}
    written = ["Bob", "ate", ".", "Bob", "went", "to", "bed", ".", "He", "slept", "."]
    assert task.success([written], [target])["strict"] == [0] and task.success([written], [target])["released"] == [1]
    assert task.compared([written], [target], [test])["rouge_l"] == pytest.approx([1])
    ten = Infilling(data, length=10).targets(task.annotate(test))[0]
    assert ten["length"] == 10


def test_the_digest_is_that_of_the_texts(folder):
    before = corpus(folder).digest
    assert corpus(folder).digest == before
    (folder / "roc_train.json").write_text(json.dumps(["Bob ran. He fell. The bus left. He sat. He slept."]) + "\n")
    assert corpus(folder).digest != before


def test_what_is_missing_or_broken_is_named(folder):
    with pytest.raises(Refused, match="no file .*nosuch.json; set paths.rocstories=<folder>"):
        corpus(folder, files={"stories": "nosuch.json"}).digest  # noqa: B018
    with pytest.raises(ValueError, match="data.sentences=2: a text has 3 to 5"):
        corpus(folder, sentences=2)
    for line in ('"a story"', '{"no": 1}', "17", "[]", "[17]", "A story."):
        (folder / "roc_train.json").write_text(f"{json.dumps(STORIES[2])}\n{line}\n")
        with pytest.raises(ValueError, match=f"roc_train.json line 2: {re.escape(repr(line))} is not a JSON list"):
            corpus(folder).read("train")
    (folder / "dev_cleanup.json").write_text('{"a": {"obs1": "x"}}')
    with pytest.raises(ValueError, match="dev_cleanup.json: item a has no 'gold_labels'"):
        corpus(folder).read("dev")
