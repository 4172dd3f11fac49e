"""LAMOST's low-resolution spectra: ``spec-LMJD-PLANID_spSP-FIBER.fits[.gz]``, one file per fibre and plan.

Added by the recipe for a further survey: this file and a line in `SURVEYS`. Written from LAMOST's descriptions of its
releases (dr3.lamost.org and lamost.org/dr10, "data production description") and its users' readers, without a file of
LAMOST at hand. Wavelengths are in vacuum and heliocentric, in steps of 1e-4 dex; flux is relative. Quirks:

- Releases 1 to 7 hold the spectrum as an image of five rows in HDU0: flux, inverse variance, wavelength, and-mask,
  or-mask. Later ones hold a table in HDU1 whose only row has these as vectors. Files of the pilot survey have the
  continuum-subtracted flux in the third row instead: they are refused.
- Wavelengths are float32; the grid is restored. Bad pixels have ivar = 0; as in SDSS, of whose pipeline this is a
  child, the masks are not used.
- The line spread function is not in the file: nominal resolving power 1800 (Luo et al. 2015, RAA 15, 1095).
- FIBERTYP other than Obj or F-std (sky, unused, dead) is left out unless asked for. Z is -9999 where the pipeline
  found none, with the class Unknown.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from .builder import Dropped, SpectraBuilder, SurveyConfig
from .catalogues import CatalogueLayout
from .fits_access import SpectrumFileError, describe, find_hdu, get_image, number, open_fits
from .fits_tables import get_columns
from .sdss import restore_grid
from .wavelengths import nominal_sigma


CATALOGUE = CatalogueLayout(
    key=("obsid",),
    labels={
        "class": ("class",),
        "redshift": ("z",),
        "radial_velocity": ("rv",),
        "teff": ("teff",),
        "logg": ("logg",),
        "fe_h": ("feh",),
        "ra": ("ra",),
        "dec": ("dec",),
    },
)
ROWS = ("FLUX", "IVAR", "WAVELENGTH")
TARGETS = ("", "Obj", "F-std")
RESOLVING_POWER = 1800.0


@dataclass
class LAMOSTConfig(SurveyConfig):
    """What a LAMOST build depends on.

    Args:
        sky: keep fibres that are on no target.
    """

    sky: bool = False


class LAMOST(SpectraBuilder):
    """Rows of LAMOST's low-resolution spectra. Option: ``sky=True`` keeps fibres that are on no target.

    ``catalogue`` may be a catalogue of the low-resolution survey, joined by obsid.
    """

    BUILDER_CONFIG_CLASS = LAMOSTConfig
    VERSION = "1.3.0"
    FILE_NAMES = ("spec-*_sp[0-9][0-9]-*.fits", "spec-*_sp[0-9][0-9]-*.fits.gz")
    HOMEPAGE = "https://www.lamost.org"
    CITATION = "LAMOST: Cui et al. 2012, RAA 12, 1197; Luo et al. 2015, RAA 15, 1095"
    ACKNOWLEDGEMENT = (
        "Guoshoujing Telescope (the Large Sky Area Multi-Object Fiber Spectroscopic Telescope LAMOST) is a National "
        "Major Scientific Project built by the Chinese Academy of Sciences. Funding for the project has been provided "
        "by the National Development and Reform Commission. LAMOST is operated and managed by the National "
        "Astronomical Observatories, Chinese Academy of Sciences."
    )
    WAVELENGTHS = (3600.0, 9200.0)
    CATALOGUE = CATALOGUE

    def read(self, files: tuple[str, ...]) -> Iterator[dict | Dropped]:
        (path,) = files
        with open_fits(path) as hdus:
            header = hdus[0].header
            if header.get("TELESCOP", "LAMOST") != "LAMOST":
                raise SpectrumFileError(path, "TELESCOP", header["TELESCOP"], "LAMOST")
            is_target = str(header.get("FIBERTYP", "")).strip() in TARGETS
            if not is_target and not self.config.sky:
                yield Dropped("no target")
                return
            flux, ivar, wavelength = read_pixels(path, hdus)
            obsid = int(header["OBSID"])
            labels = {"class": str(header.get("CLASS", "")).strip(), "redshift": number(header.get("Z"))}
            place = {"ra": number(header.get("RA")), "dec": number(header.get("DEC"))}
        yield {
            "object_id": str(obsid),
            "source": Path(path).name,
            "frame": "heliocentric",
            "wavelength": wavelength,
            "flux": flux,
            "ivar": ivar,
            "segment_lengths": [len(flux)],
            "lsf_sigma": nominal_sigma(wavelength, RESOLVING_POWER),
            "lsf_kind": "nominal",
            **place,
            **(self.join_labels(labels, {}, path, obsid) if is_target else {}),
        }


def read_pixels(path: str, hdus: fits.HDUList) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flux, inverse variance and wavelength of either layout, each (num_pixels,)."""
    table = find_hdu(hdus, 1)
    if hdus[0].header["NAXIS"] == 2:
        image = get_image(path, hdus[0])
        if len(image) != 5:
            raise SpectrumFileError(path, "HDU 0", f"shape {image.shape}", "five rows")
        flux, ivar, wavelength = image[:3]
    elif isinstance(table, fits.BinTableHDU):
        columns = get_columns(path, table, ROWS)
        shapes = {name: values.shape for name, values in columns.items()}
        if {values.dtype.kind for values in columns.values()} != {"f"} or {
            len(shape) for shape in shapes.values()
        } != {2}:
            raise SpectrumFileError(path, "HDU 1", f"shapes {shapes}", "a row of vectors of floating-point numbers")
        if any(shape[0] != 1 for shape in shapes.values()):
            raise SpectrumFileError(path, "HDU 1", f"shapes {shapes}", "one row")
        flux, ivar, wavelength = (columns[name][0] for name in ROWS)
    else:
        raise SpectrumFileError(path, "file", describe(hdus), "an image of five rows, or a table in HDU 1")
    wavelength = wavelength.astype(np.float64)
    if not (wavelength > 0).all():
        raise SpectrumFileError(path, "wavelength", "values that are not positive", "Angstrom; pilot files have none")
    return flux, ivar, 10.0 ** restore_grid(np.log10(wavelength))
