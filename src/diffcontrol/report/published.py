"""The paper's own numbers, to stand beside ours: real E2E, the released scorer, none with an interval."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

SOURCE = (
    "Published: Li et al. 2022, Diffusion-LM Improves Controllable Text Generation, Tables 2 (one task) and 4 (two); "
    "real E2E data, the released scorer, lm-score of a GPT-2 fine-tuned on E2E."
)

#: our method → the paper's; in compositions the fine-tuned model is a product of two
METHODS = {
    "guided_diffusion": "Diffusion-LM",
    "paper": "Diffusion-LM",
    "fudge": "FUDGE",
    "pplm": "PPLM",
    "finetuned": "FT-sample",
    "finetuned_search": "FT-search",
}
COMPOSED = METHODS | {"finetuned": "FT-PoE"}


class Published(NamedTuple):
    """Control success in percent by task, and the lm-score of the same row."""

    control: Mapping[str, float]
    lm: float


# Table 2, in the paper's order of rows: task → (ctrl, lm)
_ONE: dict[str, dict[str, tuple[float, float]]] = {
    "PPLM": {"semantic_content": (9.9, 5.32)},
    "FUDGE": {
        "semantic_content": (69.9, 2.83),
        "parts_of_speech": (27.0, 7.96),
        "syntax_tree": (17.9, 3.39),
        "syntax_spans": (54.2, 4.03),
        "length": (46.9, 3.11),
    },
    "Diffusion-LM": {
        "semantic_content": (81.2, 2.55),
        "parts_of_speech": (90.0, 5.16),
        "syntax_tree": (86.0, 3.71),
        "syntax_spans": (93.8, 2.53),
        "length": (99.9, 2.16),
    },
    "FT-sample": {
        "semantic_content": (72.5, 2.87),
        "parts_of_speech": (89.5, 4.72),
        "syntax_tree": (64.8, 5.72),
        "syntax_spans": (26.3, 2.88),
        "length": (98.1, 3.84),
    },
    "FT-search": {
        "semantic_content": (89.9, 1.78),
        "parts_of_speech": (93.0, 3.31),
        "syntax_tree": (76.4, 3.24),
        "syntax_spans": (54.4, 2.19),
        "length": (100.0, 1.83),
    },
}

# Table 4: tasks → method → (ctrl of each task in that order, lm)
_TWO: dict[tuple[str, str], dict[str, tuple[float, float, float]]] = {
    ("semantic_content", "syntax_tree"): {
        "FUDGE": (61.7, 15.4, 3.52),
        "Diffusion-LM": (69.8, 74.8, 5.92),
        "FT-PoE": (61.7, 29.2, 2.77),
    },
    ("semantic_content", "parts_of_speech"): {
        "FUDGE": (64.5, 24.1, 3.52),
        "Diffusion-LM": (63.7, 69.1, 3.46),
        "FT-PoE": (29.4, 10.5, 2.97),
    },
}


def rows(tasks: Collection[str]) -> dict[str, Published]:
    """The paper's methods on these tasks, alone or composed, whatever their order; empty if it has none."""
    if len(tasks) == 1:
        (task,) = tasks
        return {
            name: Published({task: by_task[task][0]}, by_task[task][1])
            for name, by_task in _ONE.items()
            if task in by_task
        }
    for pair, by_method in _TWO.items():
        if len(tasks) == len(pair) and set(tasks) == set(pair):
            return {
                name: Published(dict(zip(pair, numbers, strict=False)), numbers[-1])
                for name, numbers in by_method.items()
            }
    return {}


def of(method: str, tasks: Collection[str]) -> Published | None:
    """The paper's row for one of our methods, if it has one."""
    return rows(tasks).get((METHODS if len(tasks) == 1 else COMPOSED).get(method, ""))
