"""Lookahead: exact where the language model is the HMM's, never a dead end, and weighed to be exact with particles."""

import math

import pytest
import torch
from diffcontrol.tasks.length import Length
from diffcontrol.tasks.parts_of_speech import PartsOfSpeech
from diffcontrol.tasks.semantic_content import SemanticContent

from diffcontrol.automaton import Some, anything, pattern, words
from diffcontrol.autoregressive.causal_lm import CausalLM
from diffcontrol.autoregressive.hmm import Hmm
from diffcontrol.draws import Draws
from diffcontrol.method import Method
from diffcontrol.methods.lookahead import Lookahead
from diffcontrol.methods.smc import Smc
from diffcontrol.task import Request
from diffcontrol.text import END, START
from tests.fakes import GPT2, OPTIM, FakeCorpus, FakeTask
from tests.toy_lm import distance, posterior, toy_lm, written

NODE = {"_target_": "diffcontrol.methods.lookahead.Lookahead"}


class Says(FakeTask):
    """The text says "a b"."""

    def automaton(self, vocabulary):
        size, ids = len(vocabulary), vocabulary.ids
        anywhere = Some(anything(size), 0, None)
        found = pattern([anywhere, *(Some(words([ids[word]], size)) for word in "ab"), anywhere], size)
        return lambda target: found


def says(text: str) -> float:
    return float("ab" in text)


@pytest.fixture(scope="module")
def lm() -> CausalLM:
    return toy_lm(8)


@pytest.fixture(scope="module")
def twin(lm) -> Hmm:
    """An HMM that is the bigram model: its hidden state is the word itself."""
    size = len(lm.corpus.vocabulary)
    hmm = Hmm(lm.corpus, lm, OPTIM, size)
    log_p = lm.network.table.detach().clone()
    log_p[:, [0, 2, 3]] = -1e4  # START, UNK, PAD
    hmm.first.data, hmm.following.data = log_p[START][None], log_p
    hmm.written.data = torch.full((size, size), -1e4).fill_diagonal_(0.0)
    return hmm


@pytest.fixture(scope="module")
def stranger(lm) -> Hmm:
    torch.manual_seed(5)
    return Hmm(lm.corpus, lm, OPTIM, 4)


def test_with_the_language_models_own_outlook_texts_are_exact(lm, twin):
    exact, evidence = posterior(lm, says)
    method = Lookahead(lm, twin, {"t": Says()})
    assert distance(written(method, 1500), exact) < 0.06
    found = method.ended([Request({"t": "red"})] * 20, Draws(range(20)), lambda done: None)
    torch.testing.assert_close(found.weight - found.debt, torch.full((20,), math.log(evidence)), atol=1e-3, rtol=1e-3)


def test_another_outlook_is_corrected_by_particles(lm, stranger):
    exact, _ = posterior(lm, says)
    off = [distance(written(Lookahead(lm, stranger, {"t": Says()}, particles=n), 600), exact) for n in (1, 40)]
    assert off[0] > 0.12 and off[1] < 0.1


def test_every_text_is_accepted_and_none_runs_into_a_dead_end(lm, stranger):
    texts = written(Lookahead(lm, stranger, {"t": Says()}), 300)
    assert all(map(says, texts))


@pytest.fixture(scope="module")
def corpus() -> FakeCorpus:
    return FakeCorpus()


def test_tasks_together_are_the_product_of_their_automata(corpus):
    torch.manual_seed(0)
    lm = CausalLM(corpus, GPT2, OPTIM).eval()
    hmm = Hmm(corpus, lm, OPTIM, 6)
    tasks = {"tags": PartsOfSpeech(corpus), "content": SemanticContent(corpus), "length": Length(corpus)}
    targets = [
        {"tags": list(e.universal), "content": ["animal", e.fields["animal"]], "length": len(e.words)}
        for e in corpus.splits["test"]
    ]
    seen = {(w, t) for e in corpus.splits["train"] for w, t in zip(e.words, e.universal, strict=True)}
    method = Lookahead(lm, hmm, tasks)
    for (text,), target in zip(method.generate([Request(t) for t in targets], 1), targets, strict=True):
        assert len(text) == target["length"] and set(zip(text, target["tags"], strict=True)) <= seen
        assert target["content"][1] in text


def test_what_cannot_be_is_an_empty_text(corpus):
    torch.manual_seed(0)
    lm = CausalLM(corpus, GPT2, OPTIM).eval()
    tasks = {"tags": PartsOfSpeech(corpus), "length": Length(corpus)}
    method = Lookahead(lm, Hmm(corpus, lm, OPTIM, 6), tasks)
    assert method.generate([Request({"tags": ["DET", "NOUN"], "length": 5})], 2) == [[[], []]]


def test_a_task_without_automaton_is_refused_at_once(corpus):
    with pytest.raises(ValueError, match="lookahead.*: no automaton says which texts meet a target of FakeTask"):
        Method.check_node(NODE, {"t": FakeTask()}, corpus)
    Method.check_node(NODE, {"t": Length(corpus)}, corpus)


def test_it_is_a_kind_of_smc_with_one_particle(lm, twin):
    method = Lookahead(lm, twin, {"t": Says()})
    assert isinstance(method, Smc) and method.particles == 1 and method.models() == [lm, twin]
    assert END not in written(method, 3)
