"""APOGEE spectra: ``apStar``, ``aspcapStar`` and ``apVisit`` files (SDSS data models of these names).

All are in vacuum, flux and error in 1e-17 erg/s/cm2/A, but aspcapStar's are relative to the pseudo-continuum. The
three chips are segments, in ascending wavelength. Quirks:

- apStar and aspcapStar: 8,575 pixels, log10(wavelength) = 4.179 + 6e-6 i, in the star's REST frame. The gaps between
  the chips are blank pixels whose place depends on the star's velocity; a segment ends inside a gap.
- apStar: row 0 is the combined spectrum used here, row 1 another combination, visits follow, at rest too; with one
  visit the arrays are 1-D. On request the visits are rows, each with its own velocity. Bad pixels have flux 0 and
  error 1e10.
- Bad pixels: bits 0 to 7 and 14 of the pixel mask. Persistence (9 to 11) and sky lines stand on very many good pixels.
- aspcapStar has no pixel mask; the error is 0 in gaps and 10 on bad pixels.
- apVisit: (3, num_pixels), the red chip first and wavelengths running down; in the OBSERVED frame.
- Some headers hold an unparsable card (AKWISE): only named keys are read.
- The pipeline of data release 17 (sdss/apogee, apload.py and aspcap.py) names units otherwise ("Err", "Pixel bitmask"),
  and leaves aspcapStar's primary header empty: who the star is stands in the table of HDU 4. Later ones have VHBARY, the
  barycentric velocity (within 0.02 km/s), in place of VHELIO. No such file was at hand.
- ASPCAPFLAG's bits STAR_BAD, TEFF_BAD, LOGG_BAD and M_H_BAD make those labels unreliable, and STARFLAG's
  BAD_RV_COMBINATION (off by some 10 km/s) the mean velocity; SUSPECT_RV_COMBINATION (2 km/s) is a warning, and no cut.
- Labels are calibrated PARAM values (-9999: none), so only aspcapStar has them; `fe_h` is ASPCAP's overall
  metallicity [M/H], which is tied to [Fe/H]. RVTEFF and its like are grid points of a template.
- VHELIO of a single visit fails at times, by hundreds of km/s for M dwarfs: it is unreliable where an apVisit's three
  chips disagree (VSCATTER). It is heliocentric also where the spectrum, in the observed frame, is shifted otherwise.
- apStar and apVisit carry the line spread function as Gauss-Hermite coefficients, as functions of pixel + X0, for each
  chip or for the combined grid; `lsf_sigma` is its FWHM over 2.3548 (second moments would be those of far wings).
  aspcapStar has none and gets the nominal resolving power, 22,500 (Majewski et al. 2017).
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.polynomial import hermite_e, polynomial

from .archive import Address
from .builder import Dropped, SpectraBuilder, SurveyConfig
from .catalogues import CatalogueLayout, LabelCut
from .fits_access import SpectrumFileError, Unit, check_unit, describe, get_image, native, number, open_fits
from .fits_tables import column_names, get_columns, text
from .sdss import SDSS
from .wavelengths import FWHM_PER_SIGMA, nominal_sigma


CATALOGUE = CatalogueLayout(
    key=("APOGEE_ID",),
    labels={
        "radial_velocity": ("VHELIO_AVG",),
        "teff": ("TEFF",),
        "logg": ("LOGG",),
        "fe_h": ("M_H", "PARAM_M_H", "FE_H"),
        "ra": ("RA",),
        "dec": ("DEC",),
    },
    flags=("ASPCAPFLAG", "STARFLAG"),
    best=("SNR",),
    is_text=True,
)
LABEL_CUTS = (
    LabelCut("STAR_BAD", "ASPCAPFLAG", ("teff", "logg", "fe_h"), bits=1 << 23),
    LabelCut("TEFF_BAD", "ASPCAPFLAG", ("teff",), bits=1 << 16),
    LabelCut("LOGG_BAD", "ASPCAPFLAG", ("logg",), bits=1 << 17),
    LabelCut("M_H_BAD", "ASPCAPFLAG", ("fe_h",), bits=1 << 19),
    LabelCut("BAD_RV_COMBINATION", "STARFLAG", ("radial_velocity",), bits=1 << 18),
    LabelCut("VSCATTER", "VSCATTER", ("radial_velocity",), of_file=True),
)
# km/s. The visits here that differ from their apStar by 125 to 590 all have 10.8 and more.
MAX_VISIT_SCATTER = 10.0
BAD_BITS = sum(1 << bit for bit in (*range(8), 14))
BLANK_ERROR = 1e9  # apStar writes 1e10 on pixels without data
ASPCAP_BAD_ERROR = 10.0
FLUX_UNIT = Unit(r"^Flux \(10\^-17", "Flux (10^-17 erg/s/cm^2/Ang)")
IDENTITY, VELOCITIES = (
    ("OBJID", "OBJ", "RA", "DEC"),
    ("VHELIO", "VHBARY"),
)  # a header's; visits' have their number behind
STAR = re.compile(r"2M\d{8}[+-]\d{7}")
GRID = (4.179, 6e-6)  # log10 of the first wavelength in Angstrom, and step: of every star and release
CHIP_GAPS = (15834.0, 16454.0)  # Angstrom, centres of the gaps between the chips for a star at rest
GAP_SEARCH = 40.0  # Angstrom to either side: 700 km/s
IDENTIFIER = re.compile(
    r"(?:(?P<product>apStar|asStar|aspcapStar)/)?(?P<telescope>apo25m|apo1m|lco25m)/(?P<field>[^/]+)/(?P<star>[^/]+)"
)
RESOLVING_POWER = 22500.0
LIKELY_RESOLVING_POWER = (10000.0, 40000.0)  # coefficients that say otherwise are not believed
MIN_GAP_PIXELS = 100  # the gaps have 170 and more; bad columns have less


@dataclass
class APOGEEConfig(SurveyConfig):
    """What an APOGEE build depends on.

    Args:
        visits: rows are the visits inside apStar files, instead of their combinations.
    """

    visits: bool = False


class APOGEE(SpectraBuilder):
    """Rows of APOGEE ``apStar``, ``aspcapStar`` and ``apVisit`` files; which one a file is, is found by its content.

    Option: ``visits=True`` gives the visits inside apStar files instead of their combinations. ``catalogue`` may be an
    allStar file, joined by APOGEE_ID; of a star observed in several fields, its best spectrum's labels.
    """

    BUILDER_CONFIG_CLASS = APOGEEConfig
    VERSION = "1.7.0"
    FILE_NAMES = tuple(
        f"{name}-*.fits{suffix}"
        for name in ("apStar", "asStar", "aspcapStar", "apVisit", "asVisit")
        for suffix in ("", ".gz")
    )
    ARCHIVE = "https://data.sdss.org/sas/dr17/apogee/spectro"
    IDENTIFIER = "TELESCOPE/FIELD/APOGEE_ID, such as apo25m/M53/2M13121982+1731016, or aspcapStar/TELESCOPE/..."
    CATALOGUE, LABEL_CUTS = CATALOGUE, LABEL_CUTS
    WAVELENGTHS = (15000.0, 17100.0)
    HOMEPAGE = "https://www.sdss.org/surveys/apogee"
    CITATION = "APOGEE: Majewski et al. 2017, AJ 154, 94; SDSS DR17: Abdurro'uf et al. 2022, ApJS 259, 35"
    ACKNOWLEDGEMENT = SDSS.ACKNOWLEDGEMENT  # APOGEE-2 is a part of SDSS-IV

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

    def read(self, files: tuple[str, ...]) -> Iterator[dict | Dropped]:
        (path,) = files
        with open_fits(path) as hdus:
            product = find_product(path, hdus)
            if self.config.visits and product == "aspcapStar":
                yield Dropped("no visits")
                return
            if product != "aspcapStar":
                check_unit(path, hdus[1], FLUX_UNIT)
            spectra, labels, flags = PRODUCTS[product](path, hdus, self.config.visits)
            star = read_identity(path, hdus, product)
            apogee_id = star["OBJID"]
            labels |= {"class": "STAR", "ra": number(star.get("RA")), "dec": number(star.get("DEC"))}
            if (match := STAR.search(Path(path).name)) and match[0] != apogee_id:
                raise SpectrumFileError(path, "OBJID", apogee_id, "the star in the file's name")
            for visit, spectrum in spectra.items():
                velocity = {"radial_velocity": number(star.get(f"VHELIO{visit}", star.get(f"VHBARY{visit}")))}
                row = {"object_id": apogee_id, "source": Path(path).name + (f"#{visit}" if visit else ""), **spectrum}
                # The catalogue's velocity is the mean of the visits.
                own = tuple(velocity) if visit or product == "apVisit" else ()
                yield row | self.join_labels(labels | velocity, flags, path, apogee_id, own)


def find_product(path: str, hdus: fits.HDUList) -> str:
    """Which of the three products a file is, by its content; raises `SpectrumFileError` for any other."""
    units = [str(hdu.header.get("BUNIT", "")) for hdu in hdus[1:5]] + [""] * 4
    is_log = len(hdus) > 2 and str(hdus[1].header.get("CTYPE1", "")).startswith("LOG")
    if is_log and len(hdus) > 4 and "PARAM" in column_names(hdus[4]):
        return "aspcapStar"
    is_flux = all(map(re.match, (r"Flux \(", ".*Err", "Flag|Pixel bitmask"), units))
    if is_log and is_flux:
        return "apStar"
    if is_flux and units[3].startswith("Wavelength") and hdus[4].header.get("NAXIS2") == 3:
        return "apVisit"
    found = f"{describe(hdus)} with units {units[:4]}"
    raise SpectrumFileError(path, "file", found, "an apStar, aspcapStar or apVisit file")


def read_identity(path: str, hdus: fits.HDUList, product: str) -> dict:
    """Who the star is, where, and its velocities, by the names of apStar's primary header: from there or, where it is
    empty in an aspcapStar file, from the table. Raises `SpectrumFileError` for a star without a name."""
    header = hdus[0].header
    star = {name: header[name] for name in header if name in IDENTITY or name.startswith(VELOCITIES)}
    star["OBJID"] = str(star.get("OBJID") or star.get("OBJ") or "").strip()
    if product == "aspcapStar" and not star["OBJID"]:
        columns = get_columns(path, hdus[4], ("APOGEE_ID",), ("RA", "DEC", "VHELIO_AVG"))
        found = {name: values[0] for name, values in columns.items()}
        star |= found | {"OBJID": text(found["APOGEE_ID"]), "VHELIO": found.get("VHELIO_AVG")}
    if not star["OBJID"]:
        raise SpectrumFileError(path, "OBJID", "none", "the star's APOGEE_ID")
    return star


def read_star(path: str, hdus: fits.HDUList, visits: bool) -> tuple[dict[str, dict], dict, dict]:
    """The combined spectrum of an apStar file and the flags of its velocity, or its visits by number; no labels."""
    images = [np.atleast_2d(get_image(path, hdus[index])) for index in (1, 2)] + [np.atleast_2d(hdus[3].data)]
    rows = {"": 0}
    if visits:  # a star with one visit has one row, which is that visit
        rows = {str(row - 1): row for row in range(2, len(images[0]))} if len(images[0]) > 1 else {"1": 0}
    spectra = {}
    for visit, row in rows.items():
        flux, error, flags = (native(image[row]) for image in images)
        is_usable = ((flags.astype(np.int64) & BAD_BITS) == 0) & (error > 0) & (error < BLANK_ERROR)
        spectra[visit] = log_spectrum(path, hdus[1].header, flux, error, is_usable)
        spectra[visit] |= resolution(spectra[visit]["wavelength"], lsf_coefficients(hdus))
    # Of the visits together: it says nothing of a single one.
    flags = {} if visits else {"STARFLAG": int(hdus[0].header.get("STARFLAG", 0))}
    return spectra, {}, flags


def read_aspcap(path: str, hdus: fits.HDUList, visits: bool) -> tuple[dict[str, dict], dict, dict]:
    """The pseudo-continuum normalised spectrum, the calibrated labels and their flags of an aspcapStar file."""
    flux, error = get_image(path, hdus[1]), get_image(path, hdus[2])
    is_usable = (error > 0) & (error < ASPCAP_BAD_ERROR)
    if is_usable.any() and not 0.2 < np.median(flux[is_usable]) < 5.0:
        found = f"a median of {np.median(flux[is_usable]):g}"
        raise SpectrumFileError(path, "HDU 1", found, "flux relative to the pseudo-continuum")
    columns = get_columns(path, hdus[4], ("PARAM",), ("ASPCAPFLAG", "STARFLAG"))
    teff, logg, _, metallicity = columns.pop("PARAM")[0][:4]
    labels = {"teff": number(teff), "logg": number(logg), "fe_h": number(metallicity)}
    flags = {name: int(values[0]) for name, values in columns.items()}
    spectrum = log_spectrum(path, hdus[1].header, flux, error, is_usable)
    return {"": spectrum | resolution(spectrum["wavelength"], None)}, labels, flags


def read_visit(path: str, hdus: fits.HDUList, visits: bool) -> tuple[dict[str, dict], dict, dict]:
    """One visit's spectrum, no labels, and a flag: whether its velocity is unreliable. Reversing (chip, pixel)
    altogether makes both chips and pixels ascend."""
    wavelength = get_image(path, hdus[4])
    sigma = resolution(wavelength, lsf_coefficients(hdus))
    images = get_image(path, hdus[1]), get_image(path, hdus[2]), native(hdus[3].data)
    flux, error, flags = (image.ravel()[::-1] for image in images)
    is_usable = ((flags.astype(np.int64) & BAD_BITS) == 0) & (error > 0) & (error < BLANK_ERROR)
    spectrum = {
        "frame": "observed",
        "wavelength": wavelength.ravel()[::-1],
        "flux": flux,
        "ivar": inverse_variance(error, is_usable),
        "segment_lengths": [wavelength.shape[1]] * 3,
        "lsf_sigma": sigma["lsf_sigma"][::-1],
        "lsf_kind": sigma["lsf_kind"],
    }
    scatter = number(hdus[0].header.get("VSCATTER"))
    return {"": spectrum}, {}, {"VSCATTER": int(scatter > MAX_VISIT_SCATTER)}


PRODUCTS = {"apStar": read_star, "aspcapStar": read_aspcap, "apVisit": read_visit}


def log_spectrum(path: str, header: fits.Header, flux: np.ndarray, error: np.ndarray, is_usable: np.ndarray) -> dict:
    """The columns common to the rest-frame products, on their log-linear grid."""
    axis = header.get("CRVAL1"), header.get("CDELT1"), header.get("CRPIX1", 1)
    if None in axis or np.abs(np.subtract(axis, (*GRID, 1))).max() > 1e-9:
        raise SpectrumFileError(path, "CRVAL1, CDELT1, CRPIX1", axis, f"{(*GRID, 1)}, the grid of all stars")
    wavelength = 10.0 ** (GRID[0] + GRID[1] * np.arange(len(flux)))
    return {
        "frame": "rest",
        "wavelength": wavelength,
        "flux": flux,
        "ivar": inverse_variance(error, is_usable),
        "segment_lengths": chip_lengths(wavelength, is_blank=flux == 0),
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


def resolution(wavelength: np.ndarray, coefficients: np.ndarray | None) -> dict:
    """The row's columns on resolution, measured where the file has the line spread function.

    Args:
        wavelength: (num_pixels,), or (num_chips, num_pixels) in the chips' own order, Angstrom.
        coefficients: (num_coefficients,), or (num_chips, num_coefficients), or None.
    """
    if coefficients is not None:
        pixel_size = np.atleast_2d(np.abs(np.gradient(wavelength, axis=-1)))
        try:
            with np.errstate(all="ignore"):
                chips = [gauss_hermite_sigma(chip, pixel_size.shape[1]) for chip in np.atleast_2d(coefficients)]
                sigma = (np.stack(chips) * pixel_size).ravel()
                resolving_power = np.median(wavelength.ravel() / sigma / FWHM_PER_SIGMA)
        except (ArithmeticError, LookupError, ValueError):
            resolving_power = 0.0  # something else stands there, as zeros do in some files
        if LIKELY_RESOLVING_POWER[0] < resolving_power < LIKELY_RESOLVING_POWER[1]:
            return {"lsf_sigma": sigma, "lsf_kind": "measured"}
    return {"lsf_sigma": nominal_sigma(wavelength.ravel(), RESOLVING_POWER), "lsf_kind": "nominal"}


def lsf_coefficients(hdus: fits.HDUList) -> np.ndarray | None:
    """The coefficients of the line spread function, if the file has them."""
    found = [hdu for hdu in hdus[8:] if str(hdu.header.get("BUNIT", "")).startswith("LSF Coefficients")]
    return native(found[0].data, np.float64) if found else None


def gauss_hermite_sigma(coefficients: np.ndarray, num_pixels: int) -> np.ndarray:
    """Width of APOGEE's line spread function at every pixel of a chip: FWHM / 2.3548, the pixel included.

    The function is P(x) = sum_n h_n He_n(x / s) exp(-(x / s)^2 / 2) / (s sqrt(2 pi n!)), n = 0 to Horder, plus a
    Gaussian of area w and sigma t for the wings, h_0 = 1 - w, averaged over a pixel of width b. s, h_n, w and t are
    polynomials in pixel + X0 (Nidever et al. 2015, AJ 150, 173, and the comments in the HDU's header).

    Args:
        coefficients: b, X0, Horder, orders of the polynomials of s and h_1 ..., their coefficients, then the wings:
            kind, 2, orders of w and t, their coefficients.
        num_pixels: of the chip.

    Returns:
        (num_pixels,) in pixels; linear between nine pixels at which it is computed. Without meaning if there is no
        such function.
    """
    pixel_width, offset, highest = coefficients[0], coefficients[1], int(coefficients[2])
    pixels = np.linspace(0, num_pixels - 1, 9)
    (scale, *hermite), rest = polynomials(coefficients[3:], highest + 1, pixels + offset)
    (wing_area, wing_scale), _ = polynomials(rest[2:], 2, pixels + offset)
    x = np.linspace(-12.0, 12.0, 2401)
    widths = []
    for s, w, t, *h in zip(scale, wing_area, wing_scale, *hermite):
        terms = np.array([1.0 - w, *h]) / np.sqrt([math.factorial(n) for n in range(len(h) + 1)])
        profile = (
            hermite_e.hermeval(x / s, terms) * np.exp(-0.5 * (x / s) ** 2) / s + w * np.exp(-0.5 * (x / t) ** 2) / t
        )
        integral = np.cumsum(profile)
        profile = np.interp(x + pixel_width / 2, x, integral) - np.interp(x - pixel_width / 2, x, integral)
        widths.append(half_maximum_width(x, profile))
    return np.interp(np.arange(num_pixels), pixels, widths) / FWHM_PER_SIGMA


def polynomials(coefficients: np.ndarray, count: int, position: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Values of `count` polynomials whose orders, then coefficients, begin an array; and what follows in the array."""
    values, place = [], count
    for order in coefficients[:count].astype(int):
        values.append(polynomial.polyval(position, coefficients[place : place + order + 1]))
        place += order + 1
    return values, coefficients[place:]


def half_maximum_width(x: np.ndarray, profile: np.ndarray) -> float:
    """Full width at half maximum of a sampled profile, linear between samples."""
    half, top = profile.max() / 2, int(np.argmax(profile))
    is_low = np.flatnonzero(profile < half)
    left, right = is_low[is_low < top].max(initial=0), is_low[is_low > top].min(initial=len(x) - 1)
    left = np.interp(half, profile[[left, left + 1]], x[[left, left + 1]])
    right = np.interp(half, profile[[right, right - 1]], x[[right, right - 1]])
    return right - left
