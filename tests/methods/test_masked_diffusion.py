import pytest
import torch
from diffcontrol.tasks.length import Length

from diffcontrol.draws import Draws
from diffcontrol.layout import Layout, of_text
from diffcontrol.lengths import TrainingLengths
from diffcontrol.masked.guidance import Exact, FirstOrder, Unguided
from diffcontrol.masked.lm import MaskedLM
from diffcontrol.masked.sampler import Ancestral
from diffcontrol.methods.masked_diffusion import MaskedDiffusion
from diffcontrol.steering.anchor import Anchor
from diffcontrol.steering.classifier import ControlClassifier, DenoiserEncoder, NoisyEncoder, StackedEncoder
from diffcontrol.task import Request
from tests.fakes import COLOURS, OPTIM, FakeCorpus, FakeTask, train

MODEL = {"embedding": 16, "width": 32, "depth": 1, "heads": 2, "dropout": 0.0}
LEARN = OPTIM | {"batch_size": 32, "lr": 1e-2}


@pytest.fixture(scope="module")
def lm() -> MaskedLM:
    torch.manual_seed(0)
    model = MaskedLM(FakeCorpus(), MODEL, LEARN)
    train(model, 250)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def classifier(lm) -> ControlClassifier:
    torch.manual_seed(1)
    model = ControlClassifier(FakeTask(), lm, DenoiserEncoder(), lm.corpus, LEARN)
    train(model, 250)
    return model.eval().requires_grad_(False)


def method(lm, steering, guidance=None, strength=1.0, steps=20, **options) -> MaskedDiffusion:
    return MaskedDiffusion(
        lm, Ancestral(steps), guidance or Exact(), steering, {"default": strength}, seed=1, **options
    )


def obeyed(writer) -> float:
    texts = writer.generate([Request({"word": colour}) for colour in COLOURS], 20)
    return sum(c in text for c, group in zip(COLOURS, texts, strict=True) for text in group) / 60


@pytest.mark.parametrize("guidance", [Exact(), FirstOrder()])
def test_guided_texts_obey_more_often_the_stronger_the_guidance(lm, classifier, guidance):
    unguided = obeyed(method(lm, {}, Unguided()))
    weak, strong = (obeyed(method(lm, {"word": classifier}, guidance, strength)) for strength in (1.0, 6.0))
    assert unguided < 0.4 and weak > unguided + 0.1 and strong > unguided + 0.4


@pytest.mark.parametrize("encoder", [DenoiserEncoder(), NoisyEncoder(8, 1, 2), StackedEncoder(8, 1, 2)])
def test_a_head_learns_to_read_masked_texts(lm, encoder):
    torch.manual_seed(1)
    losses = train(ControlClassifier(FakeTask(), lm, encoder, lm.corpus, LEARN), 60)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_unguided_texts_are_like_the_corpus(lm):
    known = {example.words for split in ("train", "dev", "test") for example in lm.corpus.splits[split]}
    texts = [tuple(text) for (text,) in method(lm, {}, Unguided(), steps=None).generate([Request({})] * 60, 1)]
    assert sum(text in known for text in texts) > 30 and len(set(texts)) > 20


def test_every_text_has_the_length_that_is_fixed(lm):
    writer = method(lm, {"length": Anchor(Length(lm.corpus))})
    texts = writer.generate([Request({"length": n}) for n in range(1, 9)], 3)
    assert [[len(text) for text in group] for group in texts] == [[n] * 3 for n in range(1, 9)]
    assert not {word for group in texts for text in group for word in text} & {"UNK", "PAD", "START", "END"}


class Four(FakeTask):
    """A text of four words."""

    def words(self, target):
        return 4


def test_a_length_that_a_target_says_is_met_and_others_are_those_of_training_texts(lm, classifier):
    lengths = TrainingLengths(lm.corpus, {"word": FakeTask(COLOURS, lm.corpus)}, enough=1)
    four = ControlClassifier(Four(), lm, DenoiserEncoder(), lm.corpus, LEARN).eval()
    requests = [Request({"word": colour}) for colour in COLOURS]
    said = method(lm, {"word": four}, lengths=lengths).generate(requests, 5)
    assert {len(text) for group in said for text in group} == {4}
    drawn = method(lm, {"word": classifier}, lengths=lengths).generate(requests, 20)
    for colour, group in zip(COLOURS, drawn, strict=True):
        assert {len(t) for t in group} <= {len(e.words) for e in lm.corpus.splits["train"] if colour in e.words}
    free = method(lm, {}, Unguided(), lengths=lengths).generate([Request({})] * 60, 1)
    assert {len(text) for (text,) in free} <= {len(e.words) for e in lm.corpus.splits["train"]}


class Between(FakeTask):
    """A text of which the first word and the last two are known."""

    def layouts(self, target):
        return [of_text({1: "a", 4: "the", 5: target}, 6, 10)]


@pytest.mark.parametrize("guidance", [Exact(), FirstOrder(), Unguided()])
def test_known_words_stay_and_a_head_guides_what_is_between(lm, classifier, guidance):
    writer = method(lm, {"gap": Anchor(Between(["cat", "zebra"])), "word": classifier}, guidance, 3.0)
    requests = [Request({"gap": "zebra", "word": "red"}), Request({"gap": "cat", "word": "blue"})]
    for texts, last in zip(writer.generate(requests, 5), ("zebra", "cat"), strict=True):
        assert all(len(text) == 5 and text[0] == "a" and text[3:] == ["the", last] for text in texts)


def test_known_words_are_read(lm):
    """What stands beside a gap decides what is written there: a verb stands between two animals."""

    class Gap(FakeTask):
        def layouts(self, target):
            return [of_text({1: "a", 2: "cat", 4: "the", 5: "cat"}, 6, 10)]

    texts = method(lm, {"gap": Anchor(Gap())}).generate([Request({"gap": "red"})], 20)[0]
    assert sum(text[2] in ("sees", "likes") for text in texts) > 15


def test_without_anything_to_follow_every_guidance_is_unguided(lm):
    requests = [Request({"word": "red"})] * 4
    free = {"word": Anchor(FakeTask())}
    plain = method(lm, {}, Unguided()).generate(requests, 1)
    assert all(method(lm, free, guidance).generate(requests, 1) == plain for guidance in (Exact(), FirstOrder()))


def test_the_draws_are_those_of_the_seed(lm, classifier):
    requests = [Request({"word": colour}) for colour in COLOURS]
    one, other = (method(lm, {"word": classifier}).generate(requests, 2) for _ in range(2))
    assert one == other


def test_its_opinion_is_the_heads_of_the_whole_text(lm, classifier):
    texts = [["a", "red", "cat", "sees"], ["a", "cat", "sees"]]
    opinion = method(lm, {"word": classifier}, strength=2.0).opinion([Request({"word": "red"})] * 2, texts)
    assert opinion[0] > opinion[1] and (opinion <= 0).all()


def test_of_several_layouts_those_are_drawn_that_are_as_long_as_another_task_says(lm, classifier, monkeypatch):
    class Gap(FakeTask):
        def layouts(self, target):
            return [of_text({1: "a"}, end, 10) for end in (4, 5, 6)]

    requests = [Request({"gap": "red", "word": "red"})] * 50
    writer = method(lm, {"gap": Anchor(Gap()), "word": classifier})
    assert {layout.end for layout in writer.layouts(requests, Draws(range(50)), lm.length)} == {4, 5, 6}
    monkeypatch.setattr(FakeTask, "least_words", lambda self, target: 4)
    assert {layout.end for layout in writer.layouts(requests, Draws(range(50)), lm.length)} == {5, 6}
    monkeypatch.setattr(FakeTask, "words", lambda self, target: 5)
    assert {layout.end for layout in writer.layouts(requests, Draws(range(50)), lm.length)} == {6}


def test_one_layout_of_several_is_drawn_for_each_text(lm):
    class Either(FakeTask):
        def layouts(self, target):
            return [Layout({1: "red"}), Layout({1: "blue"}, weight=3.0)]

    requests = [Request({"word": "red"})] * 200
    drawn = method(lm, {"word": Anchor(Either())}).layouts(requests, Draws(range(200)), lm.length)
    assert 0.65 < sum(layout.words[1] == "blue" for layout in drawn) / 200 < 0.85
