"""Arguments of config nodes: what their classes take, and nothing else."""

from collections.abc import Callable

import pytest

from diffcontrol import allowed
from diffcontrol.refused import Refused


class Plain:
    def __init__(self, one, two=2):
        self.one, self.two = one, two


class Holder:
    def __init__(self, plain: Plain, maybe: Plain | None = None, make: Callable[..., Plain] = Plain, said: str = ""):
        self.plain, self.maybe, self.make, self.said = plain, maybe, make, said


class Better(Plain):
    pass


class Open:
    def __init__(self, one, **more):
        self.one, self.more = one, more


def made_by_function(one, two=2):
    return one + two


NOTHING = 3


def node(name: str, **arguments) -> dict:
    return {"_target_": name if "." in name else f"{__name__}.{name}", **arguments}


@pytest.mark.parametrize(
    "given",
    [
        node("Plain", one=1),
        node("Plain", one=1, two=None),
        node("Plain", _partial_=True),
        node("Plain", _args_=[1]),
        node("Plain", one=1, _convert_="all"),
        node("Open", one=1, three=3),
        node("made_by_function", one=1),
        node("builtins.dict", anything=1),
        node("torch.device", type="cpu"),
        {"a": [node("Plain", one=node("Open", one=1))]},
        node("Holder", plain=node("Plain", one=1), maybe=None, make=node("Plain", _partial_=True), said=3),
        node("Holder", plain=node("Better", one=1), maybe=node("Better", one=1)),
        node("Holder", plain=node("made_by_function", one=1)),
        node("Holder", plain=Plain(1), make=Plain),
    ],
)
def test_what_a_class_or_function_takes_is_allowed(given):
    allowed.check(given, "here")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (node("Plain", one=1, three=3), r"here\.three=3: Plain has no such argument; it has one, two"),
        (node("Plain", three=3, _partial_=True), r"here\.three=3: Plain has no such argument"),
        (node("Plain", two=1), r"here\.one is missing, and Plain needs it"),
        (node("Open", three=3), r"here\.one is missing, and Open needs it"),
        (node("made_by_function", one=1, three=3), r"here\.three=3: made_by_function has no such argument"),
        ({"a": [node("Plain", one=1), node("Plain", one=1, x=0)]}, r"here\.a\.1\.x=0: Plain has no such argument"),
        (node("Holder", plain=None), r"here\.plain=None: Holder needs a node whose _target_ makes .* of class Plain$"),
        (node("Holder", plain="x"), r"here\.plain='x': Holder needs a node whose _target_ makes .* of class Plain$"),
        (node("Holder", plain=node("Open", one=1)), r"here\.plain\._target_=.*Open: Holder needs .* class Plain$"),
        (
            node("Holder", plain=node("nowhere.Nothing")),
            r"here\.plain\._target_=nowhere.Nothing: it cannot be imported",
        ),
        (node("Holder", plain=Plain(1), maybe=3), r"here\.maybe=3: Holder needs .* class Plain or null"),
        (node("Holder", plain=Plain(1), make="Adam"), r"here\.make='Adam': Holder needs a class or function"),
        (node("NOTHING"), r"here\._target_=.*NOTHING: it makes nothing"),
        (node("nowhere.Nothing"), r"here\._target_=nowhere.Nothing: it cannot be imported \(ModuleNotFoundError"),
        (node("json.Nothing"), r"here\._target_=json.Nothing: it cannot be imported"),
    ],
)
def test_what_it_does_not_take_is_named_with_its_place(given, said):
    with pytest.raises(Refused, match=said):
        allowed.check(given, "here")
