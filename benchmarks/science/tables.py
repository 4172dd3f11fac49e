"""The tables: what frozen features know, head by head, with the spread over draws of probe and test set."""

import numpy as np

from training.simulated.populations import KINDS

from .bench import LABELS, Bench, ProbeSet, joined
from .heads import PRODUCTS, WEIGHTED
from .scores import class_scores, mad, redshift_scores, summary


BANDS = ("low", "middle", "high")


def classes(bench: Bench) -> list[dict]:
    """GALAXY, QSO, STAR on SDSS and DESI: one head for both surveys, scored on each, and by signal-to-noise."""
    train = joined([bench.probe_set(survey, "train") for survey in bench.surveys("optical")])
    tests = {survey: bench.probe_set(survey, "test") for survey in bench.surveys("optical")}
    rows = []
    for name, fit_on, others in bench.feature_pairs(train, list(tests.values())):
        for head in bench.heads(name, "class"):
            found = {survey: [] for survey in tests}
            for number, fit, _ in bench.draws(len(train), 1, head):
                predict = bench.fit(name, head, "class", fit_on[fit], train.known["kind"][fit], number)
                for (survey, test), given in zip(tests.items(), others):
                    _, _, chosen = list(bench.draws(1, len(test), head))[number]
                    found[survey].append(by_class(predict(given)[chosen], test, chosen))
            rows += [row(name, head, summary(values), survey=survey) for survey, values in found.items()]
    return rows


def by_class(predicted: np.ndarray, test: ProbeSet, chosen: np.ndarray) -> dict[str, float]:
    return by_class_scores(predicted, test.known["kind"][chosen], test.known["band"][chosen])


def by_class_scores(predicted: np.ndarray, truth: np.ndarray, band: np.ndarray) -> dict[str, float]:
    """Accuracy, completeness of each class, accuracy by signal-to-noise."""
    scores = class_scores(predicted, truth, KINDS)
    for number, name in enumerate(BANDS):
        if (band == number).any():
            scores[f"accuracy_{name}_snr"] = float(np.mean((predicted == truth)[band == number]))
    return scores


def redshift(bench: Bench) -> list[dict]:
    """Redshift of galaxies and quasars, class known: NMAD and outlier fractions of dz / (1 + z)."""
    train = joined([bench.probe_set(survey, "train") for survey in bench.surveys("optical")])
    tests = {survey: bench.probe_set(survey, "test") for survey in bench.surveys("optical")}
    rows = []
    for name, fit_on, others in bench.feature_pairs(train, list(tests.values())):
        for kind in ("GALAXY", "QSO"):
            is_kind = np.flatnonzero(train.known["kind"] == KINDS.index(kind))
            targets = np.log1p(train.known["redshift"])[:, None]
            for head in bench.heads(name, "redshift"):
                found = {survey: [] for survey in tests}
                for number, fit, _ in bench.draws(len(is_kind), 1, head):
                    fit = is_kind[fit]
                    predict = bench.fit(name, head, "redshift", fit_on[fit], targets[fit], number)
                    for (survey, test), given in zip(tests.items(), others):
                        places = np.flatnonzero(test.known["kind"] == KINDS.index(kind))
                        _, _, chosen = list(bench.draws(1, len(places), head))[number]
                        predicted = np.expm1(predict(given[places])[:, 0])[chosen]
                        found[survey].append(redshift_scores(predicted, test.known["redshift"][places][chosen]))
                rows += [row(name, head, summary(v), survey=survey, kind=kind) for survey, v in found.items()]
    return rows


def labels(bench: Bench) -> list[dict]:
    """Teff, logg and [Fe/H] of stars in APOGEE and GALAH: median absolute errors, also by signal-to-noise."""
    rows = []
    for survey in bench.surveys("stars"):
        train, test = bench.probe_set(survey, "train"), bench.probe_set(survey, "test")
        targets, truth = (np.stack([each.known[name] for name in LABELS], axis=1) for each in (train, test))
        for name, fit_on, (given,) in bench.feature_pairs(train, [test]):
            for head in [*bench.heads(name, "labels"), WEIGHTED, PRODUCTS]:
                found = []
                for number, fit, chosen in bench.draws(len(train), len(test), head):
                    snr = train.known["snr"][fit]
                    predict = bench.fit(name, head, "labels", fit_on[fit], targets[fit], number, snr)
                    found.append(label_scores((predict(given) - truth)[chosen], test.known["band"][chosen]))
                rows.append(row(name, head, summary(found), survey=survey))
        spread = label_scores(np.median(targets, axis=0) - truth, test.known["band"])
        rows.append(row("constant", "-", summary([spread]), survey=survey))
    return rows


def label_scores(error: np.ndarray, band: np.ndarray) -> dict[str, float]:
    scores = {f"{name}_mad": mad(error[:, column]) for column, name in enumerate(LABELS)}
    for number, band_name in enumerate(BANDS):
        if (band == number).any():
            for column, name in enumerate(LABELS):
                scores[f"{name}_mad_{band_name}_snr"] = mad(error[band == number, column])
    return scores


def row(features: str, head: str, scores: dict, **where: str) -> dict:
    """One line of a table."""
    return {"features": features, "head": head, **where, **scores}
