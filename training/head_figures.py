"""What a head says against what is true."""

from pathlib import Path

import matplotlib
import numpy as np
from datasets import Dataset


matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend comes first)


def draw(config, tested, rows: Dataset, path: Path, simulated: bool) -> Path:
    """A confusion matrix, or predicted against true labels with their errors and flags. `tested` is what Trainer's
    `predict` returns for `rows`."""
    figure = regression(config, tested, rows) if config.is_regression else confusion(config, tested)
    kind = "simulated spectra" if simulated else "spectra"
    figure.suptitle(f"{len(rows)} {kind} of objects not trained on")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def confusion(config, tested):
    """Counts, and the fraction of each true class."""
    logits = tested.predictions[0] if isinstance(tested.predictions, tuple) else tested.predictions
    names = config.label_names
    counts = np.zeros((len(names), len(names)), dtype=int)
    is_known = tested.label_ids >= 0
    np.add.at(counts, (tested.label_ids[is_known], logits.argmax(-1)[is_known]), 1)
    fraction = counts / counts.sum(1, keepdims=True).clip(min=1)
    figure, axis = plt.subplots(figsize=(4.6, 4.6), layout="constrained")
    axis.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    for (true, called), value in np.ndenumerate(fraction):
        text = f"{100 * value:.1f} %\n{counts[true, called]}"
        axis.text(called, true, text, ha="center", va="center", color="white" if value > 0.5 else "black")
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("called")
    axis.set_ylabel("true")
    return figure


def regression(config, tested, rows: Dataset):
    """One panel per label: 68 % intervals, flagged predictions as crosses, the difference below."""
    values, _, intervals, _, is_flagged = tested.predictions[:5]
    labels = tested.label_ids.reshape(values.shape)
    survey, names = np.array(rows["survey"]), list(config.regression_targets)
    figure, axes = plt.subplots(
        2, len(names), figsize=(5.0 * len(names), 6.2), height_ratios=[3, 1], sharex="col", squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for column, name in enumerate(names):
        upper, lower = axes[:, column]
        for number, each in enumerate(sorted(set(survey))):
            for flagged, marker in ((False, "."), (True, "x")):
                chosen = (survey == each) & (is_flagged[:, column] == flagged) & ~np.isnan(labels[:, column])
                true, value, interval = labels[chosen, column], values[chosen, column], intervals[chosen, column]
                label = f"{each.upper()}{' (flagged)' if flagged else ''}" if chosen.any() else None
                upper.plot(true, value, marker, color=f"C{number}", ms=4, label=label)
                if not flagged:
                    upper.vlines(true, *interval.T, color=f"C{number}", lw=0.4, alpha=0.5)
                lower.plot(true, value - true, marker, color=f"C{number}", ms=4)
        known = labels[~np.isnan(labels[:, column]), column]
        ends = [known.min(), known.max()] if len(known) else [0, 1]
        margin = 0.05 * (ends[1] - ends[0]) or 1.0
        upper.set(xlim=(ends[0] - margin, ends[1] + margin), ylim=(ends[0] - margin, ends[1] + margin))
        upper.plot(ends, ends, color="0.6", lw=0.8, zorder=0)
        lower.axhline(0, color="0.6", lw=0.8, zorder=0)
        upper.set_title(name)
        upper.legend(fontsize="small")
        lower.set_xlabel(f"true {name}")
    axes[0, 0].set_ylabel("predicted")
    axes[1, 0].set_ylabel("predicted - true")
    return figure


def draw_stars(config, predictions: tuple, survey: np.ndarray, path: Path, simulated: bool) -> Path:
    """Predicted surface gravity against temperature, coloured by [Fe/H] where that is predicted too: giants and dwarfs
    stand where they must even where no label is known. Flagged temperatures as crosses.

    Args:
        config: Of a head with the targets `teff` and `logg`.
        predictions: What Trainer's `predict` returns of (stars,) rows of the surveys `survey`.
    """
    values, errors, _, _, is_flagged = predictions[:5]
    place = {name: number for number, name in enumerate(config.regression_targets)}
    teff, logg = place["teff"], place["logg"]
    color = values[:, place["fe_h"]] if "fe_h" in place else np.zeros(len(values))
    figure, axes = plt.subplots(
        1,
        len(set(survey)),
        figsize=(0.6 + 4.8 * len(set(survey)), 4.6),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis, each in zip(axes[0], sorted(set(survey))):
        for flagged, marker in ((False, "o"), (True, "x")):
            chosen = (survey == each) & (is_flagged[:, teff] == flagged)
            axis.errorbar(
                values[chosen, teff], values[chosen, logg], errors[chosen, logg], errors[chosen, teff],
                fmt="none", ecolor="0.6", elinewidth=0.5,
            )  # fmt: skip
            points = axis.scatter(
                values[chosen, teff], values[chosen, logg], c=color[chosen], marker=marker, s=16, vmin=-1, vmax=0.5,
                zorder=2, label=f"{chosen.sum()}{' flagged' if flagged else ''}",
            )  # fmt: skip
        axis.set(title=each.upper(), xlabel="predicted Teff [K]")
        for handle in axis.legend(fontsize="small").legend_handles:
            handle.set_color("0.4")
        axis.invert_xaxis()
    axes[0, 0].set_ylabel("predicted logg")
    axes[0, 0].invert_yaxis()
    if "fe_h" in place:
        figure.colorbar(points, ax=axes, label="predicted [Fe/H]")
    figure.suptitle(f"{len(values)} {'simulated ' if simulated else ''}stars, with or without known labels")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
