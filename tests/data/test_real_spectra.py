"""The readers on genuine files: counts, labels, pixels and physics. Skipped where the files are not at hand."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from native_files import rows_of
from scipy.optimize import curve_fit

from spectral_tokenizer.data import SpectrumFileError, load_survey, survey_report
from spectral_tokenizer.data.wavelengths import air_to_vacuum


LIGHT = 299792.458
H_ALPHA = 6564.61  # Angstrom, in vacuum


@pytest.fixture(scope="session")
def load(spectra_dir, tmp_path_factory):
    """``load(survey, *paths relative to the folder, **options)``, kept for the session."""
    cache, loaded = tmp_path_factory.mktemp("cache"), {}

    def load(survey, *paths, **options):
        key = (survey, paths, tuple(sorted(options.items())))
        if key not in loaded:
            files = [str(spectra_dir / path) for path in paths]
            loaded[key] = load_survey(survey, files, cache_dir=cache, **options)
        return loaded[key]

    return load


def read_labels(spectra_dir, survey):
    with open(spectra_dir / f"labels_{survey}.csv", newline="") as file:
        return list(csv.DictReader(file))


def as_float(text):
    return float(text) if text else np.nan


TARGETS = {"negative TARGETID": 5, "sky fibre": 1, "bad fibre status": 1}


@pytest.mark.parametrize(
    ("survey", "path", "options", "files", "rows", "dropped", "damaged"),
    [
        ("sdss", "sdss/*.fits", {}, 78, 78, {}, 0),
        ("sdss", "sdss/full", {}, 3, 3, {}, 0),
        ("sdss", "sdss/full", {"exposures": True}, 3, 12, {}, 0),
        ("sdss", "sdss/truncated", {"exposures": True}, 6, 0, {"no single exposures": 6}, 0),
        ("sdss", "sdss/truncated", {}, 6, 6, {}, 0),
        ("sdss", "sdss/sky", {}, 10, 0, {"sky fibre": 10}, 0),
        ("sdss", "sdss/sky", {"sky": True}, 10, 10, {}, 0),
        ("sdss", "sdss/legacy/*.fits", {}, 1, 0, {}, 1),
        ("desi", "desi/specutils/coadd-*", {}, 2, 3, TARGETS, 0),
        ("desi", "desi/specutils/spectra-*", {}, 2, 2, TARGETS | {"bad fibre status": 2}, 0),
        ("desi", "desi/specutils", {}, 4, 3, TARGETS | {"file of exposures whose coadd is there": 2}, 0),
        ("desi", "desi/picca", {}, 1, 5, {}, 0),
        ("desi", "desi/fastspecfit", {}, 1, 1, {}, 0),
        ("desi", "desi/quasarnp/test_coadd.fits", {}, 1, 24, {"no usable pixel": 1}, 0),
        ("desi", "desi/sim", {}, 1, 0, {"simulated": 5}, 0),
        ("desi", "desi/sim", {"simulated": True}, 1, 5, {}, 0),
        ("galah", "galah/dr3", {}, 292, 74, {}, 0),
        ("galah", "galah/dr3_emission", {}, 88, 22, {}, 0),
        ("galah", "galah/galah_workshop", {}, 12, 3, {}, 0),
        ("galah", "galah/dr4_fit/*.fits", {}, 4, 0, {}, 4),
        ("apogee", "apogee/apstar_data", {}, 16, 16, {}, 0),
        ("apogee", "apogee/apstar_data", {"visits": True}, 16, 59, {}, 0),
        ("apogee", "apogee/aspcap_data", {}, 19, 19, {}, 0),
        ("apogee", "apogee/apVisit_data", {}, 12, 12, {}, 0),
    ],
)
def test_counts(load, survey, path, options, files, rows, dropped, damaged):
    dataset = load(survey, path, **options)
    report = survey_report(dataset)
    assert (report.files, report.rows, dict(report.dropped), report.damaged) == (files, rows, dropped, damaged)
    assert len(dataset) == rows
    check_pixels(rows_of(dataset))


RESOLVING_POWERS = {"sdss": (1400, 2400), "desi": (2500, 5500), "galah": (20000, 28000), "apogee": (21000, 26000)}


def check_pixels(rows):
    """What the rest of the package relies on, of every pixel."""
    for row in rows:
        assert np.isfinite(row["flux"]).all() and np.isfinite(row["ivar"]).all() and (row["ivar"] >= 0).all()
        assert row["ivar"].any() and len(row["flux"]) == len(row["wavelength"]) == row["segment_lengths"].sum()
        for segment in np.split(row["wavelength"], np.cumsum(row["segment_lengths"])[:-1]):
            assert (np.diff(segment) > 0).all() and 3500 < segment[0] < segment[-1] < 17200
        resolving_power = row["wavelength"] / (2.3548 * row["lsf_sigma"])
        low, high = RESOLVING_POWERS[row["survey"]]
        assert (row["lsf_sigma"] > 0).all() and low < np.median(resolving_power) < high
        assert (resolving_power[row["ivar"] > 0] > 0.5 * low).all()
        assert (resolving_power[row["ivar"] > 0] < 2 * high).all()


@pytest.mark.parametrize(
    ("survey", "foreign"),
    [
        ("sdss", "desi/picca/coadd-1-80693-thru20210204.fits"),
        ("sdss", "apogee/apVisit_data/apVisit-r6-5094-55874-088.fits"),
        ("desi", "sdss/spec-0266-51602-0013.fits"),
        ("desi", "desi/sim/timedomain_spectrum-examples.fits"),
        ("desi", "desi/fastspecfit/stack-LRG.fits"),
        ("desi", "desi/redrock/redrock-test.fits"),
        ("galah", "apogee/apstar_data/apStar-r6-2M00005143+5615568.fits.gz"),
        ("apogee", "galah/dr3/1311230030010961.fits.gz"),
        ("apogee", "sdss/spec-0266-51602-0013.fits"),
        ("apogee", "desi/picca/coadd-1-80693-thru20210204.fits"),
    ],
)
def test_other_products_are_refused(spectra_dir, tmp_path, survey, foreign):
    with pytest.raises(SpectrumFileError, match="expected"):
        load_survey(survey, spectra_dir / foreign, cache_dir=tmp_path, strict=True)


def test_sdss_labels(load, spectra_dir):
    paths = ("sdss/*.fits", "sdss/full", "sdss/truncated", "sdss/sky")
    datasets = [load("sdss", path, sky=True, unreliable_labels=True) for path in paths]
    rows = {row["source"]: row for dataset in datasets for row in rows_of(dataset)}
    labels = {Path(label["file"]).name: label for label in read_labels(spectra_dir, "sdss")}
    assert rows.keys() == labels.keys() and len(rows) == 97
    for name, label in labels.items():
        row = rows[name]
        assert row["object_id"] == f"{int(label['plate']):04d}-{label['mjd']}-{int(label['fiber']):04d}"
        assert (len(row["flux"]), (row["ivar"] == 0).sum()) == (int(label["npix"]), int(label["n_ivar0"]))
        assert row["wavelength"][[0, -1]] == pytest.approx([float(label["wmin"]), float(label["wmax"])], abs=0.02)
        if label["cls"] == "SKY":
            assert row["class"] is None and np.isnan(row["redshift"])
        else:
            assert row["class"] == label["cls"]
            assert row["redshift"] == pytest.approx(float(label["z"]), abs=1e-6)
            assert row["label_warnings"] == ("ZWARNING" if int(label["zwarning"]) & ~16 else None)


def test_flagged_redshifts_are_blank_unless_asked_for(load, spectra_dir):
    warned = {Path(e["file"]).name for e in read_labels(spectra_dir, "sdss") if int(e["zwarning"]) & ~16}
    rows = {row["source"]: row for row in rows_of(load("sdss", "sdss/*.fits"))}
    assert len(warned & rows.keys()) == 1
    for source, row in rows.items():
        assert row["label_warnings"] == ("ZWARNING" if source in warned else None)
        assert (row["class"] is None) == np.isnan(row["redshift"]) == (source in warned)


def test_desi_labels(load, spectra_dir):
    catalogue = str(spectra_dir / "desi/picca/QSO_cat_fuji_dark_tile.fits.gz")
    datasets = [
        load("desi", "desi/picca", catalogue=catalogue),
        load("desi", "desi/fastspecfit", "desi/specutils", exposures=True),
        load("desi", "desi/sim", simulated=True, unreliable_labels=True),
    ]
    rows = {row["source"]: row for dataset in datasets for row in rows_of(dataset)}
    labels = {f"{Path(label['file']).name}#{label['row']}": label for label in read_labels(spectra_dir, "desi")}
    assert len(rows) == 16 and rows.keys() <= labels.keys()
    for source, row in rows.items():
        label = labels[source]
        assert row["object_id"] == label["targetid"]
        assert row["class"] == (label["spectype"] or None)
        assert row["redshift"] == pytest.approx(as_float(label["z"]), rel=1e-12, nan_ok=True)
        snr = row["flux"] * np.sqrt(row["ivar"])
        arms = np.split(snr, np.cumsum(row["segment_lengths"])[:-1])
        expected = [float(label[f"snr_{arm}"]) for arm in "brz"]
        assert [np.median(arm) for arm in arms] == pytest.approx(expected, abs=0.011)


def test_galah_labels(load, spectra_dir):
    datasets = [load("galah", f"galah/{folder}") for folder in ("dr3", "dr3_emission", "galah_workshop")]
    rows = {row["object_id"]: row for dataset in datasets for row in rows_of(dataset)}
    labels = read_labels(spectra_dir, "galah")
    assert rows.keys() == {label["sobject_id"] for label in labels}
    pixels = dict.fromkeys(rows, 0)
    for label in labels:
        row = rows[label["sobject_id"]]
        assert row["radial_velocity"] == pytest.approx(float(label["rv_kms"]), abs=0.006)
        for name, column in (("teff", "teff_r"), ("logg", "logg_r"), ("fe_h", "fe_h_r")):
            assert row[name] == pytest.approx(as_float(label[column]), rel=1e-6, nan_ok=True)
        ends = air_to_vacuum(np.array([float(label["wmin"]), float(label["wmax"])]))
        assert all(np.abs(row["wavelength"] - end).min() < 0.05 for end in ends)
        pixels[label["sobject_id"]] += int(label["npix"])
    assert pixels == {key: len(row["flux"]) for key, row in rows.items()}
    without_ccd4 = [key for key, row in rows.items() if len(row["segment_lengths"]) == 3]
    assert len(without_ccd4) == 4
    assert all(("CCD 1,2,3,4" in row["source"]) == (key not in without_ccd4) for key, row in rows.items())


def test_apogee_labels(load, spectra_dir):
    datasets = [load("apogee", f"apogee/{folder}") for folder in ("apstar_data", "aspcap_data", "apVisit_data")]
    rows = {row["source"]: row for dataset in datasets for row in rows_of(dataset)}
    labels = {Path(label["file"]).name: label for label in read_labels(spectra_dir, "apogee")}
    assert rows.keys() == labels.keys() and len(rows) == 47
    for source, label in labels.items():
        row = rows[source]
        assert row["object_id"] == label["apogee_id"]
        if row["label_warnings"] != "VSCATTER":
            assert row["radial_velocity"] == pytest.approx(float(label["vhelio"]), abs=0.006)
        for name, column in (("teff", "teff"), ("logg", "logg"), ("fe_h", "m_h")):
            assert row[name] == pytest.approx(as_float(label[column]), rel=1e-6, nan_ok=True)
        assert row["frame"] == ("observed" if label["kind"] == "apVisit" else "rest")
        assert len(row["segment_lengths"]) == 3
    assert Counter(row["label_warnings"] == "VSCATTER" for row in rows.values()) == {False: 40, True: 7}
    # What is left of the visits' velocities is near that of the same star's combined spectrum; some were 590 km/s off.
    combined = {
        row["object_id"]: row["radial_velocity"] for row in rows.values() if row["source"].startswith("apStar")
    }
    visits = [row for row in rows.values() if row["source"].startswith("apVisit") and row["label_warnings"] is None]
    known = [row for row in visits if row["object_id"] in combined]
    assert len(known) >= 3
    assert all(abs(row["radial_velocity"] - combined[row["object_id"]]) < 10.0 for row in known)


def test_exposures_add_up_to_the_coadd(load):
    """The mean of the exposures, put on the coadd's pixels, is the coadd; in wavelength they agree to a tenth
    pixel."""
    coadds = {row["source"]: row for row in rows_of(load("sdss", "sdss/full"))}
    groups = {}
    for row in rows_of(load("sdss", "sdss/full", exposures=True)):
        assert len(row["segment_lengths"]) == 2 and row["lsf_kind"] == "measured"
        groups.setdefault(row["source"].split("#")[0], []).append(row)
    assert {name: len(rows) for name, rows in groups.items()} == {
        "spec-0385-51783-0396.fits": 3, "spec-1325-52762-0133.fits": 3, "spec-7339-58895-0735.fits": 6,
    }  # fmt: skip
    for name, rows in groups.items():
        coadd = coadds[name]
        assert {row["object_id"] for row in rows} == {coadd["object_id"]}
        is_red = (coadd["wavelength"] > 6600) & (coadd["wavelength"] < 8900) & (coadd["ivar"] > 0)
        wavelength, flux = coadd["wavelength"][is_red], coadd["flux"][is_red]
        smooth = np.ones(5) / 5
        likeness = []
        for shift in (-1.5, 0.0, 1.5):  # Angstrom, a pixel
            parts = [red_arm(row) for row in rows]
            mean = np.mean([np.interp(wavelength + shift, *part) for part in parts], axis=0)
            likeness.append(np.corrcoef(np.convolve(mean, smooth, "valid"), np.convolve(flux, smooth, "valid"))[0, 1])
        assert np.argmax(likeness) == 1 and likeness[1] > 0.7
        for row in rows:
            sigma = np.interp(8000.0, *red_arm(row, "lsf_sigma"))
            assert sigma == pytest.approx(np.interp(8000.0, coadd["wavelength"], coadd["lsf_sigma"]), rel=0.02)


def red_arm(row, column="flux"):
    start = row["segment_lengths"][0]
    return row["wavelength"][start:], row[column][start:]


def test_visits_of_apogee(load, spectra_dir):
    """Each with its own velocity; together they are the combination."""
    combined = {row["source"]: row for row in rows_of(load("apogee", "apogee/apstar_data"))}
    visits = rows_of(load("apogee", "apogee/apstar_data", visits=True))
    for row in visits:
        name, number = row["source"].split("#")
        header = fits.getheader(spectra_dir / "apogee/apstar_data" / name)
        assert int(number) <= header["NVISITS"] and row["object_id"] == combined[name]["object_id"]
        assert row["radial_velocity"] == header[f"VHELIO{number}"] and row["frame"] == "rest"
    for name, star in combined.items():
        own = [row for row in visits if row["source"].startswith(name)]
        assert len(own) == fits.getheader(spectra_dir / "apogee/apstar_data" / name)["NVISITS"]
        good = np.all([row["ivar"] > 0 for row in (star, *own)], axis=0)
        mean = np.average([row["flux"][good] for row in own], axis=0, weights=[row["ivar"][good] for row in own])
        assert np.median(np.abs(mean / star["flux"][good] - 1)) < 0.05


def test_apogee_chips_end_in_gaps(load):
    """No usable pixel within 30 pixels of a chip's end: no patch of 32 pixels would see two chips."""
    for row in rows_of(load("apogee", "apogee/apstar_data")) + rows_of(load("apogee", "apogee/aspcap_data")):
        for end in np.cumsum(row["segment_lengths"])[:-1]:
            assert (row["ivar"][end - 60 : end + 60] == 0).all(), row["source"]


def test_bad_bits_leave_most_pixels(load):
    """Masking persistence and sky bits as well would lose far more."""
    for row in rows_of(load("apogee", "apogee/apVisit_data")):
        assert 0.97 < (row["ivar"] > 0).mean() < 1


def test_two_processes_on_real_files(spectra_dir, tmp_path, load):
    two = load_survey("galah", spectra_dir / "galah/galah_workshop", cache_dir=tmp_path, num_proc=2)
    one = load("galah", "galah/galah_workshop")
    assert len(two.cache_files) == 2 and two["object_id"][:] == one["object_id"][:]
    assert two["ivar"][:] == one["ivar"][:] and survey_report(two) == survey_report(one)


def line_centre(wavelength, flux, is_usable, centre, half_width, sign):
    """Centroid in Angstrom of the upper half of a line (sign 1: emission, -1: absorption) above the median level."""
    is_line = is_usable & (np.abs(wavelength - centre) < half_width)
    level = np.median(flux[is_usable & (np.abs(wavelength - centre) < 4 * half_width)])
    depth = sign * (flux[is_line] - level)
    weight = np.maximum(depth - 0.5 * depth.max(), 0)
    return (wavelength[is_line] * weight).sum() / weight.sum()


def rest_line_centre(row, redshift, half_width, sign=-1):
    return line_centre(row["wavelength"] / (1 + redshift), row["flux"], row["ivar"] > 0, H_ALPHA, half_width, sign)


def test_h_alpha_of_galah_stars(load):
    """In air, or with the velocity's sign wrong, this is off by 1.8 A or by twice the velocity."""
    rows = [row for row in rows_of(load("galah", "galah/dr3")) if row["snr"] > 40]
    assert len(rows) > 20
    centres = np.array([rest_line_centre(row, row["radial_velocity"] / LIGHT, 3.0) for row in rows])
    assert np.median(centres) == pytest.approx(H_ALPHA, abs=0.08)
    fast = np.array([abs(row["radial_velocity"]) > 30 for row in rows])  # 0.66 A
    assert fast.sum() >= 5 and np.abs(np.median(centres[fast]) - H_ALPHA) < 0.1


def test_h_alpha_of_sdss_star_and_galaxies(load):
    """The only star with a Balmer series is a white dwarf of S/N 7; star-forming galaxies are the sharper test."""
    rows = {row["source"]: row for row in rows_of(load("sdss", "sdss/*.fits"))}
    star = rows["spec-0266-51602-0031.fits"]
    assert star["class"] == "STAR"
    assert rest_line_centre(star, star["redshift"], 12.0) == pytest.approx(H_ALPHA, abs=1.5)
    names = ("0390-51900-0282", "0395-51783-0525", "0854-52373-0369", "1372-53062-0072", "1737-53055-0369")
    names += ("2580-54092-0470", "2880-54509-0230")
    centres = [
        rest_line_centre(rows[f"spec-{name}.fits"], rows[f"spec-{name}.fits"]["redshift"], 7.0, 1) for name in names
    ]
    assert np.median(centres) == pytest.approx(H_ALPHA, abs=0.15)
    assert np.abs(np.array(centres) - H_ALPHA).max() < 0.5


def test_galah_against_its_own_rest_frame(load, spectra_dir):
    """DR3's HDU4 is the same star, shifted to rest by the pipeline, on a grid of its own, in air."""
    rows = [row for row in rows_of(load("galah", "galah/dr3")) if row["snr"] > 40 and abs(row["radial_velocity"]) > 20]
    assert len(rows) > 5
    for row in rows:
        with fits.open(spectra_dir / f"galah/dr3/{row['object_id']}3.fits.gz") as hdus:
            header, normalised = hdus[4].header, hdus[4].data.astype(float)
        rest = air_to_vacuum(header["CRVAL1"] + header["CDELT1"] * np.arange(header["NAXIS1"]))
        start, end = np.cumsum(row["segment_lengths"])[1:3]
        wavelength = row["wavelength"][start:end] / (1 + row["radial_velocity"] / LIGHT)
        pixel = np.linspace(-1, 1, len(wavelength))
        flux = row["flux"][start:end]
        flux = flux / np.polyval(np.polyfit(pixel, flux, 4), pixel)
        shifts = np.arange(-0.4, 0.41, 0.02)  # Angstrom
        inside = slice(300, -300)
        likeness = [
            np.corrcoef(np.interp(rest[inside], wavelength + shift, flux), normalised[inside])[0, 1]
            for shift in shifts
        ]
        assert abs(shifts[np.argmax(likeness)]) < 0.03 and max(likeness) > 0.8


def test_sdss_resolution(load):
    """The documented resolution of the spectrographs is about 1500 in the blue to 2600 in the red."""
    for row in rows_of(load("sdss", "sdss/*.fits")):
        known = row["lsf_sigma"] > 0
        resolution = row["wavelength"][known] / (2.3548 * row["lsf_sigma"][known])
        assert np.percentile(resolution, 10) > 1200 and np.percentile(resolution, 90) < 3500


def test_galah_resolution(load, spectra_dir):
    """Reduction 6.0 carries it. Night-sky lines in DR3's CCD4 show that its nominal value is right."""
    assert {row["lsf_kind"] for row in rows_of(load("galah", "galah/galah_workshop"))} == {"measured"}
    rows, ratios = rows_of(load("galah", "galah/dr3")), []
    assert {row["lsf_kind"] for row in rows} == {"nominal"}
    for row in rows:
        path = spectra_dir / f"galah/dr3/{row['object_id']}4.fits.gz"
        if not path.is_file():
            continue
        with fits.open(path) as hdus:
            sky = hdus[2].data.astype(float) - hdus[0].data
        wavelength, sigma = (row[name][-len(sky) :] for name in ("wavelength", "lsf_sigma"))
        width = line_width(wavelength, sky, air_to_vacuum(7794.11), 0.7)  # OH (Osterbrock et al. 1996)
        ratios.append(width / np.interp(air_to_vacuum(7794.11), wavelength, sigma))
    assert len(ratios) > 60 and np.median(ratios) == pytest.approx(1, abs=0.06)


def test_apogee_resolution(load):
    for folder, kind in (("apstar_data", "measured"), ("apVisit_data", "measured"), ("aspcap_data", "nominal")):
        for row in rows_of(load("apogee", f"apogee/{folder}")):
            assert row["lsf_kind"] == kind
            chips = np.split(row["wavelength"] / (2.3548 * row["lsf_sigma"]), np.cumsum(row["segment_lengths"])[:-1])
            assert all(21000 < np.median(chip) < 26500 for chip in chips)


def test_sky_lines_of_sdss_are_as_wide_as_wdisp_says(load, spectra_dir):
    """The sky's own spectrum stands in the files. In the red within some per cent; in the blue the lines are wider."""
    ratios = {6302.05: [], 6365.54: []}  # [O I], vacuum
    for row in rows_of(load("sdss", "sdss/*.fits")):
        with fits.open(spectra_dir / "sdss" / row["source"]) as hdus:
            names = {name.lower(): name for name in hdus[1].columns.names}
            sky = hdus[1].data[names["sky"]].astype(float)
        for line, found in ratios.items():
            width = line_width(row["wavelength"], sky, line, 8.0)
            found.append(width / np.interp(line, row["wavelength"], row["lsf_sigma"]))
    assert all(1.0 < np.median(found) < 1.25 for found in ratios.values())


def line_width(wavelength, flux, centre, half_width):
    """Sigma in Angstrom of a Gaussian fitted to the highest emission line near `centre`."""
    is_near = np.abs(wavelength - centre) < half_width
    wavelength, flux = wavelength[is_near], flux[is_near] / flux[is_near].max()
    guess = (1.0, wavelength[np.argmax(flux)], half_width / 5, np.percentile(flux, 10))
    (_, _, sigma, _), _ = curve_fit(
        lambda x, height, middle, sigma, level: level + height * np.exp(-0.5 * ((x - middle) / sigma) ** 2),
        wavelength, flux, guess, maxfev=10000,
    )  # fmt: skip
    return abs(sigma)
