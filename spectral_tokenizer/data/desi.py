"""DESI spectra: ``coadd-*`` and ``spectra-*`` files (DESI data model: DESI_SPECTRO_REDUX, SPECPROD).

One file holds many spectra in up to three cameras, B, R and Z. The cameras overlap in wavelength and stay separate
segments; a missing one is fine. Wavelengths are in vacuum and in the barycentric frame, flux in 1e-17 erg/s/cm2/A.
``coadd`` files hold one row per target, ``spectra`` files one per exposure, so there a target may come repeatedly.
Quirks:

- ``MASK`` 0 is good, but ivar = 0 is bad whatever it says: dead fibres have 0 in both. Either makes a pixel unusable.
- TARGETID exceeds 2^53: it is an integer here all the way, then text.
- FIBERMAP has 1 to 81 columns, or is absent: then rows are numbered. Left out unless asked for: negative TARGETID
  (stuck positioners), OBJTYPE other than a target (SKY, blank), COADD_FIBERSTATUS or FIBERSTATUS other than 0. An
  OBJTYPE that is blank in all rows says nothing.
- Redshifts stand in another file: ``redrock-`` or ``zbest-`` beside, with the same rest of the name, or `redshifts=`.
- Simulations come in the same format; their headers name desisim. They are left out unless asked for.
- ``RESOLUTION`` is a banded matrix (num_spectra, num_diagonals, num_pixels): column j of a band is the response to
  pixel j, and its second moment gives `lsf_sigma`. At the ends of a camera the band is cut and the value too small.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from .archive import Address
from .builder import Dropped, SpectraBuilder, SurveyConfig
from .fits_access import SPEED_OF_LIGHT, SpectrumFileError, describe, get_column, get_hdu, native, number, open_fits


CAMERAS = ("B", "R", "Z")
REDSHIFT_HDUS = ("REDSHIFTS", "ZBEST", "ZCATALOG", "QSO_CAT")
CLASSES = ("GALAXY", "QSO", "STAR")
HEALPIX = re.compile(r"(?P<survey>[a-z0-9]+)-(?P<program>[a-z]+)-(?P<healpix>\d+)")
TILE = re.compile(r"(?P<petal>\d)-(?P<tile>\d+)-thru(?P<night>\d{8})")


@dataclass
class DESIConfig(SurveyConfig):
    """What a DESI build depends on.

    Args:
        sky: keep fibres that are on no target: negative TARGETID, or OBJTYPE SKY or blank.
        bad_fibers: keep fibres whose status is not 0.
        simulated: keep files made by desisim.
        redshifts: a redrock, zbest or QSO catalogue for all files, instead of the ones beside them.
    """

    sky: bool = False
    bad_fibers: bool = False
    simulated: bool = False
    redshifts: str | None = None

    def companions(self) -> list[str]:
        if self.redshifts is not None:
            return [str(self.redshifts)]
        return [found for file in self.files if (found := find_redshifts(file))]


class DESI(SpectraBuilder):
    """Rows of DESI ``coadd`` and ``spectra`` files.

    Options: ``sky``, ``bad_fibers``, ``simulated`` (keep them), ``redshifts`` (a catalogue).
    """

    BUILDER_CONFIG_CLASS = DESIConfig
    VERSION = "1.0.0"
    FILE_NAMES = ("coadd-*.fits", "coadd-*.fits.gz", "spectra-*.fits", "spectra-*.fits.gz")
    ARCHIVE = "https://data.desi.lbl.gov/public/dr1/spectro/redux/iron"
    IDENTIFIER = "SURVEY-PROGRAM-HEALPIX or PETAL-TILE-thruNIGHT, such as main-dark-10000 or 0-1000-thru20210517"
    HOMEPAGE = "https://data.desi.lbl.gov/doc"
    CITATION = "DESI EDR: DESI Collaboration 2024, AJ 168, 58"

    @staticmethod
    def address(identifier: str) -> Address | None:
        """What stands after ``coadd-`` -> the coadd of data release 1 (iron), its redrock file and their checksums.

        ``SURVEY-PROGRAM-HEALPIX`` for the targets of a healpix, coadded over tiles, or ``PETAL-TILE-thruNIGHT`` for
        those of a tile's petal (cumulative). Which healpix a TARGETID is in, the redshift catalogues say.
        """
        if match := HEALPIX.fullmatch(identifier):
            pixel = int(match["healpix"])
            folder = f"healpix/{match['survey']}/{match['program']}/{pixel // 100}/{pixel}"
        elif match := TILE.fullmatch(identifier):
            folder = f"tiles/cumulative/{match['tile']}/{match['night']}"
        else:
            return None
        sums = f"{folder}/redux_iron_{folder.replace('/', '_')}.sha256sum"
        return Address(f"{folder}/coadd-{identifier}.fits", (f"{folder}/redrock-{identifier}.fits",), sums)

    def read(self, files: tuple[str, ...]) -> Iterator[dict | Dropped]:
        (path,) = files
        with open_fits(path) as hdus:
            cameras = find_cameras(path, hdus)
            num_spectra = len(hdus[f"{cameras[0]}_FLUX"].data)
            fibers = Fibers(path, hdus, num_spectra)
            labels = self._read_labels(path)
            is_simulated = "desisim" in hdus[0].header["DEPNAM*"].values()
            wavelengths = [native(hdus[f"{camera}_WAVELENGTH"].data, np.float64) for camera in cameras]
            for index in range(num_spectra):
                if is_simulated and not self.config.simulated:
                    yield Dropped("simulated")
                elif (reason := fibers.no_target(index)) and not self.config.sky:
                    yield Dropped(reason)
                elif fibers.status[index] != 0 and not self.config.bad_fibers:
                    yield Dropped("bad fibre status")
                else:
                    pixels = [read_pixels(hdus, camera, index) for camera in cameras]
                    yield {
                        **fibers.provenance(index),
                        **join_cameras(wavelengths, pixels),
                        **labels.get(fibers.target_id(index), {}),
                    }

    def _read_labels(self, path: str) -> dict[int, dict]:
        """Labels by TARGETID. A catalogue that serves all files is read once."""
        if self.config.redshifts is None:
            found = find_redshifts(path)
            return read_redshifts(found) if found else {}
        if not hasattr(self, "_labels"):
            self._labels = read_redshifts(self.config.redshifts)
        return self._labels


class Fibers:
    """What FIBERMAP says of each row, whichever columns it has."""

    def __init__(self, path: str, hdus: fits.HDUList, num_spectra: int):
        self.file_name = Path(path).name
        has_table = "FIBERMAP" in hdus
        table = hdus["FIBERMAP"] if has_table else fits.BinTableHDU()
        names = table.columns.names
        self.target_ids = get_column(path, table, "TARGETID") if has_table else None
        if has_table and len(self.target_ids) != num_spectra:
            expected = f"{num_spectra} rows, as FLUX has"
            raise SpectrumFileError(path, "FIBERMAP", f"{len(self.target_ids)} rows", expected)
        status = [name for name in ("COADD_FIBERSTATUS", "FIBERSTATUS") if name in names]
        self.status = get_column(path, table, status[0]) if status else np.zeros(num_spectra, dtype=np.int32)
        types = [str(value).strip() for value in table.data["OBJTYPE"]] if "OBJTYPE" in names else []
        self.types = types if any(types) else None
        self.ra, self.dec = (
            get_column(path, table, name) if name in names else np.full(num_spectra, np.nan)
            for name in ("TARGET_RA", "TARGET_DEC")
        )

    def target_id(self, index: int) -> int | None:
        return None if self.target_ids is None else int(self.target_ids[index])

    def no_target(self, index: int) -> str | None:
        """Why the fibre is on no target, or None if it is on one."""
        if self.target_ids is not None and self.target_ids[index] < 0:
            return "negative TARGETID"
        if self.types is not None and self.types[index] in ("SKY", ""):
            return "sky fibre" if self.types[index] else "blank OBJTYPE"
        return None

    def provenance(self, index: int) -> dict:
        target_id = self.target_id(index)
        return {
            "object_id": f"{self.file_name}#{index}" if target_id is None else str(target_id),
            "source": f"{self.file_name}#{index}",
            "frame": "barycentric",
            "ra": number(self.ra[index]),
            "dec": number(self.dec[index]),
        }


def find_cameras(path: str, hdus: fits.HDUList) -> list[str]:
    """The cameras of a file; raises `SpectrumFileError` for other products and for shapes that do not belong together."""
    cameras = [camera for camera in CAMERAS if f"{camera}_FLUX" in hdus]
    if not cameras:
        raise SpectrumFileError(path, "file", describe(hdus), "a coadd or spectra file with HDUs like B_FLUX")
    num_spectra = get_hdu(path, hdus, f"{cameras[0]}_FLUX").shape[0]
    for camera in cameras:
        expected = (num_spectra, *get_hdu(path, hdus, f"{camera}_WAVELENGTH").shape)
        for name in ("FLUX", "IVAR", "MASK"):
            if (name != "MASK" or f"{camera}_MASK" in hdus) and (
                (found := get_hdu(path, hdus, f"{camera}_{name}").shape) != expected
            ):
                raise SpectrumFileError(path, f"{camera}_{name}", f"shape {found}", f"shape {expected}")
    return cameras


def read_pixels(hdus: fits.HDUList, camera: str, index: int) -> dict:
    """One spectrum in one camera; arrays (num_pixels,)."""
    ivar = native(hdus[f"{camera}_IVAR"].data[index])
    if f"{camera}_MASK" in hdus:
        ivar[hdus[f"{camera}_MASK"].data[index] != 0] = 0
    resolution = hdus[f"{camera}_RESOLUTION"].data[index] if f"{camera}_RESOLUTION" in hdus else None
    return {
        "flux": native(hdus[f"{camera}_FLUX"].data[index]),
        "ivar": ivar,
        "sigma_pixels": None if resolution is None else resolution_sigma(resolution),
    }


def resolution_sigma(resolution: np.ndarray) -> np.ndarray:
    """Second moment of a banded resolution matrix, in pixels.

    Args:
        resolution: (num_diagonals, num_pixels), the diagonals from the highest offset down.

    Returns:
        (num_pixels,), NaN where the band is empty.
    """
    resolution = native(resolution, np.float64)
    half = resolution.shape[0] // 2
    offset = np.arange(half, half - resolution.shape[0], -1.0)[:, None]
    total = resolution.sum(axis=0)
    total = np.where(total > 0, total, np.nan)
    mean = (offset * resolution).sum(axis=0) / total
    variance = (offset**2 * resolution).sum(axis=0) / total - mean**2
    return np.sqrt(np.where(variance > 0, variance, np.nan))


def join_cameras(wavelengths: list[np.ndarray], pixels: list[dict]) -> dict:
    """The cameras one after the other; the resolution only if all of them have one."""
    lsf_sigma = None
    if all(camera["sigma_pixels"] is not None for camera in pixels):
        steps = [np.gradient(wavelength) for wavelength in wavelengths]
        lsf_sigma = np.concatenate([camera["sigma_pixels"] * step for camera, step in zip(pixels, steps)])
    return {
        "wavelength": np.concatenate(wavelengths),
        "flux": np.concatenate([camera["flux"] for camera in pixels]),
        "ivar": np.concatenate([camera["ivar"] for camera in pixels]),
        "segment_lengths": [len(wavelength) for wavelength in wavelengths],
        "lsf_sigma": lsf_sigma,
    }


def find_redshifts(file: str) -> str | None:
    """The redrock or zbest file beside a coadd or spectra file, if there is one."""
    folder, name = os.path.split(file)
    _, _, rest = name.partition("-")
    candidates = (os.path.join(folder, f"{kind}-{rest.removesuffix('.gz')}") for kind in ("redrock", "zbest"))
    found = [path for candidate in candidates for path in (candidate, candidate + ".gz") if os.path.isfile(path)]
    return found[0] if rest and found else None


def read_redshifts(path: str) -> dict[int, dict]:
    """Class and redshift by TARGETID, whatever ZWARN says; of a repeated TARGETID the first row.

    A QSO catalogue has no SPECTYPE: all its rows are quasars.
    """
    with open_fits(path) as hdus:
        names = [name for name in REDSHIFT_HDUS if name in hdus]
        if not names:
            raise SpectrumFileError(path, "file", describe(hdus), f"one of the HDUs {REDSHIFT_HDUS}")
        table = hdus[names[0]]
        targets, redshifts = get_column(path, table, "TARGETID"), get_column(path, table, "Z")
        if names[0] == "QSO_CAT":
            classes = ["QSO"] * len(targets)
        else:
            classes = [str(value).strip() for value in get_column(path, table, "SPECTYPE")]
    labels: dict[int, dict] = {}
    for target, redshift, name in zip(targets.tolist(), redshifts.tolist(), classes):
        velocity = redshift * SPEED_OF_LIGHT if name == "STAR" else np.nan
        label = {"class": name if name in CLASSES else None, "redshift": redshift, "radial_velocity": velocity}
        labels.setdefault(target, label)
    return labels
