"""Constraints on single words: nothing forbidden is ever written, and what each constraint says in numbers."""

import math

import pytest
import torch
from diffcontrol.tasks.parts_of_speech import PartsOfSpeech
from diffcontrol.tasks.semantic_content import SemanticContent
from diffcontrol.tasks.syntax_spans import SyntaxSpans

from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN, CausalLM
from diffcontrol.method import Method
from diffcontrol.methods.constrained import Constrained, ConstrainedProcessor
from diffcontrol.rules import Ends, Labelled, Lexicon
from diffcontrol.task import Request
from diffcontrol.text import END, START
from tests.fakes import GPT2, OPTIM, FakeCorpus, FakeTask

NODE = {"_target_": "diffcontrol.methods.constrained.Constrained"}


@pytest.fixture(scope="module")
def corpus() -> FakeCorpus:
    return FakeCorpus()


@pytest.fixture(scope="module")
def lm(corpus: FakeCorpus) -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(corpus, GPT2, OPTIM).eval()


class OfLength(FakeTask):
    """Texts of a number of words, as the task `length` asks for."""

    def rule(self, vocabulary):
        return lambda length: Ends(length, vocabulary)


def write(lm, tasks, targets):
    return [text for (text,) in Constrained(lm, tasks).generate([Request(t) for t in targets], 1)]


def test_a_lexicon_counts_labels_of_words(corpus):
    lexicon = Lexicon([(("cat", "red", "unheard"), ("N", "A", "N")), (("red", "red"), ("A", "N"))])
    added = lexicon.factors("A", corpus.vocabulary)
    assert added[corpus.vocabulary.ids["red"]].item() == pytest.approx(math.log(2 / 3))
    assert added.isfinite().sum() == 1
    assert (lexicon.factors("nosuch", corpus.vocabulary) == 0).all()  # nothing is known of it


def test_lengths_are_exact(lm):
    lengths = [1, 3, 8, 5, 2, 8] * 3
    texts = write(lm, {"length": OfLength()}, [{"length": length} for length in lengths])
    assert list(map(len, texts)) == lengths


def test_near_temperature_0_the_likeliest_text_is_written(lm):
    request = Request({"length": 6})
    method = Constrained(lm, {"length": OfLength()}, temperature=1e-4)
    ((one, *others),) = method.generate([request], 5)
    assert len(one) == 6 and all(text == one for text in others)
    ((one, *others),) = Constrained(lm, {"length": OfLength()}).generate([request], 5)
    assert any(text != one for text in others)


def test_every_word_can_have_its_tag(corpus, lm):
    task = PartsOfSpeech(corpus)
    seen = {(w, t) for e in corpus.splits["train"] for w, t in zip(e.words, e.universal, strict=True)}
    targets = [list(example.universal) for example in corpus.splits["test"]]
    for text, tags in zip(write(lm, {"t": task}, [{"t": t} for t in targets]), targets, strict=True):
        assert len(text) == len(tags) and set(zip(text, tags, strict=True)) <= seen


def test_the_weight_multiplies_what_is_allowed_and_lifts_no_ban(corpus):
    lexicon = Lexicon([(("red", "cat"), ("A", "N")), (("red", "red"), ("A", "N"))])
    constraint, scores = Labelled(lexicon, ["A"], corpus.vocabulary), torch.randn(1, len(corpus.vocabulary))
    red, start = corpus.vocabulary.ids["red"], torch.tensor([[START]])
    for weight in (0.0, 1.0, 2.0):
        found = ConstrainedProcessor([[constraint]], weight)(start, scores)[0]
        assert found[red].item() == pytest.approx(scores[0, red].item() + weight * math.log(2 / 3), abs=1e-6)
        assert found.isfinite().sum() == 1


def test_no_end_before_the_mention(corpus, lm):
    task = SemanticContent(corpus)
    targets = [["colour", "red"], ["animal", "bird"]] * 10
    texts = write(lm, {"t": task}, [{"t": target} for target in targets])
    assert all(target[1] in text for target, text in zip(targets, texts, strict=True))  # at the last place if need be
    mention = task.rule(corpus.vocabulary)(["colour", "red"])
    ids = corpus.vocabulary.ids
    before, after = mention.factors([ids["a"]]), mention.factors([ids["a"], ids["red"]])
    assert before[END] == -torch.inf and before[ids["red"]] > 0 == before[ids["cat"]]
    assert after[END] == after[ids["red"]] == 0
    assert before[ids["blue"]] == after[ids["blue"]] == -torch.inf  # another value of the field


def test_texts_say_the_value_and_no_other(corpus, lm):
    task = SemanticContent(corpus)
    targets = [["colour", "red"], ["animal", "bird"], ["animal", "cat"]] * 10
    texts = write(lm, {"t": task}, [{"t": target} for target in targets])
    assert set(task.success(texts, targets)["strict"]) == {1}


def test_begun_forms_are_gone_on_with(corpus):
    task, ids = SemanticContent(corpus), corpus.vocabulary.ids
    task.__dict__["forms"] = task.forms | {"colour": [(" big red cat ", "red")]}
    mention = task.rule(corpus.vocabulary)(["colour", "red"])
    added = mention.factors([ids["a"], ids["big"]])
    assert added[ids["red"]] == 2 * added[ids["big"]] >= 2 * mention.BONUS
    added = mention.factors([ids["big"], ids["red"]])
    assert added[ids["cat"]] == 3 * added[ids["big"]] > 3 * mention.BONUS


def test_two_tasks_that_leave_no_word_end_the_text(corpus, lm):
    tasks = {"tags": PartsOfSpeech(corpus), "length": OfLength()}
    texts = write(lm, tasks, [{"tags": ["DET", "NOUN", "VERB"], "length": 5}] * 4)
    assert [len(text) for text in texts] == [3] * 4
    scores = ConstrainedProcessor([[]])(torch.tensor([[START]]), torch.zeros(1, len(corpus.vocabulary)))
    assert scores[0, list(NEVER_WRITTEN)].isneginf().all()


@pytest.mark.parametrize("task", [FakeTask(), SyntaxSpans(FakeCorpus())], ids=["default", "spans"])
def test_a_task_without_constraint_is_refused_at_once(corpus, task):
    with pytest.raises(
        ValueError, match="constrained: .* no rule on single words makes a text meet a target|constrained: no"
    ):
        Method.check_node(NODE, {"task": task}, corpus)
    Method.check_node(NODE, {"task": PartsOfSpeech(corpus)}, corpus)
