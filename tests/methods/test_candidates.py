"""Choosing among candidates: agreement by hand, and the guide's favourite, never the judge's."""

import pytest
import torch
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from diffcontrol.allowed import check
from diffcontrol.autoregressive.causal_lm import CausalLM
from diffcontrol.autoregressive.predictor import Predictor
from diffcontrol.draws import Draws
from diffcontrol.method import Method
from diffcontrol.methods.candidates import BestOf, MinimumBayesRisk, agreement
from diffcontrol.methods.rejection import Sampled
from diffcontrol.refused import Refused
from diffcontrol.task import Request
from tests.fakes import COLOURS, GPT2, OPTIM, FakeCorpus, FakeTask


class Written(Method):
    """Texts given beforehand; its opinion is how many words are the target."""

    def __init__(self, texts):
        super().__init__(50, 0)
        self.texts, self.asked = texts, []

    def models(self):
        return []

    def write(self, requests, draws, progress):
        self.asked.append([request.targets["colour"] for request in requests])
        progress(0.5)
        return [self.texts[i % len(self.texts)].split() for i in range(len(requests))]

    def opinion(self, requests, texts):
        rows = zip(requests, texts, strict=True)
        return torch.tensor([float(text.count(r.targets["colour"])) for r, text in rows])


def test_the_text_most_like_the_others_is_chosen():
    texts = ["the pub is red", "a dog", "the pub is red and cheap"]
    groups = [text.split() for text in texts]
    smooth = SmoothingFunction().method2
    found = agreement(groups)
    assert found[0] == pytest.approx(
        (sentence_bleu([groups[1]], groups[0], smoothing_function=smooth)
         + sentence_bleu([groups[2]], groups[0], smoothing_function=smooth)) / 2
    )  # fmt: skip
    assert found[0] > found[1] and found[2] > found[1]
    best = texts[found.index(max(found))].split()
    method = MinimumBayesRisk(Written(texts), k=3)
    assert method.generate([Request({"colour": "red"})], 2) == [[best, best]]
    assert agreement([["a"], []]) == [0.0, 0.0] and agreement([["a"]]) == [0.0]


@pytest.mark.parametrize("node", [
    {"_target_": "diffcontrol.methods.smc.Smc"},
    {"_target_": "diffcontrol.methods.guided_diffusion.GuidedDiffusion",
     "steering": {"colour": {"_target_": "diffcontrol.steering.anchor.Anchor"}}},
])  # fmt: skip
def test_without_a_guide_the_best_is_refused_before_anything_is_written(node, monkeypatch):
    monkeypatch.setattr(Method, "check_node", lambda *_: None)
    with pytest.raises(Refused, match="has no guide of its own here"):
        BestOf.check({"method": node}, {"colour": FakeTask()}, FakeCorpus())


def test_the_guides_favourite_is_chosen_for_every_request():
    writer = Written(["a red cat", "a blue cat", "green"])
    method = BestOf(writer, k=3, chunk=6)
    texts = method.generate([Request({"colour": colour}) for colour in COLOURS], 1)
    assert texts == [[["a", "red", "cat"]], [["green"]], [["a", "blue", "cat"]]]
    assert writer.asked[0] == ["red"] * 3 + ["green"] * 3 and len(writer.asked) == 2  # chunks count candidates


def test_rejection_keeps_what_the_predictor_likes_best():
    corpus = FakeCorpus()
    torch.manual_seed(0)
    lm = CausalLM(corpus, GPT2, OPTIM).eval()
    predictor = Predictor(corpus, FakeTask(), GPT2, OPTIM).eval()
    for parameter in predictor.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    writer, requests = Sampled(lm, {"colour": predictor}), [Request({"colour": c}) for c in ("red", "blue")]
    rows = [request for request in requests for _ in range(5)]
    texts = writer.write(rows, Draws(range(2)).children(5), print)
    scores = predictor.verdict(["red"] * 5 + ["blue"] * 5, texts)
    for text, target, score in zip(texts, ["red"] * 5 + ["blue"] * 5, scores.tolist(), strict=True):
        ids = corpus.vocabulary.encode(text, corpus.length)[None, : len(text) + 2]
        alone = predictor(predictor.prompts([[target]]), ids)[0, -1]
        assert score == pytest.approx(torch.nn.functional.logsigmoid(alone).item(), abs=1e-5)
    chosen = BestOf(writer, k=5)
    found = chosen.write(requests, Draws(range(2)), print)
    assert found == [texts[scores[:5].argmax()], texts[5 + scores[5:].argmax()]]
    assert not {"UNK", "START", "PAD"} & {word for text in texts for word in text}


def test_what_cannot_be_chosen_from_is_refused_before_training():
    node = {"_target_": "diffcontrol.methods.candidates.BestOf", "method": None, "k": 3}
    with pytest.raises(ValueError, match="a method that is not in this run"):
        Method.check_node(node, {}, FakeCorpus())
    with pytest.raises(ValueError, match="k=0: allowed is a whole number from 1"):
        check({**node, "k": 0})
    with pytest.raises(ValueError, match="no guide of its own"):
        Method.opinion(Written([""]), [], [])
