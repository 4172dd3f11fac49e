"""How fast a run is, in spectra, in tokens, and as a part of what the machine can multiply."""

import time
from collections.abc import Iterable

import torch


def step_flops(config, lengths: Iterable[int], visible: Iterable[int], asked: Iterable[int]) -> int:
    """Floating-point operations of the matrix products in a training step: forward, and twice that backward.

    Args:
        config: The model's.
        lengths, visible, asked: Patches of each spectrum: valid ones, those the encoder sees, those the decoder is
            asked for.
    """
    width, inner, latents = config.hidden_size, config.intermediate_size, config.num_latents
    pixels, functions = config.patch_size, 2 * config.num_pixel_periods
    inputs = 2 * pixels if config.patch_inputs == "flux_and_error" else 3 * pixels + 2 + functions
    has_levels = config.patch_outputs == "level_and_residual"
    outputs = pixels + (1 + functions if has_levels else 0)
    products = 0
    for length, seen, target in zip(lengths, visible, asked, strict=True):
        tokens = seen + latents
        context = latents if config.decoder_reads == "latents" else tokens
        products += 2 * config.num_periods * width * length + inputs * width * seen
        products += config.num_hidden_layers * tokens * (4 * width**2 + 2 * width * inner + 2 * tokens * width)
        products += target * (width**2 + outputs * width)
        products += config.num_decoder_layers * target * (2 * width**2 + 2 * width * inner + 2 * context * width)
        products += config.num_decoder_layers * context * 2 * width**2
    return 3 * 2 * products


@torch.no_grad()
def matmul_peak(
    config, device: torch.device, dtype: torch.dtype, num_tokens: int = 4096, seconds: float = 0.3
) -> float:
    """The fastest that this machine multiplies matrices of the model's own shapes, in floating-point operations per
    second: the best of many timings."""
    best = 0.0
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


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Meter:
    """Counts what was trained on since it was last read."""

    def __init__(self, config, peak: float, num_processes: int):
        self.config, self.peak, self.num_processes = config, peak, num_processes
        self.reset()

    def reset(self) -> None:
        self.spectra = self.tokens = self.flops = 0
        self.since = time.perf_counter()

    def count(self, micro_batches: list[dict]) -> None:
        for batch in micro_batches:
            lengths = batch["lengths"]
            visible, asked = (
                [int(part.sum()) for part in each[0].split(lengths)]
                for each in (~batch["masked_patches"], batch["target_patches"])
            )
            self.spectra += len(lengths)
            self.tokens += sum(lengths)
            self.flops += step_flops(self.config, lengths, visible, asked)

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
