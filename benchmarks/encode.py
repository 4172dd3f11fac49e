"""Embedding with a frozen model: spectra per second of each size, from packed patches and from rows.

    python -m benchmarks.encode [--sizes tiny small base]

Beside `spender` (PyPI), where it is installed: its SDSS encoder without weights, on the same SDSS spectra.
"""

import importlib.util

import numpy as np
import torch

from benchmarks.common import ROOT, build_model, finish, mixed_rows, parser, seconds_of, simulated, summary
from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer.data.packing import as_arrays, rows_of


def encoder(model, rows: list[dict], device: str, from_rows: bool):
    processor = SpectralProcessor(patch_size=model.config.patch_size)
    inputs = processor(rows, packed=True, return_tensors="pt").to(device)

    @torch.no_grad()
    def run():
        batch = processor(rows, packed=True, return_tensors="pt").to(device) if from_rows else inputs
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            model.encode(**batch)

    return run


def spender_encoder(rows: list[dict], device: str):
    """spender's encoder of fixed grids, on spectra brought to one SDSS grid outside the timing."""
    from spender import SpectrumEncoder
    from spender.data.sdss import SDSS

    grid = SDSS._wave_obs.numpy()
    flux = np.stack([np.interp(grid, row["wavelength"], row["flux"]) for row in rows]).astype(np.float32)
    batch = torch.from_numpy(flux / np.median(flux, axis=1, keepdims=True)).to(device)
    model = SpectrumEncoder(SDSS(), 10).to(device).eval()

    @torch.no_grad()
    def run():
        model(batch)

    return run


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--sizes", nargs="+", default=["tiny", "small", "base"])
    options = options.parse_args()
    rows = mixed_rows(options.spectra)
    sdss = rows_of(as_arrays(simulated(options.spectra)["sdss"]), list(range(options.spectra)))
    variants, count = {}, {}
    for size in options.sizes:
        model = build_model(str(ROOT / "hub_configs" / size), options.device).eval()
        for name, spectra, from_rows in (("", rows, False), (" from rows", rows, True), (" SDSS", sdss, False)):
            variants[size + name] = encoder(model, spectra, options.device, from_rows)
            count[size + name] = len(spectra)
    if importlib.util.find_spec("spender"):
        variants["spender SDSS"], count["spender SDSS"] = spender_encoder(sdss, options.device), len(sdss)
    else:
        print("spender: not measured (pip install spender)")
    times = seconds_of(variants, options.repeats, options.device)
    for name, each in times.items():
        print(f"{name:>16}: {count[name] / min(each):10.1f} spectra/s")
    figures = {
        name: {"spectra_per_second": count[name] / min(each), "seconds": summary(each)} for name, each in times.items()
    }
    finish("encode", figures, options.device)


if __name__ == "__main__":
    main()
