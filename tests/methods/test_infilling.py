import pytest
import torch
from diffcontrol.tasks.infilling import Infilling

from diffcontrol.autoregressive.causal_lm import CausalLM
from diffcontrol.methods.constrained import Constrained
from diffcontrol.methods.infilling import Infill, Infiller, LeftOnly
from diffcontrol.methods.smc import Smc
from diffcontrol.task import Request
from tests.fakes import GPT2, OPTIM, FakeCorpus, FakeTask, train

TARGET = {"left": ["a"], "right": ["sees", "the", "cat"], "length": None}


@pytest.fixture(scope="module")
def task() -> Infilling:
    task = Infilling(FakeCorpus(64), length="free")
    task.annotate = lambda example: {"words": list(example.words), "gaps": [[1, len(example.words) - 1]]}
    return task


@pytest.fixture(scope="module")
def infiller(task) -> Infiller:
    torch.manual_seed(0)
    return Infiller(task.corpus, task, GPT2 | {"width": 32}, OPTIM | {"lr": 1e-2})


def test_a_row_is_the_prompt_and_the_middle_of_which_the_middle_counts(infiller):
    ids, written = infiller.collate(carriers := infiller.carriers[:3].tolist())
    words = {number: word for word, number in infiller.ids.items()} | {infiller.separator: "|"}
    for i, row, own in zip(carriers, ids, written, strict=True):
        said = [words[n] for n in row.tolist()]
        gap, cut = said.index("[]"), said.index("|")
        middle = [words[n] for n in row[own].tolist()]
        assert middle[-1] == "END" and said[cut + 1 :][: len(middle)] == middle
        whole = [*said[1:gap], *middle[:-1], *said[gap + 1 : cut]]
        assert tuple(whole) == infiller.corpus.splits["train"][i].words


def test_both_contexts_stand_around_what_is_written(task, infiller):
    losses = train(infiller, 60)
    assert losses[-1] < 0.7 * losses[0]
    method = Infill({"gap": task}, {"gap": infiller}, seed=1)
    texts = method.generate([Request({"gap": TARGET}), Request({"gap": TARGET | {"left": ["a", "big"]}})], 4)
    assert all(text[0] == "a" and text[-3:] == TARGET["right"] for group in texts for text in group)
    assert all(text[:2] == ["a", "big"] for text in texts[1])
    assert not {"UNK", "PAD", "START", "END", "[]"} & {word for group in texts for text in group for word in text}
    assert method.generate([Request({"gap": TARGET})], 2) == method.generate([Request({"gap": TARGET})], 2)
    assert infiller.token_evaluations > 0


def test_the_left_context_alone_and_no_more_words_than_are_asked_for(task):
    torch.manual_seed(0)
    lm = CausalLM(task.corpus, GPT2, OPTIM)
    targets = [TARGET | {"length": n} for n in (1, [1, 2], None)]
    texts = LeftOnly({"gap": task}, lm).generate([Request({"gap": target}) for target in targets], 3)
    middles = [[text[1:-3] for text in group] for group in texts]
    assert all(len(middle) <= 1 for middle in middles[0]) and all(len(middle) <= 2 for middle in middles[1])
    assert all(text[0] == "a" and text[-3:] == TARGET["right"] for group in texts for text in group)


@pytest.mark.parametrize("made", ["infill", "left_only"])
def test_no_text_is_longer_than_its_model_reads(task, infiller, made):
    torch.manual_seed(0)
    method = (Infill({"gap": task}, {"gap": infiller}) if made == "infill"
              else LeftOnly({"gap": task}, CausalLM(task.corpus, GPT2, OPTIM)))  # fmt: skip
    most = task.corpus.length - 2
    around = [TARGET | {"left": ["a"] * (most - 3 - room)} for room in (1, 2, 4)]
    texts = method.generate([Request({"gap": target}) for target in around], 6)
    assert max(len(text) for group in texts for text in group) == most
    assert all(text[-3:] == TARGET["right"] for group in texts for text in group)


def test_tasks_without_a_gap_are_refused_before_anything_is_trained(task):
    for method in (Infill, LeftOnly):
        with pytest.raises(ValueError, match="writes between given words, which colour does not ask for"):
            method.check({}, {"colour": FakeTask()}, task.corpus)


def test_a_task_with_a_gap_is_enough(task):
    Infill.check({}, {"colour": FakeTask(), "gap": task}, task.corpus)


@pytest.mark.parametrize("method", [
    lambda lm, task: Constrained(lm, {"gap": task}), lambda lm, task: Smc(lm, {"gap": task}, particles=3),
])  # fmt: skip
def test_a_context_keeps_the_words_that_the_vocabulary_lacks(task, method):
    lm = CausalLM(task.corpus, GPT2, OPTIM)
    target = task.parse({"left": ["the", "zyxw"], "right": ["quux", "."], "length": 2})
    (texts,) = method(lm, task).generate([Request({"gap": target})], 3)
    for text in texts:
        assert text[:2] == ["the", "zyxw"] and text[-2:] == ["quux", "."] and len(text) == 6
    assert task.success(texts, [target] * 3)["strict"] == [1.0, 1.0, 1.0]
