"""Every benchmark runs, on the smallest sizes there are, and leaves what it promises."""

import json
import math
import runpy
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = {path.stem: path for path in sorted((ROOT / "benchmarks").glob("*.py")) if path.stem != "common"}
TINY = ["experiment=tiny", "data.size=200", "data.length=16", "trainer.accelerator=cpu"]
BRIEF = {  # what makes each of them short
    "ablations": ["targets.n=2", "budget=quick", "+benchmark={rows: [as configured, no convolutions, tilt]}"],
    "budgets": ["targets.n=2", "+benchmark={budgets: [quick, default], models: [diffusion, causal]}"],
    "likelihood": ["+benchmark={texts: 3, draws: 2}"],
    "reading": ["+benchmark={texts: 3, times: [0, 1]}"],
    "sampling": ["method=[guided_diffusion,paper]", "targets.n=2", "method.paper.sampler.steps=4"],
    "scaling": ["+benchmark={targets: [2], samples: [1, 3], positions: [12], width: [16]}"],
    "step": ["targets.n=2", "sampler.steps=2", "+benchmark={guidances: [unguided, conditioning]}"],
    "steps_by_strength": ["targets.n=2", "+benchmark={steps: [2, 4], scales: [0.5, 1]}"],
    "training": ["+benchmark={steps: 6}"],
}


SLOW = ("ablations", "budgets", "sampling", "steps_by_strength")


@pytest.fixture
def run(tmp_path, monkeypatch, own_logging):
    """The globals of a benchmark after a run, what it wrote, and its folder."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.chdir(tmp_path)

    def run_here(name: str, *overrides: str):
        where = [f"paths.store={tmp_path / 'store'}", f"paths.outputs={tmp_path / 'outputs'}"]
        monkeypatch.setattr(sys, "argv", [str(BENCHMARKS[name]), *TINY, *where, *overrides])
        module = runpy.run_path(str(BENCHMARKS[name]), run_name="__main__")
        (file,) = tmp_path.glob(f"outputs/benchmarks/{name}/*/{name}.json")
        return module, json.loads(file.read_text(encoding="utf-8")), file.parent

    yield run_here
    sys.modules.pop("common", None)


def test_a_mistyped_setting_is_refused(run):
    with pytest.raises(SystemExit, match=r"training: benchmark.stpes=6: there is no such setting; it has steps"):
        run("training", "+benchmark={stpes: 6}")


def test_a_task_without_a_classifier_is_refused(run):
    with pytest.raises(SystemExit, match=r"reading: task=length: its control is no classifier but \w+; choose"):
        run("reading", "task=length", "+benchmark={texts: 3}")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else [])
                                  for name in BENCHMARKS])  # fmt: skip
def test_it_writes_its_numbers_with_their_conditions_and_a_figure(name, run):
    module, found, folder = run(name, *BRIEF[name])
    assert set(found) >= {"benchmark", "command", "note", "commit", "machine", "rows"} and found["benchmark"] == name
    assert set(found["machine"]) == {"device", "cores", "threads", "torch", "load"}
    assert found["command"].startswith(f"python benchmarks/{name}.py ") and str(folder.anchor + "tmp") not in str(found)
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert found["rows"] and all(set(row) >= set(module["COLUMNS"]) for row in found["rows"])
    numbers = [value for row in found["rows"] for value in row.values() if isinstance(value, float)]
    assert numbers and all(math.isfinite(number) and number >= 0 for number in numbers)
    CHECKS[name](found["rows"])


def likelihood(rows):
    assert [(row["split"], row["model"].split(",")[0]) for row in rows] == [
        (split, model) for split in ("dev", "test") for model in ("causal LM", "diffusion LM", "diffusion LM")
    ]  # fmt: skip
    assert all(row["low"] <= row["nats"] <= row["high"] and row["n"] == 3 for row in rows)
    for row in rows:
        if row["model"].startswith("diffusion"):
            assert row["reconstruction"] + row["diffusion"] + row["prior"] == pytest.approx(row["nats"])


def reading(rows):
    assert [(row["task"], row["split"], row["n"]) for row in rows] == [
        ("semantic_content", split, 3) for split in ("train", "train", "dev", "dev")
    ]  # fmt: skip
    assert all(row["low"] <= row["nats"] <= row["high"] for row in rows)
    assert all(0 < first["time"] < second["time"] == 1 for first, second in (rows[:2], rows[2:]))  # 0 is not sampled


def sampling(rows):
    assert [row["method"] for row in rows] == ["unguided", "guided_diffusion", "paper"]
    paper = next(row for row in rows if row["method"] == "paper")
    assert paper["vs_paper"] == 1
    assert all(row["vs_paper"] == pytest.approx(paper["seconds"] / row["seconds"]) for row in rows)


def scaling(rows):
    assert [(row["varied"], row["value"]) for row in rows] == [
        ("targets", 2), ("samples", 1), ("samples", 3), ("positions", 12), ("width", 16),
    ]  # fmt: skip
    one, three = (row for row in rows if row["varied"] == "samples")
    assert three["megabytes"] > 2 * one["megabytes"] > 0
    assert all(row["per_sample"] == pytest.approx(row["seconds"] / row["targets"] / row["samples"]) for row in rows)


def step(rows):
    assert [(row["guidance"], row["control_by"]) for row in rows] == [
        ("unguided", "–"), ("conditioning", "own"), ("conditioning", "exact"),
    ]  # fmt: skip
    free, learned, exact = rows
    parts = ("denoiser", "control", "backward", "transition", "rest")
    assert all(sum(row[part] for part in parts) == pytest.approx(row["milliseconds"]) for row in rows)
    assert free["control"] == free["backward"] == exact["backward"] == 0 < min(learned["backward"], exact["control"])


def ablations(rows):
    assert [(row["group"], row["changed"]) for row in rows] == [
        ("trained", "as configured"), ("trained", "no convolutions"), ("sampled", "as configured"), ("sampled", "tilt"),
    ]  # fmt: skip
    assert all(row["strict_low"] <= row["strict"] <= row["strict_high"] for row in rows)
    assert rows[1]["free_perplexity"] != rows[0]["free_perplexity"]  # another language model
    assert rows[3]["free_perplexity"] == rows[2]["free_perplexity"] and rows[3]["token_evaluations"] > 0


def budgets(rows):
    assert [(row["budget"], row["model"]) for row in rows] == [
        (budget, model) for budget in ("quick", "default") for model in ("diffusion", "causal")
    ]  # fmt: skip
    assert all(row["minutes"] > 0 and row["steps"] == 30 for row in rows)  # as experiment=tiny says


def steps_by_strength(rows):
    assert [(row["scale"], row["steps"]) for row in rows] == [(0.5, 2), (0.5, 4), (1, 2), (1, 4)]
    assert rows[1]["token_evaluations"] == rows[3]["token_evaluations"] > rows[0]["token_evaluations"]


def training(rows):
    assert [row["training"] for row in rows] == ["configured", "plain"]
    assert rows[1]["ratio"] == 1 and rows[1]["precision"] == "32-true" and not rows[1]["compiled"]
    assert all(row["tokens_per_second"] > 0 and 0 < row["utilisation"] < 100 for row in rows)


ALL = (ablations, budgets, likelihood, reading, sampling, scaling, step, steps_by_strength, training)
CHECKS = {check.__name__: check for check in ALL}


@pytest.mark.slow
def test_after_a_stop_it_measures_what_is_missing_and_nothing_else(run, tmp_path):
    where = f"hydra.run.dir={tmp_path}/outputs/benchmarks/steps_by_strength/one"
    ask = "+benchmark={{steps: [{}], scales: [1]}}".format
    _, first, folder = run("steps_by_strength", "targets.n=2", ask("2"), where)
    kept = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    with (folder / "rows.jsonl").open("a", encoding="utf-8") as opened:
        opened.write('{"what": {"scale"')  # a line that a kill cut short
    _, second, _ = run("steps_by_strength", "targets.n=2", ask("2, 4"), where)
    assert second["rows"][0] == first["rows"][0] and [row["steps"] for row in second["rows"]] == [2, 4]
    now = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert now[:1] == kept and len(now) == 2
    _, third, _ = run("steps_by_strength", "targets.n=2", ask("2"), where, "seed=1")  # not what was measured
    assert third["rows"][0]["seconds"] != first["rows"][0]["seconds"]


@pytest.mark.parametrize("path", BENCHMARKS.values(), ids=BENCHMARKS)
def test_it_opens_with_its_command(path):
    text = path.read_text(encoding="utf-8")
    assert f"\n    python benchmarks/{path.name}\n" in text.split('"""')[1]
    commands = [line.strip() for line in text.split('"""')[1].splitlines() if line.startswith("    python ")]
    assert all(shlex.split(command)[1] == f"benchmarks/{path.name}" for command in commands)
