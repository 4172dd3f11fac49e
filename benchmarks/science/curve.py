"""Each probe against compute, for several checkpoints of one run.

    python -m benchmarks.science curve --encoder 100k=runs/mine/at-100k 1M=runs/mine/at-1M 2M=runs/mine/model

The names are numbers of spectra seen in training. Compute is that number times the floating-point operations of one
training spectrum, forward and backward, counted by PyTorch on spectra of all surveys with the model's own objective.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForPreTraining

from training.simulated.stream import MODEL_INPUTS, SimulatedStream

from .bench import Bench
from .reconstruction import reconstruction
from .tables import classes, labels, redshift


SUFFIXES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
PROBE_SPECTRA = 16
#: column -> (table, score, what the row must say); averaged over the rows that do.
COLUMNS = {
    "class error": (classes, "accuracy", {}),
    "redshift NMAD GALAXY": (redshift, "nmad", {"kind": "GALAXY"}),
    "redshift NMAD QSO": (redshift, "nmad", {"kind": "QSO"}),
    "Teff APOGEE": (labels, "teff_mad", {"survey": "apogee"}),
    "logg APOGEE": (labels, "logg_mad", {"survey": "apogee"}),
    "[Fe/H] APOGEE": (labels, "fe_h_mad", {"survey": "apogee"}),
    "Teff GALAH": (labels, "teff_mad", {"survey": "galah"}),
    "[Fe/H] GALAH": (labels, "fe_h_mad", {"survey": "galah"}),
}


def curve(bench: Bench) -> list[dict]:
    """Linear probes and chi2 on hidden blocks against compute; the last row is the change per doubling of compute."""
    seen = {name: spectra_seen(name) for name in bench.encoders}
    rows = [
        {
            "spectra": seen[name],
            "FLOP": seen[name] * training_flops(bench.given[name], bench),
            "features": name,
            **found,
        }
        for name, found in sorted(probes(bench).items(), key=lambda pair: seen[pair[0]])
    ]
    return rows + ([per_doubling(rows)] if len(rows) > 1 else [])


def probes(bench: Bench) -> dict[str, dict[str, float]]:
    """Encoder -> column -> score: linear probes, and chi2 on hidden blocks where there is a decoder."""
    bench.budget = replace(bench.budget, heads={"linear": bench.budget.heads["linear"]})
    tables = {table: table(bench) for table in dict.fromkeys(table for table, _, _ in COLUMNS.values())}
    blocks = reconstruction(bench, styles=("block",))
    found = {}
    for name in bench.encoders:
        found[name] = {}
        for column, (table, score, where) in COLUMNS.items():
            values = [
                each[score]["mean"]
                for each in tables[table]
                if {"features": name, "head": "linear", **where}.items() <= each.items()
            ]
            if values:
                mean = float(np.mean(values))
                found[name][column] = 1.0 - mean if score == "accuracy" else mean
        found[name] |= {
            f"chi2 block {each['survey']}": each["chi2"]["mean"] for each in blocks if each["method"] == name
        }
    return found


def spectra_seen(name: str) -> float:
    """ "200k" -> 200000. Raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9.]+)([kMG]?)", name)
    if match is None:
        raise ValueError(f"curve: expected encoders named by spectra seen, as in 100k=FOLDER, found: {name!r}")
    return float(match[1]) * SUFFIXES[match[2]]


def training_flops(given, bench: Bench) -> float:
    """Floating-point operations per training spectrum: matrix products and attention, forward and backward."""
    model = AutoModelForPreTraining.from_pretrained(given) if isinstance(given, (str, Path)) else given
    templates = "none" if bench.templates is None else bench.templates
    stream = SimulatedStream(model.objective, spectra_per_step=PROBE_SPECTRA, templates=templates, seed=bench.seed)
    batch = stream.micro_batch(0)
    device, was_training = next(model.parameters()).device, model.training
    model.train()
    with FlopCounterMode(display=False) as counter:
        inputs = {name: batch[name] for name in MODEL_INPUTS}
        inputs |= {name: batch[name].to(device) for name in ("flux", "ivar", "wavelength")}
        model(**inputs).loss.backward()
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return counter.get_total_flops() / len(batch["lengths"])


def per_doubling(rows: list[dict]) -> dict:
    """Factor by which each score changes per doubling of compute: a straight line through logarithms."""
    compute = np.log2([row["FLOP"] for row in rows])
    change = {"spectra": "factor per doubling", "FLOP": "", "features": ""}
    for column in rows[0]:
        values = np.array([row.get(column, np.nan) for row in rows if not isinstance(row[column], str)])
        if column not in change and len(values) == len(rows) and (values > 0).all():
            change[column] = float(2.0 ** np.polyfit(compute, np.log2(values), 1)[0])
    return change
