"""Conditional diffusion: classifier-free guidance in closed form, what of a prompt is noisy or scored, and that it is
learned to obey."""

import json
import math
import subprocess

import pytest
import torch

from diffcontrol.diffusion.conditional import Combination, Combined, ConditionalLM, Given, classifier_free
from diffcontrol.diffusion.decoding import Rounding
from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.objective import CrossEntropy, EndToEnd
from diffcontrol.diffusion.sampler import DDIM
from diffcontrol.diffusion.schedule import Sqrt
from diffcontrol.draws import Draws
from diffcontrol.lengths import TrainingLengths
from diffcontrol.methods.conditional import Conditional
from diffcontrol.recipe import is_recipe
from diffcontrol.refused import Refused
from diffcontrol.task import Request
from diffcontrol.text import SPECIALS
from tests.composing import composed
from tests.fakes import COLOURS, OPTIM, FakeCorpus, FakeTask, train
from tests.test_run import newest, results, run

MODEL = {"embedding": 8, "width": 32, "depth": 2, "heads": 2, "dropout": 0.0}
FAST = {**OPTIM, "batch_size": 16, "lr": 5e-3}
VERBS = ("sees", "likes")


class Spelled(FakeTask):
    """Prompts of different lengths, of words that no text has."""

    def serialize(self, target):
        return [*target, target]


def language_model(corpus, objective=None, **options):
    torch.manual_seed(0)
    return DiffusionLM(corpus, MODEL, objective or CrossEntropy(), Sqrt(), FAST, **options)


def conditional(corpus, task=None, lm=None, **options):
    lm = (lm or language_model(corpus)).eval().requires_grad_(False)
    torch.manual_seed(1)
    return ConditionalLM(corpus, task or FakeTask(), lm, FAST, **options)


@pytest.fixture(scope="module")
def corpus():
    return FakeCorpus()


@pytest.fixture(scope="module")
def trained(corpus):
    lm = language_model(corpus)
    train(lm, 150)
    models = {"colour": conditional(corpus, FakeTask(), lm), "verb": conditional(corpus, FakeTask(VERBS), lm)}
    for model in models.values():
        train(model, 300)
    return models


@pytest.fixture
def place(corpus):
    """A noisy text of each of three rows, and its time."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, corpus.length, MODEL["embedding"], generator=generator), torch.tensor([0.9, 0.6, 0.3])


# --- the prompt


def test_the_prompt_is_shown_as_it_is_and_the_text_alone_is_predicted(corpus, place):
    model = conditional(corpus, Spelled()).eval()
    seen = []
    model.transformer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    prompts, P, D = model.asks(["red", "blue", "green"]), model.prompt_length, MODEL["embedding"]
    first = model(prompts, *place)
    model(prompts, *place, first)
    assert first.x0.shape == place[0].shape
    assert first.logits.shape == (*place[0].shape[:2], len(corpus.vocabulary))  # words of prompts cannot be written
    vectors = torch.cat([model.lm.table(), model.prompt_vectors.weight])[prompts]
    for inputs in seen:  # without noise at any time, in every channel
        for channel in inputs[:, :P].split(D, -1):
            assert torch.equal(channel, vectors)
        assert torch.equal(inputs[:, P:, :D], place[0])


@pytest.mark.parametrize("objective", [CrossEntropy(), EndToEnd()], ids=lambda o: type(o).__name__)
def test_the_loss_is_the_objectives_of_the_noisy_text(corpus, objective):
    model = conditional(corpus, Spelled(), language_model(corpus, objective), drop=0.0)
    torch.nn.init.normal_(next(model.readout.parameters()))
    prompts, ids = model.collate(model.steps().indices(0))
    torch.manual_seed(3)
    losses = model.losses((prompts, ids))
    sum(losses.values()).backward()
    assert model.prompt_vectors.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.lm.parameters())
    torch.manual_seed(3)
    torch.rand(len(ids), 1)  # which prompts are dropped: none
    expected = objective.losses(Given(model, prompts), ids, model.lm.times(len(ids)))
    torch.testing.assert_close(losses, expected)


def test_words_of_the_prompt_are_not_scored(corpus):
    model = conditional(corpus, Spelled(), language_model(corpus, CrossEntropy(likelihood=False)), drop=0.0)
    ids = corpus.ids["train"][:8]  # the untrained read-out gives every word of the vocabulary the same probability
    loss = model.losses((model.asks(["red"] * 8), ids))["cross_entropy"].item()
    assert loss == pytest.approx(math.log(len(corpus.vocabulary)), rel=1e-5)


def test_a_text_is_read_after_one_of_its_own_targets(corpus):
    model = conditional(corpus, Spelled(), language_model(corpus, window=8))
    batches = [model.steps().indices(step) for step in range(8)]
    assert {i for batch in batches for i in batch} <= set(model.asked.carriers.tolist())
    assert {model.collate(batch)[1].shape[1] for batch in batches[:4]} == {8, corpus.length}  # in the LM's windows
    for prompt, i in zip(model.collate(batches[0])[0], batches[0], strict=True):
        target = next(word for word in corpus.splits["train"][i].words if word in COLOURS)
        assert torch.equal(prompt, model.asks([target])[0])


def test_prompts_are_dropped_as_often_as_asked_for(corpus, monkeypatch):
    model, seen = conditional(corpus, drop=0.25), []
    monkeypatch.setattr(ConditionalLM, "forward", lambda self, prompts, *_: seen.append(prompts) or 1 / 0)
    prompts, ids = model.asks(["red"]).expand(4000, -1), corpus.ids["train"][:1].expand(4000, -1)
    with pytest.raises(ZeroDivisionError):
        model.losses((prompts, ids))
    blank = (seen[0] == model.blank).all(1)
    assert blank.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(seen[0][~blank], prompts[~blank])


def test_it_begins_as_the_language_model_and_leaves_that_as_it_is(corpus):
    lm = language_model(corpus)
    before = {name: weight.clone() for name, weight in lm.state_dict().items()}
    model = conditional(corpus, lm=lm)
    for name, weight in lm.transformer.blocks.state_dict().items():
        assert torch.equal(model.transformer.blocks.state_dict()[name], weight)
    assert torch.equal(model.transformer.positions[model.prompt_length :], lm.transformer.positions)
    train(model, 3)
    assert all(torch.equal(weight, before[name]) for name, weight in lm.state_dict().items())
    assert not torch.equal(model.transformer.blocks[0].qkv.weight, lm.transformer.blocks[0].qkv.weight)


# --- classifier-free guidance


class Fixed:
    """A denoiser that says one thing, and keeps what it was told of the step before."""

    schedule, low = Sqrt(), 0.02

    def __init__(self, seed):
        logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(seed))
        self.says, self.previous = Prediction(logits.softmax(-1) @ self.table(), logits, logits), []

    def table(self):
        return torch.eye(6)

    def __call__(self, x_t, t, previous=None):
        self.previous.append(previous)
        return self.says


GIVEN, FREE, OTHER, OTHER_FREE = (Fixed(seed) for seed in range(4))
POINT = torch.zeros(2, 4, 6), torch.full((2,), 0.5)


def same(one, other):
    torch.testing.assert_close(one.x0, other.x0)
    torch.testing.assert_close(one.logits.log_softmax(-1), other.logits.log_softmax(-1))


def test_a_weight_of_0_is_unconditional_and_of_1_conditional():
    same(classifier_free([(0.0, GIVEN, FREE)])(*POINT), FREE.says)
    same(classifier_free([(1.0, GIVEN, FREE)])(*POINT), GIVEN.says)


@pytest.mark.parametrize("weight", [0.5, 1.5, 4.0])
def test_any_other_goes_on_along_the_difference(weight):
    found = classifier_free([(weight, GIVEN, FREE)])(*POINT)
    torch.testing.assert_close(found.x0, FREE.says.x0 + weight * (GIVEN.says.x0 - FREE.says.x0))
    p, q = (denoiser.says.logits.softmax(-1) for denoiser in (GIVEN, FREE))
    expected = p**weight * q ** (1 - weight)  # p(w) (p(w | c) / p(w))^weight
    torch.testing.assert_close(found.logits.softmax(-1), expected / expected.sum(-1, keepdim=True))


def test_several_tasks_are_a_sum_of_guided_differences():
    found = classifier_free([(2.0, GIVEN, FREE), (3.0, OTHER, OTHER_FREE)])(*POINT).x0
    free = (FREE.says.x0 + OTHER_FREE.says.x0) / 2
    one, other = GIVEN.says.x0 - FREE.says.x0, OTHER.says.x0 - OTHER_FREE.says.x0
    torch.testing.assert_close(found, free + 2 * one + 3 * other)


def test_two_equal_models_asked_for_nothing_are_one():
    same(classifier_free([(3.0, FREE, FREE), (3.0, FREE, FREE)])(*POINT), FREE.says)


def test_each_network_hears_what_it_said_itself_at_the_step_before():
    one, other = Fixed(5), Fixed(6)
    both = Combination([(2.0, one), (-1.0, other)])
    first = both(*POINT)
    both(POINT[0][:, :3], POINT[1], first.cropped(3))  # the sampler leaves out positions behind the end
    for denoiser in (one, other):
        assert torch.equal(denoiser.previous[1].x0, denoiser.says.x0[:, :3])
    assert isinstance(first, Combined) and denoiser.previous[0] is None


def test_what_has_no_weight_is_not_run():
    given, free = Fixed(7), Fixed(8)
    for weight, ran in ((1.0, given), (0.0, free)):
        given.previous, free.previous = [], []
        classifier_free([(weight, given, free)])(*POINT)
        assert [len(given.previous), len(free.previous)] == [int(ran is given), int(ran is free)]


# --- writing


def method(models, weight=1.0, **options):
    return Conditional(models, DDIM(10), Rounding(), {"default": weight}, **options)


def requests(n=24):
    return [Request({"colour": COLOURS[i % 3], "verb": VERBS[i % 2]}) for i in range(n)]


def obeyed(models, name, **options):
    texts = [text for (text,) in method(models, **options).generate(requests(), 1)]
    return sum(request.targets[name] in text for request, text in zip(requests(), texts, strict=True)) / len(texts)


def test_it_obeys_the_more_the_larger_the_weight(trained):
    one = {"colour": trained["colour"]}
    free, guided = obeyed(one, "colour", weight=0.0), obeyed(one, "colour", weight=2.0)
    assert free < 0.6 and guided > 0.8


def test_a_product_obeys_both_tasks(trained):
    assert obeyed(trained, "colour", weight=2.0) > 0.8 and obeyed(trained, "verb", weight=2.0) > 0.8


def test_without_weight_the_target_does_not_matter(trained):
    writer = method({"colour": trained["colour"]}, weight=0.0)
    texts = [writer.write([Request({"colour": colour})] * 3, Draws([0, 1, 2]), print) for colour in COLOURS]
    assert texts[0] == texts[1] == texts[2]


def test_it_writes_the_text_without_its_prompt_and_the_same_one_again(corpus):
    models = {"colour": conditional(corpus, Spelled()).eval()}  # letters stand in its prompts alone
    writer = method(models, weight=1.5)
    texts = [text for (text,) in writer.generate(requests(6), 1)]
    known = {*corpus.vocabulary.words, *SPECIALS}
    assert all(len(text) <= corpus.length and set(text) <= known for text in texts)
    assert texts == [text for (text,) in writer.generate(requests(6), 1)]
    P, L = models["colour"].prompt_length, corpus.length
    assert models["colour"].token_evaluations <= 2 * 2 * 6 * 11 * (P + L)  # prompts are counted too


def test_what_it_names_as_running_is_all_that_it_runs(corpus):
    model = conditional(corpus, FakeTask(COLOURS, corpus)).eval()
    running = {id(p) for part in model.running() for p in part.parameters()}
    others = [p for p in model.parameters() if id(p) not in running]
    before = method({"colour": model}, weight=1.5).generate(requests(2), 1)
    for parameter in others:
        parameter.data.fill_(torch.nan)
    assert others and method({"colour": model}, weight=1.5).generate(requests(2), 1) == before


def test_a_text_is_as_long_as_a_training_text_that_meets_the_targets(trained, corpus):
    lengths = TrainingLengths(corpus, {"colour": FakeTask(COLOURS, corpus), "verb": FakeTask(VERBS, corpus)})
    texts = method(trained, weight=2.0, lengths=lengths).generate(requests(), 1)
    for request, (text,) in zip(requests(), texts, strict=True):
        colour = request.targets["colour"]  # fewer training texts have a colour than a verb
        assert len(text) in {len(e.words) for e in corpus.splits["train"] if colour in e.words}


def test_a_length_that_a_target_says_is_met_by_construction(trained, corpus, monkeypatch):
    lengths = TrainingLengths(corpus, {"colour": FakeTask(COLOURS, corpus), "verb": FakeTask(VERBS, corpus)})
    monkeypatch.setattr(FakeTask, "words", lambda self, target: 4 if target in COLOURS else None)
    monkeypatch.setattr(lengths, "draw", lambda *args: pytest.fail("a length was drawn"))
    texts = [text for (text,) in method(trained, lengths=lengths).generate(requests(6), 1)]
    assert [len(text) for text in texts] == [4] * 6


def test_a_text_is_no_longer_than_its_targets_allow(trained, corpus, monkeypatch):
    lengths = TrainingLengths(corpus, {"colour": FakeTask(COLOURS, corpus), "verb": FakeTask(VERBS, corpus)})
    drawn = [text for (text,) in method(trained, lengths=lengths).generate(requests(), 1)]
    most = min(map(len, drawn))
    assert max(map(len, drawn)) > most
    monkeypatch.setattr(FakeTask, "most_words", lambda self, target: most if target in COLOURS else None)
    texts = [text for (text,) in method(trained, lengths=lengths).generate(requests(), 1)]
    assert {len(text) for text in texts} == {most}


# --- what is refused


def node(*overrides):
    cfg = composed("method=conditional", "data.size=60", *overrides)
    return cfg["method"]["conditional"], cfg


def test_guidance_needs_to_know_texts_without_a_target():
    made, _ = node("conditional_lm.drop=0")
    with pytest.raises(Refused, match=r"1 task with strength 2 .*semantic_content .*drop=0"):
        Conditional.check(made, {}, None)
    Conditional.check(node("conditional_lm.drop=0", "strength.conditional.semantic_content=1")[0], {}, None)
    two = "task=[semantic_content,length]"
    with pytest.raises(Refused, match="2 tasks"):
        Conditional.check(node("conditional_lm.drop=0", "strength.scale=0.5", two)[0], {}, None)
    Conditional.check(node(two)[0], {}, None)


def test_a_product_of_models_of_different_noisy_texts_is_refused():
    made, _ = node("task=[semantic_content,length]")
    lms = {**made["lms"], "length": {**made["lms"]["length"], "lm": {**made["lms"]["length"]["lm"], "model_seed": 7}}}
    with pytest.raises(Refused, match="semantic_content and length .*one lm"):
        Conditional.check({**made, "lms": lms}, {}, None)


def test_a_language_model_of_other_words_is_refused(corpus):
    class Fewer(FakeCorpus):
        def _example(self, drawn):
            return super()._example([0, *drawn[1:]])

    with pytest.raises(Refused, match="FakeTask have other words"):
        conditional(corpus, lm=language_model(Fewer()))


# --- whole runs


def test_a_recipe_is_filled_in_for_every_task_and_holds_the_language_model():
    made, cfg = node("task=[semantic_content,length]")
    assert set(made["lms"]) == {"semantic_content", "length"}
    for name, recipe in made["lms"].items():
        assert is_recipe(recipe) and recipe["task"] == cfg["task"][name] and recipe["lm"] == cfg["lm"]


@pytest.mark.slow
def test_a_whole_tiny_run_of_two_tasks_trains_one_model_each(tmp_path):
    done = run(tmp_path, "method=[conditional]", "task=[semantic_content,first_word]", "strength.scale=0.5")
    assert isinstance(done, subprocess.CompletedProcess) and done.returncode == 0, done.stderr
    found = results(newest(tmp_path))
    assert {"unguided", "conditional"} <= set(found["methods"])
    assert sum(name.startswith("ConditionalLM-") for name in found["trained"]) == 2
    (recipe,) = {path.parent for path in tmp_path.glob("store/DiffusionLM-*/config.yaml")}
    for folder in tmp_path.glob("store/ConditionalLM-*"):
        parents = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["parents"]
        assert parents == {"lm": recipe.name}
