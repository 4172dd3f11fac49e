"""What heads say of rows, as a table: the same that each says alone, whichever of them share an encoder."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from test_embedding import make_rows
from test_heads import HEADS, make_model

from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer.data.catalogue import by_encoder, read_catalogue, write_catalogue


BAD = (0, 4, 5)


@pytest.fixture(scope="module")
def rows():
    return make_rows(bad=BAD)


def heads(*kinds, same_encoder=True):
    """Trained heads on one encoder, or on one each."""
    models = [make_model(kind) for kind in kinds]
    for number, model in enumerate(models):
        model.spectral.load_state_dict(models[0].spectral.state_dict())
        if not same_encoder:
            next(model.spectral.parameters()).data.mul_(1 + number / 2)
    return models


def write(models, rows, folder, **settings):
    settings = {"shard_rows": 4, "batch_size": 2, "progress": False, **settings}
    return write_catalogue(models, SpectralProcessor(), rows, folder, **settings)


def alone(model, rows, places):
    with torch.no_grad():
        return model(**SpectralProcessor()([rows[place] for place in places], return_tensors="pt"))


@pytest.mark.parametrize("same_encoder", [True, False])
def test_a_catalogue_holds_what_each_head_says(rows, tmp_path, same_encoder):
    """Of three heads on one encoder, or on several; a spectrum that cannot be read is there with its reason, also where
    it is all of a batch."""
    models = heads("classes", "labels", "shift", same_encoder=same_encoder)
    assert len(by_encoder(models)) == (1 if same_encoder else 3)
    paths = write(models, rows, tmp_path)
    table = read_catalogue(tmp_path)
    assert [path.name for path in paths] == [f"catalogue-0000{number}-of-00003.parquet" for number in range(3)]
    assert table["object_id"][:] == rows["object_id"][:] and not {"flux", "lsf_sigma"} & set(table.column_names)
    assert [problem is not None for problem in table["problem"][:]] == [place in BAD for place in range(10)]
    places = [place for place in range(10) if place not in BAD]
    classes, labels, shift = (alone(model, rows, places) for model in models)
    named = [models[0].config.id2label[place] for place in classes.logits.argmax(-1).tolist()]
    assert [table["predicted_class"][place] for place in places] == named
    expected = {
        "probability_LABEL_2": classes.logits.softmax(-1)[:, 2],
        "predicted_teff": labels.logits[:, 0],
        "predicted_logg_error": labels.errors[:, 1],
        "predicted_logg_low": labels.intervals[:, 1, 0],
        "predicted_redshift": shift.logits[:, 0],
        "predicted_redshift_high": shift.intervals[:, 0, 1],
        "predicted_redshift_confidence": shift.confidence[:, 0],
    }
    for name, values in expected.items():
        found = np.array(table[name][:])
        np.testing.assert_allclose(found[places], values.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)
        assert np.isnan(found[list(BAD)]).all(), name
    assert [table["predicted_class"][place] for place in BAD] == [None] * 3
    assert all(table["predicted_redshift_is_flagged"][place] for place in BAD)
    assert len({str(pq.read_schema(path)) for path in paths}) == 1


def test_an_encoder_that_heads_share_reads_each_spectrum_once(rows, tmp_path):
    models, seen = heads("classes", "labels", "shift"), []
    for model in models:
        model.spectral.register_forward_hook(lambda module, given, found: seen.append(len(found.pooler_output)))
    write(models, rows, tmp_path)
    assert sum(seen) == len(rows) - len(BAD) + 1  # and one to learn what the columns are


def test_a_run_goes_on_and_other_heads_are_refused(rows, tmp_path):
    models = heads("classes", "redshift")
    paths = write(models, rows, tmp_path)
    expected = [path.read_bytes() for path in paths]
    paths[1].unlink()
    with pytest.raises(FileNotFoundError, match="1 of 3 shards are not written yet: catalogue-00001"):
        read_catalogue(tmp_path)
    for process in (1, 0):
        write(models, rows, tmp_path, process_index=process, num_processes=2)
    assert [path.read_bytes() for path in paths] == expected
    for others in (models[:1], heads("classes", "shift"), models[::-1]):
        with pytest.raises(ValueError, match="holds other catalogue.*model: found"):
            write(others, rows, tmp_path)


def test_heads_of_another_catalogue_are_named(rows, tmp_path):
    """By where they were loaded from, which is no matter else."""
    model, other, moved = heads("redshift", "shift", "redshift")
    moved.load_state_dict(model.state_dict())
    for each, folder in ((model, "runs/z"), (other, "runs/shift"), (moved, "moved/z")):
        each.name_or_path = folder
    paths = write([model], rows, tmp_path)
    with pytest.raises(ValueError, match="model: found .*, models: found runs/z, expected runs/shift"):
        write([other], rows, tmp_path)
    assert write([moved], rows, tmp_path) == paths
    record = json.loads((tmp_path / "catalogue.json").read_text())
    del record["models"]  # as of a run from before
    (tmp_path / "catalogue.json").write_text(json.dumps(record))
    assert len(read_catalogue(tmp_path)) == len(rows) and write([model], rows, tmp_path) == paths


def test_two_heads_do_not_answer_the_same(rows, tmp_path):
    with pytest.raises(ValueError, match=r"each label of one head alone, found several for \['redshift'\]"):
        write(heads("redshift", "shift"), rows, tmp_path)
    with pytest.raises(ValueError, match=r"no column of the names \['predicted_teff'\]"):
        write(heads("labels"), rows.add_column("predicted_teff", [5000.0] * len(rows)), tmp_path / "named")
    assert not list(tmp_path.iterdir())  # nor is a folder claimed for what it does not hold


def test_tags_have_probabilities_of_their_own(rows, tmp_path):
    (model,) = heads("tags")
    write([model], rows, tmp_path)
    table, place = read_catalogue(tmp_path), 1
    shares = alone(model, rows, [place]).logits.sigmoid()[0]
    found = [table[f"probability_{model.config.id2label[number]}"][place] for number in range(len(shares))]
    assert found == pytest.approx(shares.tolist(), abs=1e-4) and "predicted_class" not in table.column_names
    assert HEADS["tags"]["num_labels"] == len(shares)
