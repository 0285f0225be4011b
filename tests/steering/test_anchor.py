"""Words fixed at their places, on a language model whose weights are as they were drawn."""

import pytest
import torch

from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.objective import CrossEntropy
from diffcontrol.diffusion.sampler import DDIM
from diffcontrol.diffusion.schedule import Sqrt
from diffcontrol.guidance.langevin import Langevin
from diffcontrol.layout import Layout
from diffcontrol.method import GuidedDiffusion
from diffcontrol.steering.anchor import Anchor, Pull
from diffcontrol.task import Request
from tasks.length import Length
from tests.fakes import OPTIM, FakeCorpus, FakeTask


@pytest.fixture(scope="module")
def lm() -> DiffusionLM:
    torch.manual_seed(0)
    model = {"embedding": 8, "width": 16, "depth": 1, "heads": 2, "dropout": 0.0}
    return DiffusionLM(FakeCorpus(), model, CrossEntropy(), Sqrt(), OPTIM).eval().requires_grad_(False)


def method(lm, steerings, **options) -> GuidedDiffusion:
    strength = dict.fromkeys(steerings, 100.0)
    return GuidedDiffusion(lm, DDIM(4), Langevin(), steerings, strength, seed=1, **options)


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 1.2])
def test_every_text_has_the_length_that_is_fixed(lm, clean, temperature):
    """Whatever the network thinks of it: no END, PAD or UNK comes before the fixed END."""
    writer = method(lm, {"length": Anchor(Length(lm.corpus))}, clean=clean, temperature=temperature)
    texts = writer.generate([Request({"length": n}) for n in range(1, 9)], 3)
    assert [[len(text) for text in group] for group in texts] == [[n] * 3 for n in range(1, 9)]
    assert not {word for group in texts for text in group for word in text} & {"UNK", "PAD", "START", "END"}


class Beginning(FakeTask):
    def layouts(self, target):
        return [Layout({1: target})]


def test_two_tasks_that_fix_words_are_met_at_once(lm):
    steerings = {"length": Anchor(Length(lm.corpus)), "word": Anchor(Beginning())}
    ((text, other),) = method(lm, steerings).generate([Request({"length": 4, "word": "blue"})], 2)
    assert len(text) == len(other) == 4 and text[0] == other[0] == "blue"


def test_a_fixed_word_that_the_vocabulary_lacks_is_written_as_it_was_given(lm):
    steerings = {"length": Anchor(Length(lm.corpus)), "word": Anchor(Beginning(["zebra"]))}
    (texts,) = method(lm, steerings).generate([Request({"length": 3, "word": "zebra"})], 2)
    assert all(text[0] == "zebra" and "UNK" not in text for text in texts)


def test_nothing_fixed_leaves_the_draws_alone(lm):
    class Free(FakeTask):
        pass

    requests = [Request({"word": "red"})] * 3
    assert method(lm, {"word": Anchor(Free())}).generate(requests, 1) == method(lm, {}).generate(requests, 1)


def test_pulling_is_the_squared_distance_to_the_words_up_to_end(lm):
    x0 = torch.randn(2, 10, 8, requires_grad=True)
    prediction = Prediction(x0, x0, x0)
    log_prob = Pull(Length(lm.corpus), lm).control([3, 8]).log_prob(x0, torch.zeros(2), prediction)
    start, end = lm.table()[0], lm.table()[1]
    expected = [-((x0[i, 0] - start) ** 2).sum() - ((x0[i, n + 1] - end) ** 2).sum() for i, n in ((0, 3), (1, 8))]
    torch.testing.assert_close(log_prob, torch.stack(expected))
