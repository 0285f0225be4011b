"""Runs as a pandas frame, for notebooks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from diffcontrol.report import gather
from diffcontrol.report.layout import asked
from diffcontrol.report.rows import measures_of, setting_of, trained_as


def frame(folder: str | Path) -> pd.DataFrame:
    """A line for every run below the folder, method and task: what tells runs apart, then every measure with `_low` and
    `_high`, the ends of its interval (none where there is one target). Runs that cannot be read are left out.

    Raises:
        ValueError: the folder holds no readable results.json.
    """
    runs, problems = gather.load(Path(folder))
    if not runs:
        raise ValueError(f"no finished run: {folder} holds no readable results.json; {'; '.join(problems)}")
    return pd.DataFrame(
        [
            _line(path, results, method, task)
            for path, results in runs
            for method in results["methods"]
            for task in asked(results)
        ]
    )


def _line(path: Path, results: Mapping, method: str, task: str) -> dict[str, Any]:
    line: dict[str, Any] = {
        "folder": str(path.parent),
        "data": results["data"],
        "tasks": "+".join(results["tasks"]),
        "task": task,
        "method": method,
        "seed": results["seed"],
        "model_seed": trained_as(results),
        "experiment": (results.get("settings") or {}).get("experiment"),
        "commit": results["commit"],
        "targets": results["targets"]["from"],
        "n": results["targets"]["n"],
        "num_samples": results["num_samples"],
        **setting_of(results, method),
    }
    for name, value in measures_of(results["methods"][method], task).items():
        if isinstance(value, Mapping):
            line[name] = value["mean"]
            if value["n"] > 1:
                line[f"{name}_low"], line[f"{name}_high"] = value["ci95"]
        else:
            line[name] = value
    return line
