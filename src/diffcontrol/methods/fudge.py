"""FUDGE: a future discriminator reweighs the next word of a language model.

Yang & Klein 2021, *FUDGE: Controlled Text Generation With Future Discriminators*. A predictor is trained on every
prefix of a text with the label of the whole text; while writing,

    log p(x_i | x_<i, a)  =  log p(x_i | x_<i)  +  λ · log p(a | x_≤i)  +  const

on the 200 likeliest next words, of which the best 10 are sampled from. Diffusion-LM (Li et al. 2022) §6.3 uses λ = 8
(semantic content), 20 (parts of speech, tree, spans) and 2 (length). Several predictors are a product of experts.

R rows still being written · C candidates · V vocabulary
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from transformers import LogitsProcessor

from diffcontrol.allowed import BY_TASK, Rules, number
from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN, CausalLM
from diffcontrol.autoregressive.predictor import Predictor, verdicts
from diffcontrol.autoregressive.prompted import check_targets
from diffcontrol.autoregressive.reading import Reading
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws
from diffcontrol.method import Method, Progress, strengths
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask, Request
from diffcontrol.text import END, PAD

BLOCK = 32  # candidates scored at once, then as many again as before


class FudgeProcessor(LogitsProcessor):
    """Adds strength × log p(success) to the language model's candidates; a row of readings for each row of the batch.

    Of `pre_top_k` candidates the best `post_top_k` are kept (0: all). Rows that ended are left alone. Candidates are
    scored in blocks, likeliest first: as log p ≤ 0, those that the language model puts below the best `post_top_k` so
    far cannot join them, and are not scored.
    """

    def __init__(self, readings: Sequence[tuple[Reading, float]], pre_top_k: int = 200, post_top_k: int = 10):
        if any(strength < 0 for _, strength in readings):
            raise Refused("fudge: a strength must be 0 or more")
        self.readings, self.pre_top_k, self.post_top_k = readings, pre_top_k, post_top_k
        self._seen: Tensor | None = None  # ids of the step before, of all rows
        self._rows = torch.empty(0)  # those still being written

    @torch.inference_mode()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = self._proceed(input_ids)
        scores = scores.clone()
        scores[:, list(NEVER_WRITTEN)] = -torch.inf
        if not len(rows):
            return scores
        possible = scores.shape[1] - len(NEVER_WRITTEN)
        likely, candidates = scores[rows].topk(min(self.pre_top_k or possible, possible))
        best = self._reweigh(likely, candidates) if self.readings else likely
        if 0 < self.post_top_k < best.shape[1]:
            kept, where = best.topk(self.post_top_k)
            best = torch.full_like(best, -torch.inf).scatter(1, where, kept)
        scores[rows] = torch.full_like(scores[rows], -torch.inf).scatter(1, candidates, best)
        return scores

    def _reweigh(self, likely: Tensor, candidates: Tensor) -> Tensor:
        """Log p of the language model and success, −∞ where it cannot be among the best, [R C], [R C] → [R C]."""
        best, rows, first = torch.full_like(likely, -torch.inf), torch.arange(len(likely), device=likely.device), 0
        while first < likely.shape[1] and len(rows):
            last = max(2 * first, BLOCK, self.post_top_k) if self.post_top_k else likely.shape[1]
            block = likely[rows, first:last]
            for reading, strength in self.readings:
                block = block + strength * logsigmoid(reading.score(rows, candidates[rows, first:last]))
            best[rows, first:last] = block
            first = last
            if 0 < self.post_top_k <= first < likely.shape[1]:
                least = best[rows].topk(self.post_top_k).values[:, -1]
                rows = rows[likely[rows, first] > least]
        return best

    def _proceed(self, input_ids: Tensor) -> Tensor:
        """Lets the readings take up the words that were chosen, returns the rows still being written."""
        written = (input_ids[:, -1] != END) & (input_ids[:, -1] != PAD)
        if self._seen is None:
            self._rows = torch.arange(len(input_ids), device=input_ids.device)
        else:
            if not torch.equal(input_ids[:, :-1], self._seen):
                raise ValueError("FUDGE: the texts so far were reordered; beam search is not supported, num_beams=1 is")
            kept = written[self._rows].nonzero()[:, 0]
            self._rows = self._rows[kept]
            for reading, _ in self.readings:
                reading.advance(kept, input_ids[self._rows, -1])
        for reading, _ in self.readings:
            if len(reading) != len(self._rows):
                raise ValueError(
                    f"FUDGE: {len(reading)} targets for {len(self._rows)} rows; one target a row is needed, "
                    "beam search is not supported"
                )
        self._seen = input_ids.clone()
        return self._rows


class Fudge(Method):
    """Samples from `lm` reweighed by the `predictors` of the tasks; without predictors, from `lm` alone.

    `strength` is λ by task, `default` that of tasks which it does not name; `scale` multiplies all of them.
    `temperature` divides the sum of both terms, which words are sampled from.
    """

    allowed: ClassVar[Rules] = {"strength": BY_TASK, "strength.*": number(0)}

    def __init__(self, lm: CausalLM, predictors: Mapping[str, Predictor], strength: Mapping[str, float],
                 pre_top_k: int = 200, post_top_k: int = 10, chunk: int = 50, seed: int = 0,
                 scale: float = 1.0, temperature: float = 1.0):  # fmt: skip
        super().__init__(chunk, seed)
        for name, predictor in predictors.items():
            if predictor.corpus.vocabulary.words != lm.corpus.vocabulary.words:
                raise Refused(f"fudge: the predictor of {name!r} knows other words than the language model")
        self.lm, self.predictors = lm, dict(predictors)
        self.strength = strengths(strength, scale, predictors)
        self.pre_top_k, self.post_top_k, self.temperature = pre_top_k, post_top_k, temperature

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        check_targets("fudge", tasks if node["predictors"] else {}, corpus)

    def models(self) -> list[nn.Module]:
        return [self.lm, *self.predictors.values()]

    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        readings = []
        for name, predictor in self.predictors.items():
            if any(name not in request.targets for request in requests):
                raise ValueError(f"fudge: a request has no target for {name!r}")
            readings.append((predictor.read([r.targets[name] for r in requests]), self.strength[name]))
        processor = FudgeProcessor(readings, self.pre_top_k, self.post_top_k)
        ids = self.lm.generate(draws, [processor], self.temperature)
        return [self.lm.corpus.vocabulary.decode(row) for row in ids.tolist()]

    def opinion(self, requests: Sequence[Request], texts: Sequence[Sequence[str]]) -> Tensor:
        return verdicts(self.predictors, requests, texts)
