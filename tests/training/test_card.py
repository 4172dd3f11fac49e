"""The card says what was measured, and of the rest that it was not."""

import copy
import math

import numpy as np
import pytest
import yaml
from card import NOT_MEASURED, example, write_card
from huggingface_hub import ModelCard

from spectral_tokenizer.data import SURVEYS


STYLES = ("random", "block", "arm")
METRICS = {
    "recipe": {"num_steps": 1200, "max_spectra": 12, "seed": 3, "data": {}, "data_description": "", "model": "tiny"},
    "simulated": True,
    "num_spectra": {"sdss": {"train": 1000, "held": 100}, "galah": {"train": 20, "held": 2}},
    "chi2": {
        name: {survey: {style: {"mean": base + number} for number, style in enumerate(STYLES)} for survey in ("sdss", "galah")}
        for name, base in (("model", 1.25), ("interpolation", 3.0), ("mean spectrum", 0.5))
    },
    "probe": {"trained": {"class_accuracy": 0.9, "teff_mad": 118.0}, "untrained": {"class_accuracy": 0.8}},
    "num_parameters": {"encoder": 1234567, "decoder": 89},
    "compute": {
        "device": "A processor", "device_type": "cpu", "num_processes": 2, "threads": 3, "seconds": 1800.0, "flops": 2.5e15,
    },
}  # fmt: skip
HEAD = {
    "arguments": {
        "labels": ["class"], "classes": ["GALAXY", "STAR"], "num_trainable_layers": 0, "data": {"sdss": ["/data"]},
        "data_description": "",
    },
    "simulated": False,
    "num_spectra": {"train": 70, "calibration": 10, "test": 20},
    "test": {"accuracy": 0.875, "f1_STAR": math.nan},
    "test_by_survey": {"sdss": {"accuracy": 0.875, "f1_STAR": math.nan}},
}  # fmt: skip
EVALUATION = {
    "name": "genuine files", "simulated": False, "num_spectra": {"sdss": 78, "desi": {"held": 30}},
    "chi2": {"model": {"sdss": {"block": {"mean": 7.5}}}, "interpolation": {"sdss": {"block": {"mean": 9.0}}}},
}  # fmt: skip


def written(folder, metrics, **options) -> tuple[str, dict]:
    write_card(folder, metrics, **options)
    text = (folder / "README.md").read_text()
    assert "$" not in text
    return text, yaml.safe_load(text.split("---\n")[1])


def test_a_pretrained_models_card(tmp_path):
    text, metadata = written(tmp_path, METRICS, name="me/spectra-tiny", datasets=["me/spectra"])
    assert "| sdss | random | 1.25 | 3.00 | **0.50** |" in text
    assert "| class_accuracy | 0.9 | 0.8 |" in text and f"| teff_mad | 118 | {NOT_MEASURED} |" in text
    assert "| sdss | 1,000 | 100 |" in text and "1,200 steps of at most 12 spectra, seed 3" in text
    assert "| core-hours | 3 |" in text and "| hours from first to last step | 0.5 |" in text and "2.5e+15" in text
    assert f"| energy, kWh | {NOT_MEASURED} |" in text and "### On real spectra\n\nNot measured." in text
    assert metadata["library_name"] == "transformers" and metadata["pipeline_tag"] == "feature-extraction"
    assert metadata["license"] == "apache-2.0" and metadata["datasets"] == ["me/spectra"]
    assert set(metadata["metrics"]) == {"accuracy", "chi2", "teff_mad"}
    numpys = {**METRICS, "num_spectra": {np.str_(name): each for name, each in METRICS["num_spectra"].items()}}
    numpys["probe"] = {
        "trained": {"class_accuracy": np.float64(0.9), "teff_mad": 118.0},
        "untrained": {"class_accuracy": 0.8},
    }
    assert written(tmp_path, numpys, name="me/spectra-tiny", datasets=["me/spectra"]) == (text, metadata)
    assert {"astronomy", "sdss", "galah", "simulated-data"} <= set(metadata["tags"])
    (index,) = metadata["model-index"]
    assert index["name"] == "spectra-tiny" and len(index["results"]) == 3
    assert index["results"][0]["metrics"][1] == {
        "type": "chi2", "value": 2.25, "name": "chi2 per pixel, hidden: block",
    }  # fmt: skip


def test_simulated_is_called_simulated_wherever_it_is(tmp_path):
    text, metadata = written(tmp_path, METRICS)
    assert "**Trained on simulated spectra alone.**" in text and "### On simulated spectra held apart" in text
    assert "Trained on simulated spectra (the package's own physical simulator)." in text
    for result in metadata["model-index"][0]["results"]:
        assert result["dataset"]["type"].startswith("simulated-") and result["dataset"]["name"].startswith(
            "simulated "
        )
    # Simulated spectra that came as files, as their recipe says.
    recipe = {**METRICS["recipe"], "data": {"sdss": ["/data"]}, "data_description": "published templates"}
    assert "Trained on simulated spectra (published templates)." in written(tmp_path, {**METRICS, "recipe": recipe})[0]
    real, metadata = written(tmp_path, {**METRICS, "recipe": recipe, "simulated": False})
    assert "imulated" not in real.split("## Surveys")[0] and "simulated-data" not in metadata["tags"]


def test_runs_that_came_before_are_told(tmp_path):
    earlier = [{name: METRICS[name] for name in ("recipe", "simulated", "num_spectra", "compute")}, {"recipe": None}]
    text, _ = written(tmp_path, {**METRICS, "earlier": earlier})
    assert (
        "continued from a checkpoint trained for" in text
        and "- 1,200 steps on 1,020 simulated spectra; hours: 0.5." in text
    )
    assert f"- {NOT_MEASURED} steps on {NOT_MEASURED} spectra, simulated or not; hours: {NOT_MEASURED}." in text
    assert "simulated spectra alone" not in text  # of the second nothing is known
    both = {"galah": {"train": 90}, "simulated galah": {"train": 910}}
    text, _ = written(tmp_path, {**METRICS, "earlier": [{**earlier[0], "simulated": False, "num_spectra": both}]})
    assert "- 1,200 steps on 1,000 spectra, 910 of them simulated; hours: 0.5." in text
    assert "simulated spectra alone" in written(tmp_path, {**METRICS, "earlier": earlier[:1]})[0]


def test_labels_that_training_was_told_are_told(tmp_path):
    """Heads find what the encoder was taught: whoever reads their table has to know."""
    assert "asked for" not in written(tmp_path, METRICS)[0]
    told = {**METRICS["recipe"], "model_options": {"label_weight": 0.2}}
    for metrics in ({**METRICS, "recipe": told}, {**METRICS, "earlier": [{"recipe": None}, {"recipe": told}]}):
        text = written(tmp_path, metrics)[0]
        assert "asked for class, redshift, teff, logg, fe_h" in text and "weight 0.2" in text
    by_its_size = written(tmp_path, {**METRICS, "labels": ["class", "teff"]})[0]
    assert "asked for class, teff of the objects whose labels were known." in by_its_size
    recorded = written(tmp_path, {**METRICS, "recipe": told, "labels": ["class", "teff"]})[0]
    assert "asked for class, teff of the objects" in recorded
    assert "flux without noise" not in text
    assert "flux without noise" in written(tmp_path, {**METRICS, "recipe": {**told, "noiseless": True}})[0]
    assert "continued from" not in written(tmp_path, METRICS)[0]


def test_a_card_says_whether_the_level_is_told_and_what_was_trained(tmp_path):
    assert "hidden is given in the tables" in written(tmp_path, METRICS)[0]  # a run from before it was a setting
    assert "hidden is not told" in written(tmp_path, {**METRICS, "level": "visible"})[0]
    earlier = {**METRICS, "earlier": [{"recipe": {"num_steps": 7}}]}
    assert "trained the decoder alone" not in written(tmp_path, earlier)[0]
    frozen = {**earlier, "recipe": {**METRICS["recipe"], "freeze_encoder": True}}
    assert "trained the decoder alone" in written(tmp_path, frozen)[0]


def test_real_spectra_have_a_table_of_their_own(tmp_path):
    text, metadata = written(tmp_path, METRICS, evaluation=EVALUATION)
    part = text.split("### On real spectra")[1].split("###")[0]
    assert "Real spectra, none of them trained on: genuine files (sdss 78, desi 30)." in part
    assert f"| sdss | block | **7.50** | 9.00 | {NOT_MEASURED} |" in part
    assert f"| sdss | arm | {NOT_MEASURED} | {NOT_MEASURED} | {NOT_MEASURED} |" in part
    names = [result["dataset"]["name"] for result in metadata["model-index"][0]["results"]]
    assert "SDSS (genuine files)" in names and "simulated SDSS (spectra held apart)" in names
    simulated = written(tmp_path, METRICS, evaluation={**EVALUATION, "simulated": True})[0]
    assert "### On further simulated spectra\n\nSimulated spectra, none of them trained on: genuine files" in simulated
    assert "### On real spectra" not in simulated and "\n\n\n" not in text + simulated


APART, UNKNOWN = "none of them trained on", "Whether some of them were trained on is not known."


def is_called_apart(folder, metrics: dict, **evaluation) -> bool:
    text = written(folder, metrics, evaluation={**EVALUATION, **evaluation})[0]
    assert (APART in text) != (UNKNOWN in text)
    return APART in text


def test_only_what_is_known_not_to_be_trained_on_is_called_so(tmp_path):
    split = {"validation_fraction": 0.1, "split_seed": 0}
    run = {**METRICS, "simulated": False, "recipe": {**METRICS["recipe"], **split}}
    held = {"surveys": ["sdss", "desi"], "split": split}
    assert is_called_apart(tmp_path, run)  # an evaluation from before it was written down
    assert not is_called_apart(tmp_path, run, held_by=None)
    assert is_called_apart(tmp_path, run, held_by=held)
    assert not is_called_apart(tmp_path, run, held_by={**held, "surveys": ["sdss"]})
    assert not is_called_apart(tmp_path, run, held_by={**held, "split": {**split, "split_seed": 1}})
    # What it went on from may have been trained on them, or not.
    for earlier, known in ((run, True), ({"recipe": None}, False), ({"recipe": METRICS["recipe"]}, False)):
        assert is_called_apart(tmp_path, {**run, "earlier": [earlier]}, held_by=held) == known
    # Real ones are not among simulated ones; simulated ones may be.
    assert is_called_apart(tmp_path, METRICS, held_by=None)
    assert not is_called_apart(tmp_path, METRICS, held_by=None, simulated=True)
    assert not is_called_apart(tmp_path, {**METRICS, "earlier": [{"simulated": False}]}, held_by=None)


def test_of_a_head_it_is_not_known(tmp_path):
    """Its figures say what it was fitted to, and not what its encoder was trained on."""
    split = {"validation_fraction": 0.1, "split_seed": 0}
    for metrics in (HEAD, {**HEAD, "simulated": True}):
        for held_by in (None, {"surveys": ["sdss", "desi"], "split": split}):
            assert not is_called_apart(tmp_path, metrics, held_by=held_by)


def test_what_is_missing_is_not_measured(tmp_path):
    bare = {name: METRICS[name] for name in ("recipe", "simulated", "num_spectra")}
    text, metadata = written(tmp_path, bare)
    assert text.count("Not measured.") == 3 and f"| device | {NOT_MEASURED} |" in text
    assert f"Parameters: {NOT_MEASURED}." in text
    assert "model-index" not in metadata and "metrics" not in metadata and "model_name" not in metadata
    broken = copy.deepcopy(METRICS)
    broken["chi2"]["model"]["sdss"]["block"]["mean"] = math.nan
    broken["compute"] |= {"seconds": math.nan}
    text, metadata = written(tmp_path, broken)
    assert (
        f"| sdss | block | {NOT_MEASURED} | 4.00 | **1.50** |" in text and f"| core-hours | {NOT_MEASURED} |" in text
    )
    assert len(metadata["model-index"][0]["results"][0]["metrics"]) == 2


def test_a_fine_tuned_models_card(tmp_path):
    text, metadata = written(tmp_path, HEAD, name="me/classes", revision="v1")
    assert "for class (GALAXY, STAR)" in text and "The encoder was frozen." in text
    assert "| accuracy | 0.875 |" in text and f"| f1_STAR | {NOT_MEASURED} |" in text
    assert "files of sdss: 70 spectra; calibrated on 10 and tested on 20" in text
    assert "AutoModelForSequenceClassification.from_pretrained(**where)" in text and 'revision="v1"' in text
    (result,) = metadata["model-index"][0]["results"]
    assert result["dataset"]["type"] == "sdss" and len(result["metrics"]) == 1


def test_a_head_for_numbers_is_told_apart_by_class(tmp_path):
    """Where that was measured: of runs from before, and of heads for classes, it was not."""
    scores = {"GALAXY": {"redshift_nmad": 1e-4}, "QSO": {"redshift_nmad": 2e-3}}
    text = written(tmp_path, {**HEAD, "test_by_class": scores}, evaluation=EVALUATION | {"test_by_class": scores})[0]
    rows = "| GALAXY | redshift_nmad | 0.0001 |\n| QSO | redshift_nmad | 0.002 |"
    assert f"### By class\n\n| class | metric | value |\n| --- | --- | --- |\n{rows}\n\n###" in text
    assert rows in text.split("### On real spectra")[1]
    text, _ = written(tmp_path, HEAD, evaluation=EVALUATION)
    assert "| class |" not in text and "### By class" not in text and "\n\n\n" not in text


def test_templates_of_a_head_are_told(tmp_path):
    published = "from published templates of galaxies, quasars and stars"
    settings = {**HEAD["arguments"], "data": {}, "templates": {"sdss": 100}}
    own = "the package's own physical simulator"
    for simulate, words in (({}, published), ({"sdss": 100}, f"{own}; and {published}")):
        metrics = {**HEAD, "simulated": True, "arguments": {**settings, "simulate": simulate}}
        assert f"Trained on simulated spectra ({words}): 70 spectra" in written(tmp_path, metrics)[0]
        for faint, how in (({}, "lost in noise"), ({"faint_snr": [0.05, 3.0]}, "at S/N 0.05 to 3")):
            metrics["arguments"].update({"faint_templates": {"sdss": 9}, **faint})
            assert f"simulated spectra ({words}, some of them {how}): 70" in written(tmp_path, metrics)[0]


@pytest.mark.parametrize("metrics", [METRICS, HEAD], ids=["pretrained", "head"])
def test_each_survey_is_cited_and_acknowledged(tmp_path, metrics):
    text, _ = written(tmp_path, metrics, evaluation=EVALUATION)
    surveys = text.split("## Surveys")[1]
    assert "Abdurro'uf et al. 2022" in surveys and "Participating Institutions" in surveys
    if metrics is METRICS:
        assert "Gamilaraay" in surveys  # GALAH was trained on, DESI evaluated on
        assert "DE–AC02–05CH11231" in surveys and surveys.count("- **sdss**") == 1


def test_a_survey_without_a_page_has_no_empty_brackets(tmp_path, monkeypatch):
    monkeypatch.setattr(SURVEYS["sdss"], "HOMEPAGE", "")
    assert "- **sdss**: SDSS" in written(tmp_path, METRICS)[0]


def test_metadata_that_the_hub_would_read_otherwise_are_refused(tmp_path, monkeypatch):
    content = ModelCard.content

    def spoilt(self):
        return content.fget(self).replace("apache-2.0", "mit")

    monkeypatch.setattr(ModelCard, "content", property(spoilt, content.fset))
    with pytest.raises(ValueError, match="license.*read back otherwise"):
        write_card(tmp_path, METRICS)
    assert not (tmp_path / "README.md").exists()


def test_the_example_is_ten_lines_of_python():
    for metrics in (METRICS, HEAD):
        code = example(metrics, "me/model", "v1")
        compile(code, "example.py", "exec")
        assert len(code.splitlines()) <= 12
