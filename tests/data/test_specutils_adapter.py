import numpy as np
import pytest
from native_files import rows_of

from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.schema import FEATURES
from spectral_tokenizer.data.wavelengths import air_to_vacuum


pytest.importorskip("specutils")

from astropy import units  # noqa: E402
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty  # noqa: E402
from astropy.wcs import WCS  # noqa: E402
from specutils import Spectrum, SpectrumList  # noqa: E402

from spectral_tokenizer.data.specutils_adapter import rows_from_spectra, spectra_from_row  # noqa: E402


WAVELENGTH = 5000.0 + np.arange(10.0)
FLUX = units.Unit("erg / (s cm2 AA)")


def spectrum(axis=WAVELENGTH * units.AA, flux=None, uncertainty=None, **options):
    flux = np.arange(10.0) * FLUX if flux is None else flux
    return Spectrum(
        flux=flux,
        spectral_axis=axis,
        uncertainty=uncertainty or StdDevUncertainty(np.full(flux.shape, 0.5)),
        **options,
    )


@pytest.mark.parametrize(
    "uncertainty",
    [
        StdDevUncertainty(np.full(10, 0.5)),
        VarianceUncertainty(np.full(10, 0.25)),
        InverseVariance(np.full(10, 4.0)),
        StdDevUncertainty(np.full(10, 500.0) * (FLUX / 1000)),
    ],
)
def test_uncertainties(uncertainty):
    dataset = rows_from_spectra(spectrum(uncertainty=uncertainty), frame="barycentric")
    (row,) = rows_of(dataset)
    assert dataset.features == FEATURES and row["frame"] == "barycentric" and row["survey"] == "specutils"
    np.testing.assert_allclose(row["ivar"], 4.0, rtol=1e-6)
    assert row["flux"].tolist() == list(range(10)) and row["wavelength"].tolist() == WAVELENGTH.tolist()


@pytest.mark.parametrize("unit", [units.nm, units.GHz, units.eV, 1 / units.cm])
def test_axes_of_any_kind_ascend(unit):
    axis = (WAVELENGTH * units.AA).to(unit, equivalencies=units.spectral())
    (row,) = rows_of(rows_from_spectra(spectrum(axis), frame="rest"))
    np.testing.assert_allclose(row["wavelength"], WAVELENGTH, rtol=1e-12)
    assert row["flux"].tolist() == list(range(10))  # went along


def test_air_mask_and_velocity():
    mask = np.arange(10) == 3
    one = spectrum(mask=mask, radial_velocity=-30 * units.km / units.s, meta={"object_id": 39633297352951413})
    (row,) = rows_of(rows_from_spectra(one, frame="heliocentric", medium="air", survey="lamost"))
    assert np.flatnonzero(row["ivar"] == 0).tolist() == [3]
    np.testing.assert_array_equal(row["wavelength"], air_to_vacuum(WAVELENGTH))
    assert (row["radial_velocity"], row["object_id"], row["survey"]) == (-30.0, "39633297352951413", "lamost")


def test_a_redshift_is_no_velocity():
    """specutils has one for both, by the formula of special relativity."""
    (far,) = rows_of(rows_from_spectra(spectrum(redshift=0.5), frame="observed"))
    assert far["redshift"] == pytest.approx(0.5) and np.isnan(far["radial_velocity"])
    (near,) = rows_of(rows_from_spectra(spectrum(redshift=1e-4), frame="observed"))
    assert near["redshift"] == pytest.approx(1e-4) and near["radial_velocity"] == pytest.approx(29.979, rel=1e-3)


def test_several_spectra():
    stack = spectrum(flux=np.arange(20.0).reshape(2, 10) * FLUX)
    rows = rows_of(rows_from_spectra(SpectrumList([spectrum(), stack]), frame="rest"))
    assert [row["source"] for row in rows] == ["specutils#0", "specutils#1.0", "specutils#1.1"]
    assert rows[2]["flux"].tolist() == list(range(10, 20)) and np.isnan(rows[0]["radial_velocity"])


def test_a_cube_loses_its_empty_spectra_alone(caplog):
    """Of two by three spectra two are masked, as outside of the field of view; the spectral axis comes first in the array,
    as FITS has it."""
    flux, mask = np.arange(60.0).reshape(10, 2, 3), np.zeros((10, 2, 3), dtype=bool)
    mask[:, 0, 1] = mask[:, 1, 2] = mask[3, 0, 0] = True
    cube = spectrum(flux=flux * FLUX, mask=mask, spectral_axis_index=0)
    rows = rows_of(rows_from_spectra([spectrum(), cube], frame="rest", survey="manga"))
    places = ["0,0", "0,2", "1,0", "1,1"]
    assert [row["source"] for row in rows] == ["manga#0", *(f"manga#1.{place}" for place in places)]
    for place, row in zip(places, rows[1:]):
        y, x = map(int, place.split(","))
        assert row["flux"].tolist() == flux[:, y, x].tolist()
    assert len({row["object_id"] for row in rows}) == 5
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "manga: left out 2 of 7 spectra, which have no usable pixel, manga#1.0,1 the first" in caplog.text
    with pytest.raises(ValueError, match="manga#0.0,0: flux: found no usable pixel"):
        rows_from_spectra(spectrum(flux=flux * np.nan * FLUX, spectral_axis_index=0), frame="rest", survey="manga")


def test_without_uncertainty():
    bare = Spectrum(flux=np.ones(10) * FLUX, spectral_axis=WAVELENGTH * units.AA)
    with pytest.raises(ValueError, match="uncertainty: found none"):
        rows_from_spectra(bare, frame="rest")
    assert rows_of(rows_from_spectra(bare, frame="rest", ivar=9.0))[0]["snr"] == 3.0


def test_what_is_no_spectrum():
    with pytest.raises(ValueError, match="no usable pixel"):
        rows_from_spectra(spectrum(mask=np.ones(10, dtype=bool)), frame="rest")
    with pytest.raises(ValueError, match="spectra: expected at least one, found none"):
        rows_from_spectra([], frame="rest")
    with pytest.raises(ValueError, match="frame"):
        rows_from_spectra(spectrum(), frame="air")
    with pytest.raises(ValueError, match="medium"):
        rows_from_spectra(spectrum(), frame="rest", medium="water")


def test_there_and_back(simulated_surveys, tmp_path):
    for row in rows_of(load_survey("desi", simulated_surveys["desi"], cache_dir=tmp_path))[:3]:
        arms = spectra_from_row(row, "1e-17 erg / (s cm2 AA)")
        assert len(arms) == 3 and arms[0].flux.unit == units.Unit("1e-17 erg / (s cm2 AA)")
        back = rows_of(rows_from_spectra(arms, frame=row["frame"]))
        for name in ("wavelength", "flux", "ivar"):
            np.testing.assert_allclose(np.concatenate([arm[name] for arm in back]), row[name], rtol=1e-6)


def test_arms_of_one_spectrum_are_cut_where_wavelengths_leap():
    wavelength = np.concatenate([np.linspace(4715, 4902, 100), np.linspace(5649, 5873, 60)])
    for axis in (wavelength, wavelength[::-1]):
        given = spectrum(axis * units.AA, np.ones(160) * FLUX)
        assert rows_of(rows_from_spectra(given, frame="barycentric"))[0]["segment_lengths"].tolist() == [100, 60]


def test_a_flux_per_frequency_becomes_one_per_wavelength():
    """As JWST's, in Jy and MJy / sr: by their shape the model reads them as others."""
    lines = np.where(WAVELENGTH > 5004, 2.0, 1.0)
    density = units.spectral_density(WAVELENGTH * units.AA)
    flux = (lines * FLUX).to(units.Jy, density)
    one = spectrum(flux=flux, uncertainty=StdDevUncertainty(0.1 * flux))
    (row,) = rows_of(rows_from_spectra(one, frame="rest"))
    np.testing.assert_allclose(row["flux"], 1e17 * lines, rtol=1e-6)
    np.testing.assert_allclose(row["ivar"], (1e16 * lines) ** -2, rtol=1e-6)
    bright = spectrum(flux=flux / units.sr, uncertainty=StdDevUncertainty(0.1 * flux / units.sr))
    (row,) = rows_of(rows_from_spectra(bright, frame="rest"))
    np.testing.assert_allclose(row["flux"], 1e17 * lines, rtol=1e-6)


def test_photons_are_refused():
    unit = units.photon / units.s / units.cm**2 / units.AA
    one = Spectrum(flux=np.ones(10) * unit, spectral_axis=WAVELENGTH * units.AA)
    with pytest.raises(
        ValueError, match="specutils#0: column flux: found the unit '.*'; expected a flux per wavelength"
    ):
        rows_from_spectra(one, frame="rest", ivar=1.0)


def test_air_by_the_wcs():
    header = {"CTYPE1": "AWAV", "CUNIT1": "Angstrom", "CRPIX1": 1.0, "CRVAL1": 5000.0, "CDELT1": 1.0}
    wcs = WCS(header, naxis=1)
    one = Spectrum(flux=np.ones(10) * FLUX, wcs=wcs, uncertainty=StdDevUncertainty(np.ones(10)))
    (row,) = rows_of(rows_from_spectra(one, frame="rest"))
    np.testing.assert_allclose(row["wavelength"], air_to_vacuum(WAVELENGTH), rtol=1e-12)
    (row,) = rows_of(rows_from_spectra(one, frame="rest", medium="vacuum"))  # who reads it knows better
    np.testing.assert_allclose(row["wavelength"], WAVELENGTH, rtol=1e-12)


def test_spectra_of_two_calls_are_two_objects():
    """A file a call: by one name for all, a split would train on what it holds back."""
    spectra = [spectrum(flux=np.full(10, value) * FLUX) for value in (1.0, 2.0)]
    first, second = (rows_of(rows_from_spectra(each, frame="rest"))[0]["object_id"] for each in spectra)
    again = rows_of(rows_from_spectra(spectra[0], frame="rest"))[0]["object_id"]
    assert first == again != second
    calibrated = spectrum(flux=spectra[0].flux, uncertainty=StdDevUncertainty(np.full(10, 0.7)))
    assert rows_of(rows_from_spectra(calibrated, frame="rest"))[0]["object_id"] == first
    elsewhere = spectrum((WAVELENGTH + 1) * units.AA, flux=spectra[0].flux)
    assert rows_of(rows_from_spectra(elsewhere, frame="rest"))[0]["object_id"] != first
    zeroth = spectrum(meta={"object_id": 0})
    assert rows_of(rows_from_spectra(zeroth, frame="rest"))[0]["object_id"] == "0"
