"""APOGEE spectra: ``apStar``, ``aspcapStar`` and ``apVisit`` files (SDSS data models of these names).

All are in vacuum, flux and error in 1e-17 erg/s/cm2/A, but aspcapStar's are relative to the pseudo-continuum. The three
chips are segments, in ascending wavelength. Quirks:

- apStar and aspcapStar: 8,575 pixels, log10(wavelength) = 4.179 + 6e-6 i, in the star's REST frame. The gaps between
  the chips are blank pixels whose place depends on the star's velocity; a segment ends inside a gap.
- apStar: row 0 is the combined spectrum used here, row 1 another combination, visits follow; with one visit the arrays
  are 1-D. Bad pixels have flux 0 and error 1e10.
- Bad pixels: bits 0 to 7 and 14 of the pixel mask. Persistence (9 to 11) and sky lines stand on very many good pixels.
- aspcapStar has no pixel mask; the error is 0 in gaps and 10 on bad pixels.
- apVisit: (3, num_pixels), the red chip first and wavelengths running down; in the OBSERVED frame.
- Some headers hold an unparsable card (AKWISE): only named keys are read.
- Labels are calibrated PARAM values (-9999: none), so only aspcapStar has them; `fe_h` is ASPCAP's overall
  metallicity [M/H], which is tied to [Fe/H]. RVTEFF and its like are grid points of a template. VHELIO of a single
  visit fails at times (by hundreds of km/s for M dwarfs) and is passed on as it stands.
- The line spread function is Gauss-Hermite coefficients or absent: `lsf_sigma` is empty.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from astropy.io import fits

from .archive import Address
from .builder import SpectraBuilder
from .fits_access import SpectrumFileError, describe, get_column, native, number, open_fits


BAD_BITS = sum(1 << bit for bit in (*range(8), 14))
BLANK_ERROR = 1e9  # apStar writes 1e10 on pixels without data
ASPCAP_BAD_ERROR = 10.0
CHIP_GAPS = (15834.0, 16454.0)  # Angstrom, centres of the gaps between the chips for a star at rest
GAP_SEARCH = 40.0  # Angstrom to either side: 700 km/s
IDENTIFIER = re.compile(
    r"(?:(?P<product>apStar|asStar|aspcapStar)/)?(?P<telescope>apo25m|apo1m|lco25m)/(?P<field>[^/]+)/(?P<star>[^/]+)"
)
STAR = re.compile(r"2M\d{8}[+-]\d{7}")
MIN_GAP_PIXELS = 100  # the gaps have 170 and more; bad columns have less


class APOGEE(SpectraBuilder):
    """Rows of APOGEE ``apStar``, ``aspcapStar`` and ``apVisit`` files; which one a file is, is found by its content."""

    VERSION = "1.0.1"
    FILE_NAMES = tuple(
        f"{name}-*.fits{suffix}"
        for name in ("apStar", "asStar", "aspcapStar", "apVisit", "asVisit")
        for suffix in ("", ".gz")
    )
    ARCHIVE = "https://data.sdss.org/sas/dr17/apogee/spectro"
    IDENTIFIER = "TELESCOPE/FIELD/APOGEE_ID, such as apo25m/M53/2M13121982+1731016, or aspcapStar/TELESCOPE/..."
    HOMEPAGE = "https://www.sdss.org/surveys/apogee"
    CITATION = "APOGEE: Majewski et al. 2017, AJ 154, 94"

    @staticmethod
    def address(identifier: str) -> Address | None:
        """``TELESCOPE/FIELD/APOGEE_ID`` -> the apStar file of data release 17 (asStar, if the telescope is lco25m).

        ``aspcapStar/`` before it asks for that product. TELESCOPE and FIELD are columns of the allStar catalogue: an
        APOGEE_ID alone does not lead to a file.
        """
        if STAR.fullmatch(identifier):
            raise ValueError(f"{identifier}: found no telescope and field; expected {APOGEE.IDENTIFIER}")
        match = IDENTIFIER.fullmatch(identifier)
        if match is None:
            return None
        telescope, folder = match["telescope"], f"{match['telescope']}/{match['field']}"
        if match["product"] == "aspcapStar":
            return Address(f"aspcap/dr17/synspec_rev1/{folder}/aspcapStar-dr17-{match['star']}.fits")
        product = "asStar" if telescope == "lco25m" else "apStar"
        return Address(f"redux/dr17/stars/{folder}/{product}-dr17-{match['star']}.fits")

    def read(self, files: tuple[str, ...]) -> Iterator[dict]:
        (path,) = files
        with open_fits(path) as hdus:
            header = hdus[0].header
            row = {
                "object_id": str(header.get("OBJID") or header.get("OBJ") or "").strip(),
                "source": Path(path).name,
                "class": "STAR",
                "ra": number(header.get("RA")),
                "dec": number(header.get("DEC")),
                "radial_velocity": number(header.get("VHELIO")),
                **PRODUCTS[find_product(path, hdus)](path, hdus),
            }
        yield row


def find_product(path: str, hdus: fits.HDUList) -> str:
    """Which of the three products a file is, by its content; raises `SpectrumFileError` for any other."""
    units = [str(hdu.header.get("BUNIT", "")) for hdu in hdus[1:5]] + [""] * 4
    is_log = len(hdus) > 2 and str(hdus[1].header.get("CTYPE1", "")).startswith("LOG")
    if is_log and len(hdus) > 4 and isinstance(hdus[4], fits.BinTableHDU) and "PARAM" in hdus[4].columns.names:
        return "aspcapStar"
    if is_log and units[0].startswith("Flux") and units[2].startswith("Flag"):
        return "apStar"
    if units[0].startswith("Flux") and units[3].startswith("Wavelength") and hdus[4].header.get("NAXIS2") == 3:
        return "apVisit"
    found = f"{describe(hdus)} with units {units[:4]}"
    raise SpectrumFileError(path, "file", found, "an apStar, aspcapStar or apVisit file")


def read_star(path: str, hdus: fits.HDUList) -> dict:
    """The combined spectrum of an apStar file."""
    flux, error, flags = (native(np.atleast_2d(hdus[index].data)[0]) for index in (1, 2, 3))
    is_usable = ((flags.astype(np.int64) & BAD_BITS) == 0) & (error > 0) & (error < BLANK_ERROR)
    return log_spectrum(hdus[1].header, flux, error, is_usable, is_blank=flux == 0)


def read_aspcap(path: str, hdus: fits.HDUList) -> dict:
    """The pseudo-continuum normalised spectrum and the calibrated labels of an aspcapStar file."""
    flux, error = native(hdus[1].data), native(hdus[2].data)
    is_usable = (error > 0) & (error < ASPCAP_BAD_ERROR)
    teff, logg, _, metallicity = get_column(path, hdus[4], "PARAM")[0][:4]
    labels = {"teff": number(teff), "logg": number(logg), "fe_h": number(metallicity)}
    return {**log_spectrum(hdus[1].header, flux, error, is_usable, is_blank=flux == 0), **labels}


def read_visit(path: str, hdus: fits.HDUList) -> dict:
    """One visit's spectrum. Reversing (chip, pixel) altogether makes both chips and pixels ascend."""
    flux, error, flags, wavelength = (native(hdus[index].data).ravel()[::-1] for index in (1, 2, 3, 4))
    is_usable = ((flags.astype(np.int64) & BAD_BITS) == 0) & (error > 0) & (error < BLANK_ERROR)
    return {
        "frame": "observed",
        "wavelength": wavelength,
        "flux": flux,
        "ivar": inverse_variance(error, is_usable),
        "segment_lengths": [hdus[4].shape[1]] * 3,
    }


PRODUCTS = {"apStar": read_star, "aspcapStar": read_aspcap, "apVisit": read_visit}


def log_spectrum(
    header: fits.Header, flux: np.ndarray, error: np.ndarray, is_usable: np.ndarray, is_blank: np.ndarray
) -> dict:
    """The columns common to the rest-frame products, on their log-linear grid."""
    pixel = np.arange(len(flux)) + 1 - header.get("CRPIX1", 1)
    wavelength = 10.0 ** (header["CRVAL1"] + header["CDELT1"] * pixel)
    return {
        "frame": "rest",
        "wavelength": wavelength,
        "flux": flux,
        "ivar": inverse_variance(error, is_usable),
        "segment_lengths": chip_lengths(wavelength, is_blank),
    }


def inverse_variance(error: np.ndarray, is_usable: np.ndarray) -> np.ndarray:
    """1 / error^2 where usable, else 0."""
    return np.where(is_usable, 1.0 / np.where(is_usable, error, 1.0).astype(np.float64) ** 2, 0.0)


def chip_lengths(wavelength: np.ndarray, is_blank: np.ndarray) -> list[int]:
    """Pixels per chip on the common grid, cut inside the gaps.

    All stars are cut at the same pixels, the middle of the gap of a star at rest, so that a patch of one star covers
    the pixels of the same patch of another. Where data stand there (a star beyond some 350 km/s) the cut goes to the
    middle of the long blank run nearby.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_blank.astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    is_gap = ends - starts >= MIN_GAP_PIXELS
    middles = (starts + ends)[is_gap] // 2
    cuts = []
    for gap in CHIP_GAPS:
        cut = int(np.searchsorted(wavelength, gap))
        is_near = np.abs(np.interp(middles, np.arange(len(wavelength)), wavelength) - gap) < GAP_SEARCH
        if cut < len(wavelength) and not is_blank[cut] and is_near.any():
            cut = int(middles[is_near][0])
        cuts.append(cut)
    return [length for length in np.diff([0, *cuts, len(wavelength)]).tolist() if length > 0]
