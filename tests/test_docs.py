"""The pages in docs/ that say how to add something, followed to the letter; and the map of the code in docs/code.md.

A page is found by its name. Its fenced blocks with `file=<path>` are written into a folder, those with `run` and `test`
are its commands. The commands run as they stand there, with the sizes of experiment=tiny.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from run import main
from tests.composing import CONF, OUTPUT, options
from tests.test_conf import check

ROOT = CONF.parent
PAGES = sorted((ROOT / "docs").glob("add_*.md"))
BLOCK = re.compile(r"^```(\w+) ([^\n]*)\n(.*?)^```$", re.M | re.S)


def files(page: Path) -> dict[str, str]:
    """Path → content of the files that a page gives."""
    found = {}
    for _, info, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if info.startswith("file="):
            found[info.removeprefix("file=")] = text
    return found


def commands(page: Path, kind: str) -> list[str]:
    """The lines of the blocks that are marked `run` or `test`."""
    blocks = [text for _, info, text in BLOCK.findall(page.read_text(encoding="utf-8")) if info == kind]
    return [line for text in blocks for line in text.splitlines()]


COMMANDS = [
    pytest.param(command, id=f"{page.stem}-{i}") for page in PAGES for i, command in enumerate(commands(page, "run"))
]
CHECKS = [pytest.param(command, id=page.stem) for page in PAGES for command in commands(page, "test")]


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A folder in which all pages were followed."""
    folder = tmp_path_factory.mktemp("pages")
    for page in PAGES:
        for path, text in files(page).items():
            assert not path.startswith(("/", "..")) and not (folder / path).exists(), path
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


@pytest.fixture
def there(followed, monkeypatch):
    """Within that folder, from which Python imports as from the one of run.py."""
    monkeypatch.chdir(followed)
    monkeypatch.syspath_prepend(str(followed))
    return followed


def overrides(command: str) -> list[str]:
    """The overrides of `python run.py --config-dir mine/conf …`."""
    words = shlex.split(command)
    assert words[:4] == ["python", "run.py", "--config-dir", "mine/conf"], command
    return words[4:]


def tiny(command: str) -> list[str]:
    """The numbers of experiment=tiny one by one, those of the data only where the page brings no data of its own."""
    own_data = any(override.startswith("data=") for override in overrides(command))
    return [f"++{key}={value}" for key, value in numbers(OmegaConf.load(CONF / "experiment" / "tiny.yaml"))
            if not (own_data and key.startswith("data."))]  # fmt: skip


def numbers(node, prefix=""):
    for key, value in node.items():
        if OmegaConf.is_config(value):
            yield from numbers(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_page_gives_files_and_a_command_and_is_named_in_the_readme():
    assert len(PAGES) >= 4
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert files(page) and commands(page, "run"), page.name
        assert f"docs/{page.name}" in readme


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pages_command_composes_and_its_arguments_bind(there, command):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [f"hydra.searchpath=[{(there / 'mine' / 'conf').as_uri()}]", *overrides(command),
                                 f"hydra.runtime.output_dir={OUTPUT}"], return_hydra_config=True)  # fmt: skip
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    found = OmegaConf.to_container(cfg, resolve=True)
    check({part: found[part] for part in ("data", "task", "method", "judge")})  # what an experiment builds


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_pages_command_runs(there, command, monkeypatch, own_logging):
    where = [f"paths.store={there / 'store'}", f"paths.outputs={there / 'outputs'}", "trainer.accelerator=cpu"]
    before = set(there.glob("outputs/*/*/**/results.json"))
    monkeypatch.setattr(sys, "argv", [*shlex.split(command)[1:], *tiny(command), *where,
                                      "--config-path", str(CONF)])  # fmt: skip
    main()
    assert len(set(there.glob("outputs/*/*/**/results.json")) - before) == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", CHECKS)
def test_what_a_page_adds_passes_the_contract_tests(there, command):
    setting, words = command.split(" ", 1)
    name, folder = setting.split("=")
    assert words.startswith("python -m pytest")
    paths = os.pathsep.join([str(there), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, *shlex.split(words)[1:]], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {name: str(there / folder), "PYTHONPATH": paths})  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 3


# --- the map of the code

NAMED = re.compile(r"`([\w./]+)`")


def rows() -> list[tuple[list[str], str]]:
    """Paths in the first column of each row of the map, and the text beside them. A later path is beside the first."""
    found = []
    for line in (ROOT / "docs" / "code.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and (named := NAMED.findall(cells[0])):
            folder = named[0].rpartition("/")[0]
            paths = [named[0], *(name if "/" in name or not folder else f"{folder}/{name}" for name in named[1:])]
            found.append((paths, cells[1]))
    return found


def test_every_path_in_the_map_exists():
    assert len(rows()) > 10
    for paths, text in rows():
        for path in paths:
            assert (ROOT / path).exists(), path
        folders = [ROOT / path for path in paths if path.endswith("/")]
        for name in NAMED.findall(text):
            if name.endswith((".py", "/")):
                assert any((folder / name).exists() for folder in [*folders, ROOT]), f"{paths}: {name}"


def test_the_map_covers_every_module_and_names_those_of_its_folders():
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "src" / "diffcontrol").rglob("*.py")}
    covered = set()
    for paths, text in rows():
        named = set(NAMED.findall(text))
        for path in paths:
            inside = {m for m in modules if m == path or (path.endswith("/") and m.startswith(path))}
            covered |= inside
            if path.startswith("src/") and path.endswith("/"):
                missing = {Path(m).name for m in inside if not Path(m).name.startswith("__")} - named
                assert not missing, f"{path}: {missing}"
    left = {module for module in modules - covered if Path(module).name != "__init__.py"}
    assert not left


def test_the_walks_name_what_is_there():
    """`run.py → experiment.run → …`: every name of a walk is a function or method somewhere in the code."""
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("docs/code.md", "README.md"))
    walks = re.findall(r"`(run\.py(?: → [\w.]+)+)`", text)
    assert len(walks) >= 3
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for walk in walks:
        for name in walk.split(" → ")[1:]:
            owner, _, function = name.rpartition(".")
            assert re.search(rf"def {function}\(", code), name
            known = re.search(rf"class {owner}\b", code) or list((ROOT / "src").rglob(f"{owner}.py"))
            assert known or list((ROOT / "src").rglob(f"{owner}/__init__.py")), name


# --- the page of tasks and methods


@pytest.mark.parametrize("group", ["task", "method", "guidance"])
def test_every_option_is_on_the_page_of_tasks_and_methods(group):
    page = (ROOT / "docs" / "tasks_and_methods.md").read_text(encoding="utf-8")
    known = options(group) + (["unguided"] if group == "method" else [])
    assert not [name for name in known if f"`{name}`" not in page and name != "unguided"]
    if group in ("task", "method"):
        lines = page.partition(f"## {group.capitalize()}s")[2].partition("##")[0].splitlines()
        rows = [name for line in lines if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split("|")[1])]
        assert sorted(rows) == sorted(known)
