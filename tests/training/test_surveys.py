"""What a recipe's `data` and `options` may be."""

import itertools
import json
from dataclasses import replace

import pytest
import surveys
import torch
from datasets import Dataset
from recipe import Recipe, parse_arguments

from spectral_tokenizer import SpectralConfig
from spectral_tokenizer.data import load_survey, prepare_survey
from spectral_tokenizer.data.simulation import simulate
from spectral_tokenizer.data.simulation.population import SKY_EVERY
from spectral_tokenizer.objectives_spectral_tokenizer import MaskedModelling


def test_prepared_files_are_read_as_the_surveys_own(simulated_surveys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    prepare_survey("sdss", simulated_surveys["sdss"], tmp_path)
    own = surveys.load(Recipe(data={"sdss": str(simulated_surveys["sdss"])}))["sdss"]
    for prepared in (tmp_path / "sdss", [str(tmp_path / "sdss" / "*.parquet")], "~/sdss"):
        rows = surveys.load(Recipe(data={"sdss": prepared}))["sdss"]
        # As text: a NaN is not equal to itself.
        assert rows.features == own.features and json.dumps(rows[:]) == json.dumps(own[:])


def test_a_prepared_survey_of_which_a_part_is_missing_is_refused(simulated_surveys, tmp_path):
    """As tasks of an array that failed leave it."""
    prepare_survey("sdss", simulated_surveys["sdss"], tmp_path, num_shards=3)
    recipe = Recipe(data={"sdss": str(tmp_path / "sdss")})
    whole = surveys.load(recipe)["sdss"]
    (tmp_path / "sdss" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 3 shards are not there, train-00001-of-00003.parquet the first"):
        surveys.load(recipe)
    prepare_survey("sdss", simulated_surveys["sdss"], tmp_path)
    assert surveys.load(recipe)["sdss"][:]["object_id"] == whole[:]["object_id"]


def test_simulated_spectra_have_the_labels_that_no_file_of_theirs_names(tmp_path):
    """apStar files have none: a head that was shown labels of aspcapStar files alone errs on them by hundreds of K."""
    recipe = Recipe(simulate={"apogee": 4, "galah": 4}, output=str(tmp_path / "run"))
    for options in ({}, {"apogee": {"unreliable_labels": True}}):
        for rows in surveys.load(replace(recipe, options=options)).values():
            labels = [rows[name][:] for name in ("teff", "logg", "fe_h")]
            assert len(rows) == 4 and all(value == value for column in labels for value in column)


def test_options_reach_the_reader(simulated_surveys, tmp_path):
    files = simulate(tmp_path / "files", {"sdss": SKY_EVERY}, surveys=("sdss",))  # the last fibre looks at blank sky
    data = {"sdss": str(files["sdss"]), "galah": str(simulated_surveys["galah"])}
    with_sky = surveys.load(Recipe(data=data, options={"sdss": {"sky": True}}))
    assert len(with_sky["sdss"]) > len(surveys.load(Recipe(data=data))["sdss"])


def test_rows_of_a_survey_without_a_reader_come_from_a_table(simulated_surveys, tmp_path):
    rows = load_survey("sdss", simulated_surveys["sdss"]).remove_columns(["survey", "frame"])
    rows.to_parquet(tmp_path / "mine.parquet")
    recipe = Recipe(data={"mine": str(tmp_path / "mine.parquet")}, options={"mine": {"frame": "observed"}})
    (mine,) = surveys.load(recipe).values()
    assert set(mine["survey"][:]) == {"mine"} and set(mine["frame"][:]) == {"observed"} and len(mine) == len(rows)


def test_another_survey_s_rows_are_not_called_by_a_survey_s_name(simulated_surveys, tmp_path):
    prepare_survey("apogee", simulated_surveys["apogee"], tmp_path)
    for files in (str(tmp_path / "apogee"), [str(tmp_path / "apogee" / "*.parquet")]):
        with pytest.raises(ValueError, match="data: sdss: expected its own rows, found those of apogee: .*apogee"):
            surveys.load(Recipe(data={"sdss": files}))
        assert len(surveys.load(Recipe(data={"mine": files, "apogee": files}))["mine"])


def test_what_would_be_passed_over_is_refused(simulated_surveys, tmp_path):
    prepare_survey("sdss", simulated_surveys["sdss"], tmp_path)
    prepared, own = str(tmp_path / "sdss"), str(simulated_surveys["sdss"])
    with pytest.raises(TypeError, match="sky"):  # prepared without it, it is too late
        surveys.load(Recipe(data={"sdss": prepared}, options={"sdss": {"sky": True}}))
    with pytest.raises(ValueError, match="expected tables alone"):
        surveys.load(Recipe(data={"sdss": [prepared, own]}))
    with pytest.raises(ValueError, match=r"options: expected some of \['sdss'\], found: \['desi'\]"):
        surveys.load(Recipe(data={"sdss": own}, options={"desi": {"sky": True}}))
    with pytest.raises(ValueError, match=r"data: expected some of .*found: \['mine'\]"):
        surveys.load(Recipe(data={"mine": own}))
    for recipe in (Recipe(data={"sdss": own}), Recipe(stream="physics"), Recipe(data={"sdss": own}, stream="physics")):
        recipe.weights = {"desi": 0.5, "desy": 0.0}  # a weight of what is not there is fine
        with pytest.raises(ValueError, match=r"weights: expected some of .*found: \['desy'\]"):
            surveys.parts(recipe)


def test_objects_are_told_apart_by_name_and_order_and_not_by_pixels():
    """Simulated pixels differ in their last bits with the number of threads."""
    names = {"survey": ["sdss"] * 3, "object_id": ["a", "b", None], "flux": [[1.0], [2.0], [3.0]]}
    rows = Dataset.from_dict(names)
    told = surveys.objects({"sdss": rows})
    assert told == surveys.objects({"sdss": Dataset.from_dict({**names, "flux": [[1.5], [2.0], [3.0]]})})
    assert told == json.loads(json.dumps(told))  # as a checkpoint keeps it
    others = [
        surveys.objects(each)
        for each in (
            {"sdss": rows.select([1, 0, 2])},
            {"sdss": Dataset.from_dict({**names, "object_id": ["a", "c", None]})},
            {"sdss": Dataset.from_dict({**names, "survey": ["sdss", "sdss", "desi"]})},
            {"mine": rows},
        )
    ]
    assert all(each != told for each in others)


def test_an_option_given_twice_adds_up():
    """argparse alone would forget the first one without a word."""
    recipe, _ = parse_arguments(
        ["--config", "training/recipes/demo.yaml", "--data", "sdss=a", "--data", "desi=b", "sdss=c"]
    )
    assert recipe.data == {"sdss": ["a", "c"], "desi": ["b"]}


def test_steps_of_data_and_of_a_stream_take_turns_and_go_on_where_they_were():
    def stream(start):
        numbers = surveys.numbers_of_stream(recipe, start)
        return ({"of": "stream", "number": each, "state": {"step": each + 1}} for each in numbers)

    def loader(start):
        return ({"of": "data", "number": each, "state": {"drawn": each + 1}} for each in itertools.count(start))

    recipe = Recipe(stream="physics", data={"sdss": "a"}, data_share=0.3)
    whole = list(itertools.islice(surveys.mixed(stream(0), loader(0), recipe, 0, None), 400))
    of_data = [step for step in whole if step["of"] == "data"]
    assert 0.2 < len(of_data) / len(whole) < 0.4
    assert [step["number"] for step in of_data] == list(range(len(of_data)))  # none is left out, none comes twice
    for stop in (1, 7, 50):
        state = whole[stop - 1]["state"]
        assert state["step"] == stop
        start = state["data"]["drawn"] if state["data"] else 0
        resumed = surveys.mixed(stream(stop), loader(start), recipe, stop, state["data"])
        assert list(itertools.islice(resumed, 20)) == whole[stop : stop + 20]
    with pytest.raises(ValueError, match="data_share"):
        Recipe(data_share=1.0)


@pytest.fixture
def one_thread():
    """As other processes have, or sums are rounded in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_steps_made_ahead_by_other_processes_are_the_same(one_thread):
    from simulated.stream import SimulatedStream

    stream = SimulatedStream(MaskedModelling(SpectralConfig()), {"apogee": 1.0}, 2, templates="none")
    ahead = surveys.loader(stream, itertools.count(3), Recipe(num_workers=2))
    for number, step in zip(range(3, 7), ahead):
        (found,), (expected,) = step["micro_batches"], stream.step(number)["micro_batches"]
        assert step["state"] == {"step": number + 1} and found["object_id"] == expected["object_id"]
        for name in ("flux", "ivar", "wavelength", "truth", "masked_patches", "target_patches"):
            assert torch.equal(found[name], expected[name]), name


def test_a_mixed_run_names_the_surveys_of_both():
    recipe = Recipe(stream="physics", data={"lamost": "a", "sdss": "b"}, weights={"lamost": 1.0, "galah": 2.0})
    assert surveys.stream_weights(recipe) == {"galah": 2.0}
    assert surveys.names(recipe, dict.fromkeys(recipe.data)) == ["lamost", "sdss", "galah"]
    assert set(surveys.stream_weights(Recipe(stream="physics"))) == {"sdss", "desi", "galah", "apogee"}


def test_spectra_that_were_never_drawn_are_not_counted():
    train = {"sdss": range(1000), "desi": range(5)}
    drawn = {"step": 10, "drawn": {"sdss": 90, "desi": 70}}
    assert surveys.num_trained_on(Recipe(data={"sdss": "a"}), train, drawn) == {"sdss": 90, "desi": 5}
    mixed = Recipe(data={"sdss": "a"}, stream="physics")
    assert surveys.num_trained_on(mixed, train, {"step": 10, "data": None})["sdss"] == 0
    assert surveys.num_trained_on(mixed, train, {"step": 10, "data": drawn})["sdss"] == 90
    assert set(surveys.num_trained_on(Recipe(stream="physics"), {}, {"step": 10})) == {
        "sdss",
        "desi",
        "galah",
        "apogee",
    }


def test_a_run_that_goes_on_with_another_seed_does_not_train_on_what_was_held(simulated_surveys):
    def held(**settings) -> list[str]:
        recipe = Recipe(data={"sdss": str(simulated_surveys["sdss"])}, validation_fraction=0.4, **settings)
        return surveys.parts(recipe)["sdss"][1]["object_id"][:]

    assert held(seed=0) == held(seed=1) != held(split_seed=1)
