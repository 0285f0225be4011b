"""Modules of the package import each other in one direction."""

import ast
import json
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize(("own", "expected"), [
    ({}, ["1000", None]), ({"GOMP_SPINCOUNT": "7"}, ["7", None]), ({"OMP_WAIT_POLICY": "active"}, [None, "active"]),
])  # fmt: skip
def test_threads_that_wait_go_to_sleep_before_pytorch_is_there_unless_the_user_says_otherwise(own, expected):
    code = ("import json, os, sys, diffcontrol; assert 'torch' not in sys.modules; "
            "print(json.dumps([os.environ.get(name) for name in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')]))")  # fmt: skip
    others = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    run = subprocess.run([sys.executable, "-c", code], env=others | {"PYTHONPATH": str(SOURCE)} | own, check=True,
                         capture_output=True, text=True)  # fmt: skip
    assert json.loads(run.stdout) == expected


MODULES = {module_of(path): path for path in sorted((SOURCE / "diffcontrol").rglob("*.py"))}


def outer(node: ast.AST):
    """The nodes that are run when the module is imported, those under `if TYPE_CHECKING` too; no function's."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from outer(child)


def imported(name: str, path: Path) -> set[str]:
    """The modules of the package that a module names in its imports."""
    found = set()
    for node in outer(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys() or {node.module or ""}
    return found & MODULES.keys() - {name}


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: imported(name, path) for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 100
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" → ".join(reversed(error.args[1]))) from None


def test_a_circle_would_be_found(tmp_path):
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from diffcontrol.task import Request\n"
    text += (
        "try:\n    import diffcontrol.text\nexcept ImportError:\n    pass\ndef f():\n    import diffcontrol.layout\n"
    )
    (tmp_path / "one.py").write_text(text)
    assert imported("one", tmp_path / "one.py") == {"diffcontrol.task", "diffcontrol.text"}


def test_the_package_does_not_name_the_tasks_in_the_folder_beside_it():
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {module.split(".")[0] for module in named} & {"tasks", "tests", "run"}, name
            assert not [module for module in named if module.startswith("diffcontrol.tasks")], name
