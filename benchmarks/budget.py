"""What the paper's budget, 600,000 steps of 64 spectra, would take on this device with each size, by measurement.

python -m benchmarks.budget [--sizes small base paper]
"""

import torch

from benchmarks.common import ROOT, build_model, drawn_step, finish, mixed_rows, parser, seconds_of
from benchmarks.training_step import trainer


SPECTRA = 600_000 * 64
PAPER_HOURS = 192  # of an A100


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--sizes", nargs="+", default=["tiny", "small", "base", "paper"])
    options = options.parse_args()
    rows, figures = mixed_rows(options.spectra), {}
    for size in options.sizes:
        model = build_model(str(ROOT / "hub_configs" / size), options.device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
        run = trainer(model, drawn_step(model, rows), options.device, optimizer)
        rate = len(rows) / min(seconds_of({size: run}, options.repeats, options.device)[size])
        figures[size] = {
            "parameters": model.num_parameters(),
            "spectra_per_second": rate,
            "hours_for_38.4M_spectra": SPECTRA / rate / 3600,
        }
        print(
            f"{size:>6}: {model.num_parameters() / 1e6:6.1f} M parameters, {rate:8.1f} spectra/s, "
            f"{SPECTRA / rate / 3600:10.1f} hours (the paper: {PAPER_HOURS} of an A100)"
        )
    finish("budget", figures, options.device)


if __name__ == "__main__":
    main()
