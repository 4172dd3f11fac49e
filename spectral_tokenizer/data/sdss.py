"""SDSS, BOSS and eBOSS spectra: ``spec-PLATE-MJD-FIBER.fits``, lite or full (SDSS data model: "spec").

HDU1 is the coadd, HDU2 one row of the pipeline's classification; the full files' per-exposure HDUs are not read.
Wavelengths are in vacuum and heliocentric, on pixels of exactly 1e-4 dex; flux in 1e-17 erg/s/cm2/A. Quirks:

- HDU1's columns are lower case in some runs and upper case in others; HDU2 has other columns in each run.
- ``loglam`` is float32, which moves pixels by up to 0.005 A. The grid is whole multiples of 1e-4, so it is restored.
- Bad pixels have ivar = 0. ``and_mask`` is not used: its bit 23 (bright sky) stands on good pixels.
- Sky fibres carry a CLASS and a Z all the same; kept on request, they have neither here.
- ``wdisp`` may be 0 at masked ends: then `lsf_sigma` is 0, which means unknown.
- ELODIE_TEFF and its like are those of the best-fitting template, even for white dwarfs: they are no labels.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from .archive import Address
from .builder import Dropped, SpectraBuilder, SurveyConfig
from .fits_access import SPEED_OF_LIGHT, SpectrumFileError, describe, get_column, get_hdu, number, open_fits


GRID_STEP = 1e-4  # dex per pixel
GRID_TOLERANCE = 5e-7  # dex; rounding log10(wavelength) to float32 moves it by up to 2.4e-7
CLASSES = ("GALAXY", "QSO", "STAR")
REQUIRED_COLUMNS = ("PLATE", "MJD", "FIBERID", "CLASS", "Z", "ZWARNING")
TYPE_COLUMNS = ("SOURCETYPE", "OBJTYPE", "TARGETTYPE")
OTHER_COLUMNS = ("PLUG_RA", "PLUG_DEC", *TYPE_COLUMNS)
IDENTIFIER = re.compile(r"(?:(?P<run2d>v?[0-9_]+)/)?(?:spec-)?(?P<plate>\d{1,5})-(?P<mjd>\d{5})-(?P<fiber>\d{1,4})")


@dataclass
class SDSSConfig(SurveyConfig):
    """What an SDSS build depends on.

    Args:
        sky: keep sky fibres.
    """

    sky: bool = False


class SDSS(SpectraBuilder):
    """Rows of SDSS, BOSS and eBOSS ``spec`` files. Option: ``sky=True`` keeps sky fibres."""

    BUILDER_CONFIG_CLASS = SDSSConfig
    VERSION = "1.0.0"
    FILE_NAMES = ("spec-*.fits", "spec-*.fits.gz")
    ARCHIVE = "https://data.sdss.org/sas/dr17"
    IDENTIFIER = "RUN2D/PLATE-MJD-FIBER, such as v5_13_2/3586-55181-0001"
    HOMEPAGE = "https://www.sdss.org"
    CITATION = "SDSS DR17: Abdurro'uf et al. 2022, ApJS 259, 35"

    @staticmethod
    def address(identifier: str) -> Address | None:
        """``RUN2D/PLATE-MJD-FIBER`` -> the lite file of data release 17.

        RUN2D is the catalogue's column of that name: 26, 103 or 104 for SDSS and SEGUE, v5_13_2 for BOSS and eBOSS.
        The archive publishes no checksums that are known here.
        """
        match = IDENTIFIER.fullmatch(identifier)
        if match is None:
            return None
        if match["run2d"] is None:
            raise ValueError(
                f"{identifier}: found no RUN2D; expected {SDSS.IDENTIFIER}, as the catalogue's column RUN2D"
            )
        plate, name = f"{int(match['plate']):04d}", "spec-{:04d}-{}-{:04d}.fits"
        project = "eboss" if match["run2d"].startswith("v") else "sdss"
        name = name.format(int(match["plate"]), match["mjd"], int(match["fiber"]))
        return Address(f"{project}/spectro/redux/{match['run2d']}/spectra/lite/{plate}/{name}")

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
        yield {
            "object_id": "{PLATE:04d}-{MJD}-{FIBERID:04d}".format(**catalogue),
            "source": Path(path).name,
            "frame": "heliocentric",
            "ra": number(catalogue.get("PLUG_RA")),
            "dec": number(catalogue.get("PLUG_DEC")),
            **spectrum,
            **({} if is_sky else read_labels(catalogue)),
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
    wavelength = 10.0 ** restore_grid(get_column(path, hdu, "loglam"))
    has_resolution = "wdisp" in {name.lower() for name in hdu.columns.names}
    return {
        "wavelength": wavelength,
        "flux": get_column(path, hdu, "flux"),
        "ivar": get_column(path, hdu, "ivar"),
        "segment_lengths": [len(wavelength)],
        # wdisp counts pixels
        "lsf_sigma": get_column(path, hdu, "wdisp") * np.gradient(wavelength) if has_resolution else None,
    }


def restore_grid(loglam: np.ndarray) -> np.ndarray:
    """Undo the rounding of log10(wavelength) to float32, where the pixels do lie on multiples of 1e-4 dex."""
    loglam = loglam.astype(np.float64)
    grid = np.round(loglam / GRID_STEP) * GRID_STEP
    return grid if np.abs(loglam - grid).max(initial=0.0) < GRID_TOLERANCE else loglam


def read_catalogue(path: str, hdu: fits.BinTableHDU) -> dict:
    """What is used of HDU2's only row, with upper-case names and stripped strings."""
    for name in REQUIRED_COLUMNS:
        get_column(path, hdu, name)
    if len(hdu.data) != 1:
        raise SpectrumFileError(path, "HDU 2", f"{len(hdu.data)} rows", "one row")
    present = {name.upper() for name in hdu.columns.names}
    values = {name: hdu.data[name][0] for name in (*REQUIRED_COLUMNS, *OTHER_COLUMNS) if name in present}
    return {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}


def is_sky_fibre(catalogue: dict) -> bool:
    """Whether the fibre looked at blank sky: ZWARNING bit 0, or its target type says so."""
    types = (catalogue.get(name) for name in TYPE_COLUMNS)
    return bool(int(catalogue["ZWARNING"]) & 1) or "SKY" in types


def read_labels(catalogue: dict) -> dict:
    """Class and redshift as the pipeline gives them, whatever ZWARNING says; a star's redshift is also its velocity."""
    redshift, name = number(catalogue["Z"]), catalogue["CLASS"]
    return {
        "class": name if name in CLASSES else None,
        "redshift": redshift,
        "radial_velocity": redshift * SPEED_OF_LIGHT if name == "STAR" else np.nan,
    }
