import math
import re
from itertools import chain
from types import SimpleNamespace

import pytest
import torch

from diffcontrol import shares
from diffcontrol.batches import Steps
from diffcontrol.draws import seed_of
from diffcontrol.fitting import Stopped
from diffcontrol.optim import Optim
from diffcontrol.store import Store
from diffcontrol.text import PAD
from diffcontrol.training import Trainable
from tests.fakes import OPTIM, FakeCorpus
from tests.toys import Deep, Faults, Toy, deep, toy

pytestmark = pytest.mark.filterwarnings("ignore:.*Checkpoint directory", "ignore:.*The number of training batches")


def steps(pools, batch_size=3, seed=0, count=20, per_epoch=5, **kwargs) -> Steps:
    return Steps(pools, batch_size, seed, count, per_epoch, **kwargs)


def walked(sampler: Steps, taken: int = 0) -> list[list[int]]:
    """All batches after the steps taken, epoch by epoch, as Lightning reads them."""
    batches: list[list[int]] = []
    sampler.taken = lambda: taken + len(batches)
    while len(sampler):
        found = list(sampler)
        assert len(found) == len(sampler) <= sampler.per_epoch
        batches = batches + found
    return batches


@pytest.mark.parametrize("bucket", [1, 4])
def test_a_resumed_run_reads_what_an_unbroken_one_reads(bucket):
    pools, lengths = [torch.arange(50), torch.arange(20)], torch.randint(3, 9, (50,))
    make = lambda: steps(pools, count=17, lengths=lengths, bucket=bucket)  # noqa: E731
    unbroken = walked(make())
    assert len(unbroken) == 17  # the last epoch is a short one
    for taken in (5, 10, 15, 16, 17):
        assert walked(make(), taken) == unbroken[taken:]


def test_a_pool_is_used_up_before_any_text_repeats():
    drawn = [i for batch in walked(steps([torch.arange(10)])) for i in batch]  # 60 draws, batches across the seams
    for turn in range(6):
        assert sorted(drawn[10 * turn : 10 * turn + 10]) == list(range(10))
    assert drawn[:10] != drawn[10:20]


def test_a_pool_smaller_than_a_batch_is_read_again_within_it():
    (batch,) = walked(steps([torch.arange(3)], batch_size=7, count=1))
    assert sorted(batch[:3]) == sorted(batch[3:6]) == [0, 1, 2]


def test_pools_alternate_and_each_is_used_up():
    everything, short = torch.arange(12), torch.arange(6)
    batches = walked(steps([everything, short], count=8))
    assert sorted(chain.from_iterable(batches[0::2])) == list(range(12))
    assert (
        sorted(chain.from_iterable(batches[1::2][:2]))
        == sorted(chain.from_iterable(batches[1::2][2:]))
        == list(range(6))
    )


def test_a_bucket_holds_texts_of_like_length_and_all_of_them():
    lengths = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    batches = walked(steps([torch.arange(64)], batch_size=8, count=8, lengths=lengths, bucket=8))
    assert sorted(chain.from_iterable(batches)) == list(range(64))
    means = [lengths[batch].float().mean().item() for batch in batches]
    assert all(lengths[batch].max() - lengths[batch].min() == 7 for batch in batches)
    assert means not in (sorted(means), sorted(means)[::-1])  # training does not go from short texts to long ones


def test_processes_share_a_batch_and_its_noise_out():
    batch = {"ids": torch.arange(14).view(7, 2), "targets": (list("abcdefg"), torch.tensor(3))}
    parts = [shares.rows(batch, rank, 3) for rank in range(3)]
    assert [shares.count(part) for part in parts] == [3, 2, 2] and shares.count(batch) == 7
    assert sorted(chain.from_iterable(part["ids"][:, 0].tolist() for part in parts)) == batch["ids"][:, 0].tolist()
    assert [part["targets"][0] for part in parts] == [["a", "d", "g"], ["b", "e"], ["c", "f"]]
    assert all(part["targets"][1] == 3 for part in parts)

    def noise(rank: int, world: int) -> torch.Tensor:
        torch.manual_seed(5)
        own = torch.zeros(len(range(7)[rank::world]), 2)
        with shares.sharing(rank, world, 7):
            return torch.cat([shares.randn_like(own), shares.rand(own)], 1)

    for rank in range(3):
        assert torch.equal(noise(rank, 3), noise(0, 1)[rank::3])


class Words(Trainable):
    """Its loss is a mean over words."""

    def losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"nll": batch[batch != PAD].float().mean()}

    def weight(self, batch: torch.Tensor) -> torch.Tensor:
        return (batch != PAD).sum()


def test_a_batch_reaches_the_loss_as_it_was_collated(tmp_path, monkeypatch):
    seen, old = [], Toy.losses
    monkeypatch.setattr(Toy, "collate", lambda self, indices: (self.corpus.ids["train"][indices], [("a", 1)] * 4))
    monkeypatch.setattr(Toy, "losses", lambda self, batch: seen.append(batch) or old(self, batch[0]))
    Store(tmp_path, trainer={"accelerator": "cpu", "enable_progress_bar": False}).fit(toy(steps=2))
    assert all(isinstance(batch, tuple) and batch[1] == [("a", 1)] * 4 for batch in seen) and len(seen) == 2


def test_the_mean_over_processes_is_the_loss_of_the_batch_however_long_its_texts():
    module = Words(FakeCorpus(), OPTIM)
    batch = torch.tensor([[4, 5, 6, 7], [4, 3, 3, 3], [4, 5, 3, 3], [6, 3, 3, 3], [7, 7, 7, 3]])

    def loss(rank: int, world: int) -> float:
        module._trainer = SimpleNamespace(global_rank=rank, world_size=world)
        return module._own_losses(batch)["nll"].item()

    assert sum(loss(rank, 2) for rank in range(2)) / 2 == pytest.approx(loss(0, 1))


def test_another_seed_is_another_order():
    pools = [torch.arange(40)]
    assert walked(steps(pools, seed=1)) == walked(steps(pools, seed=1)) != walked(steps(pools, seed=2))


def test_seeds_of_neighbours_differ():
    seeds = {seed_of(a, b) for a in range(60) for b in range(60)}
    assert len(seeds) == 3600 and seed_of(1, 2) != seed_of(2, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_an_unknown_decay_is_refused_and_the_known_ones_listed():
    with pytest.raises(ValueError, match=r"decay='step'.*cosine.*linear"):
        Optim(steps=1, batch_size=1, lr=0.1, decay="step")


@pytest.mark.parametrize(("name", "value", "allowed"), [
    ("steps", 0, "whole number from 1"), ("steps", 2.5, "whole number from 1"), ("steps", True, "whole number from 1"),
    ("batch_size", -4, "whole number from 1"), ("checkpoint", 0, "whole number from 1"), ("lr", 0, "number above 0"),
    ("lr", "fast", "number above 0"), ("lr", math.nan, "number above 0"), ("muon", -0.1, "number from 0"),
    ("warmup", -1, "number from 0"), ("weight_decay", -0.1, "number from 0"), ("clip", -1, "number from 0"),
    ("clip", None, "number from 0"), ("ema", 1, "from 0 to below 1"), ("ema", -0.1, "from 0 to below 1"),
    ("betas", [0.9], "two numbers"), ("betas", [0.9, 1.0], "two numbers"), ("betas", ["a", 0.9], "two numbers"),
    ("betas", 0.9, "two numbers"),
])  # fmt: skip
def test_a_number_out_of_bounds_is_refused_by_name(name, value, allowed):
    with pytest.raises(ValueError, match=re.escape(f"optim.{name}={value!r}: ") + ".*" + re.escape(allowed)):
        Optim(**{"steps": 1, "batch_size": 1, "lr": 0.1} | {name: value})


@pytest.mark.parametrize("step", [0, 3, 9, 10, 25, 60, 99, 100])
def test_the_learning_rate_rises_then_falls_to_nothing(step):
    rise = min(1, (step + 1) / 10)
    linear, cosine = (Optim(steps=100, batch_size=1, lr=0.1, warmup=10, decay=decay) for decay in ("linear", "cosine"))
    at_once = Optim(steps=100, batch_size=1, lr=0.1, warmup=0, decay="linear")
    assert linear.factor(step) == pytest.approx(rise * (1 - step / 100))
    assert cosine.factor(step) == pytest.approx(rise * (1 + math.cos(math.pi * step / 100)) / 2, abs=1e-6)
    assert at_once.factor(step) == pytest.approx(1 - step / 100)


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_averaged_weights_are_the_exponential_mean_of_all_steps(tmp_path, decay):
    trained = {}
    for ema in (0.0, decay):
        recipe = toy(ema=ema)
        store = Store(tmp_path, trainer={"enable_progress_bar": False, "accelerator": "cpu", "precision": "32-true"})
        trained[ema] = store.fit(recipe)
    plain, averaged = trained[0.0], trained[decay]
    assert len(plain.history) == 20
    torch.testing.assert_close(plain.history, averaged.history)  # averaging does not disturb training
    mean = plain.history[0]
    for count, weights in enumerate(plain.history[1:], 1):
        kept = min(decay, (1 + count) / (10 + count))
        mean = kept * mean + (1 - kept) * weights
    torch.testing.assert_close(plain.words.weight, plain.history[-1])
    torch.testing.assert_close(averaged.words.weight, mean)
    assert not torch.allclose(averaged.words.weight, plain.words.weight)


def test_only_matrices_decay_and_frozen_weights_are_left_alone():
    model = Toy(FakeCorpus(), toy()["optim"] | {"weight_decay": 0.1})
    model.words.weight.requires_grad_(False)
    (optimiser,), _ = model.configure_optimizers()
    decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert decays == {id(model.mix.weight): 0.1, id(model.mix.bias): 0.0}


def optimised(model: Toy) -> dict[str, set[int]]:
    """Kind of optimiser → the parameters it trains."""
    (optimiser,), _ = model.configure_optimizers()
    return {
        type(part).__name__: {id(p) for group in part.param_groups for p in group["params"]} for part in optimiser.parts
    }


def test_adamw_is_fused_and_alone_unless_muon_is_asked_for():
    model = Deep(FakeCorpus(), deep()["optim"])
    (optimiser,), _ = model.configure_optimizers()
    assert [type(part).__name__ for part in optimiser.parts] == ["AdamW"]
    assert all(group["fused"] for group in optimiser.param_groups)
    assert optimised(model) == {"AdamW": {id(p) for p in model.parameters()}}


def test_muon_trains_hidden_matrices_and_adamw_the_rest():
    model = Deep(FakeCorpus(), deep(muon=0.01)["optim"])
    every, hidden = {id(p) for p in model.parameters()}, {id(p) for p in model.hidden()}
    assert optimised(model) == {"AdamW": every - hidden, "Muon": hidden}
    model.hidden()[0].requires_grad_(False)
    assert optimised(model)["Muon"] == {id(model.hidden()[1])}


def test_muon_without_hidden_matrices_is_refused():
    model = Toy(FakeCorpus(), toy(muon=0.01)["optim"])
    with pytest.raises(ValueError, match=r"optim.muon=0.01: Toy.*allowed is 0"):
        model.configure_optimizers()


def test_both_optimisers_follow_the_course_of_the_learning_rate():
    model = Deep(FakeCorpus(), deep(muon=0.01, steps=10, warmup=2, decay="linear")["optim"])
    (optimiser,), (course,) = model.configure_optimizers()
    before = [p.detach().clone() for p in model.parameters()]
    for step in range(10):
        factor = model.options.factor(step)
        assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.05 * factor] * 2 + [0.01 * factor])
        sum(model.losses(torch.tensor([[1, 2, 3]])).values()).backward()
        optimiser.step()
        course["scheduler"].step()
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    last = [p.detach().clone() for p in model.parameters()]
    optimiser.step()  # the learning rate has come down to nothing
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), last, strict=True))


@pytest.mark.parametrize("at", [3, 13])
@pytest.mark.parametrize("options", [{"muon": 0.01, "ema": 0.9}, {"muon": 0.01}, {}])
def test_a_killed_training_with_either_optimiser_goes_on_bit_by_bit(tmp_path, monkeypatch, options, at):
    trainer = {"enable_progress_bar": False, "accelerator": "cpu", "precision": "32-true"}
    unbroken = Store(tmp_path / "unbroken", trainer=trainer).fit(deep(**options))
    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(Faults, "crash", at)
        Store(tmp_path / "killed", trainer=trainer).fit(deep(**options))
    torch.manual_seed(99)
    resumed = Store(tmp_path / "killed", trainer=trainer).fit(deep(**options))
    assert resumed.seen[0][0] == at // 5 * 5
    for name, weights in unbroken.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def test_a_training_that_a_limit_of_time_stops_goes_on_with_the_same_command(tmp_path, monkeypatch):
    trainer = {"enable_progress_bar": False, "accelerator": "cpu", "precision": "32-true"}
    unbroken = Store(tmp_path / "unbroken", trainer=trainer).fit(deep())
    monkeypatch.setattr(Faults, "sleep", 0.1)
    limited = Store(tmp_path / "limited", trainer=trainer | {"max_time": {"seconds": 1.2}})
    with pytest.raises(Stopped):
        limited.fit(deep())
    monkeypatch.setattr(Faults, "sleep", 0.0)
    resumed = limited.fit(deep())
    assert 0 < resumed.seen[0][0] < 20
    for name, weights in unbroken.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


@pytest.mark.parametrize("muon", [0.0, 0.01])
def test_gradients_are_clipped_under_autocast_too(tmp_path, muon):
    trainer = {"enable_progress_bar": False, "accelerator": "cpu", "precision": "bf16-mixed"}
    assert len(Store(tmp_path, trainer=trainer).fit(deep(muon=muon)).history) == 20
