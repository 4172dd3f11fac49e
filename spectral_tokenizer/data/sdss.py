"""SDSS, BOSS and eBOSS spectra: ``spec-PLATE-MJD-FIBER.fits``, lite or full (SDSS data model: "spec"), and plates.

HDU1 is the coadd, HDU2 one row of the pipeline's classification. In full files the single exposures follow, a table
per exposure and arm; on request an exposure is a row, with the blue and the red arm as segments. Wavelengths are in
vacuum and heliocentric, on pixels of exactly 1e-4 dex; flux in 1e-17 erg/s/cm2/A. Quirks:

- HDU1's columns are lower case in some runs and upper case in others; HDU2 has other columns in each run.
- ``loglam`` is float32, which moves pixels by up to 0.005 A. The grid is whole multiples of 1e-4, so it is restored.
- Bad pixels have ivar = 0. ``and_mask`` is not used: its bit 23 (bright sky) stands on good pixels.
- Sky fibres carry a CLASS and a Z all the same; kept on request, they have neither here.
- The exposures' pixels are the detector's, of which SDSS's blue ones run down. Theirs are not whole multiples of 1e-4
  dex.
- ``wdisp`` is the sigma of arc lines in units of 1e-4 dex, in exposures too, and 0 at some masked ones. The night
  sky's lines in the same files are as wide in the red and up to 30 % wider in the blue. A file without it gets the
  nominal resolution (Smee et al. 2013, AJ 146, 32).
- ZWARNING other than MANY_OUTLIERS (bit 4, which good spectra of high S/N have) makes class and redshift unreliable.
- ELODIE_TEFF and its like are those of the best-fitting template, even for white dwarfs: they are no labels.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from .archive import Address
from .builder import Dropped, SpectraBuilder, SurveyConfig
from .catalogues import CatalogueLayout, LabelCut
from .fits_access import SpectrumFileError, Unit, check_unit, describe, get_hdu, number, open_fits
from .fits_tables import column_names, get_columns, get_pixels, text
from .sdss_plates import find_plate_redshifts, is_plate, read_plate
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
    best=("SPECPRIMARY",),
)
LABEL_CUTS = (LabelCut("ZWARNING", "ZWARNING", ("class", "redshift", "radial_velocity"), bits=~(1 << 4)),)
FILE_NAME = re.compile(r"spec-(\d{4,5})-(\d{5})-(\d{4})\.fits(?:\.gz)?")
FLUX_UNIT = Unit(r"1e-17 *erg/cm\^2/s/Ang", "1e-17 erg/cm^2/s/Ang")
EXPOSURE_NAME = re.compile(r"(?P<camera>[BR])(?P<spectrograph>[12])-(?P<exposure>\d{8})")
GRID_STEP = 1e-4  # dex per pixel
GRID_TOLERANCE = 5e-7  # dex; rounding log10(wavelength) to float32 moves it by up to 2.4e-7
REQUIRED_COLUMNS = ("PLATE", "MJD", "FIBERID", "CLASS", "Z", "ZWARNING")
TYPE_COLUMNS = ("SOURCETYPE", "OBJTYPE", "TARGETTYPE")
OTHER_COLUMNS = ("PLUG_RA", "PLUG_DEC", *TYPE_COLUMNS)
IDENTIFIER = re.compile(r"(?:(?P<run2d>v?[0-9_]+)/)?(?:spec-)?(?P<plate>\d{1,5})-(?P<mjd>\d{5})-(?P<fiber>\d{1,4})")
RESOLVING_POWER = ((3700.0, 6000.0, 9000.0), (1560.0, 2060.0, 2650.0))  # at Angstrom; the arms' mean where they meet


@dataclass
class SDSSConfig(SurveyConfig):
    """What an SDSS build depends on.

    Args:
        sky: keep sky fibres.
        exposures: rows are the single exposures of full files, instead of their coadds.
    """

    sky: bool = False
    exposures: bool = False

    def beside(self, file: str) -> str | None:
        return find_plate_redshifts(file)


class SDSS(SpectraBuilder):
    """Rows of SDSS, BOSS and eBOSS ``spec`` and ``spPlate`` files.

    Options: ``sky=True`` keeps sky fibres, ``exposures=True`` gives single exposures instead of coadds.
    ``catalogue`` may be a specObj file or a table of stellar parameters, joined by plate, MJD and fibre.
    """

    BUILDER_CONFIG_CLASS = SDSSConfig
    VERSION = "1.6.0"
    FILE_NAMES = ("spec-*.fits", "spec-*.fits.gz", "spPlate-*.fits", "spPlate-*.fits.gz")
    WAVELENGTHS = (3400.0, 10700.0)
    ARCHIVE = "https://data.sdss.org/sas/dr17"
    IDENTIFIER = "RUN2D/PLATE-MJD-FIBER, such as v5_13_2/3586-55181-0001"
    HOMEPAGE = "https://www.sdss.org"
    CATALOGUE, LABEL_CUTS = CATALOGUE, LABEL_CUTS
    CITATION = "SDSS DR17: Abdurro'uf et al. 2022, ApJS 259, 35"
    ACKNOWLEDGEMENT = (
        "Funding for the Sloan Digital Sky Survey IV has been provided by the Alfred P. Sloan Foundation, the U.S. "
        "Department of Energy Office of Science, and the Participating Institutions. SDSS-IV acknowledges support and "
        "resources from the Center for High Performance Computing at the University of Utah. The SDSS website is "
        "www.sdss4.org. (The institutions: https://www.sdss4.org/collaboration/citing-sdss/)"
    )

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

    def group_files(self, files: Iterable[str]) -> list[tuple[str, ...]]:
        """The files of one fibre together, sorted by their paths: of full and lite file the full one comes first, of
        two reductions "103" before "26", and v5_13_2 before v5_7_0."""
        named = sorted((bare_name(file), file) for file in files)
        units = [
            tuple(file for _, file in group)
            for name, group in itertools.groupby(
                named, key=lambda each: each[0] if FILE_NAME.fullmatch(each[0]) else each
            )
        ]
        return sorted(units)

    def read(self, files: tuple[str, ...]) -> Iterator[dict | Dropped]:
        """The first of a fibre's files that can be read."""
        *others, last = files
        for number_left, path in zip(range(len(others), 0, -1), others):
            try:
                rows = list(self._read_file(path))
            except SpectrumFileError:
                if self.config.strict:
                    raise
                yield Dropped("a damaged file of a fibre that another file holds")
                continue
            yield from rows
            yield from [Dropped("a fibre that another file holds too")] * number_left
            return
        yield from self._read_file(last)

    def _read_file(self, path: str) -> Iterator[dict | Dropped]:
        with open_fits(path) as hdus:
            if is_plate(hdus):
                check_unit(path, hdus[0], FLUX_UNIT)
                for fibre, columns in read_plate(path, hdus):
                    yield self._row(path, fibre, f"#{fibre['FIBERID']}", [columns])
                return
            reject_foreign(path, hdus)
            check_unit(path, hdus[0], FLUX_UNIT)
            fibre = read_catalogue(path, hdus[2])
            reject_renamed(path, fibre)
            spectra = read_exposures(path, hdus) if self.config.exposures else {"": [read_pixels(path, hdus[1])]}
            if not spectra:
                yield Dropped("no single exposures")
            for suffix, arms in spectra.items():
                yield self._row(path, fibre, suffix, arms)

    def _row(self, path: str, fibre: dict, suffix: str, arms: list[dict]) -> dict | Dropped:
        """The row of a fibre's arms, the columns of each as `read_pixels` gives them; a coadd is one arm."""
        is_sky = is_sky_fibre(fibre)
        if is_sky and not self.config.sky:
            return Dropped("sky fibre")
        labels = {"class": fibre.get("CLASS"), "redshift": number(fibre.get("Z"))}
        flags, key = {"ZWARNING": fibre.get("ZWARNING", 0)}, tuple(fibre[name] for name in CATALOGUE.key)
        return {
            "object_id": "{PLATE:04d}-{MJD}-{FIBERID:04d}".format(**fibre),
            "source": Path(path).name + suffix,
            "frame": "heliocentric",
            "ra": number(fibre.get("PLUG_RA")),
            "dec": number(fibre.get("PLUG_DEC")),
            **join_arms(arms),
            **({} if is_sky else self.join_labels(labels, flags, path, key)),
        }


def bare_name(path: str) -> str:
    """A file's name, compressed or not."""
    return os.path.basename(path).removesuffix(".gz")


def reject_foreign(path: str, hdus: fits.HDUList) -> None:
    """Raise `SpectrumFileError` for other products, the old spSpec images among them."""
    if "COEFF0" in hdus[0].header and hdus[0].header["NAXIS"] == 2:
        raise SpectrumFileError(path, "HDU 0", "an image: the legacy spSpec format", "a spec-PLATE-MJD-FIBER file")
    if not all(isinstance(get_hdu(path, hdus, index), fits.BinTableHDU) for index in (1, 2)):
        raise SpectrumFileError(path, "HDUs 1 and 2", describe(hdus), "the tables COADD and SPECOBJ")
    columns = column_names(hdus[1])
    if "and_mask" not in map(str.lower, columns):  # single exposures have only one mask
        raise SpectrumFileError(path, "HDU 1", f"columns {columns[:20]}", "the coadd, which has an and_mask")
    if not hdus[0].header.get("VACUUM", True):
        raise SpectrumFileError(path, "VACUUM", False, "wavelengths in vacuum")


def reject_renamed(path: str, fibre: dict) -> None:
    """Raise `SpectrumFileError` where a file has the name of another fibre: one of the two is wrong. A link may be called
    anything where the file that it leads to has a fibre's name."""
    names = (os.path.basename(os.path.realpath(path)), os.path.basename(path))
    name, found = next(filter(FILE_NAME.fullmatch, names), None), tuple(fibre[key] for key in CATALOGUE.key)
    if name and tuple(map(int, FILE_NAME.fullmatch(name).groups())) != found:
        raise SpectrumFileError(path, "PLATE, MJD, FIBERID", found, f"those of the file's name, {name}")


def read_pixels(path: str, hdu: fits.BinTableHDU) -> dict[str, np.ndarray]:
    """loglam, flux, ivar and, where it is there, wdisp, of the coadd or of an exposure's arm; each (num_pixels,)."""
    return get_pixels(path, hdu, ("loglam", "flux", "ivar"), ("wdisp",))


def read_exposures(path: str, hdus: fits.HDUList) -> dict[str, list[dict[str, np.ndarray]]]:
    """The arms of every exposure, blue first and all in ascending wavelength, by ``#SPECTROGRAPH-EXPOSURE``."""
    exposures: dict[str, list] = {}
    named = ((EXPOSURE_NAME.match(hdu.name), hdu) for hdu in hdus[3:])
    for match, hdu in sorted(((match, hdu) for match, hdu in named if match), key=lambda found: found[0][0]):
        columns = read_pixels(path, hdu)
        if columns["loglam"][0] > columns["loglam"][-1]:
            columns = {name: values[::-1] for name, values in columns.items()}
        exposures.setdefault(f"#{match['spectrograph']}-{match['exposure']}", []).append(columns)
    return dict(sorted(exposures.items()))


def join_arms(arms: list[dict[str, np.ndarray]]) -> dict:
    """The row's pixel columns; the resolution is measured if all arms have it."""
    wavelength = np.concatenate([10.0 ** restore_grid(arm["loglam"]) for arm in arms])
    row = {
        "wavelength": wavelength,
        "flux": np.concatenate([arm["flux"] for arm in arms]),
        "ivar": np.concatenate([arm["ivar"] for arm in arms]),
        "segment_lengths": [len(arm["flux"]) for arm in arms],
    }
    if all("wdisp" in arm and (arm["wdisp"] > 0).any() for arm in arms):
        sigma = np.concatenate([arm["wdisp"] for arm in arms]) * GRID_STEP * np.log(10.0) * wavelength
        return {**row, "lsf_sigma": sigma, "lsf_kind": "measured"}
    resolving_power = np.interp(wavelength, *RESOLVING_POWER)
    return {**row, "lsf_sigma": nominal_sigma(wavelength, resolving_power), "lsf_kind": "nominal"}


def restore_grid(loglam: np.ndarray) -> np.ndarray:
    """Undo the rounding of log10(wavelength) to float32, where the pixels do lie on multiples of 1e-4 dex.

    Raises:
        ValueError: most pixels do, but not all: some were damaged.
    """
    loglam = loglam.astype(np.float64)
    grid = np.round(loglam / GRID_STEP) * GRID_STEP
    is_on_grid = np.abs(loglam - grid) < GRID_TOLERANCE
    if is_on_grid.all():
        return grid
    if is_on_grid.mean() > 0.5:
        first = int(np.argmin(is_on_grid))
        raise ValueError(
            f"loglam: found {loglam[first]} at pixel {first}; expected a multiple of {GRID_STEP}, as others"
        )
    return loglam


def read_catalogue(path: str, hdu: fits.BinTableHDU) -> dict:
    """What is used of HDU2's only row, by upper-case names."""
    columns = get_columns(path, hdu, REQUIRED_COLUMNS, OTHER_COLUMNS)
    if len(columns["PLATE"]) != 1:
        raise SpectrumFileError(path, "HDU 2", f"{len(columns['PLATE'])} rows", "one row")
    values = {name: column[0].item() for name, column in columns.items()}
    return {name: text(value) if isinstance(value, bytes) else value for name, value in values.items()}


def is_sky_fibre(fibre: dict) -> bool:
    """Whether the fibre looked at blank sky: ZWARNING bit 0, or its target type says so."""
    types = (fibre.get(name) for name in TYPE_COLUMNS)
    return bool(int(fibre.get("ZWARNING", 0)) & 1) or "SKY" in types
