"""Tiny files in the surveys' own formats, with the quirks of the real ones, for tests without real data."""

import numpy as np
from astropy.io import fits


LIGHT = 299792.458


def write_sdss(
    path,
    *,
    flux=None,
    ivar=None,
    and_mask=None,
    wdisp=None,
    upper=False,
    loglam_start=3.58,
    plate=1,
    header=(),
    exposures=(),
    **label,
):
    """A ``spec`` file; keyword `label` overrides columns of HDU2; `exposures` are names of HDUs like
    B1-00012345-..."""
    flux = np.ones(64) if flux is None else np.asarray(flux)
    num_pixels = len(flux)
    columns = {
        "flux": flux.astype("f4"),
        "loglam": (loglam_start + 1e-4 * np.arange(num_pixels)).astype("f4"),
        "ivar": np.asarray(np.full(num_pixels, 4.0) if ivar is None else ivar, dtype="f4"),
        "and_mask": np.asarray(np.zeros(num_pixels) if and_mask is None else and_mask, dtype="i4"),
        "wdisp": np.asarray(np.full(num_pixels, 0.9) if wdisp is None else wdisp, dtype="f4"),
    }
    formats = {"and_mask": "J"}
    coadd = [
        fits.Column(name.upper() if upper else name, formats.get(name, "E"), array=values)
        for name, values in columns.items()
    ]
    labels = {"PLATE": plate, "MJD": 55555, "FIBERID": 7, "CLASS": "GALAXY", "Z": 0.25, "ZWARNING": 0} | label
    catalogue = [
        fits.Column(name, "20A" if isinstance(value, str) else "D" if isinstance(value, float) else "J", array=[value])
        for name, value in labels.items()
    ]
    primary = fits.PrimaryHDU()
    primary.header.update(header)
    hdus = [primary, fits.BinTableHDU.from_columns(coadd), fits.BinTableHDU.from_columns(catalogue)]
    if exposures:
        hdus += [fits.BinTableHDU(name="SPZLINE"), *map(_exposure, exposures)]
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def _exposure(name):
    """Of spectrograph 1 the blue pixels run down, as SDSS's do; flux is the pixel's number from the blue end."""
    loglam = {"B": 3.58, "R": 3.76}[name[0]] + 1.1e-4 * np.arange(30)
    columns = {"flux": np.arange(30.0), "loglam": loglam, "ivar": np.full(30, 2.0), "wdisp": np.full(30, 0.8)}
    step = -1 if name.startswith("B1") else 1
    return fits.BinTableHDU.from_columns(
        [fits.Column(key, "E", array=values[::step].astype("f4")) for key, values in columns.items()], name=name
    )


def write_plate(path, *, plate=266, mjd=51602, objtypes=("GALAXY", "SKY", "QSO"), num_pixels=50):
    """A spPlate file; flux is the fibre's number."""
    shape = (len(objtypes), num_pixels)
    fibres = np.arange(1, len(objtypes) + 1)
    flux = np.repeat(fibres[:, None], num_pixels, axis=1).astype("f4")
    primary = fits.PrimaryHDU(flux)
    primary.header.update(COEFF0=3.58, COEFF1=1e-4, PLATEID=plate, MJD=mjd)
    images = [np.full(shape, 4.0, "f4"), np.zeros(shape, "i4"), np.zeros(shape, "i4"), np.full(shape, 0.9, "f4")]
    plugs = [
        fits.Column("FIBERID", "J", array=fibres),
        fits.Column("OBJTYPE", "16A", array=objtypes),
        fits.Column("RA", "D", array=fibres * 10.0),
        fits.Column("DEC", "D", array=fibres * 1.0),
    ]
    hdus = [primary, *map(fits.ImageHDU, images), fits.BinTableHDU.from_columns(plugs), fits.ImageHDU(flux)]
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def write_desi(
    path,
    target_ids,
    *,
    cameras=("B", "R", "Z"),
    num_pixels=40,
    objtype=None,
    status=None,
    status_name="COADD_FIBERSTATUS",
    has_fibermap=True,
    has_mask=True,
    sigma_pixels=1.0,
    dead=(),
    header=(),
):
    """A coadd or spectra file: flux = row + 1, ivar = 2; pixel 3 masked with ivar > 0, pixel 4 with ivar 0."""
    num_spectra = len(target_ids)
    primary = fits.PrimaryHDU()
    primary.header.update(header)
    hdus = [primary]
    if has_fibermap:
        columns = [fits.Column("TARGETID", "K", array=np.array(target_ids, dtype=np.int64))]
        if objtype is not None:
            columns.append(fits.Column("OBJTYPE", "3A", array=objtype))
        if status is not None:
            columns.append(fits.Column(status_name, "J", array=status))
        hdus.append(fits.BinTableHDU.from_columns(columns, name="FIBERMAP"))
    starts = {"B": 3600.0, "R": 3620.0, "Z": 3640.0}  # they overlap
    for camera in cameras:
        wavelength = starts[camera] + 0.8 * np.arange(num_pixels)
        flux = np.repeat(np.arange(1.0, num_spectra + 1)[:, None], num_pixels, axis=1).astype("f4")
        ivar = np.full((num_spectra, num_pixels), 2.0, dtype="f4")
        ivar[:, 4] = 0
        ivar[list(dead)] = 0
        hdus += [
            fits.ImageHDU(wavelength, name=f"{camera}_WAVELENGTH"),
            fits.ImageHDU(flux, name=f"{camera}_FLUX"),
            fits.ImageHDU(ivar, name=f"{camera}_IVAR"),
        ]
        if has_mask:
            bits = np.zeros((num_spectra, num_pixels), dtype=np.uint32)  # written with BZERO, as DESI does
            bits[:, 3] = 4
            hdus.append(fits.ImageHDU(bits, name=f"{camera}_MASK"))
        if sigma_pixels:
            offset = np.arange(5, -6, -1.0)
            band = np.exp(-0.5 * (offset / sigma_pixels) ** 2)
            band = np.tile((band / band.sum())[None, :, None], (num_spectra, 1, num_pixels)).astype("f4")
            hdus.append(fits.ImageHDU(band, name=f"{camera}_RESOLUTION"))
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def write_redshifts(path, target_ids, redshifts, classes=None, hdu_name="REDSHIFTS"):
    """A redrock (REDSHIFTS), zbest (ZBEST) or QSO catalogue (QSO_CAT, no classes)."""
    columns = [
        fits.Column("TARGETID", "K", array=np.array(target_ids, dtype=np.int64)),
        fits.Column("Z", "D", array=redshifts),
    ]
    if classes is not None:
        columns.append(fits.Column("SPECTYPE", "6A", array=classes))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name=hdu_name)]).writeto(path)
    return path


def write_table(path, hdu_name="", **columns):
    """A FITS table: integers as 64-bit unless they come as smaller ones, text, logicals and floats as they are."""
    formats = {"i4": "J", "i8": "K", "f8": "D", "f4": "E", "b1": "L"}
    table = []
    for name, values in columns.items():
        values = np.asarray(values)
        kind = f"{values.dtype.itemsize // 4}A" if values.dtype.kind == "U" else formats[values.dtype.str[1:]]
        table.append(fits.Column(name, kind, array=values))
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns(table, name=hdu_name)]
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


GALAH_STARTS = {1: 4713.5, 2: 5649.0, 3: 6478.0, 4: 7585.0}
GALAH_STEPS = {1: 0.046, 2: 0.0547, 3: 0.0632, 4: 0.0736}


def write_galah_ccd(
    folder, sobject_id, ccd, *, flux=None, relative_error=None, layout="dr3", crpix=1.0, velocity=30.0, suffix=".fits"
):
    """One CCD's file of a star, of DR3 (5 HDUs) or reduction 6.0 (8 HDUs)."""
    flux = np.full(50, 100.0) if flux is None else np.asarray(flux, dtype=float)
    error = np.full(len(flux), 0.05) if relative_error is None else np.asarray(relative_error, dtype=float)
    start = GALAH_STARTS[ccd]

    def image(data, name, crval=start, is_primary=False):
        hdu = fits.PrimaryHDU(data) if is_primary else fits.ImageHDU(data, name=name)
        hdu.header.update(CRVAL1=crval, CDELT1=GALAH_STEPS[ccd], CRPIX1=crpix)
        return hdu

    primary = image(flux, "", is_primary=True)
    if layout == "dr3":
        hdus = [
            primary,
            image(error, "input_sigma" if ccd != 2 else ""),
            image(flux + 5, "no_sky_subspectrum"),
            image(error / 2, "no_sky_sigma"),
            image(flux / flux.max(), "normalised spectra", crval=start / (1 + velocity / LIGHT)),
        ]
    else:
        primary.header.update(
            RVCOM=velocity, RVCOM_OK=1, PAR_OK=1, TEFF_R=5000.0, LOGG_R=3.0, FE_H_R=-0.5, RA_ICRS=10.0, DEC_ICRS=-20.0
        )
        primary.header["B"] = 2.0
        names = ["normalized", "relative_error", "sky", "teluric", "scattered", "cross_talk", "resolution_profile"]
        values = {"relative_error": error, "resolution_profile": np.full(len(flux), 0.2, dtype="f4")}
        hdus = [primary] + [image(values.get(name, np.full(len(flux), 9.0)), name) for name in names]
    path = folder / f"{sobject_id}{ccd}{suffix}"
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def write_galah_catalogue(path, sobject_ids, **columns):
    """Reduction 6.0's catalogue."""
    table = [fits.Column("sobject_id", "K", array=np.array(sobject_ids, dtype=np.int64))]
    table += [fits.Column(name, "E", array=values) for name, values in columns.items()]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(table)]).writeto(path)
    return path


APOGEE_PIXELS = 8575
APOGEE_GAPS = ((0, 220), (3310, 3550), (6120, 6310), (8370, 8575))


def _log_images(flux, error, flags=None, units=("Flux (10^-17)", "Error (10^-17)", "Flag Mask (bitwise)")):
    images = [fits.ImageHDU(data) for data in (flux, error, flags) if data is not None]
    for image, unit in zip(images, units):
        image.header.update(CRVAL1=4.179, CDELT1=6e-6, CRPIX1=1, CTYPE1="LOG-LINEAR")
        if unit:
            image.header["BUNIT"] = unit
    return images


def write_apstar(path, *, num_visits=3, level=100.0, flags=None, lsf=None):
    """An apStar file with blank gaps; the second combination and the visits have other fluxes. 1-D for one visit."""
    flux = np.full(APOGEE_PIXELS, level, dtype="f4")
    error = np.full(APOGEE_PIXELS, 2.0, dtype="f4")
    bits = np.zeros(APOGEE_PIXELS, dtype=np.int16) if flags is None else np.asarray(flags, dtype=np.int16)
    for start, end in APOGEE_GAPS:
        flux[start:end], error[start:end] = 0.0, 1e10
        bits[start:end] |= 1
    if num_visits > 1:
        num_rows = num_visits + 2
        flux = np.stack([flux] + [flux * (row + 2) for row in range(1, num_rows)])
        error, bits = np.stack([error] * num_rows), np.stack([bits] * num_rows)
    primary = fits.PrimaryHDU()
    primary.header.update(OBJID="2M00000000+0000000", RA=1.5, DEC=2.5, VHELIO=-60.5, RVTEFF=4500.0, NVISITS=num_visits)
    primary.header.update({f"VHELIO{visit}": -60.0 - visit for visit in range(1, num_visits + 1)})
    hdus = [primary, *_log_images(flux, error, bits)]
    if lsf is not None:
        hdus += [fits.ImageHDU(flux)] * 4 + [_lsf_image(lsf)]
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def _lsf_image(coefficients):
    image = fits.ImageHDU(np.array(coefficients, dtype=float))
    image.header["BUNIT"] = "LSF Coefficients"
    return image


def write_aspcapstar(path, *, params=(4500.0, 2.5, 0.0, -0.25), aspcapflag=0):
    """An aspcapStar file: no units, no pixel mask, error 0 in gaps, 10 on pixel 1000, an unparsable card."""
    flux, error = np.ones(APOGEE_PIXELS, dtype="f4"), np.full(APOGEE_PIXELS, 0.01, dtype="f4")
    for start, end in APOGEE_GAPS:
        flux[start:end] = error[start:end] = 0.0
    error[1000] = 10.0
    columns = [fits.Column("PARAM", "9E", array=np.array([[*params, 0, 0, 0, 0, 0]]))]
    columns.append(fits.Column("ASPCAPFLAG", "J", array=[aspcapflag]))
    table = fits.BinTableHDU.from_columns(columns)
    primary = fits.PrimaryHDU()
    primary.header.update(OBJ="2M00000000+0000001", VHELIO=12.5, AKWISE=0.5)
    images = _log_images(flux, error, units=("", ""))
    model = fits.ImageHDU(flux)
    fits.HDUList([primary, *images, model, table]).writeto(path, overwrite=True)
    card = b"AKWISE  =                  0.5"
    content = path.read_bytes()
    assert content.count(card) == 1
    path.write_bytes(content.replace(card, b"AKWISE  =                  NAN"))
    return path


def as_release_17(path):
    """An apStar or aspcapStar file as the pipeline of data release 17 writes them: other units, and no star in aspcapStar's
    primary header."""
    with fits.open(path) as hdus:
        hdus.verify("silentfix")
        layout = fits.HDUList([hdu.copy() for hdu in hdus])
    if "PARAM" not in getattr(layout[-1], "columns", fits.ColDefs([])).names:
        layout[2].header["BUNIT"], layout[3].header["BUNIT"] = "Err (10^-17 erg/s/cm^2/Ang)", "Pixel bitmask"
        for name in [name for name in layout[0].header if name.startswith("VHELIO")]:
            layout[0].header[name.replace("VHELIO", "VHBARY")] = layout[0].header.pop(name)
    else:
        star = ("APOGEE_ID", "18A", ["2M00000000+0000001"]), ("RA", "D", [1.5]), ("DEC", "D", [2.5])
        star += (("VHELIO_AVG", "E", [12.5]), ("STARFLAG", "J", [0]))
        columns = [fits.Column(name, form, array=array) for name, form, array in star]
        layout[4] = fits.BinTableHDU.from_columns(layout[4].columns + fits.ColDefs(columns))
        layout[0] = fits.PrimaryHDU()
    layout.writeto(path, overwrite=True)
    return path


def write_apvisit(path, *, num_pixels=30, flags=None, lsf=None):
    """An apVisit file: chip 0 is the red one and wavelengths run down; flux = wavelength / 1000."""
    steps = -0.2 * np.arange(num_pixels)
    wavelength = np.array([16950.0, 16430.0, 15810.0])[:, None] + steps
    flux = (wavelength / 1000).astype("f4")
    error = np.full(flux.shape, 0.5, dtype="f4")
    bits = np.zeros(flux.shape, dtype=np.int16) if flags is None else np.asarray(flags, dtype=np.int16)
    units = ("Flux (10^-17)", "Flux Error (10^-17)", "Flag Mask (bitwise)", "Wavelength (Ang)")
    images = [fits.ImageHDU(data) for data in (flux, error, bits, wavelength)]
    for image, unit in zip(images, units):
        image.header["BUNIT"] = unit
    primary = fits.PrimaryHDU()
    primary.header.update(OBJID="2M00000000+0000002", VHELIO=5.0)
    if lsf is not None:
        images += [fits.ImageHDU(flux)] * 5 + [_lsf_image(lsf)]
    fits.HDUList([primary, *images]).writeto(path, overwrite=True)
    return path


def rows_of(dataset):
    """All rows with their arrays in the precision they are stored in: format "numpy" would make float64 float32."""
    columns = {name: column.to_pylist() for name, column in zip(dataset.column_names, dataset.with_format("arrow")[:])}
    types = {"wavelength": "f8", "flux": "f4", "ivar": "f4", "lsf_sigma": "f4", "segment_lengths": "i4"}
    return [
        {
            name: np.array(values[index], dtype=types[name])
            if name in types and values[index] is not None
            else values[index]
            for name, values in columns.items()
        }
        for index in range(len(dataset))
    ]
