"""Particles: several texts for each that is asked for, of which those that obey are kept and multiplied on the way.

    log w  +=  λ · (r(x_t) − r(x_{t+1}))          r = Σ_k strength_k · log p(c_k | x_t)

Twisted sequential Monte Carlo (Wu et al. 2023, 2306.17775) with the difference potential of Feynman–Kac steering
(Singhal et al. 2025, 2501.06848: k = 4, λ = 10). Where the effective number of a text's particles falls below half,
they are resampled. r is read off the prediction that the step needs anyway, so beside the particles only the heads cost
time.

Proposals may be guided themselves. The weights then leave out p(x_s | x_t)/q(x_s | x_t), which a sign step does not
even have: what is sampled is the guided process, reweighed. With unguided proposals, strengths and λ of 1 and many
particles the weights lead towards p(x | c). The last step keeps the surviving particle with the highest r.

B rows · k particles of each text, side by side
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Normal

from diffcontrol.allowed import Rules, number, whole
from diffcontrol.diffusion.denoiser import Denoiser, Prediction, Wrapper
from diffcontrol.diffusion.sampler import Move
from diffcontrol.guidance.base import Guidance
from diffcontrol.steering.base import Look, Weighted


class Particles(Guidance):
    """proposal: the guidance that each particle follows; particles: k; sharpness: λ. Only steps at which this guidance
    acts resample; the last of them leaves the survivor with the highest r first."""

    allowed: ClassVar[Rules] = {"particles": whole(1), "sharpness": number(0)}

    def __init__(self, proposal: Guidance, particles: int = 4, sharpness: float = 1.0, start: float = 1.0,
                 stop: float = 0.0, stride: int = 1):  # fmt: skip
        super().__init__(proposal.strength, start, stop, stride)
        self.proposal, self.particles, self.sharpness = proposal, particles, sharpness

    def bind(self, denoiser: Denoiser, control: Weighted, times: Tensor) -> tuple[Denoiser, Move]:
        guided, propose = self.proposal.bind(denoiser, control, times)
        acting = self.acting(times.tolist(), denoiser.low)
        population = _Population(guided, control, self.particles, self.sharpness)
        ends, last = {s for _, s in acting}, acting[-1][1] if acting else None

        def move(x_s: Tensor, step: Normal, s: Tensor, prediction: Prediction) -> Tensor:
            x_s = propose(x_s, step, s, prediction)
            if float(s[0]) in ends:
                x_s = x_s[population.resample(best_first=float(s[0]) == last)]
            return x_s

        return population, move


class _Population(Wrapper):
    """A denoiser that weighs the particles whenever they are looked at."""

    def __init__(self, denoiser: Denoiser, control: Weighted, particles: int, sharpness: float):
        super().__init__(denoiser)
        self.control, self.k, self.sharpness = control, particles, sharpness
        self.log_weight = self.reward = torch.zeros(0)  # [B] from the first look on
        self.ancestors: Tensor | None = None  # of the rows since the last look, [B]

    def __call__(self, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction:
        if previous is not None and self.ancestors is not None:
            a = self.ancestors
            previous = Prediction(previous.x0[a], previous.logits[a], previous.hidden[a])
        self.ancestors = None
        prediction = self.denoiser(x_t, t, previous)
        reward = self.control.log_prob(Look(x_t, t, lambda: prediction))
        if not len(self.reward):  # the first look: all particles count the same
            self.log_weight, self.reward = torch.zeros_like(reward), reward
        self.log_weight = self.log_weight + self.sharpness * (reward - self.reward)
        self.reward = reward
        return prediction

    def resample(self, best_first: bool) -> Tensor:
        """Which particle each row goes on with, [B]: systematic resampling of the texts whose effective number of
        particles is below k/2, with the middle of the offsets in place of a random one. Weights are equal after it."""
        weights = self.log_weight.view(-1, self.k).softmax(-1)  # [texts k]
        texts = torch.arange(len(weights), device=weights.device)[:, None] * self.k
        offsets = (torch.arange(self.k, device=weights.device) + 0.5) / self.k
        chosen = torch.searchsorted(weights.cumsum(-1).contiguous(), offsets.expand_as(weights).contiguous())
        own = torch.arange(self.k, device=weights.device).expand_as(chosen)
        poor = (1 / weights.square().sum(-1, keepdim=True) < self.k / 2) | best_first
        chosen = torch.where(poor, chosen.clamp(max=self.k - 1), own)
        if best_first:
            rewards = self.reward.view(-1, self.k)
            chosen = chosen.gather(1, rewards.gather(1, chosen).argsort(1, descending=True))
        ancestors = (chosen + texts).flatten()
        self.log_weight = torch.where(poor, 0.0, self.log_weight.view(-1, self.k)).flatten()
        self.reward, self.ancestors = self.reward[ancestors], ancestors
        return ancestors
