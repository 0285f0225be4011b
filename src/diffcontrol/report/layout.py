"""The table of one run: rows gold, unguided, then the methods; the same cells for the terminal and for markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from diffcontrol.report import published
from diffcontrol.report.grid import MISSING, Cell, Grid, cell, markdown_table

REFERENCES = ("gold", "unguided")  # ceiling and floor, not competitors
SHOWN = {"distinct_2": "distinct-2", "self_bleu": "self-BLEU", "word_entropy": "word entropy, bits", "mauve": "MAUVE"}
REPEATS = 0.97  # of gold's entropy; a method with less repeats itself
SCORES = ("strict", "released")
WHERE_MEASURED = (  # else without a column
    "met_and_grammatical", "grammatical", "perplexity_ngram", "word_entropy", "mauve", "parameters",
    "training_seconds",
)  # fmt: skip
DETAILS = (  # for report.html and table.md
    "perplexity_ngram", "length", "distinct_2", "self_bleu", "word_entropy", "mauve", "parameters", "training_seconds",
)  # fmt: skip
MEANS = (("size, millions", "parameters", 2, 1e-6), ("training, minutes", "training_seconds", 1, 1 / 60))
NAMES = {"met_and_grammatical": "met and grammatical", "within_2": "within 2 words"}  # scores whose names are no words


class Column(NamedTuple):
    """Where a number lies in a method's results, and how it is shown."""

    header: str
    path: tuple[str, ...]
    digits: int = 2
    scale: float = 1.0


def order(methods: Iterable[str]) -> list[str]:
    """Gold and unguided first, the others as they came."""
    methods = list(methods)
    return [m for m in REFERENCES if m in methods] + [m for m in methods if m not in REFERENCES]


def asked(results: Mapping) -> list[str]:
    """The tasks, and `all` of them at once where there are several."""
    several = any("all" in method.get("success", {}) for method in results["methods"].values())
    return [*results["tasks"], *(["all"] if several and "all" not in results["tasks"] else [])]


def overall(success: Mapping[str, Mapping]) -> Mapping[str, Any]:
    """The scores of all that was asked: those of the one task, or of all tasks at once."""
    return success["all"] if "all" in success else next(iter(success.values()))


def columns(results: Mapping) -> list[Column]:
    found = []
    for task in asked(results):
        names = {s: None for m in results["methods"].values() for s in m.get("success", {}).get(task, {})}
        for score in (*SCORES, *(s for s in names if s not in SCORES)):
            said = NAMES.get(score, score)
            shown = said if len(results["tasks"]) == 1 else f"{task} {said}"  # one task stands in the title
            found.append(Column(f"{shown} %", ("success", task, score), 1, 100.0))
    found += [
        Column("perplexity", ("fluency", "perplexity")),
        Column("n-gram perplexity", ("fluency", "perplexity_ngram")),
        Column("grammatical %", ("fluency", "grammatical"), 1, 100.0),
        Column("length", ("diversity", "length"), 1),
        *(Column(header, ("diversity", key)) for key, header in SHOWN.items()),
        Column("seconds per sample", ("seconds_per_sample",), 3),
        *(Column(header, (key,), digits, scale) for header, key, digits, scale in MEANS),
    ]
    return [c for c in found if c.path[-1] not in WHERE_MEASURED or _measured(results, c.path)]


def _measured(results: Mapping, path: Sequence[str]) -> list[str]:
    """The methods that have this number."""
    return [name for name, method in results["methods"].items() if look_up(method, path) is not None]


def look_up(tree: Any, path: Sequence[str]) -> Any:
    """The value at a path of keys, None where it ends early."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def rows(results: Mapping) -> list[tuple[str, list[Cell]]]:
    """A row per method of the run."""
    return [
        (name, [cell(look_up(results["methods"][name], c.path), c.digits, c.scale) for c in columns(results)])
        for name in order(results["methods"])
    ]


def published_rows(results: Mapping) -> list[tuple[str, list[Cell]]]:
    """The paper's rows, in the columns of the released scorer; only beside a run on the paper's data."""
    if results["data"] != "e2e":
        return []
    found = []
    for name, paper in published.rows(results["tasks"]).items():
        shown: dict[tuple[str, ...], Cell] = {
            ("success", task, "released"): Cell(f"{value:.1f}") for task, value in paper.control.items()
        }
        shown[("fluency", "perplexity")] = Cell(f"{paper.lm:.2f}")
        found.append((f"paper: {name}", [shown.get(c.path, Cell()) for c in columns(results)]))
    return found


def caption(results: Mapping) -> str:
    targets = results["targets"]
    return (
        f"{results['data']}, targets from {targets['from']}, {targets['n']} targets × {results['num_samples']} samples,"
        f" seed {results['seed']}, commit {results['commit'] or 'unknown'}; 95 % intervals over targets"
    )


def notes(results: Mapping) -> list[str]:
    """The judges' own quality and paired differences, where the run has them, and where published rows come from."""
    lines = _disagreement(results)
    for judge, measures in results.get("judges", {}).items():
        by_n: dict[int, list[str]] = {}
        for name, measure in measures.items():
            by_n.setdefault(measure["n"], []).append(f"{name.replace('_', ' ')} {cell(measure, 1, 100.0)} %")
        said = [f"on {n} held-out gold annotations: {', '.join(parts)}" for n, parts in by_n.items()]
        lines.append(f"The judge itself ({judge}), {'; '.join(said)}.")
    if matched := results.get("matched"):
        how = "; ".join(f"{name} {_said(choice)}" for name, choice in matched["settings"].items())
        lines.append(f"Settings chosen on dev for a perplexity of at most {matched['perplexity']:.2f}: {how}.")
        said = [f"{name} {bits:.2f}{' (repeats itself)' * own}" for name, (bits, own) in entropies(results).items()]
        if said:
            lines.append(
                f"Entropy there, in bits a word: {', '.join(said)}. A method repeats itself where its entropy is more"
                f" than {100 * (1 - REPEATS):.0f} % below gold's."
            )
        if known := {name: at for name, at in matched.get("at_entropy_of_gold", {}).items() if at}:
            said = [f"{name} {perplexity:.2f}" for name, perplexity in known.items()]
            lines.append(f"Perplexity on dev at gold's entropy, between two settings: {', '.join(said)}.")
    for pair, difference in results.get("differences", {}).items():
        parts = [
            f"{task} strict {_signed(cell(scores['strict'], 1, 100.0))} points"
            for task, scores in difference.get("success", {}).items()
            if "strict" in scores
        ]
        if "nll" in difference:
            parts.append(f"NLL {_signed(cell(difference['nll']))}")
        lines.append(f"{pair.replace(' - ', ' minus ')}, paired by target: {'; '.join(parts)}.")
    return lines + ([published.SOURCE] if published_rows(results) else [])


def entropies(results: Mapping) -> dict[str, tuple[float, bool]]:
    """Bits a word of each method that has them, and whether it repeats itself: has less than `REPEATS` times gold's."""
    path = ("diversity", "word_entropy", "mean")
    bits = {name: look_up(results["methods"][name], path) for name in order(_measured(results, path))}
    least = REPEATS * bits.get("gold", 0.0)
    return {name: (own, own < least) for name, own in bits.items()}


def _disagreement(results: Mapping) -> list[str]:
    """A sentence, if the two language models that judge fluency rank two methods differently."""
    paths = [("fluency", name, "mean") for name in ("perplexity", "perplexity_ngram")]
    both = [name for name in _measured(results, paths[0]) if name in _measured(results, paths[1]) and name != "gold"]
    one, other = ({name: look_up(results["methods"][name], path) for name in both} for path in paths)
    pairs = [f"{a} more fluent than {b}" for a in both for b in both if one[a] < one[b] and other[a] > other[b]]
    said = f"The two judges of fluency disagree: the LSTM finds {', '.join(pairs)}; the n-gram model says the opposite."
    return [said] if pairs else []


def _said(choice: Mapping) -> str:
    """`scale=3`, `scale=1 with 40 % of scale=3`, of what `frontier.match` chose."""
    one, other = (", ".join(f"{k}={v}" for k, v in choice.get(key, {}).items()) for key in ("setting", "other"))
    mixed = f" with {100 * choice['share']:.0f} % of {other}" if "share" in choice else ""
    return one + mixed + (" (its most fluent, less fluent than that)" if choice.get("beyond") else "")


def _signed(shown: Cell) -> str:
    return str(shown) if shown.number.startswith(("-", MISSING)) else f"+{shown}"


def table(results: Mapping) -> Grid:
    """The run for the terminal, without `DETAILS`; beneath it is said on what it stands, and the notes."""
    shown = [(i, column.header) for i, column in enumerate(columns(results)) if column.path[-1] not in DETAILS]
    return Grid(
        "control: " + " + ".join(results["tasks"]),
        ["method"],
        [header for _, header in shown],
        [
            [([name], [cells[i] for i, _ in shown]) for name, cells in part]
            for part in (rows(results), published_rows(results))
        ],
        [caption(results), *notes(results), "report.html and table.md have further columns."],
    )


def markdown(results: Mapping) -> str:
    """The same table for a README or an issue."""
    body = [[name, *map(str, cells)] for name, cells in rows(results) + published_rows(results)]
    lines = ["control: " + " + ".join(results["tasks"]), caption(results), *notes(results)]
    return markdown_table(["method"], [c.header for c in columns(results)], body, lines)
