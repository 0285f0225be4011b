"""Pull: x̂₀ is pulled towards the vectors of known words at their places, as the paper controls a length.

B batch · L positions · D embedding width
"""

from collections.abc import Sequence

from torch import Tensor

from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.layout import Layout
from diffcontrol.steering.anchor import known
from diffcontrol.steering.base import Control, Steering
from diffcontrol.task import ControlTask, Target


class Pull(Steering):
    """x̂₀ is pulled towards the vectors of the layout's words, those after END left out (paper §5.3, released
    langevin_fn_length: START and END alone are pulled). Of several layouts the likeliest counts."""

    def __init__(self, task: ControlTask, lm: DiffusionLM):
        self.task, self.lm = task, lm

    def control(self, targets: Sequence[Target]) -> Control:
        layouts = [max(self.task.layouts(target), key=lambda layout: layout.weight) for target in targets]
        return Pulled(layouts, self.lm)


class Pulled(Control):
    """−Σ over known places of ‖x̂₀ − E_word‖².

    The released loss is divided by σ, as its fluency term is, which a strength stands for here.
    """

    def __init__(self, layouts: Sequence[Layout], lm: DiffusionLM):
        self.known, self.mask = known(layouts, lm, pad=False)
        self.lm = lm

    def log_prob(self, x_t: Tensor, t: Tensor, prediction: Prediction) -> Tensor:
        error = (prediction.x0 - self.lm.table()[self.known]).square().sum(-1)
        return -(error * self.mask).sum(1)
