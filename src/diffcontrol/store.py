"""Store: trained models and annotated data, addressed by the recipe that made them.

A recipe is a config node with `_target_` (a Trainable) and `optim`, or one of a Stage. Its address is the hash of the
resolved node, in which every data set is replaced by its content's digest; where things lie, devices and loggers do not
enter. A finished folder holds config.yaml, provenance.json and weights.safetensors or a stage's files; in the making it
is a draft, from which a killed run resumes.
"""

import hashlib
import json
import logging
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from diffcontrol.callbacks import Bar, Saves
from diffcontrol.logger import close
from diffcontrol.stage import Clock, Content, Shared, Stage, once
from diffcontrol.training import Trainable, averaging, seed_of

log = logging.getLogger(__name__)


def is_recipe(node: Any) -> bool:
    """Whether a config node describes something to be trained."""
    return isinstance(node, Mapping) and "_target_" in node and "optim" in node


def _class(node: Mapping[str, Any]) -> type | None:
    """The class a node makes an object of, if it makes one."""
    made = get_object(node["_target_"]) if "_target_" in node and not node.get("_partial_") else None
    return made if isinstance(made, type) else None


def _is(node: Any, kind: type) -> bool:
    """Whether a node describes an object of that kind, and nothing to be trained."""
    made = _class(node) if isinstance(node, Mapping) and not is_recipe(node) else None
    return made is not None and issubclass(made, kind)


def hardware_has_bf16() -> bool:
    """bf16 is emulated, and very slow, on processors without instructions for it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class Store:
    """Trains what is missing, loads what is there.

    root: folder of models; pretrained: a second, read-only one, searched first; trainer: node of a Lightning Trainer,
    with `precision: auto` and `compile` understood here; logger: name of a training → Lightning logger (or None).
    """

    def __init__(self, root: str | Path, pretrained: str | Path | None = None, trainer: Mapping[str, Any] | None = None,
                 logger: Callable[[str], Any] | None = None):  # fmt: skip
        self.root = Path(root).absolute()
        self.roots = [Path(pretrained).absolute(), self.root] if pretrained else [self.root]
        self.trainer, self.logger = dict(trainer or {}), logger
        self.built: dict[str, Any] = {}  # what this process has made, by its canonical text
        self.trained: list[str] = []  # addresses trained by this process
        self.device = torch.device("cuda" if self._on_cuda() else "cpu")

    def _on_cuda(self) -> bool:
        return torch.cuda.is_available() and self.trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda")

    def build(self, node: Any) -> Any:
        """The object a (resolved) node describes; recipes within it are trained or loaded, data sets read once."""
        if isinstance(node, list | tuple):
            return [self.build(item) for item in node]
        if not isinstance(node, Mapping):
            return node
        if "_target_" not in node:
            return {key: self.build(value) for key, value in node.items()}
        if is_recipe(node):
            return self.fit(node)
        if not _is(node, Shared):
            return self._construct(node)
        text = json.dumps(node, sort_keys=True)
        if text not in self.built:
            self.built[text] = made = self._construct(node)
            if isinstance(made, Stage):
                made.folder = lambda part: self._make(node, made, part)
        return self.built[text]

    def _construct(self, node: Mapping[str, Any]) -> Any:
        late = getattr(_class(node), "late", ())
        arguments = {
            key: (lambda value=value: self.build(value)) if key in late else self.build(value)
            for key, value in node.items()
            if not key.startswith("_")
        }
        special = {key: value for key, value in node.items() if key.startswith("_")}
        try:
            return instantiate(special, **arguments, _recursive_=False, _convert_="object")
        except InstantiationException as error:  # what a constructor refuses, in its own sentence
            if isinstance(error.__cause__, ValueError | FileNotFoundError):
                raise error.__cause__ from None
            raise

    def canonical(self, node: Any) -> Any:
        """The node as it enters an address: data sets by what they hold."""
        if isinstance(node, list | tuple):
            return [self.canonical(item) for item in node]
        if not isinstance(node, Mapping):
            return node
        if _is(node, Content) and not _is(node, Stage):
            made = self.build(node)
            plain = {key: self.canonical(value) for key, value in node.items() if key not in made.lies_in}
            return plain | {"digest": made.digest}
        return {key: self.canonical(value) for key, value in node.items()}

    def address(self, recipe: Mapping[str, Any]) -> str:
        """Name-hash under which the model of this recipe lies."""
        text = json.dumps(self.canonical(recipe), sort_keys=True)
        return f"{recipe['_target_'].rsplit('.', 1)[-1]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def _make(self, node: Mapping[str, Any], stage: Stage, part: str) -> Path:
        """The finished folder of a stage's part."""
        own = {key: value for key, value in node.items() if key == part or key not in stage.parts} | {"_part_": part}
        address = self.address(own)

        def make(draft: Path) -> None:
            clock = Clock(draft)
            try:
                stage.make(part, draft)
            finally:
                clock.write()

        return self._find(address) or self._once(own, address, make)

    def addresses(self, node: Any, prefix: str = "") -> dict[str, str]:
        """Addresses of all recipes within a node, by their dotted keys."""
        found = {}
        if isinstance(node, Mapping):
            for key, value in node.items():
                name = f"{prefix}.{key}" if prefix else str(key)
                if is_recipe(value):
                    found[name] = self.address(value)
                else:
                    found |= self.addresses(value, name)
        return found

    def fit(self, recipe: Mapping[str, Any]) -> Trainable:
        """The trained model of a recipe, in evaluation mode, its weights frozen."""
        address = self.address(recipe)
        if address not in self.built:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(recipe.get("model_seed", 0)))  # initial weights, too, belong to the recipe
                module = self._construct(recipe)
            folder = self._find(address) or self._once(
                recipe, address, lambda draft: self._train(recipe, address, module, draft),
                lambda draft: self._run(module, draft, address),
            )  # fmt: skip
            self._load(module, folder, recipe)
            self.built[address] = module.eval().requires_grad_(False).to(self.device)
        return self.built[address]

    def _find(self, address: str) -> Path | None:
        return next((root / address for root in self.roots if (root / address).is_dir()), None)

    def _once(self, recipe: Mapping[str, Any], address: str, make: Callable[[Path], None],
              others: Callable[[Path], None] | None = None) -> Path:  # fmt: skip
        def documented(draft: Path) -> None:
            (draft / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(self.canonical(recipe))))
            make(draft)
            seconds = float((draft / "seconds").read_text())
            (draft / "provenance.json").write_text(json.dumps(self._provenance(recipe, seconds), indent=1))
            (draft / "seconds").unlink()

        folder, made = once(self.root, address, documented, others)
        if made:
            self.trained.append(address)
        return folder

    def _train(self, recipe: Mapping[str, Any], address: str, module: Trainable, draft: Path) -> None:
        self._run(module, draft, address)
        own = _own(module, recipe)
        if not all(weight.isfinite().all() for weight in own.values()):
            steps, lr = module.options.steps, module.options.lr
            raise FloatingPointError(f"{address}: its weights are no numbers at step {steps}; lower optim.lr={lr}")
        save_file(own, draft / "weights.safetensors")
        (draft / "last.ckpt").unlink(missing_ok=True)

    def _run(self, module: Trainable, draft: Path, address: str) -> None:
        options = {"accelerator": "auto", "devices": 1, **self.trainer}
        if options.pop("compile", False):
            module.compile()
        if options.get("precision", "auto") == "auto":
            options["precision"] = "bf16-mixed" if hardware_has_bf16() else "32-true"
        own = module.options
        logger = self.logger(address) if self.logger else None
        mean = averaging(own.ema) if own.ema else None
        trainer = instantiate(
            {"_target_": "pytorch_lightning.Trainer", **options},
            max_steps=own.steps, max_epochs=-1, gradient_clip_val=own.clip or None,
            logger=logger or False,
            callbacks=[
                Saves(draft), *([Bar(address)] if options.get("enable_progress_bar", True) else []),
                *([mean] if mean else []),
            ],
            enable_model_summary=False, use_distributed_sampler=False, log_every_n_steps=50,
        )  # fmt: skip
        checkpoint = draft / "last.ckpt"
        resumed = checkpoint if checkpoint.exists() else None
        if resumed:
            log.info("%s: resuming from its checkpoint", address)
        module.train()
        for parent in (child for child in module.children() if isinstance(child, Trainable)):
            parent.eval()  # no dropout in what is read
        trainer.fit(module, datamodule=module.corpus, ckpt_path=resumed, weights_only=False)
        if logger:
            close(logger)
        if trainer.interrupted or trainer.global_step < own.steps:
            raise KeyboardInterrupt(f"{address}: stopped at step {trainer.global_step} of {own.steps}")
        if mean:  # Lightning leaves this out where the checkpoint was of the last step
            mean.on_train_end(trainer, module)

    def _provenance(self, recipe: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        packages = ("torch", "pytorch-lightning", "hydra-core", "safetensors")
        return {
            "commit": commit(), "seconds": seconds, "machine": platform.processor() or platform.machine(),
            "cpus": os.cpu_count(), "device": str(self.device), "versions": {p: version(p) for p in packages},
            "parents": {key: self.address(value) for key, value in recipe.items() if is_recipe(value)},
        }  # fmt: skip

    def _load(self, module: Trainable, folder: Path, recipe: Mapping[str, Any]) -> None:
        try:
            weights = load_file(folder / "weights.safetensors")
            if differ := sorted(set(_own(module, recipe)) ^ set(weights)):
                raise ValueError(f"its weights differ in name: {differ[:3]}")
            module.load_state_dict(weights, strict=False)
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{folder} holds no readable model ({error}); remove that folder to train it again"
            ) from error


def _own(module: Trainable, recipe: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Weights of the module without its parents' (stored with them), tied ones once."""
    own, seen = {}, set()
    for name, weight in module.state_dict().items():
        if not is_recipe(recipe.get(name.split(".")[0])) and weight.data_ptr() not in seen:
            seen.add(weight.data_ptr())
            own[name] = weight.contiguous().cpu()
    return own


def commit() -> str:
    """The commit of the code, `-dirty` with uncommitted changes, `unknown` outside a repository."""
    here = Path(__file__).parent
    try:
        out = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], cwd=here,
                             capture_output=True, text=True, check=True)  # fmt: skip
        return out.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
