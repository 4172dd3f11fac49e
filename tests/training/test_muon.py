"""Matrices of one shape step together as torch's own optimiser steps them one by one."""

import torch
from muon import Muon


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
        found, _ = stepped(lambda each: each.step_together(), Muon, **settings)
        for before, one, other in zip(start, found, expected):
            # bfloat16 inside, whose sums are rounded in another order.
            assert float((one - other).norm() / (other - before).norm()) < 2e-2


def test_state_is_torchs_own():
    _, optimizer = stepped(lambda each: each.step_together(), Muon)
    weights, other = stepped(lambda each: each.step(), torch.optim.Muon, count=1)
    other.load_state_dict(optimizer.state_dict())
    assert {name for each in other.state.values() for name in each} == {"momentum_buffer"}


def test_on_the_cpu_it_is_torchs_own_to_the_bit():
    expected, _ = stepped(lambda each: each.step(), torch.optim.Muon)
    found, _ = stepped(lambda each: each.step(), Muon)
    assert all(torch.equal(one, other) for one, other in zip(found, expected))
