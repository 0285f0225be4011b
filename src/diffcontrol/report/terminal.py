"""A few texts of each method for the terminal, with what a target asked for made visible, in colour or without."""

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from diffcontrol.report.texts import Piece, Sample, asked, chosen, methods, verdict, views

COLOURS = {True: "green", False: "red"}
LEGEND = "[label: words] and word/label show what was asked for, with ! where it is something else."


def excerpt(results: Mapping, samples: Sequence[Sample]) -> Group:
    """Texts of every method but gold, each under its target."""
    shown = {method: chosen(results, samples, method) for method in methods(samples) if method != "gold"}
    parts: list[Text | Padding] = []
    for method, own in shown.items():
        parts.append(Text(method, "bold"))
        parts += [Padding(line, (0, 0, 0, 2), expand=False) for sample in own for line in lines(sample)]
    if any(sample.get("marks") for own in shown.values() for sample in own):
        parts.append(Text(f"{LEGEND}\n", "dim"))
    return Group(*parts)


def lines(sample: Sample) -> list[Text]:
    """Target and verdict of each task, then the text with the marks of each task that has any."""
    targets = asked(sample)
    found = []
    for task, target in targets.items():
        said = verdict(sample, task)
        found.append(Text.assemble((f"{task} ({target})", "bold cyan"), ": ", (said, COLOURS[said == "met"])))
    return found + [Text("  ").append_text(drawn(view)) for view in views(sample)]


def drawn(parts: Sequence[str | Piece]) -> Text:
    """Marks as [label: words], those of a single word as word/label."""
    return Text(" ").join(part if isinstance(part, Text) else _one(part) for part in parts)


def _one(part: str | Piece) -> Text:
    if isinstance(part, str):
        return Text(part)
    label, colour = ("" if part.met else "!") + part.label, COLOURS[part.met]
    if len(part.inside) == 1 and " " not in (inner := drawn(part.inside)).plain:
        inner.stylize(colour)
        return inner.append(f"/{label}", f"dim {colour}")
    return Text.assemble((f"[{label}: ", colour), drawn(part.inside), ("]", colour))
