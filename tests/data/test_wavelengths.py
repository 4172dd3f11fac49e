import numpy as np
import pytest

from spectral_tokenizer.data.wavelengths import air_to_vacuum


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
