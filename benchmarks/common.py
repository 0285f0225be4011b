"""What the benchmarks share: commands that take Hydra's overrides, untrained models, JSON with a table and a figure."""

import inspect
import json
import os
import platform
import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # your own packages may lie there
    sys.path.insert(0, str(ROOT))

import hydra  # noqa: E402
import matplotlib  # noqa: E402
import torch  # noqa: E402
from hydra.core.global_hydra import GlobalHydra  # noqa: E402
from hydra.core.hydra_config import HydraConfig  # noqa: E402
from hydra.types import RunMode  # noqa: E402
from omegaconf import DictConfig, OmegaConf  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from diffcontrol import resolvers  # noqa: E402
from diffcontrol.draws import seed_of  # noqa: E402
from diffcontrol.evaluation import evaluate  # noqa: E402
from diffcontrol.method import Method  # noqa: E402
from diffcontrol.metrics import interval  # noqa: E402
from diffcontrol.preparing import NOISE, Prepared, asked_from, resolved  # noqa: E402
from diffcontrol.refused import Refused  # noqa: E402
from diffcontrol.report.layout import overall  # noqa: E402
from diffcontrol.requests import choose  # noqa: E402
from diffcontrol.store import Store, commit  # noqa: E402
from diffcontrol.task import Request  # noqa: E402
from diffcontrol.training import Trainable  # noqa: E402
from diffcontrol.written import spent, whole_lines, write_lines  # noqa: E402

matplotlib.use("Agg")
resolvers.register()


def command(measure: Callable[[DictConfig], Any], *defaults: str) -> None:
    """Runs `measure` on the config that the command line describes. `defaults` are overrides that hold where the
    command line does not say otherwise."""
    name = Path(inspect.getfile(measure)).stem
    given = {_key(argument) for argument in sys.argv[1:]}
    where = f"hydra.run.dir=${{paths.outputs}}/benchmarks/{name}/${{now:%Y-%m-%d_%H-%M-%S}}"
    sys.argv[1:1] = [default for default in (*defaults, where) if _key(default) not in given]

    def main(cfg: DictConfig) -> None:
        for message in NOISE:
            warnings.filterwarnings("ignore", message=message)
        try:
            measure(cfg)
        except Refused as error:
            raise SystemExit(f"{name}: {error}") from None

    hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")(main)()


def _key(argument: str) -> str:
    return argument.lstrip("+~").partition("=")[0]


def asked(cfg: DictConfig, **defaults: Any) -> dict[str, Any]:
    """What the command line says of the benchmark itself, `+benchmark={…}`, and of the rest the defaults.

    Raises:
        Refused: the benchmark has no such setting.
    """
    given: Any = OmegaConf.to_container(cfg.get("benchmark") or OmegaConf.create({}))
    for key, value in given.items():
        if key not in defaults:
            raise Refused(f"benchmark.{key}={value}: there is no such setting; it has {', '.join(defaults)}")
    return defaults | given


def changed(cfg: DictConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config with dotted keys set anew; everything that refers to them follows."""
    cfg = deepcopy(cfg)
    OmegaConf.set_struct(cfg, False)
    for key, value in settings.items():
        OmegaConf.update(cfg, key, value)
    return resolved(cfg)


def composed(*more: str) -> dict[str, Any]:
    """The resolved config of the command line with more overrides behind it: for options of groups, which have to be
    chosen before the config is composed."""
    loader = GlobalHydra.instance().config_loader()
    cfg = loader.load_configuration("config", [*HydraConfig.get().overrides.task, *more], RunMode.RUN)
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    return resolved(cfg)


def judged_alike(*more: str) -> dict[str, Any]:
    """As `composed`, with the judges of the command line: rows of several budgets are compared under one judge."""
    return composed(*more) | {"judge": composed()["judge"]}


class Untrained(Store):
    """A store whose models have random weights, and which keeps nothing.

    How long a network takes does not depend on its weights. The texts are noise, and as none of them ends, all
    positions are computed to the last step.
    """

    def __init__(self, trainer: Mapping[str, Any] | None = None):
        super().__init__("nowhere", trainer=trainer)

    def fit(self, recipe: Mapping[str, Any]) -> Trainable:
        text = json.dumps(recipe, sort_keys=True)
        if text not in self.built:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(recipe.get("model_seed", 0)))
                module = self._construct(recipe)
            self.built[text] = module.eval().requires_grad_(False).to(self.device)
        return self.built[text]


def untrained(store: Untrained, cfg: Mapping[str, Any], name: str, targets: int) -> tuple[Method, list[Request]]:
    """A method of the resolved config with random weights, and requests for it."""
    tasks = {task: store.build(node) for task, node in cfg["task"].items()}
    requests = choose(tasks, asked_from(cfg, store), "heldout", targets, cfg["targets"]["seed"], "error")
    Method.check_node(cfg["method"][name], tasks, store.build(cfg["data"]))
    return store.build(cfg["method"][name]), requests


def scored(ready: Prepared, name: str, samples: int) -> dict[str, float]:
    """What one method writes for the requests: strict success (of all tasks at once, where there are several),
    perplexity and grammaticality, each with its interval as `_low` and `_high`, the entropy of words in bits, and token
    evaluations and seconds a sample."""
    method = ready.store.build(ready.methods[name])
    before, since = spent(method), now()
    texts = method.generate(ready.requests, samples, title=name)
    count = len(ready.requests) * samples
    found = {"seconds": (now() - since) / count, "token_evaluations": (spent(method) - before) / count}
    row = evaluate(texts, ready.requests, ready.tasks, ready.judges).row()
    found["entropy"] = row["diversity"]["word_entropy"]["mean"]
    success = overall(row["success"])
    measures = {"strict": (success["strict"], 100), "perplexity": (row["fluency"]["perplexity"], 1)}
    if "grammatical" in row["fluency"]:
        measures["grammatical"] = (row["fluency"]["grammatical"], 100)
    for key, (measure, scale) in measures.items():
        low, high = measure["ci95"]
        found |= {key: scale * measure["mean"], f"{key}_low": scale * low, f"{key}_high": scale * high}
    return found


def measured(what: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """A row: `what` is measured, and what is found. It is kept in the run's folder at once, so that after a stop the
    same command with `hydra.run.dir=<folder>` measures only what is missing."""
    hydra_cfg = HydraConfig.get()
    file = Path(hydra_cfg.runtime.output_dir) / "rows.jsonl"
    overrides = [o for o in hydra_cfg.overrides.task if not o.startswith(("paths.", "+benchmark"))]
    kept = list(whole_lines(file))
    for line in kept:
        if (line["what"], line["overrides"]) == (dict(what), overrides):
            return line["what"] | line["found"]
    kept.append({"what": dict(what), "overrides": overrides, "found": dict(measure())})
    file.parent.mkdir(parents=True, exist_ok=True)
    write_lines(file, kept)
    return kept[-1]["what"] | kept[-1]["found"]


def nats(values: Sequence[float]) -> dict[str, Any]:
    """Number and mean of nats, and the mean's interval from `low` to `high`."""
    found = interval.measure(values)
    low, high = found["ci95"]
    return {"n": found["n"], "nats": found["mean"], "low": low, "high": high}


def reach(rows: Sequence[Mapping[str, Any]], mean: str, low: str, high: str) -> list[list[float]]:
    """How far the intervals of rows reach below and above their means, as matplotlib draws them."""
    return [[row[mean] - row[low] for row in rows], [row[high] - row[mean] for row in rows]]


def now() -> float:
    """Seconds, once the accelerator has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"device": device, "cores": os.cpu_count(), "threads": torch.get_num_threads(),
            "torch": torch.__version__, "load": load}  # fmt: skip


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def write(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], note: str,
          draw: Callable[[Any], None], **more: Any) -> Path:  # fmt: skip
    """Writes `<benchmark>.json` and `<benchmark>.png` into the run's folder, prints a table, returns the JSON file.

    columns: key of a row → its heading; note: what is to be known beside the numbers; draw: fills a matplotlib figure.
    """
    import matplotlib.pyplot as plt

    hydra_cfg = HydraConfig.get()
    folder, name = Path(hydra_cfg.runtime.output_dir), Path(inspect.getfile(draw)).stem
    folder.mkdir(parents=True, exist_ok=True)
    result = {"benchmark": name, "command": f"python benchmarks/{name}.py {_said(hydra_cfg)}".strip(), "note": note,
              "commit": commit(), "machine": machine(), **more, "rows": list(rows)}  # fmt: skip
    file = folder / f"{name}.json"
    file.write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    figure = plt.figure(layout="constrained")
    draw(figure)
    figure.savefig(folder / f"{name}.png", dpi=150)
    plt.close(figure)
    table = Table(title=f"{name}: {result['machine']['device']}, {result['machine']['threads']} threads", caption=note)
    for heading in columns.values():
        table.add_column(heading, justify="left" if heading == next(iter(columns.values())) else "right")
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in columns))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    console.print(f"Saved to [bold]{file}[/bold]", soft_wrap=True, highlight=False)
    return file


def _said(hydra_cfg: Any) -> str:
    """The overrides without those that say where things lie, as a shell reads them."""
    return shlex.join(o for o in hydra_cfg.overrides.task if not o.startswith("paths."))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
