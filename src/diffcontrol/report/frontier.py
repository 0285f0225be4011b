"""The frontier of every method: success against perplexity over its settings on dev, matched on held-out targets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffcontrol.report.layout import REFERENCES, entropies
from diffcontrol.report.plot import COLOURS, GREY, bars, points, style, ticks


def draw(dev: Mapping[str, Any], held: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG: a line through each method's settings with both intervals, a star for its comparison on held-out
    targets, a vertical line at the perplexity of the comparison. The legend tells the entropy of the texts at the star,
    and which method repeats itself there."""
    figure = Figure(figsize=(8.4, 4.4), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    style(axes, {**held, "targets": dev["targets"], "num_samples": dev["num_samples"]})
    stars = {point.name: point for point in points(held)}
    bits = {
        name: f", {own:.2f} bits a word{chr(10) + '(repeats itself)' if repeats else ''}"
        for name, (own, repeats) in entropies(held).items()
    }
    colours = iter(COLOURS * (1 + len(dev["points"]) // len(COLOURS)))
    for name, rows in dev["points"].items():
        colour = GREY if name in REFERENCES else next(colours)
        shown = [point for row in rows for point in points({"tasks": dev["tasks"], "methods": {name: row}})]
        shown.sort(key=lambda point: point.x)
        axes.plot([p.x[0] for p in shown], [p.y[0] for p in shown], color=colour, linewidth=1.2, alpha=0.6)
        for point in shown:
            bars(axes, point, colour, fmt="D" if name in REFERENCES else "o", markersize=5, alpha=0.7)
        axes.plot([], [], color=colour, marker="D" if name in REFERENCES else "o", label=name + bits.get(name, ""))
        if name in stars and name not in REFERENCES:
            bars(axes, stars[name], colour, fmt="*", markersize=13)
    axes.plot([], [], color="black", marker="*", markersize=11, linestyle="", label="held-out, matched")
    axes.axvline(dev["perplexity"], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.margins(x=0.1, y=0.08)
    ticks(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)  # settings may lie anywhere in the axes
    figure.savefig(path)
