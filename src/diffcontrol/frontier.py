"""experiment=frontier: methods' settings swept on dev targets, then all methods at one perplexity on held-out ones.

At a perplexity that lies between those of two settings, a method writes a share of its texts with either (`Mixture`):
mean NLL and mean success are then in between as well, so every point on the line between two settings is one that the
method reaches. The settings and the share are chosen on dev; held-out targets are looked at once.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffcontrol import allowed, experiment, ranks
from diffcontrol.evaluation import evaluate
from diffcontrol.preparing import Prepared, check_table, prepare, requests_of, resolved
from diffcontrol.recipe import name_of
from diffcontrol.refused import Refused
from diffcontrol.report.frontier import draw
from diffcontrol.report.layout import overall
from diffcontrol.requests import sources
from diffcontrol.written import WRITTEN, Written, alone_in

VALUES = {"num_samples": allowed.whole(1), "perplexity": allowed.optional(allowed.number(1))}
Setting = dict[str, Any]
Point = dict[str, Any]  # a method's row of results, and its `setting`


def run(cfg: DictConfig) -> float:
    """Sweeps, compares, and returns what `experiment.run` returns of the comparison.

    Raises:
        Refused: the config asks for something that cannot be done.
    """
    plain = resolved(cfg)
    folder = Path(HydraConfig.get().runtime.output_dir)
    wanted, n = plain["frontier"], plain["frontier"]["num_samples"]
    for name, rule in VALUES.items():
        rule.check(f"frontier.{name}", wanted[name])
    allowed.check({"method": plain["method"]})
    sweep = plain["sweep"] or {}
    settings = {name: settings_of(node, sweep.get(name) or {}, name) for name, node in plain["method"].items()}
    check_table(plain)
    held_out = prepare(plain)  # what cannot be asked for in the comparison is said before the sweep
    asked = {**plain, "targets": plain["targets"] | wanted["targets"]}
    requests = requests_of(asked, held_out.store, held_out.tasks)
    ready = replace(held_out, requests=requests)
    with alone_in(folder) if ranks.is_first() else nullcontext():
        points = points_of(ready, settings, folder / WRITTEN / "dev", n)
    if not ranks.is_first():  # several devices train; one writes
        return math.nan
    level = math.log(wanted["perplexity"]) if wanted["perplexity"] else lowest(points)
    chosen = {name: match(own, level) for name, own in points.items()}
    found = {"perplexity": math.exp(level), "settings": {name: choice for name, choice in chosen.items() if choice}}
    if gold := sources(requests):
        own: Point = {"setting": {}, **evaluate(gold, requests, ready.tasks, ready.judges).row()}
        found["at_entropy_of_gold"] = {name: at_entropy(points[name], entropy(own)) for name in points}
        points = {"gold": [own], **points}
    asked_for = plain["targets"] | wanted["targets"] | {"n": len(requests)}
    dev = {"tasks": list(ready.tasks), "targets": asked_for, "num_samples": n, **found, "points": points}
    (folder / "frontier.json").write_text(json.dumps(dev, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    matched = {name: as_node(node, chosen[name]) for name, node in ready.methods.items()}
    alone = plain["trainer"] | {"devices": 1, "num_nodes": 1, "strategy": "auto"}  # the other processes have ended
    score = experiment.compare({**plain, "method": matched, "matched": found, "trainer": alone})
    draw(dev, json.loads((folder / "results.json").read_text(encoding="utf-8")), folder / "frontier.png")
    return score


def points_of(ready: Prepared, settings: Mapping[str, Sequence[Setting]], folder: Path, n: int
              ) -> dict[str, list[Point]]:  # fmt: skip
    """What every method's texts are worth with each of its settings, `n` for each target. What stands in the folder
    already is not written again. A process that is not the first one trains only, and has no points."""
    swept = [(name, setting, node | setting) for name, node in ready.methods.items() for setting in settings[name]]
    forms = [ready.store.canonical(node) for _, _, node in swept]
    kept = [
        Written(folder, f"{name}.{name_of(form)}", form, ready.requests, n)
        for (name, _, _), form in zip(swept, forms, strict=True)
    ]
    methods = [ready.store.build(node) for _, _, node in swept]
    points: dict[str, list[Point]] = {name: [] for name in ready.methods}
    if not ranks.is_first():
        return points
    for (name, setting, _), method, texts in zip(swept, methods, kept, strict=True):
        varied = " ".join([name, *(f"{key}={value}" for key, value in setting.items())])
        texts.write(method, f"{varied} (dev)")
        row = evaluate(texts.all(), ready.requests, ready.tasks, ready.judges).row()
        points[name].append({"setting": setting, **row})
    return points


def settings_of(node: dict[str, Any], sweep: Any, name: str) -> list[Setting]:
    """All combinations of the values that a method's `sweep` names; one empty setting where it names nothing.

    Raises:
        Refused: it names nothing, or no list of values, or the method does not take a value.
    """
    if not isinstance(sweep, Mapping):
        raise Refused(f"sweep.{name}={sweep}: write which of its numbers have which values, as {{scale: [0.3, 1, 3]}}")
    found = combinations({key: _listed(f"sweep.{name}.{key}", values) for key, values in sweep.items()})
    for setting in found:
        allowed.check(node | setting, f"sweep.{name}")
    return found


def _listed(name: str, values: Any) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise Refused(f"{name}={values}: a list of values is needed, as [0.3, 1, 3]")
    return values


def combinations(sweep: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """One value of each, in all ways."""
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def nll(point: Point) -> float:
    return point["fluency"]["nll"]["mean"]


def success(point: Point) -> float:
    """Mean strict success, of all tasks at once."""
    return overall(point["success"])["strict"]["mean"]


def entropy(point: Point) -> float:
    """Of single words, in bits."""
    return point["diversity"]["word_entropy"]["mean"]


def at_entropy(points: Sequence[Point], bits: float) -> float | None:
    """The perplexity of a method's texts where their word entropy is `bits`, its NLL interpolated between the two
    settings of the nearest entropies below and above; None where none is below or none above."""
    near = sorted((entropy(point), nll(point)) for point in points)
    for (low, one), (high, other) in itertools.pairwise(near):
        if low <= bits <= high:
            share = (bits - low) / (high - low) if high > low else 0.0
            return math.exp((1 - share) * one + share * other)
    return None


def lowest(points: Mapping[str, list[Point]]) -> float:
    """The least NLL that every swept method reaches with some setting; of all methods if none is swept."""
    swept = [own for own in points.values() if len(own) > 1] or list(points.values())
    return max(min(nll(point) for point in own) for own in swept)


def match(points: Sequence[Point], level: float) -> dict[str, Any]:
    """The highest success at a mean NLL of at most `level`, from one setting or a share of two: {setting, share,
    other}, the latter two only where two are mixed. Of equals the first. Where no setting is as fluent as that, the
    most fluent is taken, {setting, beyond: True}. Nothing where there is nothing to choose."""
    if len(points) == 1:
        return {}
    best: tuple[float, dict[str, Any]] | None = None
    within = [point for point in points if nll(point) <= level + 1e-9]
    for point in within:
        if best is None or success(point) > best[0] + 1e-9:
            best = success(point), {"setting": point["setting"]}
    for one, other in itertools.product(within, (point for point in points if nll(point) > level + 1e-9)):
        share = round((level - nll(one)) / (nll(other) - nll(one)), 6)  # alike where NLLs differ by rounding
        gained = (1 - share) * success(one) + share * success(other)
        if best and share > 0 and gained > best[0] + 1e-9:
            best = gained, {"setting": one["setting"], "share": share, "other": other["setting"]}
    return best[1] if best else {"setting": min(points, key=nll)["setting"], "beyond": True}


def as_node(node: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """The method's config node with what was chosen for it."""
    one = {**node, **choice.get("setting", {})}
    if "share" not in choice:
        return one
    return {
        "_target_": "diffcontrol.methods.mixture.Mixture", "one": one, "other": {**node, **choice["other"]},
        "share": choice["share"], "seed": node["seed"],
    }  # fmt: skip
