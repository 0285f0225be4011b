"""What all trained models share: batches and noise that are functions of (model seed, step), optimiser, averaging."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, Sampler

from diffcontrol import shares
from diffcontrol.allowed import Allowed, Rules, number, one_of, whole
from diffcontrol.data.corpus import Corpus
from diffcontrol.muon import Muon
from diffcontrol.refused import Refused


@dataclass(frozen=True)
class Optim:
    """How a model is trained; part of its recipe.

    Fields: `steps` of `batch_size` texts; AdamW (`betas`, `weight_decay` of matrices) at `lr` after `warmup` steps,
    falling to 0 along `decay` (cosine or linear); `muon`: the learning rate of Muon, which then trains the weight
    matrices of the hidden layers in AdamW's stead, on the same course (0: AdamW trains everything); gradient norm
    clipped at `clip` (0: not); weights averaged with decay `ema` (0: not); a checkpoint every `checkpoint` steps.
    """

    steps: int
    batch_size: int
    lr: float
    muon: float = 0.0
    warmup: int = 100
    decay: str = "cosine"
    betas: Sequence[float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.0
    checkpoint: int = 200

    allowed: ClassVar[Rules] = {
        "steps": whole(1), "batch_size": whole(1), "checkpoint": whole(1), "lr": number(above=0), "muon": number(0),
        "warmup": number(0), "weight_decay": number(0), "clip": number(0), "ema": number(0, below=1),
        "decay": one_of("cosine", "linear"),
        "betas": Allowed("two numbers from 0 to below 1", lambda value: _two(value, number(0, below=1))),
    }  # fmt: skip

    def __post_init__(self) -> None:
        for name, rule in self.allowed.items():
            rule.check(f"optim.{name}", getattr(self, name))

    def factor(self, step: int) -> float:
        """Learning rate at `step` as a fraction of lr."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        done = min(1.0, step / self.steps)
        fall = 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item()) if self.decay == "cosine" else 1 - done
        return rise * fall


def _two(value: Any, rule: Allowed) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(rule.test, value))


def seed_of(*parts: int) -> int:
    """One seed of several numbers (seed, step, …), well spread."""
    mixed = 0
    for part in parts:
        mixed = (mixed * 6364136223846793005 + part + 1442695040888963407) % 2**63
        mixed = ((mixed >> 29) ^ mixed) * 0x9E3779B97F4A7C15 % 2**63
    return mixed


class Steps(Sampler[list[int]]):
    """Which texts each step reads, as a function of (seed, step) alone.

    Step s draws from `pools[s % len(pools)]` without replacement until the pool is used up. `bucket` > 1 sorts that
    many batches' texts by `lengths` before cutting them, so that a batch holds texts of like length.
    An epoch of Lightning's is `per_epoch` steps, the distance between two checkpoints. It begins after the steps
    `taken` so far; Lightning's count of epochs is not looked at, in a resumed run it counts one too many.
    """

    taken: Callable[[], int] = staticmethod(lambda: 0)

    def __init__(self, pools: Sequence[Tensor], batch_size: int, seed: int, steps: int, per_epoch: int,
                 lengths: Tensor | None = None, bucket: int = 1):  # fmt: skip
        self.pools, self.batch_size, self.seed, self.lengths, self.bucket = pools, batch_size, seed, lengths, bucket
        self.steps, self.per_epoch = steps, per_epoch
        self._kept, self._kept_for = torch.empty(0), (-1, -1)

    def __len__(self) -> int:
        return max(0, min(self.per_epoch, self.steps - self.taken()))

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(first := self.taken(), first + len(self)):
            yield self.indices(step)

    def indices(self, step: int) -> list[int]:
        """Indices of the texts of this step."""
        which, turn = step % len(self.pools), step // len(self.pools)
        group, place = divmod(turn, self.bucket)
        if self._kept_for != (which, group):  # steps walk through a group in order
            self._kept, self._kept_for = self._group(which, group), (which, group)
        return self._kept[place].tolist()

    def _group(self, which: int, group: int) -> Tensor:
        """The texts of `bucket` batches, [bucket batch_size]."""
        pool, size = self.pools[which], self.bucket * self.batch_size
        places = torch.arange(group * size, (group + 1) * size)
        drawn = torch.cat([
            pool[self._permutation(len(pool), which, int(turn))[places[places // len(pool) == turn] % len(pool)]]
            for turn in (places // len(pool)).unique()
        ])  # fmt: skip
        batches = drawn.view(self.bucket, self.batch_size)
        if self.bucket > 1:
            assert self.lengths is not None
            batches = drawn[self.lengths[drawn].argsort(stable=True)].view_as(batches)
            batches = batches[self._permutation(self.bucket, which, -1 - group)]
        return batches

    def _permutation(self, size: int, which: int, turn: int) -> Tensor:
        return torch.randperm(size, generator=torch.Generator().manual_seed(seed_of(self.seed, which, turn)))


SIZES = {"embedding": whole(1), "width": whole(1), "depth": whole(1), "heads": whole(1), "dropout": number(0, below=1),
         "kernel": Allowed("an odd number from 1", lambda value: whole(1).test(value) and value % 2 == 1)}  # fmt: skip


class Together(Optimizer):
    """Optimisers, each of parameters of its own, as one: Lightning takes one step with one optimiser.

    It also keeps from Lightning that fused AdamW could unscale gradients by itself, for then they could not be clipped.
    """

    def __init__(self, parts: Sequence[Optimizer]):
        self.parts = list(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        with torch.enable_grad():
            loss = closure() if closure else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for part, own in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(own)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


class Trainable(pl.LightningModule):
    """Base of everything the store trains. A recipe is the constructor's arguments; `optim` marks it as trainable.

    A parent model (the language model of a classifier, say) is an argument too, kept frozen as an attribute
    of the same name; its weights are not stored again.
    """

    allowed: ClassVar[Rules] = {
        **{f"optim.{name}": rule for name, rule in Optim.allowed.items()},
        **{f"{prefix}{name}": rule for prefix in ("", "model.", "encoder.") for name, rule in SIZES.items()},
        "model_seed": whole(), "window": whole(0), "states": whole(1), "samples": whole(1), "length": whole(1),
    }  # fmt: skip

    def __init__(self, data: Corpus, optim: Mapping[str, Any], model_seed: int = 0):
        super().__init__()
        self.corpus, self.options, self.model_seed = data, Optim(**optim), model_seed

    def collate(self, indices: list[int]) -> Any:
        """The batch that these training texts make; word ids [B L] unless overridden."""
        return self.corpus.ids["train"][indices]

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """The terms of the loss by name; their sum is minimised. Randomness from torch's global generator."""
        raise NotImplementedError

    def weight(self, batch: Any) -> Any:
        """How much a part of a batch counts beside other parts, of which several devices have one each: the number that
        the loss is a mean over. Rows, unless overridden by models whose loss is a mean over words."""
        return shares.count(batch)

    def steps(self) -> Steps:
        """The texts of every step; overridden by models that read texts in windows or by length."""
        return self._steps([torch.arange(len(self.corpus.splits["train"]))])

    def _steps(self, pools: Sequence[Tensor], **kwargs: Any) -> Steps:
        o = self.options
        return Steps(pools, o.batch_size, self.model_seed, o.steps, o.checkpoint, **kwargs)

    def train_alone(self) -> Self:
        """Sets it to training and its parents to evaluation: a model that is only read drops nothing out."""
        self.train()
        for parent in (child for child in self.children() if isinstance(child, Trainable)):
            parent.eval()
        return self

    def compilable(self) -> list[nn.Module]:
        """Its networks whose forward pass `torch.compile` may replace: the children that have modules within them.

        The module itself is left alone, since it counts token evaluations in a plain number, and compiled code would
        be compiled anew whenever that number changed.
        """
        return [child for child in self.children() if not isinstance(child, Trainable) and any(child.children())]

    def train_dataloader(self) -> DataLoader:
        """The batches up to the next checkpoint; Lightning calls them an epoch, and asks again for the next ones."""
        steps = self.steps()
        steps.taken = lambda: self.global_step
        return DataLoader(Batches(self), sampler=steps, batch_size=None, collate_fn=_as_it_is)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        # Dropout and noise of a step are the same in a resumed run as in an unbroken one.
        torch.manual_seed(seed_of(self.model_seed, self.global_step, 0))
        terms = self._own_losses(batch)
        loss = torch.stack(list(terms.values())).sum()
        if self.global_step % 20 == 0 and not torch.isfinite(self.trainer.strategy.reduce(loss.detach())):
            raise Refused(
                f"{type(self).__name__}: the loss is {loss.item()} at step {self.global_step}; "
                f"set a lower optim.lr (it is {self.options.lr})"
            )
        several = self.trainer.world_size > 1
        self.log("loss", loss, prog_bar=True, sync_dist=several)
        self.log_dict({f"loss/{name}": term for name, term in terms.items()}, sync_dist=several)
        return loss

    def _own_losses(self, batch: Any) -> dict[str, Tensor]:
        """The terms of the loss on this process' rows of a batch, so that their mean over all processes, which is what
        DDP makes of them, is the loss of the batch."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        if world == 1:
            return self.losses(batch)
        own = shares.rows(batch, rank, world)
        with shares.sharing(rank, world, shares.count(batch)):
            terms = self.losses(own)
        counts = world * self.weight(own) / self.weight(batch)
        return {name: term * counts for name, term in terms.items()}

    def hidden(self) -> Sequence[Tensor]:
        """The weight matrices of the hidden layers, which Muon may train; a model that has some names them."""
        return ()

    def configure_optimizers(self) -> Any:
        o = self.options
        hidden = [p for p in self.hidden() if p.requires_grad] if o.muon else []
        if o.muon and not hidden:
            raise Refused(f"optim.muon={o.muon}: {type(self).__name__} has no hidden layers for it; allowed is 0")
        known = {id(p) for p in hidden}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        matrices, others = [p for p in rest if p.ndim > 1], [p for p in rest if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": o.weight_decay}, {"params": others, "weight_decay": 0.0}]
        parts: list[Optimizer] = [torch.optim.AdamW(groups, lr=o.lr, betas=(o.betas[0], o.betas[1]), fused=True)]
        if hidden:
            parts.append(Muon(hidden, lr=o.muon, weight_decay=o.weight_decay))
        optimiser = Together(parts)
        return [optimiser], [{"scheduler": LambdaLR(optimiser, o.factor), "interval": "step"}]


def _as_it_is(batch: Any) -> Any:
    """In place of PyTorch's conversion, which makes lists of tuples: a list is rows, a tuple parts of a batch."""
    return batch


class Batches(Dataset):
    """Indices of texts → the batch that a model makes of them."""

    def __init__(self, module: Trainable):
        self.module = module

    def __getitem__(self, indices: list[int]) -> Any:
        return self.module.collate(indices)


def averaging(decay: float) -> WeightAveraging:
    """Exponential moving average of the weights, short at first so that a brief training is not its own start."""

    def average(mean: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        kept = min(decay, (1 + int(count)) / (10 + int(count)))
        return mean.lerp(new.to(mean.dtype), 1 - kept)

    return WeightAveraging(use_buffers=False, avg_fn=average)
