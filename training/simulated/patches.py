"""Observations -> what the model takes: normalised patches, as `SpectralProcessor` makes them, for whole batches.

The rules are the processor's, and a test holds the two together: scale = larger of the usable pixels' median flux and
median error; patches never straddle a segment; one with more than half of its pixels unusable is left out.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from spectral_tokenizer import patching_spectral_tokenizer as patching
from spectral_tokenizer.data.wavelengths import SPEED_OF_LIGHT

from .observing import BANDS, FRAMES, Observation
from .populations import KINDS
from .spectrographs import spectrograph


@dataclass
class Spectra:
    """Packed spectra: patches of all of them one behind the other, without padding.

    Attributes:
        flux, ivar, truth: (1, total, patch_size) float32, in units of each spectrum's scale.
        wavelength: (1, total, patch_size) float64, vacuum Angstrom.
        lengths: Patches of each spectrum.
        scale: (spectra,) float64.
        survey: One name per spectrum.
        index, kind, redshift, teff, logg, fe_h, snr: (spectra,), see `populations.Objects`; NaN where not known.
    """

    flux: Tensor
    ivar: Tensor
    truth: Tensor
    wavelength: Tensor
    lengths: list[int]
    scale: Tensor
    survey: list[str]
    index: Tensor
    kind: Tensor
    redshift: Tensor
    teff: Tensor
    logg: Tensor
    fe_h: Tensor
    snr: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def inputs(self) -> dict:
        """What the model's `forward` takes."""
        return {name: getattr(self, name) for name in ("flux", "ivar", "wavelength", "lengths")}

    @property
    def band(self) -> Tensor:
        """(spectra,) 0, 1 or 2: low, middle, high signal-to-noise, by each survey's `BANDS`."""
        limits = torch.tensor([BANDS[survey] for survey in self.survey])
        return (self.snr.cpu()[:, None] >= limits).sum(dim=1)

    @property
    def radial_velocity(self) -> Tensor:
        """(spectra,) float64, km/s, of stars; NaN of galaxies and quasars."""
        is_star = self.kind.to(self.redshift.device) == KINDS.index("STAR")
        return torch.where(is_star, SPEED_OF_LIGHT * self.redshift, torch.nan)

    def keep(self, is_kept: Tensor) -> "Spectra":
        """The same spectra with only the patches where `is_kept` (total,) is true."""
        index = is_kept.nonzero().squeeze(-1).to(self.flux.device)
        pixels = {name: getattr(self, name)[:, index] for name in PIXELS}
        return replace(self, **pixels, lengths=[int(part.sum()) for part in is_kept.cpu().split(self.lengths)])

    def choose(self, is_chosen: Tensor) -> "Spectra":
        """Some of the spectra, whole: `is_chosen` (spectra,) booleans."""
        lengths = torch.tensor(self.lengths)
        kept = self.keep(torch.repeat_interleave(is_chosen.cpu(), lengths))
        values = {name: getattr(self, name)[is_chosen.to(getattr(self, name).device)] for name in ("scale", *LABELS)}
        survey = [name for name, chosen in zip(self.survey, is_chosen.tolist()) if chosen]
        return replace(kept, **values, survey=survey, lengths=lengths[is_chosen.cpu()].tolist())

    def split(self, size: int) -> list["Spectra"]:
        """Parts of at most `size` spectra, in order."""
        number = torch.arange(len(self)) // size
        return [self.choose(number == each) for each in range(int(number[-1]) + 1)]

    def spectrum(self) -> Tensor:
        """(total,) the spectrum that each patch belongs to."""
        lengths = torch.tensor(self.lengths)
        return torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(self.flux.device)


PIXELS = ("flux", "ivar", "truth", "wavelength")
LABELS = ("index", "kind", "redshift", "teff", "logg", "fe_h", "snr")


def concatenate(parts: list[Spectra]) -> Spectra:
    """Several surveys' spectra in one packed batch."""
    pixels = {name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in PIXELS}
    values = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("scale", *LABELS)}
    lengths = [length for part in parts for length in part.lengths]
    return Spectra(**pixels, **values, lengths=lengths, survey=[name for part in parts for name in part.survey])


def joined(first: Spectra, second: Spectra) -> Spectra:
    """The same objects seen twice: one sequence each, with the arms of both. Each keeps the scale of its own flux; the
    first's, and its signal-to-noise, is the pair's."""
    both = concatenate([first, second])
    order = (both.spectrum() % len(first)).argsort(stable=True)
    return replace(
        first,
        **{name: getattr(both, name)[:, order] for name in PIXELS},
        lengths=[sum(pair) for pair in zip(first.lengths, second.lengths)],
        survey=["+".join(pair) for pair in zip(first.survey, second.survey)],
    )


def to_spectra(seen: Observation, patch_size: int = 32) -> Spectra:
    """Normalise, cut into patches, pack."""
    scale = robust_scale(seen.flux, seen.ivar)
    index, steps_beyond = places(seen, patch_size)
    device, count = seen.flux.device, len(seen.flux)
    wavelength = patch_wavelength(seen, index, steps_beyond)
    flat = index.flatten(1).to(device)
    is_filling = (steps_beyond > 0).expand(count, *index.shape[-2:]).to(device)
    ivar = (seen.ivar.double() * scale[:, None] ** 2).clamp_max(patching.LARGEST_IVAR).float()
    flux, truth = (each / scale[:, None].float() for each in (seen.flux, seen.truth))
    ivar, flux, truth = (take(each, flat).view_as(is_filling) for each in (ivar, flux, truth))
    ivar = torch.where(is_filling, 0.0, ivar)
    is_valid = 2 * (ivar > 0).sum(dim=-1) >= patch_size
    flux = torch.where(ivar > 0, flux, 0.0)
    kept = is_valid.flatten().nonzero().squeeze(-1)
    place = kept if len(wavelength) == count else kept % wavelength.shape[1]
    objects = seen.objects
    return Spectra(
        flux=flux.flatten(0, 1).index_select(0, kept)[None],
        ivar=ivar.flatten(0, 1).index_select(0, kept)[None],
        truth=truth.flatten(0, 1).index_select(0, kept)[None],
        wavelength=wavelength.flatten(0, 1).index_select(0, place)[None],
        lengths=is_valid.sum(1).tolist(),
        scale=scale,
        survey=[seen.survey] * count,
        index=objects.index,
        kind=objects.kind,
        redshift=objects.redshift,
        **objects.labels,
        snr=seen.snr.cpu(),
    )


def robust_scale(flux: Tensor, ivar: Tensor) -> Tensor:
    """(spectra,) float64: the larger of the usable pixels' median flux and median error, computed in float32."""
    is_usable = ivar > 0
    level = middle_two(torch.where(is_usable, flux, torch.nan)).mean(dim=0)
    error = middle_two(torch.where(is_usable, ivar, torch.nan)).rsqrt().mean(dim=0)
    return torch.maximum(level, error).double()


def middle_two(values: Tensor) -> Tensor:
    """(2, spectra): the two numbers in the middle, NaN left out; twice the same where their number is odd. NaN of
    none."""
    if values.is_cpu:  # numpy takes a tenth of the time
        known = (row[~np.isnan(row)] for row in values.numpy())
        pairs = [patching.middle_two(row) if len(row) else np.full(2, np.nan, row.dtype) for row in known]
        return torch.from_numpy(np.stack(pairs, axis=1))
    return torch.stack([values.nanmedian(dim=1).values, -(-values).nanmedian(dim=1).values])


def take(values: Tensor, index: Tensor) -> Tensor:
    """Pixels of every spectrum; `index` has one row for all spectra or one each."""
    return values.index_select(1, index[0]) if len(index) == 1 else values.gather(1, index)


def places(seen: Observation, patch_size: int) -> tuple[Tensor, Tensor]:
    """Which pixel stands where: (1 or spectra, patches, patch_size), and how far beyond the last one a filling is."""
    if seen.survey != "sdss":
        lengths = tuple(spectrograph(seen.survey).segment_lengths)
        return segment_places(lengths, patch_size)
    start, length = seen.window[:, :1], seen.window[:, 1:]
    position = torch.arange(-(-int(length.max()) // patch_size) * patch_size)
    index = start + torch.minimum(position, length - 1)
    beyond = (position - (length - 1)).clamp_min(0)
    shape = (len(start), -1, patch_size)
    return index.view(shape), beyond.view(shape)


@lru_cache
def segment_places(lengths: tuple[int, ...], patch_size: int) -> tuple[Tensor, Tensor]:
    index, beyond, start = [], [], 0
    for length in lengths:
        position = torch.arange(-(-length // patch_size) * patch_size)
        index.append(start + position.clamp_max(length - 1))
        beyond.append((position - (length - 1)).clamp_min(0))
        start += length
    return tuple(torch.cat(each).view(1, -1, patch_size) for each in (index, beyond))


def patch_wavelength(seen: Observation, index: Tensor, steps_beyond: Tensor) -> Tensor:
    """Wavelengths of all patch positions; filling goes on in its segment's last step."""
    wavelength = seen.wavelength
    if wavelength.ndim == 1:
        index, steps_beyond = index.to(wavelength.device), steps_beyond.to(wavelength.device)
        step = wavelength[index] - wavelength[(index - 1).clamp_min(0)]
        return wavelength[index] + steps_beyond * step
    if bool((steps_beyond > 0).any()):
        raise ValueError("grids of their own are only known for segments of whole patches")
    return wavelength[:, index[0].to(wavelength.device)]


def rows(seen: Observation) -> list[dict]:
    """Observations as rows of `spectral_tokenizer.data.schema`, with `truth` beside."""
    result, objects = [], seen.objects
    spec = spectrograph(seen.survey)
    for number in range(len(objects)):
        start, count = seen.window[number].tolist()
        part = slice(start, start + count)
        wavelength = seen.wavelength if seen.wavelength.ndim == 1 else seen.wavelength[number]
        arrays = {name: getattr(seen, name)[number, part].cpu().numpy() for name in ("flux", "ivar", "truth")}
        labels = {name: float(values[number]) for name, values in objects.labels.items()}
        is_star = KINDS[objects.kind[number]] == "STAR"
        redshift = float(objects.redshift[number])
        result.append(
            {
                "object_id": str(int(objects.index[number])),
                "survey": seen.survey,
                "frame": FRAMES[seen.survey],
                "source": "simulated",
                "wavelength": wavelength[part].cpu().numpy(),
                **arrays,
                "segment_lengths": [count] if seen.survey == "sdss" else list(spec.segment_lengths),
                "lsf_sigma": spec.sigma_array[part].astype(np.float32),
                "lsf_kind": "nominal",
                "class": KINDS[objects.kind[number]],
                "redshift": redshift,
                "radial_velocity": redshift * SPEED_OF_LIGHT if is_star else np.nan,
                **labels,
                "ra": np.nan,
                "dec": np.nan,
                "label_warnings": None,
                "snr": float(seen.snr[number]),
            }
        )
    return result
