"""Store: trained models and annotated data, each in a folder named by the address of the recipe that made it.

A finished folder holds config.yaml, provenance.json and weights.safetensors or a stage's files. While it is made it is
a draft, from which a killed run resumes.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffcontrol import checkpoints, fitting, trainer_options
from diffcontrol.drafts import Stopwatch, make_once, read_json, write_json
from diffcontrol.draws import seed_of
from diffcontrol.recipe import Shared, Stage, address, canonical, class_of, describes, is_recipe, recipes
from diffcontrol.refused import Refused
from diffcontrol.store import hub, weights
from diffcontrol.store.provenance import CONFIG, PROVENANCE, checksums, commit, provenance, verify
from diffcontrol.training import Trainable

__all__ = ["Store", "commit"]
OF_DRAFTS = (f"{checkpoints.FILE}*", fitting.CONDITIONS, Stopwatch.FILE)  # what only a draft needs


class Store:
    """Trains what is missing, loads what is there.

    root: folder of models; pretrained: a second, read-only one (or hf://owner/name), searched first; trainer: options
    of a Lightning Trainer, as `fitting.fit` takes them; logger: name of a training → Lightning loggers (or None).
    """

    def __init__(self, root: str | Path, pretrained: str | Path | None = None, trainer: Mapping[str, Any] | None = None,
                 logger: Callable[[str], list[Any] | None] | None = None):  # fmt: skip
        self.root = Path(root).absolute()
        self.roots = [_pretrained(pretrained), self.root] if pretrained else [self.root]
        self.trainer, self.logger = dict(trainer or {}), logger
        self.built: dict[str, Any] = {}  # what this process has made, by address or by the text of its node
        self.trained: list[str] = []  # addresses that this process made
        self.device = trainer_options.device_of(self.trainer)
        commit()  # that of the code which runs, whatever is committed meanwhile

    # What a node describes

    def build(self, node: Any) -> Any:
        """The object that a resolved node describes; recipes within it are trained or loaded, data sets read once."""
        if isinstance(node, list | tuple):
            return [self.build(item) for item in node]
        if not isinstance(node, Mapping):
            return node
        if "_target_" not in node:
            return {key: self.build(value) for key, value in node.items()}
        if is_recipe(node):
            return self.fit(node)
        if not describes(node, Shared):
            return self._construct(node)
        text = json.dumps(node, sort_keys=True)
        if text not in self.built:
            self.built[text] = made = self._construct(node)
            if isinstance(made, Stage):
                made.folder = lambda part: self._part(node, made, part)
        return self.built[text]

    def _construct(self, node: Mapping[str, Any]) -> Any:
        deferred = getattr(class_of(node), "deferred_arguments", ())
        arguments = {
            key: (lambda value=value: self.build(value)) if key in deferred else self.build(value)
            for key, value in node.items()
            if not key.startswith("_")
        }
        special = {key: value for key, value in node.items() if key.startswith("_")}
        try:
            return instantiate(special, **arguments, _recursive_=False, _convert_="object")
        except InstantiationException as error:  # what a constructor refuses, in its own sentence
            if isinstance(error.__cause__, Refused):
                raise error.__cause__ from None
            raise

    # Addresses

    def canonical(self, node: Any) -> Any:
        """The node as it enters an address."""
        return canonical(node, self.build)

    def address(self, recipe: Mapping[str, Any]) -> str:
        """The name of the folder that holds what this recipe makes."""
        return address(recipe, self.build)

    def addresses(self, node: Any) -> dict[str, str]:
        """Addresses of all models to be trained within a node, by their dotted keys."""
        return {name: self.address(recipe) for name, recipe in recipes(node).items()}

    def seconds(self, node: Any) -> float:
        """How long the trainings of all models within a node took, and of those that they were trained on, each once;
        a model that this store does not hold counts nothing."""
        waiting, spent = set(self.addresses(node).values()), {}
        while waiting:
            if folder := self._found(name := waiting.pop()):
                said = read_json(folder / PROVENANCE)
                spent[name] = said.get("seconds", 0.0)
                waiting |= set(said.get("parents", {}).values()) - set(spent)
        return sum(spent.values())

    def has(self, recipe: Mapping[str, Any]) -> bool:
        """Whether what this recipe makes is there already."""
        name = self.address(recipe)
        return name in self.built or self._found(name) is not None

    # Making

    def fit(self, recipe: Mapping[str, Any]) -> Trainable:
        """The trained model of a recipe, in evaluation mode, its weights frozen."""
        name = self.address(recipe)
        if name not in self.built:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(recipe.get("model_seed", 0)))  # initial weights, too, belong to the recipe
                module = self._construct(recipe)
            with torch.random.fork_rng(devices=[]):  # it may be a parent, whose child's initial weights come next
                folder = self._found(name) or self._made(
                    recipe, name, lambda draft: self._train(recipe, name, module, draft),
                    lambda draft: fitting.fit(module, draft, name, self.trainer, self.logger),
                )  # fmt: skip
            weights.load(module, folder, recipe)
            self.built[name] = module.eval().requires_grad_(False).to(self.device)
        return self.built[name]

    def _train(self, recipe: Mapping[str, Any], name: str, module: Trainable, draft: Path) -> dict[str, Any]:
        conditions = fitting.fit(module, draft, name, self.trainer, self.logger)
        weights.save(module, draft, recipe)
        return conditions

    def _part(self, node: Mapping[str, Any], stage: Stage, part: str) -> Path:
        """The finished folder of a stage's part."""
        own = {key: value for key, value in node.items() if key not in (*stage.parts, *stage.sources)}
        own |= {"_part_": part, "_content_": stage.content(part)}
        name = self.address(own)

        def make(draft: Path) -> dict[str, Any]:
            stopwatch = Stopwatch(draft)
            try:
                stage.make(part, draft)
            finally:
                stopwatch.write()
            return {"device": str(self.device)}

        folder = self._found(name) or self._made(own, name, make)
        verify(folder)
        return folder

    def _found(self, name: str) -> Path | None:
        """The finished folder of this name.

        Raises:
            Refused: in its place there is something else.
        """
        for folder in (root / name for root in self.roots):
            if folder.is_dir():
                return folder
            if os.path.lexists(folder):
                raise Refused(f"{folder} is a file or a link to nothing, and a folder belongs there; remove it")
        return None

    def _made(self, recipe: Mapping[str, Any], name: str, make: Callable[[Path], dict[str, Any]],
              other_ranks: Callable[[Path], Any] | None = None) -> Path:  # fmt: skip
        def documented(draft: Path) -> None:
            text = OmegaConf.to_yaml(OmegaConf.create(self.canonical(recipe)))
            (draft / CONFIG).write_text(text, encoding="utf-8")
            conditions = make(draft)
            seconds = round(Stopwatch(draft).before, 1)
            parents = {key: self.address(value) for key, value in recipe.items() if is_recipe(value)}
            resumed_from = [file for pattern in OF_DRAFTS for file in draft.glob(pattern)]
            sums = checksums(draft, but=[file.name for file in resumed_from])
            write_json(draft / PROVENANCE, provenance(seconds, conditions, parents, sums))
            for file in resumed_from:  # last, so that whatever fails before costs no training
                file.unlink()

        folder, made_here = make_once(self.root, name, documented, other_ranks)
        if made_here:
            self.trained.append(name)
        return folder


def _pretrained(place: str | Path) -> Path:
    """The folder of models that were trained elsewhere; `hf://owner/name` is downloaded.

    Raises:
        Refused: there is no such folder, and a mistyped one would have everything trained again.
    """
    folder = hub.download(str(place)) if hub.on_hub(place) else Path(place).absolute()
    if not folder.is_dir():
        raise Refused(
            f"paths.pretrained={place}: there is no such folder; set paths.pretrained=null to train every model"
        )
    return folder
