"""Pull: x̂₀ is pulled towards the vectors of known words at their places, as the paper controls a length.

B batch · L positions · D embedding width
"""

from collections.abc import Sequence

from torch import Tensor

from diffcontrol.data.corpus import Corpus
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.layout import Layout
from diffcontrol.steering.anchor import known, needs_layouts
from diffcontrol.steering.base import Control, Look, Steering
from diffcontrol.task import ControlTask, Target


class Pull(Steering):
    """x̂₀ is pulled towards the vectors of the layout's words, those after END left out (paper §5.3, released
    langevin_fn_length: START and END alone are pulled). Of several layouts the likeliest counts."""

    ends = True

    def __init__(self, task: ControlTask, lm: DiffusionLM):
        self.task, self.lm = task, lm

    @classmethod
    def check(cls, task: ControlTask, corpus: Corpus) -> None:
        needs_layouts("pull", task)

    def control(self, targets: Sequence[Target]) -> Control:
        return Pulled([self._layout(target) for target in targets], self.lm)

    def least(self, target: Target) -> int:
        return 1 + max((place for place, word in self._layout(target).words.items() if word != "PAD"), default=0)

    def _layout(self, target: Target) -> Layout:
        return max(self.task.layouts(target), key=lambda layout: layout.weight)


class Pulled(Control):
    """−Σ over known places of ‖x̂₀ − E_word‖² / σ, with σ of the transition as released (langevin_fn_length).

    x̂₀ is the network's own prediction: a decoded one may be clamped to word vectors, which have no gradient.
    """

    def __init__(self, layouts: Sequence[Layout], lm: DiffusionLM):
        self.known, self.mask = known(layouts, lm, pad=False)
        self.lm = lm

    def log_prob(self, look: Look) -> Tensor:
        x0 = look.prediction.x0
        length = x0.shape[1]
        error = (x0 - self.lm.table()[self.known[:, :length]]).square()
        if look.spread is not None:
            error = error / look.spread
        return -(error.sum(-1) * self.mask[:, :length]).sum(1)
