"""What every task of conf/task must keep, on the embedded data."""

import json
import random

import pytest
import torch

from diffcontrol.evaluation import evaluate
from diffcontrol.layout import of_text
from diffcontrol.report.texts import pieces
from diffcontrol.store import Store
from diffcontrol.task import ControlTask, Request
from diffcontrol.text import SPECIALS
from tests.composing import composed, options
from tests.gold_parser import GoldLabels, GoldParser

SMALL = ["data.size=300", "data.dev=20", "data.test=60"]


@pytest.fixture(scope="module", params=options("task"))
def task(request, tmp_path_factory) -> ControlTask:
    store = Store(tmp_path_factory.mktemp("store"), trainer={"accelerator": "cpu", "enable_progress_bar": False})
    gold = f"task.{request.param}.data=${{data}}"  # its trees and tags are gold, and made in no time
    return store.build(composed(f"task={request.param}", *SMALL, gold)["task"][request.param])


@pytest.fixture(scope="module")
def judges(task) -> dict:
    return {"parser": GoldParser(task.corpus), "labels": GoldLabels(task.corpus)}


@pytest.fixture(scope="module")
def found(task):
    """Test sentences with their annotation and what of it may be asked for."""
    annotated = [(example, task.annotate(example)) for example in task.corpus.splits["test"]]
    return [(example, annotation, task.targets(annotation)) for example, annotation in annotated]


def test_what_annotate_finds_success_accepts(task, found, judges):
    pairs = [(example.words, target) for example, _, targets in found for target in targets]
    assert len(pairs) >= 30
    scores = task.success([words for words, _ in pairs], [target for _, target in pairs], judges)
    assert {"strict", "released"} <= set(scores)
    missed = [pair for pair, score in zip(pairs, scores["strict"], strict=True) if score != 1]
    assert missed == []
    assert all(0 <= score <= 1 for values in scores.values() for score in values)
    assert all(len(values) == len(pairs) for values in scores.values())


def test_a_text_of_nothing_obeys_nothing(task, found, judges):
    targets = [targets[0] for _, _, targets in found if targets]
    scores = task.success([[]] * len(targets), targets, judges)
    assert max(scores["strict"]) < 1


def test_marks_lie_within_the_text_and_any_two_are_nested_or_apart(task, found, judges):
    """Of texts that obey, of those of other targets, such as were cut, and of none."""
    rng = random.Random(0)
    obeying = [(list(example.words), target) for example, _, targets in found for target in targets]
    rows = obeying[:40]
    rows += [(rng.choice(obeying)[0], target) for _, target in rng.sample(obeying, 30)]
    rows += [(words[: rng.randrange(4)], target) for words, target in rng.sample(obeying, 30)]
    texts, targets = zip(*rows, strict=True)
    marked = task.marks(texts, targets, judges)
    assert len(marked) == len(texts)
    for words, marks in zip(texts, marked, strict=True):
        assert all(isinstance(mark.met, bool) and mark.label for mark in marks)
        pieces(words, marks)  # raises where a mark is not as it should be
    assert all(any(mark.met for mark in marks) for marks in marked[: len(obeying[:40])] if marks)


class Teacher:
    def nll(self, texts):
        return [1.0] * len(texts), [1] * len(texts)


def test_a_text_with_a_special_word_in_it_obeys_nothing(task, found, judges):
    """Wherever it stands, beside the words or in the place of one."""
    rng = random.Random(0)
    obeying = [(list(example.words), target) for example, _, targets in found for target in targets]
    rows = []
    for words, target in rng.sample(obeying, 30):
        place, special = rng.randrange(len(words)), rng.choice(SPECIALS)
        rows += [(words, target), ([*words[:place], special, *words[place:]], target)]
        rows += [([*words[:place], special, *words[place + 1 :]], target)]
    requests = [Request({"task": target}) for _, target in rows]
    scores = evaluate([[text] for text, _ in rows], requests, {"task": task}, {**judges, "teacher": Teacher()})
    assert scores.success["task"]["strict"][:, 0].tolist() == [1.0, 0.0, 0.0] * 30


def test_a_target_needs_no_more_words_than_the_sentence_it_is_true_of(task, found):
    for example, _, targets in found:
        for target in targets:
            words, least = task.words(target), task.least_words(target)
            assert words in (None, len(example.words)) and (words or 0) <= least <= len(example.words)


def test_targets_can_be_written_to_a_file_and_parsed(task, found):
    for _, _, targets in found:
        for target in targets:
            assert task.parse(json.loads(json.dumps(target))) == json.loads(json.dumps(target))


def test_prompts_are_words_and_tell_targets_apart(task, found):
    prompts = {}
    for _, _, targets in found:
        for target in targets:
            words = task.serialize(target)
            assert words and all(isinstance(word, str) and word and " " not in word for word in words)
            prompts.setdefault(tuple(words), json.dumps(target))
            assert prompts[tuple(words)] == json.dumps(target)


def test_what_is_fixed_stands_in_the_source_sentence(task, found):
    """Some layout of every target agrees with the text that it is an annotation of, END and PAD included."""
    for example, _, targets in found:
        whole = of_text(dict(enumerate(example.words, 1)), len(example.words) + 1, task.corpus.length)
        for target in targets:
            layouts = task.layouts(target)
            assert not layouts or any(layout.words.items() <= whole.words.items() for layout in layouts)


@pytest.mark.parametrize("nonsense", ["", "no such thing", 3.5, None, [], {}, ["nosuch", "thing"]])
def test_nonsense_is_no_target(task, nonsense):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        task.parse(nonsense)


@pytest.fixture(scope="module")
def automaton(task):
    """target → automaton, if the task has them; one without says so in a sentence."""
    try:
        return task.automaton(task.corpus.vocabulary)
    except ValueError as error:
        assert "no automaton says" in str(error)
        pytest.skip(str(error))


def accepted(task, make, texts, targets) -> list[bool]:
    encoded = torch.stack([task.corpus.vocabulary.encode(text, task.corpus.length) for text in texts])
    made = {key: make(json.loads(key)) for key in {json.dumps(target) for target in targets}}
    return [bool(made[json.dumps(target)].accepts(row[None])) for target, row in zip(targets, encoded, strict=True)]


def test_the_automaton_accepts_training_texts_of_their_own_targets(task, automaton):
    examples = task.corpus.splits["train"][:60]
    pairs = [(e.words, target) for e in examples for target in task.targets(task.annotate(e))[:3]]
    assert len(pairs) >= 30 and all(accepted(task, automaton, *zip(*pairs, strict=True)))


def test_the_automaton_accepts_what_success_accepts(task, automaton, found):
    """On texts of the corpus, such as were cut, joined, shuffled, and mixtures of their words; with targets of any."""
    known, rng = task.corpus.vocabulary.ids, random.Random(0)
    sources = [example.words for example, *_ in found if set(example.words) <= set(known)]
    targets = [target for _, _, own in found for target in own]
    pairs = []
    for _ in range(150):
        target, one, two = rng.choice(targets), *rng.sample(sources, 2)
        asked = [word for word in task.serialize(target) if word in known]
        mixed = rng.choices([*one, *asked, *asked], k=rng.randint(1, 20))
        at = rng.randrange(len(one))
        for text in (one, one[:at], [*two[: rng.randrange(9)], *one[at:]], rng.sample(one, len(one)), mixed):
            pairs.append((list(text)[: task.corpus.length - 2], target))
    pairs += [(example.words, own[0]) for example, _, own in found if own and example.words in sources]
    texts, wanted = zip(*pairs, strict=True)
    try:
        strict = task.success(texts, wanted)["strict"]
    except ValueError:
        pytest.skip("what its success is needs a judge, and the automaton knows no more than which texts may have it")
    right = accepted(task, automaton, texts, wanted)
    assert [float(good) for good in right] == [float(score == 1) for score in strict] and 0 < sum(right) < len(right)


@pytest.fixture(scope="module")
def headed(task) -> ControlTask:
    """The task, if it has a head; one without says so in a sentence."""
    try:
        task.head(12)
    except ValueError as error:
        assert "has no head" in str(error)
        pytest.skip(str(error))
    return task


def test_the_head_scores_a_target_a_row(headed, task, found):
    rows = [(example, annotation, targets[0]) for example, annotation, targets in found if targets][:4]
    torch.manual_seed(0)
    head, hidden = task.head(12), torch.randn(4, task.corpus.length, 12, requires_grad=True)
    targets = [target for *_, target in rows]
    log_prob = head.log_prob(hidden, targets)
    assert log_prob.shape == (4,) and (log_prob <= 0).all() and log_prob.isfinite().all()
    one_by_one = [head.log_prob(hidden[i : i + 1], targets[i : i + 1])[0] for i in range(4)]
    torch.testing.assert_close(log_prob, torch.stack(one_by_one), atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(log_prob.sum(), hidden)
    assert (gradient.abs().sum((1, 2)) > 0).all()
    loss = head.loss(hidden, [annotation for _, annotation, _ in rows])
    assert loss.shape == () and loss.isfinite()


def test_training_the_head_raises_the_probability_of_what_is_there(headed, task, found):
    rows = [(annotation, targets[0]) for _, annotation, targets in found if targets][:4]
    torch.manual_seed(0)
    head, hidden = task.head(12), torch.randn(4, task.corpus.length, 12)
    annotations, targets = [a for a, _ in rows], [t for _, t in rows]
    before = head.log_prob(hidden, targets)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        head.loss(hidden, annotations).backward()
        optimiser.step()
    assert (head.log_prob(hidden, targets) > before).all()
