"""What each choice is worth: the tiny size, trained with one choice changed, at equal compute and from several seeds.

    python -m benchmarks.science.ablations --steps 1000 --seeds 0 1 --output runs/ablations
    python -m benchmarks.science.ablations --only default labels --output runs/ablations

Every run is `training/pretrain.py` on a stream, and what it leaves is measured by linear probes on objects that no run
has seen. A run that is there is not made again: stopped, the command goes on where it was, and more seeds may be
added.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import yaml

from . import report
from .bench import Bench
from .curve import probes
from .scores import summary


ROOT = Path(__file__).resolve().parent.parent.parent
#: Settings of all runs. One step has few spectra, so that some minutes of one core are a thousand steps.
RECIPE = {
    "model": "hub_configs/tiny", "stream": "templates", "max_spectra": 16, "optimizer": "muon", "learning_rate": 1.5e-3,
    "muon_learning_rate": 2.5e-3, "warmup_steps": 100, "validation_spectra": 16, "validate_every": 100_000,
    "checkpoint_every": 500, "keep_checkpoints": 1,
}  # fmt: skip
PLAIN = {"patch_inputs": "flux_and_error", "patch_outputs": "flux", "num_pixel_periods": 0}
#: What differs from the default, in the recipe or (`model_options`) in the model.
VARIATIONS = {
    "default": {},
    "autoencoding": {"model_options": {"objective": "autoencoding"}},
    "random hiding alone": {"model_options": {"hiding_weights": [1, 0, 0]}},
    "blocks more often": {"model_options": {"hiding_weights": [0.2, 0.6, 0.2]}},
    "a quarter to half hidden": {"model_options": {"hidden_fraction": [0.25, 0.5]}},
    "plain inputs and outputs": {"model_options": PLAIN},
    "no functions of wavelength": {"model_options": {"num_pixel_periods": 0}},
    "plain inputs": {"model_options": {"num_pixel_periods": 0, "patch_inputs": "flux_and_error"}},
    "plain outputs": {"model_options": {"num_pixel_periods": 0, "patch_outputs": "flux"}},
    "chi2 over pixels": {"model_options": {"spectrum_loss": "gaussian"}},
    "decoder reads all tokens": {"model_options": {"decoder_reads": "tokens"}},
    "decoder reads all, mean pooling": {"model_options": {"decoder_reads": "tokens", "pooling": "mean"}},
    "the paper's choices": {
        "model_options": {
            **PLAIN, "objective": "autoencoding", "spectrum_loss": "gaussian", "decoder_reads": "tokens",
            "pooling": "mean", "code_average": "pixels",
        }
    },
    "AdamW alone": {"optimizer": "adamw"},
    "pairs": {"pairs": 0.5},
    "each spectrum twice": {"views": 2},
    "noiseless targets": {"noiseless": True},
    "labels": {"model_options": {"label_weight": 0.2}},
    "labels and noiseless targets": {"noiseless": True, "model_options": {"label_weight": 0.2}},
}  # fmt: skip


def train(name: str, seed: int, folder: Path, given: argparse.Namespace) -> Path:
    """The model of one run, made unless it is there; a run that was stopped goes on."""
    output = folder / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    if not (output / "metrics.json").exists():
        output.mkdir(parents=True, exist_ok=True)
        recipe = {**RECIPE, **VARIATIONS[name], "num_steps": given.steps, "seed": seed, "output": str(output)}
        if given.templates:
            recipe["stream"] = "physics" if given.templates == "none" else given.templates
        if given.device == "cuda":
            recipe["mixed_precision"] = "bf16"
        (output / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        command = [sys.executable, "training/pretrain.py", "--config", str(output / "recipe.yaml")]
        if (output / "checkpoints").exists():
            command += ["--resume", "auto"]
        subprocess.run(command, cwd=ROOT, check=True)
    return output / "model"


def measured(model: Path, given: argparse.Namespace) -> dict[str, float]:
    """Column -> score of one model; kept beside it."""
    path = model.parent / f"probes-{given.budget}.json"
    if not path.exists():
        bench = Bench({"model": str(model)}, given.budget, given.templates, given.device)
        found = json.dumps(probes(bench)["model"], indent=2)
        path.write_text(found + "\n")
    return json.loads(path.read_text())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.science.ablations", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--only", nargs="+", choices=list(VARIATIONS), default=list(VARIATIONS), metavar="NAME")
    parser.add_argument("--steps", type=int, default=1000, help="of 16 spectra (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="(default: %(default)s)")
    parser.add_argument("--budget", default="small", help="of the probes (default: %(default)s)")
    parser.add_argument("--templates", help='folder of published templates, or "none" for the package\'s own physics')
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--output", default="runs/ablations")
    given = parser.parse_args(arguments)
    folder = Path(given.output).resolve()
    found: dict[str, list[dict]] = {}
    for seed in given.seeds:  # all choices once before any twice
        for name in given.only:
            found.setdefault(name, []).append(measured(train(name, seed, folder, given), given))
    rows = [{"changed": name, "seeds": str(len(each)), **summary(each)} for name, each in found.items()]
    print(f"\n## ablations (simulated spectra, {given.steps} steps, ± over seeds)\n\n{report.markdown(rows)}\n")
    print(report.json_line("ablations", rows, steps=given.steps, seeds=given.seeds, budget=given.budget))


if __name__ == "__main__":
    main()
