"""diffcontrol: can a diffusion language model be controlled where an autoregressive one cannot?

import diffcontrol

model = diffcontrol.load(data="restaurants")
for result in model.generate(semantic_content=["food", "Italian"], length=12, n=5):
    print(result.text, result.scores)
"""

import os
from typing import TYPE_CHECKING, Any

# GNU OpenMP, which PyTorch computes with on Linux, lets threads that wait for each other spin. Beside any other busy
# process that makes a run ten to twenty times slower. So they go to sleep soon, which costs a run that is alone on its
# machine a twentieth (docs/log.md). It is read when PyTorch is imported, which this package has not done yet.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from diffcontrol.api import Model, Result, Step, load
    from diffcontrol.refused import Refused

__all__ = ["Model", "Refused", "Result", "Step", "load"]


def __getattr__(name: str) -> Any:
    """What stands in `__all__`, imported when it is first asked for: PyTorch and Hydra take seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Refused":
        from diffcontrol.refused import Refused

        return Refused
    from diffcontrol import api

    return getattr(api, name)
