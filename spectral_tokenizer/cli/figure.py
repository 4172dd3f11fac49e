"""The picture that `inspect --plot` draws: one panel per spectrum."""

from pathlib import Path

import numpy as np


def draw_spectra(rows: list[dict], path: Path) -> None:
    """Draw flux and error over wavelength, segment by segment; unusable pixels are left out.

    Args:
        rows: rows of the schema, at least one.
        path: the picture; its ending says which format.

    Raises:
        ValueError: no rows, no matplotlib, or a format that matplotlib does not write.
    """
    if not rows:
        raise ValueError("nothing to draw: no spectrum was found")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("--plot needs matplotlib: pip install 'spectral-tokenizer[cli]'") from None
    figure = Figure(figsize=(10, 0.8 + 2.2 * len(rows)), layout="constrained")
    for axes, row in zip(np.ravel(figure.subplots(len(rows), 1)), rows):
        draw_spectrum(axes, row)
    axes.set_xlabel("vacuum wavelength (Angstrom)")
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        figure.savefig(unfinished, dpi=120)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def draw_spectrum(axes, row: dict) -> None:
    """One spectrum; the range of flux is that of the middle 99 % of the usable pixels."""
    is_usable = row["ivar"] > 0
    ends = np.cumsum(row["segment_lengths"])
    sigma = np.where(is_usable, 1.0 / np.sqrt(np.where(is_usable, row["ivar"], 1.0)), np.nan)
    flux = np.where(is_usable, row["flux"], np.nan)
    for number, (start, end) in enumerate(zip(ends - row["segment_lengths"], ends)):
        wavelength, colour = row["wavelength"][start:end], f"C{number % 10}"
        axes.plot(wavelength, flux[start:end], linewidth=0.6, color=colour)
        axes.plot(wavelength, sigma[start:end], linewidth=0.5, color="0.6", zorder=0)
    low, high = np.nanpercentile(flux, [0.5, 99.5])
    margin = 0.15 * (high - low) or 1.0
    axes.set_ylim(min(low - margin, 0.0) if low > 0 else low - margin, high + margin)
    axes.margins(x=0.01)
    axes.set_ylabel("flux")
    known = [row["class"]] if row["class"] else []
    known += [f"z = {row['redshift']:.4f}"] if np.isfinite(row["redshift"]) else []
    title = [f"{row['survey']} {row['object_id']}", *known, f"S/N {row['snr']:.1f}", f"frame: {row['frame']}"]
    axes.set_title(", ".join(title), fontsize=9, loc="left")
