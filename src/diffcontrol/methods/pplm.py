"""PPLM: gradients of an attribute model move the keys and values that the next word is predicted from.

Dathathri et al. 2020, *Plug and Play Language Models*; this follows the released run_pplm.py with a discriminator.
Before each word, the cached keys and values of the words so far take `updates` steps of size `step` (unit gradient,
each layer apart) up  log p(class | mean of past hidden states and that of the expected next word)  −  kl · KL(p̃ ‖ p),
p̃ and p the next-word distributions with and without the change. The word is drawn from p̃^fusion · p^(1−fusion), of its
`top_k` likeliest. Changes stay in the cache. The first word, which has no past, is not steered. Diffusion-LM
(Li et al. 2022, App. E) uses 30 updates of 0.04 and kl 0.01, for semantic content alone. Here a task's `strength`
multiplies that step, so that it can be tuned by the rule of all other methods.

R rows still being written · S positions so far · H hidden width · N tasks · V vocabulary
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LogitsProcessor

from diffcontrol.allowed import BY_TASK, Rules, number
from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN
from diffcontrol.autoregressive.discriminator import Discriminator
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws
from diffcontrol.method import Method, Progress, strengths
from diffcontrol.task import ControlTask, Request
from diffcontrol.text import END, PAD

Past = list[Tensor]  # keys and values of each layer, [2 R heads S width]


def cache(past: Past) -> DynamicCache:
    made = DynamicCache()
    for i, (keys, values) in enumerate(past):
        made.update(keys, values, i)
    return made


def contents(of: DynamicCache) -> Past:
    return [torch.stack([layer.keys, layer.values]) for layer in of.layers]  # type: ignore[list-item]


class PplmProcessor(LogitsProcessor):
    """Replaces the language model's next-word scores by those after the updates. `classes` [B] and `weights` are
    those of each task, in the discriminator's order."""

    def __init__(self, discriminator: Discriminator, classes: Sequence[Tensor], weights: Sequence[float], step: float,
                 updates: int = 30, kl: float = 0.01, fusion: float = 0.95, top_k: int = 10):  # fmt: skip
        self.discriminator, self.network = discriminator, discriminator.lm.network
        self.classes, self.weights = list(classes), torch.tensor(weights, device=discriminator.device)
        self.step, self.updates, self.kl, self.fusion, self.top_k = step, updates, kl, fusion, top_k
        self.rows: Tensor | None = None  # those still being written
        self.moved: Past = []  # of all words but the last, with the changes
        self.plain: Past = []  # of all words, without
        self.sum = torch.empty(0)  # of the plain hidden states of all words, [R H]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            ids, scores = input_ids.clone(), scores.clone()  # may be of inference mode, which knows no gradients
            rows = self._proceed(ids)
            if len(rows):
                scores[rows] = self._steered(ids[rows, -1:], scores[rows].float())
            scores[:, list(NEVER_WRITTEN)] = -torch.inf
            if 0 < self.top_k < scores.shape[1]:
                scores = scores.masked_fill(scores < scores.topk(self.top_k).values[:, -1:], -torch.inf)
            return scores

    def _proceed(self, ids: Tensor) -> Tensor:
        """Takes up the last words, returns the rows still being written."""
        if self.rows is None:
            self.rows = torch.arange(len(ids), device=ids.device)
        written = (ids[self.rows, -1] != END) & (ids[self.rows, -1] != PAD)
        kept = written.nonzero()[:, 0]
        self.rows, self.classes = self.rows[kept], [own[kept] for own in self.classes]
        self.moved, self.plain = ([layer[:, kept] for layer in past] for past in (self.moved, self.plain))
        if len(kept):
            hidden, past = self._run(self.plain, input_ids=ids[self.rows, -1:])
            self.sum, self.plain = (self.sum[kept] if self.sum.numel() else 0) + hidden, contents(past)
        return self.rows

    def _run(self, past: Past, **inputs: Tensor) -> tuple[Tensor, DynamicCache]:
        """Hidden state of one more word, [R H], and the cache with it."""
        held = cache(past)
        out = self.network.transformer(past_key_values=held, use_cache=True, **inputs).last_hidden_state
        self.discriminator.lm.token_evaluations += len(out)
        return out[:, -1], held

    def _steered(self, last: Tensor, scores: Tensor) -> Tensor:
        """Log p of the next word, fused, [R 1], [R V] → [R V]."""
        plain = scores.log_softmax(-1)
        change = [torch.zeros_like(layer) for layer in self.moved]
        for _ in range(self.updates if self.moved else 0):
            with torch.enable_grad():
                change = [layer.requires_grad_(True) for layer in change]
                gain = self._gain([a + b for a, b in zip(self.moved, change, strict=True)], last, plain)
                gradients = torch.autograd.grad(gain.sum(), change)
            norms = [gradient.pow(2).sum((0, 2, 3, 4), keepdim=True).sqrt() + 1e-10 for gradient in gradients]
            change = [
                layer.detach() + self.step * gradient / norm
                for layer, gradient, norm in zip(change, gradients, norms, strict=True)
            ]
        hidden, held = self._run([a + b for a, b in zip(self.moved, change, strict=True)], input_ids=last)
        self.moved = contents(held)
        steered = self.network.lm_head(hidden).float().log_softmax(-1)
        return self.fusion * steered + (1 - self.fusion) * plain

    def _gain(self, past: Past, last: Tensor, plain: Tensor) -> Tensor:
        """What the updates climb, [R]."""
        hidden, _ = self._run(past, input_ids=last)
        log_probs = self.network.lm_head(hidden).float().log_softmax(-1)
        expected = log_probs.exp() @ self.network.transformer.wte.weight
        ahead, _ = self._run(self.plain, inputs_embeds=expected[:, None])
        mean = (self.sum + ahead) / (self.plain[0].shape[3] + 1)  # the last word's own state gives no gradient
        divergence = (log_probs.exp() * (log_probs - plain)).sum(-1)
        return self.discriminator.log_probs(mean, self.classes) @ self.weights - self.kl * divergence


class Pplm(Method):
    """Samples from the discriminator's language model, steered.

    `strength` says by task what `step` is multiplied by, `default` that of tasks which it does not name; `scale`
    multiplies all of them. As gradients are scaled to one, of several tasks the strongest sets the step, and each
    weighs the log-probability of its class by its strength over that of the strongest.
    """

    allowed: ClassVar[Rules] = {"strength": BY_TASK, "strength.*": number(0)}

    def __init__(self, discriminator: Discriminator, strength: Mapping[str, float], step: float = 0.04,
                 updates: int = 30, kl: float = 0.01, fusion: float = 0.95, top_k: int = 10, scale: float = 1.0,
                 chunk: int = 50, seed: int = 0):  # fmt: skip
        super().__init__(chunk, seed)
        self.discriminator = discriminator
        by_task = strengths(strength, scale, discriminator.tasks)
        strongest = max(by_task.values())
        self.how: dict[str, Any] = {
            "weights": [own / strongest if strongest else 1.0 for own in by_task.values()],
            "step": strongest * step,
            "updates": updates,
            "kl": kl,
            "fusion": fusion,
            "top_k": top_k,
        }

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        for task in tasks.values():
            task.classes()

    def models(self) -> list[nn.Module]:
        return [self.discriminator.lm]

    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        classes = [
            self.discriminator.classes(name, [request.targets[name] for request in requests])
            for name in self.discriminator.tasks
        ]
        lm = self.discriminator.lm
        ids = lm.generate(draws, [PplmProcessor(self.discriminator, classes, **self.how)])
        return [lm.corpus.vocabulary.decode(row) for row in ids.tolist()]
