"""Figures as runs and `measure.py` leave them: of which model they are, and whether they are whole."""

import json
from pathlib import Path

from spectral_tokenizer.data.shards import model_fingerprint


#: Settings that calibrating a head changes, and with them its figures; its weights stay.
CALIBRATION = {"classifier_temperature", "novelty_threshold", "targets"}

#: What a card is made from, of every model, and of tokenizers and heads: part -> what is asked of it.
METRICS = {"simulated": bool, "num_spectra": dict}
METRICS_OF = {
    "tokenizer": {"recipe": ["data"]},
    "head": {"arguments": ["labels", "classes", "num_trainable_layers", "data"], "test": dict},
}
EVALUATION = {"name": str, "simulated": bool}
EVALUATION_OF = {"tokenizer": {"chi2": dict}, "head": {"test": dict}}


def read_metrics(path: Path, kind: str) -> dict:
    """`metrics.json` of a run that trained a "tokenizer" or a "head". Raises ValueError as `read`."""
    return read(path, METRICS | METRICS_OF[kind], f"metrics of a {kind}")


def read_evaluation(path: Path, kind: str) -> dict:
    """`evaluation.json` of a "tokenizer" or a "head". Raises ValueError as `read`."""
    return read(path, EVALUATION | EVALUATION_OF[kind], f"an evaluation of a {kind}")


def read(path: Path, expected: dict[str, type | list[str]], what: str) -> dict:
    """Figures as JSON that hold what is expected: a part of some type, or one that has these keys itself.

    Raises:
        ValueError: the file is cut off, or lacks some. Names it, and them.
    """
    try:
        figures = json.loads(path.read_text())
    except ValueError as error:  # of JSON, or of its letters
        raise ValueError(f"{path}: expected {what} as JSON, found: {error}") from error
    if not isinstance(figures, dict):
        raise ValueError(f"{path}: expected {what}, found: {type(figures).__name__}")
    missing = []
    for name, asked in expected.items():
        is_of_type = isinstance(figures.get(name), asked if isinstance(asked, type) else dict)
        missing += [] if is_of_type else [name]
        if is_of_type and not isinstance(asked, type):
            missing += [f"{name}.{each}" for each in asked if each not in figures[name]]
    if missing:
        raise ValueError(f"{path}: expected {what}, which has {missing} too, found: {sorted(figures)}")
    return figures


def fingerprint(model) -> str:
    """Of weights and calibration alone: other settings change with whoever saves a model, and with the version."""
    return model_fingerprint(model, leaving_out=model.config.to_dict().keys() - CALIBRATION)


def check_model(evaluation: dict, model, folder: Path) -> None:
    """Raise ValueError where an evaluation is of another model. Those from before they said of which are believed."""
    found, expected = evaluation.get("model"), fingerprint(model)
    if found not in (None, expected):
        raise ValueError(
            f"{folder}: expected an evaluation of this model, {expected}, found one of another, {found}, from before it "
            "was trained further or calibrated, say: measure it anew (measure.py), or remove that evaluation.json"
        )
