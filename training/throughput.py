"""How fast a run is, in spectra, in tokens, and as a part of what the machine can multiply."""

import platform
import time
from pathlib import Path

import numpy as np
import torch

from spectral_tokenizer.packing_spectral_tokenizer import selected_lengths


def step_flops(config, visible: list[int], asked: list[int], is_frozen: bool = False) -> int:
    """Floating-point operations of the matrix products in a training step: forward, and twice that backward.

    Args:
        config: The model's.
        visible, asked: Patches of each spectrum that the encoder sees, and that the decoder is asked for.
        is_frozen: Whether the encoder goes forward alone.
    """
    seen, target = (np.array(each, dtype=np.int64) for each in (visible, asked))
    width, inner, latents = config.hidden_size, config.intermediate_size, config.num_latents
    outputs = config.patch_size
    outputs += 1 + 2 * config.num_pixel_periods if config.patch_outputs == "level_and_residual" else 0
    context = np.full_like(seen, latents) if config.decoder_reads == "latents" else seen + latents
    code = target * 2 * config.num_periods * width  # by the encoder's weights
    products = target * (width**2 + outputs * width)
    products += config.num_decoder_layers * target * (2 * width**2 + 2 * width * inner + 2 * context * width)
    read = config.num_decoder_layers * context * 2 * width**2
    # What is not trained goes forward alone, and what reads it sends nothing back.
    encoder, reading = (1, 2) if is_frozen else (3, 3)
    decoder = encoder * code + reading * read + 3 * products
    return encoder * encoding_flops(config, visible) + int(2 * decoder.sum())


def encoding_flops(config, visible: list[int]) -> int:
    """Floating-point operations of the matrix products in embedding spectra, of so many patches each: forward
    alone."""
    seen = np.array(visible, dtype=np.int64)
    width, inner, pixels = config.hidden_size, config.intermediate_size, config.patch_size
    inputs = 2 * pixels if config.patch_inputs == "flux_and_error" else 3 * pixels + 2 + 2 * config.num_pixel_periods
    tokens = seen + config.num_latents
    products = seen * (2 * config.num_periods * width + inputs * width)
    products += config.num_hidden_layers * tokens * (4 * width**2 + 2 * width * inner + 2 * tokens * width)
    return int(2 * products.sum())


@torch.no_grad()
def matmul_peak(
    config, device: torch.device, dtype: torch.dtype, num_tokens: int | None = None, seconds: float = 0.3
) -> float:
    """The fastest that this machine multiplies matrices of the model's own shapes, in floating-point operations per
    second: the best of many timings. `num_tokens` is that of a step: thousands on a CPU, tens of thousands on a
    GPU."""
    best, num_tokens = 0.0, num_tokens or (32768 if device.type == "cuda" else 4096)
    for rows, columns in ((1, 1), (1, 4), (4, 1)):
        inputs = torch.randn(num_tokens, config.hidden_size * rows, device=device, dtype=dtype)
        weight = torch.randn(config.hidden_size * columns, config.hidden_size * rows, device=device, dtype=dtype)
        until, repeats = time.perf_counter() + seconds / 3, 8 if device.type == "cuda" else 1
        while time.perf_counter() < until or best == 0.0:
            synchronise(device)
            start = time.perf_counter()
            for _ in range(repeats):
                torch.nn.functional.linear(inputs, weight)
            synchronise(device)
            operations = 2 * inputs.numel() * weight.shape[0] * repeats
            best = max(best, operations / (time.perf_counter() - start))
    return best


def compile_parts(model, **options) -> None:
    """In place, so that names of weights stay. Layers, which are alike, so that one is compiled for all, and what makes
    vectors of pixels and pixels of vectors. Not the whole: lists of lengths would be compiled for anew at every step, so
    none reaches a part. `options` are those of torch.compile."""
    for part in (model.spectral.embeddings, *model.spectral.layers, *model.decoder.layers):
        part.compile(dynamic=True, **options)
    for owner, method in ((model.spectral, "code_and_basis"), (model.decoder, "answer")):
        setattr(owner, method, torch.compile(getattr(owner, method), dynamic=True, **options))


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe_device(device: torch.device, num_processes: int = 1) -> dict:
    """What a run computes on, for its `metrics.json`."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "device": name, "device_type": device.type, "num_processes": num_processes, "threads": torch.get_num_threads()
    }  # fmt: skip


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


class Meter:
    """Counts what was trained on since it was last read, and what the whole run has cost.

    Args:
        config: The model's.
        peak: Floating-point operations per second of a process's device.
        num_processes: Of the run; each counts its own part, and they are taken to be alike.
        spent: What earlier parts of a resumed run cost: see `spent`.
        is_frozen: Whether the encoder is not trained.
    """

    def __init__(self, config, peak: float, num_processes: int, spent: dict[str, float], is_frozen: bool = False):
        self.config, self.peak, self.num_processes, self.is_frozen = config, peak, num_processes, is_frozen
        self.total_flops, self.start = spent["flops"], time.perf_counter() - spent["seconds"]
        self.reset()

    def reset(self) -> None:
        self.spectra = self.tokens = self.flops = 0
        self.since = time.perf_counter()

    def count(self, micro_batches: list[dict]) -> None:
        for batch in micro_batches:
            lengths = batch["lengths"]
            visible = selected_lengths(~batch["masked_patches"][0], lengths)
            asked = selected_lengths(batch["target_patches"][0], lengths)
            self.spectra += len(lengths)
            self.tokens += sum(lengths)
            flops = step_flops(self.config, visible, asked, self.is_frozen)
            self.flops += flops
            self.total_flops += flops * self.num_processes

    def spent(self) -> dict[str, float]:
        """Wall time of the run so far, validations included, and floating-point operations of its training steps."""
        return {"seconds": time.perf_counter() - self.start, "flops": self.total_flops}

    def read(self) -> dict[str, float]:
        """Spectra and patches per second over all processes, and the part of the matmul peak that is used (MFU)."""
        seconds = time.perf_counter() - self.since
        rates = {
            "spectra_per_second": self.spectra * self.num_processes / seconds,
            "tokens_per_second": self.tokens * self.num_processes / seconds,
            "mfu": self.flops / seconds / self.peak,
        }
        self.reset()
        return rates
