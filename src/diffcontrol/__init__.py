"""diffcontrol: can a diffusion language model be controlled where an autoregressive one cannot?

import diffcontrol

model = diffcontrol.load(data="restaurants")
for result in model.generate(semantic_content=["food", "Italian"], length=12, n=5):
    print(result.text, result.scores)
"""

from typing import TYPE_CHECKING, Any

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
