"""SDSS and BOSS plates: ``spPlate-PLATE-MJD.fits``, all fibres of a plate in one file (SDSS data model: "spPlate").

Images of (num_fibres, num_pixels): HDU0 flux in 1e-17 erg/s/cm2/A on the grid COEFF0 + COEFF1 i of log10 of the
vacuum, heliocentric wavelength; HDU1 ivar; HDU2 and 3 masks, not used, as in `sdss`; HDU4 sigma of the line spread
function in pixels; HDU5 the plug map, which tells what each fibre was on. Redshifts stand in
``spZbest-PLATE-MJD.fits`` beside it, or in a folder of the reduction's version below it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from astropy.io import fits

from .fits_access import SpectrumFileError, find_hdu, native, number
from .fits_tables import get_columns, text


FIBRES_PER_BLOCK = 64
PLUG_COLUMNS = ("OBJTYPE", "RA", "DEC")


def is_plate(hdus: fits.HDUList) -> bool:
    """Whether a file is a spPlate; spSpec files begin in the same way, but have tables alone after that."""
    header, ivar, plugs = hdus[0].header, find_hdu(hdus, 1), find_hdu(hdus, 5)
    is_image = not isinstance(ivar, fits.BinTableHDU)
    return header["NAXIS"] == 2 and "COEFF0" in header and is_image and isinstance(plugs, fits.BinTableHDU)


def read_plate(path: str, hdus: fits.HDUList) -> Iterator[tuple[dict, dict]]:
    """What each fibre was on, and its pixels.

    Yields:
        plate, mjd, fibre, type, ra and dec; and loglam, flux, ivar, wdisp, arrays of (num_pixels,).

    Raises:
        SpectrumFileError: images or the plug map have another number of fibres or pixels than HDU0.
    """
    header, shape = hdus[0].header, hdus[0].shape
    for index in (1, 4):
        if hdus[index].shape != shape:
            raise SpectrumFileError(path, f"HDU {index}", f"shape {hdus[index].shape}", f"{shape}, as HDU 0 has")
    if any(hdus[index].header["BITPIX"] > 0 for index in (0, 1, 4)):
        raise SpectrumFileError(path, "BITPIX", "integers", "images of floating-point numbers")
    plugs = get_columns(path, hdus[5], ("FIBERID",), PLUG_COLUMNS)
    if len(plugs["FIBERID"]) != shape[0]:
        raise SpectrumFileError(path, "plug map", f"{len(plugs['FIBERID'])} rows", f"{shape[0]}, the fibres of HDU 0")
    loglam = header["COEFF0"] + header["COEFF1"] * np.arange(shape[1])
    for start in range(0, shape[0], FIBRES_PER_BLOCK):
        block = slice(start, min(start + FIBRES_PER_BLOCK, shape[0]))
        images = {name: native(hdus[index].section[block]) for name, index in (("flux", 0), ("ivar", 1), ("wdisp", 4))}
        for row in range(block.stop - start):
            plug = {name: values[start + row] for name, values in plugs.items()}
            fibre = {
                "PLATE": int(header["PLATEID"]),
                "MJD": int(header["MJD"]),
                "FIBERID": int(plug["FIBERID"]),
                "OBJTYPE": text(plug.get("OBJTYPE", b"")),
                "PLUG_RA": number(plug.get("RA")),
                "PLUG_DEC": number(plug.get("DEC")),
            }
            yield fibre, {"loglam": loglam, **{name: image[row] for name, image in images.items()}}


def find_plate_redshifts(file: str) -> str | None:
    """The spZbest file of a spPlate file, if there is one."""
    path = Path(file)
    if not path.name.startswith("spPlate-"):
        return None
    name = path.name.replace("spPlate-", "spZbest-", 1)
    found = [path.with_name(name), *sorted(path.parent.glob(f"*/{name}"))]
    return next((str(candidate) for candidate in found if candidate.is_file()), None)
