"""DESI spectra: ``coadd-*`` and ``spectra-*`` files (DESI data model: DESI_SPECTRO_REDUX, SPECPROD).

One file holds many spectra in up to three cameras, B, R and Z. The cameras overlap in wavelength and stay separate
segments; a missing one is fine, but told as a warning: FITS does not say how many HDUs there should be, so a file that
was cut between two of them looks the same. Cameras of which one has HDUs that another lacks are an error. Wavelengths
are in vacuum and in the barycentric frame, flux in 1e-17 erg/s/cm2/A. ``coadd`` files hold one row per target,
``spectra`` files one per exposure, so there a target may come repeatedly; where both are given, as in the survey's own
folders by tile or by HEALPix, the exposures are left out unless asked for. Quirks:

- ``MASK`` 0 is good, but ivar = 0 is bad whatever it says: dead fibres have 0 in both. Either makes a pixel unusable.
- TARGETID exceeds 2^53: it is an integer here all the way, then text.
- FIBERMAP has 1 to 81 columns, or is absent: then rows are numbered. Left out unless asked for: negative TARGETID
  (stuck positioners), OBJTYPE other than a target (SKY, blank), COADD_FIBERSTATUS or FIBERSTATUS other than 0. An
  OBJTYPE that is blank in all rows says nothing.
- Redshifts stand in another file: ``redrock-`` or ``zbest-`` beside, with the same rest of the name, or `catalogue=`.
  ZWARN other than 0 makes class and redshift unreliable, RVS_WARN the stellar parameters.
- Simulations come in the same format; their headers name desisim. They are left out unless asked for.
- HDUs carry checksums, which are verified.
- ``RESOLUTION`` is a banded matrix (num_spectra, num_diagonals, num_pixels): column j of a band is the response to
  pixel j, and its second moment gives `lsf_sigma`. Files without it get the nominal resolution, 2000 at 3600 A to 5500
  at 9800 A (DESI Collaboration 2022, AJ 164, 207).
"""

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy.io import fits

from .archive import Address
from .builder import Dropped, SpectraBuilder, SurveyConfig
from .catalogues import CatalogueLayout, LabelCut
from .fits_access import (
    SpectrumFileError,
    Unit,
    check_unit,
    describe,
    find_hdu,
    get_hdu,
    get_image,
    native,
    number,
    open_fits,
    verify_checksum,
)
from .fits_tables import get_columns
from .wavelengths import nominal_sigma


logger = logging.getLogger(__name__)

CAMERAS = ("B", "R", "Z")
KINDS = ("WAVELENGTH", "FLUX", "IVAR", "MASK", "RESOLUTION")
ROWS_PER_BLOCK = 32  # read at once: 14 MB, of which the resolution is 11
RESOLVING_POWER = ((3600.0, 9800.0), (2000.0, 5500.0))  # at Angstrom
FLUX_UNIT = Unit(r"^(10\*\*-17|1e-17) erg", "10**-17 erg/(s cm2 Angstrom)")
WAVELENGTH_UNIT = Unit("Angstrom", "Angstrom")
FIBER_COLUMNS = ("COADD_FIBERSTATUS", "FIBERSTATUS", "OBJTYPE", "TARGET_RA", "TARGET_DEC")
CATALOGUE = CatalogueLayout(
    key=("TARGETID",),
    labels={
        "class": ("SPECTYPE",),
        "redshift": ("Z",),
        "radial_velocity": ("VRAD",),  # the Milky Way survey's table
        "teff": ("TEFF",),
        "logg": ("LOGG",),
        "fe_h": ("FEH",),
    },
    flags=("ZWARN", "RVS_WARN"),
    best=("ZCAT_PRIMARY", "PRIMARY"),  # of redshifts; of the Milky Way survey
    hdus=("REDSHIFTS", "ZBEST", "ZCATALOG", "QSO_CAT", "RVTAB"),
    constants={"QSO_CAT": {"class": "QSO"}, "RVTAB": {"class": "STAR"}},
)
LABEL_CUTS = (
    LabelCut("ZWARN", "ZWARN", ("class", "redshift", "radial_velocity")),
    LabelCut("RVS_WARN", "RVS_WARN", ("radial_velocity", "teff", "logg", "fe_h")),
)
HEALPIX = re.compile(r"(?P<survey>[a-z0-9]+)-(?P<program>[a-z]+)-(?P<healpix>\d+)")
TILE = re.compile(r"(?P<petal>\d)-(?P<tile>\d+)-thru(?P<night>\d{8})")


@dataclass
class DESIConfig(SurveyConfig):
    """What a DESI build depends on.

    Args:
        sky: keep fibres that are on no target: negative TARGETID, or OBJTYPE SKY or blank.
        bad_fibers: keep fibres whose status is not 0.
        simulated: keep files made by desisim.
        exposures: keep ``spectra`` files whose ``coadd`` is among the files too.
    """

    sky: bool = False
    bad_fibers: bool = False
    simulated: bool = False
    exposures: bool = False

    def beside(self, file: str) -> str | None:
        return find_redshifts(file)


class DESI(SpectraBuilder):
    """Rows of DESI ``coadd`` and ``spectra`` files.

    Options: ``sky``, ``bad_fibers``, ``simulated``, ``exposures`` (keep them). ``catalogue`` may be a redrock or zbest
    file, a redshift or quasar catalogue or the Milky Way survey's table, joined by TARGETID, instead of the files
    beside.
    """

    BUILDER_CONFIG_CLASS = DESIConfig
    VERSION = "1.6.0"
    FILE_NAMES = ("coadd-*.fits", "coadd-*.fits.gz", "spectra-*.fits", "spectra-*.fits.gz")
    ARCHIVE = "https://data.desi.lbl.gov/public/dr1/spectro/redux/iron"
    IDENTIFIER = "SURVEY-PROGRAM-HEALPIX or PETAL-TILE-thruNIGHT, such as main-dark-10000 or 0-1000-thru20210517"
    CATALOGUE, LABEL_CUTS = CATALOGUE, LABEL_CUTS
    WAVELENGTHS = (3500.0, 9900.0)
    HOMEPAGE = "https://data.desi.lbl.gov/doc"
    CITATION = "DESI DR1: DESI Collaboration 2025, arXiv 2503.14745; files of the EDR: 2024, AJ 168, 58"
    # Part of the data's licence, CC BY 4.0: https://data.desi.lbl.gov/doc/acknowledgments/
    ACKNOWLEDGEMENT = (
        "This research used data obtained with the Dark Energy Spectroscopic Instrument (DESI). DESI construction and "
        "operations is managed by the Lawrence Berkeley National Laboratory. This material is based upon work "
        "supported by the U.S. Department of Energy, Office of Science, Office of High-Energy Physics, under Contract "
        "No. DE–AC02–05CH11231, and by the National Energy Research Scientific Computing Center, a DOE Office of "
        "Science User Facility under the same contract. Additional support for DESI was provided by the U.S. National "
        "Science Foundation (NSF), Division of Astronomical Sciences under Contract No. AST-0950945 to the NSF’s "
        "National Optical-Infrared Astronomy Research Laboratory; the Science and Technology Facilities Council of the "
        "United Kingdom; the Gordon and Betty Moore Foundation; the Heising-Simons Foundation; the French Alternative "
        "Energies and Atomic Energy Commission (CEA); the National Council of Humanities, Science and Technology of "
        "Mexico (CONAHCYT); the Ministry of Science and Innovation of Spain (MICINN), and by the DESI Member "
        "Institutions: www.desi.lbl.gov/collaborating-institutions. The DESI collaboration is honored to be permitted "
        "to conduct scientific research on I’oligam Du’ag (Kitt Peak), a mountain with particular significance to the "
        "Tohono O’odham Nation. Any opinions, findings, and conclusions or recommendations expressed in this material "
        "are those of the author(s) and do not necessarily reflect the views of the U.S. National Science Foundation, "
        "the U.S. Department of Energy, or any of the listed funding agencies."
    )

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
        if not self.config.exposures and not self._coadds.isdisjoint(possible_coadds(path)):
            yield Dropped("file of exposures whose coadd is there")
            return
        with open_fits(path) as hdus:
            cameras = find_cameras(path, hdus)
            fibers = Fibers(path, self.source_name(path), hdus, cameras[0].num_spectra)
            is_simulated = "desisim" in hdus[0].header["DEPNAM*"].values()
            for start in range(0, fibers.num_spectra, ROWS_PER_BLOCK):
                rows = range(start, min(start + ROWS_PER_BLOCK, fibers.num_spectra))
                reasons = [self._why_dropped(fibers, index, is_simulated) for index in rows]
                yield from (Dropped(reason) for reason in reasons if reason)
                if all(reasons):
                    continue
                spectra = read_block(cameras, slice(rows.start, rows.stop))
                for index, reason, spectrum in zip(rows, reasons, spectra):
                    if not reason:
                        yield self._row(path, fibers, index, spectrum)

    @cached_property
    def _coadds(self) -> frozenset[str]:
        return frozenset(file for file in self.config.files if os.path.basename(file).startswith("coadd-"))

    def _why_dropped(self, fibers: "Fibers", index: int, is_simulated: bool) -> str | None:
        """The reason to leave a row out, or None."""
        if is_simulated and not self.config.simulated:
            return "simulated"
        if (reason := fibers.no_target(index)) and not self.config.sky:
            return reason
        if fibers.status[index] != 0 and not self.config.bad_fibers:
            return "bad fibre status"
        return None

    def _row(self, path: str, fibers: "Fibers", index: int, spectrum: dict) -> dict:
        row = {**fibers.provenance(index), **spectrum}
        return row if fibers.no_target(index) else row | self.join_labels({}, {}, path, fibers.target_id(index))


class Fibers:
    """What FIBERMAP says of each row, whichever columns it has."""

    def __init__(self, path: str, file_name: str, hdus: fits.HDUList, num_spectra: int):
        self.file_name, self.num_spectra = file_name, num_spectra
        table = find_hdu(hdus, "FIBERMAP")
        if table is not None:
            verify_checksum(path, table)
        columns = {} if table is None else get_columns(path, table, ("TARGETID",), FIBER_COLUMNS)
        self.target_ids = columns.get("TARGETID")
        if self.target_ids is not None and len(self.target_ids) != num_spectra:
            expected = f"{num_spectra} rows, as FLUX has"
            raise SpectrumFileError(path, "FIBERMAP", f"{len(self.target_ids)} rows", expected)
        status = columns.get("COADD_FIBERSTATUS", columns.get("FIBERSTATUS"))
        self.status = np.zeros(num_spectra, dtype=np.int32) if status is None else status
        types = columns.get("OBJTYPE")
        self.types = None if types is None or not np.char.strip(types).astype(bool).any() else types
        unknown = np.full(num_spectra, np.nan)
        self.ra, self.dec = (columns.get(name, unknown) for name in ("TARGET_RA", "TARGET_DEC"))

    def target_id(self, index: int) -> int | None:
        return None if self.target_ids is None else int(self.target_ids[index])

    def no_target(self, index: int) -> str | None:
        """Why the fibre is on no target, or None if it is on one."""
        if self.target_ids is not None and self.target_ids[index] < 0:
            return "negative TARGETID"
        if self.types is not None and self.types[index].strip() in (b"SKY", b""):
            return "sky fibre" if self.types[index].strip() else "blank OBJTYPE"
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


@dataclass
class Camera:
    """One camera's HDUs; images of (num_spectra, num_pixels).

    Attributes:
        wavelength: (num_pixels,) vacuum Angstrom.
        flux, ivar: images.
        mask: an image, or None.
        resolution: an image of (num_spectra, num_diagonals, num_pixels), or None.
    """

    wavelength: np.ndarray
    flux: fits.ImageHDU
    ivar: fits.ImageHDU
    mask: fits.ImageHDU | None
    resolution: fits.ImageHDU | None

    @property
    def num_spectra(self) -> int:
        return self.flux.shape[0]


def find_cameras(path: str, hdus: fits.HDUList) -> list[Camera]:
    """The cameras of a file; raises `SpectrumFileError` for other products and for shapes that do not belong
    together."""
    found = {name: [kind for kind in KINDS if f"{name}_{kind}" in hdus] for name in CAMERAS}
    found = {name: kinds for name, kinds in found.items() if kinds}
    if not found:
        raise SpectrumFileError(path, "file", describe(hdus), "a coadd or spectra file with HDUs like B_FLUX")
    first = next(iter(found))
    num_spectra = get_hdu(path, hdus, f"{first}_FLUX").shape[0]
    for name, kinds in found.items():
        if odd := set(kinds) ^ set(found[first]):
            raise SpectrumFileError(
                path, f"{name}_{min(odd)}", f"{name} with {kinds}, {first} with {found[first]}", "all cameras alike"
            )
    if len(found) < len(CAMERAS):
        logger.warning("%s: expected cameras %s, found: %s", path, ", ".join(CAMERAS), ", ".join(found))
    return [find_camera(path, hdus, name, num_spectra) for name in found]


def find_camera(path: str, hdus: fits.HDUList, name: str, num_spectra: int) -> Camera:
    """One camera; raises `SpectrumFileError` if its images do not have `num_spectra` rows or its wavelengths'
    length."""
    grid = get_hdu(path, hdus, f"{name}_WAVELENGTH")
    check_unit(path, grid, WAVELENGTH_UNIT)
    verify_checksum(path, grid)
    wavelength = get_image(path, grid).astype(np.float64)
    images = {kind: get_hdu(path, hdus, f"{name}_{kind}") for kind in ("FLUX", "IVAR")}
    images |= {kind: find_hdu(hdus, f"{name}_{kind}") for kind in ("MASK", "RESOLUTION")}
    check_unit(path, images["FLUX"], FLUX_UNIT)
    for kind, image in images.items():
        if image is None:
            continue
        verify_checksum(path, image)
        shape = image.shape
        if kind != "MASK" and image.header["BITPIX"] > 0:
            raise SpectrumFileError(path, f"{name}_{kind}", "integers", "an image of floating-point numbers")
        if kind == "RESOLUTION" and len(shape) == 3:
            shape = (shape[0], shape[2])  # without the diagonals
        expected = (num_spectra, wavelength.size)
        if shape != expected or wavelength.ndim != 1:
            raise SpectrumFileError(path, f"{name}_{kind}", f"shape {image.shape}", f"{expected} spectra and pixels")
    return Camera(wavelength, images["FLUX"], images["IVAR"], images["MASK"], images["RESOLUTION"])


def read_block(cameras: list[Camera], rows: slice) -> list[dict]:
    """Spectra of neighbouring rows, their cameras one after the other; the resolution measured if all cameras have
    it."""
    wavelength = np.concatenate([camera.wavelength for camera in cameras])
    lengths = [len(camera.wavelength) for camera in cameras]
    is_measured = all(camera.resolution is not None for camera in cameras)
    flux, ivar, sigma = np.empty((3, rows.stop - rows.start, len(wavelength)), dtype=np.float32)
    for camera, end in zip(cameras, np.cumsum(lengths)):
        pixels = slice(end - len(camera.wavelength), end)
        flux[:, pixels] = camera.flux.section[rows]
        ivar[:, pixels] = camera.ivar.section[rows]
        if camera.mask is not None:
            ivar[:, pixels][camera.mask.section[rows] != 0] = 0
        if is_measured:
            bands = native(camera.resolution.section[rows], np.float32)
            sigma[:, pixels] = resolution_sigma(bands) * np.gradient(camera.wavelength)
    if not is_measured:
        sigma[:] = nominal_sigma(wavelength, np.interp(wavelength, *RESOLVING_POWER))
    kind = "measured" if is_measured else "nominal"
    common = {"wavelength": wavelength, "segment_lengths": lengths, "lsf_kind": kind}
    return [{**common, "flux": flux[k], "ivar": ivar[k], "lsf_sigma": sigma[k]} for k in range(len(flux))]


def resolution_sigma(bands: np.ndarray) -> np.ndarray:
    """Second moment about the mean of banded resolution matrices, in pixels.

    Args:
        bands: (..., num_diagonals, num_pixels), the diagonals from the highest offset down.

    Returns:
        (..., num_pixels), NaN where the band is empty.
    """
    half = bands.shape[-2] // 2
    offset = np.arange(half, half - bands.shape[-2], -1, dtype=bands.dtype)
    total, first, second = np.moveaxis(np.stack([np.ones_like(offset), offset, offset**2]) @ bands, -2, 0)
    total = np.where(total > 0, total, np.nan)
    variance = second / total - (first / total) ** 2
    return np.sqrt(np.where(variance > 0, variance, np.nan))


def possible_coadds(file: str) -> set[str]:
    """Names that the coadd of a file of exposures may have; none for other files."""
    folder, name = os.path.split(file)
    kind, _, rest = name.removesuffix(".gz").partition("-")
    path = os.path.join(folder, f"coadd-{rest}")
    return {path, path + ".gz"} if kind == "spectra" else set()


def find_redshifts(file: str) -> str | None:
    """The redrock or zbest file beside a coadd or spectra file, if there is one."""
    folder, name = os.path.split(file)
    _, _, rest = name.partition("-")
    candidates = (os.path.join(folder, f"{kind}-{rest.removesuffix('.gz')}") for kind in ("redrock", "zbest"))
    found = [path for candidate in candidates for path in (candidate, candidate + ".gz") if os.path.isfile(path)]
    return found[0] if rest and found else None
