import pytest
import torch

from diffcontrol.diffusion.transformer import Transformer

D = 4


@pytest.fixture
def x_t():
    return torch.randn(3, 5, D, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def t():
    return torch.tensor([0.2, 0.5, 0.8])


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    network = Transformer(inputs=D, width=16, depth=2, heads=2, positions=9)
    for block in network.blocks:  # as after training: at first time has no effect
        torch.nn.init.normal_(block.modulation.weight, std=0.1)
    return network.eval()


def test_transformer_reads_texts_up_to_its_length(transformer, x_t, t):
    assert transformer(x_t, t).shape == (3, 5, 16)
    assert transformer(torch.randn(2, 9, D), t[:2]).shape == (2, 9, 16)


def test_transformer_knows_the_time_of_every_row(transformer, x_t):
    same = x_t[:1].expand(3, 5, D)
    hidden = transformer(same, torch.tensor([0.2, 0.8, 0.2]))
    torch.testing.assert_close(hidden[0], hidden[2])
    assert (hidden[0] - hidden[1]).abs().max() > 1e-2
    close = transformer(same, torch.tensor([0.001, 0.002, 0.001]))  # the released 2,000 steps lie 0.0005 apart
    assert (close[0] - close[1]).abs().max() > 1e-3


def test_transformer_looks_both_ways_and_knows_places(transformer, x_t, t):
    hidden = transformer(x_t, t)
    later, earlier = x_t.clone(), x_t.clone()
    later[:, 4] += 1
    earlier[:, 0] += 1
    assert (transformer(later, t) - hidden)[:, 0].abs().max() > 1e-3
    assert (transformer(earlier, t) - hidden)[:, 4].abs().max() > 1e-3
    assert (transformer(x_t.flip(1), t).flip(1) - hidden).abs().max() > 1e-3


def test_rows_do_not_see_each_other(transformer, x_t, t):
    torch.testing.assert_close(transformer(x_t, t)[1:2], transformer(x_t[1:2], t[1:2]))
