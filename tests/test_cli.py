"""What a run says and leaves, as a user sees it: run.log, no folder after a refusal, a notice where targets are cut."""

import logging
import os
import re
import subprocess
import sys

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from diffcontrol.cli import PLUGINS, leave_nothing, main
from diffcontrol.offers import _command
from diffcontrol.requests import choose
from tests.composing import CONF, composed, options
from tests.fakes import FakeCorpus, FakeTask


@pytest.fixture
def run(tmp_path, monkeypatch, own_logging):
    """A tiny run within this process, whose outputs and store lie in `tmp_path`."""

    def here(*overrides: str) -> None:
        where = [f"paths.store={tmp_path / 'store'}", f"paths.outputs={tmp_path / 'outputs'}"]
        small = ["experiment=tiny", "trainer.accelerator=cpu", "lm.optim.steps=4", "causal_lm.optim.steps=4"]
        monkeypatch.setattr(sys, "argv", ["run.py", *small, *where, *overrides, "--config-path", str(CONF)])
        main()

    return here


def test_help_names_the_groups_and_how_to_complete_them(monkeypatch, capsys, own_logging):
    monkeypatch.setattr(sys, "argv", ["run.py", "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().out
    assert not end.value.code and 'eval "$(diffcontrol -sc install=bash)"' in said and "task=length" in said
    for group in ("task", "method", "guidance", "budget"):
        assert f"\n  {group} " in said and f"\n{group}: " in said


@pytest.mark.parametrize("argument", PLUGINS)
def test_a_plugin_that_is_not_installed_is_named_with_its_extra(monkeypatch, argument):
    monkeypatch.setattr("diffcontrol.cli.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["run.py", "-m", argument])
    with pytest.raises(SystemExit, match=rf"{argument} needs pip install 'diffcontrol\[(optuna|joblib|submitit)\]'"):
        main()


@pytest.mark.parametrize("group", ["guidance", "task", "experiment"])
@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_group_that_is_set_to_null_is_one_sentence(monkeypatch, group, sign):
    monkeypatch.setattr(sys, "argv", ["run.py", f"{sign}{group}=null"])
    with pytest.raises(SystemExit, match=rf"{group}=null: {group} is a group, .* needed: .*{options(group)[-1]}"):
        main()


@pytest.mark.parametrize(
    "setting", ["targets=dev", "limit=100", "limit=0", "strength=0", "strength=3", "strength.one_pass=3"]
)
def test_a_group_of_settings_that_is_set_to_a_value_is_one_sentence(run, setting):
    name = re.escape(setting.partition("=")[0])
    with pytest.raises(SystemExit, match=rf"{setting}: {name} is a group of settings; set one of them, as {name}\.\w"):
        run(setting)


def test_a_folder_that_nothing_may_be_written_in_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("diffcontrol.cli.os.access", lambda path, mode: False)
    monkeypatch.setattr(sys, "argv", ["run.py", f"paths.outputs={tmp_path}/outputs"])
    with pytest.raises(SystemExit, match=rf"paths.outputs=\S+: nothing may be written in {tmp_path}"):
        main()


def test_a_folder_whose_name_is_too_long_is_one_sentence(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py", f"hydra.run.dir={'x' * 300}"])
    with pytest.raises(SystemExit, match=r"hydra.run.dir=x+: no folder can be made there \(File name too long\)"):
        main()


@pytest.mark.parametrize(
    "setting", ["paths.store=null", "paths.outputs=NULL", "++paths.outputs=", "hydra.run.dir=null"]
)
def test_a_folder_that_is_set_to_null_is_one_sentence(monkeypatch, tmp_path, setting):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py", setting])
    with pytest.raises(SystemExit, match=rf"{re.escape(setting)}: \S+ is the path of a folder; leave it out"):
        main()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="pipes of Windows break otherwise")
@pytest.mark.parametrize("asked", [["--help"], ["--cfg", "job"]])
def test_a_reader_who_has_read_enough_is_no_error(asked):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, str(CONF.parent / "run.py"), *asked]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert not done.stderr


def test_no_logger_is_said_how(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py", "logger=null"])
    with pytest.raises(SystemExit, match=r"logger=null: write logger=\[\] for none"):
        main()


@pytest.mark.parametrize("key", ["hydra.run.dir", "paths.outputs"])
@pytest.mark.parametrize("below", ["", "/run"])
def test_a_file_in_the_place_of_a_folder_is_one_sentence(monkeypatch, tmp_path, key, below):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["run.py", f"{key}={tmp_path}/file{below}"])
    with pytest.raises(SystemExit, match=rf"{key}=\S+: a folder is needed, but \S+/file is a file"):
        main()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_refused_run_leaves_no_folder(run, tmp_path):
    with pytest.raises(SystemExit, match="food has no value 'Nosuch'"):
        run("targets.from=[[food,Nosuch]]")
    assert not (tmp_path / "outputs").exists()


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A package `own_package` of the user's, with the task Sung, a script, and data that know of words alone."""
    package, options = tmp_path / "own_package", tmp_path / "own_package" / "conf"
    for group in ("task", "data"):
        (options / group).mkdir(parents=True)
    (package / "script.py").write_text("raise SystemExit('this script is not to be run')\n", encoding="utf-8")
    (package / "sung.py").write_text(
        "from tests.fakes import FakeTask\nclass Sung(FakeTask):\n    def targets(self, found):\n        return []\n",
        encoding="utf-8",
    )
    (options / "task" / "sung.yaml").write_text(
        "# @package _global_\ntask: {sung: {_target_: own_package.sung.Sung, data: '${data}'}}\n", encoding="utf-8"
    )
    (options / "data" / "plain.yaml").write_text("_target_: tests.fakes.FakeCorpus\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield options
    for name in [name for name in sys.modules if name.split(".")[0] == "own_package"]:
        del sys.modules[name]


@pytest.mark.parametrize("task", ["sung", "syntax_tree"])
def test_the_command_that_a_refusal_advises_has_the_folder_of_options_and_runs_no_script(run, own_folder, task):
    with pytest.raises(SystemExit) as end:
        run("method=[guided_diffusion]", "data=plain", f"task={task}", "--config-dir", str(own_folder))
    said = str(end.value)
    assert f"task={task}: the data (test) have no target for it" in said
    assert f": python run.py --config-dir {own_folder} experiment=tiny" in said
    assert re.search(r"data=plain task=(attribute|semantic_content)\b", said) and said.count(f"task={task}") == 1


def test_the_advice_begins_with_the_command_that_was_typed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/diffcontrol"])
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({
        "runtime": {"config_sources": [{"provider": "main", "path": "/conf"}]},
        "overrides": {"hydra": ["hydra.searchpath=[mine]", "hydra.mode=RUN"], "task": ["+task=a", "task.a.b=1", "x=1"]},
    }))  # fmt: skip
    assert _command(["length"]) == "diffcontrol 'hydra.searchpath=[mine]' x=1 task=length"


def test_what_another_run_left_is_not_removed(tmp_path):
    for name in (".hydra", "results.json"):
        (tmp_path / "run" / name).mkdir(parents=True)
    leave_nothing(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".hydra", "results.json"}


def test_the_log_holds_what_the_console_says(run, tmp_path, capfd):
    run("method=[guided_diffusion]", "task=length", "targets.from=[5,6,7]", "targets.n=2")
    said, (log,) = capfd.readouterr().out, tmp_path.glob("outputs/length/runs/*/run.log")
    kept = log.read_text(encoding="utf-8")
    assert "the first 2 of 3 are used; targets.n=null uses all" in kept and "Results saved to" in kept
    shown = [line.rstrip() for line in said.splitlines() if "unguided" in line and "writing" not in line]
    assert shown and set(shown) <= {line.rstrip() for line in kept.splitlines()}
    assert "\x1b" not in kept


def test_targets_beyond_their_number_are_said_to_be_left_out(caplog):
    corpus = FakeCorpus()
    tasks = {"colour": FakeTask(data=corpus)}
    with caplog.at_level(logging.WARNING):
        assert len(choose(tasks, corpus, ["red", "green", "blue"], 2, 0)) == 2
    assert "the first 2 of 3 are used; targets.n=null uses all of them" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        found = choose(tasks, corpus, "dev", 1000, 0)
    assert f"{len(found)} are used where targets.n=1000" in caplog.text


def test_the_configuration_is_printed_in_the_order_of_a_reader():
    keys = list(composed())
    assert keys[:4] == ["task", "data", "method", "targets"]
    for earlier, later in (
        ("targets", "control"),
        ("control", "causal_lm"),
        ("causal_lm", "trainer"),
        ("judge", "paths"),
    ):
        assert keys.index(earlier) < keys.index(later)


def test_tab_completes_the_options_of_a_group(monkeypatch, capfd):
    line = "diffcontrol budget="
    monkeypatch.setattr(sys, "argv", ["diffcontrol", "-sc", "query=bash"])
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    main()
    assert capfd.readouterr().out.split() == [f"budget={name}" for name in options("budget")]
