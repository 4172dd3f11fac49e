"""A tiny model with random weights, heads and a reference of it, and simulated files to show it."""

import pytest
import torch

from spectral_tokenizer import (
    SpectralConfig,
    SpectralForPreTraining,
    SpectralForSequenceClassification,
    SpectralProcessor,
)


SIZE = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_decoder_layers": 1, "num_attention_heads": 4,
    "intermediate_size": 64, "num_latents": 4,
}  # fmt: skip
BINS = {"distribution": "bins", "transform": "log1p", "range": [-0.01, 4.5], "num_bins": 64, "tolerance": 0.05}
HEADS = {
    "classes": {"problem_type": "single_label_classification", "id2label": {0: "GALAXY", 1: "QSO", 2: "STAR"}},
    "redshift": {"problem_type": "regression", "id2label": {0: "redshift"}, "targets": {"redshift": BINS}},
    "labels": {"problem_type": "regression", "id2label": {0: "teff", 1: "logg", 2: "fe_h"}},
}


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory):
    """Folders: "model", and one per head."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    models = {"model": SpectralForPreTraining(SpectralConfig(**SIZE))}
    for name, settings in HEADS.items():
        models[name] = SpectralForSequenceClassification(SpectralConfig(**SIZE, **settings))
        torch.nn.init.normal_(models[name].head.out_proj.weight, std=0.3)
    for name, model in models.items():
        model.save_pretrained(folder / name)
        SpectralProcessor().save_pretrained(folder / name)
    return {name: folder / name for name in models}


@pytest.fixture(scope="session")
def reference(saved_models, simulated_surveys, tmp_path_factory):
    """Embeddings of simulated stars by the tiny model."""
    from spectral_tokenizer.data import load_survey
    from spectral_tokenizer.data.embedding import write_embeddings

    folder = tmp_path_factory.mktemp("reference")
    rows = load_survey("apogee", simulated_surveys["apogee"], cache_dir=folder / "cache").select(range(8))
    model = SpectralForPreTraining.from_pretrained(saved_models["model"]).spectral
    write_embeddings(model, SpectralProcessor(), rows, folder / "embeddings", progress=False)
    return folder / "embeddings"


@pytest.fixture(scope="session")
def reader():
    """Reads files apart, as the page does; its server takes seconds to start."""
    from reading import Reader

    reader = Reader(seconds=60, megabytes=1024)
    yield reader
    reader.close()
