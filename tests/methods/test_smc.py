"""SMC on a language model so small that the posterior is a sum over all texts."""

import math

import pytest
import torch
from diffcontrol.tasks.parts_of_speech import PartsOfSpeech
from diffcontrol.tasks.semantic_content import SemanticContent

from diffcontrol.automaton import Some, anything, pattern, words
from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN, CausalLM
from diffcontrol.autoregressive.particles import systematic
from diffcontrol.autoregressive.predictor import Predictor
from diffcontrol.autoregressive.writing import Writing
from diffcontrol.draws import Draws
from diffcontrol.method import Method
from diffcontrol.methods import smc
from diffcontrol.methods.constrained import Constrained
from diffcontrol.methods.smc import Smc
from diffcontrol.rules import Ends, Follows, Rule
from diffcontrol.store import Store
from diffcontrol.task import Request
from diffcontrol.text import END, START
from tests.composing import composed
from tests.fakes import GPT2, OPTIM, FakeCorpus, FakeTask
from tests.toy_lm import distance, posterior, toy_lm, written

NODE = {"_target_": "diffcontrol.methods.smc.Smc"}


@pytest.fixture(scope="module")
def toy() -> CausalLM:
    return toy_lm(8)


class Says(FakeTask):
    """The text says "a b"."""

    def rule(self, vocabulary):
        size, ids = len(vocabulary), vocabulary.ids
        anywhere = Some(anything(size), 0, None)
        phrase = [Some(words([ids[word]], size)) for word in "ab"]
        return lambda target: Follows(pattern([anywhere, *phrase, anywhere], size), 4)


class Unsure(Rule):
    """Each letter obeys with a probability of its own."""

    ODDS = {"a": 0.9, "b": 0.05, "c": 0.4}  # noqa: RUF012

    def __init__(self, vocabulary):
        self.added = torch.zeros(len(vocabulary))
        for word, p in self.ODDS.items():
            self.added[vocabulary.ids[word]] = math.log(p)

    def factors(self, words):
        return self.added


class Hinted(Unsure):
    """The same, but words are drawn by what leads elsewhere."""

    def weighed(self, words):
        return -0.3 * self.added + 0.2 * len(words), self.added


class Liked(FakeTask):
    def __init__(self, kind=Unsure):
        super().__init__()
        self.kind = kind

    def rule(self, vocabulary):
        return lambda target: self.kind(vocabulary)


def likes(text: str) -> float:
    return math.prod(Unsure.ODDS[word] for word in text)


def says(text: str) -> float:
    return float("ab" in text)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(("task", "obeys"), [
    pytest.param(Says(), says, marks=SLOW), (Liked(), likes), pytest.param(Liked(Hinted), likes, marks=SLOW),
])  # fmt: skip
def test_with_more_particles_texts_come_to_be_those_of_the_posterior(toy, task, obeys):
    exact, _ = posterior(toy, obeys)
    off = [distance(written(Smc(toy, {"t": task}, particles=n), 2400), exact) for n in (1, 5, 60)]
    assert off[0] > 0.2 and off[0] > off[1] > off[2] and off[2] < 0.1


def test_constrained_is_not_the_posterior(toy, monkeypatch):
    """It is what one particle is, however often it is sampled."""
    exact, _ = posterior(toy, says)
    monkeypatch.setattr(toy, "generate", lambda draws, processors, _: sampled(toy, draws, *processors))
    texts = ["".join(text) for text in written(Constrained(toy, {"t": Says()}), 600)]
    assert distance(texts, exact) > 0.2
    one = written(Smc(toy, {"t": Says()}, particles=1), 600)
    assert abs(distance(texts, exact) - distance(one, exact)) < 0.08


@pytest.mark.parametrize("particles", [2, 6])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("task", [Liked(), Liked(Hinted)], ids=["sure", "hinted"])
def test_the_mean_weight_is_the_evidence_without_bias(toy, particles, threshold, task):
    """Σ_x p(x) g(x), for any number of particles and however often they are resampled."""
    method, count = Smc(toy, {"t": task}, particles=particles, threshold=threshold), 2000
    found = method.ended([Request({"t": "red"})] * count, Draws(range(count)), lambda done: None)
    evidence = (found.weight - found.debt).view(count, particles).exp().mean(1)
    assert abs(evidence.mean() - posterior(toy, likes)[1]) < 4 * evidence.std() / count**0.5


def test_temperature_is_the_language_models(toy):
    exact, _ = posterior(toy, says, temperature=0.5)
    assert distance(written(Smc(toy, {"t": Says()}, particles=60, temperature=0.5), 600), exact) < 0.1


def test_a_hint_that_is_taken_back_comes_to_the_same_for_all_mentions():
    """Of semantic content's rule, on forms that begin alike: what draws words adds up to a constant, less bans."""
    task = SemanticContent(FakeCorpus())
    forms = task.forms | {"colour": [(" big red cat ", "red"), (" big big ", "blue"), (" red ", "red")]}
    task.__dict__["forms"] = forms
    ids = task.corpus.vocabulary.ids
    rule = task.rule(task.corpus.vocabulary)(["colour", "red"])
    sums = []
    texts = "red", "big red cat", "the big red cat sees", "a cat sees the big red bird", "big red a big red cat"
    for text in texts:
        numbers = [*(ids[word] for word in text.split()), END]
        pairs = [(rule.weighed(numbers[:i]), word) for i, word in enumerate(numbers)]
        assert all(potential[word] == 0 for (_, potential), word in pairs)
        sums.append(sum(pull[word].item() for (pull, _), word in pairs))
    assert sums == pytest.approx([rule.BONUS] * len(sums), abs=1e-4)
    pull, potential = rule.weighed([ids["a"]])
    assert pull[END] == potential[END] == -torch.inf and pull[ids["red"]] > pull[ids["big"]] > pull[ids["dog"]]


def test_systematic_resampling_keeps_shares():
    shares = torch.tensor([0.0, 0.45, 0.0, 0.3, 0.25, 0.0])
    uniform = Draws([0]).uniform(4000)[0].tolist()
    counts = torch.stack([systematic(shares, u).bincount(minlength=6) for u in uniform]).float()
    assert ((counts - 6 * shares).abs() < 1).all() and (counts[:, shares == 0] == 0).all()
    torch.testing.assert_close(counts.mean(0), 6 * shares, atol=0.04, rtol=0)


def sampled(lm, draws, processor):
    """What `CausalLM.generate` does, of a network that transformers does not know."""
    ids = torch.full((len(draws), 1), START)
    for _ in range(lm.corpus.length - 1):
        scores = processor(ids, lm.network(ids[:, -1:]).logits[:, -1])
        ids = torch.cat([ids, draws.categorical(scores)[:, None]], 1)
    return ids


# --- on a causal LM


@pytest.fixture(scope="module")
def corpus() -> FakeCorpus:
    return FakeCorpus()


@pytest.fixture(scope="module")
def lm(corpus) -> CausalLM:
    torch.manual_seed(0)
    lm = CausalLM(corpus, GPT2, OPTIM).eval()
    for parameter in lm.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return lm


def test_weights_are_those_of_each_text_read_alone(corpus, lm):
    """The model without cache gives every text the weight that it has."""
    method = Smc(lm, {"t": PartsOfSpeech(corpus)}, particles=8, threshold=0.0)  # weights stay apart
    targets = [list(example.universal) for example in corpus.splits["test"][:4]]
    found = method.ended([Request({"t": target}) for target in targets], Draws(range(len(targets))), lambda done: None)
    rules = [method.rules["t"](target) for target in targets]
    for row, text in enumerate(found.words):
        logits = lm.network(torch.tensor([[START, *text[:-1]]])).logits[0]
        logits[:, list(NEVER_WRITTEN)] = -torch.inf
        log_p, weight = logits.log_softmax(1), 0.0
        for i in range(len(text)):
            weight += (log_p[i] + rules[row // 8].factors(text[:i])).logsumexp(0).item()
        assert found.weight[row].item() == pytest.approx(weight, abs=1e-3)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 1.0])
def test_every_text_obeys(corpus, lm, threshold):
    tasks = {"tags": PartsOfSpeech(corpus), "content": SemanticContent(corpus)}
    seen = {(w, t) for e in corpus.splits["train"] for w, t in zip(e.words, e.universal, strict=True)}
    targets = [
        {"tags": list(example.universal), "content": ["animal", example.fields["animal"]]}
        for example in corpus.splits["test"]
    ]
    method = Smc(lm, tasks, particles=6, threshold=threshold)
    texts = method.write([Request(target) for target in targets], Draws(range(len(targets))), lambda done: None)
    for text, target in zip(texts, targets, strict=True):
        assert len(text) == len(target["tags"]) and set(zip(text, target["tags"], strict=True)) <= seen
        assert target["content"][1] in text


def test_the_cache_follows_the_particles(corpus, lm, monkeypatch):
    """Resampled at every step, every row's next word is that of a model without cache."""
    method, kept, compared = Smc(lm, {"t": PartsOfSpeech(corpus)}, particles=5, threshold=1.0), [], []
    weighed = method._weighed

    class Kept(Writing):
        def __init__(self, *args):
            super().__init__(*args)
            kept.append(self)

    def checked(rules, texts):
        logits = lm.network(torch.tensor([[START, *texts.words[row]] for row in texts.running.tolist()])).logits[:, -1]
        expected = logits.index_fill(1, torch.tensor(NEVER_WRITTEN), -torch.inf).log_softmax(1)
        torch.testing.assert_close(kept[-1].log_probs, expected, atol=1e-4, rtol=1e-4)
        compared.append(len(texts.running))
        return weighed(rules, texts)

    monkeypatch.setattr(smc, "Writing", Kept)
    monkeypatch.setattr(method, "_weighed", checked)
    requests = [Request({"t": list(example.universal)}) for example in corpus.splits["test"][:3]]
    method.ended(requests, Draws(range(len(requests))), lambda done: None)
    assert len(compared) > 3 and min(compared) < max(compared)


def test_where_all_particles_die_the_text_ends(corpus, lm):
    class OfLength(FakeTask):
        def rule(self, vocabulary):
            return lambda length: Ends(length, vocabulary)

    tasks = {"tags": PartsOfSpeech(corpus), "length": OfLength()}
    request = Request({"tags": ["DET", "NOUN", "VERB"], "length": 5})
    texts = Smc(lm, tasks, particles=4).write([request] * 3, Draws(range(3)), lambda done: None)
    assert [len(text) for text in texts] == [3] * 3


@pytest.fixture(scope="module")
def predictor(corpus) -> Predictor:
    torch.manual_seed(1)
    predictor = Predictor(corpus, FakeTask(), GPT2, OPTIM).eval()
    for parameter in predictor.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return predictor


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_the_twist_is_the_predictors_verdict(corpus, lm, predictor, threshold):
    """What it has put into a weight by the end is p(c | text) / p(c | nothing), whatever was resampled between."""
    method = Smc(lm, {"t": FakeTask()}, {"t": predictor}, 5, threshold, twist=True, scale=2.0)
    requests = [Request({"t": colour}) for colour in ("red", "green", "blue")]
    found = method.ended(requests, Draws(range(len(requests))), lambda done: None)
    assert (found.debt == 0).all()
    if threshold == 0:
        texts = [corpus.vocabulary.decode(words) for words in found.words]
        targets = [request.targets["t"] for request in requests for _ in range(5)]
        start = torch.nn.functional.logsigmoid(predictor.read(targets).logits)
        expected = 2 * (predictor.verdict(targets, texts) - start)
        short = torch.tensor([len(text) < corpus.length - 2 for text in texts])  # longer ones had to end
        assert short.any()
        torch.testing.assert_close(found.weight[short], expected[short], atol=2e-3, rtol=1e-3)


def test_the_twist_of_a_task_with_a_rule_is_divided_out(corpus, lm, predictor):
    class Ruled(FakeTask):
        def rule(self, vocabulary):
            return lambda target: Follows(pattern([Some(anything(len(vocabulary)), 1, None)], len(vocabulary)))

    plain = Smc(lm, {"t": Ruled()}, particles=4, threshold=0.0)
    twisted = Smc(lm, {"t": Ruled()}, {"t": predictor}, 4, 0.0, twist=True)
    one, two = (
        method.ended([Request({"t": "red"})] * 3, Draws(range(3)), lambda done: None) for method in (plain, twisted)
    )
    assert one.words == two.words and (two.debt != 0).any()
    torch.testing.assert_close(one.weight - one.debt, two.weight - two.debt, atol=1e-3, rtol=1e-3)


def test_a_task_with_neither_rule_nor_predictor_is_refused_at_once(corpus):
    with pytest.raises(ValueError, match="smc: colour has no rule on words to weigh texts by"):
        Method.check_node(NODE, {"colour": FakeTask()}, corpus)
    Method.check_node(NODE | {"twist": True}, {"colour": FakeTask()}, corpus)
    Method.check_node(NODE, {"tags": PartsOfSpeech(corpus)}, corpus)


@pytest.mark.parametrize("twist", [True, False])
def test_predictors_are_trained_only_where_they_weigh_texts(monkeypatch, tmp_path, corpus, twist):
    asked = []

    def fit(self, recipe):
        asked.append(recipe["_target_"].rsplit(".", 1)[-1])
        return Predictor(corpus, FakeTask(), GPT2, OPTIM) if asked[-1] == "Predictor" else CausalLM(corpus, GPT2, OPTIM)

    monkeypatch.setattr(Store, "fit", fit)
    node = composed("method=[smc]", "task=length", "data.size=60", f"method.smc.twist={twist}")["method"]["smc"]
    method = Store(tmp_path).build(node)
    assert sorted(asked) == (["CausalLM", "Predictor"] if twist else ["CausalLM"])
    assert set(method.predictors) == set(node["predictors"]) == ({"length"} if twist else set())
