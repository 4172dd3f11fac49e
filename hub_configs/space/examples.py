"""Files to try the page on: simulated ones, in the surveys' own formats, made when the page starts."""

import csv
from glob import glob
from pathlib import Path

from spectral_tokenizer.data.simulation import simulate


COUNTS = {"sdss": 12, "desi": 24, "galah": 3, "apogee": 4}  # DESI's 24th fibre is on blank sky
EACH = 2  # files of a survey, and one of each class where there are more
WORDS = {"STAR": "star", "GALAXY": "galaxy", "QSO": "quasar"}


def make_examples(folder: Path, seed: int = 3) -> dict[str, list[str]]:
    """Write simulated files into `folder/simulated`.

    Returns:
        What each example is, in words -> its files.
    """
    folders = simulate(folder / "simulated", COUNTS, seed=seed)
    with open(folder / "simulated" / "truth.csv", newline="") as file:
        truth = list(csv.DictReader(file))
    examples: dict[str, list[str]] = {}
    for survey, place in folders.items():
        by_file: dict[str, list[dict]] = {}
        for row in truth:
            if row["survey"] == survey:
                by_file.setdefault(row["file"].split("#")[0], []).append(row)
        for name, rows in choose(by_file):
            examples[f"{survey.upper()}: {describe(rows)} (simulated)"] = sorted(glob(str(place / name)))
    return examples


def choose(by_file: dict[str, list[dict]]) -> list[tuple[str, list[dict]]]:
    """Some files of a survey: the best S/N of each class, then the next."""
    ranked = sorted(by_file.items(), key=lambda item: -max(float(row["snr"] or 0) for row in item[1]))
    seen, first, rest = set(), [], []
    for name, rows in ranked:
        kind = rows[0]["class"]
        (rest if kind in seen else first).append((name, rows))
        seen.add(kind)
    first, rest = ([each for each in group if each[1][0]["class"] in WORDS] for group in (first, rest))
    return (first + rest)[: max(EACH, len(first))]


def describe(rows: list[dict]) -> str:
    """What is in a file: one object with what is known of it, or how many."""
    if len(rows) > 1:
        return f"{len(rows)} fibres"
    (row,) = rows
    word = WORDS[row["class"]]
    if row["class"] == "STAR":
        return f"{word} of {float(row['teff']):.0f} K, log g {float(row['logg']):.1f}, S/N {float(row['snr']):.0f}"
    return f"{word} at z = {float(row['redshift']):.2f}, S/N {float(row['snr']):.0f}"
