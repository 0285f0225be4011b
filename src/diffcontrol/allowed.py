"""Which values a setting may have. A class that conf/ describes says so of its arguments, and every node is checked
against its class before anything is trained.

    class Sampler:
        allowed: ClassVar[Rules] = {"steps": whole(1), "noise": number(0)}
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.utils import get_object

from diffcontrol import annotated
from diffcontrol.recipe import class_of
from diffcontrol.refused import Refused


@dataclass(frozen=True)
class Allowed:
    """A rule for one value: what is said of it, and whether a value keeps it."""

    text: str
    test: Callable[[Any], bool]

    def check(self, name: str, value: Any) -> None:
        """
        Raises:
            Refused: the value is not allowed; `name` says where it stands.
        """
        if not self.test(value):
            raise Refused(f"{name}={value!r}: allowed is {self.text}")


Rules = Mapping[str, Allowed]  # argument → rule


def number(least: float | None = None, most: float | None = None, above: float | None = None,
           below: float | None = None) -> Allowed:  # fmt: skip
    """A finite number within these bounds, `least` and `most` included. Booleans are not accepted."""
    bounds = (("from", least), ("above", above), ("to", most), ("to below", below))
    said = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]

    def test(value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        if not abs(value) <= sys.float_info.max:  # infinite, NaN, or a whole number that no float holds
            return False
        return ((least is None or value >= least) and (most is None or value <= most)
                and (above is None or value > above) and (below is None or value < below))  # fmt: skip

    return Allowed(" ".join(["a number", *said]), test)


def whole(least: int | None = None) -> Allowed:
    """A whole number, not below `least`. Booleans are not accepted."""

    def test(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)

    return Allowed("a whole number" + ("" if least is None else f" from {least}"), test)


def one_of(*values: Any) -> Allowed:
    """One of these."""
    return Allowed("one of " + ", ".join(map(str, values)), lambda value: value in values)


def error_or_skip(what: str) -> Allowed:
    """Whether `what` ends the run or is left out."""
    return Allowed(f"error, or skip ({what} is left out)", lambda value: value in ("error", "skip"))


def optional(rule: Allowed) -> Allowed:
    """null, or what the rule allows."""
    return Allowed(f"{rule.text}, or null", lambda value: value is None or rule.test(value))


def group(value: Any, name: str) -> None:
    """Checks that `value` is a group of settings, of which `name`, say `targets.seed`, is one.

    Raises:
        Refused: it is a single value.
    """
    if not isinstance(value, Mapping):
        whole, _, _ = name.rpartition(".")
        raise Refused(f"{whole}={value}: {whole} is a group of settings; set one of them, as {name}")


FLAG = Allowed("true or false", lambda value: isinstance(value, bool))
BY_TASK = Allowed("a value for each task, task: value", lambda value: isinstance(value, Mapping))
CHARACTER = Allowed("one character", lambda value: isinstance(value, str) and len(value) == 1)


@dataclass(frozen=True)
class ArgumentsOf(Allowed):
    """The rule of a dictionary that holds the arguments of something which no `_target_` beside them names."""

    made: Callable[..., Any]

    def check(self, name: str, value: Any) -> None:
        super().check(name, value)
        takes(self.made, value, name)


def arguments_of(made: Callable[..., Any]) -> ArgumentsOf:
    """The arguments that a class or function takes, by name."""
    return ArgumentsOf("a dictionary", lambda value: isinstance(value, Mapping), made)


def takes(made: Callable[..., Any], given: Mapping[str, Any], where: str, complete: bool = True) -> None:
    """Checks that a class or function takes the arguments that are given by name, and, if they are `complete`, that it
    needs no others. What its annotations say is an object of a class has to be described as one.

    Raises:
        Refused: it has no such argument, one that it needs is missing, or one is an object of another class.
    """
    try:
        known = inspect.signature(made).parameters
    except ValueError:  # of what is written in C nothing is known
        return
    name = getattr(made, "__name__", type(made).__name__)
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    for key, value in given.items():
        if key not in known and not anything:
            raise Refused(f"{where}.{key}={value!r}: {name} has no such argument; it has {', '.join(known)}")
        if key in known and not annotated.fits(value, known[key].annotation):
            got = f"._target_={value['_target_']}" if annotated.is_described(value) else f"={value!r}"
            raise Refused(f"{where}.{key}{got}: {name} needs {annotated.text(known[key].annotation)}")
    for key, parameter in known.items():
        needed = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY,
        )  # fmt: skip
        if complete and needed and key not in given:
            raise Refused(f"{where}.{key} is missing, and {name} needs it")


def check(node: Any, where: str = "") -> None:
    """Checks every node within `node`: what it describes exists and takes its arguments, and its class allows their
    values.

    A rule's name is that of an argument, or leads into one: `model.depth`; `strength.*` is of all its values.

    Raises:
        Refused: there is no such class, it does not take an argument, or it does not allow a value.
    """
    if isinstance(node, list | tuple):
        for i, item in enumerate(node):
            check(item, f"{where}.{i}")
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():  # first, so that what the checks of this node import exists
        check(value, f"{where}.{key}" if where else str(key))
    if "_target_" in node:
        made = _described(node["_target_"], where)
        given = {key: value for key, value in node.items() if not str(key).startswith("_")}
        takes(made, given, where, complete=not node.get("_partial_") and "_args_" not in node)
    for name, rule in _rules(node).items():
        for path, value in _values(node, name.split(".")):
            rule.check(".".join(filter(None, (where, path))), value)


def arguments(made: Any, **values: Any) -> None:
    """For constructors: checks arguments of the object in the making by the rules of its class.

    Raises:
        Refused: a value is not allowed.
    """
    rules = _rules_of(type(made))
    for name, value in values.items():
        rules[name].check(f"{type(made).__name__}: {name}", value)


def _described(name: str, where: str) -> Callable[..., Any]:
    """The class or function of this dotted name.

    Raises:
        Refused: there is none, or importing its module fails, of which the exception's cause tells more.
    """
    try:
        found = get_object(name)
    except Exception as error:  # Hydra passes on whatever the module raises
        cause = error.__cause__ or error
        first = str(cause).partition("\n")[0]
        raise Refused(f"{where}._target_={name}: it cannot be imported ({type(cause).__name__}: {first})") from error
    if not callable(found):
        raise Refused(f"{where}._target_={name}: it makes nothing, as it is neither a class nor a function")
    return found


def _rules(node: Mapping[str, Any]) -> dict[str, Allowed]:
    """Those of the class that the node describes."""
    made = class_of(node)
    return _rules_of(made) if made else {}


def _rules_of(made: type) -> dict[str, Allowed]:
    """Those of a class, and of the classes it is made from."""
    found: dict[str, Allowed] = {}
    for kind in reversed(made.__mro__):
        found |= vars(kind).get("allowed", {})
    return found


def _values(node: Any, names: list[str]) -> Iterator[tuple[str, Any]]:
    """Path and value of what `names` lead to, if it is there."""
    if not names:
        yield "", node
    elif isinstance(node, Mapping):
        for key in node if names[0] == "*" else [names[0]]:
            if key in node:
                for path, value in _values(node[key], names[1:]):
                    yield f"{key}.{path}" if path else str(key), value
