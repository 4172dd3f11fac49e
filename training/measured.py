"""Figures as runs and `measure.py` leave them: of which model they are, and whether they are whole."""

from pathlib import Path

from spectral_tokenizer.data.shards import model_fingerprint


#: Settings that calibrating a head changes, and with them its figures; its weights stay.
CALIBRATION = {"classifier_temperature", "novelty_threshold", "targets"}


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
