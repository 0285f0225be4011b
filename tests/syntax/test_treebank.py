import json
from pathlib import Path

import pytest

from diffcontrol.data.corpus import SPLITS, Gapped
from diffcontrol.recipe import Content
from diffcontrol.store import Store
from diffcontrol.syntax import treebank as treebank_module
from diffcontrol.syntax.parser import Parse, Parser
from diffcontrol.syntax.treebank import Treebank
from tests.fakes import FakeCorpus
from tests.toys import data, toy


class PowerError(ConnectionError):
    pass


class Flat(Parser):
    """One bracket round all words, tags by turns; keeps what it read and fails after `left` calls."""

    seen: list[tuple[str, ...]] = []  # noqa: RUF012
    left = 10**6
    made = 0

    def __init__(self):
        Flat.made += 1

    def parse(self, texts, title=""):
        if Flat.left == 0:
            raise PowerError("the power went off")
        Flat.left -= 1
        Flat.seen += map(tuple, texts)
        return [
            Parse(f"(TOP (S {' '.join(f'(NN {w})' for w in text)}))", ("NN",) * len(text)) if text else Parse("", ())
            for text in texts
        ]


class Placed(Flat, Content):
    """A parser whose weights lie in a file."""

    location_arguments = ("model",)

    def __init__(self, model: str):
        super().__init__()
        self.model = model

    @property
    def digest(self) -> str:
        return Path(self.model).read_text()


class OtherTest(FakeCorpus):
    """FakeCorpus with other test texts, by a number that says where they lie."""

    location_arguments = ("at",)

    def __init__(self, n: int, at: int = 0):
        super().__init__(n)
        self.at = at

    def read(self, split):
        return FakeCorpus(self.n, seed=self.at).read(split) if split == "test" else super().read(split)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    for name, value in (("seen", []), ("left", 10**6), ("made", 0)):
        monkeypatch.setattr(Flat, name, value)
    monkeypatch.setattr(treebank_module, "CHUNK", 5)


def node(**changes) -> dict:
    return {"_target_": "diffcontrol.syntax.treebank.Treebank", "data": data(n=40), "train": None, "dev": None,
            "test": None, "parser": {"_target_": "tests.syntax.test_treebank.Flat"}, **changes}  # fmt: skip


def store(root: Path) -> Store:
    return Store(root, trainer={"accelerator": "cpu", "precision": "32-true", "enable_progress_bar": False})


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name[0] != ".") if root.exists() else []


def test_a_treebank_is_the_data_with_trees_and_tags_by_the_parser(tmp_path):
    own = store(tmp_path)
    bank, plain = own.build(node()), own.build(data(n=40))
    assert bank.vocabulary is plain.vocabulary and bank.length == plain.length and bank.forms == plain.forms
    for split in SPLITS:
        for example, gold in zip(bank.splits[split], plain.splits[split], strict=True):
            assert (example.words, example.fields, example.labels) == (gold.words, gold.fields, gold.labels)
            assert example.tree.startswith("(TOP (S (NN a)") and example.tags == ("NN",) * len(gold.words)
            assert example.universal == ("NOUN",) * len(gold.words)
        assert bank.ids[split].equal(plain.ids[split])


def test_what_else_an_example_knows_stays(tmp_path):
    """As the gap of a story and what people wrote there."""
    example = Gapped(("a", "cat"), gap=(0, 1), references=(("the",),))
    found = treebank_module._annotated(example, Parse("(TOP (S (DT a) (NN cat)))", ("DT", "NN")))
    assert isinstance(found, Gapped) and (found.gap, found.references) == ((0, 1), (("the",),))
    assert found.tags == ("DT", "NN") and found.universal == ("DET", "NOUN")


def test_distinct_texts_are_parsed_once_and_nothing_twice(tmp_path):
    bank = store(tmp_path).build(node())
    texts = {example.words for example in bank.splits["train"]}
    assert len(texts) < 40 and sorted(Flat.seen) == sorted(texts)
    again = store(tmp_path)
    assert again.build(node()).splits["train"] == bank.splits["train"]
    assert sorted(Flat.seen) == sorted(texts) and again.trained == [] and Flat.made == 1  # not even the parser is built
    assert len(folders(tmp_path)) == 1


def test_a_text_that_is_too_long_is_said_before_any_other_is_parsed(tmp_path):
    _ = store(tmp_path).build(node()).splits["train"]
    lengths = [len(words) for words in Flat.seen]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[-1]


def test_a_split_is_parsed_when_it_is_read_and_not_before(tmp_path):
    own = store(tmp_path)
    bank = own.build(node())
    own.address(toy() | {"data": node()})
    assert folders(tmp_path) == [] and Flat.made == 0
    _ = bank.splits["test"]
    (folder,) = folders(tmp_path)
    assert own.trained == [folder] and {path.name for path in (tmp_path / folder).iterdir()} == {
        "config.yaml", "provenance.json", "parses.jsonl",
    }  # fmt: skip
    assert json.loads((tmp_path / folder / "provenance.json").read_text())["seconds"] >= 0


def test_texts_are_evenly_spaced_and_in_order(tmp_path):
    own = store(tmp_path)
    plain, bank = own.build(data(n=40)), own.build(node(train=4, dev=100))
    assert [e.words for e in bank.splits["train"]] == [e.words for e in plain.splits["train"][::10]]
    assert len(bank.splits["dev"]) == len(plain.splits["dev"])
    assert folders(tmp_path) and bank.ids["train"].shape == (4, plain.length)


@pytest.mark.parametrize("size", [0, -3])
def test_a_split_of_nothing_is_refused(size):
    with pytest.raises(ValueError, match=f"Treebank: dev={size}: allowed is a whole number from 1, or null"):
        Treebank(FakeCorpus(), Flat, dev=size)


def test_a_size_bears_on_its_own_split_alone(tmp_path):
    own = store(tmp_path)
    _ = own.build(node()).splits["test"]
    Flat.seen.clear()
    _ = own.build(node(train=4)).splits["test"]
    assert Flat.seen == [] and len(folders(tmp_path)) == 1
    _ = own.build(node(test=4)).splits["test"]
    assert len(folders(tmp_path)) == 2


def test_other_test_texts_are_parsed_anew_and_train_no_model_again(tmp_path):
    own, (one, other) = store(tmp_path), [
        node(data={"_target_": "tests.syntax.test_treebank.OtherTest", "n": 40, "at": at}) for at in (0, 1)
    ]  # fmt: skip
    assert own.address(toy() | {"data": one}) == own.address(toy() | {"data": other})
    assert own.build(one).splits["test"] != own.build(other).splits["test"]
    assert own.build(one).splits["train"] == own.build(other).splits["train"]
    assert len(folders(tmp_path)) == 3


def test_how_many_texts_are_tested_on_trains_no_model_again(tmp_path):
    own = store(tmp_path)
    addresses = {own.address(toy() | {"data": node(test=test, dev=5)}) for test in (4, 9, None)}
    assert len(addresses) == 1 and own.address(toy() | {"data": node(train=4)}) not in addresses


@pytest.mark.parametrize("cut", [0, 3])
def test_a_killed_annotation_goes_on_where_it_stopped(tmp_path, cut):
    unbroken = store(tmp_path / "unbroken").build(node()).splits["train"]
    Flat.seen.clear()
    Flat.left = 2
    with pytest.raises(PowerError):
        _ = store(tmp_path / "killed").build(node()).splits["train"]
    assert folders(tmp_path / "killed") == [] and len(Flat.seen) == 10  # a draft is no treebank
    (draft,) = (tmp_path / "killed" / ".drafts").glob("Treebank-*/parses.jsonl")
    if cut:  # the kill cut a line
        draft.write_bytes(draft.read_bytes()[:-cut])
    Flat.left = 10**6
    assert store(tmp_path / "killed").build(node()).splits["train"] == unbroken
    assert len(Flat.seen) == len({example.words for example in unbroken}) + bool(cut)
    assert list((tmp_path / "killed" / ".drafts").iterdir()) == []


@pytest.mark.parametrize("content", ["", "{}\n", "hello\n", '{"words": ["a"], "tree": "(TOP a)"'])
def test_a_spoilt_folder_is_named(tmp_path, content):
    _ = store(tmp_path).build(node()).splits["dev"]
    (file,) = tmp_path.glob("Treebank-*/parses.jsonl")
    file.write_text(content)
    with pytest.raises(ValueError, match=f"{file.parent}.* remove"):
        _ = store(tmp_path).build(node()).splits["dev"]


def test_what_the_parser_is_enters_the_address_and_not_where_it_lies(tmp_path):
    parsers = []
    for name, weights in (("here", "w"), ("there", "w"), ("other", "v")):
        (tmp_path / name).write_text(weights)
        parsers.append({"_target_": "tests.syntax.test_treebank.Placed", "model": str(tmp_path / name)})
    own = store(tmp_path / "s")
    here, there, other = (own.address(node(parser=parser)) for parser in parsers)
    assert here == there != other
    assert own.address(node()) != own.address(node(data=data(n=41)))
    classifiers = [own.address(toy() | {"data": node(parser=parser)}) for parser in parsers]
    assert classifiers[0] == classifiers[1] != classifiers[2]


def test_one_parser_serves_all_that_name_it(tmp_path):
    own = store(tmp_path)
    assert own.build(node()["parser"]) is own.build({"judge": node()["parser"]})["judge"]
    assert own.build(node()) is own.build(node())


def test_models_are_trained_on_a_treebank(tmp_path):
    own = store(tmp_path)
    model = own.fit(toy(steps=3) | {"data": node(train=8)})
    assert len(model.corpus.splits["train"]) == 8 and len(Flat.seen) <= 8
    again = store(tmp_path)
    assert again.fit(toy(steps=3) | {"data": node(train=8)}).history == [] and again.trained == []
