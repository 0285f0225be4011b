"""What every option of conf/method must keep, with models of random weights.

A new method is found here by its file in conf/method.
"""

import pytest
import torch

from benchmarks.common import Untrained
from diffcontrol.method import Method
from diffcontrol.refused import Refused
from diffcontrol.requests import choose
from tests.composing import composed, options
from tests.fakes import FakeCorpus, FakeTask

TASKS = options("task")
SMALL = ("experiment=tiny", "data.length=12", "data.size=200")
BASE = "guided_diffusion"  # candidates are chosen among its texts


@pytest.fixture(scope="module")
def store():
    return Untrained()


def rows(option: str, task: str) -> dict:
    """Name → node of the rows that the option brings."""
    cfg = composed(*SMALL, f"task={task}", f"method=[{BASE},{option}]" if option != BASE else f"method={BASE}")
    known = {"unguided"} | ({BASE} if option != BASE else set())
    return {name: node for name, node in cfg["method"].items() if name not in known}


def serves(node: dict, task: str, store: Untrained) -> bool:
    """Whether it is applicable to the task; anything but `Refused` is an error."""
    cfg = composed(*SMALL, f"task={task}")
    try:
        Method.check_node(node, {task: store.build(cfg["task"][task])}, store.build(cfg["data"]))
    except Refused as refused:
        assert str(refused)
        return False
    return True


@pytest.fixture(scope="module", params=options("method"))
def written(request, store):
    """Each of its methods with requests that they are applicable to, what it wrote for them, and what that cost."""
    first = ["semantic_content", *(task for task in TASKS if task != "semantic_content")]
    task = next(task for task in first if all(serves(n, task, store) for n in rows(request.param, task).values()))
    cfg = composed(*SMALL, f"task={task}")
    requests = choose({task: store.build(cfg["task"][task])}, store.build(cfg["data"]), "heldout", 2, 0, "error")
    found = []
    for node in rows(request.param, task).values():
        method = store.build(node)
        before = evaluations(method)
        texts = method.generate(requests, 1)
        found.append((method, requests, texts, evaluations(method) - before))
    return found


def evaluations(method: Method) -> int:
    assert all(isinstance(model, torch.nn.Module) for model in method.models())
    return sum(getattr(model, "token_evaluations", 0) for model in method.models())


@pytest.mark.parametrize("option", ["fudge", "rejection", "finetuned", "conditional"])
def test_a_method_that_learns_from_targets_needs_two_of_them(option):
    (node, *_) = rows(option, "first_word").values()
    texts = FakeCorpus()  # each has the word a
    Method.check_node(node, {"first_word": FakeTask(["a", "cat"], texts)}, texts)
    with pytest.raises(Refused, match=f"{option}: its model of first_word .* have 1; it needs at least 2"):
        Method.check_node(node, {"first_word": FakeTask(["a"], texts)}, texts)


def test_it_writes_a_text_of_known_words_for_every_request(written, store):
    known = set(store.build(composed(*SMALL)["data"]).vocabulary.words)
    for _, requests, texts, _ in written:
        assert [len(own) for own in texts] == [1] * len(requests)
        for request, (text,) in zip(requests, texts, strict=True):
            assert all(word in known or word in request.source.words for word in text)


def test_the_same_seed_gives_the_same_texts(written):
    for method, requests, texts, _ in written:
        assert method.generate(requests, 1) == texts


def test_its_models_are_those_that_run(written):
    for method, _, _, cost in written:
        assert cost > 0 or not method.models()


def test_it_has_an_opinion_of_finished_texts_or_says_that_it_has_none(written):
    for method, requests, texts, _ in written:
        try:
            opinion = method.opinion(requests, [own[0] for own in texts])
        except Refused:
            continue
        assert opinion.shape == (len(requests),) and opinion.isfinite().all()
