"""Matrices of one shape step together as torch's own optimiser steps them one by one."""

import torch
from muon import Muon, orthogonal


SHAPES = [(8, 8), (16, 8), (8, 8), (8, 32), (16, 8)]
SETTINGS = {"lr": 0.05, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}


def stepped(take_step, optimizer_class, count=3, **settings):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    optimizer = optimizer_class(weights, **{**SETTINGS, **settings})
    for step in range(count):
        for number, each in enumerate(weights):
            # One matrix has no gradient in the second step.
            is_left_out = step == 1 and number == 2
            each.grad = None if is_left_out else torch.randn(each.shape, generator=generator)
        take_step(optimizer)
    return weights, optimizer


def test_together_as_one_by_one():
    for settings in ({}, {"nesterov": False}, {"adjust_lr_fn": None}, {"weight_decay": 0.0}):
        start, _ = stepped(lambda each: each.step(), torch.optim.Muon, count=0)
        expected, _ = stepped(lambda each: each.step(), torch.optim.Muon, **settings)
        found, _ = stepped(lambda each: each.step(), Muon, **settings)
        for before, one, other in zip(start, found, expected):
            # torch's is in bfloat16.
            assert float((one - other).norm() / (other - before).norm()) < 2e-2


def test_state_is_torchs_own():
    _, optimizer = stepped(lambda each: each.step_together(), Muon)
    weights, other = stepped(lambda each: each.step(), torch.optim.Muon, count=1)
    other.load_state_dict(optimizer.state_dict())
    assert {name for each in other.state.values() for name in each} == {"momentum_buffer"}


def test_on_the_cpu_the_iteration_is_in_float32():
    """Where bfloat16 is emulated it takes many times as long."""
    matrices = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(0))
    group = {"ns_coefficients": (3.4445, -4.775, 2.0315), "ns_steps": 5, "eps": 1e-7}
    found = orthogonal(matrices, group)
    a, b, c = group["ns_coefficients"]
    expected = matrices.double() / matrices.double().norm(dim=(1, 2), keepdim=True)
    for _ in range(group["ns_steps"]):
        gram = expected @ expected.mT
        expected = a * expected + (b * gram + c * gram @ gram) @ expected
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(orthogonal(matrices.mT, group), found.mT)
