"""Conditional diffusion: diffusion language models that learned to write from the target, guided without a classifier
(Ho & Salimans 2022, 2207.12598). The oracle of the diffusion side, as `finetuned` is that of the autoregressive one.

The equations stand in `diffcontrol.diffusion.conditional`. Several tasks are a product: the guided differences add up.

B batch · L positions · D embedding width
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from diffcontrol.allowed import BY_TASK, Rules
from diffcontrol.autoregressive.prompted import check_targets
from diffcontrol.data.corpus import Corpus
from diffcontrol.diffusion.conditional import ConditionalLM, classifier_free
from diffcontrol.diffusion.decoding import Decoding
from diffcontrol.diffusion.denoiser import Anchored, Denoiser, known_words
from diffcontrol.diffusion.sampler import Sampler
from diffcontrol.draws import Draws
from diffcontrol.layout import Layout, taken
from diffcontrol.lengths import TrainingLengths
from diffcontrol.method import Method, Progress, strengths
from diffcontrol.refused import Refused
from diffcontrol.steering.anchor import known, within
from diffcontrol.task import ControlTask, Request


class Conditional(Method):
    """Writes with `lms`, a conditional model for each task.

    strength: w of classifier-free guidance by task, all multiplied by `scale`; `default` stands for tasks that have
    none. 0 asks for nothing; 1 writes as one model learned to; above 1 what the target changes is exaggerated, so texts
    obey more and vary less. lengths: how long a text is where no target says it. END is fixed there, and where a target
    says the length, as in guided diffusion; without it the models decide all lengths.
    """

    allowed: ClassVar[Rules] = {"strength": BY_TASK}

    def __init__(self, lms: Mapping[str, ConditionalLM], sampler: Sampler, decoding: Decoding,
                 strength: Mapping[str, float], scale: float = 1.0, lengths: TrainingLengths | None = None,
                 chunk: int = 50, seed: int = 0):  # fmt: skip
        super().__init__(chunk, seed)
        self.lms, self.sampler, self.decoding, self.lengths = dict(lms), sampler, decoding, lengths
        self.strength = strengths(strength, scale, lms)

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        lms = node["lms"]
        check_targets("conditional", tasks, corpus)
        weights = list(strengths(node["strength"], node["scale"], lms).values())
        (one, first), *others = lms.items()
        for name, other in others:
            if other["lm"] != first["lm"]:
                raise Refused(f"conditional: the models of {one} and {name} begin from different diffusion LMs, so "
                              "they do not read the same noisy texts; a product of them needs one lm")  # fmt: skip
        for name, own in lms.items():
            if not own["drop"] and weights != [1]:
                raise Refused(f"conditional: guidance of {len(lms)} task{'s'[: len(lms) > 1]} with strength "
                              f"{', '.join(f'{weight:g}' for weight in weights)} compares with texts of no target, "
                              f"which the model of {name} never learns with drop=0; allowed is drop above 0, or one "
                              f"task with ++strength.conditional.{name}=1")  # fmt: skip

    def models(self) -> list[nn.Module]:
        return list(self.lms.values())

    @torch.no_grad()
    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        lm = next(iter(self.lms.values())).lm
        layouts = self._layouts(requests, draws, lm.length)
        places, inner = known(layouts, lm), within(layouts, lm.length).to(lm.device)

        def anchored(denoiser: Denoiser) -> Denoiser:
            return Anchored(denoiser, *places, None, inner)

        guided = [
            (
                self.strength[name],
                anchored(own.given([request.targets[name] for request in requests])),
                anchored(own.free(len(requests))),
            )
            for name, own in self.lms.items()
        ]
        longest = (self.sampler.crop and taken(layouts)) or lm.length
        x_t = draws.normal(longest, lm.embedding.embedding_dim).to(lm.device)
        decode = partial(self.decoding, table=lm.table())
        predictions = self.sampler(classifier_free(guided), x_t, draws, decode)
        for step, prediction in enumerate(predictions):  # noqa: B007
            progress(step / (self.sampler.steps + 1))
        rows = zip(known_words(prediction.logits).argmax(-1).tolist(), layouts, strict=True)
        return [lm.corpus.vocabulary.decode(ids, layout.words) for ids, layout in rows]

    def _layouts(self, requests: Sequence[Request], draws: Draws, length: int) -> list[Layout]:
        """What is fixed in each row: END, where a target says the length, else where `lengths` draws it."""
        if not self.lengths:
            return [Layout()] * len(requests)
        rows = zip(requests, draws.uniform().tolist(), strict=True)
        return [self._ended(self.lengths, request, uniform, length) for request, uniform in rows]

    def _ended(self, lengths: TrainingLengths, request: Request, uniform: float, length: int) -> Layout:
        asked = {name: request.targets[name] for name in self.lms}
        tasks = [(own.task, asked[name]) for name, own in self.lms.items()]
        said = max((words for task, target in tasks if (words := task.words(target))), default=None)
        least = max(task.least_words(target) for task, target in tasks)
        most = min((words for task, target in tasks if (words := task.most_words(target)) is not None), default=None)
        return lengths.end(Layout(), asked, least, uniform, length, said, most)
