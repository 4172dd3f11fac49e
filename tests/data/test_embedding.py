import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, concatenate_datasets, load_dataset
from fsspec.implementations.local import LocalFileSystem
from spectra import spectrum

from spectral_tokenizer import SpectralConfig, SpectralModel, SpectralProcessor
from spectral_tokenizer.data import shards
from spectral_tokenizer.data.embedding import embed, nearest, read_embeddings, write_embeddings
from spectral_tokenizer.data.shards import rows_fingerprint
from spectral_tokenizer.data.storage import sweep, write_aside


SURVEYS = ("sdss", "desi", "galah", "apogee")
SIZE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64, "num_latents": 4}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SpectralModel(SpectralConfig(**SIZE)).eval()


@pytest.fixture(scope="module")
def rows():
    return make_rows()


def make_rows(count=10, bad=()):
    rows = []
    for number in range(count):
        row = spectrum(SURVEYS[number % 4], number)
        if number in bad:
            row["ivar"] = 0 * row["ivar"]
        rows.append({**row, "object_id": f"object {number}", "survey": SURVEYS[number % 4], "redshift": 0.1 * number})
    return Dataset.from_list(rows)


def expected_vectors(model, rows):
    with torch.no_grad():
        return model(**SpectralProcessor()(rows[:], return_tensors="pt")).pooler_output.numpy()


def test_embed_is_the_pooled_output_of_every_row(model, rows):
    model.train()
    vectors, problems = embed(model, SpectralProcessor(), rows, batch_size=3)
    assert model.training and problems == [None] * 10
    np.testing.assert_allclose(vectors, expected_vectors(model.eval(), rows), atol=1e-5)
    again, _ = embed(model, SpectralProcessor(), rows, batch_size=4, num_workers=2)
    np.testing.assert_allclose(again, vectors, atol=1e-5)


def test_a_spectrum_that_cannot_be_read_is_kept_with_its_reason(model):
    rows = make_rows(6, bad=(0, 4))
    vectors, problems = embed(model, SpectralProcessor(), rows, batch_size=3)
    assert [problem is not None for problem in problems] == [True, False, False, False, True, False]
    assert "object 4" in problems[4] and "expected usable pixels" in problems[4]
    assert np.isnan(vectors[[0, 4]]).all() and np.isfinite(vectors[[1, 2, 3, 5]]).all()
    alone = embed(model, SpectralProcessor(), rows.select([5]))[0]
    np.testing.assert_allclose(vectors[5], alone[0], atol=1e-5)


def test_a_null_is_the_problem_of_its_row_alone(model, tmp_path):
    """As tables of one's own have them. A null pixel is an unusable one; without segment_lengths all is one segment."""
    rows = [*make_rows(10)]
    for number, name in enumerate(("flux", "ivar", "wavelength")):
        rows[number][name] = None
    rows[3]["flux"][5] = rows[4]["wavelength"][5] = None
    rows[5]["segment_lengths"] = None  # of DESI, whose arms overlap
    rows[7] = {**rows[8], "object_id": "one arm", "segment_lengths": None}
    rows[9]["segment_lengths"][0] = None
    write(model, Dataset.from_list(rows), tmp_path)
    table = read_embeddings(tmp_path)
    refused = [bool(problem) for problem in table["problem"]]
    assert refused == [True, True, True, False, True, True, False, False, False, True]
    for number, name in enumerate(("flux", "ivar", "wavelength")):
        assert f"object {number}" in table["problem"][number] and f"missing: {name}" in table["problem"][number]
    assert "object 9" in table["problem"][9] and "expected segment_lengths as whole numbers" in table["problem"][9]
    np.testing.assert_array_equal(np.isnan(np.array(table["embedding"][:])).all(1), refused)
    np.testing.assert_allclose(table["embedding"][7], table["embedding"][8], atol=1e-5)
    unusable = make_rows(4).select([3])[0]
    unusable["ivar"][5] = 0.0
    np.testing.assert_allclose(
        table["embedding"][3], expected_vectors(model, Dataset.from_list([unusable]))[0], atol=1e-5
    )


def test_no_rows_no_vectors(model, rows):
    vectors, problems = embed(model, SpectralProcessor(), rows.select([]))
    assert vectors.shape == (0, 4 * 32) and problems == []


def write(model, rows, folder, **settings):
    settings = {"shard_rows": 4, "batch_size": 3, "progress": False, **settings}
    return write_embeddings(model, SpectralProcessor(), rows, folder, **settings)


def test_no_rows_are_no_folder_of_embeddings(model, rows, tmp_path):
    """It would refuse the right ones afterwards."""
    with pytest.raises(ValueError, match="expected spectra, found none"):
        write_embeddings(model, SpectralProcessor(), rows.select([]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_hold_metadata_and_vectors(model, rows, tmp_path):
    paths = write(model, rows, tmp_path)
    assert [path.name for path in paths] == [f"embeddings-0000{number}-of-00003.parquet" for number in range(3)]
    assert [pq.read_metadata(path).num_rows for path in paths] == [4, 4, 2]
    table = read_embeddings(tmp_path)
    assert set(table.column_names) == {"object_id", "survey", "redshift", "embedding", "problem"}
    assert table["object_id"][:] == rows["object_id"][:] and table["problem"][:] == [None] * 10
    np.testing.assert_allclose(np.array(table["embedding"][:]), expected_vectors(model, rows), atol=1e-5)
    # Anybody reads them.
    others = load_dataset(
        "parquet", data_files=[str(path) for path in paths], split="train", cache_dir=str(tmp_path / "cache")
    )
    assert others["embedding"][3] == table["embedding"][3]
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        *(path.name for path in paths),
        "embeddings.json",
    }


def test_a_run_goes_on_where_it_stopped(model, rows, tmp_path):
    paths = write(model, rows, tmp_path)
    expected = [path.read_bytes() for path in paths]
    times = [path.stat().st_mtime_ns for path in paths]
    paths[1].unlink()
    (tmp_path / f".{paths[1].name}.0a1b2c3d.unfinished").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match="1 of 3 shards are not written yet: embeddings-00001"):
        read_embeddings(tmp_path)
    write(model, rows, tmp_path)
    assert [path.read_bytes() for path in paths] == expected
    assert [paths[number].stat().st_mtime_ns == times[number] for number in range(3)] == [True, False, True]
    assert not list(tmp_path.glob(".*"))


def test_a_shard_that_is_cut_off_is_made_anew(model, rows, tmp_path, caplog):
    """As by a full disk or a broken copy: reading ended in Arrow's words at every start."""
    paths = write(model, rows, tmp_path)
    expected = [path.read_bytes() for path in paths]
    paths[0].write_bytes(expected[0][:-7])
    paths[1].write_bytes(b"")
    paths[2].write_bytes(expected[1])
    write(model, rows, tmp_path)
    assert [path.read_bytes() for path in paths] == expected
    told = [record.getMessage() for record in caplog.records]
    assert [path.name in each and each.endswith("it is made anew") for path, each in zip(paths, told)] == [True] * 3
    assert "rows: found 4; expected 2" in told[2]


def test_two_processes_share_the_shards(model, rows, tmp_path):
    write(model, rows, tmp_path / "one")
    for process in (1, 0):
        write(model, rows, tmp_path / "two", process_index=process, num_processes=2)
        assert len(list((tmp_path / "two").glob("*.parquet"))) == (1 if process else 3)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_other_embeddings_are_not_mixed_in(model, rows, tmp_path):
    write(model, rows, tmp_path)
    with pytest.raises(ValueError, match="holds other embeddings.*rows: found.*num_rows: found 10, expected 9"):
        write(model, rows.select(range(9)), tmp_path)
    other = SpectralModel(SpectralConfig(**SIZE))
    with pytest.raises(ValueError, match="model: found"):
        write(other, rows, tmp_path)
    with pytest.raises(ValueError, match="shard_rows: found 4, expected 5"):
        write(model, rows, tmp_path, shard_rows=5)
    with pytest.raises(FileNotFoundError, match="expected a folder of embeddings"):
        read_embeddings(tmp_path / "elsewhere")


def test_embeddings_of_another_reduction_are_not_mixed_in(model, rows, tmp_path):
    """The same objects of files with the same names: their brightness, labels and pixels tell."""
    write(model, rows, tmp_path)
    for name, value in (("teff", 4321.0), ("class", "QSO")):
        other = rows.remove_columns([each for each in (name,) if each in rows.column_names])
        with pytest.raises(ValueError, match="rows: found"):
            write(model, other.add_column(name, [value] * len(rows)), tmp_path)
    recalibrated = rows.map(lambda row: {"wavelength": [1.0003 * each for each in row["wavelength"]]})
    with pytest.raises(ValueError, match="rows: found"):
        write(model, recalibrated, tmp_path)


def test_embeddings_by_the_same_weights_with_other_settings_are_not_mixed_in(model, rows, tmp_path):
    write(model, rows, tmp_path)
    other = SpectralModel(SpectralConfig(**SIZE, error_floor=0.1))
    other.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="model: found"):
        write(other, rows, tmp_path)


def test_some_rows_of_many_shards(model, rows, tmp_path):
    write(model, rows, tmp_path)
    whole = read_embeddings(tmp_path)
    chosen = [1, 2, len(rows) - 1]
    some = read_embeddings(tmp_path, ["object_id", "embedding"], chosen)
    assert (
        some.column_names == ["object_id", "embedding"]
        and some[:] == whole.select(chosen).select_columns(some.column_names)[:]
    )


def test_rows_asked_for_are_those_that_come_or_an_error(model, rows, tmp_path):
    write_embeddings(model, SpectralProcessor(), rows, tmp_path, batch_size=3, shard_rows=4)
    mask = np.arange(10) % 3 == 0
    assert read_embeddings(tmp_path, rows=mask)["object_id"][:] == [f"object {number}" for number in (0, 3, 6, 9)]
    none = read_embeddings(tmp_path, rows=[])
    assert len(none) == 0 and "embedding" in none.column_names
    for wrong in ([7, 2], [0, -1], [0, 10], [0, 11], [-1], mask[:5], [1.0, 2.0]):
        with pytest.raises(ValueError, match="rows: expected ascending numbers from 0 to 9"):
            read_embeddings(tmp_path, rows=wrong)


@pytest.mark.parametrize("columns", [["objectid"], ["object_id", "objectid"], "object_id"])
def test_columns_that_are_not_there_are_named(model, rows, tmp_path, columns):
    write(model, rows, tmp_path)
    found = re.escape(f"found: {columns!r} ({tmp_path / 'embeddings-00000-of-00003.parquet'})")
    with pytest.raises(
        ValueError, match=f"columns: expected a list of names among .*'object_id', .*'problem'.*, {found}"
    ):
        read_embeddings(tmp_path, columns)
    assert read_embeddings(tmp_path, ["object_id"]).column_names == ["object_id"]


def test_nearest_looks_at_every_number_alike():
    """The first number's spread is a thousand times the others': raw, it alone would decide."""
    generator = np.random.default_rng(0)
    truth = generator.standard_normal((50, 8))
    scale = np.array([1000.0, *[1.0] * 7])
    reference = truth * scale + 5
    queries = (truth[:10] + 0.01 * generator.standard_normal((10, 8))) * scale + 5
    index, similarity = nearest(reference, queries, 3)
    assert index.shape == similarity.shape == (10, 3)
    assert index[:, 0].tolist() == list(range(10)) and (similarity[:, 0] > 0.99).all()
    assert (np.diff(similarity) <= 0).all()
    reference[7] = queries[3] = np.nan
    index, similarity = nearest(reference, queries, 3)
    assert 7 not in index and (index[3] == -1).all() and np.isnan(similarity[3]).all()


def test_nearest_of_fewer_than_asked_and_of_none():
    reference, queries = np.eye(3), np.eye(3)[:2] + 0.1
    index, similarity = nearest(reference, queries, 5)
    assert (np.sort(index[:, :3]) == [0, 1, 2]).all() and (index[:, 3:] == -1).all()
    assert np.isnan(similarity[:, 3:]).all()
    index, similarity = nearest(reference, np.full((2, 3), np.nan), 2)
    assert (index == -1).all() and np.isnan(similarity).all()
    with pytest.raises(ValueError, match="reference: expected vectors, found none that is finite among 3"):
        nearest(np.full((3, 3), np.nan), queries, 1)


def test_rows_may_have_dates(rows):
    """A column of one's own beside the survey's: it is part of what the rows are."""
    days = [[datetime(2020, 1, day)] * len(rows) for day in (1, 2)]
    prints = [rows_fingerprint(rows.add_column("observed", each)) for each in days]
    assert len({*prints, rows_fingerprint(rows)}) == 3


def test_every_label_of_every_block_counts_and_no_bits_of_nan(rows, monkeypatch):
    """Of twenty million rows they are looked at in blocks."""
    monkeypatch.setattr(shards, "BLOCK", 3)
    assert len(rows) % 3 != 0 and len(rows) > 3
    teff = np.full(len(rows), np.nan)
    columns = [np.copysign(teff, -1.0), teff]
    for place in (0, len(rows) - 1):
        columns.append(np.where(np.arange(len(rows)) == place, 5000.0, teff))
    prints = [rows_fingerprint(rows.add_column("teff", each)) for each in columns]
    assert prints[0] == prints[1] and len(set(prints)) == 3


@pytest.mark.parametrize("farthest", [0, 20])
@pytest.mark.parametrize("chosen", [range(9, -1, -1), [7, 3, 4, 0, 9, 9]])
def test_chosen_rows_are_told_as_the_same_rows_alone(rows, monkeypatch, chosen, farthest):
    """Of those that were chosen among others, as a split does, labels are taken from where they lie."""
    monkeypatch.setattr(shards, "BLOCK", 3)
    monkeypatch.setattr(shards, "FARTHEST", farthest)
    rows = rows.add_column("teff", [None, *np.arange(8.0), np.nan]).add_column("is_good", [None, *9 * [True]])
    rows = concatenate_datasets([rows.select(range(4)), rows.select(range(4, 10))])
    picked = rows.select(chosen)
    assert picked._indices is not None
    assert rows_fingerprint(picked) == rows_fingerprint(Dataset.from_list(picked.to_list(), features=rows.features))
    assert rows_fingerprint(picked) != rows_fingerprint(rows)


def test_a_file_beside_one_is_written_beside_one(tmp_path, monkeypatch):
    """`--output .` went by the root of the disk."""
    monkeypatch.chdir(tmp_path)
    left = tmp_path / ".here.json.0123abcd.unfinished"
    left.write_text("killed")
    with write_aside(LocalFileSystem(), "here.json") as unfinished:
        Path(unfinished).write_text("{}")
        assert Path(unfinished).resolve().parent == tmp_path.resolve()
    sweep(LocalFileSystem(), "here.json")
    assert [path.name for path in tmp_path.iterdir()] == ["here.json"]
