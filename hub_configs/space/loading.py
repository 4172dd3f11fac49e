"""Models and reference from where the settings say. Weights come from safetensors alone, and no repository's code
runs."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from prediction import Models
from settings import ROOT, Settings
from transformers import AutoConfig

from spectral_tokenizer import (
    SpectralConfig,
    SpectralForPreTraining,
    SpectralForSequenceClassification,
    SpectralModel,
    SpectralProcessor,
)
from spectral_tokenizer.data.embedding import EMBEDDING, MANIFEST, PROBLEM, model_fingerprint, read_embeddings


NO_MODEL = (
    "There is no model, so files are recognised and drawn and nothing more. Set MODEL to a folder or to a repository on "
    "the Hub, or train one with `make pretrain`."
)

logger = logging.getLogger(__name__)


def load_models(settings: Settings) -> Models:
    """All that can be loaded; the rest is told of in `Models.problems`."""
    models = Models(shown(settings.model), problems=[] if settings.model else [NO_MODEL])

    def attempt(variable: str, name: str, load: Callable):
        try:
            return load(name)
        except Exception as error:  # whatever a stranger's folder makes a library raise, the page stays up
            logger.exception("%s=%s", variable, name)
            models.problems.append(f"{variable}: {name} cannot be loaded. {type(error).__name__}: {error}")

    if settings.model and (found := attempt("MODEL", settings.model, load_tokenizer)):
        models.model, models.processor = found
    models.heads = [found for name in settings.heads if (found := attempt("HEADS", name, load_head))]
    if settings.reference and models.model is not None:
        parts = models.model.spectral, models.processor
        found = attempt("REFERENCE", settings.reference, lambda name: load_reference(name, *parts))
        if found:
            models.reference, models.vectors = found
    return models


def shown(name: str | None) -> str | None:
    """A model's name for visitors: of a folder in the repository, from there."""
    return name and name.removeprefix(f"{ROOT}/")


def load_tokenizer(name: str) -> tuple[SpectralForPreTraining, SpectralProcessor]:
    """A tokenizer and its processor, from a folder or the Hub."""
    return load(name, SpectralForPreTraining)


def load_head(name: str) -> tuple[SpectralForSequenceClassification, SpectralProcessor]:
    """A fine-tuned model and its processor."""
    return load(name, SpectralForSequenceClassification)


def load(name: str, model_class: type) -> tuple:
    """A model of that class in evaluation mode, and its processor.

    Raises:
        ValueError: the checkpoint is of another architecture.
        OSError: there is none, or none with safetensors.
    """
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if not isinstance(config, SpectralConfig) or model_class.__name__ not in (config.architectures or ()):
        raise ValueError(f"found a {config.model_type} of {config.architectures}; expected {model_class.__name__}")
    model = model_class.from_pretrained(name, config=config, use_safetensors=True).eval()
    return model, SpectralProcessor.from_pretrained(name)


def load_reference(folder: str, encoder: SpectralModel, processor: SpectralProcessor) -> tuple:
    """Rows with an embedding, and the embeddings (rows, size).

    Raises:
        FileNotFoundError: the folder holds no embeddings, or not all yet.
        ValueError: they are another model's.
    """
    rows = read_embeddings(folder)
    made_by = json.loads(Path(folder, MANIFEST).read_text())["model"]
    if made_by != (expected := model_fingerprint(encoder, processor)):
        raise ValueError(f"found embeddings of model {made_by}; expected those of MODEL, which is {expected}")
    rows = rows.select([place for place, problem in enumerate(rows[PROBLEM]) if problem is None])
    vectors = np.stack(rows.with_format("numpy")[EMBEDDING][:]) if len(rows) else np.zeros((0, 0))
    if not len(rows):
        raise ValueError("found no spectrum with an embedding")
    return rows.remove_columns(EMBEDDING), vectors
