"""The live page of `diffcontrol demo`: choose controls, and watch a sentence settle, guided beside unguided."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffcontrol.api import INSTEAD, Model, Step, load
from diffcontrol.refused import Refused
from diffcontrol.report.page import settling, settling_style

if TYPE_CHECKING:
    import gradio

STEPS = 12  # of a reverse process that are shown
PAUSE = 0.35  # seconds between two of them
CHOICES, LONGEST = 60, 48  # targets of a task to choose from, and the characters of one that is offered, at most
ABOUT = """\
# Watch a sentence settle

A diffusion language model starts from noise and denoises all words of a sentence at once. Choose what the sentence is
to say, and see what becomes of the same noise with guidance and without.
"""
ANYTHING = "anything"  # of a task that asks for nothing
Offers = Mapping[str, Mapping[str, Any]]  # task → target in words → target


def main(overrides: Sequence[str]) -> None:
    """Serves the page for the configuration that the overrides describe, until Ctrl-C. Where it listens is said by
    Gradio's own environment variables, GRADIO_SERVER_PORT and GRADIO_SERVER_NAME.

    Raises:
        Refused: an override names what there is not or what is chosen on the page, or Gradio is not installed.
    """
    for override in overrides:
        if override.startswith("-"):
            raise Refused(f"diffcontrol demo {override}: it takes overrides, as data=e2e, and no options")
        if override.lstrip("+~").partition("=")[0] in INSTEAD:
            raise Refused(f"diffcontrol demo {override}: the page writes with guided diffusion, and its tasks are "
                          "chosen there")  # fmt: skip
    app(load(*overrides)).launch(css=settling_style())


def app(model: Model, pause: float = PAUSE) -> "gradio.Blocks":
    """The page as a Gradio application, to be launched with `settling_style` as its CSS.

    pause: seconds between two steps that are shown.

    Raises:
        Refused: Gradio is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise Refused("diffcontrol demo: Gradio is not installed; pip install -e '.[demo]' installs it") from error
    offered = offers(model)

    def write(seed: int, *chosen: str) -> Iterator[str]:
        wanted = dict(zip(offered, chosen, strict=True))
        try:
            yield from pages(
                model, {t: offered[t][said] for t, said in wanted.items() if said != ANYTHING}, seed, pause
            )
        except Refused as refused:
            raise gradio.Error(str(refused), duration=None) from refused

    with gradio.Blocks(title="diffcontrol", analytics_enabled=False) as page:
        gradio.Markdown(ABOUT)
        with gradio.Row():
            chosen = [
                gradio.Dropdown([ANYTHING, *targets], label=task.replace("_", " "), min_width=220)
                for task, targets in offered.items()
            ]
        seed = gradio.Number(0, label="seed of the noise", precision=0, minimum=0)
        button = gradio.Button("Write a sentence", variant="primary")
        button.click(write, [seed, *chosen], gradio.HTML(), show_progress="minimal")
    return page


def offers(model: Model) -> Offers:
    """What can be chosen: of each task for which the data know targets those that are short enough for a list.

    Raises:
        Refused: what every task says, where none has any, as it is the configuration that is wrong then.
    """
    found, refusals = {}, []
    for task in model.tasks:
        try:
            targets = model.targets(task, CHOICES)
        except Refused as refused:  # the data know nothing of what it asks for
            refusals.append(refused)
            continue
        if short := {said: targets[said] for said in sorted(targets) if len(said) <= LONGEST}:
            found[task] = short
    if refusals and not found:
        raise refusals[0]
    return found


def pages(model: Model, targets: Mapping[str, Any], seed: int, pause: float = PAUSE) -> Iterator[str]:
    """HTML of the sentence as it settles, guided and unguided, one page after the other.

    Raises:
        Refused: nothing is asked for, or what is asked for cannot be done.
    """
    if not targets:
        raise Refused("choose what the sentence is to say: a target of one task at least")
    runs = {
        name: [_line(step, targets) for step in model.denoise(steps=STEPS, method=method, seed=seed, **targets)]
        for name, method in (("guided", None), ("unguided", "unguided"))
    }
    shown = max(map(len, runs.values()))
    for step in range(1, shown + 1):
        yield settling({name: lines[:step] for name, lines in runs.items()}, finished=step == shown)
        time.sleep(pause if step < shown else 0)


def _line(step: Step, targets: Mapping[str, Any]) -> dict[str, Any]:
    """A step as a line of samples.jsonl."""
    scores = {task: {"strict": score} for task, score in step.scores.items()}
    return {"words": step.words, "marks": step.marks, "t": step.t, "tasks": targets, "scores": scores}
