"""SDSS, DESI, GALAH and APOGEE spectra as MultimodalUniverse ships them (github.com/MultimodalUniverse), HDF5 or
Parquet.

A row has a spectrum, ``spectrum_flux``, ... in HDF5 and a struct ``spectrum`` in Parquet, and columns of the survey's
catalogue. What its build scripts did to the spectra is undone here as far as it can be:

- Rows are padded to one length with wavelength -1, and flux repeated or 0: those pixels are cut off.
- Wavelengths were rounded to float32: put back on the survey's grid.
- Infinite ivar, and ivar of blank pixels that is tiny but not 0, are unusable.
- Masks, where there are any, call good pixels bad: of SDSS and APOGEE they are any bit of the survey's masks. ivar
  says which pixels are bad, and APOGEE's bitmask where it was kept.
- SDSS: ``lsf_sigma`` counts pixels.
- DESI: ``lsf_sigma`` is one average per file, in pixels: the nominal resolution stands here. The cameras were added up
  where they overlap: one segment, for good.
- GALAH: wavelengths are in air, and two pixels too long (``arange(n) - -CRPIX1 + 1``). The CCDs have their own scales.
  ``lsf_sigma`` is the width of something else: the nominal resolution stands here.
- APOGEE: the gaps between the chips were cut out: chips are segments. ``lsf_sigma`` holds Angstrom per pixel instead
  of a width: the nominal resolution stands here.
- Identifiers may have become text like ``b'  461628614023079936'``.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from . import apogee, desi, galah, sdss
from .builder import Dropped, SpectraBuilder, SurveyConfig
from .catalogues import JOINED, join_labels, without_origin
from .fits_access import SpectrumFileError, number
from .table import text, whole_row
from .table_files import find_column, read_rows
from .wavelengths import air_to_vacuum, nominal_sigma


BYTES_AS_TEXT = re.compile(r"b(['\"])(.*)\1")
MIN_IVAR = 1e-18  # APOGEE's blank pixels have error 1e10
DESI_GRID = (3600.0, 0.8)
GALAH_SHIFT = 2  # pixels
GALAH_BANDS = {"b": "1", "g": "2", "r": "3", "i": "4"}
OTHER_NAMES = {"radial_velocity": "rv", "fe_h": "m_h"}
SURVEYS = {"sdss": sdss.SDSS, "desi": desi.DESI, "galah": galah.GALAH, "apogee": apogee.APOGEE}


@dataclass
class MultimodalUniverseConfig(SurveyConfig):
    """What a build from MultimodalUniverse's files depends on.

    Args:
        survey: one of `SURVEYS`.
    """

    survey: str = ""

    def __post_init__(self):
        super().__post_init__()
        if self.survey not in SURVEYS:
            raise ValueError(f"survey: found {self.survey!r}; expected one of {sorted(SURVEYS)}")


class MultimodalUniverse(SpectraBuilder):
    """Rows of MultimodalUniverse's HDF5 and Parquet files of one survey."""

    BUILDER_CONFIG_CLASS = MultimodalUniverseConfig
    VERSION = "1.3.0"
    FILE_NAMES = ("*.hdf5", "*.h5", "*.parquet")
    HOMEPAGE = "https://github.com/MultimodalUniverse/MultimodalUniverse"
    CITATION = "The Multimodal Universe Collaboration 2024, arXiv 2412.02527"

    def read(self, files: tuple[str, ...]) -> Iterator[dict | Dropped]:
        (path,) = files
        name, told = self.source_name(path), set()
        for index, values in enumerate(read_rows(path, shared=("spectrum_lambda",))):
            if index == 0:
                spelled = self._find_columns(path, list(values))
            lower = {key: values[column] for key, column in spelled.items()}
            yield whole_row(f"{name}#{index}", self._row, lower, self.config.strict, told)

    def _find_columns(self, path: str, present: list[str]) -> dict[str, str]:
        """Columns' names in lower case -> as they are spelled; of several the one that the survey's catalogue has, or
        that is in lower case.

        Raises:
            SpectrumFileError: there are several, and neither.
        """
        catalogue = SURVEYS[self.config.survey].CATALOGUE.optional
        exact = {name.lower(): name for name in catalogue if name in present}
        return {key: exact.get(key) or find_column(path, key, present) for key in map(str.lower, present)}

    def _row(self, source: str, values: dict) -> dict:
        survey = SURVEYS[self.config.survey]
        labels, flags = read_labels(survey, values)
        return {
            "object_id": identifier(values.get("object_id")) or source,
            "survey": self.config.survey,
            "source": source,
            **PIXELS[self.config.survey](source, values),
            **join_labels(labels, flags, survey.LABEL_CUTS, None, None, self.config.unreliable_labels),
        }


def read_labels(survey: type[SpectraBuilder], values: dict) -> tuple[dict, dict]:
    """Labels and flags out of the columns that came from the survey's catalogue."""
    labels = {"class": "STAR"} if survey in (galah.GALAH, apogee.APOGEE) else {}
    for label in JOINED:
        names = (*survey.CATALOGUE.columns_of(label), OTHER_NAMES.get(label, label))
        candidates = [name.lower() for name in names]
        if found := next((name for name in candidates if values.get(name) is not None), None):
            labels[label] = text(values[found]) if label == "class" else number(values[found])
    if survey.CATALOGUE.is_origin_unknown:
        labels = without_origin(labels)
    flags = {
        name: int(values[name.lower()]) for name in survey.CATALOGUE.flags if values.get(name.lower()) is not None
    }
    return labels, flags


def identifier(value: object) -> str | None:
    """An identifier as the survey writes it."""
    value = text(value)
    match = BYTES_AS_TEXT.fullmatch(value or "")
    return match[2].strip() if match else value


def pixel_columns(source: str, values: dict, required: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The spectrum's arrays, by their names without ``spectrum``, without padding; ivar finite and not negative."""
    arrays = {}
    for key, value in values.items():
        if key.startswith(("spectrum.", "spectrum_")) and np.ndim(value) > 0:
            arrays[key[len("spectrum.") :]] = np.ravel(value)
    if "ivar" not in arrays and "flux_ivar" in arrays:
        arrays["ivar"] = arrays["flux_ivar"]
    for name in required:
        if name not in arrays:
            raise SpectrumFileError(
                source, f"spectrum {name}", list(values)[:20], f"spectrum.{name} or spectrum_{name}"
            )
    is_pixel = np.ones(len(arrays["flux"]), dtype=bool)
    if "lambda" in arrays:
        is_pixel = arrays["lambda"] > 0
    same = {name: array for name, array in arrays.items() if len(array) == len(is_pixel)}
    arrays = {
        name: array[is_pixel].astype(np.float64) if name != "pix_bitmask" else array[is_pixel]
        for name, array in same.items()
    }
    if missing := [name for name in required if name not in arrays]:
        raise SpectrumFileError(
            source, f"spectrum {missing}", "another number of pixels", f"{len(is_pixel)}, as flux has"
        )
    with np.errstate(invalid="ignore"):
        arrays["ivar"] = np.where(np.isfinite(arrays["ivar"]) & (arrays["ivar"] > MIN_IVAR), arrays["ivar"], 0.0)
    return arrays


def sdss_pixels(source: str, values: dict) -> dict:
    arrays = pixel_columns(source, values, ("flux", "ivar", "lambda"))
    arm = {"loglam": np.log10(arrays["lambda"]), "flux": arrays["flux"], "ivar": arrays["ivar"]}
    if "lsf_sigma" in arrays:
        arm["wdisp"] = arrays["lsf_sigma"]
    return {"frame": "heliocentric", **sdss.join_arms([arm])}


def desi_pixels(source: str, values: dict) -> dict:
    arrays = pixel_columns(source, values, ("flux", "ivar"))
    first, step = DESI_GRID
    if "lambda" in arrays:
        index = (arrays["lambda"] - first) / step
        wavelength = (
            first + step * np.round(index) if np.abs(index - np.round(index)).max() < 0.01 else arrays["lambda"]
        )
    else:  # older files tell the ends
        ends = [number(values.get(f"spectrum{mark}lambda_{end}")) for mark in "._" for end in ("min", "max")]
        low, high = ends[:2] if np.isfinite(ends[0]) else ends[2:]
        wavelength = low + step * np.arange(len(arrays["flux"]))
        if not abs(wavelength[-1] - high) < step / 2:
            raise SpectrumFileError(source, "lambda_max", high, f"{wavelength[-1]}, after {len(wavelength)} pixels")
    return {
        "frame": "barycentric",
        "wavelength": wavelength,
        "flux": arrays["flux"],
        "ivar": arrays["ivar"],
        "segment_lengths": [len(wavelength)],
        "lsf_sigma": nominal_sigma(wavelength, np.interp(wavelength, *desi.RESOLVING_POWER)),
        "lsf_kind": "nominal",
    }


def galah_pixels(source: str, values: dict) -> dict:
    arrays = pixel_columns(source, values, ("flux", "ivar", "lambda"))
    flux, ivar, total = arrays["flux"], arrays["ivar"], len(arrays["flux"])
    with np.errstate(divide="ignore", invalid="ignore"):
        relative_error = 1.0 / (np.sqrt(ivar) * np.abs(flux))
    parts = []
    for band, ccd in GALAH_BANDS.items():
        ends = [
            (values.get(f"filter_indices.{band}_{end}"), values.get(f"spectrum_{band}_ind_{end}"))
            for end in ("start", "end")
        ]
        start, last = (number(next((value for value in pair if value is not None), None)) for pair in ends)
        if not 0 <= start < last < total:
            continue  # this CCD is missing
        pixels = slice(int(start), int(last) + 1)
        index = np.arange(pixels.stop - pixels.start)
        step, first = np.polyfit(index, arrays["lambda"][pixels], 1)
        wavelength = air_to_vacuum(first + step * (index - GALAH_SHIFT))
        scaled = galah.scale_ccd(flux[pixels], relative_error[pixels])
        parts.append((wavelength, *scaled, nominal_sigma(wavelength, galah.RESOLVING_POWER[ccd])))
    if not parts:
        raise SpectrumFileError(source, "filter indices", "no band", "where the bands B, G, R and I begin and end")
    wavelength, scaled_flux, scaled_ivar, sigma = (np.concatenate(arrays) for arrays in zip(*parts))
    return {
        "frame": "barycentric",
        "wavelength": wavelength,
        "flux": scaled_flux,
        "ivar": scaled_ivar,
        "segment_lengths": [len(part[0]) for part in parts],
        "lsf_sigma": sigma,
        "lsf_kind": "nominal",
    }


def apogee_pixels(source: str, values: dict) -> dict:
    arrays = pixel_columns(source, values, ("flux", "ivar", "lambda"))
    first, step = apogee.GRID
    index = np.round((np.log10(arrays["lambda"]) - first) / step).astype(np.int64)
    wavelength = 10.0 ** (first + step * index)
    ivar = arrays["ivar"]
    if "pix_bitmask" in arrays:
        ivar = np.where(arrays["pix_bitmask"].astype(np.int64) & apogee.BAD_BITS, 0.0, ivar)
    chips = np.split(index, np.flatnonzero(np.diff(index) != 1) + 1)
    return {
        "frame": "rest",
        "wavelength": wavelength,
        "flux": arrays["flux"],
        "ivar": ivar,
        "segment_lengths": [len(chip) for chip in chips],
        "lsf_sigma": nominal_sigma(wavelength, apogee.RESOLVING_POWER),
        "lsf_kind": "nominal",
    }


PIXELS: dict[str, Callable[[str, dict], dict]] = {
    "sdss": sdss_pixels,
    "desi": desi_pixels,
    "galah": galah_pixels,
    "apogee": apogee_pixels,
}
