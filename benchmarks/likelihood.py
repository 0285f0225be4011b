"""Nats a word of held-out texts: the variational bound of the diffusion LM beside the exact NLL of the causal LM.

    python benchmarks/likelihood.py
    python benchmarks/likelihood.py task=semantic_content '+benchmark={texts: 50, draws: 64, looks: [1]}'

Both models learned from the same texts, and are trained first where they are missing. Nats are divided by the number of
words and END for both; what the diffusion LM pays for PAD, which says where a text ends, is among its nats. What the
bound is, and how it is drawn, stands in src/diffcontrol/diffusion/bound.py. looks: 2 lets the network look twice at
each x_t, as self-conditioning does in training.
"""

from collections.abc import Sequence
from typing import Any

import torch
from common import asked, changed, command, nats, reach, write
from omegaconf import DictConfig

from diffcontrol.data.corpus import spaced
from diffcontrol.diffusion.bound import bound
from diffcontrol.metrics import interval
from diffcontrol.preparing import store_of

TEXTS, DRAWS, LOOKS = 200, 32, (1, 2)
TERMS = ("reconstruction", "diffusion", "prior")  # of the bound
COLUMNS = {
    "model": "model", "split": "split", "n": "texts", "nats": "nats / word", "low": "95 % from", "high": "to",
    "reconstruction": "reconstruction", "diffusion": "diffusion", "prior": "prior",
}  # fmt: skip


def measure(cfg: DictConfig) -> None:
    full, wanted = changed(cfg, {}), asked(cfg, texts=TEXTS, draws=DRAWS, looks=LOOKS)
    store = store_of(full)
    corpus, lm, causal = store.build(full["data"]), store.fit(full["lm"]), store.fit(full["causal_lm"])
    rows, differences = [], []
    for split in ("dev", "test"):
        texts = [example.words for example in spaced(corpus.splits[split], wanted["texts"])]
        exact, counts = causal.nll(texts)
        own = per_word(exact, counts)
        rows.append({"model": "causal LM, exact", "split": split, **dict.fromkeys(TERMS), **nats(own)})
        ids = torch.stack([corpus.vocabulary.encode(text, corpus.length) for text in texts]).to(store.device)
        for looks in wanted["looks"]:
            found = bound(lm, ids, wanted["draws"], looks)
            terms = {name: per_word(getattr(found, name).tolist(), counts)
                     for name in ("total", *TERMS)}  # fmt: skip
            total = terms.pop("total")
            name = f"diffusion LM, bound, {looks} look{'s'[: looks > 1]}"
            means = {term: sum(values) / len(values) for term, values in terms.items()}
            rows.append({"model": name, "split": split, **nats(total), **means})
            differences.append({"of": f"{name} − causal LM", "split": split, **interval.paired(total, own)})

    def draw(figure: Any) -> None:
        figure.set_size_inches(7, 1 + 0.4 * len(rows))
        axes = figure.subplots()
        names, means = [f"{row['model']} ({row['split']})" for row in rows], [row["nats"] for row in rows]
        axes.barh(names, means, xerr=reach(rows, "nats", "low", "high"))
        axes.invert_yaxis()
        axes.set(xlabel="nats a word")

    note = ("Means over texts of nats a word, END among the words, with bootstrap intervals over texts. The bound is "
            f"in continuous time, {wanted['draws']} draws of each text.")  # fmt: skip
    write(rows, COLUMNS, note, draw, differences=differences, models=store.addresses({key: full[key] for key in (
        "lm", "causal_lm")}), **wanted)  # fmt: skip


def per_word(nats: Sequence[float], counts: Sequence[int]) -> list[float]:
    return [own / count for own, count in zip(nats, counts, strict=True)]


if __name__ == "__main__":
    command(measure)
