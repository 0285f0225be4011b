"""What a control classifier reads off noisy texts: nats of a text's own annotation, at several times, train and dev.

    python benchmarks/reading.py
    python benchmarks/reading.py task=syntax_tree '+benchmark={texts: 1000, times: [0.4, 0.9]}'

Guidance can ask only for what the classifier reads. Where it does as badly on training texts as on dev texts, it is too
small or was trained too short; where it does much worse on dev texts, it learned the training texts by heart. At the
lowest time that is sampled a text has hardly any noise, and at 1 it is nothing but noise, so that what stands there is
what the classifier knows of all texts alike.

It is trained first where it is missing. Tasks that need no classifier (length, infilling) are refused.
"""

from typing import Any

import torch
from common import asked, changed, command, nats, reach, write
from omegaconf import DictConfig

from diffcontrol.data.corpus import spaced
from diffcontrol.preparing import store_of
from diffcontrol.refused import Refused
from diffcontrol.steering.classifier import ControlClassifier

TEXTS, TIMES = 200, (0.0, 0.5, 0.7, 0.9, 1.0)
COLUMNS = {"task": "task", "split": "split", "time": "t", "n": "texts", "nats": "nats / text", "low": "95 % from",
           "high": "to"}  # fmt: skip


def measure(cfg: DictConfig) -> None:
    full, wanted = changed(cfg, {}), asked(cfg, texts=TEXTS, times=TIMES)
    store, rows = store_of(full), []
    nodes = full["method"]["guided_diffusion"]["steering"]
    classifiers = {task: store.build(node) for task, node in nodes.items()}
    for task, classifier in classifiers.items():
        if not isinstance(classifier, ControlClassifier):
            raise Refused(f"task={task}: its control is no classifier but {type(classifier).__name__}; "
                          "choose control=classifier or another task")  # fmt: skip
        for split in ("train", "dev"):
            for time in sorted({max(classifier.lm.low, t) for t in wanted["times"]}):
                own = unread(classifier, split, wanted["texts"], time)
                rows.append({"task": task, "split": split, "time": time, **nats(own)})

    def draw(figure: Any) -> None:
        figure.set_size_inches(4.5 * len(classifiers), 3.5)
        for axes, task in zip(figure.subplots(1, len(classifiers), squeeze=False)[0], classifiers, strict=True):
            for split in ("train", "dev"):
                own = [row for row in rows if (row["task"], row["split"]) == (task, split)]
                times, means = [row["time"] for row in own], [row["nats"] for row in own]
                axes.errorbar(times, means, reach(own, "nats", "low", "high"), marker="o", label=split)
            axes.set(title=task, xlabel="t", ylabel="nats a text", yscale="log")
            axes.legend()

    note = "Means over texts, evenly spaced, of −log p(annotation | x_t), with bootstrap intervals over texts."
    write(rows, COLUMNS, note, draw, models=store.addresses(nodes), **wanted)


@torch.no_grad()
def unread(classifier: ControlClassifier, split: str, texts: int, time: float) -> list[float]:
    """−log p(annotation | x_t) of every text, one draw of x_t each."""
    corpus, lm, found = classifier.corpus, classifier.lm, []
    for example in spaced(corpus.splits[split], texts):
        torch.manual_seed(len(found))  # texts have the same noise at every time, and under every classifier
        ids = corpus.vocabulary.encode(example.words, lm.length)[None].to(classifier.device)
        t = torch.full((1,), time, device=classifier.device)
        hidden = classifier.read(lm.noisy(ids, t), t)
        found.append(classifier.head.loss(hidden, [classifier.task.annotate(example)]).item())
    return found


if __name__ == "__main__":
    command(measure)
