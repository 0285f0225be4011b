"""The paper's system as a row beside ours, and at its own size."""

import math

import pytest

from diffcontrol.store import Store
from tests.composing import composed, options

TRAINER = {"accelerator": "cpu", "precision": "32-true", "enable_progress_bar": False}


@pytest.mark.parametrize("task", options("task"))
def test_it_stands_beside_ours_for_every_task(task):
    methods = composed(f"task={task}", "method=[guided_diffusion,paper,fudge]")["method"]
    assert {"guided_diffusion", "paper", "fudge"} <= set(methods)
    ours, paper = methods["guided_diffusion"], methods["paper"]
    assert paper["lm"] != ours["lm"] and set(paper["steering"]) == {task}
    assert paper["steering"][task].get("lm", paper["lm"]) == paper["lm"]  # its controls read its own language model


def test_it_is_set_as_the_paper_and_its_code_are():
    node = composed("method=[paper]")["method"]["paper"]
    sampler, guidance, decoding = node["sampler"], node["guidance"], node["decoding"]
    assert (sampler["steps"], sampler["eta"], sampler["noise"]) == (200, 1.0, 1.0)  # README of the released code
    assert (guidance["inner"], guidance["lr"], guidance["stop"]) == (3, 0.1, 0.05)  # infill_util.py
    assert (decoding["temperature"], decoding["clamp"]) == (1.0, 1.0)
    assert node["lm"]["schedule"]["margin"] is None  # all times
    assert node["lm"]["objective"]["_target_"].endswith("EndToEnd")
    lambdas = {"semantic_content": 0.01, "parts_of_speech": 0.0005, "syntax_tree": 0.0005, "syntax_spans": 0.1,
               "length": 0.01}  # Table 6; the strength is 1/λ  # fmt: skip
    assert guidance["strength"] == {"default": 100} | {task: 1 / value for task, value in lambdas.items()}


def test_its_classifier_is_a_network_of_its_own_as_large_as_the_denoiser():
    cfg = composed("method=[paper]")
    encoder = cfg["method"]["paper"]["steering"]["semantic_content"]["encoder"]
    assert encoder["_target_"].endswith("NoisyEncoder")
    assert {key: encoder[key] for key in ("width", "depth", "heads")} == {
        key: cfg["model"][key] for key in ("width", "depth", "heads")
    }


def test_experiment_paper_has_the_papers_sizes():
    cfg = composed("experiment=paper")
    recipe = cfg["method"]["paper"]["lm"]
    assert recipe["model"] == {"embedding": 16, "width": 768, "depth": 12, "heads": 12, "dropout": 0.1}  # §6.2, App. B
    optim = recipe["optim"]
    assert (optim["steps"], optim["batch_size"], optim["lr"], optim["decay"]) == (200_000, 64, 1e-4, "linear")
    assert recipe["data"]["length"] == 64 and recipe["data"]["more_than"] == 10


def test_experiment_paper_trains_one_diffusion_model():
    paper, unguided = (composed("experiment=paper")["method"][name] for name in ("paper", "unguided"))
    assert all(unguided[part] == paper[part] for part in ("lm", "sampler", "decoding"))
    assert unguided["lengths"] is None and paper.get("lengths") is None


@pytest.mark.slow
def test_one_step_of_experiment_paper(tmp_path):
    recipe = composed("experiment=paper", "paper_lm.optim.steps=1", "paper_lm.optim.batch_size=2")["paper_lm"]
    recipe["data"] = composed("data.size=60", "data.dev=5", "data.test=5")["data"]  # E2E itself is not at hand
    lm = Store(tmp_path, None, TRAINER).fit(recipe)
    assert sum(weight.numel() for weight in lm.parameters()) > 80e6  # "80M parameters", §6.2
    assert all(math.isfinite(weight.sum().item()) for weight in lm.parameters())
