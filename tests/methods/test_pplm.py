"""PPLM: nothing moved is the language model, moves raise the class, and who cannot be served."""

import pytest
import torch
from diffcontrol.tasks.parts_of_speech import PartsOfSpeech

from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN, CausalLM
from diffcontrol.autoregressive.discriminator import Discriminator
from diffcontrol.method import Method
from diffcontrol.methods.pplm import Pplm, PplmProcessor
from diffcontrol.task import Request
from diffcontrol.text import START
from tests.fakes import COLOURS, GPT2, OPTIM, FakeCorpus, FakeTask, train


class Classes(FakeTask):
    def classes(self):
        return list(self.asked)


@pytest.fixture(scope="module")
def discriminator() -> Discriminator:
    corpus = FakeCorpus()
    torch.manual_seed(0)
    lm = CausalLM(corpus, {**GPT2, "width": 32}, {**OPTIM, "lr": 5e-3})
    train(lm, 100)
    found = Discriminator(corpus, lm.requires_grad_(False), {"colour": Classes()}, {**OPTIM, "lr": 3e-2})
    train(found, 150)
    return found


def plain(discriminator: Discriminator, ids: torch.Tensor) -> torch.Tensor:
    scores = discriminator.lm.network(ids).logits[:, -1]
    scores[:, list(NEVER_WRITTEN)] = -torch.inf
    return scores.softmax(-1)


def walk(discriminator: Discriminator, words: str, **how) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Next-word probabilities with and without steering, after each of the words, for rows of two colours."""
    classes = discriminator.classes("colour", ["red", "blue"])
    processor = PplmProcessor(discriminator, [classes], [1.0], **{"top_k": 0, **how})
    ids, found = torch.full((2, 1), START), []
    for word in ["", *words.split()]:
        if word:
            ids = torch.cat([ids, torch.full((2, 1), discriminator.corpus.vocabulary.ids[word])], 1)
        with torch.inference_mode():
            steered = processor(ids, discriminator.lm.network(ids).logits[:, -1]).softmax(-1)
        found.append((steered.clone(), plain(discriminator, ids)))
    return found


def test_the_order_in_which_tasks_are_named_changes_no_class(discriminator):
    """Nor does it change the address, so weights trained in one order are loaded in the other."""
    tasks = {"colour": Classes(), "animal": Classes(["cat", "dog"])}
    one, other = (
        Discriminator(discriminator.corpus, discriminator.lm, chosen, OPTIM)
        for chosen in (tasks, dict(reversed(tasks.items())))
    )
    for task, targets in (("colour", ["red", "blue"]), ("animal", ["dog", "cat"])):
        assert one.classes(task, targets).tolist() == other.classes(task, targets).tolist()
    assert [one.collate([i])[1].tolist() for i in range(9)] == [other.collate([i])[1].tolist() for i in range(9)]


def test_a_step_of_0_is_the_language_model(discriminator):
    for steered, unguided in walk(discriminator, "a big cat", step=0.0, updates=2):
        torch.testing.assert_close(steered, unguided, atol=1e-5, rtol=1e-4)


def test_fusion_of_0_is_the_language_model_whatever_moves(discriminator):
    for steered, unguided in walk(discriminator, "a big cat", step=0.5, updates=3, fusion=0.0):
        torch.testing.assert_close(steered, unguided, atol=1e-5, rtol=1e-4)


def test_updates_raise_each_rows_own_class(discriminator):
    ids = discriminator.corpus.vocabulary.ids
    first, _, later = walk(discriminator, "a big", step=0.5, updates=20)
    torch.testing.assert_close(first[0], first[1], atol=1e-5, rtol=1e-4)  # the first word has no past to move
    steered, unguided = later
    for row, colour in enumerate(("red", "blue")):
        assert steered[row, ids[colour]] > 1.2 * unguided[row, ids[colour]]


def test_a_large_kl_weight_holds_the_text_to_the_language_model(discriminator):
    def moved(kl: float) -> float:
        steered, unguided = walk(discriminator, "a", step=0.1, updates=10, kl=kl)[1]
        return (steered - unguided).abs().sum().item()

    assert moved(100.0) < 0.7 * moved(0.01)


def test_whole_texts_are_steered_and_rows_end_when_they_end(discriminator):
    requests = [Request({"colour": COLOURS[i % 3]}) for i in range(60)]

    def met(step: float) -> int:
        method = Pplm(discriminator, {"colour": step}, step=1.0, updates=5, chunk=60)
        texts = [text for (text,) in method.generate(requests, 1)]
        assert len({len(text) for text in texts}) > 1 and not {"UNK", "START", "PAD"} & {w for t in texts for w in t}
        return sum(request.targets["colour"] in text for request, text in zip(requests, texts, strict=True))

    assert met(3.0) > met(0.0) + 10


def test_of_two_tasks_each_weighs_as_its_strength_says(discriminator):
    """What has no strength changes nothing, and the strongest sets the step."""
    both = Discriminator(discriminator.corpus, discriminator.lm,
                         {"colour": Classes(), "animal": Classes(["cat", "dog"])}, OPTIM)  # fmt: skip
    ids = torch.tensor([[START, *(discriminator.corpus.vocabulary.ids[word] for word in ("a", "big"))]])

    def scores(named: str, **strength: float) -> torch.Tensor:
        how = Pplm(both, strength, step=0.5, updates=3, top_k=0).how
        processor = PplmProcessor(both, [both.classes("animal", [named]), both.classes("colour", ["red"])], **how)
        for length in (1, 2, 3):
            found = processor(ids[:, :length], discriminator.lm.network(ids[:, :length]).logits[:, -1])
        return found

    torch.testing.assert_close(scores("cat", colour=1.0, animal=0.0), scores("dog", colour=1.0, animal=0.0))
    assert not torch.equal(scores("cat", colour=1.0, animal=0.5), scores("dog", colour=1.0, animal=0.5))
    assert Pplm(both, {"colour": 3.0, "animal": 1.5}, step=0.1).how["step"] == pytest.approx(0.3)
    unguided = plain(discriminator, ids)
    torch.testing.assert_close(scores("cat", default=0.0).softmax(-1), unguided, atol=1e-5, rtol=1e-4)


def test_only_classes_can_be_served(discriminator):
    node = {"_target_": "diffcontrol.methods.pplm.Pplm"}
    with pytest.raises(ValueError, match="pplm: .* targets of PartsOfSpeech are no closed set of classes"):
        Method.check_node(node, {"tags": PartsOfSpeech(discriminator.corpus)}, discriminator.corpus)
    Method.check_node(node, {"colour": Classes()}, discriminator.corpus)
