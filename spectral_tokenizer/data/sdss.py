"""SDSS, BOSS and eBOSS spectra: ``spec-PLATE-MJD-FIBER.fits``, lite or full (SDSS data model: "spec").

HDU1 is the coadd, HDU2 one row of the pipeline's classification; the full files' per-exposure HDUs are not read.
Wavelengths are in vacuum and heliocentric, on pixels of exactly 1e-4 dex; flux in 1e-17 erg/s/cm2/A. Quirks:

- HDU1's columns are lower case in some runs and upper case in others; HDU2 has other columns in each run.
- ``loglam`` is float32, which moves pixels by up to 0.005 A. The grid is whole multiples of 1e-4, so it is restored.
- Bad pixels have ivar = 0. ``and_mask`` is not used: its bit 23 (bright sky) stands on good pixels.
- Sky fibres carry a CLASS and a Z all the same; kept on request, they have neither here.
- ``wdisp`` is the sigma of arc lines in pixels, and 0 at some masked ones. The night sky's lines in the same files are
  as wide in the red and up to 30 % wider in the blue. A file without it gets the nominal resolution (Smee et al. 2013,
  AJ 146, 32).
- ZWARNING other than MANY_OUTLIERS (bit 4, which good spectra of high S/N have) makes class and redshift unreliable.
- ELODIE_TEFF and its like are those of the best-fitting template, even for white dwarfs: they are no labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from .builder import Dropped, SpectraBuilder, SurveyConfig
from .catalogues import CatalogueLayout, LabelCut
from .fits_access import SpectrumFileError, describe, get_hdu, number, open_fits
from .fits_tables import get_columns, text
from .wavelengths import nominal_sigma


CATALOGUE = CatalogueLayout(
    key=("PLATE", "MJD", "FIBERID"),
    labels={
        "class": ("CLASS",),
        "redshift": ("Z",),
        "ra": ("PLUG_RA", "RA"),
        "dec": ("PLUG_DEC", "DEC"),
        "teff": ("TEFF_ADOP", "TEFFADOP"),  # the stellar parameter pipeline's tables
        "logg": ("LOGG_ADOP", "LOGGADOP"),
        "fe_h": ("FEH_ADOP", "FEHADOP"),
    },
    flags=("ZWARNING",),
    best="SPECPRIMARY",
)
LABEL_CUTS = (LabelCut("ZWARNING", "ZWARNING", ("class", "redshift", "radial_velocity"), bits=~(1 << 4)),)
GRID_STEP = 1e-4  # dex per pixel
GRID_TOLERANCE = 5e-7  # dex; rounding log10(wavelength) to float32 moves it by up to 2.4e-7
REQUIRED_COLUMNS = ("PLATE", "MJD", "FIBERID", "CLASS", "Z", "ZWARNING")
TYPE_COLUMNS = ("SOURCETYPE", "OBJTYPE", "TARGETTYPE")
OTHER_COLUMNS = ("PLUG_RA", "PLUG_DEC", *TYPE_COLUMNS)
RESOLVING_POWER = ((3700.0, 6000.0, 9000.0), (1560.0, 2060.0, 2650.0))  # at Angstrom; the arms' mean where they meet


@dataclass
class SDSSConfig(SurveyConfig):
    """What an SDSS build depends on.

    Args:
        sky: keep sky fibres.
    """

    sky: bool = False


class SDSS(SpectraBuilder):
    """Rows of SDSS, BOSS and eBOSS ``spec`` files. Option: ``sky=True`` keeps sky fibres.

    ``catalogue`` may be a specObj file or a table of stellar parameters, joined by plate, MJD and fibre.
    """

    BUILDER_CONFIG_CLASS = SDSSConfig
    VERSION = "1.1.0"
    FILE_NAMES = ("spec-*.fits", "spec-*.fits.gz")
    HOMEPAGE = "https://www.sdss.org"
    CATALOGUE, LABEL_CUTS = CATALOGUE, LABEL_CUTS
    CITATION = "SDSS DR17: Abdurro'uf et al. 2022, ApJS 259, 35"

    def read(self, files: tuple[str, ...]) -> Iterator[dict | Dropped]:
        (path,) = files
        with open_fits(path) as hdus:
            reject_foreign(path, hdus)
            catalogue = read_catalogue(path, hdus[2])
            is_sky = is_sky_fibre(catalogue)
            if is_sky and not self.config.sky:
                yield Dropped("sky fibre")
                return
            spectrum = read_coadd(path, hdus[1])
        fibre = tuple(catalogue[name] for name in CATALOGUE.key)
        labels = {"class": catalogue["CLASS"], "redshift": number(catalogue["Z"])}
        yield {
            "object_id": "{PLATE:04d}-{MJD}-{FIBERID:04d}".format(**catalogue),
            "source": Path(path).name,
            "frame": "heliocentric",
            "ra": number(catalogue.get("PLUG_RA")),
            "dec": number(catalogue.get("PLUG_DEC")),
            **spectrum,
            **({} if is_sky else self.join_labels(labels, {"ZWARNING": catalogue["ZWARNING"]}, path, fibre)),
        }


def reject_foreign(path: str, hdus: fits.HDUList) -> None:
    """Raise `SpectrumFileError` for other products, the old spSpec images among them."""
    if "COEFF0" in hdus[0].header and hdus[0].header["NAXIS"] == 2:
        raise SpectrumFileError(path, "HDU 0", "an image: the legacy spSpec format", "a spec-PLATE-MJD-FIBER file")
    if not all(isinstance(get_hdu(path, hdus, index), fits.BinTableHDU) for index in (1, 2)):
        raise SpectrumFileError(path, "HDUs 1 and 2", describe(hdus), "the tables COADD and SPECOBJ")
    if not hdus[0].header.get("VACUUM", True):
        raise SpectrumFileError(path, "VACUUM", False, "wavelengths in vacuum")


def read_coadd(path: str, hdu: fits.BinTableHDU) -> dict:
    """Pixels of the coadd; each array (num_pixels,)."""
    columns = get_columns(path, hdu, ("loglam", "flux", "ivar"), ("wdisp",))
    wavelength = 10.0 ** restore_grid(columns["loglam"])
    return {
        "wavelength": wavelength,
        "flux": columns["flux"],
        "ivar": columns["ivar"],
        "segment_lengths": [len(wavelength)],
        **resolution(wavelength, columns.get("wdisp")),
    }


def resolution(wavelength: np.ndarray, sigma_pixels: np.ndarray | None) -> dict:
    """The row's columns on resolution, measured where the file has it."""
    if sigma_pixels is not None and (sigma_pixels > 0).any():
        return {"lsf_sigma": sigma_pixels * np.gradient(wavelength), "lsf_kind": "measured"}
    return {"lsf_sigma": nominal_sigma(wavelength, np.interp(wavelength, *RESOLVING_POWER)), "lsf_kind": "nominal"}


def restore_grid(loglam: np.ndarray) -> np.ndarray:
    """Undo the rounding of log10(wavelength) to float32, where the pixels do lie on multiples of 1e-4 dex."""
    loglam = loglam.astype(np.float64)
    grid = np.round(loglam / GRID_STEP) * GRID_STEP
    return grid if np.abs(loglam - grid).max(initial=0.0) < GRID_TOLERANCE else loglam


def read_catalogue(path: str, hdu: fits.BinTableHDU) -> dict:
    """What is used of HDU2's only row, by upper-case names."""
    columns = get_columns(path, hdu, REQUIRED_COLUMNS, OTHER_COLUMNS)
    if len(columns["PLATE"]) != 1:
        raise SpectrumFileError(path, "HDU 2", f"{len(columns['PLATE'])} rows", "one row")
    values = {name: column[0].item() for name, column in columns.items()}
    return {name: text(value) if isinstance(value, bytes) else value for name, value in values.items()}


def is_sky_fibre(catalogue: dict) -> bool:
    """Whether the fibre looked at blank sky: ZWARNING bit 0, or its target type says so."""
    types = (catalogue.get(name) for name in TYPE_COLUMNS)
    return bool(int(catalogue["ZWARNING"]) & 1) or "SKY" in types
