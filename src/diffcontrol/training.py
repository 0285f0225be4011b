"""What all trained models share: batches and noise that are functions of (model seed, step), optimiser, averaging."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from diffcontrol import shares
from diffcontrol.allowed import Allowed, Rules, arguments_of, number, whole
from diffcontrol.batches import Steps, loader
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import seed_of
from diffcontrol.optim import Optim, optimiser
from diffcontrol.refused import Refused

SIZES = {"embedding": whole(1), "width": whole(1), "depth": whole(1), "heads": whole(1), "dropout": number(0, below=1),
         "kernel": Allowed("an odd number from 1", lambda value: whole(1).test(value) and value % 2 == 1)}  # fmt: skip


def sizes(*names: str) -> Allowed:
    """The rule of a network's sizes: a dictionary of these of SIZES, where attention heads have equal shares of the
    width."""

    def test(value: Any) -> bool:
        return isinstance(value, Mapping) and set(value) <= set(names) and shared_out(value)

    heads = ", with a width that is a multiple of heads" if "heads" in names else ""
    return Allowed(f"a dictionary of {', '.join(names)}{heads}", test)


def shared_out(given: Mapping[str, Any]) -> bool:
    """Whether the width is a multiple of the heads, where both are numbers."""
    width, heads = given.get("width"), given.get("heads")
    return not isinstance(width, int) or not isinstance(heads, int) or heads < 1 or width % heads == 0


class Trainable(pl.LightningModule):
    """Base of everything the store trains. A recipe is the constructor's arguments; `optim` marks it as trainable.

    A parent model (the language model of a classifier, say) is an argument too, kept frozen as an attribute
    of the same name; its weights are not stored again.
    """

    allowed: ClassVar[Rules] = {
        **{f"optim.{name}": rule for name, rule in Optim.allowed.items()},
        **{f"{prefix}{name}": rule for prefix in ("", "model.", "encoder.") for name, rule in SIZES.items()},
        "optim": arguments_of(Optim),
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

    def running(self) -> Sequence[nn.Module]:
        """The modules that run when it is asked, for its size in tables: all of it, unless it was trained on a model of
        which it runs a part alone."""
        return [self]

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
        return loader(steps, self.collate)

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
        both = optimiser(o, self.parameters(), hidden)
        return [both], [{"scheduler": LambdaLR(both, o.factor), "interval": "step"}]
