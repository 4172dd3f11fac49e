"""Laptops: an accelerator that knows no float64, a system that does not tell which cores are ours."""

import os

import devices
import finetune
import pytest
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


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")),
    ],
)
def test_steps_are_sent_ahead_whole_and_in_order(device):
    steps = [
        {"state": number, "micro_batches": [{"flux": torch.full((1, 999, 32), float(number)), "survey": ["sdss"]}] * 2}
        for number in range(5)
    ]
    found = list(devices.on_device(iter(steps), torch.device(device)))
    assert [step["state"] for step in found] == [0, 1, 2, 3, 4]
    for number, step in enumerate(found):
        assert len(step["micro_batches"]) == 2
        for batch in step["micro_batches"]:
            assert batch["flux"].device.type == device and batch["survey"] == ["sdss"]
            assert bool((batch["flux"] == number).all())
