"""GALAH spectra: one file per CCD, ``<sobject_id><ccd>.fits[.gz]`` of data release 3 or of reduction 6.0 (for DR4).

The files of a star in one folder make one row with a segment per CCD (GALAH DR3: Buder et al. 2021, MNRAS 506, 150;
reduction: Kos et al. 2017, MNRAS 464, 1259). Frame: barycentric. CCD4 (or another) may be missing. Quirks:

- Wavelengths are in AIR and linear; they are converted here. CRPIX1 = 0 is written for 1.
- DR3 has 5 HDUs: flux, relative error (unnamed in some files), the same two before sky subtraction, and the normalised
  flux on a grid of its own, shifted to rest: c (CRVAL1[HDU0] / CRVAL1[HDU4] - 1) is the radial velocity.
  Reduction 6.0 has 8 HDUs in another order, and its labels in the header and in a catalogue, which goes first:
  ``NIGHT/db/NIGHT.fits`` for the spectra in ``NIGHT/spectra/com``. Which of the two a file is, its HDUs' names tell.
- Reduction 6.0 says in the headers alone, by PAR_OK and RVCOM_OK, whether it trusts its labels; the catalogue has the
  same numbers without a flag. So where one of a star's files has another value than 1 there, the labels are unreliable,
  those of the night's catalogue too; those of a catalogue that somebody names are not. Labels of a header without the
  flag are not taken, and the catalogue's are. A position of exactly (0, 0), as spectra of the Sun's light have, is none.
- The error is sigma / flux. Values <= 0 or > 1 (mostly in the O2 band, 7593-7640 A), and with them flux <= 0, are
  unusable. So are pixels with sigma below a tenth of the CCD's median: noise falls at most as the root of the flux, so
  this is flux below 1 % of the continuum, where a relative error clipped to 1 makes ivar meaningless.
- **Each CCD has a scale of its own** (throughput, exposure), which is no physics. Each is divided by the median of its
  usable flux, so that all are near 1: flux here is dimensionless, and the colour of a star over the four CCDs is not
  in it. A CCD whose median is not positive has no usable pixel.
- `lsf_sigma` comes from reduction 6.0's resolution_profile, the FWHM in A of exp(-ln 2 |2x / FWHM|^B): the square
  root of its second moment. DR3 files carry none and get the nominal `RESOLVING_POWER`: rounded medians of reduction
  6.0's own profiles. HERMES was built for 28,000 in all CCDs (Sheinis et al. 2015, JATIS 1, 035002); night-sky lines
  in DR3's CCD4 say 22,800, as the profiles do.
"""

import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from .archive import Address
from .builder import SpectraBuilder, SurveyConfig
from .catalogues import CatalogueLayout, LabelCut, without_origin
from .fits_access import (
    SpectrumFileError,
    Unit,
    check_unit,
    describe,
    find_hdu,
    get_image,
    number,
    open_fits,
)
from .wavelengths import SPEED_OF_LIGHT, air_to_vacuum, nominal_sigma


logger = logging.getLogger(__name__)

FILE_NAME = re.compile(r"(?P<sobject_id>\d{15})(?P<ccd>[1-4])\.fits(\.gz)?")
MIN_RELATIVE_SIGMA = 0.1
#: Where a CCD begins and its step, air Angstrom; stars differ by some Angstrom and by some per mille.
CCD_GRIDS = {"1": (4713.3, 0.0460), "2": (5648.5, 0.0547), "3": (6478.0, 0.0632), "4": (7585.3, 0.0736)}
ANGSTROM = Unit(r"^ *angstroms? *$", "Angstroms")
RESOLVING_POWER = {"1": 27000.0, "2": 22500.0, "3": 22500.0, "4": 22000.0}  # by CCD
CATALOGUE = CatalogueLayout(
    key=("sobject_id",),
    labels={  # DR3, DR4, reduction 6.0
        "radial_velocity": ("rv_galah", "rv_comp_1", "rv_com"),
        "teff": ("teff", "teff_r"),
        "logg": ("logg", "logg_r"),
        "fe_h": ("fe_h", "fe_h_r"),
        "ra": ("ra_dr2", "ra", "ra_icrs"),
        "dec": ("dec_dr2", "dec", "dec_icrs"),
    },
    flags=("flag_sp", "flag_fe_h"),
    is_origin_unknown=True,
)
LABEL_CUTS = (
    LabelCut("flag_sp", "flag_sp", ("teff", "logg", "fe_h")),
    LabelCut("flag_fe_h", "flag_fe_h", ("fe_h",)),
    LabelCut("PAR_OK", "PAR_OK", ("teff", "logg", "fe_h"), of_file=True),
    LabelCut("RVCOM_OK", "RVCOM_OK", ("radial_velocity",), of_file=True),
)
#: Reduction 6.0's flags, 1 where the labels may be trusted, and the labels' keywords.
HEADER_KEYS = {
    "PAR_OK": {"teff": "TEFF_R", "logg": "LOGG_R", "fe_h": "FE_H_R"},
    "RVCOM_OK": {"radial_velocity": "RVCOM"},
}


@dataclass
class GALAHConfig(SurveyConfig):
    """What a GALAH build depends on."""

    def beside(self, file: str) -> str | None:
        night, *inside = os.path.dirname(file).rsplit(os.sep, 2)  # by text: there may be millions of files
        if inside != ["spectra", "com"]:
            return None
        path = os.path.join(night, "db", f"{os.path.basename(night)}.fits")
        return path if os.path.isfile(path) else None


class GALAH(SpectraBuilder):
    """Rows of GALAH DR3 and reduction 6.0 files, one per star.

    ``catalogue`` may be an allstar or allspec file of DR3 or DR4, joined by sobject_id, or one of reduction 6.0 for
    all files instead of each night's own. The headers' PAR_OK and RVCOM_OK judge the files' own labels and those of the
    night's catalogue, and not those of ``catalogue``.
    """

    BUILDER_CONFIG_CLASS = GALAHConfig
    VERSION = "1.6.0"
    FILE_NAMES = ("[0-9]" * 16 + ".fits", "[0-9]" * 16 + ".fits.gz")
    ARCHIVE = "https://cloud.datacentral.org.au/teamdata/GALAH/public/GALAH_DR3"
    IDENTIFIER = "the 15 digits of a sobject_id, such as 131116000501001"
    CATALOGUE, LABEL_CUTS = CATALOGUE, LABEL_CUTS
    WAVELENGTHS = (4700.0, 7910.0)
    HOMEPAGE = "https://www.galah-survey.org"
    CITATION = "GALAH DR3: Buder et al. 2021, MNRAS 506, 150"
    ACKNOWLEDGEMENT = (
        "This work made use of the Third Data Release of the GALAH Survey (Buder et al. 2021). The GALAH Survey is "
        "based on data acquired through the Australian Astronomical Observatory, under programs: A/2013B/13 (The GALAH "
        "pilot survey); A/2014A/25, A/2015A/19, A2017A/18 (The GALAH survey phase 1); A2018A/18 (Open clusters with "
        "HERMES); A2019A/1 (Hierarchical star formation in Ori OB1); A2019A/15 (The GALAH survey phase 2); A/2015B/19, "
        "A/2016A/22, A/2016B/10, A/2017B/16, A/2018B/15 (The HERMES-TESS program); and A/2015A/3, A/2015B/1, "
        "A/2015B/19, A/2016A/22, A/2016B/12, A/2017A/14 (The HERMES K2-follow-up program). We acknowledge the "
        "traditional owners of the land on which the AAT stands, the Gamilaraay people, and pay our respects to elders "
        "past and present. This paper includes data that has been provided by AAO Data Central "
        "(datacentral.org.au)."
    )

    @staticmethod
    def address(identifier: str) -> Address | None:
        """``sobject_id`` -> the star's files, one per CCD, in the tar file of its night in data release 3.

        A night is some hundred MB or more, and is downloaded once for all of its stars. There are two tar files for
        some nights. The archive publishes no checksums that are known here. Its single spectra (``slink``) are cut
        down to a flux without errors, which the reader does not take.
        """
        if not re.fullmatch(r"\d{15}", identifier):
            return None
        night = identifier[:6]
        return Address(
            path=f"spectra/tar_files/{night}_com.tar.gz",
            alternatives=(f"spectra/tar_files/{night}_com2.tar.gz",),
            members=tuple(f"{identifier}{ccd}.fits" for ccd in "1234"),
            folder=f"spectra/{night}/{identifier}",
        )

    def group_files(self, files: Iterable[str]) -> list[tuple[str, ...]]:
        groups = defaultdict(list)
        for file in files:
            path = Path(file)
            match = FILE_NAME.fullmatch(path.name)
            groups[(path.parent, match["sobject_id"] if match else path.name)].append(file)
        if partial := [group[0] for group in groups.values() if left_out(group)]:
            logger.warning(
                "galah: expected all CCDs of a star, which is a file each, found others beside %s and %d more; give the folder",
                partial[0],
                len(partial) - 1,
            )
        return [tuple(sorted(group)) for group in groups.values()]

    def read(self, files: tuple[str, ...]) -> Iterator[dict]:
        ccds: dict[str, dict] = {}
        for file in files:
            match = FILE_NAME.fullmatch(Path(file).name)
            if match is None:
                raise SpectrumFileError(file, "file name", Path(file).name, "15 digits of sobject_id and 1 of the CCD")
            if match["ccd"] in ccds:
                raise SpectrumFileError(file, "file name", "a second file of this CCD", "one file per star and CCD")
            ccds[match["ccd"]] = read_ccd(file, match["ccd"])
        parts = [ccds[name] for name in sorted(ccds)]
        labels = merge_labels([part["labels"] for part in parts])
        flags = {name: max(part["flags"].get(name, 0) for part in parts) for name in HEADER_KEYS}
        yield {
            "object_id": match["sobject_id"],
            "source": f"{match['sobject_id']} CCD {','.join(sorted(ccds))}",
            "frame": "barycentric",
            "wavelength": np.concatenate([part["wavelength"] for part in parts]),
            "flux": np.concatenate([part["flux"] for part in parts]),
            "ivar": np.concatenate([part["ivar"] for part in parts]),
            "segment_lengths": [len(part["flux"]) for part in parts],
            "lsf_sigma": np.concatenate([part["lsf_sigma"] for part in parts]),
            "lsf_kind": "measured" if all(part["has_profile"] for part in parts) else "nominal",
            **self.join_labels({"class": "STAR", **labels}, flags, files[0], int(match["sobject_id"])),
        }


def left_out(files: list[str]) -> bool:
    """Whether a CCD of a star lies beside its other files, and is not among them."""
    match = FILE_NAME.fullmatch(os.path.basename(files[0]))
    if match is None or len(files) == len(CCD_GRIDS):
        return False
    folder, first = os.path.split(files[0])
    place = match.start("ccd")
    every = {os.path.join(folder, first[:place] + ccd + first[place + 1 :]) for ccd in CCD_GRIDS}
    return any(map(os.path.exists, every.difference(files)))


def read_ccd(path: str, ccd: str) -> dict:
    """One CCD's file: its arrays (num_pixels,), on the common scale and in vacuum, its labels and flags."""
    with open_fits(path) as hdus:
        is_release = len(hdus) == 5 and hdus[4].name.lower() == "normalised spectra"
        error = hdus[1] if is_release else find_named(hdus, "relative_error", 2)
        profile = None if is_release else find_named(hdus, "resolution_profile", 7)
        if not is_release and (error is None or profile is None):
            raise SpectrumFileError(path, "file", describe(hdus), "a CCD of GALAH DR3 or reduction 6.0")
        header = hdus[0].header
        first, step = read_axis(path, hdus[0], ccd)
        wavelength = air_to_vacuum(first + np.arange(header["NAXIS1"]) * step)
        flux = get_image(path, hdus[0]).astype(np.float64)
        relative_error = get_image(path, error).astype(np.float64)
        if is_release:
            lsf_sigma = nominal_sigma(wavelength, RESOLVING_POWER[ccd])
            labels, flags = {"radial_velocity": rest_frame_velocity(first, hdus[4].header)}, {}
        else:
            lsf_sigma = profile_sigma(get_image(path, profile).astype(np.float64), header.get("B", 2.0))
            labels, flags = header_labels(header)
    arrays = {"wavelength": wavelength, "flux": flux, "relative error": relative_error, "resolution": lsf_sigma}
    if len({array.shape for array in arrays.values()}) > 1 or flux.ndim != 1:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise SpectrumFileError(path, "HDUs", f"shapes {found}", "one length")
    flux, ivar = scale_ccd(flux, relative_error)
    return {
        "wavelength": wavelength,
        "flux": flux,
        "ivar": ivar,
        "lsf_sigma": lsf_sigma,
        "has_profile": not is_release,
        "labels": labels,
        "flags": flags,
    }


def find_named(hdus: fits.HDUList, name: str, likely: int) -> fits.ImageHDU | None:
    """The HDU of that name, or None. Asking first where it usually stands saves the others' headers."""
    if len(hdus) > likely and hdus[likely].name.lower() == name:
        return hdus[likely]
    return find_hdu(hdus, name)


def read_axis(path: str, hdu: fits.PrimaryHDU, ccd: str) -> tuple[float, float]:
    """First wavelength and step, air Angstrom; raises `SpectrumFileError` where they are not this CCD's, or not in
    Angstrom."""
    check_unit(path, hdu, ANGSTROM, "CUNIT1")
    found, (first, step) = linear_axis(hdu.header), CCD_GRIDS[ccd]
    if not (abs(found[0] - first) < 8.0 and abs(found[1] / step - 1.0) < 0.05):
        raise SpectrumFileError(path, "CRVAL1, CDELT1", found, f"about {first} and {step} Angstrom, as CCD {ccd} has")
    return found


def linear_axis(header: fits.Header) -> tuple[float, float]:
    """First wavelength and step in Angstrom, in the medium of the file, which is air."""
    step = float(header["CDELT1"])
    return float(header["CRVAL1"]) + (1 - (header.get("CRPIX1", 1) or 1)) * step, step


def scale_ccd(flux: np.ndarray, relative_error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide a CCD's flux by the median of its usable part; see the module's text for what is usable.

    Returns:
        Flux about 1 and its inverse variance, 0 where unusable; both (num_pixels,).
    """
    is_usable = np.isfinite(flux) & (flux > 0) & (relative_error > 0) & (relative_error <= 1)
    sigma = np.where(is_usable, relative_error * flux, 0.0)
    if is_usable.any():
        is_usable &= sigma >= MIN_RELATIVE_SIGMA * np.median(sigma[is_usable])
    if not is_usable.any():
        return np.zeros_like(flux), np.zeros_like(flux)
    scale = np.median(flux[is_usable])
    ivar = np.where(is_usable, (scale / np.where(is_usable, sigma, 1.0)) ** 2, 0.0)
    return flux / scale, ivar


def profile_sigma(fwhm: np.ndarray, boxiness: float) -> np.ndarray:
    """Square root of the second moment of exp(-ln 2 |2x / fwhm|^boxiness); fwhm / 2.3548 for a Gaussian."""
    ratio = math.gamma(3.0 / boxiness) / math.gamma(1.0 / boxiness)
    return 0.5 * fwhm * math.log(2.0) ** (-1.0 / boxiness) * math.sqrt(ratio)


def rest_frame_velocity(first: float, at_rest: fits.Header) -> float:
    """DR3's radial velocity in km/s: the shift of the normalised flux's grid, which is at rest, against the flux's,
    which begins at `first`."""
    return SPEED_OF_LIGHT * (first / linear_axis(at_rest)[0] - 1)


def header_labels(header: fits.Header) -> tuple[dict, dict]:
    """Reduction 6.0's position, its labels as far as it has a flag for them, and the flags as cuts take them, which is
    1 where the labels are unreliable."""
    labels = without_origin({"ra": number(header.get("RA_ICRS")), "dec": number(header.get("DEC_ICRS"))})
    flags = {name: int(header[name] != 1) for name in HEADER_KEYS if name in header}
    for name in flags:
        labels |= {label: number(header.get(key)) for label, key in HEADER_KEYS[name].items()}
    return labels, flags


def merge_labels(per_ccd: list[dict]) -> dict:
    """One value per label: the median over the CCDs that have it (they agree, but for rounding)."""
    values = defaultdict(list)
    for labels in per_ccd:
        for name, value in labels.items():
            if not math.isnan(value):
                values[name].append(value)
    return {name: float(np.median(found)) for name, found in values.items()}
