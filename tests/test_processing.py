import numpy as np
import pytest
import torch
from datasets import Dataset
from spectra import spectrum

from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer import patching_spectral_tokenizer as patching
from spectral_tokenizer.data.wavelengths import PLAUSIBLE


@pytest.fixture
def processor():
    return SpectralProcessor()


def columns(row):
    return row["flux"], row["ivar"], row["wavelength"], row["segment_lengths"]


@pytest.mark.parametrize("survey", ["sdss", "desi", "galah", "apogee"])
def test_reconstruction_inverts_patching_exactly(processor, survey):
    row = spectrum(survey)
    inputs = processor(row)
    (flux,) = processor.post_process_reconstruction(inputs["flux"], inputs["scale"], inputs["num_pixels"])
    usable = row["ivar"] > 0
    assert flux.shape == row["flux"].shape
    np.testing.assert_allclose(flux[usable], row["flux"][usable], rtol=1e-6)


def test_no_patch_straddles_two_segments(processor):
    row = spectrum("desi")
    inputs = processor(row)
    assert inputs["num_pixels"].sum() == len(row["flux"])
    assert inputs["num_pixels"].tolist() == [3 * ([32] * 9 + [12])]
    assert (np.diff(inputs["wavelength"][0], axis=1) > 0).all()  # filling included


def test_normalised_flux_has_unit_median_and_ivar_follows(processor):
    row = spectrum("sdss", num_bad=0)
    inputs = processor(row)
    assert np.median(inputs["flux"][inputs["ivar"] > 0]) == pytest.approx(1, rel=1e-6)
    signal = row["flux"] * np.sqrt(row["ivar"])
    np.testing.assert_allclose((inputs["flux"] * np.sqrt(inputs["ivar"]))[0].ravel()[: len(signal)], signal, rtol=1e-5)


@pytest.mark.parametrize("number", [1, 2, 3, 10, 1001, 4096])
def test_the_two_in_the_middle_are_those_of_the_sorted_numbers(number):
    values = np.random.default_rng(number).standard_normal(number).astype(np.float32)
    ordered = np.sort(values)
    assert patching.middle_two(values).tolist() == [ordered[(number - 1) // 2], ordered[number // 2]]
    assert patching.middle_two(values).mean() == np.median(values)


@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_a_factor_on_the_flux_goes_into_the_scale_alone(processor, factor):
    row = spectrum("desi")
    scaled = {**row, "flux": row["flux"] * factor, "ivar": row["ivar"] / factor**2}
    one, other = processor(row), processor(scaled)
    for name in ("flux", "ivar", "attention_mask"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-5)
    np.testing.assert_allclose(other["scale"], one["scale"] * factor, rtol=1e-9)


@pytest.mark.parametrize("level", [-3.0, 0.0, 0.01])
def test_a_median_below_the_noise_neither_flips_nor_blows_up(processor, level):
    generator = np.random.default_rng(0)
    noise = generator.standard_normal(640)
    line = 20 * np.exp(-0.5 * ((np.arange(640) - 300) / 3) ** 2)
    inputs = processor(level + noise + line, np.ones(640), 4000.0 + np.arange(640))
    assert inputs["scale"][0] == 1  # the median error
    assert np.isfinite(inputs["flux"]).all() and inputs["flux"].max() > 15


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf, 1e30])
def test_unusable_pixels_may_hold_anything(processor, rubbish):
    row = spectrum("apogee")
    dirty = {**row, "flux": np.where(row["ivar"] > 0, row["flux"], rubbish)}
    one, other = processor(row), processor(dirty)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_nan_or_infinite_ivar_is_unusable(processor):
    row = spectrum("sdss", num_bad=0)
    ivar = row["ivar"].copy()
    ivar[[3, 4, 5]] = np.nan, np.inf, -1
    assert (processor({**row, "ivar": ivar})["ivar"][0, 0, 3:6] == 0).all()


def test_a_patch_more_than_half_unusable_is_invalid(processor):
    row = spectrum("sdss", num_bad=0)
    ivar = row["ivar"].copy()
    ivar[:16] = 0  # half of the first patch: valid
    ivar[32:49] = 0  # one more than half of the second: invalid
    attention_mask = processor({**row, "ivar": ivar})["attention_mask"][0]
    assert attention_mask[0] == 1 and attention_mask[1] == 0
    assert attention_mask[-1] == 0  # 1000 = 31 * 32 + 8: the last patch is filling for the most part


def test_packed_holds_the_valid_patches_of_the_padded(processor):
    rows = [spectrum("sdss", 1), spectrum("desi", 2), spectrum("apogee", 3)]
    padded, packed = processor(rows), processor(rows, packed=True)
    valid = padded["attention_mask"].astype(bool)
    assert packed["lengths"] == valid.sum(1).tolist()
    for name in ("flux", "ivar", "wavelength"):
        np.testing.assert_array_equal(packed[name][0], padded[name][valid])


def test_every_form_of_input_gives_the_same(processor):
    rows = [spectrum("sdss", 1), spectrum("sdss", 2)]
    expected = processor(rows)
    flux, ivar, wavelength, segments = ([row[name] for row in rows] for name in rows[0])
    forms = [
        processor(flux, ivar, wavelength, segments),
        processor(np.stack(flux), np.stack(ivar), np.stack(wavelength)),
        processor({name: [row[name] for row in rows] for name in rows[0]}),
        processor([each.tolist() for each in flux], [each.tolist() for each in ivar], wavelength),
        processor([torch.tensor(each) for each in flux], ivar, wavelength, segments),
    ]
    for form in forms:
        for name in expected:
            np.testing.assert_array_equal(form[name], expected[name])
    np.testing.assert_array_equal(processor(*columns(rows[0]))["flux"][0], expected["flux"][0])


def test_masks_and_units_are_heeded(processor):
    """`np.asarray` drops both without a word: a masked pixel would be one of the brightest, a nanometre an
    Angstrom."""
    units, masked = pytest.importorskip("astropy.units"), pytest.importorskip("astropy.utils.masked").Masked
    table = pytest.importorskip("astropy.table")
    row = spectrum("sdss")
    flux, ivar, wavelength, _ = columns(row)
    is_bad, number = np.arange(len(flux)) % 40 < 7, np.ma.array
    rubbish, unit = np.where(is_bad, -9999.0, flux), units.Unit("1e-17 erg / (s cm2 AA)")
    expected = processor(flux, np.where(is_bad, 0.0, ivar), wavelength)
    nanometres = wavelength * 0.1 * units.nm
    for form in (
        (number(rubbish, mask=is_bad), number(ivar, mask=is_bad), wavelength),
        (rubbish, number(ivar, mask=is_bad), number(wavelength, mask=False)),
        (masked(rubbish * unit, mask=is_bad), (ivar / unit**2).to((unit * 1e17) ** -2), nanometres),
        (table.MaskedColumn(rubbish, mask=is_bad, unit=unit), ivar, table.Column(nanometres.value, unit="nm")),
        ([None if bad else each for bad, each in zip(is_bad, flux)], ivar, wavelength),
    ):
        found = processor(*form)
        for name in ("flux", "ivar", "wavelength", "attention_mask"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)
    with pytest.raises(ValueError, match="spectrum 0: expected wavelength in a unit of length"):
        processor(flux, ivar, wavelength * units.km / units.s)
    with pytest.raises(ValueError, match="spectrum 0: expected .* ivar in that of 1 / flux"):
        processor(flux * unit, ivar / units.s, wavelength)


@pytest.mark.parametrize("unit", ["Jy", "MJy / sr", "photon / (s cm2 AA)", "mag(AB)", "mJy / beam", "dex", "W / Hz"])
def test_a_flux_that_is_not_per_wavelength_is_refused(processor, unit):
    """It has another shape: 86 SDSS spectra in f_nu went through, and the released head read the wrong class."""
    units = pytest.importorskip("astropy.units")
    flux, ivar, wavelength, segments = columns(spectrum("sdss"))
    with pytest.raises(ValueError, match="spectrum 0: expected a flux per wavelength, in any multiple, found: "):
        processor(units.Quantity(np.abs(flux), unit, subok=True), ivar, wavelength, segments)
    processor(flux * units.Unit("W / (m2 um)"), ivar, wavelength, segments)


def test_a_dataset_is_a_list_of_rows_and_a_grid_may_be_shared(processor):
    datasets = pytest.importorskip("datasets")
    rows = [spectrum("sdss", 1), spectrum("sdss", 2)]
    expected = processor(rows)
    whole = processor(datasets.Dataset.from_list(rows))
    shared = processor(np.stack([row["flux"] for row in rows]), [row["ivar"] for row in rows], rows[0]["wavelength"])
    for found in (whole, shared):
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


def test_columns_of_pandas_begin_at_any_index(processor):
    pandas = pytest.importorskip("pandas")
    flux, ivar, wavelength, _ = (pandas.Series(each).iloc[100:] for each in columns(spectrum("sdss")))
    expected = processor(flux.to_numpy(), ivar.to_numpy(), wavelength.to_numpy())
    np.testing.assert_array_equal(processor(flux, ivar, wavelength)["flux"], expected["flux"])


def test_only_what_belongs_together_is_put_back(processor):
    rows = [spectrum("sdss", 1), spectrum("desi", 2)]
    padded, packed = processor(rows), processor(rows, packed=True)
    for flux, scale, num_pixels in (
        (padded["flux"], padded["scale"][:1], padded["num_pixels"]),
        (padded["flux"], padded["scale"], padded["num_pixels"][:, 1:]),
        (packed["flux"], packed["scale"], padded["num_pixels"]),
    ):
        with pytest.raises(ValueError, match="expected .*padded spectra"):
            processor.post_process_reconstruction(flux, scale, num_pixels)


def test_a_remark_is_made_once_for_all_spectra(processor, caplog):
    patching.logger.warning_once.cache_clear()
    for number in range(3):
        processor(np.ones(64), np.ones(64), np.float32(4000 + number + np.arange(64)))
    assert len([each for each in caplog.records if "float32" in each.message]) == 1


def test_tensors_keep_float64_wavelengths(processor):
    inputs = processor(spectrum("galah"), return_tensors="pt")
    assert inputs["wavelength"].dtype == torch.float64
    assert inputs["flux"].dtype == inputs["ivar"].dtype == torch.float32
    assert inputs["attention_mask"].dtype == torch.int64


def test_300_000_pixels(processor):
    inputs = processor(np.ones(300_000), np.ones(300_000), 3000 + 0.05 * np.arange(300_000))
    assert inputs["flux"].shape == (1, 9375, 32) and inputs["attention_mask"].all()


def wave(n, start=4000.0):
    return start + np.arange(n)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), "empty"),
        ((np.ones(1), np.ones(1), wave(1)), "at least half of which are usable"),
        ((np.ones(64), np.zeros(64), wave(64)), "usable pixels"),
        ((np.full(64, np.nan), np.ones(64), wave(64)), "usable pixels"),
        ((np.ones(64), np.ones(63), wave(64)), "one length"),
        ((np.ones(64), np.ones(64), wave(64)[::-1]), "ascend"),
        ((np.ones(64), np.ones(64), np.r_[wave(32), wave(32)]), "segment_lengths"),
        ((np.ones(64), np.ones(64), np.r_[wave(63), np.nan]), "finite, positive wavelengths"),
        ((np.ones(64), np.ones(64), wave(64, -10)), "finite, positive wavelengths"),
        ((np.ones(64), np.ones(64), wave(64), [32, 31]), "add up to 64"),
        ((np.ones(64), None, wave(64)), "1 / error"),
        ((np.ones(64), np.ones(64, dtype=bool), wave(64)), "found: booleans"),
        ((np.ones(64, dtype=complex), np.ones(64), wave(64)), "flux in real numbers, found: complex128"),
        ((["1.0"] * 64, np.ones(64), wave(64)), "flux in real numbers, found: <U3"),
        (("spec-1.fits",), "found a str as flux"),
        (([], [], []), "found"),
        (([np.ones(64)], [np.ones(64)] * 2, [wave(64)]), "as many spectra"),
        (([{"object_id": "x", "flux": np.ones(64)}],), "spectrum 0 \\(x\\).*ivar, wavelength"),
    ],
)
def test_bad_input_says_what_was_found_and_what_was_expected(processor, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        processor(*arguments)
    assert "expected" in str(error.value) or "needs" in str(error.value)


@pytest.mark.parametrize("convert", [np.log10, lambda each: each / 10, lambda each: each / 1e4])
def test_wavelengths_that_cannot_be_angstrom_are_refused(processor, convert):
    """In a logarithm, nm or microns; a reader refuses them as well."""
    wavelength = convert(4000 + np.arange(64.0))
    expected = f"spectrum 0: expected wavelengths in Angstrom, from 500 to 300000, found: {wavelength[0]:g} to"
    with pytest.raises(ValueError, match=expected):
        processor(np.ones(64), np.ones(64), wavelength)
    assert PLAUSIBLE == patching.PLAUSIBLE_ANGSTROM


def test_what_may_be_nanometres_is_questioned_once(processor, caplog):
    """APOGEE's 1510 to 1700 nm are far ultraviolet ones in Angstrom, which exist."""
    patching.logger.warning_once.cache_clear()
    for survey in ("sdss", "apogee"):
        processor(spectrum(survey))
    assert not any("nm" in record.message for record in caplog.records)
    row = spectrum("apogee")
    for factor in (10, 9.99):
        processor({**row, "wavelength": row["wavelength"] / factor})
    assert len([record for record in caplog.records if "or are their wavelengths in nm" in record.message]) == 1


@pytest.mark.parametrize("convert", [np.float32, lambda each: torch.tensor(each, dtype=torch.float32)])
def test_wavelengths_rounded_to_float32_are_remarked_on(processor, caplog, convert):
    row = spectrum("apogee")
    patching.logger.warning_once.cache_clear()
    processor({**row, "wavelength": convert(row["wavelength"])})
    assert any("float32" in record.message for record in caplog.records)


def test_a_grid_to_ask_for_has_the_same_patches_as_a_spectrum_on_it(processor):
    row = spectrum("desi")
    grid = processor.patch_wavelength(row["wavelength"], row["segment_lengths"])
    inputs = processor(row)
    np.testing.assert_array_equal(grid["wavelength"], inputs["wavelength"])
    np.testing.assert_array_equal(grid["num_pixels"], inputs["num_pixels"])


def test_a_grid_may_have_a_unit(processor):
    units = pytest.importorskip("astropy.units")
    wavelength = 5000 + 2.0 * np.arange(100)
    found = processor.patch_wavelength(0.1 * wavelength * units.nm)
    np.testing.assert_allclose(found["wavelength"], processor.patch_wavelength(wavelength)["wavelength"])


def test_patches_for_any_grid_have_pixels_as_wide_as_the_spectrum_there(processor):
    """Of others a decoder has seen none."""
    rows = [spectrum("desi"), spectrum("galah")]
    inputs = processor(rows)
    own = [inputs["wavelength"][row][inputs["num_pixels"][row] == 32] for row in range(2)]
    for wavelength in (np.arange(5000.0, 7000.0, 7.3), np.arange(5800.0, 5810.0, 0.01), np.array([4750.0, 6600.0])):
        asked = processor.patch_wavelength(wavelength, like=inputs)
        np.testing.assert_array_equal(asked["grid"], wavelength)
        for patches, num_pixels, known in zip(asked["wavelength"], asked["num_pixels"], own):
            pixels = patches[num_pixels == 32].ravel()
            assert (np.diff(pixels) > 0).all() and pixels[0] <= wavelength[0] and pixels[-1] >= wavelength[-1]
            step = np.diff(patches[num_pixels == 32], axis=1)
            order = known.mean(1).argsort()
            expected = np.interp(patches[num_pixels == 32][:, 0], known.mean(1)[order], np.diff(known)[order, 0])
            np.testing.assert_allclose(step, expected[:, None].repeat(31, axis=1), rtol=1e-3)
            # No wavelength is far from two pixels that are asked for.
            place = np.searchsorted(pixels, wavelength, side="right").clip(1, len(pixels) - 1)
            assert (pixels[place] - pixels[place - 1] < 1.01 * step.max()).all()
        # A straight line comes back as it is.
        scale, tilt = np.array([2.0, 3.0]), asked["wavelength"] / 1000
        for flux, factor in zip(processor.post_process_reconstruction(tilt, scale, **asked), scale):
            np.testing.assert_allclose(flux, factor * wavelength / 1000)


def test_patches_like_those_of_packed_spectra_are_refused(processor):
    packed = processor([spectrum("desi")], packed=True)
    with pytest.raises(ValueError, match=r"expected padded spectra .*without \['num_pixels'\]"):
        processor.patch_wavelength(np.arange(5000.0, 5100.0), like=packed)
    one = {name: each[0] for name, each in processor(spectrum("desi")).items()}
    with pytest.raises(ValueError, match=r"like: expected .* as a batch of one, found shapes: \(\d+, 32\)"):
        processor.patch_wavelength(np.arange(5000.0, 5100.0), like=one)


def test_a_grid_needs_the_wavelengths_that_were_asked_for(processor):
    inputs = processor(spectrum("desi"))
    answer = {name: inputs[name] for name in ("scale", "num_pixels")}
    with pytest.raises(ValueError, match="expected the patches' wavelength beside a grid"):
        processor.post_process_reconstruction(inputs["flux"], **answer, grid=np.arange(5000.0, 5100.0))


@pytest.mark.parametrize("wrong", [0, -32, 32.0, "32", True])
def test_patch_size_is_a_number_of_pixels(wrong):
    with pytest.raises(ValueError, match="patch_size: expected a positive whole number of pixels, found: "):
        SpectralProcessor(patch_size=wrong)


def test_columns_of_different_lengths_lose_no_spectrum(processor):
    """The rest would be left out without a word."""
    flux, ivar, wavelength, _ = columns(spectrum("sdss"))
    three = {"flux": [flux] * 3, "ivar": [ivar] * 3, "wavelength": [wavelength] * 3}
    for wrong in ({"ivar": [ivar] * 2}, {"object_id": ["a"]}, {"segment_lengths": [[len(flux)]] * 2}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"expected as many spectra .*'{name}': {len(wrong[name])}"):
            processor({**three, **wrong})
    assert len(processor({**three, "segment_lengths": None})["flux"]) == 3


def test_errors_that_mark_bad_pixels_decide_nothing(processor):
    """Some files give them an error of 1e10; of half of the pixels the median would be theirs."""
    generator = np.random.default_rng(0)
    wavelength = np.linspace(4000.0, 7200.0, 3200)
    error = np.full(3200, 0.1)
    flux = 5 + error * generator.standard_normal(3200)
    flux[1500:], error[1500:] = 0.0, 1e10
    ivar = 1 / error**2
    marked, known = processor(flux, ivar, wavelength), processor(flux, np.where(ivar < 1, 0.0, ivar), wavelength)
    for name in known:
        np.testing.assert_array_equal(marked[name], known[name], err_msg=name)
    ivar[0] = 1e30  # and one pixel that is far too good does not make all others bad
    assert (processor(flux, ivar, wavelength)["ivar"] > 0).sum() == 1500


def test_infinite_ivar_is_remarked_on(processor, caplog):
    """1 / error**2 of a flux in erg/s/cm2/A is beyond float32 where it is best known."""
    error = np.geomspace(2e-20, 2e-19, 640).astype(np.float32)
    patching.logger.warning_once.cache_clear()
    with np.errstate(over="ignore", divide="ignore"):
        processor(np.full(640, 8e-19, np.float32), 1 / error**2, np.linspace(4000.0, 8000.0, 640))
    assert any("beyond float32" in record.message for record in caplog.records)


@pytest.mark.parametrize("wrong", [[[320, 320]], 640, [320.5, 319.5]])
def test_segment_lengths_of_another_form_are_named(processor, wrong):
    row = {**spectrum("sdss"), "segment_lengths": wrong}
    with pytest.raises(ValueError, match="spectrum 0.*: expected segment_lengths as whole numbers, found: "):
        processor(row)


def test_errors_in_place_of_ivar_are_remarked_on(processor, caplog):
    """Such a spectrum is noise to any model, and its answers are those of noise."""
    flux, ivar, wavelength, segment_lengths = columns(spectrum("galah"))
    noise = np.random.default_rng(0).standard_normal(len(flux))
    processor([flux, noise], [ivar, np.ones(len(flux))], [wavelength] * 2, [segment_lengths] * 2)
    assert not caplog.records
    processor(
        flux, np.where(ivar > 0, np.maximum(ivar, 1e-30) ** -0.5 / flux.max() ** 2, 0.0), wavelength, segment_lengths
    )
    assert "spectrum 0: most pixels are within 0.3 sigma of 0" in caplog.text


def test_a_grid_for_each_spectrum_is_no_grid(processor):
    with pytest.raises(ValueError, match=r"expected one ascending array.*found: shape \(2, 1\)"):
        processor.patch_wavelength([[5000.0], [6000.0]])


@pytest.mark.parametrize("survey", ["galah", "apogee"])
def test_arms_that_nobody_named_are_missed(processor, survey):
    """Their patches would straddle what lies hundreds of Angstrom apart."""
    row = {**spectrum("galah"), "segment_lengths": None}
    if survey == "apogee":  # chips of an apVisit: 200 pixels apart
        row["wavelength"] = np.concatenate([15_150 + 0.2 * np.arange(650), 15_320 + 0.2 * np.arange(700)])
    leap = rf"segment_lengths: expected the pixels of each arm, found: none.*{row['wavelength'][650]:.4f}"
    leap = (
        leap if survey == "apogee" else r"segment_lengths: .* leap from 4746.1540 to 6479.0000 at pixel 700.*\[1350\]"
    )
    with pytest.raises(ValueError, match=leap):
        processor(row)
    assert processor({**row, "segment_lengths": [1350]})["num_pixels"].sum() == 1350
    assert processor.patch_wavelength(row["wavelength"])["num_pixels"].sum() == 1350


def test_pixels_that_were_left_out_are_no_gap_between_arms(processor):
    row = {**spectrum("sdss", num_bad=0), "segment_lengths": None}
    keep = np.r_[0:300, 360:999, 999]
    part = {**row, **{name: row[name][keep] for name in ("flux", "ivar", "wavelength")}}
    assert processor(part)["num_pixels"].sum() == len(keep)


def test_tensors_of_any_kind_are_taken(processor):
    """In a graph of gradients, or in bfloat16, which numpy does not have."""
    row = spectrum("desi")
    flux, ivar, wavelength, segments = columns(row)
    expected = processor(row)
    grown = [torch.tensor(each, requires_grad=True) for each in (flux, ivar, wavelength)]
    for name, each in processor(*grown, torch.tensor(segments)).items():
        np.testing.assert_array_equal(each, expected[name])
    rough = processor(torch.tensor(flux).bfloat16(), torch.tensor(ivar).bfloat16(), wavelength, segments)
    np.testing.assert_allclose(rough["flux"], expected["flux"], rtol=0.02, atol=0.02)
    like = {name: torch.tensor(each) for name, each in expected.items()}
    like["wavelength"].requires_grad_()
    asked = np.arange(5700.0, 5900.0)
    patches = processor.patch_wavelength(torch.tensor(asked, requires_grad=True), like=like)
    np.testing.assert_array_equal(
        patches["wavelength"], processor.patch_wavelength(asked, like=expected)["wavelength"]
    )
    ones = torch.ones(patches["wavelength"].shape, requires_grad=True)
    for answer in (ones, ones.bfloat16()):
        tensors = [torch.tensor(patches[name], requires_grad=name != "num_pixels") for name in patches]
        grid = dict(zip(patches, tensors))
        (found,) = processor.post_process_reconstruction(answer, like["scale"].requires_grad_(), **grid)
        np.testing.assert_allclose(found, expected["scale"][0], rtol=1e-12)
    with pytest.raises(ValueError, match="wavelength: expected float64.*found: torch.bfloat16"):
        processor.patch_wavelength(asked, like={**like, "wavelength": like["wavelength"].bfloat16()})


@pytest.mark.parametrize("nothing", [[], (), Dataset.from_dict({"flux": [], "ivar": [], "wavelength": []})])
def test_nothing_is_called_nothing(processor, nothing):
    with pytest.raises(ValueError, match="flux: expected at least one spectrum, found: an empty"):
        processor(nothing)


@pytest.mark.parametrize("name", ["scale", "wavelength", "grid"])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16, np.float16])
def test_an_answer_is_not_made_of_rounded_numbers(processor, name, half):
    """As a batch that was cast to a model's dtype: of a flux of 3.14159, 3.140625."""
    inputs = processor({**spectrum("sdss"), "object_id": "1"}, return_tensors="pt")
    given = {"scale": inputs["scale"], "num_pixels": inputs["num_pixels"]}
    given |= {"wavelength": inputs["wavelength"], "grid": inputs["wavelength"].flatten()[:9]}
    assert len(processor.post_process_reconstruction(inputs["flux"], **given)[0]) == 9
    given[name] = given[name].to(half) if isinstance(half, torch.dtype) else given[name].numpy().astype(half)
    with pytest.raises(ValueError, match=f"{name}: expected float64 .*found: .*float16.*device"):
        processor.post_process_reconstruction(inputs["flux"], **given)
