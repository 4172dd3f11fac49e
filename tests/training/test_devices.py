"""Laptops: an accelerator that knows no float64, a system that does not tell which cores are ours."""

import os

import devices
import finetune
import torch
from recipe import ROOT


def test_apples_gpu_is_left_alone(monkeypatch):
    config = str(ROOT / "training" / "recipes" / "finetune_class.yaml")
    assert not devices.needs_cpu() and not finetune.parse_arguments(["--config", config])[1].use_cpu
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    assert devices.needs_cpu() and finetune.parse_arguments(["--config", config])[1].use_cpu
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert not devices.needs_cpu()


def test_cores_are_counted_where_nobody_tells_which(monkeypatch):
    assert 1 <= devices.num_cores() <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert devices.num_cores() == os.cpu_count()
