"""What loggers show of controls."""

import pytest
import torch
from torch import nn

from diffcontrol import dashboard
from diffcontrol.diffusion.decoding import Rounding
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.objective import CrossEntropy
from diffcontrol.diffusion.sampler import DDIM
from diffcontrol.diffusion.schedule import Sqrt
from diffcontrol.guidance.langevin import Langevin
from diffcontrol.methods.guided_diffusion import GuidedDiffusion
from diffcontrol.steering.classifier import ControlClassifier, DenoiserEncoder
from diffcontrol.task import Head, Request
from tests.fakes import OPTIM, FakeCorpus, FakeTask

MODEL = {"embedding": 8, "width": 16, "depth": 1, "heads": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def corpus() -> FakeCorpus:
    return FakeCorpus(n=400)


@pytest.fixture
def classifier(corpus) -> ControlClassifier:
    """Not trained."""
    torch.manual_seed(0)
    lm = DiffusionLM(corpus, MODEL, CrossEntropy(), Sqrt(), OPTIM).eval().requires_grad_(False)
    task = FakeTask(["red", "cat"], corpus)
    return ControlClassifier(task, lm, DenoiserEncoder(), corpus, OPTIM).eval().requires_grad_(False)


class Reads(Head):
    """Reads the words off x\u0302\u2080's place in the hidden state: it knows them where there is little noise."""

    def __init__(self, classifier: ControlClassifier, sign: float = 1.0):
        super().__init__()
        self.ids, self.sign = classifier.corpus.vocabulary.ids, sign

    def loss(self, hidden, annotations):
        raise NotImplementedError

    def log_prob(self, hidden, targets):
        """\u2212distance of the nearest word's vector to the target's."""
        table, x0 = Reads.table, hidden[..., -Reads.table.shape[1] :]
        wanted = table[torch.tensor([self.ids[target] for target in targets])]
        return -self.sign * torch.cdist(x0, wanted[:, None]).amin((1, 2))


class Shown(DenoiserEncoder):
    """x_t itself in place of what a network predicts."""

    def hidden(self, network: nn.Module, look):
        alpha_bar = Sqrt().alpha_bar(look.t)[:, None, None]
        return look.x_t / alpha_bar.sqrt()


def test_accuracy_falls_with_noise_and_a_classifier_that_is_always_wrong_is_at_0(classifier, monkeypatch):
    monkeypatch.setattr(Reads, "table", classifier.lm.table(), raising=False)
    classifier.encoder, classifier.head = Shown(), Reads(classifier)
    monkeypatch.setattr(dashboard, "LEVELS", (0.0, 0.95))
    monkeypatch.setattr(classifier.lm, "low", 0.01)
    clean, noisy = dashboard.accuracy("colours", classifier)
    assert clean["accuracy"] == 1.0 and clean["n"] == noisy["n"] > 5 and noisy["accuracy"] < 0.9
    # neither is trained on less noise than that, and no sampler goes there
    assert (clean["task"], clean["t"], noisy["t"]) == ("colours", 0.01, 0.95)
    classifier.head = Reads(classifier, sign=-1.0)
    assert dashboard.accuracy("colours", classifier)[0]["accuracy"] == 0.0


def test_a_classifier_is_looked_at_once_and_the_random_numbers_of_the_run_are_left_alone(classifier):
    method = guided(classifier)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    rows = dashboard.classifiers({"one": method, "other": method, "fudge": object()})
    assert torch.equal(torch.rand(1), expected)
    assert len(rows) == len(dashboard.LEVELS) and rows[0]["t"] > classifier.lm.low
    assert rows == dashboard.classifiers({"one": method}) and {row["method"] for row in rows} == {"one"}


def guided(classifier: ControlClassifier, strength: float = 1.0) -> GuidedDiffusion:
    return GuidedDiffusion(classifier.lm, DDIM(4), Langevin({"default": strength}), Rounding(), {"task": classifier},
                           seed=1)  # fmt: skip


def test_trajectories_have_every_step_and_recording_changes_no_text(classifier, monkeypatch):
    method, request = guided(classifier), Request({"task": "red"})
    plain, seen = method.denoising(request, 5), []
    old = GuidedDiffusion.denoising
    monkeypatch.setattr(GuidedDiffusion, "denoising",
                        lambda self, request, n: seen.append(old(self, request, 5)) or seen[-1])  # fmt: skip
    rows = dashboard.trajectories({"guided": method, "fudge": object()}, [request, Request({"task": "cat"})])
    assert seen[0] == plain
    assert [(row["method"], row["row"], row["target"]) for row in rows] == [
        *[("guided", 0, "red")] * 4, *[("guided", 1, "cat")] * 4
    ]  # fmt: skip
    times = [row["t"] for row in rows[:4]]
    assert times == sorted(times, reverse=True) and all(row["log_prob"] <= 0 for row in rows)
    assert method.steering == {"task": classifier}  # the method itself is as before


@pytest.mark.parametrize("ends", [True, False])
def test_what_is_recorded_moves_end_where_the_steering_does(classifier, ends):
    classifier.ends = ends
    assert dashboard.Recorded(classifier, "word", {}).ends == ends
