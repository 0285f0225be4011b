"""Exact conditioning of the factorised posterior.

    p_i(w | x_t, c)  ∝  p_i(w | x_t) · Σ_q α_i(q) β_{i+1}(δ(q, w))

for controls that have an automaton: "contains a phrase", a tag at each place, a length, and their products. Diffinity
(2602.12468) follows the gradient of the same quantity; here it is conditioned on, which needs neither a gradient nor a
strength. Controls without an automaton are left to another guidance, so that a composition may use both.

B batch · L positions · V vocabulary
"""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import pad

from diffcontrol.allowed import Rules, number
from diffcontrol.chain import Chain
from diffcontrol.diffusion.denoiser import Denoiser, Prediction
from diffcontrol.diffusion.sampler import Move, stay
from diffcontrol.guidance.base import Guidance
from diffcontrol.steering.base import Weighted
from diffcontrol.steering.exact import probabilities


class Conditioning(Guidance):
    """rest: the guidance that follows the controls without an automaton.

    early: how much of the conditioning, as an exponent, is done at the highest noise; it grows to all of it at the
    lowest. Below 1 the text is not committed to places where the network cannot see yet what stands around them.
    """

    allowed: ClassVar[Rules] = {"early": number(0, 1)}

    def __init__(self, rest: Guidance, early: float = 1.0, start: float = 1.0, stop: float = 0.0, stride: int = 1):
        super().__init__(rest.strength, start, stop, stride)
        self.rest, self.early, self.particles = rest, early, rest.particles

    def bind(self, denoiser: Denoiser, control: Weighted, times: Tensor) -> tuple[Denoiser, Move]:
        followed, move = self.rest.bind(denoiser, control.learned, times)
        conditioned, _ = super().bind(followed, control, times)
        return conditioned, move if control.learned.parts else stay

    def predict(self, denoiser: Denoiser, control: Weighted, x_t: Tensor, t: Tensor,
                previous: Prediction | None) -> Prediction:  # fmt: skip
        prediction = denoiser(x_t, t, previous)
        if control.exact is None:
            return prediction
        chain = Chain(control.exact, probabilities(prediction.logits))
        share = 1 - (1 - self.early) * ((t - denoiser.low) / (1 - denoiser.low))[:, None, None]
        factors = pad(share * chain.factors(), (0, 0, 1, 0))  # START's position keeps its logits
        return prediction.reweighed(prediction.logits + factors, denoiser.table())
