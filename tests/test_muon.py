"""Muon in fp32 takes the steps of torch's own, which orthogonalises in bf16."""

import copy

import pytest
import torch
from torch import nn

from diffcontrol import hardware
from diffcontrol.muon import Muon, orthogonalised

SETTINGS = {"coefficients": (3.4445, -4.775, 2.0315), "steps": 5, "eps": 1e-7}


@pytest.fixture(params=[(6, 16), (16, 6), (8, 8)], ids=str)
def layers(request: pytest.FixtureRequest) -> nn.ParameterList:
    torch.manual_seed(0)
    return nn.ParameterList([nn.Parameter(torch.randn(request.param)) for _ in range(3)])


def test_muon_in_fp32_steps_as_torch_does(layers: nn.ParameterList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda device: False)
    theirs = copy.deepcopy(layers)
    optimisers = [Muon(list(layers), lr=0.02), torch.optim.Muon(list(theirs), lr=0.02)]
    for step in range(4):
        torch.manual_seed(step)
        for p, q in zip(layers, theirs):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    for p, q in zip(layers, theirs):
        torch.testing.assert_close(p, q, atol=2e-3, rtol=0)
    for p, q in zip(*(optimiser.state_dict()["state"].values() for optimiser in optimisers)):
        torch.testing.assert_close(p, q)


def test_orthogonalised_matrices_keep_their_singular_vectors(layers: nn.ParameterList) -> None:
    matrices = torch.stack([p.detach() for p in layers])
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ orthogonalised(matrices, **SETTINGS) @ vh.mT
    off_diagonal = inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))
    assert off_diagonal.abs().max() < 1e-4
    assert ((inner.diagonal(dim1=1, dim2=2) > 0.3) & (inner.diagonal(dim1=1, dim2=2) < 1.3))[s > 0.3].all()
