"""The checkpoints that come with the repository: they open, and still say what they said when they were trained."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification, AutoProcessor
from validation import SurveyValidation

from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.simulation import CATALOGUES, simulate


FOLDER = "hub_configs/released"
#: Folder -> every so many numbers of an embedding, and bytes that it may have.
EMBEDDINGS = {
    FOLDER: [
        0.0196,
        0.0313,
        0.0113,
        0.0179,
        0.0062,
        0.0705,
        0.0002,
        0.2734,
        0.0112,
        0.0091,
        0.0176,
        0.111,
        0.0118,
        0.015,
        -0.0184,
        0.0131,
    ],
    f"{FOLDER}_base": [
        -0.0206,
        0.077,
        -0.642,
        -0.0609,
        0.0235,
        -0.317,
        -0.48,
        -0.1186,
        -0.4117,
        -0.1562,
        0.8201,
        -0.2324,
        -0.3542,
        0.4098,
        -0.9647,
        0.604,
    ],
}
LARGEST = {FOLDER: 10e6, f"{FOLDER}_base": 60e6}
HEADS = {
    f"{FOLDER}_class": FOLDER,
    f"{FOLDER}_redshift": FOLDER,
    f"{FOLDER}_labels": FOLDER,
}


@pytest.fixture(scope="module", params=EMBEDDINGS)
def folder(request, pytestconfig):
    return pytestconfig.rootpath / request.param


@pytest.fixture(scope="module")
def released(folder):
    return AutoModelForPreTraining.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def test_it_holds_weights_and_figures_alone(folder):
    assert not [each for each in folder.iterdir() if each.suffix not in {".json", ".safetensors", ".md", ".png"}]
    largest = LARGEST[f"hub_configs/{folder.name}"]
    assert sum(each.stat().st_size for each in folder.glob("*.safetensors")) < largest
    metrics = json.loads((folder / "metrics.json").read_text())
    is_base = folder.name.endswith("base")
    assert metrics["simulated"] == is_base and ("sdss" if is_base else "simulated sdss") in metrics["num_spectra"]
    assert not json.loads((folder / "evaluation.json").read_text())["simulated"]


def test_it_is_computed_in_float32(released):
    """Weights that are stored in half of it are not to be computed with so on a laptop."""
    assert {each.dtype for each in released[0].parameters()} == {torch.float32}


def test_its_numbers_are_those_of_the_day_it_was_trained(released, folder):
    """A change of processor or model that moves them would spoil every embedding that somebody has stored."""
    wavelength = np.linspace(4000.0, 9000.0, 4000)
    flux = 1 + 0.3 * np.sin(wavelength / 300) - 0.5 * np.exp(-0.5 * ((wavelength - 6564.6) / 8) ** 2)
    inputs = released[1](flux, np.full(4000, 400.0), wavelength, return_tensors="pt")
    encoder = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        embedding = encoder(**inputs).pooler_output[0]
    expected = torch.tensor(EMBEDDINGS[f"hub_configs/{folder.name}"])
    torch.testing.assert_close(embedding[:: len(embedding) // len(expected)], expected, rtol=1e-3, atol=1e-3)


#: Where straight lines are ahead since the level of what is hidden is not told: 6.8 to 9.0 and 9.1 in DESI, 22.7 to 24.0.
BEHIND_LINES = {("released", "desi"), ("released_base", "desi"), ("released", "apogee")}


@pytest.mark.parametrize("survey", ["sdss", "desi", "galah", "apogee"])
def test_hidden_blocks_are_predicted_better_than_by_straight_lines(
    request, folder, released, simulated_surveys, survey
):
    """On the package's own simulator, most of whose stars and galaxies it was not trained on."""
    if (folder.name, survey) in BEHIND_LINES:
        request.applymarker(pytest.mark.xfail(strict=True, reason="straight lines are ahead"))
    model, processor = released
    rows = load_survey(survey, simulated_surveys[survey])
    found = SurveyValidation(rows, rows, processor, 12)
    assert found.evaluate(model)["block"]["mean"] < found.baselines["interpolation"]["block"]["mean"]


@pytest.mark.parametrize("survey", ["sdss", "galah"])
def test_flux_on_any_grid_is_that_on_the_survey_s_own(released, simulated_surveys, survey):
    model, processor = released
    row = load_survey(survey, simulated_surveys[survey])[2]
    inputs = processor(row, return_tensors="pt")
    own = np.array(row["wavelength"][: row["segment_lengths"][0]])
    with torch.no_grad():
        encoded = model.encode(**inputs)

        def flux_at(wavelength, **how):
            asked = processor.patch_wavelength(wavelength, return_tensors="pt", **how)
            flux = model.decode(encoded.last_hidden_state, asked["wavelength"], encoded.token_mask)
            return processor.post_process_reconstruction(flux, inputs["scale"], **asked)[0] / inputs["scale"].item()

        whole = processor.patch_wavelength(own, return_tensors="pt")
        flux = model.decode(encoded.last_hidden_state, whole["wavelength"], encoded.token_mask)
        (known,) = processor.post_process_reconstruction(flux, [1.0], whole["num_pixels"])
        for step in (0.3, 8.0):  # in pixels
            grid = np.interp(np.arange(0, len(own) - 1, step), np.arange(len(own)), own)
            error = np.sqrt(np.mean((flux_at(grid, like=inputs) - np.interp(grid, own, known)) ** 2))
            assert error < 0.03


@pytest.mark.parametrize("head", HEADS)
def test_heads_read_simulated_spectra(pytestconfig, simulated_surveys, head):
    folder, name = pytestconfig.rootpath / head, head.rpartition("_")[2]
    model, processor = (each.from_pretrained(folder) for each in (AutoModelForSequenceClassification, AutoProcessor))
    survey = "galah" if name == "labels" else "sdss"
    rows = load_survey(survey, simulated_surveys[survey])
    chosen = np.array(rows["class"][:], dtype=object)
    if name == "labels":
        rows = rows.select(np.flatnonzero(np.isfinite(np.array(rows["teff"][:]))))
    else:
        rows = rows.select(np.flatnonzero(chosen != None))  # noqa: E711 (of an array, place by place)
    with torch.no_grad():
        output = model.eval()(**processor(rows[:], return_tensors="pt"))
    if name == "class":
        said = [model.config.id2label[each] for each in output.logits.argmax(-1).tolist()]
        assert np.mean(np.array(said) == np.array(rows["class"][:])) > 0.8
    elif name == "labels":
        truth = torch.tensor([rows[label][:] for label in model.config.id2label.values()]).T
        error = (output.logits - truth).abs().median(0).values
        assert len(rows) > 10 and (error < torch.tensor([100.0, 0.3, 0.1])).all()
    else:
        truth = torch.tensor(rows["redshift"][:])
        error = (output.logits[:, 0] - truth).abs() / (1 + truth)
        is_sure = ~output.is_flagged[:, 0].numpy()
        for kind in ("GALAXY", "QSO", "STAR"):
            is_kind = np.array(rows["class"][:]) == kind
            assert is_sure[is_kind].mean() > 0.6
            assert (error[is_sure & is_kind] < 0.0033).float().mean() > 0.8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_redshifts_are_the_same_in_half_precision(pytestconfig, simulated_surveys, dtype):
    """As `.to`, or Trainer's `bf16_full_eval`, leave the whole model. Errors are wider than that by two orders."""
    folder = pytestconfig.rootpath / f"{FOLDER}_redshift"
    model, processor = (each.from_pretrained(folder) for each in (AutoModelForSequenceClassification, AutoProcessor))
    inputs = processor(load_survey("sdss", simulated_surveys["sdss"])[:], return_tensors="pt")
    with torch.no_grad():
        expected, found = model.eval()(**inputs), model.to(dtype)(**inputs)
    off, is_sure = (found.logits - expected.logits).abs(), ~expected.is_flagged
    assert is_sure.float().mean() > 0.6
    assert (off / (1 + expected.logits))[is_sure].max() < 2e-4 and (off / expected.errors).median() < 0.05
    assert torch.equal(found.is_flagged, expected.is_flagged)


#: Heads that were shown spectra lost in noise -> the surveys that they are for.
DOUBTING = {f"{FOLDER}_labels": ("galah", "apogee"), f"{FOLDER}_redshift": ("sdss", "desi")}


@pytest.mark.parametrize(("head", "survey"), [(head, survey) for head, each in DOUBTING.items() for survey in each])
def test_of_noise_heads_say_that_they_do_not_know(pytestconfig, simulated_surveys, head, survey):
    """Not 4,640 +- 16 K, as one that was never shown any."""
    folder = pytestconfig.rootpath / head
    model, processor = (each.from_pretrained(folder) for each in (AutoModelForSequenceClassification, AutoProcessor))
    rows = load_survey(survey, simulated_surveys[survey])[:6]
    generator = np.random.default_rng(0)
    rows["flux"] = [0.1 * generator.standard_normal(len(each)) for each in rows["flux"]]
    rows["ivar"] = [np.full(len(each), 100.0) for each in rows["flux"]]
    with torch.no_grad():
        output = model.eval()(**processor(rows, return_tensors="pt"))
    assert output.is_flagged.all()
    if head.endswith("labels"):
        assert (output.errors > torch.tensor([200.0, 0.5, 0.1])).all()


def test_dwarfs_of_the_simulator_have_their_temperatures_whichever_file_they_are_in(pytestconfig, tmp_path):
    """Those in apStar files were 561 K off, and not flagged: no head had been shown labels of such files."""
    folder = simulate(tmp_path / "simulated", {"apogee": 60}, surveys=("apogee",), seed=5)["apogee"]
    rows = load_survey("apogee", folder, catalogue=folder / CATALOGUES["apogee"])
    model, processor = (
        each.from_pretrained(pytestconfig.rootpath / f"{FOLDER}_labels")
        for each in (AutoModelForSequenceClassification, AutoProcessor)
    )
    with torch.no_grad():
        output = model.eval()(**processor(rows[:], return_tensors="pt"))
    known, is_of_stars = np.array(rows["teff"][:]), np.array([each.startswith("apStar") for each in rows["source"][:]])
    chosen = torch.from_numpy(is_of_stars & (np.array(rows["logg"][:]) > 3.9)) & ~output.is_flagged[:, 0]
    error = (output.logits[:, 0] - torch.from_numpy(known))[chosen]
    assert len(error) >= 5 and abs(error.median()) < 100


#: Heads that know what they were fitted to, and were not shown spectra lost in noise; and one that was.
NOVELTY = {f"{FOLDER}_class": 1.0, f"{FOLDER}_redshift": 0.0}


def novelty_of(folder, simulated_surveys):
    """Of simulated galaxies and quasars in SDSS as they are, with noise alone in place of flux, and turned round."""
    model, processor = (each.from_pretrained(folder) for each in (AutoModelForSequenceClassification, AutoProcessor))
    rows = load_survey("sdss", simulated_surveys["sdss"])
    known = np.flatnonzero(np.isin(np.array(rows["class"][:], dtype=object).astype(str), ["GALAXY", "QSO"]))
    rows = rows.select(known[:16])[:]
    generator = np.random.default_rng(0)
    noise = [np.where(np.array(each) > 0, generator.standard_normal(len(each)), 0.0) for each in rows["ivar"]]
    noise = {**rows, "flux": noise, "ivar": [(np.array(each) > 0) * 1.0 for each in rows["ivar"]]}
    turned = {**rows, **{name: [each[::-1] for each in rows[name]] for name in ("flux", "ivar")}}
    with torch.no_grad():
        return [model.eval()(**processor(each, return_tensors="pt")).novelty for each in (rows, noise, turned)]


@pytest.mark.parametrize("head", NOVELTY)
def test_heads_tell_what_they_were_never_shown(pytestconfig, simulated_surveys, head):
    like, noise, turned = novelty_of(pytestconfig.rootpath / head, simulated_surveys)
    assert (like > 1).float().mean() < 0.2
    assert (noise > 1).float().mean() == NOVELTY[head]
    assert (turned > like).float().mean() > 0.9


@pytest.mark.xfail(strict=True, reason="of these, less than half")
@pytest.mark.parametrize("head", NOVELTY)
def test_heads_call_most_spectra_that_are_turned_round_new(pytestconfig, simulated_surveys, head):
    _, _, turned = novelty_of(pytestconfig.rootpath / head, simulated_surveys)
    assert turned.median() > 1


@pytest.mark.parametrize(
    "least",
    [
        0.1,
        pytest.param(0.5, marks=pytest.mark.xfail(strict=True, reason="some are +- 0.3: wide, and not wide enough")),
    ],
)
def test_a_redshift_of_noise_may_be_anything(pytestconfig, simulated_surveys, least):
    folder = pytestconfig.rootpath / f"{FOLDER}_redshift"
    model, processor = (each.from_pretrained(folder) for each in (AutoModelForSequenceClassification, AutoProcessor))
    row = load_survey("sdss", simulated_surveys["sdss"])[0]
    noise = 0.1 * np.random.default_rng(0).standard_normal((6, len(row["flux"])))
    with torch.no_grad():
        output = model.eval()(**processor(noise, np.full_like(noise, 100.0), row["wavelength"], return_tensors="pt"))
    assert (output.errors > least).all()


@pytest.mark.parametrize("head", HEADS)
def test_heads_have_the_released_encoder(pytestconfig, head):
    """Else they would have to be fitted anew."""
    encoder = AutoModel.from_pretrained(pytestconfig.rootpath / HEADS[head]).state_dict()
    model = AutoModelForSequenceClassification.from_pretrained(pytestconfig.rootpath / head)
    found = model.spectral.state_dict()
    assert found.keys() == encoder.keys() and all(torch.equal(found[key], each) for key, each in encoder.items())
    assert {each.dtype for each in model.parameters()} == {torch.float32}
