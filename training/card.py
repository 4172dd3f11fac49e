"""The card of a trained model: `model_card.md` filled in with what was measured, and nothing else."""

import shutil
from pathlib import Path
from string import Template

from recipe import ROOT


def write_card(folder: Path, metrics: dict, figure: Path) -> None:
    """Write README.md and the figure into a model's folder."""
    shutil.copy(figure, folder / figure.name)
    chi2, probes = metrics["chi2"], metrics["probe"]
    styles = ("random", "block", "arm")
    rows = [
        f"| {survey} | {style} | "
        + " | ".join(
            f"{chi2[name][survey][style]['mean']:.2f}" for name in ("model", "interpolation", "mean spectrum")
        )
        + " |"
        for survey in chi2["model"]
        for style in styles
    ]
    heads = [
        f"| {name} | {value:.4g} | {probes['untrained'][name]:.4g} |" for name, value in probes["trained"].items()
    ]
    recipe = metrics["recipe"]
    template = Template((ROOT / "model_card.md").read_text())
    (folder / "README.md").write_text(
        template.substitute(
            data="simulated spectra (the package's own physical simulator)"
            if metrics["simulated"]
            else "survey files",
            counts=", ".join(f"{survey} {each['train']}" for survey, each in metrics["num_spectra"].items()),
            held=", ".join(f"{survey} {each['held']}" for survey, each in metrics["num_spectra"].items()),
            steps=recipe["num_steps"],
            spectra=recipe["max_spectra"],
            chi2="\n".join(rows),
            heads="\n".join(heads) or "| not measured | | |",
            figure=figure.name,
        )
    )


def write_head_card(folder: Path, metrics: dict, figure: Path) -> None:
    """Write README.md and the figure into the folder of a fine-tuned model."""
    shutil.copy(figure, folder / figure.name)
    arguments, counts = metrics["arguments"], metrics["num_spectra"]
    opened = {None: "all of it trained", 0: "frozen"}.get(
        arguments["num_trainable_layers"], f"its last {arguments['num_trainable_layers']} layers trained"
    )
    template = Template((ROOT / "training" / "head_card.md").read_text())
    (folder / "README.md").write_text(
        template.substitute(
            labels=", ".join(arguments["labels"]),
            classes=f" ({', '.join(arguments['classes'])})" if arguments["classes"] else "",
            encoder=f"The encoder was {opened}." if opened == "frozen" else f"Of the encoder, {opened}.",
            data="simulated spectra (the package's own physical simulator)"
            if metrics["simulated"]
            else "survey files: " + ", ".join(arguments["data"]),
            train=counts["train"],
            calibration=counts["calibration"],
            test=counts["test"],
            metrics="\n".join(f"| {name} | {value:.4g} |" for name, value in metrics["test"].items()),
            figure=figure.name,
        )
    )
