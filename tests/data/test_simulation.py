"""The simulator: deterministic, in the surveys' formats, with the physics that the labels promise."""

import csv
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from spectral_tokenizer.data import load_survey, survey_report
from spectral_tokenizer.data.simulation import SURVEYS, apogee, desi, galah, sdss, simulate
from spectral_tokenizer.data.simulation.fits_files import card, image, table, write_file
from spectral_tokenizer.data.simulation.lines import hydrogen_series
from spectral_tokenizer.data.simulation.opacity import (
    continuous_opacity,
    hydrogen_absorption,
    rayleigh_scattering,
)
from spectral_tokenizer.data.simulation.population import (
    Target,
    draw_galaxy,
    draw_quasar_redshift,
    draw_star,
    draw_targets,
)
from spectral_tokenizer.data.simulation.quasars import DAMPED_WING, forest_transmission
from spectral_tokenizer.data.simulation.stars import ROTATION_WIDTH, star_model
from spectral_tokenizer.data.simulation.templates import optical_templates
from spectral_tokenizer.data.wavelengths import SPEED_OF_LIGHT, air_to_vacuum


NUM_OBJECTS = {"sdss": 30, "desi": 62, "galah": 24, "apogee": 24}
H_ALPHA = 6564.61


@pytest.fixture(scope="module")
def survey_files(tmp_path_factory) -> dict[str, Path]:
    return simulate(tmp_path_factory.mktemp("simulation") / "seed0", NUM_OBJECTS)


@pytest.fixture(scope="module")
def truth(survey_files) -> list[dict[str, str]]:
    with open(survey_files["sdss"].parent / "truth.csv") as file:
        return list(csv.DictReader(file))


def make_star(survey: str, **labels: float) -> Target:
    velocity = labels.pop("velocity", 0.0)
    defaults = {"teff": 5800.0, "logg": 4.4, "fe_h": 0.0, "alpha_m": 0.0, "rotation": 2.0, "extinction": 0.0}
    return Target(survey, 0, "star", "STAR", velocity / SPEED_OF_LIGHT, defaults | labels, 100.0, 10.0, 10.0, 0)


def file_contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# What simulate() promises


def test_same_seed_same_bytes_whatever_the_other_surveys(survey_files, tmp_path):
    again = simulate(tmp_path / "again", NUM_OBJECTS | {"sdss": 2, "desi": 3}, surveys=("sdss", "galah", "apogee"))
    assert set(again) == {"sdss", "galah", "apogee"}
    for survey in ("galah", "apogee"):
        assert file_contents(again[survey]) == file_contents(survey_files[survey])


def test_an_object_does_not_depend_on_how_many_are_made(survey_files, tmp_path):
    few = simulate(tmp_path / "few", 5)
    for survey, folder in few.items():
        for path in folder.rglob("*.fits"):
            if path.name.startswith(("redrock", "allStar", f"{galah.NIGHT}.")):
                continue  # one row per object
            many = survey_files[survey] / path.relative_to(folder)
            if survey != "desi":
                assert path.read_bytes() == many.read_bytes()
                continue
            for name in ("B_FLUX", "R_IVAR", "Z_RESOLUTION"):
                assert np.array_equal(fits.getdata(path, name), fits.getdata(many, name)[:5])


def test_seeds_differ(survey_files, tmp_path):
    other = simulate(tmp_path / "other", 2, surveys=("sdss",), seed=1)["sdss"]
    for path in other.glob("*.fits"):
        assert path.read_bytes() != (survey_files["sdss"] / path.name).read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interruption_leaves_nothing(tmp_path, monkeypatch, error):
    def interrupted(targets, folder):
        (folder / "half.fits").write_bytes(b"SIMPLE")
        yield targets[0]
        raise error

    monkeypatch.setattr(apogee, "write", interrupted)
    with pytest.raises(error):
        simulate(tmp_path / "out", 2, surveys=("apogee",))
    assert list(tmp_path.iterdir()) == []


def test_refuses_what_it_cannot_do(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").touch()
    with pytest.raises(FileExistsError, match="not an empty folder"):
        simulate(tmp_path / "old", 1)
    with pytest.raises(ValueError, match="lamost"):
        simulate(tmp_path / "new", 1, surveys=("sdss", "lamost"))
    with pytest.raises(ValueError, match="shared_stars"):
        simulate(tmp_path / "new", 1, shared_stars=1.5)
    assert not (tmp_path / "new").exists()


def test_shared_stars_are_one_object(truth):
    by_key: dict[str, list[dict]] = {}
    for row in truth:
        by_key.setdefault(row["object_key"], []).append(row)
    shared = [rows for rows in by_key.values() if len(rows) > 1]
    assert any(len(rows) == 4 for rows in shared)
    for rows in shared:
        for name in ("teff", "logg", "fe_h", "alpha_m", "radial_velocity"):
            assert len({row[name] for row in rows}) == 1
        assert len({row["survey"] for row in rows}) == len(rows)


def test_classes_and_ranges():
    targets = draw_targets(0, "sdss", 1000, 0.5) + draw_targets(0, "desi", 1000, 0.5)
    assert {target.kind for target in targets} == {"STAR", "GALAXY", "QSO", "SKY"}
    quasars = [target.redshift for target in targets if target.kind == "QSO"]
    galaxies = [target.redshift for target in targets if target.kind == "GALAXY"]
    stars = [target.labels for target in targets if target.kind == "STAR"]
    assert 0.1 <= min(quasars) < 0.5 and 3.0 < max(quasars) <= 4.0
    assert min(galaxies) > 0.0 and max(galaxies) <= 1.5
    assert all(3500.0 <= labels["teff"] <= 12000.0 and -2.0 <= labels["fe_h"] <= 0.5 for labels in stars)
    fluxes = [target.flux for target in targets if target.kind == "STAR"]
    assert np.ptp(np.log10(fluxes)) > 2.0


@pytest.mark.parametrize("survey", ["shared", "galah", "apogee", "sdss"])
def test_no_label_is_a_limit_that_many_stars_stand_on(survey):
    stars = [draw_star(np.random.default_rng([7, number]), survey)[0] for number in range(2000)]
    for name in ("teff", "logg", "fe_h", "alpha_m", "rotation"):
        values, counts = np.unique([labels[name] for labels in stars], return_counts=True)
        assert counts.max() <= 2, (name, values[counts.argmax()], counts.max())
    assert 7000.0 < max(labels["teff"] for labels in stars) <= 12000.0


def test_galaxies_and_quasars_do_not_pile_up_either():
    generator = np.random.default_rng(7)
    redshifts = [draw_quasar_redshift(generator, survey) for survey in ("sdss", "desi") for _ in range(1000)]
    metals = [draw_galaxy(generator, "sdss")[0]["fe_h"] for _ in range(1000)]
    assert len(set(redshifts)) == 2000 and len(set(metals)) == 1000
    assert min(redshifts) >= 0.1 and 3.5 < max(redshifts) <= 4.0


# The files, read as FITS and by the package's own readers


@pytest.mark.parametrize("survey", list(SURVEYS))
def test_readers_give_back_the_truth(survey_files, truth, tmp_path, survey):
    expected = {row["object_id"]: row for row in truth if row["survey"] == survey}
    dataset = load_survey(survey, survey_files[survey], cache_dir=tmp_path, strict=True).with_format("numpy")
    assert survey_report(dataset).damaged == 0
    dropped = {key for key, row in expected.items() if row["note"] in ("sky fibre", "bad fibre")}
    assert {row["object_id"] for row in dataset} == set(expected) - dropped
    assert bool(dropped) == (survey in ("sdss", "desi"))
    tolerance = {"redshift": 1e-6, "radial_velocity": 0.02, "teff": 0.01, "logg": 1e-5, "fe_h": 1e-5}
    for row in dataset:
        labels = expected[row["object_id"]]
        assert row["class"] == labels["class"]
        assert row["snr"] == pytest.approx(float(labels["snr"]), rel=0.02)
        for name, limit in tolerance.items():
            assert np.isnan(row[name]) or row[name] == pytest.approx(float(labels[name]), abs=limit)
        has_labels = survey == "galah" or (survey == "apogee" and labels["file"].startswith("aspcapStar"))
        assert np.isfinite(row["teff"]) == has_labels
        is_usable = np.asarray(row["ivar"]) > 0
        assert 0.75 < is_usable.mean() < 1.0


def test_every_file_is_valid_fits_and_says_it_is_simulated(survey_files):
    for folder in survey_files.values():
        for path in folder.rglob("*.fits"):
            with fits.open(path) as hdus:
                hdus.verify("exception")
                assert hdus[0].header["SIMULATE"] is True
                assert all(hdu.data is not None for hdu in hdus[1:])


def test_sdss_format(survey_files):
    lengths = set()
    for path in survey_files["sdss"].glob("spec-*.fits"):
        with fits.open(path) as hdus:
            pixels, row = hdus[1].data, hdus[2].data[0]
            is_boss = row["INSTRUMENT"] == "BOSS"
            names = ["flux", "loglam", "ivar", "and_mask", "or_mask", "wdisp", "sky", "model"]
            assert pixels.names == ([name.upper() for name in names] if is_boss else names)
            assert np.allclose(np.diff(pixels["loglam"]), 1e-4, atol=1e-6)
            lengths.add(len(pixels))
            assert (4574 <= len(pixels) <= 4625) if is_boss else (3769 <= len(pixels) <= 3872)
            assert path.name == f"spec-{row['PLATE']:04d}-{row['MJD']}-{row['FIBERID']:04d}.fits"
    assert len(lengths) > 5


def test_desi_format(survey_files):
    with fits.open(survey_files["desi"] / "coadd-sv3-dark-0.fits") as hdus:
        names = [f"{arm}_{name}" for arm in "BRZ" for name in ("WAVELENGTH", "FLUX", "IVAR", "MASK", "RESOLUTION")]
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "FIBERMAP", *names]
        assert hdus["B_WAVELENGTH"].data[[0, -1]] == pytest.approx([3600.0, 5800.0])
        assert hdus["R_RESOLUTION"].data.shape == (62, 11, 2326)
        assert hdus["Z_MASK"].data.dtype.kind == "i"
        targets = hdus["FIBERMAP"].data["TARGETID"]
        assert targets.min() > 2**53 and len(set(targets.tolist())) == 62
        assert set(hdus["FIBERMAP"].data["OBJTYPE"]) == {"TGT", "SKY"}
        assert (hdus["FIBERMAP"].data["COADD_FIBERSTATUS"] != 0).any()
    with fits.open(survey_files["desi"] / "redrock-sv3-dark-0.fits") as hdus:
        assert np.array_equal(hdus["REDSHIFTS"].data["TARGETID"], targets)


def test_galah_format(survey_files, truth):
    spectra = survey_files["galah"] / str(galah.NIGHT) / "spectra" / "com"
    reference_pixels, counts, has_garbage = set(), set(), False
    for path in spectra.glob("*.fits"):
        assert len(path.stem) == 16
        with fits.open(path) as hdus:
            counts.add(len(hdus))
            reference_pixels.add(hdus[0].header["CRPIX1"])
            error = hdus[1 if len(hdus) == 5 else "relative_error"].data
            has_garbage |= bool(((error <= 0) | (error > 1)).any())
    assert counts == {5, 8} and reference_pixels == {0.0, 1.0} and has_garbage
    assert any(row["note"] == "no CCD4" for row in truth)
    assert len(list(spectra.glob("*.fits"))) < 4 * NUM_OBJECTS["galah"]


def test_apogee_format(survey_files):
    dimensions = set()
    for path in survey_files["apogee"].glob("apStar-*.fits"):
        with fits.open(path) as hdus:
            assert hdus[1].header["CRVAL1"] == 4.179 and hdus[1].header["CDELT1"] == 6e-6
            flux, error, flags = (np.atleast_2d(hdus[index].data)[0] for index in (1, 2, 3))
            dimensions.add(hdus[1].data.ndim)
            assert flux.shape == (8575,) and ((flags & 1) == 1).sum() > 400
            assert (error[flux == 0] > 1e9).all()
    assert dimensions == {1, 2}
    for path in survey_files["apogee"].glob("aspcapStar-*.fits"):
        with fits.open(path) as hdus:
            assert 0.85 < np.median(hdus[1].data[hdus[1].data > 0]) < 1.05
            assert set(np.unique(hdus[2].data[hdus[1].data == 0])) <= {0.0, 10.0}


def test_fits_writer_round_trip(tmp_path):
    columns = {"NAME": np.array(["a", "bcd"]), "ID": np.array([2**60 + 1, -3]), "VALUES": np.ones((2, 5), dtype="f4")}
    pixels = np.arange(6, dtype=np.int16).reshape(2, 3)
    header = {"FLAG": True, "TEXT": ("it's", "a comment"), "SMALL": 1.25e-9, "COUNT": 7}
    write_file(
        tmp_path / "x.fits", [image(None, header, primary=True), image(pixels, name="PIX"), table(columns, "T", 2)]
    )
    with fits.open(tmp_path / "x.fits") as hdus:
        hdus.verify("exception")
        assert dict(hdus[0].header) | {"FLAG": True, "TEXT": "it's", "SMALL": 1.25e-9, "COUNT": 7} == dict(
            hdus[0].header
        )
        assert np.array_equal(hdus["PIX"].data, pixels)
        assert hdus["T"].data["ID"].tolist() == [2**60 + 1, -3] and hdus["T"].data["NAME"].tolist() == ["a", "bcd"]
    with pytest.raises(ValueError, match="80 characters"):
        card("KEY", "x" * 80)


# The physics


def test_wavelengths():
    assert hydrogen_series(2, 4)[0] == pytest.approx([6564.61, 4862.68], abs=0.02)
    assert hydrogen_series(4, 12)[0][[-2, -1]] == pytest.approx([16811.1, 16411.7], abs=0.3)
    assert air_to_vacuum(np.array([5889.951])) == pytest.approx([5891.583], abs=0.002)


@pytest.mark.parametrize("velocity", [-300.0, 0.0, 250.0])
def test_h_alpha_of_sdss_and_desi_moves_with_velocity(velocity):
    for survey in ("sdss", "desi"):
        target = make_star(survey, teff=7800.0, velocity=velocity)
        (template,) = optical_templates([target])
        if survey == "sdss":
            columns = sdss.observe(target, template)
            wavelength, flux = 10.0 ** columns["loglam"], columns["model"]
        else:
            wavelength, flux = desi.detectors()["R"].wavelength, desi.observe(target, template)["R"]["model"]
        expected = H_ALPHA * (1.0 + velocity / SPEED_OF_LIGHT)
        assert line_center(wavelength, flux, expected, 12.0) == pytest.approx(expected, abs=0.25)


def line_center(wavelength: np.ndarray, flux: np.ndarray, guess: float, reach: float) -> float:
    """Centroid of the absorption within `reach` of a guess."""
    is_near = np.abs(wavelength - guess) < reach
    depth = np.max(flux[is_near]) - flux[is_near]
    return float(np.sum(wavelength[is_near] * depth**3) / np.sum(depth**3))


def test_galah_is_barycentric_air_and_apogee_at_rest():
    target = make_star("galah", teff=6300.0, velocity=120.0)
    labels = {name: np.array([target.labels[name]]) for name in ("teff", "logg", "fe_h", "alpha_m")}
    flux, continuum = galah.models()[3].spectra(labels)
    part = galah.observe(target, 3, flux[0], continuum[0])
    air = part["first"] + part["step"] * np.arange(galah.NUM_PIXELS)
    expected = 6562.80 * (1.0 + 120.0 / SPEED_OF_LIGHT)  # H alpha in air
    assert line_center(air, part["model"], expected, 4.0) == pytest.approx(expected, abs=0.06)
    flux, continuum = apogee.model().spectra(labels)
    parts = apogee.observe(target, flux[0], continuum[0])
    brackett = line_center(apogee.wavelength_grid(), parts["normalised_model"], 16811.1, 4.0)
    assert brackett == pytest.approx(16811.1, abs=0.5)


def line_strength(low: float, high: float, **labels) -> np.ndarray:
    """Equivalent width in Angstrom of everything between two wavelengths, for a sequence of one label."""
    count = max(np.size(value) for value in labels.values())
    defaults = {"teff": 5500.0, "logg": 4.4, "fe_h": 0.0, "alpha_m": 0.0} | labels
    model = star_model(15050.0, 17060.0, 2.0) if low > 1e4 else star_model(3500.0, 10500.0, 6.0)
    flux, continuum = model.spectra({name: np.broadcast_to(value, count) for name, value in defaults.items()})
    is_inside = (model.wavelength > low) & (model.wavelength < high)
    return ((1.0 - flux / continuum)[:, is_inside] * np.gradient(model.wavelength)[is_inside]).sum(axis=1)


@pytest.mark.parametrize(
    "window",
    [(5160.0, 5200.0), (8490.0, 8700.0), (4713.0, 4850.0), (15740.0, 15780.0), (16130.0, 16380.0), (16720.0, 16780.0)],
)
def test_metal_lines_grow_with_metallicity(window):
    assert (np.diff(line_strength(*window, teff=4700.0, logg=2.5, fe_h=np.linspace(-2.0, 0.5, 6))) > 0).all()


def test_lines_follow_temperature_and_gravity():
    balmer = (4820.0, 4905.0)
    teff = np.array([5500.0, 6500.0, 7500.0, 8500.0])
    assert (np.diff(line_strength(*balmer, teff=teff, fe_h=-2.0)) > 0).all()  # Balmer lines peak near 9500 K
    assert (np.diff(line_strength(*balmer, teff=10000.0, logg=np.array([2.0, 3.0, 4.0]))) > 0).all()  # Stark wings
    assert (np.diff(line_strength(5160.0, 5195.0, teff=np.array([4500.0, 5500.0, 6500.0, 7500.0]))) < 0).all()  # Mg b
    assert (
        np.diff(line_strength(5880.0, 5905.0, teff=4300.0, logg=np.array([3.5, 4.2, 4.8]))) > 0
    ).all()  # Na D wings
    ionised = line_strength(4923.5, 4927.0, teff=6000.0, logg=np.array([1.5, 3.0, 4.5]))  # Fe II 4925
    assert (np.diff(ionised) < 0).all()
    titanium_oxide = line_strength(7055.0, 7120.0, teff=np.array([3500.0, 3800.0, 4200.0]), logg=4.7)
    assert (np.diff(titanium_oxide) < 0).all() and titanium_oxide[0] > 5.0 * titanium_oxide[2]
    magnesium = line_strength(5160.0, 5200.0, teff=4800.0, alpha_m=np.array([0.0, 0.3]))
    assert np.diff(magnesium) > 0


def test_hydrogen_has_wide_shallow_wings():
    """H alpha of the Sun: what ten times the opacity adds is little. With one layer 5 Angstrom away nothing is
    left."""
    model = star_model(3500.0, 10500.0, 6.0)
    flux, continuum = model.spectra({"teff": [5777.0], "logg": [4.44], "fe_h": [0.0], "alpha_m": [0.0]})
    distance = np.abs(model.wavelength - 6564.61)
    wings = [np.percentile((flux / continuum)[0, np.abs(distance - each) < 1.0], 75) for each in (5.0, 10.0, 20.0)]
    assert wings == pytest.approx([0.92, 0.97, 0.99], abs=0.025)


def test_continuum_has_jumps_and_colours():
    model = star_model(3500.0, 10500.0, 6.0)
    labels = {
        "teff": np.array([4500.0, 9000.0]),
        "logg": np.array([4.5, 4.0]),
        "fe_h": np.zeros(2),
        "alpha_m": np.zeros(2),
    }
    _, continuum = model.spectra(labels)
    at = {wavelength: continuum[:, np.searchsorted(model.wavelength, wavelength)] for wavelength in (3600, 3800, 7000)}
    jump = at[3800] / at[3600]
    assert jump[0] < 1.3 and jump[1] > 2.0
    assert at[3800][0] < at[7000][0] and at[3800][1] > at[7000][1]


def test_hydrogen_scatters_as_its_polarisability_says():
    """Far from Lyman alpha 128 pi^5 / 3 (polarisability)^2 / wavelength^4, and 4.5 Bohr radii cubed."""
    polarisability = 4.5 * 0.529177e-8**3
    expected = 128.0 * np.pi**5 / 3.0 * polarisability**2 / 20000e-8**4
    assert rayleigh_scattering(np.array([20000.0])) / expected == pytest.approx(1.0, rel=0.02)
    # Where electrons are few, little else is left.
    opacity = continuous_opacity(np.array([4800.0]), np.array([4000.0]), np.array([1e-4]))
    assert opacity / rayleigh_scattering(np.array([4800.0])) == pytest.approx(1.0, rel=0.05)


def test_free_electrons_absorb_beside_bound_ones():
    """Far in the infrared of a hot star hydrogen's highest levels and its free electrons are all that is left."""
    theta, wavelength = 5040.0 / 12000.0, 9.0e4
    ionised = 13.598 * theta
    free = 1.0449e-26 * wavelength**3 * 0.4343 / (2.0 * ionised) * 10.0**-ionised  # Gray's equation 8.10
    level = np.arange(10, 2000)  # whose edges lie beyond
    bound = 1.0449e-26 * wavelength**3 * (10.0 ** (-ionised * (1.0 - level**-2.0)) / level**3.0).sum()
    found = hydrogen_absorption(np.array([wavelength]), np.array([[theta]]))[0, 0]
    assert 0.85 < (free + bound) / found < 1.05 and free > 0.7 * found


def test_lines_are_thinned_by_stimulated_emission_as_the_continuum_is():
    model, labels = apogee.model(), {"teff": np.array([4000.0, 9000.0])}
    opacity = np.ones((2, len(model.nodes)))
    relative = model.relative_opacity(labels, np.ones(2), opacity)
    at = np.abs(model.nodes - 16000.0).argmin()
    expected = 1.0 - np.exp(-14387.77 / (1.6 * 0.92 * labels["teff"]))
    np.testing.assert_allclose(relative[:, at], expected, rtol=0.01)


def test_rotation_widens_as_a_limb_darkened_disc_does():
    x = np.linspace(-1.0, 1.0, 20001)
    profile = 2.0 * 0.4 * np.sqrt(1.0 - x**2) + 0.5 * np.pi * 0.6 * (1.0 - x**2)
    assert np.sqrt((profile * x**2).sum() / profile.sum()) == pytest.approx(ROTATION_WIDTH, rel=0.02)


def test_blank_sky_is_looked_at_by_both_of_sdss_instruments():
    targets = draw_targets(0, "sdss", 200, 0.0)
    assert {target.number % 2 for target in targets if target.kind == "SKY"} == {0, 1}


def make_galaxy(young: float, redshift: float) -> Target:
    labels = {"young": young, "fe_h": 0.1, "dust": 0.1, "dispersion": 150.0}
    return Target("sdss", 1, "galaxy", "GALAXY", redshift, labels, 100.0, 10.0, 10.0, 0)


def test_galaxies_have_breaks_and_lines_at_their_redshift():
    ages = []
    for young in (0.0, 0.9):
        target = make_galaxy(young, 0.2)
        (template,) = optical_templates([target])
        columns = sdss.observe(target, template)
        rest, flux = 10.0 ** columns["loglam"] / 1.2, columns["model"]
        red, blue = (np.median(flux[(rest > low) & (rest < low + 100.0)]) for low in (4000.0, 3850.0))
        ages.append(red / blue)
    assert ages[0] > 1.3 > ages[1]
    is_near = np.abs(rest - H_ALPHA) < 30.0
    assert rest[is_near][np.argmax(flux[is_near])] == pytest.approx(H_ALPHA, abs=1.0)


def test_quasars_have_broad_lines_at_their_redshift():
    target = Target("sdss", 1, "quasar", "QSO", 2.4, {}, 100.0, 10.0, 10.0, 0)
    (template,) = optical_templates([target])
    columns = sdss.observe(target, template)
    rest, flux = 10.0 ** columns["loglam"] / 3.4, columns["model"]
    for low, high, expected in ((1180.0, 1300.0, 1216.0), (1500.0, 1600.0, 1545.0)):
        is_near = (rest > low) & (rest < high)
        smooth = np.convolve(flux, np.ones(15) / 15.0, mode="same")
        assert rest[is_near][np.argmax(smooth[is_near])] == pytest.approx(expected, abs=15.0)


def test_forest_has_the_observed_mean():
    for redshift in (2.5, 3.5):
        draws = [forest_transmission(np.random.default_rng(number), redshift) for number in range(30)]
        wavelength = draws[0][0]
        is_forest = (wavelength > 1050.0 * (1.0 + redshift)) & (wavelength < 1170.0 * (1.0 + redshift))
        mean = np.mean([transmission[is_forest].mean() for _, transmission in draws])
        expected = np.exp(-0.0023 * (wavelength[is_forest] / 1215.67) ** 3.65).mean()
        assert mean == pytest.approx(expected, abs=0.06)


def test_damped_wings_have_the_equivalent_width_of_their_column():
    distance = np.linspace(-4000.0, 4000.0, 400_001)
    for column in (20.3, 21.2):
        opacity = 10.0 ** (column - 20.3) * DAMPED_WING / (distance**2 + 0.01)
        width = np.trapezoid(1.0 - np.exp(-opacity), distance)
        assert width == pytest.approx(7.3 * np.sqrt(10.0 ** (column - 20.0)), rel=0.02)


# The noise


def residuals(survey: str) -> np.ndarray:
    """(flux - noiseless flux) / sigma on usable pixels away from sky lines, of a few targets."""
    values = []
    targets = draw_targets(2, survey, 8, 0.5)
    if survey in ("sdss", "desi"):
        for target, template in zip(targets, optical_templates(targets)):
            if survey == "sdss":
                arms = {"": sdss.observe(target, template)}
                sky = {"": np.zeros(len(arms[""]["flux"]))}
            else:
                arms = desi.observe(target, template)
                sky = {arm: detector.sky for arm, detector in desi.detectors().items()}
            for arm, part in arms.items():
                is_good = (part["ivar"] > 0) & (sky[arm] < 0.01) & (part.get("mask", 0) == 0)
                if survey == "sdss":
                    is_good &= part["sky"] < 8.0
                values.append(((part["flux"] - part["model"]) * np.sqrt(part["ivar"]))[is_good])
        return np.concatenate(values)
    labels = {name: np.array([t.labels[name] for t in targets]) for name in ("teff", "logg", "fe_h", "alpha_m")}
    for index, target in enumerate(targets):
        if survey == "galah":
            flux, continuum = galah.models()[2].spectra({name: value[[index]] for name, value in labels.items()})
            part = galah.observe(target, 2, flux[0], continuum[0])
            is_good = (part["error"] > 0) & (part["error"] < 1)
            sigma = np.where(is_good, part["error"] * part["counts"], 1.0)
            values.append(((part["counts"] - part["model"]) / sigma)[is_good])
        else:
            flux, continuum = apogee.model().spectra({name: value[[index]] for name, value in labels.items()})
            part = apogee.observe(target, flux[0], continuum[0])
            is_good = part["is_usable"] & ((part["flags"] & (1 << apogee.SKY_BIT)) == 0)
            values.append(((part["flux"] - part["model"]) / part["error"])[is_good])
    return np.concatenate(values)


@pytest.mark.parametrize("survey", list(SURVEYS))
def test_noise_is_what_the_errors_say(survey):
    chi = residuals(survey)
    spread = np.subtract(*np.percentile(chi, [84.13, 15.87])) / 2.0
    assert spread == pytest.approx(1.0, abs=0.06)
    assert np.median(chi) == pytest.approx(0.0, abs=0.06)
    assert 0 < (np.abs(chi) > 8.0).mean() < 0.002  # a few unflagged cosmic rays


def test_resolution_matrix_tells_the_true_width():
    bands = desi.resolution_bands(np.array([0.8, 0.95]))
    offset = np.arange(5, -6, -1)[:, None]
    assert bands.sum(axis=0) == pytest.approx([1.0, 1.0])
    assert np.sqrt((bands * offset**2).sum(axis=0)) == pytest.approx([0.8, 0.95], abs=0.01)


@pytest.mark.parametrize(
    ("survey", "kinds", "resolving_powers"),
    [
        ("sdss", {"measured"}, [(1500, 2500)]),
        ("desi", {"measured"}, [(2300, 3600), (3800, 5000), (4700, 5600)]),
        ("galah", {"measured", "nominal"}, [(26900, 27100), (22400, 22600), (22400, 22600), (21900, 22100)]),
        ("apogee", {"measured", "nominal"}, [(22300, 22600)] * 3),
    ],
)
def test_readers_find_the_resolution_that_was_simulated(survey_files, tmp_path, survey, kinds, resolving_powers):
    """Measured where real files carry it, and then as the nominal value says."""
    dataset = load_survey(survey, survey_files[survey], cache_dir=tmp_path)
    assert set(dataset["lsf_kind"][:]) == kinds
    for row in dataset:
        resolving_power = np.array(row["wavelength"]) / (2.3548 * np.array(row["lsf_sigma"]))
        segments = np.split(resolving_power, np.cumsum(row["segment_lengths"])[:-1])
        assert all(low < np.median(found) < high for found, (low, high) in zip(segments, resolving_powers))
