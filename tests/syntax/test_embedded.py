"""The parser that the store trains: benepar's network saved and loaded without pickle."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from diffcontrol.store import Store
from diffcontrol.syntax import trees
from diffcontrol.syntax.embedded import EmbeddedParser, telling
from diffcontrol.syntax.parser import Parse
from diffcontrol.syntax.quality import quality
from tests.composing import composed
from tests.toys import data

TRAINER = {"accelerator": "cpu", "precision": "32-true", "enable_progress_bar": False}


def node(steps: int = 6, size: int = 300, **changes) -> dict:
    return {
        "_target_": "diffcontrol.syntax.embedded.EmbeddedParser", "version": 1, "model_seed": 0, "width": 32,
        "heads": 2, "characters": 8, "length": 60,
        "data": {"_target_": "diffcontrol.data.restaurants.Restaurants", "size": size, "dev": 10, "test": 60},
        "optim": {"steps": steps, "batch_size": 8, "lr": 5e-3, "warmup": 2, "checkpoint": 3}, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Store, EmbeddedParser]:
    store = Store(tmp_path_factory.mktemp("store"), trainer=TRAINER)
    return store, store.fit(node())


def test_a_second_time_it_is_loaded_and_parses_the_same(first):
    store, trained = first
    (file,) = store.root.glob("EmbeddedParser-*/weights.safetensors")
    assert set(load_file(file)) == set(trained.state_dict())  # no pickle: an upgrade that breaks benepar is seen here
    assert not list(store.root.rglob("*.bin")) + list(store.root.rglob("*.pt")) + list(store.root.rglob("*.ckpt"))
    again = Store(store.root, trainer=TRAINER)
    loaded = again.fit(node())
    assert again.trained == [] and not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    texts = [example.words for example in trained.corpus.splits["test"]]
    assert loaded.parse(texts) == trained.parse(texts)


def test_its_parses_are_trees_of_the_words_in_brackets(first):
    _, parser = first
    texts = [["Bellamy", "is", "(", "a", "bar", ")", "."], ["öß", "漢字", "x" * 90], [""], [], ["one"]]
    for text, parse in zip(texts, parser.parse(texts), strict=True):
        assert len(parse.tags) == len(text)
        assert parse == Parse("", ()) if not text else parse.tree.startswith("(TOP (")
        if text:
            assert tuple(trees.read(parse.tree).tags) == parse.tags
    with pytest.raises(ValueError, match="61 words is too long"):
        parser.parse([["a"] * 61])


def test_a_step_of_training_is_benepars_loss(first):
    _, parser = first
    batch = parser.collate([0, 1, 2])
    assert batch["span_labels"].shape[0] == batch["batch_size"] == 3
    loss = parser.losses(batch)["parse"]
    assert loss.shape == () and loss > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(parser.losses(batch)["parse"], loss)


def test_the_telling_trees_hold_all_labels_and_chains():
    every = ["(TOP (S (NP (NN a))))", "(TOP (S (NP (NN b))))", "(TOP (S (VP (VB b))))", "(TOP (VP (S (VP (VB b)))))"]
    assert telling(every) == [every[0], every[2], every[3]]


def test_data_without_trees_are_refused_with_a_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"parser=embedded .* gold trees, .*parser=benepar_en3, or parser=local"):
        Store(tmp_path, trainer=TRAINER).fit(node(data=data()))


def test_its_own_quality_is_measured_on_gold_trees(first):
    _, parser = first
    found = parser.quality(parser.corpus)
    assert set(found) == {"f1", "tag_accuracy"} and found["f1"]["n"] == 60
    assert 0 <= found["f1"]["mean"] <= 1 and 0 <= found["tag_accuracy"]["mean"] <= 1
    assert quality(parser, []) == {}


def test_a_parser_that_is_right_has_full_marks(first):
    _, parser = first
    examples = parser.corpus.splits["test"]

    class Oracle:
        def parse(self, texts, title=""):
            return [Parse(example.tree, example.tags) for example in examples]

    for gold in (examples, [replace(example, tags=()) for example in examples]):  # whose trees hold them
        assert {name: measure["mean"] for name, measure in quality(Oracle(), gold).items()} == {
            "f1": 1.0, "tag_accuracy": 1.0,
        }  # fmt: skip


@pytest.mark.slow
def test_as_configured_it_learns_the_grammar(tmp_path):
    parser = Store(tmp_path, trainer=TRAINER).fit(composed("data.dev=10", "data.test=200")["parser"])
    found = parser.quality(parser.corpus)
    assert found["f1"]["mean"] >= 0.95 and found["tag_accuracy"]["mean"] >= 0.99
