"""What is written once for all surveys: counting, skipping, caching, processes, row checks."""

import os
import re
from contextlib import nullcontext

import numpy as np
import pytest
from datasets import Dataset, load_from_disk
from native_files import rows_of, write_desi, write_sdss

from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer.data import SURVEYS, SpectrumFileError, load_survey, survey_report
from spectral_tokenizer.data import builder as builder_module
from spectral_tokenizer.data.builder import SpectraBuilder, check_row, fill_resolution, finish_row, to_table
from spectral_tokenizer.data.schema import FEATURES


def load(tmp_path, path, **options):
    return load_survey("sdss", path, cache_dir=tmp_path / "cache", **options)


@pytest.fixture
def folder(tmp_path):
    """Five good files of growing plate number, two damaged ones among them, one sky fibre."""
    folder = tmp_path / "spectra"
    folder.mkdir()
    for plate in range(1, 6):
        write_sdss(folder / f"spec-{plate:04d}.fits", plate=plate, flux=np.full(60 + plate, float(plate)))
    (folder / "spec-0002-damaged.fits").write_bytes(b"")
    (folder / "spec-0004-damaged.fits").write_text("x" * 3000)
    write_sdss(folder / "spec-0003-sky.fits", ZWARNING=1)
    return folder


def test_report_and_log(tmp_path, folder, caplog):
    dataset = load(tmp_path, folder)
    report = survey_report(dataset)
    assert (report.survey, report.files, report.rows, report.damaged) == ("sdss", 8, 5, 2)
    assert report.dropped == {"sky fibre": 1}
    assert "spec-0002-damaged.fits" in report.messages[0] and "spec-0004-damaged.fits" in report.messages[1]
    assert "5 spectra from 8 files; dropped 1 (sky fibre); 2 damaged or foreign" in caplog.text
    assert dataset.features == FEATURES


def test_silence_where_nothing_was_dropped(tmp_path, caplog):
    load(tmp_path, write_sdss(tmp_path / "spec-1.fits"))
    assert not [record for record in caplog.records if record.name.startswith("spectral_tokenizer")]


def test_report_survives_cache_selection_and_saving(tmp_path, folder):
    first, second = load(tmp_path, folder), load(tmp_path, folder)
    assert first.cache_files == second.cache_files
    second.select([1]).filter(lambda row: True).save_to_disk(tmp_path / "saved")
    for dataset in (second, second.shuffle(seed=1), load_from_disk(tmp_path / "saved")):
        assert survey_report(dataset) == survey_report(first)
    with pytest.raises(ValueError, match="not a dataset of load_survey"):
        survey_report(Dataset.from_dict({"flux": [[1.0]]}))


def test_two_processes_give_the_same(tmp_path, folder):
    one = load_survey("sdss", folder, cache_dir=tmp_path / "one")
    two = load_survey("sdss", folder, cache_dir=tmp_path / "two", num_proc=2)
    assert len(two.cache_files) == 2  # it did run in two
    assert one["object_id"][:] == two["object_id"][:] == [f"{plate:04d}-55555-0007" for plate in range(1, 6)]
    assert one["flux"][:] == two["flux"][:]
    assert survey_report(one) == survey_report(two)


def test_one_of_two_processes_finds_nothing(tmp_path):
    write_sdss(tmp_path / "spec-1.fits", ZWARNING=1)
    write_sdss(tmp_path / "spec-2.fits")
    dataset = load(tmp_path, tmp_path, num_proc=2)
    assert len(dataset) == 1 and dataset[0]["source"] == "spec-2.fits"


@pytest.mark.parametrize("num_proc", [None, 2])
def test_strict(tmp_path, folder, num_proc):
    with pytest.raises(SpectrumFileError, match="damaged.fits: file: found .*; expected"):
        load(tmp_path, folder, strict=True, num_proc=num_proc)
    assert len(load(tmp_path, folder, num_proc=num_proc)) == 5  # and nothing of it stays in the cache


def test_an_empty_result_is_a_dataset(tmp_path):
    path = write_sdss(tmp_path / "spec-1.fits", ZWARNING=1)
    for _ in range(2):  # built, and from the cache
        dataset = load(tmp_path, path)
        assert len(dataset) == 0 and dataset.features == FEATURES
        assert survey_report(dataset).dropped == {"sky fibre": 1}


def test_a_folder_of_foreign_files_alone_is_no_dataset(tmp_path):
    """As where a recipe names another survey's folder: nothing would be learned of it, behind one line of a log."""
    folder = tmp_path / "spectra"
    folder.mkdir()
    named = [write_desi(folder / f"spec-{number}.fits", [5]) for number in (1, 2)]
    for _ in range(2):  # built, and from the cache
        with pytest.raises(SpectrumFileError) as caught:
            load(tmp_path, folder)
        file, field, found, expected = caught.value.args
        assert (file, field) == (str(folder), "files") and "reader SDSS" in expected
        assert "2 files, all of them damaged or foreign" in found and "spec-1.fits" in found
    # Who chose the files has the report of them; and one that is read tells that the folder is the survey's.
    for chosen in (named, folder / "*.fits"):
        assert survey_report(load(tmp_path, chosen)).damaged == 2
    sky = write_sdss(folder / "spec-3.fits", ZWARNING=1)
    assert survey_report(load(tmp_path, folder)).damaged == 2
    write_sdss(sky)
    assert len(load(tmp_path, folder)) == 1


def test_changed_added_and_removed_files_are_noticed(tmp_path, folder):
    def plates():
        return [int(name[:4]) for name in load(tmp_path, folder)["object_id"][:]]

    assert plates() == [1, 2, 3, 4, 5]
    # same name, same size, another time of writing
    path = folder / "spec-0001.fits"
    before = path.stat()
    write_sdss(path, plate=9, flux=np.ones(61))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    assert path.stat().st_size == before.st_size
    assert plates() == [9, 2, 3, 4, 5]
    write_sdss(folder / "spec-0006.fits", plate=6)
    assert plates() == [9, 2, 3, 4, 5, 6]
    (folder / "spec-0002.fits").unlink()
    assert plates() == [9, 3, 4, 5, 6]


def test_options_and_version_are_part_of_the_cache(tmp_path, folder, monkeypatch):
    plain, sky = load(tmp_path, folder), load(tmp_path, folder, sky=True)
    assert (len(plain), len(sky)) == (5, 6)
    monkeypatch.setattr(SURVEYS["sdss"], "VERSION", "99.0.0")
    assert load(tmp_path, folder).cache_files != plain.cache_files


def test_surveys_do_not_share_a_cache(tmp_path):
    write_sdss(tmp_path / "spec-1.fits")
    write_desi(tmp_path / "coadd-1.fits", [5])
    for name in ("sdss", "desi"):
        dataset = load_survey(name, tmp_path, cache_dir=tmp_path / "cache")
        assert dataset["survey"][:] == [name]
    assert len({survey.__module__ for survey in SURVEYS.values()}) == len(SURVEYS)
    assert all(survey.__module__.endswith(f".{name}") for name, survey in SURVEYS.items())


def test_cache_folder_names_stay_short(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    for plate in range(20):
        write_sdss(deep / f"spec-{plate}.fits")
    load(tmp_path, deep)
    assert max(len(path.name) for path in (tmp_path / "cache" / "sdss").rglob("*")) < 60


def test_data_files(tmp_path, folder):
    (folder / "deeper").mkdir()
    write_sdss(folder / "deeper" / "spec-0007.fits", plate=7)
    write_sdss(folder / "another-name.fits", plate=8)
    good = str(folder / "spec-000?.fits")

    def plates(data_files):
        return [int(name[:4]) for name in load(tmp_path, data_files)["object_id"][:]]

    assert sorted(plates(folder)) == [1, 2, 3, 4, 5, 7]
    assert plates(good) == [1, 2, 3, 4, 5]
    assert plates(folder / "another-name.fits") == [8]
    assert sorted(plates([good, folder / "spec-0001.fits", folder / "deeper"])) == [1, 2, 3, 4, 5, 7]  # no repetition
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path, folder / "nowhere")
    (folder / "empty").mkdir()
    for nothing in (folder / "*.nothing", folder / "empty"):  # beside what is there, it would go unnoticed
        with pytest.raises(FileNotFoundError, match=f"no files for .*{re.escape(nothing.name)}"):
            load(tmp_path, [good, nothing])
    with pytest.raises(FileNotFoundError, match="coadd"):
        load_survey("desi", folder, cache_dir=tmp_path / "cache")


def test_unknown_survey_and_option(tmp_path, folder):
    with pytest.raises(ValueError, match="rave.*apogee"):
        load_survey("rave", folder)
    with pytest.raises(TypeError, match="clouds"):
        load(tmp_path, folder, clouds=True)
    with pytest.raises(TypeError, match="data_dir"):  # Datasets' own: nothing is read from there
        load_survey("sdss", folder, data_dir="nowhere")
    with pytest.raises(TypeError, match="sky: found 'no'; expected True or False"):
        load_survey("sdss", folder, sky="no")


def test_memory_is_bounded(tmp_path, folder, monkeypatch):
    """Rows go out in batches of a limited number of pixels, across files, none lost."""
    monkeypatch.setattr(builder_module, "PIXELS_PER_BATCH", 100)
    survey = SURVEYS["sdss"](cache_dir=str(tmp_path / "cache"), files=tuple(sorted(map(str, folder.iterdir()))))
    tables = [table for _, table in survey._generate_tables(survey.group_files(survey.config.files))]
    assert [len(table) for table in tables] == [2, 2, 1]


def good_row(**changes):
    row = {
        "source": "file",
        "survey": "mine",
        "frame": "rest",
        "wavelength": np.array([1.0, 2.0, 3.0, 2.5, 3.5]),
        "flux": np.ones(5),
        "ivar": np.ones(5),
        "lsf_sigma": None,
        "lsf_kind": None,
        "segment_lengths": [3, 2],
    }
    return row | changes


def long_row(**changes):
    """The same and a segment of 200 pixels."""
    row, ones = good_row(**changes), np.ones(200)
    more = {"wavelength": 5.0 + np.arange(200), "flux": ones, "ivar": ones}
    longer = {name: np.concatenate([row[name], each]) for name, each in more.items()}
    return row | longer | {"segment_lengths": [*row["segment_lengths"], 200]}


def test_good_row_passes():
    check_row(good_row())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment_lengths": [5]}, "wavelength.*3.0 before 2.5"),
        ({"segment_lengths": [3, 1]}, "segment_lengths.*add up to 5"),
        ({"segment_lengths": [3, 2, 0]}, "segment_lengths"),
        ({"wavelength": np.array([1.0, 1.0, 3.0, 2.5, 3.5])}, "ascending"),
        ({"wavelength": np.array([1.0, np.nan, 3.0, 2.5, 3.5])}, "not finite"),
        ({"wavelength": np.array([-1.0, 2.0, 3.0, 2.5, 3.5])}, "not positive"),
        ({"flux": np.ones(4)}, "flux.*4.*5"),
        ({"ivar": np.ones((5, 1))}, "ivar"),
        ({"lsf_sigma": np.ones(6), "lsf_kind": "nominal"}, "lsf_sigma"),
        ({"frame": "air"}, "frame"),
    ],
)
def test_row_checks(changes, message):
    with pytest.raises(SpectrumFileError, match=message):
        check_row(good_row(**changes))


def test_made_up_columns_are_a_bug_of_the_reader():
    with pytest.raises(ValueError, match="colour"):
        check_row(good_row(colour=1.0))


def test_resolution_is_filled_inside_segments_alone():
    sigma = fill_resolution(np.array([0.0, 2.0, np.inf, np.nan, -1.0]), [3, 2])
    assert sigma.tolist() == [2, 2, 2, 0, 0]  # nothing is known of the second segment
    assert len(fill_resolution(np.zeros(3), [3])) == len(fill_resolution(None, [3])) == 0


def test_resolution_says_where_it_comes_from():
    with pytest.raises(ValueError, match="lsf_kind: found None"):
        check_row(good_row(lsf_sigma=np.ones(5)))


def test_float32_overflow_is_unusable():
    row = finish_row(long_row(flux=np.array([1.0, 1e39, 1, 1, -2]), ivar=np.array([1e39, 1, 1e-60, -1, 4.0])), set())
    assert row["ivar"].tolist() == [0, 0, 0, 0, 4] + 200 * [1] and np.isfinite(row["flux"]).all()
    assert row["snr"] == 1.0


def test_flux_in_a_unit_that_float32_does_not_square_is_refused():
    """Else the most precise pixels would be called unusable, without a word."""
    error = np.geomspace(2e-20, 2e-19, 205)
    with pytest.raises(
        SpectrumFileError, match=r"column ivar: found numbers like 2.5e\+39.*expected flux in a larger unit"
    ):
        finish_row(long_row() | {"flux": np.full(205, 1e-17), "ivar": error**-2}, set())
    assert finish_row(long_row() | {"flux": np.ones(205), "ivar": (error * 1e17) ** -2}, set())["snr"] > 100
    for flux, ivar, name in ((3e40, 1e-20, "flux"), (3e30, 1e-60, "ivar")):
        with pytest.raises(
            SpectrumFileError, match=f"column {name}: found numbers like .*expected flux in a smaller unit"
        ):
            finish_row(long_row() | {"flux": np.full(205, flux), "ivar": np.full(205, ivar)}, set())


@pytest.mark.parametrize(
    ("num_usable", "segment_lengths", "is_dropped"),
    [
        (15, [128], True),
        (16, [128], False),
        (16, [40, 88], True),
        (40, [15, 15, 15, 83], True),
    ],
)
def test_a_row_of_which_no_patch_is_valid_is_left_out(tmp_path, num_usable, segment_lengths, is_dropped):
    """By the processor's rule: it would end a run that comes to it, and again each time that the run goes on."""
    ivar = np.zeros(128)
    ivar[32 : 32 + num_usable] = 1
    if segment_lengths[0] == 15:
        ivar = np.r_[np.ones(45), np.zeros(83)]
    row = {"wavelength": 5000.0 + np.arange(128), "flux": np.ones(128), "ivar": ivar}

    class Survey(SpectraBuilder):
        FILE_NAMES = ("*.txt",)

        def read(self, files):
            yield good_row(object_id="a", **row, segment_lengths=segment_lengths)

    (tmp_path / "a.txt").touch()
    dataset = Survey(cache_dir=str(tmp_path / "cache"), files=(str(tmp_path / "a.txt"),)).build()
    dropped = {"no patch of 32 pixels of which half are usable": 1} if is_dropped else {}
    assert dict(survey_report(dataset).dropped) == dropped and len(dataset) == 1 - len(dropped)
    with pytest.raises(ValueError, match="half of which are usable") if is_dropped else nullcontext():
        SpectralProcessor()(row["flux"], row["ivar"], row["wavelength"], segment_lengths)


def test_table_keeps_null_and_ragged_lists():
    short = {"wavelength": np.array([1.0, 2.0]), "flux": np.ones(2), "ivar": np.ones(2), "segment_lengths": [2]}
    rows = [
        finish_row(good_row(object_id="a"), set()),
        finish_row(good_row(object_id="b", lsf_sigma=np.array([1.0, np.nan, 2, 3, -4]), lsf_kind="measured"), set()),
        finish_row(good_row(object_id="c", **short), set()),
    ]
    first, second, third = rows_of(Dataset(to_table(rows)))
    assert len(first["lsf_sigma"]) == len(third["lsf_sigma"]) == 0
    assert second["lsf_sigma"].tolist() == [1, 1.5, 2, 3, 3] and second["lsf_kind"] == "measured"
    assert first["lsf_kind"] is None
    assert second["wavelength"].tolist() == [1, 2, 3, 2.5, 3.5] and third["wavelength"].tolist() == [1, 2]


def test_a_fifth_survey_is_one_class(tmp_path):
    class Survey(SpectraBuilder):
        FILE_NAMES = ("*.txt",)

        def read(self, files):
            row = long_row(object_id=files[0])
            yield row | {"wavelength": 5000.0 + row["wavelength"]}

    (tmp_path / "a.txt").touch()
    dataset = Survey(cache_dir=str(tmp_path / "cache"), files=(str(tmp_path / "a.txt"),)).build()
    assert dataset["snr"][:] == [1.0]


def test_the_error_crosses_processes():
    import pickle

    error = SpectrumFileError("a.fits", "column flux", ["x"], "a column")
    assert str(pickle.loads(pickle.dumps(error))) == "a.fits: column flux: found ['x']; expected a column"
