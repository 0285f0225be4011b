"""Sequential Monte Carlo: many texts are written at once, weighed by how well they obey so far, and resampled.

Lew et al. 2023, *Sequential Monte Carlo Steering of Large Language Models using Probabilistic Programs*; Loula et al.
2025, *Syntactic and Semantic Control of Large Language Models via Sequential Monte Carlo* (2504.13139); the setting for
parts of speech and trees is that of 2506.07154 (20 particles, resampled at an effective number of N/4). Where
`constrained` takes what its rule leaves of the next word, and so ends up in texts that the language model finds absurd,
the weights here are such that with many particles the texts are samples of

    p(x | c)  ∝  p_LM(x) · Π_i g_i(x_≤i)

g_i is what the tasks' rules say of a word (`Rule.weighed`). A particle's next word is drawn from

    q(x_i)  =  p_LM(x_i | x_<i) · f_i(x_i) / Z_i          Z_i = Σ_w p_LM(w | x_<i) · f_i(w)

and its weight multiplied by Z_i. f_i is g_i, or a factor that anticipates later g's. Such a factor influences
resampling, and is divided out of the weights before the final particle is drawn. With `twist`, FUDGE's
p(c | x_≤i) / p(c | x_<i) also multiplies the weights: for a task without a rule it takes the place of g; for the
others it only anticipates.

B requests · N particles of each · R particles still being written · V vocabulary
"""

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from diffcontrol.autoregressive.causal_lm import CausalLM
from diffcontrol.autoregressive.particles import Particles
from diffcontrol.autoregressive.predictor import Predictor
from diffcontrol.autoregressive.prompted import check_targets
from diffcontrol.autoregressive.reading import Reading
from diffcontrol.autoregressive.writing import Writing
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws, chosen
from diffcontrol.method import Method, Progress
from diffcontrol.refused import Refused
from diffcontrol.rules import Rule
from diffcontrol.task import ControlTask, Request
from diffcontrol.text import END


class Twist:
    """FUDGE's predictor of one task as a factor of weights; `stays`: it counts in the end."""

    def __init__(self, reading: Reading, weight: float, particles: int, stays: bool):
        self.reading, self.weight, self.stays = reading, weight, stays
        self.rows = torch.arange(len(reading)).repeat_interleave(particles)  # the reading's, of particles in writing
        self.before = self._log_p(reading.logits)[self.rows]

    def _log_p(self, logits: Tensor) -> Tensor:
        return self.weight * logsigmoid(logits.float().cpu())

    def gain(self, words: Tensor) -> Tensor:
        """log p(c | x_≤i) − log p(c | x_<i), words [R] → [R]."""
        after = self._log_p(self.reading.advance(self.rows, words))
        gained, self.before = after - self.before, after
        return gained

    def select(self, rows: Tensor) -> None:
        self.rows, self.before = rows, self.before[rows]


class Smc(Method):
    """Writes with `particles` texts of `lm` a request.

    threshold: they are resampled when their effective number is at most this share of them; twist: whether FUDGE's
    predictors weigh them, too; weight: multiplies log g and log f of allowed words and the predictors' log p(c), and
    `scale` this; temperature: of the language model.
    """

    def __init__(self, lm: CausalLM, tasks: Mapping[str, ControlTask],
                 predictors: Mapping[str, Predictor] = MappingProxyType({}), particles: int = 20,
                 threshold: float = 0.25, twist: bool = False, temperature: float = 1.0, weight: float = 1.0,
                 scale: float = 1.0, chunk: int = 25, seed: int = 0):  # fmt: skip
        super().__init__(chunk, seed)
        self.lm, self.particles, self.threshold, self.temperature = lm, particles, threshold, temperature
        self.weight, self.tasks = scale * weight, dict(tasks)
        self.rules = {name: rule for name, task in tasks.items() if (rule := rule_of(task, lm.corpus))}
        self.predictors = dict(predictors) if twist else {}

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        if node.get("twist"):
            check_targets("smc with a twist", tasks, corpus)
        for name, task in tasks.items():
            if not node.get("twist") and not rule_of(task, corpus):
                raise Refused(
                    f"smc: {name} has no rule on words to weigh texts by; with method.smc.twist=true FUDGE's predictor "
                    "weighs them"
                )

    def models(self) -> list[nn.Module]:
        return [self.lm, *self.predictors.values()]

    def asked(self, request: Request) -> list[Rule]:
        """The rules that one request's texts are weighed by."""
        return [make(request.targets[name]) for name, make in self.rules.items()]

    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        final = draws.children(1)  # of its own stream, as how often the others are drawn from depends on the chunk
        drawn = self.ended(requests, draws, progress).drawn(final)
        texts = [self.lm.corpus.vocabulary.decode(words) for words in drawn]
        return [request.completed(words, self.tasks) for request, words in zip(requests, texts, strict=True)]

    @torch.inference_mode()
    def ended(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> Particles:
        """All particles, written to their end."""
        asked = [json.dumps(request.targets) for request in requests]
        known = {key: self.asked(request) for key, request in dict(zip(asked, requests, strict=True)).items()}
        rules, twists = [known[key] for key in asked], self._twists(requests)
        texts, most = Particles(len(requests), self.particles), self.lm.corpus.length - 2
        writing = Writing(self.lm, len(texts.running), self.temperature)
        for length in range(most + 1):
            pull, potential = self._weighed(rules, texts)
            log_probs = writing.log_probs
            if length == most:  # a text has to end by now
                log_probs = log_probs.masked_fill(torch.arange(log_probs.shape[1]) != END, -torch.inf)
            drawn = log_probs + pull
            gain = drawn.logsumexp(1)
            words = chosen(possible(drawn), draws.uniform(self.particles).flatten()[texts.running])
            debt = (pull - potential).gather(1, words[:, None])[:, 0]
            for twist in twists:
                gained = twist.gain(words)
                gain, debt = gain + gained, debt + (0.0 if twist.stays else gained)
            texts.write(words, gain, debt)
            rows = texts.proceed(self.threshold, draws.uniform())
            progress(length / most)
            if not len(rows):
                break
            for twist in twists:
                twist.select(rows)
            writing.go_on(rows, torch.tensor([texts.words[row][-1] for row in texts.running.tolist()]))
        return texts

    def _twists(self, requests: Sequence[Request]) -> list[Twist]:
        return [
            Twist(
                predictor.read([r.targets[name] for r in requests]), self.weight, self.particles, name not in self.rules
            )
            for name, predictor in self.predictors.items()
        ]

    def _weighed(self, rules: Sequence[Sequence[Rule]], texts: Particles) -> tuple[Tensor, Tensor]:
        """log f and log g of every next word of the running particles, [R V], [R V]; particles of the same words share
        the work."""
        known: dict[tuple[int, tuple[int, ...]], tuple[Tensor, Tensor]] = {}
        rows = []
        for row in texts.running.tolist():
            key = (row // texts.count, tuple(texts.words[row]))
            if key not in known:
                known[key] = self._summed(rules[key[0]], texts.words[row])
            rows.append(known[key])
        pull, potential = zip(*rows, strict=True)
        return torch.stack(pull), torch.stack(potential)

    def _summed(self, rules: Sequence[Rule], words: Sequence[int]) -> tuple[Tensor, Tensor]:
        nothing = torch.zeros(len(self.lm.corpus.vocabulary))
        pairs = [rule.weighed(words) for rule in rules]
        pull, potential = (sum(added, nothing) for added in zip(*pairs)) if pairs else (nothing, nothing)
        return self._scaled(pull), self._scaled(potential)

    def _scaled(self, added: Tensor) -> Tensor:
        return torch.where(added.isfinite(), self.weight * added, added)  # 0 × −∞ is still forbidden


def possible(log_probs: Tensor) -> Tensor:
    """The same, but for rows in which nothing is possible: they say END, [R V] → [R V]."""
    none = log_probs.isneginf().all(1, keepdim=True)
    end = torch.arange(log_probs.shape[1]) == END
    return torch.where(none & end, 0.0, log_probs)


def rule_of(task: ControlTask, corpus: Corpus) -> Callable[[Any], Rule] | None:
    """The task's rules, None if it has none."""
    try:
        return task.rule(corpus.vocabulary)
    except Refused:
        return None
