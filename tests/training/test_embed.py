"""The embedding script as users start it, and the map it leaves."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import embed
import embedding_map
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, concatenate_datasets
from embed import load_rows, parse_arguments
from in_process import in_this_process
from recipe import ROOT
from spectra import spectrum

from spectral_tokenizer.data import load_survey, prepare_survey
from spectral_tokenizer.data.embedding import read_embeddings


def run(*arguments, launch=(), script="embed.py", **variables) -> str:
    done = subprocess.run(
        [sys.executable, *launch, str(ROOT / "training" / script), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_survey_files_become_a_table_and_a_map(pretrained, simulated_surveys, tmp_path):
    """Two processes; then prepared Parquet of the same rows, on one, gives the same."""
    surveys = ("desi", "apogee")
    data = [f"{survey}={simulated_surveys[survey]}" for survey in surveys]
    printed = run(
        "--model", pretrained, "--output", tmp_path / "out", "--data", *data, "--shard-rows", 8,
        launch=("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"),
        ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    table = read_embeddings(tmp_path / "out")
    rows = concatenate_datasets([load_survey(survey, simulated_surveys[survey]) for survey in surveys])
    assert table["object_id"][:] == rows["object_id"][:] and table["class"][:] == rows["class"][:]
    assert printed.count(f"{len(rows)} spectra, 0 without an embedding") == 1  # one of the two says so, for both
    assert (tmp_path / "out" / "map.png").stat().st_size > 10_000
    assert "class_nearest" in json.loads((tmp_path / "out" / "neighbours.json").read_text())

    rows.to_parquet(tmp_path / "rows.parquet")
    arguments = {"--model": pretrained, "--output": tmp_path / "again", "--rows": tmp_path / "rows.parquet"}
    in_this_process(embed.main, *(str(each) for pair in arguments.items() for each in pair), "--shard-rows", "50")
    again = read_embeddings(tmp_path / "again")
    np.testing.assert_allclose(np.array(again["embedding"][:]), np.array(table["embedding"][:]), atol=1e-5)


def test_a_missing_shard_is_noticed(tmp_path, simulated_surveys):
    """Also by a glob, and by the names that a shell makes of one."""
    prepare_survey("sdss", simulated_surveys["sdss"], tmp_path, num_shards=3)
    shards = [str(path) for path in sorted((tmp_path / "sdss").glob("*.parquet"))]
    ways = ([str(tmp_path)], [str(tmp_path / "sdss")], [str(tmp_path / "sdss" / "*.parquet")], [shards[0], shards[2]])
    whole = len(load_rows(parse_arguments(["--rows", *shards])))
    assert [len(load_rows(parse_arguments(["--rows", *way]))) for way in ways[:3]] == [whole] * 3
    os.remove(shards[1])
    for way in ways:
        with pytest.raises(FileNotFoundError, match="sdss: 1 of 3 shards are not there, train-00001-of-00003.parquet"):
            load_rows(parse_arguments(["--rows", *way]))


def test_a_table_of_three_columns_is_read_by_what_is_told_of_it(tmp_path):
    """The message of `--rows`, followed to the letter."""
    row = spectrum("sdss")
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.Table.from_pylist([{name: row[name] for name in ("wavelength", "flux", "ivar")}] * 3), path)
    expected = f"goes in as --data NAME={path} --options NAME.frame=heliocentric"
    with pytest.raises(ValueError, match=re.escape(expected)):
        load_rows(parse_arguments(["--rows", str(path)]))
    rows = load_rows(parse_arguments(["--data", f"mine={path}", "--options", "mine.frame=heliocentric"]))
    assert rows["frame"][:] == ["heliocentric"] * 3 and rows["survey"][:] == ["mine"] * 3
    for options, message in (("frame=rest", "expected SURVEY.NAME=VALUE"), ("other.frame=rest", "found: ['other']")):
        with pytest.raises(ValueError, match=re.escape(message)):
            load_rows(parse_arguments(["--data", f"mine={path}", "--options", options]))


def test_tables_without_rows_are_passed_over_and_damaged_ones_named(tmp_path, simulated_surveys, pretrained):
    rows = load_survey("sdss", simulated_surveys["sdss"])
    paths = [tmp_path / f"rows-{number}.parquet" for number in range(3)]
    # As pandas writes columns of nothing: of another type than those of the rows.
    nothing = pa.table({name: pa.nulls(0) for name in rows.column_names})
    for path, table in zip(paths, (nothing, rows.with_format("arrow")[:], nothing)):
        pq.write_table(table, path)
    loaded = load_rows(parse_arguments(["--rows", str(tmp_path / "*.parquet"), str(paths[0])]))
    assert loaded["object_id"][:] == rows["object_id"][:]
    with pytest.raises(ValueError, match="rows: expected spectra, found none"):
        in_this_process(
            embed.main, "--model", str(pretrained), "--output", str(tmp_path / "out"), "--rows", str(paths[0])
        )
    (tmp_path / "rows[2]").mkdir()
    paths[1].rename(tmp_path / "rows[2]" / paths[1].name)
    assert len(load_rows(parse_arguments(["--rows", str(tmp_path / "rows[2]")]))) == len(rows)  # a name, and no glob
    paths[1] = tmp_path / "rows[2]" / paths[1].name
    paths[2].write_bytes(paths[1].read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{paths[2]}: file: found .*; expected a whole Parquet file"):
        load_rows(parse_arguments(["--rows", str(tmp_path / "*.parquet")]))


def test_without_files_the_surveys_that_can_be_are_simulated(tmp_path):
    """LAMOST, which is read, is not among them."""
    rows = load_rows(parse_arguments(["--simulate", "1", "--output", str(tmp_path / "out")]))
    assert {"galah", "apogee"} <= set(rows["survey"][:]) <= {"sdss", "desi", "galah", "apogee"}


def table_of(vectors, **columns):
    return Dataset.from_dict(
        {"object_id": [f"{n}" for n in range(len(vectors))], "embedding": vectors.tolist(), **columns}
    )


def test_neighbours_agree_where_classes_lie_apart():
    generator = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 30)
    vectors = generator.standard_normal((3, 16))[group] + 0.1 * generator.standard_normal((90, 16))
    rows = table_of(vectors, **{"class": np.array(["GALAXY", "QSO", "STAR"])[group].tolist(), "redshift": [0.5] * 90})
    scores = embedding_map.neighbours_agree(rows)
    assert scores["class_nearest"] == 1.0 and 0.1 < scores["class_random"] < 0.6 and scores["redshift_nearest"] == 0


def test_another_spectrum_of_the_same_object_is_no_neighbour():
    vectors = np.random.default_rng(0).standard_normal((20, 4))
    rows = table_of(np.repeat(vectors, 2, axis=0), teff=np.repeat(np.arange(20) * 100.0, 2).tolist())
    rows = rows.remove_columns("object_id").add_column("object_id", np.repeat(np.arange(20), 2).astype(str).tolist())
    assert embedding_map.neighbours_agree(rows)["teff_nearest"] >= 100


@pytest.mark.parametrize("installed", [True, False])
def test_the_map_says_how_it_was_made(installed, tmp_path, monkeypatch, caplog):
    asked = []

    class UMAP:
        def __init__(self, **settings):
            asked.append(settings)

        def fit_transform(self, vectors):
            return vectors[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=UMAP) if installed else None)
    vectors = np.random.default_rng(0).standard_normal((40, 8))
    vectors[3] = np.nan
    teff = [float("nan")] * 20 + [5000.0 + n for n in range(20)]
    rows = table_of(vectors, **{"class": ["STAR", None] * 20, "teff": teff, "redshift": [None] * 40})
    assert embedding_map.draw(rows, tmp_path / "map.png").stat().st_size > 10_000
    assert bool(asked) == installed
    assert ("umap-learn is not installed" in caplog.text) != installed
