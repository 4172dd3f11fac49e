"""What a catalogue holds, at a glance."""

from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa

from spectral_tokenizer.data.catalogue import PREDICTED


matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend comes first)


NUM_BINS = 40
SHOWN = (0.5, 99.5)  # percentiles of a label that its panel reaches to


def labels(table: pa.Table) -> list[str]:
    """Labels that heads were asked for: "class", or those with an interval. Tags are neither."""
    asked = [name.removeprefix(PREDICTED) for name in table.column_names if name.startswith(PREDICTED)]
    return [name.removesuffix("_low") for name in asked if name == "class" or name.endswith("_low")]


def draw(table: pa.Table, path: Path) -> Path:
    """One panel per label: how many have which value, those that are flagged apart; classes as bars. Values below or
    above the panel are in its first and last bin."""
    names = labels(table)
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.4), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names):
        values = table[f"{PREDICTED}{name}"]
        if name == "class":
            counts = sorted((each["values"], each["counts"]) for each in values.drop_null().value_counts().to_pylist())
            axis.bar([found for found, _ in counts], [count for _, count in counts], color="C0")
        else:
            values = values.to_numpy()
            is_known = np.isfinite(values)
            flagged = table[f"{PREDICTED}{name}_is_flagged"].to_numpy()[is_known]
            low, high = np.percentile(values[is_known], SHOWN) if is_known.any() else (0.0, 1.0)
            high = high if high > low else low + 1.0
            kept = np.clip(values[is_known], low, high)
            parts = {"": kept[~flagged], "flagged": kept[flagged]}
            axis.hist(
                list(parts.values()), NUM_BINS, range=(low, high), stacked=True, color=["C0", "0.7"],
                label=[f"{what or 'not flagged'}: {len(each)}" for what, each in parts.items()],
            )  # fmt: skip
            axis.legend(fontsize="small")
        axis.set(xlabel=f"predicted {name}", ylabel="spectra")
    figure.suptitle(f"{len(table)} spectra")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
