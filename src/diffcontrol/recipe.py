"""Recipes: config nodes that describe what the store makes, and the addresses under which it keeps what it made.

The recipe of a model is a node with `_target_` (the class of a Trainable) and `optim`; that of annotated data describes
a Stage. The address of a recipe is a hash of its canonical form: the resolved node, in which every data set stands with
a digest of its content in place of the folder it lies in. Folders, devices, loggers and how often a training is saved
do not enter an address.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.utils import get_object

#: settings of `optim` that leave no trace in the weights: batches are functions of the step, wherever a run resumes
TRACELESS = ("checkpoint",)


class Shared(ABC):  # noqa: B024  its subclasses have the methods
    """Something that a run builds once and hands to all whose recipes name it."""


class Content(Shared):
    """Something that enters an address by what it holds: a digest, and its arguments but for those that say where it
    lies."""

    #: arguments that say where it lies
    location_arguments: ClassVar[Sequence[str]] = ()

    @property
    @abstractmethod
    def digest(self) -> str:
        """Short hash of the content."""


class Stage(Shared):
    """Something that the store makes in parts, as annotated data are, and keeps. Its address is that of its recipe and
    of what each part is made from, as its own content is not known before it is made.

    The store calls `make` for a part when that part is first asked for. An argument that has the name of a part bears
    on that part alone, and only on what `content` says of it.
    """

    parts: ClassVar[Sequence[str]] = ()
    #: the parts that models learn from; arguments that have the names of other parts enter no model's address
    learned: ClassVar[Sequence[str]] = ()
    #: arguments for which `content` stands in a part's own address
    sources: ClassVar[Sequence[str]] = ()
    #: arguments that only `make` needs; they arrive as functions without arguments, so that nothing is trained or
    #: loaded for parts that are made already
    deferred_arguments: ClassVar[Sequence[str]] = ()
    #: part → its finished folder; set by the store, which makes what is missing
    folder: Callable[[str], Path]

    @abstractmethod
    def content(self, part: str) -> str:
        """Short hash of what the part is made from."""

    @abstractmethod
    def make(self, part: str, draft: Path) -> None:
        """Writes the part's files into the folder `draft`, which holds those of an earlier run that was killed."""


def is_recipe(node: Any) -> bool:
    """Whether a config node describes a model to be trained."""
    return isinstance(node, Mapping) and "_target_" in node and "optim" in node


def class_of(node: Mapping[str, Any]) -> type | None:
    """The class that a node makes an object of; None where it makes none."""
    made = get_object(node["_target_"]) if "_target_" in node and not node.get("_partial_") else None
    return made if isinstance(made, type) else None


def describes(node: Any, kind: type) -> bool:
    """Whether a node describes an object of this kind, other than a model to be trained."""
    made = class_of(node) if isinstance(node, Mapping) and not is_recipe(node) else None
    return made is not None and issubclass(made, kind)


def canonical(node: Any, build: Callable[[Any], Any]) -> Any:
    """The node as it enters an address. `build` makes the objects whose digests stand in it."""
    if isinstance(node, list | tuple):
        return [canonical(item, build) for item in node]
    if not isinstance(node, Mapping):
        return node
    if describes(node, Stage):
        stage: Any = class_of(node)
        node = {key: value for key, value in node.items() if key not in stage.parts or key in stage.learned}
    elif describes(node, Content):
        made = build(node)
        plain = {key: canonical(value, build) for key, value in node.items() if key not in made.location_arguments}
        return plain | {"digest": made.digest}
    if is_recipe(node):
        node = {**node, "optim": {key: value for key, value in node["optim"].items() if key not in TRACELESS}}
    return {key: canonical(value, build) for key, value in node.items()}


def address(recipe: Mapping[str, Any], build: Callable[[Any], Any]) -> str:
    """Name-hash: the name of the folder that holds what this recipe makes."""
    return name_of(canonical(recipe, build))


def name_of(form: Mapping[str, Any]) -> str:
    """The address of a recipe in canonical form."""
    text = json.dumps(form, sort_keys=True)
    return f"{form['_target_'].rsplit('.', 1)[-1]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def recipes(node: Any, prefix: str = "") -> dict[str, Mapping[str, Any]]:
    """All recipes of models within a node, by their dotted keys; those within recipes are left out."""
    found: dict[str, Mapping[str, Any]] = {}
    if isinstance(node, Mapping):
        for key, value in node.items():
            name = f"{prefix}.{key}" if prefix else str(key)
            found |= {name: value} if is_recipe(value) else recipes(value, name)
    return found
