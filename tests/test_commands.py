"""Every command that README.md, CONTRIBUTING.md and docs/*.md print: composed, and run where the embedded data suffice.

A command is an indented or fenced line that starts with `python`, `diffcontrol`, `pip` or `pytest`, or one in backticks
that starts with `python run.py`. The commands of docs/add_*.md, which bring files, are followed in test_docs.py.
"""

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from textwrap import dedent, indent

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from omegaconf import OmegaConf

import diffcontrol
from diffcontrol.cli import main
from diffcontrol.report.__main__ import main as report
from tests.composing import CONF, composed, options
from tests.test_conf import check
from tests.test_docs import numbers
from tests.test_sweeps import EXTRAS, there

ROOT = CONF.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("python", "diffcontrol", "pip", "pytest")
LINE = re.compile(rf"^ {{4}}((?:{'|'.join(PROGRAMS)})\b[^\n]*(?:(?<=\\)\n[^\n]*)*)", re.M)
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`(python run\.py [^`]*)`")
CODE = re.compile(r"^((?: {4}import diffcontrol\n)(?: {4}[^\n]*\n|\n)+)|^```python\n(.*?)^```$", re.M | re.S)
ELSEWHERE = ("--config-dir mine/conf", "python reviews.py")  # followed by test_docs.py, test_your_own_data.py
NO_OVERRIDES = ("-m", "--cfg", "--help", "--hydra-help", "job")
BRIEFER = {
    "targets.n": 2,
    "frontier.targets.n": 2,
    "num_samples": 1,
    "model.depth": 1,
    "sampler.steps": 2,
}
#: what a command that is run must not ask for: another machine, the network, or a folder of the reader's
NEEDS = ("<", "trainer.accelerator=gpu", "trainer.devices", "submitit", "data=e2e", "experiment=e2e", "experiment=[e2e",
         "data=rocstories", "experiment=paper", "parser=", "hf://", "model=base", "…", "joblib", "optuna",
         "logger=")  # fmt: skip
WORDS = ("the their our", "soup pasta food place", "very so")
OPINIONS = (("great", "good"), ("fresh", "good"), ("cold", "bad"), ("slow", "bad"))
CSV = "review,stars\n" + "".join(
    f"{whose} {what} was {how} {said} .,{stars}\n"
    for whose, what, how, (said, stars) in product(*map(str.split, WORDS), OPINIONS)
)


@dataclass(frozen=True)
class Command:
    """A command as a page prints it, and the words that a shell makes of it."""

    page: str
    text: str
    only_composed: bool = False  # the line names results of the past, or stands within a sentence

    @property
    def words(self) -> list[str]:
        filled = re.sub(r"<[^>]*>", "somewhere", re.sub("task=<(task|name)>", "task=length", self.text))
        return shlex.split(filled.replace("\\\n", " "), comments=True)

    @property
    def overrides(self) -> list[str]:
        return [word for word in self.words[1:] if not word.endswith(".py") and word not in NO_OVERRIDES]

    @property
    def jobs(self) -> list[list[str]]:
        """The overrides of the first and the last job of a sweep; of a single run its own."""
        parsed = OverridesParser.create().parse_overrides(self.overrides)
        if not any(override.is_sweep_override() for override in parsed):
            return [self.overrides]
        return [[_end(override, end) for override in parsed] for end in (0, -1)]

    @property
    def runs(self) -> bool:
        return not (self.only_composed or any(need in self.text for need in NEEDS))


def _end(override: Override, end: int) -> str:
    """An override as the first (0) or last (-1) job of a sweep has it."""
    if not override.is_sweep_override():
        return override.input_line
    value = override.value()
    values = (
        value.filter(options(override.key_or_group))
        if isinstance(value, Glob)
        else list(override.sweep_string_iterator())
    )
    return f"{override.get_key_element()}={values[end]}"


def commands() -> Iterator[Command]:
    seen = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        prose = FENCE.sub(lambda block: indent(block[2], " " * 4) if block[1] in ("", "sh", "bash") else "", text)
        past = page.name == "results_earlier.md"
        found = [Command(page.name, part.strip(), past) for line in LINE.findall(prose) for part in line.split("&&")]
        found += [Command(page.name, " ".join(line.split()), True) for line in INLINE.findall(prose)]
        for command in found:
            if tuple(command.words) not in seen and not any(word in command.text for word in ELSEWHERE):
                seen.add(tuple(command.words))
                yield command


ALL = list(commands())
OURS = [command for command in ALL if re.match(r"diffcontrol|python (run|benchmarks/\w+)\.py", command.text)]


def named(found: list[Command]) -> list:
    return [pytest.param(command, id=f"{command.page}-{' '.join(command.words)[:60]}") for command in found]


def test_the_pages_print_commands():
    assert {command.words[0] for command in ALL} >= {"python", "pip", "pytest"} and len(OURS) > 30
    assert sum(command.runs for command in OURS) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("command", named(OURS))
def test_a_command_composes_and_its_arguments_bind(command):
    for extra, (_, chosen) in EXTRAS.items():
        if any(extra in word for word in command.words) and not there(extra):
            pytest.skip(f"pip install 'diffcontrol[{extra}]', for {chosen}")
    for job in command.jobs:
        found = composed(*(word for word in job if not word.startswith("--")))
        check({part: found[part] for part in ("data", "task", "method", "judge")})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The working folder of a reader: store and outputs of all commands, and the files that they name."""
    found = tmp_path_factory.mktemp("reader")
    (found / "targets.jsonl").write_text('["food", "Italian"]\n{"semantic_content": ["price", "cheap"]}\n')
    (found / "reviews.csv").write_text(CSV)
    return found


def tiny(overrides: list[str]) -> list[str]:
    """The numbers of experiment=tiny and smaller ones, but for those that the command itself gives."""
    given = {word.lstrip("+~").partition("=")[0] for word in overrides}
    small = dict(numbers(OmegaConf.load(CONF / "experiment" / "tiny.yaml"))) | BRIEFER
    return [f"++{key}={value}" for key, value in small.items() if key not in given]


@pytest.mark.slow
@pytest.mark.parametrize("command", named([command for command in OURS if command.runs and "run.py" in command.text]))
def test_a_command_runs_and_leaves_its_results(command, folder, monkeypatch, own_logging):
    monkeypatch.chdir(folder)
    before = set(folder.rglob("results.json"))
    job = [re.sub(r"(?<=optim\.steps=)\d+", "4", word) for word in command.jobs[-1]]
    monkeypatch.setattr(sys, "argv", ["run.py", *job, *tiny(job), "trainer.accelerator=cpu",
                                      "trainer.enable_progress_bar=false", "hydra.mode=RUN"])  # fmt: skip
    main()
    assert len(set(folder.rglob("results.json")) - before) == 1


@pytest.mark.slow
def test_what_they_left_is_gathered(folder, monkeypatch, capsys):
    asked = [command for command in ALL if command.words[:3] == ["python", "-m", "diffcontrol.report"]]
    assert asked or "python -m diffcontrol.report outputs" in (ROOT / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(folder)
    if not list(folder.rglob("results.json")):
        pytest.skip("no command was run before")
    report(["outputs"])
    assert "guided_diffusion" in capsys.readouterr().out and (folder / "outputs" / "summary.md").exists()


def test_what_pip_is_told_to_install_is_an_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    told = [command.text for command in ALL if command.words[0] == "pip"]
    assert len(told) >= 4
    for text in told:
        for extra in re.findall(r"\.\[([\w,]+)\]", text):
            assert set(extra.split(",")) <= set(project["optional-dependencies"]), text


CODES = [
    pytest.param(page.name, code, id=f"{page.name}-{number}")
    for page in PAGES
    if not page.name.startswith("add_")
    for number, code in enumerate(CODE.findall(page.read_text(encoding="utf-8")))
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "code"), CODES)
def test_a_piece_of_python_runs(page, code, folder, monkeypatch):
    """With a tiny model in place of the one that ships."""
    small = [*tiny([]), "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
    load = diffcontrol.load
    monkeypatch.chdir(folder)
    monkeypatch.setattr(diffcontrol, "load", lambda *given, **more: load(*given, *small, **more), raising=False)
    names: dict = {}
    indented, fenced = code
    exec(compile(fenced or dedent(indented), page, "exec"), names)
    assert names["result"].words is not None and names["result"].scores
