"""Experts: what they are trained on, their product in closed form, beams, and that they learn to obey."""

import pytest
import torch

from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN
from diffcontrol.methods.finetuned import Expert, Finetuned, ProductProcessor
from diffcontrol.task import Request
from diffcontrol.text import PAD, START
from tests.fakes import COLOURS, GPT2, OPTIM, FakeCorpus, FakeTask, ids_of, train


class Spelled(FakeTask):
    """Prompts of different lengths, of words that no text has."""

    def serialize(self, target: str) -> list[str]:
        return [*target, target]


@pytest.fixture(scope="module")
def corpus() -> FakeCorpus:
    return FakeCorpus()


@pytest.fixture(scope="module")
def experts(corpus: FakeCorpus) -> tuple[Expert, Expert]:
    torch.manual_seed(0)
    colour = Expert(corpus, FakeTask(), {**GPT2, "width": 32}, {**OPTIM, "batch_size": 16, "lr": 5e-3})
    verb = Expert(corpus, FakeTask(("sees", "likes")), {**GPT2, "width": 32}, {**OPTIM, "batch_size": 16, "lr": 5e-3})
    for expert in (colour, verb):
        train(expert, 60)
    return colour, verb


def test_a_text_is_read_after_one_of_its_own_targets(corpus: FakeCorpus) -> None:
    expert = Expert(corpus, Spelled(), GPT2, OPTIM)
    read = {i for step in range(30) for i in expert.steps().indices(step)}
    assert read <= set(expert.asked.carriers.tolist())  # the others have nothing to be asked for
    indices = expert.steps().indices(3)
    prompts, texts = expert.collate(indices)
    assert torch.equal(prompts, expert.collate(indices)[0])  # a function of seed and texts
    for prompt, i in zip(prompts, indices, strict=True):
        target = next(word for word in corpus.splits["train"][i].words if word in COLOURS)
        assert torch.equal(prompt, expert.asks([target])[0]) and len(prompt) == expert.prompt_length
    # neither the prompt nor padding bears the loss
    alone = [expert.losses((prompts[i : i + 1], texts[i : i + 1]))["nll"] for i in range(len(texts))]
    counts = (texts[:, 1:] != PAD).sum(1)
    expected = (torch.stack(alone) * counts).sum() / counts.sum()
    torch.testing.assert_close(expert.losses((prompts, texts))["nll"], expected)


def test_several_tasks_are_a_product_of_experts(corpus: FakeCorpus, experts: tuple[Expert, Expert]) -> None:
    colour, verb = experts
    text, size = ids_of(corpus, "a"), len(corpus.vocabulary)
    prompt, other = colour.asks(["red"]), verb.asks(["likes"])
    logits = colour(prompt, text)[:, -1]
    found = ProductProcessor(colour, [(verb, other)])(torch.cat([prompt, text], 1), logits)
    expected = logits[:, :size].log_softmax(-1) + verb(other, text)[:, -1, :size].log_softmax(-1)
    expected[:, list(NEVER_WRITTEN)] = -torch.inf
    torch.testing.assert_close(found[:, :size], expected.log_softmax(-1))
    assert found[:, size:].isneginf().all()  # words that only prompts have


@pytest.mark.parametrize("beams", [1, 3])
def test_experts_obey_their_row_of_targets(experts: tuple[Expert, Expert], beams: int) -> None:
    method = Finetuned({"colour": experts[0], "verb": experts[1]}, beams=beams)
    requests = [Request({"colour": COLOURS[i % 3], "verb": ("sees", "likes")[i % 2]}) for i in range(12)]
    texts = [text for (text,) in method.generate(requests, 1)]
    pairs = [(request.targets, text) for request, text in zip(requests, texts, strict=True)]
    assert sum(targets["colour"] in text for targets, text in pairs) >= 9
    assert sum(targets["verb"] in text for targets, text in pairs) >= 9
    assert texts == [text for (text,) in method.generate(requests, 1)]
    assert all(model.token_evaluations for model in method.models())


def test_beam_search_finds_a_likelier_text_than_sampling(experts: tuple[Expert, Expert]) -> None:
    colour, requests = experts[0], [Request({"colour": "blue"})] * 4

    def log_p(text: list[str]) -> float:
        ids = colour.corpus.vocabulary.encode(text, colour.corpus.length)[None]
        ids = ids[:, : len(text) + 2]
        assert ids[0, 0] == START
        log_probs = colour(colour.asks(["blue"]), ids[:, :-1]).log_softmax(-1)
        return log_probs.gather(2, ids[:, 1:, None]).sum().item()

    sampled = [log_p(text) for (text,) in Finetuned({"colour": colour}).generate(requests, 1)]
    searched = [log_p(text) for (text,) in Finetuned({"colour": colour}, beams=4).generate(requests, 1)]
    assert min(searched) == max(searched) and searched[0] > sum(sampled) / 4
