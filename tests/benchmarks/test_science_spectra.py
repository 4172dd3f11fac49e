"""Simulated spectra for the science benchmark: the package's own physics, and published templates where they are."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spectral_tokenizer import SpectralConfig, SpectralForPreTraining, SpectralProcessor
from spectral_tokenizer.data.schema import FEATURES
from spectral_tokenizer.data.simulation import apogee, desi
from spectral_tokenizer.data.simulation import quasars as physics
from spectral_tokenizer.data.simulation.lines import NEBULAR_LINES
from training.simulated import observing, quasars, spectrographs
from training.simulated.galaxies import EMILES, GRID, EmissionLines
from training.simulated.observing import observe, vary_response
from training.simulated.patches import concatenate, middle_two, rows, to_spectra
from training.simulated.populations import KINDS, SURVEYS, population
from training.simulated.random import Random
from training.simulated.spectrographs import ROWS_IN_CACHE, LogGrid, spectrograph
from training.simulated.stars import GRID as GRID_OF_STARS
from training.simulated.stars import LabelledStars, TemplateStars, TorchStarModel
from training.simulated.stream import DOMAINS, MODEL_INPUTS, SimulatedStream
from training.simulated.template_files import SPLITS, split_rows, templates_folder


@pytest.fixture(scope="module")
def observations():
    """A dozen objects as each survey sees them."""
    found = {}
    for domain, surveys in SURVEYS.items():
        objects = population(domain, None).draw("test", 2, 12)
        found |= {survey: observe(objects, survey) for survey in surveys}
    return found


@pytest.mark.parametrize("survey", DOMAINS)
def test_patches_are_those_of_the_processor(observations, survey):
    seen = observations[survey]
    spectra, expected = to_spectra(seen), SpectralProcessor()(rows(seen), packed=True, return_tensors="pt")
    assert spectra.lengths == expected["lengths"]
    assert torch.equal(spectra.wavelength, expected["wavelength"])
    # The processor takes the median of ivar^-1/2, which may differ by a rounding.
    for name in ("flux", "ivar"):
        torch.testing.assert_close(getattr(spectra, name), expected[name], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(spectra.scale, expected["scale"], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("survey", DOMAINS)
def test_rows_follow_the_schema(observations, survey):
    row = rows(observations[survey])[0]
    assert set(FEATURES) <= set(row)
    assert len(row["wavelength"]) == len(row["flux"]) == len(row["ivar"]) == sum(row["segment_lengths"])
    FEATURES.encode_example({name: row[name] for name in FEATURES})


@pytest.mark.parametrize("survey", DOMAINS)
def test_noise_is_what_ivar_says_and_brightness_what_was_drawn(survey):
    objects = population(DOMAINS[survey], None).draw("test", 0, 24)
    snr = torch.linspace(8.0, 60.0, 24)
    seen = observe(objects, survey, snr=snr)
    is_usable = seen.ivar > 0
    assert 0.7 < is_usable.float().mean() <= 1.0
    chi2 = ((seen.flux - seen.truth) ** 2 * seen.ivar)[is_usable].clamp(max=25.0)
    assert 0.97 < chi2.mean() < 1.06  # sky residuals and cosmic rays are above the noise
    ratio = torch.where(is_usable, seen.truth * seen.ivar.sqrt(), torch.nan).nanmedian(1).values / snr
    assert 0.95 < ratio.median() < 1.05 and ratio.min() > 0.7 and ratio.max() < 1.3


def test_one_object_in_two_surveys_is_one_object():
    for domain, surveys in SURVEYS.items():
        objects = population(domain, None).draw("test", 1, 6)
        first, second = (to_spectra(observe(objects, survey)) for survey in surveys)
        for name in ("index", "kind", "redshift", "teff", "logg", "fe_h"):
            assert torch.equal(getattr(first, name).nan_to_num(), getattr(second, name).nan_to_num())
        both = concatenate([first, second])
        assert both.lengths == first.lengths + second.lengths and len(set(both.index.tolist())) == 6


def test_stars_with_labels_are_seen_by_the_optical_surveys_too():
    objects = population("stars", None).draw("test", 1, 3)
    spectra = to_spectra(observe(objects, "desi"))
    assert len(spectra) == 3 and spectra.teff.isfinite().all()
    with pytest.raises(ValueError, match="stars with labels"):
        observe(population("optical", None).draw("test", 1, 3), "apogee")


def test_another_seed_is_another_observation_of_the_same_spectrum():
    objects = population("stars", None).draw("test", 1, 4)
    snr = torch.full((4,), 50.0)
    first, again, second = (observe(objects, "apogee", seed, snr) for seed in (0, 0, 1))
    assert torch.equal(first.flux, again.flux) and not torch.equal(first.flux, second.flux)
    shapes = [each.truth / each.truth.mean(1, keepdim=True) for each in (first, second)]
    assert 0 < (shapes[0] - shapes[1]).abs().max() < 0.25  # calibration and resolution differ, the star does not


def test_draws_are_seeded_and_never_repeat():
    source = population("optical", None)
    drawn = {key: source.draw(*key[:2], 16, key[2]) for key in itertools.product(SPLITS, (0, 1), (0, 1))}
    again = source.draw("train", 1, 16, 0)
    assert torch.equal(again.redshift, drawn["train", 1, 0].redshift)
    assert len({float(each) for objects in drawn.values() for each in objects.redshift}) == 16 * len(drawn)
    assert len({int(each) for objects in drawn.values() for each in objects.index}) == 16 * len(drawn)
    with pytest.raises(ValueError, match="expected one of"):
        source.draw("training", 0, 4)


def test_splits_share_no_row():
    parts = split_rows("some table", 1000)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(1000))
    assert [len(parts[name]) for name in SPLITS] == [800, 50, 150]


def test_splits_share_no_archetype_of_the_published_templates(templates_dir):
    used = {}
    for domain in SURVEYS:
        source = population(domain, templates_dir)
        for split in SPLITS:
            for batch in range(4):
                for maker, _, _, parameters in source.draw(split, batch, 64).members:
                    if "rows" in parameters:
                        # Stars of unlike type have tables of their own.
                        kinds = parameters.get("types", torch.zeros(len(parameters["rows"]), dtype=torch.long))
                        keys = zip(kinds.tolist(), parameters["rows"].view(len(kinds), -1).tolist())
                        names = {(type(maker), kind, row) for kind, found in keys for row in found}
                        used.setdefault(split, set()).update(names)
    assert all(len(used[split]) > 30 for split in SPLITS)
    for first, second in itertools.combinations(SPLITS, 2):
        assert not used[first] & used[second]


def test_no_template_has_a_twin_in_another_split(templates_dir):
    """redrock's files have most archetypes several times, at other levels of flux."""
    source = population("optical", templates_dir)
    galaxies = source.galaxies[0]
    tables = [(galaxies.coefficients, galaxies.rows)]
    tables += [(table, found) for (_, table), found in zip(source.stars.bases, source.stars.rows)]
    for coefficients, found in tables:
        shapes = torch.nn.functional.normalize(coefficients.double(), dim=1)
        parts = [shapes[torch.as_tensor(found[split])][:2000] for split in SPLITS]
        for first, second in itertools.combinations(parts, 2):
            assert torch.cdist(first, second).min() > 9e-4


def test_published_templates_make_sound_spectra(templates_dir):
    for domain, surveys in SURVEYS.items():
        objects = population(domain, templates_dir).draw("validation", 0, 48)
        for survey in surveys:
            spectra = to_spectra(observe(objects, survey))
            assert spectra.flux.isfinite().all() and spectra.truth.isfinite().all()
            assert min(spectra.lengths) > 80
            # Nothing dips below zero by more than what calibration and rounding do.
            assert (spectra.truth * spectra.ivar.sqrt())[spectra.ivar > 0].min() > -1.0
        if domain == "stars":
            assert objects.labels["teff"].min() > 3500 and objects.labels["teff"].max() < 7000
            assert not ((objects.labels["logg"] > 3.6) & (objects.labels["logg"] < 4.0)).any()


def test_the_spectrograph_agrees_with_the_package():
    """One absorption line through both, at the same resolution."""
    grid = LogGrid.from_range(5700.0, 7700.0, 5.0)
    line = 1.0 - 0.6 * np.exp(-0.5 * ((grid.wavelength - 6500.0) / 0.6) ** 2)
    detector = desi.detectors()["R"]
    segment = spectrograph("desi").segments[1]
    flux = torch.as_tensor(line, dtype=torch.float32)[None]
    ours = segment.resolve(flux, grid, torch.log1p(torch.tensor([0.01], dtype=torch.float64)), None)[0]
    theirs = detector.observe(line.astype(np.float32), grid.start, grid.step, 0.01)
    # The two take off unlike smoothings (15 and 12 km/s) from the resolution.
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    assert abs(float(detector.wavelength[ours.argmin()]) - 6500.0 * 1.01) < 0.5


def test_many_spectra_are_resolved_as_each_by_itself():
    """The processor's core takes them some at a time."""
    segment, grid = spectrograph("galah").segments[2], LogGrid.from_range(6400.0, 6900.0, 5.0)
    flux = torch.rand(2 * ROWS_IN_CACHE + 3, grid.size)
    shift, offset = 1e-4 * torch.rand(len(flux), dtype=torch.float64), torch.rand(len(flux), 2, dtype=torch.float64)
    offset *= torch.tensor([0.2, 1e-5])
    alone = [segment.resolve(flux[n : n + 1], grid, shift[n : n + 1], offset[n : n + 1]) for n in range(len(flux))]
    assert torch.equal(segment.resolve(flux, grid, shift, offset), torch.cat(alone))
    together = segment.resolve_together(flux, grid, shift, offset)  # as a GPU takes them
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("survey", DOMAINS)
def test_a_larger_batch_has_no_more_operations(survey, monkeypatch):
    """On a GPU, where each of them is a kernel to be launched."""
    monkeypatch.setattr(spectrographs, "ROWS_IN_CACHE", 10**6)  # a GPU takes them together

    class Operations(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, operation, types, arguments=(), options=None):
            self.count += 1
            return operation(*arguments, **(options or {}))

    def count(size: int) -> int:
        objects = population(DOMAINS[survey], None, "cpu").draw("train", 0, size, 0)
        with Operations() as operations:
            to_spectra(vary_response(observe(objects, survey, 0), 0))
        return operations.count

    count(8)  # what is made once
    assert count(192) == count(96)


def test_medians_are_the_same_by_numpy_and_by_torch():
    values = torch.randn(5, 400)
    values[:, ::7], values[0, 1], values[1] = torch.nan, torch.nan, torch.nan  # an odd number, an even one, none
    expected = torch.stack([values.nanmedian(dim=1).values, -(-values).nanmedian(dim=1).values])
    torch.testing.assert_close(middle_two(values), expected, rtol=0.0, atol=0.0, equal_nan=True)
    whole = torch.randn(5, 401)
    assert torch.equal(observing.median(whole), whole.median(1, keepdim=True).values)
    assert torch.equal(observing.median(whole[:, 1:]), whole[:, 1:].median(1, keepdim=True).values)


def test_forests_that_are_left_out_are_bluer_than_any_survey():
    reddest = physics.LYMAN_ALPHA * 1.02 * (1.0 + quasars.LOWEST_FOREST)
    for survey in SURVEYS["optical"]:
        assert min(segment.samples.min() for segment in spectrograph(survey).segments) > reddest
    generator = Random(3)
    parameters = quasars.draw_absorption(np.array([1.0, 1.9, 3.0, 3.5]), generator)
    parameters["troughs"], parameters["trough_depth"][1] = torch.tensor([1]), 0.5
    passed = quasars.absorbed(torch.ones(4, quasars.GRID.size), parameters)
    assert (passed[0] == 1.0).all()  # unseen
    assert passed[1].min() < 0.6 and (passed[2:, quasars.FOREST_PIXELS :] == 1.0).all()
    assert passed[3, : quasars.FOREST_PIXELS].mean() < passed[2, : quasars.FOREST_PIXELS].mean() < 0.95


def test_a_damped_system_is_as_wide_at_every_redshift_of_its_own():
    """In its own frame: near Lyman beta's place in the quasar's frame as near Lyman alpha's."""
    grid, widths = torch.as_tensor(quasars.GRID.wavelength, dtype=torch.float32), []
    for center in (1060.0, 1180.0):
        parameters = quasars.draw_absorption(np.array([2.2]), Random(5))
        parameters["field"] = torch.full_like(parameters["field"], -10.0)  # no forest
        parameters |= {"limit": torch.tensor([800.0]), "damped_center": torch.tensor([center])}
        with_it, without = (
            quasars.forest_transmission(grid, parameters | {"damped": torch.tensor([depth])})[0].double().numpy()
            for depth in (physics.DAMPED_WING, 0.0)
        )
        lost = np.trapezoid(without - with_it, quasars.GRID.wavelength[: quasars.FOREST_PIXELS])
        widths.append(lost / center * physics.LYMAN_ALPHA)
    assert widths[0] == pytest.approx(7.3 * 2.0**0.5, rel=0.1) and widths[1] == pytest.approx(widths[0], rel=0.05)


def test_a_varied_resolution_keeps_to_its_arm():
    spec = spectrograph("desi")
    flux = observing.segment_values(spec, torch.tensor([[1.0, 5.0, -3.0]]).expand(4, 3))
    torch.testing.assert_close(observing.vary_resolution(Random(1), spec, flux, 0.2), flux)
    ramp = torch.arange(spec.num_pixels).float().expand(2, -1)
    moved = (observing.vary_resolution(Random(1), spec, ramp, 0.2) - ramp).abs().max()
    assert moved < 0.11  # an end counts twice: half of 0.2 of one step


def test_the_atmosphere_follows_each_stars_own_grid(monkeypatch):
    spec = spectrograph("galah")
    ramp = spec.wavelength.float()
    for shift in (0.0, 0.3, -0.7):
        read = observing.read_at(spec, ramp, (spec.wavelength + shift).expand(2, -1))
        inside = torch.cat([torch.arange(part.start + 20, part.stop - 20) for part in spec.slices()])
        torch.testing.assert_close(
            read[:, inside].double() - spec.wavelength[inside],
            torch.full_like(read[:, inside].double(), shift),
            atol=2e-3,
            rtol=0.0,
        )
        assert ((read >= ramp.min()) & (read <= ramp.max())).all()
    asked = []
    monkeypatch.setattr(
        observing,
        "read_at",
        lambda spec, values, wavelength: asked.append(wavelength) or values.expand(len(wavelength), -1),
    )
    seen = observe(population("stars", None).draw("test", 0, 3), "galah")
    ratio = asked[0] / seen.wavelength
    assert (ratio.std(dim=1) < 1e-12).all() and (ratio[:, 0] - 1.0).abs().max() < 30.0 / 299792.458


def test_labels_of_published_stars_do_not_end_early_or_pile_up(templates_dir):
    stars = TemplateStars(templates_dir, "cpu")
    drawn = stars.draw("train", np.zeros(4000), Random(2))
    giants = drawn["is_giant"]
    assert 3.4 < drawn["logg"][giants].max() < 3.6
    for name in ("teff", "logg", "fe_h"):
        _, counts = np.unique(drawn[name][~giants].numpy(), return_counts=True)
        assert counts.max() == 1, (name, counts.max())


def test_published_stars_are_not_cut_off_at_zero(templates_dir):
    stars = population("optical", templates_dir).stars
    parameters = stars.draw("train", np.zeros(600), Random(2))
    optical = torch.as_tensor((GRID_OF_STARS.wavelength > 3600.0) & (GRID_OF_STARS.wavelength < 9800.0))
    assert ((stars.spectra(parameters)[:, optical] == 0.0).double().mean(dim=1) <= 0.01).all()


def test_emiles_is_as_broad_as_its_templates(templates_dir):
    """The power of an old population's lines falls off as a Gaussian of that width has it, were they white before."""
    flux = EMILES.read(templates_dir, "p0.00", EMILES.ages[4])
    inside = (GRID.wavelength > 4800.0) & (GRID.wavelength < 5600.0)
    place = np.linspace(-1.0, 1.0, inside.sum())
    lines = flux[inside] / np.polynomial.Polynomial.fit(place, flux[inside], 8)(place) - 1.0
    frequency = np.fft.rfftfreq(inside.sum(), GRID.velocity)  # per km/s
    power = np.abs(np.fft.rfft(lines * np.hanning(inside.sum()))) ** 2
    seen = (frequency > 7e-4) & (frequency < 3.3e-3)
    slope = np.polyfit(frequency[seen] ** 2, np.log(power[seen]), 1)[0]
    assert EMILES.own_dispersion == pytest.approx(np.sqrt(-slope) / (2.0 * np.pi), rel=0.1)


def test_emission_lines_stand_where_they_should():
    lines = EmissionLines("cpu")
    areas = torch.zeros(1, len(lines.names))
    areas[0, lines.names.index("Halpha")] = 30.0
    flux = lines.add(torch.zeros(1, GRID.size), areas, torch.tensor([100.0]))[0]
    assert abs(GRID.wavelength[int(flux.argmax())] - NEBULAR_LINES["Halpha"]) < 0.3
    assert np.trapezoid(flux.numpy(), GRID.wavelength) == pytest.approx(30.0, rel=1e-3)


def test_the_star_model_in_torch_is_the_package_s():
    labels = {"teff": [4200.0, 5800.0], "logg": [1.5, 4.4], "fe_h": [-0.8, 0.1], "alpha_m": [0.2, 0.0]}
    labels = {name: np.array(values) for name, values in labels.items()}
    expected = apogee.model().spectra(labels)
    for ours, theirs in zip(TorchStarModel(apogee.model(), "cpu").spectra(labels), expected):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=2e-4)


def test_the_package_s_infrared_lines_are_those_of_the_published_templates(templates_dir):
    """Of giants, a fit to real spectra, and dwarfs: the same lines at the same places, if not as deep."""
    spec = spectrograph("apogee")
    theirs = population("stars", templates_dir).draw("validation", 0, 24)
    stars, parameters = theirs.members[0][0], theirs.members[0][3]
    is_cool = (parameters["teff"] < 6000.0).numpy()
    expected, _ = stars.apogee_flux(spec, parameters)
    ours, _ = LabelledStars("cpu").apogee_flux(spec, parameters)
    likeness = []
    for one, other in zip(expected.numpy()[is_cool], ours.numpy()[is_cool]):
        is_known = np.isfinite(one)
        likeness.append(np.corrcoef(one[is_known], other[is_known])[0, 1])
    assert len(likeness) > 10 and np.median(likeness) > 0.75 and np.min(likeness) > 0.5


def test_random_numbers_are_seeded():
    assert torch.equal(Random(1, 2).normal(5), Random(1, 2).normal(5))
    assert not torch.equal(Random(1, 2).normal(5), Random(1, 3).normal(5))


def test_templates_are_found_or_missed_aloud(tmp_path, monkeypatch):
    assert templates_folder("none") is None
    with pytest.raises(FileNotFoundError, match="expected published templates"):
        templates_folder(tmp_path)
    monkeypatch.setenv("TEMPLATES_DIR", "none")
    assert templates_folder() is None


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SpectralForPreTraining(
        SpectralConfig(hidden_size=16, num_hidden_layers=1, num_decoder_layers=1, num_attention_heads=2,
                       intermediate_size=16, num_latents=2)
    )  # fmt: skip


def test_the_stream_feeds_the_model(model):
    stream = SimulatedStream(model.objective, spectra_per_step=8, templates="none", num_micro_batches=2)
    step = next(iter(stream))
    assert step["state"] == {"step": 1} and len(step["micro_batches"]) == 2
    for batch in step["micro_batches"]:
        assert len(batch["lengths"]) == len(batch["survey"]) == len(batch["object_id"]) == 4
        assert batch["masked_patches"].shape == batch["target_patches"].shape == (1, sum(batch["lengths"]))
        assert batch["truth"].shape == batch["flux"].shape
        assert torch.isfinite(model(**{name: batch[name] for name in MODEL_INPUTS}).loss)


def test_the_stream_resumes_and_shares_work_between_processes(model):
    def stream(**settings):
        return SimulatedStream(model.objective, {"apogee": 1.0}, 8, templates="none", **settings)

    third = stream().step(2)["micro_batches"][0]
    resumed = next(stream().steps(start=2))["micro_batches"][0]
    assert torch.equal(third["flux"], resumed["flux"])
    assert torch.equal(third["masked_patches"], resumed["masked_patches"])
    ids = [
        name
        for rank in (0, 1)
        for number in (0, 1)
        for name in stream(rank=rank, num_processes=2).step(number)["micro_batches"][0]["object_id"]
    ]
    assert len(set(ids)) == len(ids) == 16


def test_a_pair_is_one_object_with_the_arms_of_both_surveys(model):
    def stream(**settings):
        return SimulatedStream(model.objective, {"apogee": 1.0, "galah": 3.0}, 8, templates="none", **settings)

    seen = stream(pairs=1.0).spectra(0)
    assert seen.survey == ["apogee+galah"] * 4
    objects = population("stars", None).draw("train", 32, 4)
    assert torch.equal(seen.index, objects.index)
    apart = [to_spectra(vary_response(observe(objects, survey))) for survey in ("apogee", "galah")]
    ends = np.cumsum(seen.lengths)
    for number, (end, length) in enumerate(zip(ends, seen.lengths)):
        place = slice(end - length, end)
        for name in ("flux", "ivar", "wavelength"):
            parts = [getattr(each.choose(torch.arange(4) == number), name) for each in apart]
            assert torch.equal(getattr(seen, name)[:, place], torch.cat(parts, dim=1)), name
    mixed = [stream(pairs=0.5).spectra(number) for number in range(4)]
    assert {name for each in mixed for name in each.survey} == {"apogee", "galah", "apogee+galah"}
    assert all(sum(name.count("+") + 1 for name in each.survey) == 8 for each in mixed)
    assert len({index for each in mixed for index in each.index.tolist()}) == sum(map(len, mixed))
    batch = stream(pairs=1.0).micro_batch(0)
    assert batch["masked_patches"].shape == (1, ends[-1]) and batch["lengths"] == seen.lengths


def test_views_are_the_same_spectra_with_other_patches_hidden(model):
    stream = SimulatedStream(model.objective, spectra_per_step=8, templates="none", views=2)
    batch = stream.micro_batch(3)
    once, half = stream.spectra(3), sum(batch["lengths"]) // 2
    assert len(once) == 4 and batch["lengths"] == once.lengths * 2 and batch["survey"] == once.survey * 2
    for part in (slice(0, half), slice(half, None)):
        assert torch.equal(batch["flux"][:, part], once.flux)
    assert not torch.equal(batch["masked_patches"][:, :half], batch["masked_patches"][:, half:])
    with pytest.raises(ValueError, match="expected at least 16, found: 8"):
        SimulatedStream(model.objective, spectra_per_step=8, views=16)


def test_what_a_stream_cannot_be_made_of(model):
    with pytest.raises(ValueError, match="expected some of"):
        SimulatedStream(model.objective, {"lamost": 1.0})
    with pytest.raises(ValueError, match=r"expected both of \('sdss', 'desi'\)"):
        SimulatedStream(model.objective, {"sdss": 1.0}, pairs=0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        SimulatedStream(model.objective, pairs=2.0)


def test_kinds_are_mixed():
    kind = population("optical", None).draw("train", 5, 64).kind
    assert set(kind.tolist()) == set(range(len(KINDS)))


@pytest.mark.parametrize("survey", ["sdss", "galah", "apogee"])
def test_a_varied_response_is_smooth_and_leaves_the_signal_to_noise(survey):
    objects = population(DOMAINS[survey], None).draw("train", 0, 8)
    seen = observe(objects, survey)
    varied = vary_response(seen)
    usable = (seen.ivar > 0) & (seen.truth.abs() > 0)
    torch.testing.assert_close(
        (varied.flux * varied.ivar.sqrt())[usable], (seen.flux * seen.ivar.sqrt())[usable], rtol=1e-4, atol=1e-4
    )
    assert torch.equal(varied.ivar > 0, seen.ivar > 0)
    factor = torch.where(usable, varied.truth / seen.truth, torch.nan)
    assert bool((factor[usable] == 1).all()) == (survey == "sdss")  # flux-calibrated
    steps = factor.diff(dim=1)
    assert float(steps[steps.isfinite()].abs().median()) < 1e-3


def test_some_of_galahs_spectra_have_their_blaze_out(monkeypatch):
    monkeypatch.setitem(observing.RESPONSE, "galah", 0.0)
    seen = observe(population("stars", None).draw("train", 0, 16), "galah")
    factor = vary_response(seen).truth / seen.truth
    blaze = observing.galah_blaze(observing.spectrograph("galah"))
    is_out = (factor * blaze / blaze.median() - 1.0).abs().amax(dim=1) < 1e-4
    is_in = (factor - 1.0).abs().amax(dim=1) < 1e-4
    assert bool((is_out ^ is_in).all()) and bool(is_out.any()) and bool(is_in.any())


def test_a_seed_that_objects_cannot_be_numbered_by_is_refused():
    """Their numbers would overflow without a word."""
    with pytest.raises(ValueError, match="seed: expected 0 to 2047"):
        population("optical", None).draw("train", 0, 2, 2048)
