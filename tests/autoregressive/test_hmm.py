"""An HMM of three states on texts of three letters, against sums over all paths and all texts."""

import itertools

import pytest
import torch

from diffcontrol.automaton import Some, anything, pattern, words
from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN, CausalLM
from diffcontrol.autoregressive.hmm import Hmm, Outlook, sampled
from diffcontrol.text import END, PAD, START
from tests.fakes import GPT2, OPTIM, FakeCorpus, train
from tests.toy_lm import MOST, distance, posterior, texts, toy_lm

STATES = 3


@pytest.fixture(scope="module")
def lm() -> CausalLM:
    return toy_lm(8)


@pytest.fixture(scope="module")
def hmm(lm) -> Hmm:
    torch.manual_seed(1)
    return Hmm(lm.corpus, lm, OPTIM, STATES, samples=60)


def laid(lm: CausalLM, text) -> torch.Tensor:
    return lm.corpus.vocabulary.encode(text, lm.corpus.length)[None]


def by_paths(hmm: Hmm, ids: list[int]) -> float:
    """p(ids), a sum over all sequences of hidden states."""
    first, following, written = (p.detach() for p in hmm.probabilities())
    total = 0.0
    for path in itertools.product(range(STATES), repeat=len(ids)):
        p = first[path[0]] * written[path[0], ids[0]]
        for (one, two), i in zip(itertools.pairwise(path), ids[1:], strict=True):
            p = p * following[one, two] * written[two, i]
        total += float(p)
    return total


def test_the_likelihood_is_a_sum_over_all_paths(lm, hmm):
    for text in texts()[::7]:
        ids = [*(lm.corpus.vocabulary.ids[word] for word in text), END]
        assert hmm.log_likelihood(laid(lm, text)).exp().item() == pytest.approx(by_paths(hmm, ids), rel=1e-4)
    whole = torch.cat([laid(lm, text) for text in texts()])
    torch.testing.assert_close(hmm.log_likelihood(whole)[5], hmm.log_likelihood(whole[5:6])[0])
    assert (hmm.probabilities()[2][:, list(NEVER_WRITTEN)] == 0).all()


def patterns(lm: CausalLM):
    size, ids = len(lm.corpus.vocabulary), lm.corpus.vocabulary.ids
    anywhere, one = Some(anything(size), 0, None), {w: Some(words([ids[w]], size)) for w in "abc"}
    either = Some(words([ids["a"], ids["b"]], size))
    phrase = pattern([anywhere, one["a"], one["b"], anywhere], size)
    return {
        "phrase": (phrase, lambda t: "ab" in t),
        "length": (pattern([Some(anything(size), 3, 3)], size), lambda t: len(t) == 3),
        "tags": (pattern([either, one["c"]], size), lambda t: t in ("ac", "bc")),
        "gap": (pattern([one["a"], Some(anything(size), 1, 2), one["c"]], size),
                lambda t: 3 <= len(t) <= 4 and t[0] == "a" and t[-1] == "c"),
        "both": (phrase & pattern([Some(anything(size), 3, 3)], size), lambda t: "ab" in t and len(t) == 3),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["phrase", "length", "tags", "gap", "both"])
def test_the_outlook_is_a_sum_over_all_texts(lm, hmm, name):
    """After every prefix: p(it is accepted | prefix, next word), and p(next word | prefix)."""
    automaton, meant = patterns(lm)[name]
    outlook, ids = Outlook(hmm.probabilities(), automaton, MOST + 1), lm.corpus.vocabulary.ids
    exact = {"".join(t): hmm.log_likelihood(laid(lm, t)).exp().item() * meant("".join(t)) for t in texts()}
    for prefix in ("", "a", "ca", "cab", "bb", "abca"):
        state, hidden, p = automaton.start, outlook.first, 1.0
        for word in prefix:
            p *= float((outlook.written[:, ids[word]] * hidden).sum())
            state, hidden = int(automaton.next[state, ids[word]]), outlook.next_hidden(hidden, ids[word])
        met, written = outlook.of_words(state, hidden, outlook.most - len(prefix))
        assert written.sum() == pytest.approx(1, abs=1e-6)
        for word in "abc":
            expected = sum(q for text, q in exact.items() if text.startswith(prefix + word))
            assert p * met[ids[word]].item() == pytest.approx(expected, rel=1e-4, abs=1e-12)
        assert p * met[END].item() == pytest.approx(exact[prefix], rel=1e-4, abs=1e-12)
        assert met[[START, PAD]].eq(0).all() and (met <= written + 1e-12).all()


def test_samples_are_the_language_models_and_a_function_of_the_seed(lm):
    generator = torch.Generator().manual_seed(0)
    found = sampled(lm, 3000, generator)
    assert (found[:, 0] == START).all() and found.shape == (3000, lm.corpus.length)
    ended = [row for row in found.tolist() if END in row]
    exact, share = posterior(lm, lambda text: 1.0)
    assert len(ended) / 3000 == pytest.approx(share, abs=0.03)
    assert distance(["".join(lm.corpus.vocabulary.decode(row)) for row in ended], exact) < 0.06
    one, two = (Hmm(lm.corpus, lm, OPTIM, STATES, samples=700).texts for _ in range(2))
    assert torch.equal(one, two) and len(one) == 700 and not torch.equal(one[:200], one[500:])


def test_training_comes_near_the_language_model():
    corpus = FakeCorpus()
    torch.manual_seed(0)
    lm = CausalLM(corpus, {**GPT2, "width": 32}, {**OPTIM, "batch_size": 16, "lr": 5e-3})
    train(lm, 250)
    hmm = Hmm(corpus, lm, {**OPTIM, "lr": 5e-2, "batch_size": 32, "weight_decay": 0.0}, 16, samples=500)
    held_out = sampled(lm, 300, torch.Generator().manual_seed(9))
    before = hmm.losses(held_out)["nll"].item()
    train(hmm, 200)
    nats, count = lm.nll([corpus.vocabulary.decode(row) for row in held_out.tolist()])
    entropy = sum(nats) / sum(count)
    assert before > 2.5 * entropy and hmm.losses(held_out)["nll"].item() < 1.15 * entropy
