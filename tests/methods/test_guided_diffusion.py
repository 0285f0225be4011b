"""Guided diffusion as a method: which positions are computed, which rows are written together, what guides them."""

import copy

import pytest
import torch
from diffcontrol.tasks.length import Length

from diffcontrol.diffusion.decoding import Rounding
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.objective import CrossEntropy
from diffcontrol.diffusion.sampler import DDIM
from diffcontrol.diffusion.schedule import Sqrt
from diffcontrol.draws import Draws
from diffcontrol.guidance.base import Unguided
from diffcontrol.guidance.langevin import Langevin
from diffcontrol.lengths import TrainingLengths
from diffcontrol.methods.candidates import BestOf
from diffcontrol.methods.guided_diffusion import GuidedDiffusion
from diffcontrol.methods.mixture import Mixture
from diffcontrol.steering.anchor import Anchor
from diffcontrol.steering.base import Control, Look, Steering
from diffcontrol.steering.pull import Pull
from diffcontrol.task import Request
from diffcontrol.text import UNK
from tests.fakes import OPTIM, FakeCorpus

MODEL = {"embedding": 8, "width": 16, "depth": 1, "heads": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def lm() -> DiffusionLM:
    torch.manual_seed(0)
    return DiffusionLM(FakeCorpus(), MODEL, CrossEntropy(), Sqrt(), OPTIM).eval().requires_grad_(False)


@pytest.fixture
def looks(lm):
    """The shapes [B, L] of what the language model is asked for."""
    shapes = []
    handle = lm.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape[:2])))
    yield shapes
    handle.remove()


def method(lm, steering, strength=None, crop=True, **options) -> GuidedDiffusion:
    guidance = Langevin(strength or {"default": 1.0})
    return GuidedDiffusion(lm, DDIM(4, crop=crop), guidance, Rounding(), steering, seed=1, **options)


class Constant(Control):
    def __init__(self, values):
        self.values = torch.tensor(values)

    def log_prob(self, look):
        return self.values + 0 * look.x_t.sum((1, 2))


class Stated(Steering):
    """The target says how many positions it takes and needs, and what its control says."""

    def positions(self, target):
        return target[0]

    def least(self, target):
        return target[1]

    def control(self, targets):
        return Constant([target[2] for target in targets])


def test_requests_of_a_known_length_are_computed_with_as_many_positions(lm, looks):
    lengths = [7, 2, 5, 2, 7, 1]
    writer = method(lm, {"length": Anchor(Length(lm.corpus))}, chunk=4)
    texts = writer.generate([Request({"length": n}) for n in lengths], 2)
    # Sorted, 1 1 2 2 | 2 2 5 5 | 7 7 7 7; START and END are added.
    assert list(dict.fromkeys(looks)) == [(4, 4), (4, 7), (4, 9)] and len(looks) == 3 * 5
    assert [[len(text) for text in group] for group in texts] == [[n] * 2 for n in lengths]  # in order of requests


def test_without_cropping_all_positions_are_computed_whatever_is_known(lm, looks):
    writer = method(lm, {"length": Anchor(Length(lm.corpus))}, crop=False)
    ((text,), (other,)) = writer.generate([Request({"length": n}) for n in (2, 5)], 1)
    assert set(looks) == {(2, lm.length)} and (len(text), len(other)) == (2, 5)


def test_one_open_length_among_a_chunk_takes_all_positions(lm, looks):
    writer = method(lm, {"stated": Stated()})
    writer.generate([Request({"stated": (positions, 0, 0.0)}) for positions in (4, None, 6)], 1)
    assert looks[0] == (3, 10)


def test_of_several_tasks_the_longest_counts_and_open_ones_do_not(lm):
    writer = method(lm, {"one": Stated(), "other": Stated()})
    for one, other, expected in ((4, None, 4), (4, 6, 6), (None, None, 0)):
        assert writer.positions(Request({"one": (one, 0, 0.0), "other": (other, 0, 0.0)})) == expected
    assert method(lm, {}).positions(Request({})) == 0


def test_what_a_control_needs_is_computed_although_another_task_asks_for_fewer(lm, looks):
    writer = method(lm, {"one": Stated(), "other": Stated()})
    writer.generate([Request({"one": (4, 4, 0.0), "other": (None, 8, 0.0)})], 1)
    assert set(looks) == {(1, 8)}


def test_methods_around_it_write_rows_of_a_length_together_too(lm, looks):
    inner = method(lm, {"length": Anchor(Length(lm.corpus))})
    requests = [Request({"length": n}) for n in (7, 2)]
    for outer in (BestOf(inner, k=2, chunk=2), Mixture(inner, inner, 0.5)):
        if isinstance(outer, Mixture):
            outer.chunk = 1
        assert [outer.positions(request) for request in requests] == [9, 4]
        looks.clear()
        if isinstance(outer, BestOf):
            inner.opinion = lambda requests, texts: torch.zeros(len(texts))
        texts = outer.generate(requests, 1)
        assert [len(text) for (text,) in texts] == [7, 2]
        assert looks[0][1] == 4 and looks[-1][1] == 9


def test_strengths_are_the_guidances_scaled_and_have_a_default(lm):
    steering = {"one": Stated(), "other": Stated(), "third": Stated()}
    request = Request(dict.fromkeys(steering, (None, 0, 0.0)))
    for strength, expected in (({"one": 2.0, "default": 5.0}, [6.0, 15.0, 15.0]), ({"other": 2.0}, [0.0, 6.0, 0.0])):
        parts = method(lm, steering, strength, scale=3.0).control([request]).parts
        assert [weight for weight, _ in parts] == expected


def test_the_control_is_the_weighted_sum_over_tasks_of_each_rows_targets_and_the_opinion_the_plain_one(lm):
    writer = method(lm, {"one": Stated(), "other": Stated()}, {"one": 2.0, "other": 0.5})
    requests = [Request({"one": (None, 0, -1.0), "other": (None, 0, -4.0)}),
                Request({"one": (None, 0, -2.0), "other": (None, 0, 0.0)})]  # fmt: skip
    look = Look(torch.zeros(2, 8, lm.embedding.embedding_dim), torch.full((2,), lm.low), lambda: None)
    assert writer.control(requests).log_prob(look).tolist() == [-4.0, -4.0]
    assert writer.opinion(requests, [["a", "cat"], ["a", "dog"]]).tolist() == [-5.0, -2.0]
    assert not method(lm, {"length": Anchor(Length(lm.corpus))}).control([Request({"length": 3})]).parts


def test_progress_rises_and_texts_are_a_function_of_the_seed(lm):
    writer, told = method(lm, {}), []
    texts = writer.write([Request({})] * 3, Draws(range(3)), told.append)
    assert told == [0.0, 0.2, 0.4, 0.6, 0.8] and len(texts) == 3
    assert texts == writer.write([Request({})] * 3, Draws(range(3)), told.append)
    assert texts != writer.write([Request({})] * 3, Draws(range(3, 6)), told.append)
    assert lm.token_evaluations > 0 and writer.models() == [lm]


def test_the_steps_of_a_text_are_those_that_write_it(lm):
    """And asking for them changes nothing of what is written."""
    made, request = method(lm, {"stated": Stated()}), Request({"stated": (None, 0, 0.0)})
    before = made.generate([request], 1)
    steps = made.denoising(request, 3)
    assert [t for t, _ in steps] == [made.sampler.times(lm.low)[k].item() for k in (0, 2, 4)]
    assert steps[-1][1] == before[0][0] == made.generate([request], 1)[0][0]
    assert len(made.denoising(request, 99)) == 5 and made.denoising(request, 1) == steps[-1:]


@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_a_word_that_the_vocabulary_lacks_is_never_written(lm, temperature):
    """A text with UNK in it fails whatever was asked for, and no autoregressive method writes one."""
    fond = copy.deepcopy(lm)
    fond.readout.layer.bias[UNK] = 50.0
    writer = GuidedDiffusion(fond, DDIM(4), Langevin({"default": 1.0}), Rounding(temperature), {}, seed=1)
    texts = writer.generate([Request({}), Request({})], 3)
    assert not any("UNK" in words for group in texts for words in group)


class Drawn(TrainingLengths):
    """Stands for the lengths of training texts: five words, or what is needed."""

    def __init__(self):
        super().__init__(FakeCorpus(), {})

    def draw(self, targets, least, uniform, most=None):
        assert 0 <= uniform < 1
        return max(5, least)


def test_texts_are_as_long_as_was_drawn_where_the_target_leaves_it_open(lm, looks):
    own = method(lm, {"length": Anchor(Length(lm.corpus))}, clean=True, lengths=Drawn())
    assert [len(text) for text in own.generate([Request({"length": 3})], 2)[0]] == [3, 3]
    free = method(lm, {}, clean=True, lengths=Drawn())
    looks.clear()
    assert [len(text) for text in free.generate([Request({"length": 3})], 2)[0]] == [5, 5]
    assert {shape[1] for shape in looks} == {7}  # START, five words, END: no other position is computed
    needy = method(lm, {"stated": Stated()}, clean=True, lengths=Drawn())
    assert len(needy.generate([Request({"stated": (None, 9, 0.0)})], 1)[0][0]) == 7


def test_nothing_fixes_end_where_the_control_moves_it(lm, monkeypatch):
    monkeypatch.setattr(Drawn, "end", lambda *args: pytest.fail("a length was drawn"))
    pulled = method(lm, {"length": Pull(Length(lm.corpus), lm)}, clean=True, lengths=Drawn())
    assert len(pulled.generate([Request({"length": 3})], 2)[0]) == 2


def test_a_strength_of_zero_is_no_guidance(lm):
    """Not even the pull towards the mean of each transition, which would narrow the noise."""
    requests = [Request({"one": (8, 8, 1.0)})] * 10
    unguided = method(lm, {"one": Stated()}, scale=0.0)
    unguided.guidance = Unguided()
    still = method(lm, {"one": Stated()}, scale=0.0)
    assert still.generate(requests, 1) == unguided.generate(requests, 1)
    assert still.generate(requests, 1) != method(lm, {"one": Stated()}, scale=1.0).generate(requests, 1)
