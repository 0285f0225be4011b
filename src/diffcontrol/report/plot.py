"""The frontier of one run: control success against perplexity."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from diffcontrol.report.layout import REFERENCES, look_up, order, overall

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195")  # Okabe–Ito, colour-blind safe
GREY, INK = "#8a8a8a", "#333333"
# where a name may stand: offset from its point in points of type, and which end of the name is there
PLACES: tuple[tuple[int, int, Literal["left", "right"]], ...] = tuple(
    (side * dx, dy, "left" if side > 0 else "right")
    for dx, dy in ((8, 11), (8, -11), (11, 0), (8, 22), (8, -22), (8, 33), (8, -33), (30, 0), (30, 15), (30, -15))
    for side in (1, -1)
)


class Point(NamedTuple):
    """A method's place: (mean, low, high) of perplexity and of success in percent."""

    name: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]


def points(results: Mapping) -> list[Point]:
    """Methods that have both numbers; success is that of all tasks at once."""
    found = []
    for name in order(results["methods"]):
        method = results["methods"][name]
        fluency = look_up(method, ("fluency", "perplexity"))
        strict = overall(method["success"])["strict"] if method.get("success") else None
        if fluency and strict:
            mean, low, high = (100 * end for end in (strict["mean"], *strict["ci95"]))
            found.append(Point(name, (fluency["mean"], *fluency["ci95"]), (mean, low, high)))
    return found


def tradeoff(results: Mapping, path: Path) -> None:
    """Draws the points with both error bars and writes a PNG; better is up and to the left."""
    figure = Figure(figsize=(7.2, 4.6), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    style(axes, results)
    shown = points(results)
    colours = iter(COLOURS * (1 + len(shown) // len(COLOURS)))
    drawn = []
    for point in shown:
        reference = point.name in REFERENCES
        colour = GREY if reference else next(colours)
        _draw(axes, point, colour, reference)
        drawn.append((point, colour))
    if not shown:
        axes.text(0.5, 0.5, "no method has both numbers", ha="center", transform=axes.transAxes, color=GREY)
    axes.margins(x=0.16, y=0.12)
    ticks(axes)
    figure.canvas.draw()  # places of labels depend on the final layout
    _label(axes, drawn)
    figure.savefig(path)


def style(axes: Axes, results: Mapping) -> None:
    tasks = results["tasks"]
    axes.set_xscale("log")
    axes.set_xlabel("perplexity under the LSTM judge (log scale; lower is more fluent)", color=INK)
    axes.set_ylabel("control success, strict (%)" + (", all tasks at once" if len(tasks) > 1 else ""), color=INK)
    axes.set_title(" + ".join(tasks), loc="left", fontsize=12, fontweight="bold", color=INK, pad=20)
    asked = f"{results['data']}, {results['targets']['n']} targets × {results['num_samples']}"
    axes.annotate(asked, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=9, color=GREY)  # beneath the title
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bbbbbb")
    axes.tick_params(colors=INK, which="both", labelsize=9)
    axes.grid(True, which="major", color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def ticks(axes: Axes) -> None:
    """Round numbers at a readable distance, whether perplexities are all the same or span three decades."""
    low, high = axes.get_xlim()
    if high / low < 1 + 1e-6:
        axes.set_xlim(low / 1.5, high * 1.5)
        low, high = axes.get_xlim()
    fine, middle = (1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5)
    subs = fine if high / low < 15 else middle if high / low < 1000 else (1,)
    axes.xaxis.set_major_locator(MaxNLocator(6) if high / low < 2 else LogLocator(subs=subs, numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())


def bars(axes: Axes, point: Point, colour: str, **marker: Any) -> None:
    """A point with both error bars."""
    (x, *x_ends), (y, *y_ends) = point.x, point.y
    across, up = _lengths(x, *x_ends), _lengths(y, *y_ends)
    axes.errorbar(x, y, xerr=across, yerr=up, color=colour, elinewidth=1.3, zorder=3, markeredgewidth=1.4, **marker)


def _draw(axes: Axes, point: Point, colour: str, reference: bool) -> None:
    marker = {"fmt": "D", "markersize": 6.5} if reference else {"fmt": "o", "markersize": 7.5}
    bars(axes, point, colour, markerfacecolor="white" if reference else colour, **marker)
    if point.name == "gold":
        axes.axhline(point.y[0], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)  # ceiling


def _lengths(middle: float, low: float, high: float) -> list[list[float]]:
    return [[max(0.0, middle - low)], [max(0.0, high - middle)]]


def _label(axes: Axes, drawn: list[tuple[Point, str]]) -> None:
    """Names beside their points, each at the nearest place that hides the least of other names, points and bars."""
    taken = [box for point, _ in drawn for box in _boxes(axes, point)]
    for point, colour in drawn:
        plain = colour == GREY
        text = axes.annotate(
            point.name,
            (point.x[0], point.y[0]),
            xytext=(0, 0),
            textcoords="offset points",
            zorder=4,
            va="center",
            fontsize=9.5,
            color=INK if plain else colour,
            fontweight="normal" if plain else "bold",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
        costs = {}
        for place in PLACES:
            text.xyann, horizontal = place[:2], place[2]
            text.set_horizontalalignment(horizontal)
            box = text.get_window_extent()
            outside = box.width * box.height - _overlap(box, axes.get_window_extent())
            costs[place] = outside + sum(_overlap(box, other) for other in taken) + 2 * math.hypot(*place[:2])
        best = min(costs, key=costs.__getitem__)
        text.xyann = best[:2]
        text.set_horizontalalignment(best[2])
        taken.append(text.get_window_extent())


def _boxes(axes: Axes, point: Point) -> list[Bbox]:
    """What a point covers on the canvas: its marker and both bars."""
    to_canvas = axes.transData.transform
    (x, y), (left, low) = to_canvas((point.x[0], point.y[0])), to_canvas((point.x[1], point.y[1]))
    right, high = to_canvas((point.x[2], point.y[2]))
    return [
        Bbox([[x - 10, y - 10], [x + 10, y + 10]]),
        Bbox([[left, y - 2], [right, y + 2]]),
        Bbox([[x - 2, low], [x + 2, high]]),
    ]


def _overlap(a: Bbox, b: Bbox) -> float:
    common = Bbox.intersection(a, b)
    return common.width * common.height if common else 0.0
