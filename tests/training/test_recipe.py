import json
from pathlib import Path

import checkpoints
import finetune
import pretrain
import pytest
import yaml
from huggingface_hub.errors import StrictDataclassError
from in_process import in_this_process
from optimisation import make_optimizers
from pretrain import prepare_model
from recipe import ROOT, Recipe, find, find_model, has_weights, model_folder, parse_arguments, parse_data, read_yaml
from test_modeling import make_model

from spectral_tokenizer import SpectralProcessor


FOLDER = ROOT / "training" / "recipes"
RECIPES = sorted(set(FOLDER.glob("*.yaml")) - set(FOLDER.glob("finetune_*.yaml")))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_reads_and_names_a_size(path):
    recipe = Recipe.from_yaml(path)
    assert (find(recipe.model) / "config.json").exists()


def test_a_misspelt_setting_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("learning_rat: 1.0\n")
    with pytest.raises(ValueError, match="learning_rat.*expected some of"):
        Recipe.from_yaml(tmp_path / "recipe.yaml")


def test_a_setting_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    for text, message in (
        ("seed: 1\nnum_steps: 5\nseed: 2\n", "seed: expected it once, found it in lines 1 and 3"),
        ("data:\n  sdss: a\n  'sdss': b\n", "sdss: expected it once, found it in lines 2 and 3"),
        ("targets: {z: {bins: 8}, z: {}}\n", "z: expected it once, found it in lines 1 and 1"),
    ):
        path.write_text(text)
        for read in (Recipe.from_yaml, lambda path: finetune.parse_arguments(["--config", str(path)])):
            with pytest.raises(ValueError, match=f"{path}: {message}"):
                read(path)
    path.write_text("options: {sdss: {sky: no}, desi: {sky: no}}\n")  # in two places
    assert Recipe.from_yaml(path).options == {"sdss": {"sky": False}, "desi": {"sky": False}}
    merged = "a: &a {k: 1}\nx:\n  b: &b\n    <<: *a\n    k: 2\nc:\n  <<: *b\n"  # one goes before
    assert read_yaml(merged, "merged") == yaml.safe_load(merged)


def test_numbers_that_yaml_takes_for_text(tmp_path):
    (tmp_path / "recipe.yaml").write_text("learning_rate: 1e-4\n")
    assert Recipe.from_yaml(tmp_path / "recipe.yaml").learning_rate == 1e-4


@pytest.mark.parametrize("text", ["data_share: 1e-1", "data_share: 0.1"])
def test_settings_are_checked_as_the_numbers_that_they_are(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text + "\nweight_decay: 1e-2\n")
    recipe = Recipe.from_yaml(tmp_path / "recipe.yaml")
    assert (recipe.data_share, recipe.weight_decay) == (0.1, 0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_wieght": 0.2}, r"model_options: expected settings of SpectralConfig, found: \['label_wieght'\]"),
        ({"num_latents": 0}, "cannot be 'latents' when num_latents is 0"),
        ({"hidden_fraction": [0.9, 0.5]}, "hidden_fraction: expected"),
        ({"num_latents": -1}, "num_latents: expected 0 or more, found: -1"),
        ({"patch_size": 0}, "patch_size: expected 1 or more, found: 0"),
        ({"min_pixel_period": 60.0}, "0 < min_pixel_period < max_pixel_period, found: 60.0, 50.0"),
    ],
)
def test_settings_of_the_model_are_checked_together(options, message, tmp_path):
    make_model().save_pretrained(tmp_path)
    SpectralProcessor().save_pretrained(tmp_path)
    for model in ("hub_configs/tiny", str(tmp_path)):  # a size, and a checkpoint
        with pytest.raises((ValueError, StrictDataclassError), match=message):
            prepare_model(Recipe(model=model, model_options=options))


@pytest.mark.parametrize("script", [pretrain, finetune], ids=lambda script: script.__name__)
def test_a_model_that_is_none_is_named_before_any_file_of_a_survey_is_read(script, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for model, found in ((tmp_path / "empty", r"\[\]"), (tmp_path / "file", "/.*file"), ("runz/modle", "nothing")):
        settings = (
            f"model: {model}\noutput{'_dir' if script is finetune else ''}: {tmp_path}\ndata: {{sdss: nowhere}}\n"
        )
        (tmp_path / "recipe.yaml").write_text(settings)
        expected = f"model: {model}: expected the folder of a size or a checkpoint, with config.json, found: {found}"
        with pytest.raises(FileNotFoundError, match=expected):
            in_this_process(script.main, "--config", str(tmp_path / "recipe.yaml"))


def test_places_in_a_recipe_may_be_in_the_users_home(tmp_path, monkeypatch):
    """There is no shell that would know the sign."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "size").mkdir()
    (tmp_path / "size" / "config.json").write_text("{}")
    (tmp_path / "recipe.yaml").write_text("model: ~/size\noutput: ~/runs/mine\nstream: ~/templates\n")
    recipe = Recipe.from_yaml(find("~/recipe.yaml"))
    assert (recipe.output, recipe.stream) == (str(tmp_path / "runs" / "mine"), str(tmp_path / "templates"))
    assert model_folder("model", recipe.model) == Path(find_model("model", recipe.model)) == tmp_path / "size"
    (tmp_path / "size" / "run.json").touch()
    assert checkpoints.choose(tmp_path, None, "~/size", "run.json") == tmp_path / "size"


def test_a_setting_of_which_nothing_is_said_is_the_default(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data:\nweights:\nlearning_rate:\nnum_steps: 3\n")
    assert Recipe.from_yaml(tmp_path / "recipe.yaml") == Recipe(num_steps=3)


def test_an_encoder_that_learnt_nothing_is_not_kept():
    with pytest.raises(ValueError, match="freeze_encoder: expected a checkpoint to keep the encoder of, found a size"):
        prepare_model(Recipe(model="hub_configs/tiny", freeze_encoder=True))


def test_what_a_recipe_says_of_its_data_is_not_said_of_others(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: {sdss: plates}\ndata_description: SDSS plates\n")
    arguments = ["--config", str(tmp_path / "recipe.yaml")]
    assert parse_arguments(arguments)[0].data_description == "SDSS plates"
    assert parse_arguments([*arguments, "--data", "desi=here"])[0].data_description == ""
    with pytest.raises(SystemExit):  # of which spectra would that be said?
        parse_arguments([*arguments, "--simulated"])


def test_a_wrong_type_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("num_steps: many\n")
    for text, message in (
        ("num_steps: many", "num_steps: expected int, found: 'many'"),
        ("num_steps: 1.5", "num_steps: expected int, found: 1.5"),
        ("max_tokens: abc", "max_tokens: expected a whole number of 1 or more, found: 'abc'"),
        ("keep_checkpoints: 0", "keep_checkpoints: expected a whole number of 1 or more, found: 0"),
        ("log_every: 2.5", "log_every: expected int, found: 2.5"),
        ("compile: 1", "compile: expected bool, found: 1"),
    ):
        (tmp_path / "recipe.yaml").write_text(text + "\n")
        with pytest.raises(ValueError, match=message):
            Recipe.from_yaml(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_grad_norm: 0", "max_grad_norm: expected a number above 0, found: 0.0"),
        ("max_grad_norm: -1.0", "max_grad_norm: expected a number above 0, found: -1.0"),
        ("learning_rate: true", "learning_rate: expected a number of 0 or more, found: True"),
        ("learning_rate: .nan", "learning_rate: expected a number of 0 or more, found: nan"),
        ("learning_rate: fast", "learning_rate: expected a number of 0 or more, found: 'fast'"),
        ("log_every: 0", "log_every: expected a whole number of 1 or more, found: 0"),
        ("validate_every: 0", "validate_every: expected a whole number of 1 or more, found: 0"),
        ("checkpoint_every: -5", "checkpoint_every: expected a whole number of 1 or more, found: -5"),
        ("validation_spectra: 0", "validation_spectra: expected a whole number of 1 or more, found: 0"),
        ("max_skipped_steps: 0", "max_skipped_steps: expected a whole number of 1 or more, found: 0"),
        ("warmup_steps: -1", "warmup_steps: expected a whole number of 0 or more, found: -1"),
        ("weights: {sdss: -1.0}", "weights: sdss: expected a number of 0 or more, found: -1.0"),
        ("weights: {sdss: }", "weights: sdss: expected a number of 0 or more, found: None"),
        ("weights: {sdss: yes}", "weights: sdss: expected a number of 0 or more, found: True"),
        ("weights: {sdss: 0}\ndata: {sdss: here}", "weights: expected some above 0, found: {'sdss': 0.0}"),
        ("weights: {sdss: 0}\nsimulate: {sdss: 9}", "weights: expected some above 0, found: {'sdss': 0.0}"),
        ("weights: {sdss: 0}\nstream: physics", "weights: expected some above 0, found: {'sdss': 0.0}"),
        ("data: {sdss: }", "data: sdss: expected files, found: None"),
        ("data: {sdss: []}", r"data: sdss: expected files, found: \[\]"),
        ("options: {sdss: sky}", "options: sdss: expected a mapping, found: 'sky'"),
        ("simulate: {sdss: 2.5}", "simulate: sdss: expected a whole number of 1 or more, found: 2.5"),
        ("simulate: {sdss: yes}", "simulate: sdss: expected a whole number of 1 or more, found: True"),
        ("simulate: {sdss: 0}", "simulate: sdss: expected a whole number of 1 or more, found: 0"),
    ],
)
def test_what_would_train_nothing_or_fail_later_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "recipe.yaml").write_text(text + "\n")
    with pytest.raises(ValueError, match=message):
        Recipe.from_yaml(tmp_path / "recipe.yaml")


def test_what_looks_odd_and_is_fine_still_reads(tmp_path):
    """A survey without weight beside others, which count once; identifiers, and numbers that YAML takes for text."""
    text = "weights: {sdss: 0, apogee: 5e-1}\ndata: {sdss: [a, b], desi: 1}\nwarmup_steps: 0\nmax_tokens: 100\n"
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = Recipe.from_yaml(tmp_path / "recipe.yaml")
    assert recipe.weights == {"sdss": 0.0, "apogee": 0.5} and recipe.data == {"sdss": ["a", "b"], "desi": 1}


@pytest.mark.parametrize("name", ["released", "released_base"])
def test_recipes_of_earlier_runs_still_read(name):
    Recipe(**json.loads((ROOT / "hub_configs" / name / "metrics.json").read_text())["recipe"])


def test_the_command_line_overrides_the_recipe():
    demo = str(Path("training") / "recipes" / "demo.yaml")
    arguments = ["--config", demo, "--data", "sdss=a", "sdss=b", "desi=c=d", "--num-steps", "7", "--resume", "auto"]
    recipe, resume = parse_arguments(arguments)
    assert recipe.data == {"sdss": ["a", "b"], "desi": ["c=d"]} and recipe.num_steps == 7 and resume == "auto"
    with pytest.raises(ValueError, match="SURVEY=PATH"):
        parse_data(["sdss"])


@pytest.mark.parametrize(("name", "value"), [("optimizer", "sgd"), ("mixed_precision", "fp16")])
def test_unknown_choices_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected one of .* found: '{value}'"):
        Recipe(**{name: value})


def test_muon_takes_the_layers_matrices_and_adamw_all_others():
    model = make_model()
    adamw, muon = make_optimizers(model, Recipe(optimizer="muon"))
    inner = {id(each) for group in muon.param_groups for each in group["params"]}
    outer = [id(each) for group in adamw.param_groups for each in group["params"]]
    assert all(each.ndim == 2 for group in muon.param_groups for each in group["params"])
    assert inner.isdisjoint(outer) and len(inner) + len(outer) == len(list(model.parameters()))
    assert len(inner) == 6 * (model.config.num_hidden_layers + model.config.num_decoder_layers)


def test_data_take_the_place_of_a_stream(capsys):
    """With all that only a stream can do."""
    recipe, _ = parse_arguments(["--config", "training/recipes/gpu.yaml", "--data", "sdss=a"])
    assert recipe.data == {"sdss": ["a"]} and not recipe.stream and not recipe.noiseless and not recipe.pairs
    assert capsys.readouterr().out.startswith("--data: the recipe's stream (templates) is left out")
    with pytest.raises(ValueError, match="noiseless: only a stream"):
        Recipe(noiseless=True)


def test_data_in_place_of_a_mixtures_leave_its_stream(tmp_path, capsys):
    """It is there so that a run does not forget what its data are not of."""
    (tmp_path / "recipe.yaml").write_text(
        "stream: physics\ndata: {sdss: here}\nnoiseless: true\nviews: 2\npairs: 0.5\n"
    )
    recipe, _ = parse_arguments(["--config", str(tmp_path / "recipe.yaml"), "--data", "desi=there"])
    assert recipe.is_mixed and recipe.data == {"desi": ["there"]} and recipe.stream == "physics"
    assert recipe.noiseless and recipe.views == 2 and recipe.pairs == 0.5 and not capsys.readouterr().out


def test_what_a_stream_or_rows_alone_know_is_not_ignored_of_the_other():
    with pytest.raises(ValueError, match="max_tokens: expected none of a stream, .* found: 5000"):
        Recipe(stream="physics", max_tokens=5000)
    assert Recipe(stream="physics", data={"sdss": "a"}, max_tokens=5000).is_mixed  # of the steps of rows
    with pytest.raises(ValueError, match="pairs: expected 0, or a part of a stream's spectra, found: 0.5"):
        Recipe(pairs=0.5)


def test_the_released_model_is_a_place_to_start_from():
    recipe, _ = parse_arguments(["--config", "training/recipes/adapt.yaml", "--data", "sdss=a"])
    assert has_weights(find(recipe.model)) and recipe.data == {"sdss": ["a"]} and not recipe.is_mixed
