import copy
import csv
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from diffcontrol import report
from diffcontrol.logger import check as check_loggers
from diffcontrol.logger import first_of_each, flatten, log_results, loggers
from diffcontrol.metrics import interval
from diffcontrol.refused import Refused
from diffcontrol.report import gather, layout, matrix, published, tables
from diffcontrol.report.__main__ import main
from diffcontrol.report.plot import points, tradeoff
from diffcontrol.report.rows import pooled
from diffcontrol.report.texts import verdict

ROOT = Path(__file__).parents[1]
STRENGTHS = {"unguided": 0.13, "fudge": 0.931, "guided_diffusion": 0.973, "gold": 0.98}
SAMPLES = [
    {
        "method": "fudge",
        "row": i,
        "tasks": {"semantic_content": ["food", "Crêpes"]},
        "sample": 0,
        "words": ["a", "café"],
        "scores": {"semantic_content": {"strict": 1.0, "released": 0.0}},
        "nll": 1.5,
    }
    for i in range(3)
]


def measure(mean: float, half: float = 0.02) -> dict:
    return {"mean": mean, "ci95": [mean - half, mean + half], "n": 20}


def made_up(tasks=("semantic_content",), shift: float = 0.0, **more) -> dict:
    methods = {
        name: {
            "success": {
                t: {"strict": measure(p + shift), "released": measure(p - 0.1), "edit": measure(0.5)} for t in tasks
            },
            "fluency": {"perplexity": measure(5 + 10 * p, 0.5), "nll": measure(1.5 + p)},
            "diversity": dict.fromkeys(("distinct_1", "distinct_2", "self_bleu", "length"), measure(0.25)),
            "seconds_per_sample": 0.125,
            "token_evaluations_per_sample": 3200.0,
            "models": {"lm": "DiffusionLM-0123"},
        }
        for name, p in STRENGTHS.items()
    }
    return {
        "tasks": list(tasks),
        "data": "restaurants",
        "seed": 1,
        "commit": "0123456789abcdef",
        "targets": {"from": "heldout", "n": 20},
        "num_samples": 3,
        "methods": methods,
        **more,
    }


def judged(results: dict) -> dict:
    """The same results with a grammar's judgement of the guided methods."""
    for name in ("fudge", "guided_diffusion"):
        method = results["methods"][name]
        method["fluency"]["grammatical"] = measure(0.876)
        for scores in method["success"].values():
            scores["met_and_grammatical"] = measure(0.812)
    return results


def shown(table) -> str:
    console = Console(width=300)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def lay(folder: Path, results: dict, strict: list[list[float]] | None = None) -> Path:
    """A run's folder; `strict` holds fudge's scores of each target's samples."""
    folder.mkdir(parents=True)
    if strict:
        lines = [
            {"method": "fudge", "row": r, "tasks": {"semantic_content": ["food", f"dish {r}"]}, "sample": i,
             "words": ["a"] * (r + 1), "scores": {"semantic_content": {"strict": score}}, "nll": 1.0 + r}
            for r, scores in enumerate(strict) for i, score in enumerate(scores)
        ]  # fmt: skip
        (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_write_leaves_all_files_readable(tmp_path):
    results = made_up()
    report.write(tmp_path / "run", results, iter(SAMPLES))
    assert json.loads((tmp_path / "run/results.json").read_text()) == results
    assert [json.loads(line) for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()] == SAMPLES
    assert "| fudge | 93.1 [91.1, 95.1] |" in (tmp_path / "run/table.md").read_text()
    png = (tmp_path / "run/tradeoff.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 10_000


def test_table_shows_every_method_references_first_and_what_it_stands_on():
    lines = shown(report.table(made_up())).splitlines()
    names = [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in STRENGTHS]
    assert names[:4] == ["gold", "unguided", "fudge", "guided_diffusion"]
    text = "\n".join(lines)
    for part in ("97.3", "[95.3, 99.3]", "edit %", "0.125", "heldout", "20 targets × 3", "seed 1", "0123456789ab"):
        assert part in text
    assert "paper" not in text


def test_tasks_stand_side_by_side_with_success_and_perplexity(tmp_path):
    for task in ("length", "syntax_tree"):
        for seed in (1, 2):
            lay(tmp_path / f"{task}-{seed}", made_up((task,)) | {"seed": seed})
    rows, _ = gather.gather(gather.load(tmp_path)[0])
    assert "| method | length | syntax_tree |" in matrix.markdown(rows)
    fudge = next(line for line in matrix.markdown(rows).splitlines() if line.startswith("| fudge"))
    assert fudge.count("93.1 at ") == 2
    assert matrix.table(rows[:1]) is None  # one task has nothing to stand beside


def test_where_a_strength_was_swept_no_cell_can_speak_for_a_method(tmp_path):
    for task in ("length", "syntax_tree"):
        for scale in (1, 3):
            lay(tmp_path / f"{task}-{scale}", made_up((task,)) | {"strength": {"scale": scale}})
    assert matrix.markdown(gather.gather(gather.load(tmp_path)[0])[0]) == ""


def test_missing_numbers_become_dashes_and_composed_tasks_their_own_columns():
    results = made_up(("length", "syntax_tree"))
    del results["methods"]["gold"]["fluency"], results["methods"]["gold"]["seconds_per_sample"]
    text = layout.markdown(results)
    assert "| length strict % |" in text
    assert "| syntax_tree released % |" in text
    gold = next(line for line in text.splitlines() if line.startswith("| gold"))
    assert gold.count("–") == 2
    assert "gold" not in {point.name for point in points(results)}


def twice_judged(results: dict, **ngram: float) -> dict:
    """The same results with the n-gram judge's perplexities of these methods."""
    for name, value in ngram.items():
        results["methods"][name]["fluency"]["perplexity_ngram"] = measure(value, 0.5)
    return results


def test_the_second_judge_of_fluency_has_a_column_where_it_judged(tmp_path):
    results = twice_judged(made_up(), gold=6.5, fudge=21.25, guided_diffusion=22.0)
    assert "| n-gram perplexity |" in layout.markdown(results)
    assert "n-gram" not in layout.markdown(made_up())
    lay(tmp_path / "run", results)
    rows, _ = gather.gather(gather.load(tmp_path)[0])
    _, headers, body = tables.lay_out(rows)
    at = headers.index("n-gram perplexity")
    assert {names[-1]: cells[at].number for names, cells in body}["fudge"] == "21.25"


def test_judges_of_fluency_that_rank_two_methods_differently_are_mentioned():
    alike = twice_judged(made_up(), gold=99.0, unguided=8.0, fudge=20.0, guided_diffusion=21.0)
    assert not [line for line in layout.notes(alike) if "disagree" in line]
    (line,) = [line for line in layout.notes(twice_judged(alike, fudge=22.0)) if "disagree" in line]
    assert "fudge more fluent than guided_diffusion;" in line  # 14.3 and 14.7 by perplexity


def with_entropy(results: dict, **bits: float) -> dict:
    for name, value in bits.items():
        results["methods"][name]["diversity"]["word_entropy"] = measure(value)
    return results


def test_a_matched_method_that_repeats_itself_is_marked():
    bits = {"gold": 7.0, "fudge": 6.75, "guided_diffusion": 6.80}  # 3 % below gold is 6.79
    matched = {"perplexity": 9.0, "settings": {"fudge": {"setting": {"scale": 3}}},
               "at_entropy_of_gold": {"guided_diffusion": None, "fudge": 5.25}}  # fmt: skip
    results = with_entropy(made_up(matched=matched), **bits)
    (line, beside) = [line for line in layout.notes(results) if line.startswith(("Entropy", "Perplexity on dev"))]
    assert beside == "Perplexity on dev at gold's entropy, between two settings: fudge 5.25."
    assert "gold 7.00, fudge 6.75 (repeats itself), guided_diffusion 6.80." in line
    assert layout.entropies(with_entropy(made_up(), fudge=1.0)) == {"fudge": (1.0, False)}  # no gold to compare with
    assert "| word entropy, bits |" in layout.markdown(results)


def test_means_have_columns_where_they_are_known(tmp_path):
    results = made_up()
    assert "training, minutes" not in layout.markdown(results)
    results["methods"]["fudge"] |= {"parameters": 1_250_000, "training_seconds": 90.0}
    lay(tmp_path / "run", results)
    text = layout.markdown(results)
    for said in (text, tables.markdown(*gather.gather(gather.load(tmp_path)[0]))):
        assert "size, millions | training, minutes" in said
        (line,) = [line for line in said.splitlines() if "| fudge |" in line]
        assert line.endswith("| 1.25 | 1.5 |")


def test_grammar_has_columns_where_it_was_judged(tmp_path):
    text = layout.markdown(judged(made_up()))
    assert "| met and grammatical % | perplexity | grammatical % |" in text
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("| ")}
    assert "87.6" in rows["fudge"] and "81.2" in rows["fudge"]
    assert rows["gold"].count("–") == 2  # judged by none
    assert "grammatical" not in layout.markdown(made_up())


def test_grammar_stands_in_the_tables_of_many_runs_where_some_run_has_it(tmp_path):
    for task in ("length", "syntax_tree"):
        lay(tmp_path / task, judged(made_up((task,))) if task == "length" else made_up((task,)))
    rows, notes = gather.gather(gather.load(tmp_path)[0])
    lines = tables.markdown(rows, notes).splitlines()
    assert "| met and grammatical % | perplexity | grammatical % | length |" in lines[0]
    fudge = [line for line in lines if "| fudge |" in line]
    assert "| 81.2 [79.2, 83.2] |" in fudge[0] and "| 87.6 [85.6, 89.6] |" in fudge[0] and fudge[1].count("| – |") == 2
    across = matrix.markdown(rows)
    assert "| fudge | 93.1 at 14.31, g 87.6 | 93.1 at 14.31 |" in across
    assert "g: share of texts that the data's grammar can write" in across
    plain = [row for row in rows if row.task == "syntax_tree"]
    assert "grammatical" not in tables.markdown(plain, notes)


def test_paired_differences_stand_beneath():
    difference = {"success": {"semantic_content": {"strict": measure(0.042)}}, "nll": measure(-0.2)}
    text = shown(report.table(made_up(differences={"guided_diffusion - fudge": difference})))
    assert "guided_diffusion minus fudge, paired by target" in text
    assert "strict +4.2 [2.2, 6.2] points; NLL -0.20 [-0.22, -0.18]" in text


def test_published_rows_only_beside_the_papers_data_and_tasks():
    text = " ".join(shown(report.table(made_up(data="e2e"))).split())
    for part in ("paper: Diffusion-LM", "81.2", "2.55", "real E2E data", "released scorer"):
        assert part in text
    assert "paper" not in shown(report.table(made_up(("attribute",), data="e2e")))
    assert "paper" not in shown(report.table(made_up(("length", "syntax_tree"), data="e2e")))


def test_published_compositions_in_either_order():
    row = published.of("guided_diffusion", ("syntax_tree", "semantic_content"))
    assert row == ({"semantic_content": 69.8, "syntax_tree": 74.8}, 5.92)
    assert published.of("finetuned", ("semantic_content", "parts_of_speech")).lm == 2.97
    assert published.of("finetuned", ("length",)).control == {"length": 98.1}
    assert published.of("unguided", ("length",)) is published.of("pplm", ("length",)) is None


def test_without_samples_runs_are_averaged_over_seeds(tmp_path, capsys):
    lay(tmp_path / "a", made_up(data="e2e"))
    lay(tmp_path / "b", made_up(shift=0.02, seed=2, data="e2e"))
    assert main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for part in ("98.3", "(97.3–99.3)", "81.2"):
        assert part in text
    summary = (tmp_path / "summary.md").read_text()
    assert "| 98.3 (97.3–99.3) |" in summary and "| paper, E2E: control % |" in summary
    rows = {row["method"]: row for row in csv.DictReader((tmp_path / "summary.csv").open())}
    assert list(rows) == ["gold", "unguided", "fudge", "guided_diffusion"]
    assert float(rows["fudge"]["strict"]) == pytest.approx(0.941)
    assert rows["fudge"]["seeds"] == "1 2"
    assert rows["fudge"]["edit"] == "0.5"
    assert rows["fudge"]["published_e2e_control"] == "69.9"


def test_over_seeds_the_samples_of_a_target_are_resampled_together(tmp_path):
    one, other = [[1, 1], [0, 1], [0, 0], [1, 0]], [[1, 1], [0, 0], [0, 1], [1, 1]]
    lay(tmp_path / "a", made_up(), one)
    lay(tmp_path / "b", made_up(seed=2), other)
    rows, notes = gather.gather(gather.load(tmp_path)[0])
    (fudge,) = [row for row in rows if row.method == "fudge"]
    means = [sum(a + b) / 4 for a, b in zip(one, other, strict=True)]
    assert pooled(fudge, "strict") == interval.measure(means, interval.SHARE)
    assert pooled(fudge, "perplexity") == interval.perplexity([1, 2, 3, 4])
    assert pooled(fudge, "length")["mean"] == 2.5
    assert pooled(fudge, "self_bleu") is None  # no mean over samples: the range of the runs is shown
    assert "| fudge | 2 | 56.2 [" in tables.markdown(rows, notes)
    assert "restaurants" in tables.markdown(rows, notes)


@pytest.mark.parametrize("name", ["model_seed", "lm.model_seed"])
def test_trainings_are_pooled_and_their_spread_is_said(tmp_path, name):
    for k, strict in enumerate(([[1], [1], [0], [1]], [[1], [0], [0], [1]])):
        results = made_up(shift=0.02 * k, settings={name: str(k)})
        results["methods"]["fudge"]["models"]["lm"] = f"CausalLM-{k}"
        lay(tmp_path / str(k), results, strict)
    rows, notes = gather.gather(gather.load(tmp_path)[0])
    assert len(rows) == len(STRENGTHS)
    (fudge,) = [row for row in rows if row.method == "fudge"]
    assert pooled(fudge, "strict") == interval.measure([1, 0.5, 0, 1], interval.SHARE)
    assert "fudge on semantic_content, 2 trainings: strict % 93.1 to 95.1." in notes
    assert not [note for note in notes if "different trained models" in note]
    assert "| trainings × seeds |" in tables.markdown(rows, notes)


def test_runs_of_other_targets_experiments_or_commits_are_mixed_only_if_asked(tmp_path, capsys):
    lay(tmp_path / "a", made_up(), [[1], [1]])
    lay(tmp_path / "b", made_up(commit="fedcba98"), [[0], [1]])
    lay(tmp_path / "c", made_up(settings={"experiment": "tiny"}))
    lay(tmp_path / "d", made_up(), [[1], [1], [0]])
    rows, _ = gather.gather(gather.load(tmp_path)[0])
    assert len(tables.apart(rows)) == 4
    assert {len(row.runs) for row in rows} == {1}
    mixed, notes = gather.gather(gather.load(tmp_path)[0], mix=True)
    assert [len(row.runs) for row in mixed] == [4] * len(STRENGTHS)
    assert "commit fedcba98" in notes[-1] and "experiment tiny" in notes[-1]
    assert main([str(tmp_path), "--mix"]) == 0
    assert capsys.readouterr().out.count("all runs, mixed") == 1


def test_published_numbers_stand_only_beside_the_papers_data(tmp_path):
    lay(tmp_path / "a", made_up())
    assert "paper" not in tables.markdown(*gather.gather(gather.load(tmp_path)[0]))


def test_a_row_names_only_the_strengths_of_its_method(tmp_path):
    for scale in (1, 3):
        results = made_up(strength={"fudge": {"length": scale}, "one_pass": {"length": 5}})
        for name, method in results["methods"].items():
            method["strength"] = {"length": scale} if name == "fudge" else {}
        lay(tmp_path / str(scale), results)
    rows, _ = gather.gather(gather.load(tmp_path)[0])
    settings = {name: [row.setting for row in rows if row.method == name] for name in STRENGTHS}
    assert settings["fudge"] == [{"strength.length": "1"}, {"strength.length": "3"}]
    assert settings["guided_diffusion"] == settings["unguided"] == [{}]


def test_a_strength_of_1_is_one_of_1_0(tmp_path):
    for seed, scale in enumerate((1, 1.0)):
        results = made_up(seed=seed)
        results["methods"]["fudge"]["strength"] = {"scale": scale, "default": 0.25, "twist": True}
        lay(tmp_path / str(seed), results)
    (row,) = [row for row in gather.gather(gather.load(tmp_path)[0])[0] if row.method == "fudge"]
    assert len(row.runs) == 2
    assert row.setting == {"strength.scale": "1", "strength.default": "0.25", "strength.twist": "True"}


@pytest.mark.parametrize(("strict", "said"), [
    (0.0, "not met"), (0.001, "met to 0.1 %"), (1e-5, "met to 0.1 %"), (0.5, "met to 50 %"), (0.996, "met to 99.6 %"),
    (0.9999, "met to 99.9 %"), (1.0, "met"),
])  # fmt: skip
def test_what_is_met_in_part_is_never_said_to_be_met_or_not_met(strict, said):
    assert verdict({"scores": {"length": {"strict": strict}}}, "length") == said


def test_a_plot_of_one_perplexity_without_an_interval_shows_its_points(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("diffcontrol.report.plot._label", lambda axes, points: drawn.append(axes.get_xlim()))
    results = made_up()
    for method in results["methods"].values():
        method["fluency"]["perplexity"] = measure(5.0, 0.0)
    tradeoff(results, tmp_path / "plot.png")
    ((low, high),) = drawn
    assert low < 4.5 and high > 5.5


@pytest.mark.parametrize("tasks", [("semantic_content",), ("semantic_content", "parts_of_speech")])
def test_no_table_is_wider_than_a_terminal_and_no_number_is_broken(tmp_path, tasks):
    lay(tmp_path / "a", judged(made_up(tasks)))
    for made in (report.table(judged(made_up(tasks))), tables.table(*gather.gather(gather.load(tmp_path)[0]))):
        text = shown(made)
        assert max(len(line.rstrip()) for line in text.splitlines()) <= 120
        assert "[91.1, 95.1]" in text and "[85.6, 89.6]" in text and "guided_diffusion" in text
        assert "0.125" in text


def test_one_target_has_no_interval():
    results = made_up()
    results["methods"]["fudge"]["success"]["semantic_content"]["strict"] |= {"n": 1}
    assert "| fudge | 93.1 |" in layout.markdown(results)


def test_a_frame_has_a_line_for_each_run_task_and_method(tmp_path):
    lay(tmp_path / "a", made_up(("length", "syntax_tree"), settings={"model_seed": "2", "sampler.steps": "25"}))
    found = report.frame(tmp_path)
    assert len(found) == 2 * len(STRENGTHS)
    fudge = found[(found.method == "fudge") & (found.task == "length")].iloc[0]
    assert (fudge.strict, fudge.strict_low, fudge.seed, fudge.model_seed) == (0.931, 0.931 - 0.02, 1, "2")
    assert fudge["settings.sampler.steps"] == "25"
    with pytest.raises(ValueError, match="no finished run"):
        report.frame(tmp_path / "nowhere")


def test_gather_keeps_strengths_settings_and_targets_apart(tmp_path):
    for i, more in enumerate(
        (
            {"strength": {"langevin": {"semantic_content": 10}}},
            {"strength": {"langevin": {"semantic_content": 2}}},
            {"settings": {"steps": 25}, "unknown": [1]},
            {"targets": {"from": "dev", "n": 20}},
        )
    ):
        lay(tmp_path / str(i), made_up(**more))
    rows, notes = gather.gather(gather.load(tmp_path)[0])
    guided = [row for row in rows if row.method == "guided_diffusion"]
    assert len(guided) == 4
    assert all(len(row.runs) == 1 for row in guided)
    assert len([row for row in rows if row.method == "gold"]) == 2  # strengths and steps change nothing for gold
    assert not notes
    text = shown(tables.table(rows, notes))
    assert text.index("langevin.semantic_content=2 ") < text.index("langevin.semantic_content=10 ")
    assert "targets from dev, 20 × 3 samples" in text


def test_of_two_runs_of_one_seed_the_newest_counts_and_the_other_is_named(tmp_path):
    old, new = lay(tmp_path / "old", made_up(shift=-0.1)), lay(tmp_path / "new", made_up())
    os.utime(old / "results.json", (1, 1))
    rows, notes = gather.gather(gather.load(tmp_path)[0])
    assert {len(row.runs) for row in rows} == {1}
    assert rows[0].measures["strict"][0]["mean"] == STRENGTHS["gold"]
    assert len(notes) == len(STRENGTHS)
    assert f"kept {new / 'results.json'}, set aside {old / 'results.json'}" in notes[0]


def test_averaging_over_different_models_is_said(tmp_path):
    other = copy.deepcopy(made_up(seed=2))
    other["methods"]["fudge"]["models"]["lm"] = "CausalLM-9999"
    lay(tmp_path / "a", made_up())
    lay(tmp_path / "b", other)
    assert gather.gather(gather.load(tmp_path)[0])[1] == [
        "Averaged over different trained models: fudge on semantic_content."
    ]


def test_a_folder_of_any_name_is_named_and_a_number_that_no_run_has_is_left_out(tmp_path, capsys):
    results = made_up()
    for method in results["methods"].values():
        method["parameters"] = None
    lay(tmp_path / "good", results)
    odd = Path(os.fsdecode(os.fsencode(tmp_path / "x") + b"\xe9y"))
    (lay(odd, {}) / "results.json").write_text("{")
    assert main([str(tmp_path)]) == 0
    assert "x\\xe9y" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "parameters" not in (tmp_path / "summary.csv").read_text().partition("\n")[0]
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--csv", str(tmp_path / "good")])
    assert "good: this is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "broken",
    ["{", "[]", "{}", '{"tasks": ["length"], "methods": {}}', '{"tasks": ["length"], "methods": {"gold": 1}}', "\x00"],
)
def test_a_broken_file_is_skipped_by_name(tmp_path, capsys, broken):
    lay(tmp_path / "good", made_up())
    (lay(tmp_path / "bad", {}) / "results.json").write_text(broken)
    assert main([str(tmp_path), "--csv", str(tmp_path / "numbers.csv")]) == 0
    output = capsys.readouterr()
    assert f"skipped {tmp_path / 'bad'}: results.json is not complete" in output.err
    assert "guided_diffusion" in output.out
    assert (tmp_path / "numbers.csv").exists()
    assert not (tmp_path / "summary.csv").exists()
    assert "numbers.csv" in output.out and "summary.csv" not in output.out
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--csv", str(tmp_path / "nowhere" / "numbers.csv")])
    assert "nowhere/numbers.csv: there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("cut", ['{"method": "fudge", "ro', '{"row": 1}\n'])
def test_a_run_whose_samples_are_cut_short_is_skipped_by_name(tmp_path, capsys, cut):
    lay(tmp_path / "good", made_up())
    (lay(tmp_path / "bad", made_up()) / "samples.jsonl").write_text(cut)
    assert main([str(tmp_path)]) == 0
    assert f"skipped {tmp_path / 'bad'}: samples.jsonl is not complete" in capsys.readouterr().err
    assert "samples.jsonl is not complete" in (tmp_path / "summary.md").read_text()


def test_a_run_of_a_sweep_that_was_refused_is_named_in_its_summary(tmp_path, capsys):
    lay(tmp_path / "0", made_up())
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "refused.txt").write_text("task=length method=[pplm]: pplm cannot\n")
    assert main([str(tmp_path)]) == 0
    (tmp_path / "0" / "refused.txt").write_text("seed=x: of an earlier run in this folder")
    said = f"{tmp_path / '1'} was refused: task=length method=[pplm]: pplm cannot"
    assert said in capsys.readouterr().err and said in (tmp_path / "summary.md").read_text()
    assert "earlier" not in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_nothing_to_show_is_one_sentence(tmp_path, capsys, folder):
    assert main([str(tmp_path / folder)]) == 1
    assert capsys.readouterr().err == f"no finished run: {tmp_path / folder} holds no readable results.json\n"


def test_the_module_runs_as_a_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "diffcontrol.report", str(lay(tmp_path / "a", made_up()))],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"},
    )
    assert "guided_diffusion" in done.stdout


def test_flatten_names_every_mean():
    flat = flatten(made_up()["methods"])
    assert flat["fudge/success/semantic_content/strict"] == 0.931
    assert flat["gold/seconds_per_sample"] == 0.125
    assert not any("ci95" in name or "models" in name for name in flat)


CONFIG = {"lm": {"optim": {"lr": 0.01, "betas": [0.9, 0.99]}}, "seed": 3}
SAID = {"name": "results", "title": "length fudge seed=3", "group": "sweep", "job": "evaluate"}


def configured(names: list[str], folder: Path) -> list:
    nodes = {name: OmegaConf.load(ROOT / "conf/logger" / f"{name}.yaml") for name in names}
    for node in nodes.values():
        node.save_dir = str(folder / "logs")  # the only value that needs Hydra's runtime
    return loggers(nodes, CONFIG, **SAID)


def test_csv_logger_gets_config_and_metrics_and_no_logger_is_no_error(tmp_path):
    log_results([], made_up(), SAMPLES, tmp_path)
    log_results(configured(["csv"], tmp_path), made_up(), SAMPLES, tmp_path)
    (row,) = csv.DictReader((tmp_path / "logs/results/metrics.csv").open())
    assert float(row["fudge/success/semantic_content/strict"]) == float(row["strict"]) == 0.931
    assert "lm/optim/lr: 0.01" in (tmp_path / "logs/results/hparams.yaml").read_text()


def test_a_logger_without_its_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pytorch_lightning.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
    with pytest.raises(Refused, match=r"logger=tensorboard: .* pip install 'diffcontrol\[tensorboard\]'"):
        configured(["tensorboard"], tmp_path)
    node = {"_target_": "pytorch_lightning.loggers.TensorBoardLogger", "save_dir": str(tmp_path)}
    with pytest.raises(Refused, match="logger=tensorboard"):
        check_loggers({"tensorboard": node})


def test_to_check_loggers_leaves_nothing_behind(tmp_path):
    places = {"csv": "CSVLogger", "tensorboard": "TensorBoardLogger", "wandb": "WandbLogger"}
    own = {"wandb": {"offline": True}}
    for name in ("csv", "wandb", *(["tensorboard"] if find_spec("tensorboard") else [])):
        node = {"_target_": f"pytorch_lightning.loggers.{places[name]}", "save_dir": str(tmp_path / "logs")}
        check_loggers({name: node | own.get(name, {})})
    assert not list(tmp_path.iterdir())


def test_a_logger_that_takes_tables_and_images_gets_them(tmp_path):
    class Everything:
        def __init__(self):
            self.calls, self.experiment = {}, self

        def __getattr__(self, name):
            return lambda *args, **kwargs: self.calls.setdefault(name, (args, kwargs))

    logger = Everything()
    report.write(tmp_path, made_up(), SAMPLES)
    log_results([logger], made_up(), SAMPLES, tmp_path)
    table = logger.calls["log_table"][1]
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    assert (row["text"], row["score/semantic_content/strict"]) == ("a café", 1.0)
    assert len(table["data"]) == 3
    assert logger.calls["log_image"][1] == {"images": [str(tmp_path / "tradeoff.png")]}
    assert {"save", "finalize", "finish"} <= set(logger.calls)


CLASSIFIERS = [
    {"method": method, "task": "length", "t": t, "accuracy": accuracy, "n": 50}
    for method, t, accuracy in (("fudge", 0.1, 0.99), ("fudge", 0.9, 0.6), ("masked", 0.9, 0.7))
]
TRAJECTORIES = [
    {"method": "guided_diffusion", "row": 0, "task": "length", "target": "8", "t": t, "log_prob": log_prob}
    for t, log_prob in ((1.0, -9.5), (0.5, -3.25), (0.0, -0.5))
]


def test_a_long_sample_table_has_texts_of_every_method():
    samples = [{"method": method, "row": i} for method in ("gold", "unguided", "fudge") for i in range(500)]
    found = first_of_each(samples, 1000)
    assert [sample["row"] for sample in found] == [*range(333)] * 3
    assert {sample["method"] for sample in found} == {"gold", "unguided", "fudge"}
    assert first_of_each(samples[:2], 1000) == samples[:2] and first_of_each([], 1000) == []


def records(run: Path, seconds: float = 60) -> list:
    """What an offline run wrote, once all of it is there: another process writes it, and its last record is `exit`."""
    until = time.monotonic() + seconds
    while not (found := list(written(run))) or found[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < until, "the run did not end"
        time.sleep(0.2)
    return found


def written(run: Path) -> Iterator:
    """The whole records of a run's file so far. It is a LevelDB log: after 7 bytes, blocks of 32 KiB, in which every
    piece of a record has a header of checksum, length and type (1 whole, 2 first, 3 middle, 4 last)."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = next(run.glob("run-*.wandb")).read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:  # the rest of a block is too short for a header
            at += 2**15 - at % 2**15
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + size > len(data):
            return
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.mark.slow
def test_wandb_offline_beside_csv(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    report.write(tmp_path, made_up(), SAMPLES)
    log_results(
        configured(["csv", "wandb"], tmp_path),
        made_up(classifiers=CLASSIFIERS),
        SAMPLES,
        tmp_path,
        lambda: TRAJECTORIES,
    )
    assert wandb.run is None  # ended, so the next logger begins a run of its own
    assert (tmp_path / "logs/results/metrics.csv").exists()
    (run,) = (tmp_path / "logs/wandb").glob("offline-run-*")
    assert list(run.glob("files/media/images/tradeoff*.png"))
    assert list(run.glob("files/media/table/samples*.json"))
    found = records(run)
    (head,) = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert (head.display_name, head.run_group, head.job_type) == ("length fudge seed=3", "sweep", "evaluate")
    config = {item.key or "/".join(item.nested_key): json.loads(item.value_json)
              for record in found for item in (*record.run.config.update, *record.config.update)}  # fmt: skip
    assert config["lm/optim/lr"] == 0.01 and config["seed"] == 3
    history = {item.key or "/".join(item.nested_key): json.loads(item.value_json)
               for record in found for item in record.history.item}  # fmt: skip
    assert history["strict"] == history["fudge/success/semantic_content/strict"] == 0.931
    accuracies = {name: value for name, value in history.items() if name.startswith("classifier/")}
    assert accuracies == {
        f"classifier/fudge/length/accuracy/t={t}": value for t, value in ((0.1, 0.99), (0.9, 0.6))
    } | {"classifier/masked/length/accuracy/t=0.9": 0.7}
    (row,) = csv.DictReader((tmp_path / "logs/results/metrics.csv").open())
    assert float(row["classifier/fudge/length/accuracy/t=0.9"]) == 0.6
    for name, lines in (("trajectories", TRAJECTORIES), ("classifiers", CLASSIFIERS)):
        (file,) = run.glob(f"files/media/table/{name}*.json")
        table = json.loads(file.read_text())
        assert [dict(zip(table["columns"], line, strict=True)) for line in table["data"]] == lines


def tuned(scale: float, strict: float, perplexity: float, entropy: float | None = None,
          gold: float | None = None) -> dict:  # fmt: skip
    """A run of experiment=tune: fudge at one strength, the unguided row at perplexity 10, and 5 bits if it has any; the
    gold row if its perplexity is given."""
    results = made_up(settings={"experiment": "tune"})
    results["methods"] = {name: results["methods"][name] for name in ("gold", "unguided", "fudge")}
    results["methods"]["unguided"]["fluency"]["perplexity"] = measure(10.0, 0.5)
    if gold:
        results["methods"]["gold"]["fluency"]["perplexity"] = measure(gold, 0.5)
    else:
        del results["methods"]["gold"]
    fudge = results["methods"]["fudge"]
    fudge["success"]["semantic_content"]["strict"] = measure(strict)
    fudge["fluency"] = {"perplexity": measure(perplexity, 0.5), "nll": measure(perplexity / 10)}
    fudge["strength"] = {"scale": scale, "semantic_content": 8 * scale}
    if entropy:
        for name, bits in (("unguided", 5.0), ("fudge", entropy)):
            results["methods"][name]["diversity"] = {"word_entropy": measure(bits, 0.1)}
    return results


@pytest.mark.parametrize(("runs", "said"), [
    ([(0.3, 0.5, 6.0), (1, 0.9, 12.0), (3, 0.95, 12.1)], "strength.scale=1 (90.0 % at 12.00, 1.20 × the unguided"),
    ([(0.3, 0.5, 6.0), (1, 0.9, 9.0), (3, 0.9, 8.0)], "strength.scale=3 (90.0 % at 8.00"),  # of equals the more fluent
    ([(0.3, 0.5, 6.0), (1, 0.9, 8.0), (3, 0.9, 8.0)], "strength.scale=1 (90.0 % at 8.00"),  # and then the weaker
    ([(0.3, 0.9, 9.0, 5.2), (1, 0.9, 8.0, 4.9), (3, 0.9, 5.0, 4.8)], "strength.scale=1 (90.0 % at 8.00"),  # 3 repeats
    ([(0.3, 0.9, 9.0, 4.5), (1, 0.9, 8.0, 4.4)], "strength.scale=0.3 (90.0 % at 9.00"),  # both do, the second more
    ([(0.3, 0.9, 9.0, 5.0), (1, 1.0, 8.0, 4.0)], "strength.scale=1 (100.0 % at 8.00"),  # success counts first
    ([(0.3, 0.5, 6.0), (1, 0.9, 13.0, None, 11.0)], "strength.scale=1 (90.0 % at 13.00, 1.18 × gold's"),
    ([(0.3, 0.5, 6.0), (1, 0.9, 13.0, None, 9.0)], "strength.scale=0.3 (50.0 % at 6.00, 0.60 × the unguided"),
    ([(0.3, 0.5, 13.0), (1, 0.9, 14.0)], "no strength stays within 1.2 × the unguided perplexity (10.00)"),
])  # fmt: skip
def test_runs_of_experiment_tune_end_in_the_strength_of_the_rule(tmp_path, runs, said):
    for i, run in enumerate(runs):
        lay(tmp_path / str(i), tuned(*run))
    text = tables.markdown(*gather.gather(gather.load(tmp_path)[0]))
    (line,) = [line for line in text.splitlines() if line.startswith("Tuned")]
    assert line.startswith(f"Tuned: fudge on semantic_content: {said}")


def test_successes_that_differ_by_rounding_alone_are_equal_to_the_rule(tmp_path):
    thirds = [1 / 3, 1.0, 2 / 3, 1.0, 1.0, 1 / 3, 2 / 3, 1.0, 1.0, 2 / 3]
    means = [sum(thirds) / 10, sum(sorted(thirds)) / 10 + 2e-16]
    assert means[0] != means[1]
    for i, (scale, strict, perplexity) in enumerate([(1, min(means), 6.0), (3, max(means), 7.0)]):
        lay(tmp_path / str(i), tuned(scale, strict, perplexity))
    assert "Tuned: fudge on semantic_content: strength.scale=1 " in gathered(tmp_path)


def test_one_strength_of_several_may_be_tuned(tmp_path):
    for i, (strict, own) in enumerate([(0.5, 3), (0.9, 9), (0.8, 27)]):
        results = tuned(1, strict, 6.0)
        results["methods"]["fudge"]["strength"] = {"scale": 1, "semantic_content": 8, "guidance.syntax_tree": own}
        lay(tmp_path / str(i), results)
    text = tables.markdown(*gather.gather(gather.load(tmp_path)[0]))
    assert "Tuned: fudge on semantic_content: strength of syntax_tree=9 (90.0 % at 6.00" in text


def test_where_several_strengths_differ_the_rule_says_nothing(tmp_path):
    for i, (strict, own) in enumerate([(0.5, 3), (0.9, 9)]):
        results = tuned(1, strict, 6.0)
        results["methods"]["fudge"]["strength"] = {"scale": 1, "semantic_content": 8 + i, "syntax_tree": own}
        lay(tmp_path / str(i), results)
    assert "Tuned" not in tables.markdown(*gather.gather(gather.load(tmp_path)[0]))


def test_an_experiment_may_be_tuned_beside_another(tmp_path):
    for scale in (0.3, 1):
        lay(tmp_path / str(scale), tuned(scale, 0.5, 6.0) | {"settings": {"experiment": "[e2e,tune]"}})
    assert "Tuned: fudge" in tables.markdown(*gather.gather(gather.load(tmp_path)[0]))


def test_the_rule_compares_runs_of_one_setting_beside_the_strengths(tmp_path):
    for steps, free in (("10", 10.0), ("50", 4.0)):
        for scale, strict in ((1, 0.5), (3, 0.9)):
            results = tuned(scale, strict, 6.0) | {"settings": {"experiment": "[e2e, tune]", "sampler.steps": steps}}
            results["methods"]["unguided"]["fluency"]["perplexity"] = measure(free, 0.5)
            lay(tmp_path / steps / str(scale), results)
    said = [line for line in gathered(tmp_path).splitlines() if line.startswith("Tuned")]
    assert [line.partition(" (")[0] for line in said] == [
        "Tuned: fudge on semantic_content, sampler.steps=10: strength.scale=3",
        "Tuned: fudge on semantic_content, sampler.steps=50: no strength stays within 1.2 × the unguided perplexity",
    ]


def test_runs_of_changed_code_stand_apart_from_those_of_its_commit(tmp_path):
    for seed, commit in enumerate(("0123456789ab", "0123456789ab-dirty")):
        lay(tmp_path / commit, made_up() | {"seed": seed, "commit": commit})
    rows, _ = gather.gather(gather.load(tmp_path)[0])
    assert {row.title.rpartition(", ")[2] for row in rows} == {"commit 0123456789ab", "commit 0123456789ab-dirty"}
    assert "0123456789ab-dirty" in layout.caption(made_up() | {"commit": "0123456789ab-dirty"})


def test_perplexities_by_different_judges_are_pointed_out(tmp_path):
    for seed, judge in enumerate(("LstmJudge-1", "LstmJudge-2")):
        lay(tmp_path / judge, made_up() | {"seed": seed, "teacher": judge})
    assert "by different judges, LstmJudge-1, LstmJudge-2" in gathered(tmp_path)
    assert "different judges" not in gathered(tmp_path / "LstmJudge-1")


def gathered(folder) -> str:
    """The table of all runs below the folder, as Markdown."""
    return tables.markdown(*gather.gather(gather.load(folder)[0]))


def test_other_runs_are_not_tuned(tmp_path):
    for scale in (0.3, 1):
        lay(tmp_path / str(scale), tuned(scale, 0.5, 6.0) | {"settings": {"experiment": "table"}})
    assert "Tuned" not in tables.markdown(*gather.gather(gather.load(tmp_path)[0]))


def test_runs_that_differ_in_a_methods_own_number_are_told_apart(tmp_path):
    for seed, value in ((0, "1"), (1, "16")):
        lay(tmp_path / value, made_up(settings={"method.fudge.temperature": value}) | {"seed": seed})
    rows, _ = gather.gather(gather.load(tmp_path)[0])
    runs = {name: [len(row.runs) for row in rows if row.method == name] for name in STRENGTHS}
    assert runs["fudge"] == [1, 1] and runs["guided_diffusion"] == runs["gold"] == [2]
