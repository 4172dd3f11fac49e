"""Tables that compare surveys, numbers of labels and observations of one object, and the table that must show
nothing."""

import numpy as np

from spectral_tokenizer.data.pair_metric import PairMetric, standardised
from spectral_tokenizer.metrics import mean
from training.simulated.observing import observe
from training.simulated.patches import Spectra, to_spectra
from training.simulated.populations import KINDS

from .bench import LABELS, Bench, ProbeSet, joined
from .reconstruction import hide, in_units_of
from .scores import class_scores, mad, nmad, summary
from .tables import row


NUM_LABELS = (10, 100, 1000, 10000)
#: task -> survey it is measured on.
TASKS = {"class": "desi", "redshift GALAXY": "sdss", "teff": "apogee"}


def task_targets(task: str, known: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Places of a task's objects, and their targets."""
    if task == "class":
        return np.arange(len(known["kind"])), known["kind"]
    if task.startswith("redshift"):
        places = np.flatnonzero(known["kind"] == KINDS.index(task.split()[1]))
        return places, np.log1p(known["redshift"][places])[:, None]
    return np.arange(len(known["kind"])), np.stack([known[name] for name in LABELS], axis=1)


def task_scores(task: str, predicted: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    if task == "class":
        return {"accuracy": class_scores(predicted, targets, KINDS)["accuracy"]}
    if task.startswith("redshift"):
        return {"nmad": nmad(np.expm1(predicted[:, 0] - targets[:, 0]))}
    return {f"{name}_mad": mad(predicted[:, column] - targets[:, column]) for column, name in enumerate(LABELS)}


def transfer(bench: Bench) -> list[dict]:
    """A head fitted on one survey and tested on the same objects seen by another, beside the survey it knows."""
    rows = []
    for source, target, tasks in (
        ("sdss", "desi", ("class", "redshift GALAXY", "redshift QSO")),
        ("apogee", "galah", ("labels",)),
    ):
        if not {source, target} <= set(bench.chosen):
            continue
        train = bench.probe_set(source, "train")
        tests = {source: bench.probe_set(source, "test"), target: bench.probe_set(target, "test")}
        # Side by side where raw spectra differ in size; the halves that a survey does not see are zero.
        whole = joined([train, bench.probe_set(target, "train"), *tests.values()])
        first = len(train) + len(bench.probe_set(target, "train"))
        train = whole.take(np.arange(len(train)))
        sets = [
            whole.take(first + np.arange(len(tests[source]))),
            whole.take(np.arange(first + len(tests[source]), len(whole))),
        ]
        for name, fit_on, others in bench.feature_pairs(train, sets):
            for task in tasks:
                rows += transfer_rows(bench, name, task, train, fit_on, dict(zip(tests, zip(sets, others))))
    return rows


def transfer_rows(bench: Bench, name: str, task: str, train: ProbeSet, fit_on: np.ndarray, tests: dict) -> list[dict]:
    rows, (source, target) = [], tests
    for head in bench.heads(name, task):
        found = scores_elsewhere(bench, name, task, head, train, fit_on, tests)
        scores = [
            {f"{score}_on_same": value for score, value in same.items()}
            | {f"{score}_on_other": value for score, value in other.items()}
            for same, other in zip(found[source], found[target])
        ]
        rows.append(row(name, head, summary(scores), fitted_on=source, tested_on=target, task=task))
    return rows


def scores_elsewhere(
    bench: Bench,
    name: str,
    task: str,
    head: str,
    train: ProbeSet,
    fit_on: np.ndarray,
    tests: dict[str, tuple[ProbeSet, np.ndarray]],
    known_targets=task_targets,
    scores_of=task_scores,
) -> dict[str, list[dict]]:
    """Scores of one head on the objects of several test sets, a dictionary for each draw.

    Args:
        name: of the features.
        train, fit_on: what the head is fitted on, and its features.
        tests: survey -> test set and its features. A set without objects of the task has no scores.
        known_targets, scores_of: as `task_targets` and `task_scores`.
    """
    found = {survey: [] for survey in tests}
    places, targets = task_targets(task, train.known)
    for number, fit, _ in bench.draws(len(places), 1, head):
        predict = bench.fit(name, head, task, fit_on[places[fit]], targets[fit], number)
        for survey, (test, given) in tests.items():
            seen, truth = known_targets(task, test.known)
            if len(seen):
                _, _, chosen = list(bench.draws(1, len(seen), head))[number]
                found[survey].append(scores_of(task, predict(given[seen[chosen]]), truth[chosen]))
    return found


def tasks(bench: Bench):
    """Each task of `TASKS` whose survey was asked for: task, survey, the probe sets to fit and to test on, the places
    of the task's objects in each, and their targets."""
    for task, survey in TASKS.items():
        if survey in bench.chosen:
            train, test = bench.probe_set(survey, "train"), bench.probe_set(survey, "test")
            yield task, survey, train, test, *task_targets(task, train.known), *task_targets(task, test.known)


def efficiency(bench: Bench) -> list[dict]:
    """The linear head with 10, 100, 1,000 and 10,000 labels."""
    rows = []
    for task, survey, train, test, places, targets, seen, truth in tasks(bench):
        for name, fit_on, (given,) in bench.feature_pairs(train, [test]):
            for count in (each for each in NUM_LABELS if each <= len(places)):
                found = []
                for number in range(bench.budget.draws):
                    chosen = np.random.default_rng([bench.seed, number, count]).permutation(len(places))[:count]
                    predict = bench.fit(name, "linear", task, fit_on[places[chosen]], targets[chosen], number)
                    found.append(task_scores(task, predict(given[seen]), truth))
                rows.append(row(name, "linear", summary(found), survey=survey, task=task, labels=str(count)))
    return rows


def retrieval(bench: Bench) -> list[dict]:
    """recall@1: the nearest of all objects, seen otherwise, is the same object.

    Otherwise: by the other survey of its domain; with other noise, brightness and blemishes; with half of the
    spectrum (arms, or a block) not covered. Nearest by "cosine" of features standardised among the objects of each
    side, or by "pairs": a `PairMetric` fitted on training objects that were seen in both ways. "bright": objects whose
    two spectra are both above the lowest band of signal-to-noise; the others are still in their way.
    """
    rows = []
    for survey in bench.chosen:
        partner = {"sdss": "desi", "apogee": "galah"}.get(survey)
        train, gallery = bench.probe_set(survey, "train"), bench.probe_set(survey, "test")
        for what in ("noise", "coverage", *([partner] if partner in bench.chosen else [])):
            again = {split: seen_otherwise(bench, survey, split, what) for split in ("train", "test")}
            count, pairs = (min(len(seen), len(again[split])) for seen, split in ((gallery, "test"), (train, "train")))
            parts = [train, gallery.take(np.arange(count)), again["test"].take(np.arange(count)), again["train"]]
            is_bright = np.minimum(parts[1].known["band"], parts[2].known["band"]) > 0
            sets, ends = joined(parts), np.cumsum([len(part) for part in parts])
            parts = [sets.take(np.arange(end - len(part), end)) for end, part in zip(ends, parts)]
            for name, first, (known, asked, second) in bench.feature_pairs(parts[0], parts[1:]):
                metric = PairMetric.fit(first[:pairs], second[:pairs])
                for head, recall in (
                    ("cosine", recall_at_one(*(directions(each) for each in (known, asked)))),
                    ("pairs", recall_at_one(metric(known), metric(asked))),
                ):
                    scores = summary(
                        [
                            {
                                "recall@1": mean(recall[chosen]),
                                "recall@1_bright": mean(recall[chosen][is_bright[chosen]]),
                            }
                            for chosen in bootstraps(bench, count)
                        ]
                    )
                    rows.append(row(name, head, scores, survey=survey, against=what, objects=str(count)))
    return rows


def seen_otherwise(bench: Bench, survey: str, split: str, what: str) -> ProbeSet:
    """Features of another observation of a survey's objects: "noise", "coverage", or another survey's."""
    seen_by, seed = (survey, bench.seed + 1) if what in ("noise", "coverage") else (what, bench.seed)
    parts = []
    for number, objects in enumerate(bench.objects(survey, split, bench.num_objects(seen_by, split))):
        spectra = to_spectra(observe(objects, seen_by, seed, device=bench.device))
        if what == "coverage":
            spectra = half_covered(spectra, np.random.default_rng([bench.seed, number, 13]))
        parts.append(bench.features_of(spectra))
    return joined(parts)


def half_covered(spectra: Spectra, generator: np.random.Generator) -> Spectra:
    """In units of the half that is left: whoever has no other does not know the whole's."""
    is_left = ~hide(spectra, "arm", generator)
    return in_units_of(spectra, is_left).keep(is_left)


def directions(features: np.ndarray) -> np.ndarray:
    """Vectors of length 1, of numbers with mean 0 and spread 1 over the objects."""
    features = np.asarray(features, dtype=np.float64)
    features = standardised(features, features.mean(0), features.std(0).clip(min=1e-6))
    # What has no feature at all, as principal components of another survey's spectra, is near to nothing.
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-30)


def recall_at_one(gallery: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(objects,) whether each query's nearest neighbour, of vectors of length 1, is the object of the same place."""
    return (queries @ gallery.T).argmax(axis=1) == np.arange(len(gallery))


def bootstraps(bench: Bench, count: int) -> list[np.ndarray]:
    generator = np.random.default_rng([bench.seed, 17])
    return [generator.integers(0, count, count) for _ in range(8)]


def best_constant(task: str, truth: np.ndarray) -> np.ndarray:
    """What is said of every object by somebody who knows the distribution of `truth` and has no spectrum."""
    if task == "class":
        return np.full(len(truth), np.bincount(truth).argmax())
    return np.broadcast_to([middle_of_shortest_half(column) for column in truth.T], truth.shape)


def middle_of_shortest_half(values: np.ndarray) -> float:
    """The constant of least median absolute error. Not the median: between giants and dwarfs nobody is near it."""
    ordered, half = np.sort(values), len(values) // 2
    widths = ordered[half:] - ordered[: len(values) - half]
    first = int(widths.argmin())
    return float(0.5 * (ordered[first] + ordered[first + half]))


def leak(bench: Bench) -> list[dict]:
    """Heads fitted on shuffled labels must do no better than the best constant; anything else is a fault of heads or
    scores. Objects of the test that stand among those of training it does not see: tests compare these."""
    rows = []
    for task, survey, train, test, places, targets, seen, truth in tasks(bench):
        chance = task_scores(task, best_constant(task, truth), truth)
        for name, fit_on, (given,) in bench.feature_pairs(train, [test]):
            for head in bench.heads(name):
                found = []
                for number, fit, chosen in bench.draws(len(places), len(seen), head):
                    shuffled = np.random.default_rng([bench.seed, number, 19]).permutation(targets[fit])
                    predict = bench.fit(name, head, task, fit_on[places[fit]], shuffled, number)
                    found.append(task_scores(task, predict(given[seen])[chosen], truth[chosen]))
                extra = {f"{score}_of_the_best_constant": float(value) for score, value in chance.items()}
                rows.append(row(name, head, summary(found), survey=survey, task=task, **extra))
    return rows
