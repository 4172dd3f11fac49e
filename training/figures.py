"""What the model sees, what it was not shown, and what it says: one panel per survey."""

import itertools
from pathlib import Path

import matplotlib
import numpy as np
import torch


matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend comes first)


@torch.no_grad()
def reconstructions(model, validations: dict, path: Path, simulated: bool) -> Path:
    """Draw one spectrum per survey with a hidden block: flux and error, reconstruction, residual in sigma.

    The spectrum is the one of upper-quartile S/N among those validated on, not the best reconstructed."""
    model.eval()
    device = next(model.parameters()).device
    height = [3, 1, 0.35] * len(validations)
    figure, axes = plt.subplots(
        len(height), 1, figsize=(13, 3.6 * len(validations)), height_ratios=height, layout="constrained"
    )
    for position, (survey, validation) in enumerate(validations.items()):
        upper, lower, gap = axes[3 * position : 3 * position + 3]
        gap.set_axis_off()
        row = int(np.argsort(validation.rows["snr"])[int(0.75 * len(validation.rows))])
        spectra = (each for part in validation.batches for each in part.spectra("block"))
        batch = next(itertools.islice(spectra, row, None))
        inputs = {name: torch.as_tensor(batch[name])[None].to(device) for name in ("flux", "ivar", "wavelength")}
        output = model(
            **inputs, lengths=[len(batch["flux"])], masked_patches=torch.as_tensor(batch["is_hidden"])[None]
        )
        draw(upper, lower, batch, output.reconstruction[0].float().cpu().numpy())
        held = validation.rows[row]
        kind = " ".join(str(each) for each in (held["class"], held["object_id"]) if each)
        upper.set_title(
            f"{'simulated ' if simulated else ''}{survey.upper()}   {kind}   S/N {held['snr']:.0f}", loc="left"
        )
        if position == 0:
            upper.legend(loc="upper right", ncols=4, fontsize="small", framealpha=0.9)
    axes[-2].set_xlabel("vacuum wavelength [Å]")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def draw(upper, lower, spectrum: dict, reconstruction: np.ndarray) -> None:
    flux, ivar, wavelength, is_hidden = (spectrum[name] for name in ("flux", "ivar", "wavelength", "is_hidden"))
    is_usable = ivar > 0
    sigma = np.where(is_usable, 1 / np.sqrt(np.where(is_usable, ivar, 1)), np.nan)
    # A break where patches do not follow each other: no line is drawn across a gap or from one arm into the next.
    jump = wavelength[1:, 0] - wavelength[:-1, -1]
    is_break = np.append((jump <= 0) | (jump > 3 * np.median(np.diff(wavelength, axis=1))), False)

    def line(values):
        values = np.where(is_break[:, None] & (np.arange(values.shape[1]) == values.shape[1] - 1), np.nan, values)
        return values.ravel()

    x = wavelength.ravel()
    flux = np.where(is_usable, flux, np.nan)
    upper.fill_between(x, line(flux - sigma), line(flux + sigma), color="0.85", lw=0, label="flux ± error")
    upper.plot(x, line(flux), color="0.45", lw=0.5, label="flux")
    upper.plot(x, line(reconstruction), color="C0", lw=1.0, label="reconstruction")
    lower.plot(x, line((flux - reconstruction) / sigma), color="0.3", lw=0.4)
    lower.axhline(0, color="C0", lw=0.8)
    for axis in (upper, lower):
        for start, end in runs(is_hidden & ~is_break, is_hidden):
            label = "hidden from the encoder" if axis is upper and start == np.flatnonzero(is_hidden)[0] else None
            axis.axvspan(wavelength[start, 0], wavelength[end, -1], color="C1", alpha=0.15, lw=0, label=label)
        axis.set_xlim(np.nanmin(x), np.nanmax(x))
    low, high = np.nanpercentile(np.concatenate([flux[is_usable], reconstruction.ravel()]), [0.5, 99.7])
    upper.set_ylim(low - 0.15 * (high - low), high + 0.25 * (high - low))
    upper.set_ylabel("flux / scale")
    upper.tick_params(labelbottom=False)
    lower.set_ylim(-6, 6)
    lower.set_ylabel("residual [σ]")


def runs(goes_on: np.ndarray, is_hidden: np.ndarray):
    """First and last patch of every contiguous hidden stretch."""
    start = None
    for place in np.flatnonzero(is_hidden):
        start = place if start is None else start
        if not goes_on[place] or place + 1 == len(is_hidden) or not is_hidden[place + 1]:
            yield start, place
            start = None
