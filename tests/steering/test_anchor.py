"""Words fixed at their places, on a language model whose weights are as they were drawn."""

import pytest
import torch
from diffcontrol.tasks.length import Length

from diffcontrol.diffusion.decoding import Rounding
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.objective import CrossEntropy
from diffcontrol.diffusion.sampler import DDIM
from diffcontrol.diffusion.schedule import Sqrt
from diffcontrol.guidance.langevin import Langevin
from diffcontrol.layout import Layout
from diffcontrol.methods.guided_diffusion import GuidedDiffusion
from diffcontrol.steering.anchor import Anchor, known, within
from diffcontrol.task import Request
from tests.fakes import OPTIM, FakeCorpus, FakeTask


@pytest.fixture(scope="module")
def lm() -> DiffusionLM:
    torch.manual_seed(0)
    model = {"embedding": 8, "width": 16, "depth": 1, "heads": 2, "dropout": 0.0}
    return DiffusionLM(FakeCorpus(), model, CrossEntropy(), Sqrt(), OPTIM).eval().requires_grad_(False)


def method(lm, steerings, decoding=None, **options) -> GuidedDiffusion:
    guidance = Langevin({"default": 100.0})
    return GuidedDiffusion(lm, DDIM(4), guidance, decoding or Rounding(), steerings, seed=1, **options)


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("decoding", [Rounding(), Rounding(1.2), Rounding(clamp=1.0)], ids=["own", "warm", "clamped"])
def test_every_text_has_the_length_that_is_fixed(lm, clean, decoding):
    """Whatever the network thinks of it: no END, PAD or UNK comes before the fixed END."""
    writer = method(lm, {"length": Anchor(Length(lm.corpus))}, decoding, clean=clean)
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
    requests = [Request({"word": "red"})] * 3
    assert method(lm, {"word": Anchor(FakeTask())}).generate(requests, 1) == method(lm, {}).generate(requests, 1)


def test_what_is_known_and_what_is_left_to_write_by_hand(lm):
    ids = lm.corpus.vocabulary.ids
    layouts = [Layout({0: "START", 2: "red", 4: "END", 5: "PAD"}), Layout({1: "zebra"})]
    for pad, width in ((True, 4), (False, 3)):
        known_ids, mask = known(layouts, lm, pad)
        assert mask[0].nonzero()[:, 0].tolist() == [0, 2, 4, 5][:width] and mask[1].nonzero().tolist() == [[1]]
        assert known_ids[0, mask[0]].tolist() == [0, ids["red"], 1, 3][:width] and known_ids[1, 1] == ids["UNK"]
    assert within(layouts, 7).tolist() == [[False, True, False, True, False, False, False], [False] * 7]


def test_as_many_positions_are_needed_as_the_last_end_that_may_be_fixed(lm):
    class Ends(FakeTask):
        def layouts(self, target):
            return [Layout({} if end is None else {end: "END"}) for end in target]

    anchor = Anchor(Ends())
    assert anchor.positions([3]) == 4 and anchor.positions([3, 6]) == 7
    assert anchor.positions([]) is None and anchor.positions([3, None]) is None
    assert anchor.least([3, 6]) == 7 and anchor.least([]) == 0
