"""What the annotation of an argument says of the node of conf/ that is given for it: of what class the object is that
the node describes. Of other annotations, numbers, texts and containers, the rules of `diffcontrol.allowed` know more.
"""

import sys
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from diffcontrol.recipe import class_of


def is_described(value: Any) -> bool:
    """Whether a value is a node that describes an object."""
    return isinstance(value, Mapping) and "_target_" in value


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value, or the object that it describes, can be what the annotation names. What a function makes is not
    known before it is called, so that fits."""
    if get_origin(annotation) is Callable:
        return callable(value) or is_described(value)
    classes = _classes(annotation)
    if not classes or isinstance(value, classes):
        return True
    if not is_described(value):
        return False
    made = class_of(value)
    return made is None or issubclass(made, classes)


def text(annotation: Any) -> str:
    """What is needed, for a message."""
    if get_origin(annotation) is Callable:
        return "a class or function (a node with _target_ and _partial_: true)"
    return " or ".join(
        "null" if one is NoneType else f"a node whose _target_ makes an object of class {one.__name__}"
        for one in _classes(annotation)
    )


def _classes(annotation: Any) -> tuple[type, ...]:
    """The classes that an annotation names, that of None among them; () where it names a protocol, what is no class, or
    a class of Python's own, such as numbers, texts and paths."""
    found = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    known = [
        isinstance(one, type) and not getattr(one, "_is_protocol", False)
        and one.__module__.partition(".")[0] not in sys.stdlib_module_names
        for one in found if one is not NoneType
    ]  # fmt: skip
    return found if known and all(known) else ()
