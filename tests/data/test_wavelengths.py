import numpy as np
import pytest

from spectral_tokenizer import patching_spectral_tokenizer as patching
from spectral_tokenizer.data.wavelengths import ARM_LEAP, LEAP_NEIGHBOURS, air_to_vacuum, arm_lengths


@pytest.mark.parametrize(
    ("air", "vacuum"),
    # H-beta, [O III], Mg I b, Na I D2, H-alpha, [S II]: air and vacuum values as tabulated by SDSS for its line fits
    [(4861.325, 4862.683), (5006.843, 5008.240), (6562.801, 6564.614), (6716.440, 6718.294), (6730.815, 6732.673)],
)
def test_published_lines(air, vacuum):
    assert air_to_vacuum(air) == pytest.approx(vacuum, abs=0.005)


def test_inverse_of_the_iau_formula():
    """Morton (1991, ApJS 77, 119), the IAU's formula from vacuum to air: an independent fit of the same physics."""
    vacuum = np.linspace(4700.0, 7900.0, 50)
    wavenumber_squared = (1e4 / vacuum) ** 2
    index = 1 + 6.4328e-5 + 2.94981e-2 / (146 - wavenumber_squared) + 2.5540e-4 / (41 - wavenumber_squared)
    np.testing.assert_allclose(air_to_vacuum(vacuum / index), vacuum, atol=2e-3)


def test_shape_and_precision():
    air = np.full((2, 3), 6562.801, dtype=np.float32)
    assert air_to_vacuum(air).shape == (2, 3)
    assert air_to_vacuum(air).dtype == np.float64


def test_arms_that_nobody_named_are_cut_where_wavelengths_leap():
    arms = [np.linspace(4715, 4902, 4100), np.linspace(5649, 5873, 4090), np.linspace(6481, 6739, 4000)]
    assert arm_lengths(np.concatenate(arms)) == [4100, 4090, 4000]
    # A few bad pixels that were left out, and steps that grow, are no gap between arms.
    assert arm_lengths(np.delete(arms[0], slice(1000, 1050))) == [4050]
    assert arm_lengths(np.geomspace(3600, 25_000, 3000)) == [3000]
    assert arm_lengths(np.array([5000.0, 9000.0])) == [2]


def test_readers_cut_where_the_processor_would_refuse():
    assert (ARM_LEAP, LEAP_NEIGHBOURS) == (patching.ARM_LEAP, patching.LEAP_NEIGHBOURS)
    for gap in (50.0, 90.0, 99.0, 101.0, 120.0, 1000.0):
        wavelength = np.concatenate([5000.0 + np.arange(100.0), 5099.0 + gap + np.arange(100.0)])
        spectrum = patching.Spectrum("one", wavelength, wavelength, wavelength, (200,))
        if len(arm_lengths(wavelength)) == 1:
            patching.check_one_arm(spectrum)
        else:
            with pytest.raises(ValueError, match="segment_lengths: expected the pixels of each arm"):
                patching.check_one_arm(spectrum)
    assert len(arm_lengths(wavelength)) == 2


def test_what_is_no_angstrom_stays():
    np.testing.assert_array_equal(air_to_vacuum(np.array([0.39, 390.0, np.nan, 5e5])), [0.39, 390, np.nan, 5e5])


def test_wavelengths_that_do_not_ascend_are_one_arm():
    assert arm_lengths(np.linspace(6000, 5000, 200)) == [200]
