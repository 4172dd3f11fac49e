"""MultimodalUniverse's layouts, written here as its build scripts write them, faults and all, and put right again."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from native_files import rows_of

from spectral_tokenizer.data import SpectrumFileError, load_multimodal_universe, load_survey, survey_report
from spectral_tokenizer.data.galah import linear_axis
from spectral_tokenizer.data.wavelengths import air_to_vacuum


POSITIONS = [(0.0, 0.0), (0.0, -20.0), (10.0, 0.0), (10.0, -20.0)]


@pytest.fixture(scope="module")
def surveys(simulated_surveys, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return {
        name: rows_of(load_survey(name, folder, cache_dir=cache))[:6] for name, folder in simulated_surveys.items()
    }


@pytest.fixture(params=["hdf5", "parquet"])
def write(request, tmp_path):
    """``write(spectra, columns)``: arrays of (num_rows, num_pixels) by name, and one value per row by column name."""

    def write(spectra, columns):
        path = tmp_path / f"001-of-001.{request.param}"
        if request.param == "hdf5":
            h5py = pytest.importorskip("h5py")
            with h5py.File(path, "w") as file:
                for name, values in spectra.items():
                    file[f"spectrum_{name}"] = values
                for name, values in columns.items():
                    file[name] = np.array(values, dtype="S") if isinstance(values[0], str) else np.array(values)
            return path
        fields = {name: pa.array(list(values)) for name, values in spectra.items() if np.ndim(values) == 2}
        struct = pa.StructArray.from_arrays(list(fields.values()), list(fields))
        pq.write_table(pa.table({"spectrum": struct, **columns}), path)
        return path

    return write


def padded(rows, column, value, length):
    """As the build scripts pad: wavelength -1, flux and width repeated or 0, ivar 0."""
    result = np.full((len(rows), length), value, dtype=np.float32)
    for index, row in enumerate(rows):
        result[index, : len(row[column])] = row[column]
        if value is None:
            result[index, len(row[column]) :] = row[column][-1]
    return result


def load(tmp_path, survey, path, **options):
    dataset = load_multimodal_universe(survey, path, cache_dir=tmp_path / "cache", strict=True, **options)
    assert survey_report(dataset).rows == len(dataset)
    return rows_of(dataset)


def test_sdss(tmp_path, surveys, write):
    rows = surveys["sdss"]
    length = max(len(row["flux"]) for row in rows) + 7
    pixel = 1e-4 * np.log(10)
    widths = [{"wdisp": row["lsf_sigma"] / (pixel * row["wavelength"])} for row in rows]
    spectra = {
        "lambda": padded(rows, "wavelength", -1, length),
        "flux": padded(rows, "flux", 9.0, length),
        "ivar": padded(rows, "ivar", 0, length),
        "lsf_sigma": padded(widths, "wdisp", 0.5, length),
        "mask": np.ones((len(rows), length), dtype=bool),  # whatever it says
    }
    ids = [f"b'  46162861402307993{index}'" for index in range(len(rows))]
    columns = {
        "object_id": ids,
        "Z": [0.5] * len(rows),
        "ZWARNING": [False] * 5 + [True],
        "CLASS": ["QSO"] * len(rows),
    }
    found = load(tmp_path, "sdss", write(spectra, columns))
    for index, (row, before) in enumerate(zip(found, rows)):
        assert len(row["flux"]) == len(before["flux"]) and row["survey"] == "sdss" and row["frame"] == "heliocentric"
        np.testing.assert_allclose(row["wavelength"], before["wavelength"], rtol=1e-12)
        np.testing.assert_array_equal(row["flux"], before["flux"])
        np.testing.assert_array_equal(row["ivar"], before["ivar"])
        np.testing.assert_allclose(row["lsf_sigma"], before["lsf_sigma"], rtol=1e-5)
        assert row["object_id"] == f"46162861402307993{index}"
    assert [row["class"] for row in found] == ["QSO"] * 5 + [None]
    assert found[5]["label_warnings"] == "ZWARNING" and np.isnan(found[5]["redshift"])


@pytest.mark.parametrize("has_grid", [True, False])
def test_desi(tmp_path, surveys, write, has_grid):
    wavelength = 3600 + 0.8 * np.arange(7781)
    flux = np.random.default_rng(0).normal(size=(2, 7781)).astype(np.float32)
    spectra = {"flux": flux, "ivar": np.ones((2, 7781), dtype=np.float32)}
    columns = {"object_id": [39633297352951413, 39633297352951414], "Z": [0.5, 1e-4], "ZWARN": [0, 0]}
    columns |= {"SPECTYPE": ["GALAXY", "STAR"], "TARGET_RA": [1.0, 2.0], "ra": [1.0, 2.0], "dec": [3.0, 4.0]}
    if has_grid:
        spectra |= {"lambda": np.tile(wavelength, (2, 1)).astype(np.float32), "mask": np.zeros((2, 7781), dtype=bool)}
        spectra |= {"lsf_sigma": np.full((2, 7781), 0.85)}
    else:
        columns |= {"spectrum_lambda_min": [3600.0, 3600.0], "spectrum_lambda_max": [9824.0, 9824.0]}
    first, second = load(tmp_path, "desi", write(spectra, columns))
    np.testing.assert_allclose(first["wavelength"], wavelength, atol=1e-9)
    np.testing.assert_array_equal(second["flux"], flux[1])
    assert (first["object_id"], second["object_id"]) == ("39633297352951413", "39633297352951414")
    assert (first["class"], first["redshift"], first["lsf_kind"]) == ("GALAXY", 0.5, "nominal")
    assert second["radial_velocity"] == pytest.approx(29.979, abs=1e-3)
    assert (second["ra"], second["dec"]) == (2.0, 4.0) and first["frame"] == "barycentric"


def test_galah(tmp_path, simulated_surveys, write):
    """From a real layout of files: counts, air wavelengths two pixels too long, ivar without bounds."""
    from astropy.io import fits

    folder = simulated_surveys["galah"]
    expected = {row["object_id"]: row for row in rows_of(load_survey("galah", folder, cache_dir=tmp_path / "cache"))}
    spectra, columns = [], {"object_id": [], "teff": [], "rv": [], "flag_sp": []}
    for star in list(expected)[:4]:
        parts = {"lambda": [], "flux": [], "ivar": []}
        for band, ccd in zip("BGRI", "1234"):
            path = next(iter(folder.rglob(f"{star}{ccd}.fits")), None)
            start = sum(map(len, parts["flux"]))
            columns.setdefault(f"spectrum_{band}_ind_start", []).append(start)
            columns.setdefault(f"spectrum_{band}_ind_end", []).append(start + 4095 if path else start - 1)
            if path:
                with fits.open(path) as hdus:
                    names = [hdu.name.lower() for hdu in hdus]
                    error = hdus["relative_error"] if "relative_error" in names else hdus[1]
                    step, flux = hdus[0].header["CDELT1"], hdus[0].data.astype(float)
                    first, _ = linear_axis(hdus[0].header)
                    grid = first + np.arange(hdus[0].header["NAXIS1"]) * step
                    parts["lambda"].append((grid + 2 * step).astype(np.float32))
                    parts["flux"].append(flux)
                    with np.errstate(divide="ignore"):
                        parts["ivar"].append(1 / (flux * error.data.astype(float)) ** 2)
        spectra.append({name: np.concatenate(values) for name, values in parts.items()})
        columns["object_id"].append(int(star))
        columns["teff"].append(5000.0)
        columns["rv"].append(12.5)
        for name, value in zip(("ra", "dec"), POSITIONS[len(spectra) - 1]):
            columns.setdefault(name, []).append(value)
        columns["flag_sp"].append(0 if len(spectra) > 1 else 1)
    arrays = {name: padded(spectra, name, value, 16400) for name, value in (("lambda", -1), ("flux", 0), ("ivar", 0))}
    found = load(tmp_path, "galah", write(arrays, columns))
    assert len(found) == 4
    for row in found:
        before = expected[row["object_id"]]
        assert row["segment_lengths"].tolist() == before["segment_lengths"].tolist()
        np.testing.assert_allclose(row["wavelength"], before["wavelength"], atol=2e-4)  # 0.004 of a pixel
        np.testing.assert_array_equal(row["ivar"] > 0, before["ivar"] > 0)
        good = row["ivar"] > 0
        np.testing.assert_allclose(row["flux"][good], before["flux"][good], rtol=1e-5)
        np.testing.assert_allclose(row["ivar"][good], before["ivar"][good], rtol=1e-3)
        assert row["radial_velocity"] == 12.5 and row["lsf_kind"] == "nominal"
    # The Sun's light has the origin, which is no position; a star may stand on one of the two axes.
    known = [(np.nan, np.nan), *POSITIONS[1:]]
    np.testing.assert_array_equal([(row["ra"], row["dec"]) for row in found], known)
    assert np.isnan(found[0]["teff"]) and found[0]["label_warnings"] == "flag_sp" and found[1]["teff"] == 5000.0


@pytest.mark.parametrize("has_bitmask", [True, False])
def test_apogee(tmp_path, write, has_bitmask):
    crop = np.r_[246:3274, 3585:6080, 6344:8335]
    wavelength = (10 ** (4.179 + 6e-6 * np.arange(8575)))[crop]
    flux, error = np.ones((2, len(crop))), np.full((2, len(crop)), 0.1)
    error[0, 5], flux[0, 5] = 1e10, 0.0  # blank
    error[0, 6] = 0.0  # infinite ivar
    with np.errstate(divide="ignore"):
        ivar = (1 / error**2).astype(np.float32)
    spectra = {"lambda": np.tile(wavelength, (2, 1)).astype(np.float32), "flux": flux, "ivar": ivar}
    spectra["lsf_sigma"] = np.full((2, len(crop)), 0.3)
    if has_bitmask:
        bits = np.zeros((2, len(crop)), dtype=np.int64)
        bits[0, 7], bits[0, 8] = 1 << 3, 1 << 9  # bad; persistence
        spectra["pix_bitmask"] = bits
    else:
        spectra["mask"] = np.ones((2, len(crop)), dtype=bool)
    columns = {"object_id": ["2M00000000+0000000", "2M00000000+0000001"], "teff": [4500.0, 4600.0], "m_h": [0.1, 0.2]}
    columns |= {"radial_velocity": [5.0, 6.0], "aspcapflag": [0, 1 << 16]}
    first, second = load(tmp_path, "apogee", write(spectra, columns))
    np.testing.assert_allclose(first["wavelength"], wavelength, rtol=1e-12)
    assert first["segment_lengths"].tolist() == [3028, 2495, 1991] and first["frame"] == "rest"
    bad = np.flatnonzero(first["ivar"] == 0).tolist()
    assert bad == ([5, 6, 7] if has_bitmask else [5, 6])
    np.testing.assert_allclose(first["lsf_sigma"], wavelength / 22500 / 2.3548, rtol=1e-4)
    assert (first["object_id"], first["class"], first["fe_h"]) == ("2M00000000+0000000", "STAR", np.float32(0.1))
    assert (first["radial_velocity"], second["label_warnings"]) == (5.0, "TEFF_BAD")


def test_wavelengths_in_air_would_be_noticed(surveys):
    """The two faults of GALAH move it by far more than the tolerance above."""
    assert np.abs(air_to_vacuum(np.array([4800.0])) - 4800).min() > 1


def test_rows_of_something_else(tmp_path, write):
    path = write({"flux": np.ones((2, 5))}, {"object_id": [1, 2]})
    dataset = load_multimodal_universe("sdss", path, cache_dir=tmp_path / "cache")
    assert dict(survey_report(dataset).dropped) == {"damaged row: spectrum ivar": 2}
    with pytest.raises(SpectrumFileError, match="spectrum.ivar or spectrum_ivar"):
        load_multimodal_universe("sdss", path, cache_dir=tmp_path / "cache", strict=True)
    with pytest.raises(ValueError, match="gaia"):
        load_multimodal_universe("gaia", path, cache_dir=tmp_path / "cache")


def test_names_that_differ_in_case_alone_and_files_of_one_name(tmp_path):
    """The catalogue's Z is no magnitude z, whichever comes last; and each pixel of the sky has its 001-of-001."""
    spectrum = {"flux": [[1.0] * 40], "ivar": [[1.0] * 40], "lambda": [[3600 + 0.8 * k for k in range(40)]]}
    columns = {f"spectrum_{name}": values for name, values in spectrum.items()} | {"Z": [0.5], "z": [17.5]}
    for pixel in ("healpix=1", "healpix=2"):
        (tmp_path / pixel).mkdir()
        pq.write_table(pa.table(columns), tmp_path / pixel / "001-of-001.parquet")
    rows = load(tmp_path, "desi", tmp_path)
    assert [row["redshift"] for row in rows] == [0.5, 0.5]
    assert [row["object_id"] for row in rows] == [f"healpix={k}/001-of-001.parquet#0" for k in (1, 2)]
    pq.write_table(pa.table(columns | {"spectrum_FLUX": [[2.0] * 40]}), tmp_path / "healpix=2" / "001-of-001.parquet")
    assert load(tmp_path, "desi", tmp_path)[1]["flux"][0] == 1.0
