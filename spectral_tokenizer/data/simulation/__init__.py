"""A simulator of the four surveys: files in their native formats from a small physical model, no external data.

`simulate` writes what the surveys would: SDSS and BOSS `spec` files, DESI `coadd` and `redrock` files, GALAH's file
per CCD with its catalogue, APOGEE's `apStar` and `aspcapStar`. The package's readers take them as they take real
files; every header carries SIMULATE = T. The truth stands in `truth.csv`.

    population.py   which objects: classes, redshifts, stellar labels
    lines.py        where lines are; atomic_lines.csv, molecular_lines.csv and sky_lines.csv beside it
    opacity.py      stellar continuum: Saha, Boltzmann, H-, Eddington-Barbier
    stars.py, galaxies.py, quasars.py    rest-frame spectra
    templates.py    targets -> noiseless spectra
    instruments.py  resolution, pixels, sky, noise, blemishes
    fits_files.py   a small FITS writer
    sdss.py, desi.py, galah.py, apogee.py    each survey's instrument and files
"""

import csv
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from tqdm.auto import tqdm

from . import apogee, desi, galah, sdss
from .population import Target, draw_targets


__all__ = ["CATALOGUES", "SURVEYS", "VERSION", "simulate"]

#: Raised with every change that makes other spectra of the same seed.
VERSION = 2

SURVEYS = {"sdss": sdss, "desi": desi, "galah": galah, "apogee": apogee}

#: Files of labels that a survey's reader does not take by itself: what its option `catalogue` may be given.
CATALOGUES = {"apogee": "allStar-simulated.fits"}

TRUTH_COLUMNS = ("survey", "object_id", "object_key", "class", "redshift", "radial_velocity", "teff", "logg", "fe_h")
TRUTH_COLUMNS += ("alpha_m", "snr", "file", "note")


def simulate(
    directory: str | Path,
    num_objects: int | Mapping[str, int],
    surveys: Iterable[str] = ("sdss", "desi", "galah", "apogee"),
    seed: int = 0,
    shared_stars: float = 0.5,
    progress: bool = False,
) -> dict[str, Path]:
    """Write simulated files of each survey and `truth.csv` to a new folder.

    The same arguments give the same bytes, for one `VERSION`; an object depends on the seed, its survey and its number alone. Everything
    is written to a temporary folder beside `directory`, which takes its name at the end: an interrupted run leaves
    nothing that looks complete.

    Args:
        directory: the folder to make; must not exist, or be empty.
        num_objects: per survey, or one number for all. Counts sky fibres, which SDSS and DESI have.
        surveys: names out of `SURVEYS`.
        seed: 0 or more; different seeds give different objects.
        shared_stars: fraction of each survey's stars that the other surveys observe too (as far as their numbers
            reach); they have one `object_key` in the truth table.
        progress: show a bar per survey.

    Returns:
        survey -> folder with its files, inside `directory`.

    Raises:
        FileExistsError: `directory` exists and is not empty.
        ValueError: an unknown survey, a negative number or seed, or a fraction outside 0 to 1.
    """
    surveys = tuple(surveys)
    counts = {name: num_objects.get(name, 0) if isinstance(num_objects, Mapping) else num_objects for name in surveys}
    if unknown := sorted(set(surveys) - set(SURVEYS)):
        raise ValueError(f"unknown surveys {unknown}, expected some of {list(SURVEYS)}")
    if min(counts.values(), default=0) < 0 or seed < 0 or not 0.0 <= shared_stars <= 1.0:
        raise ValueError(
            f"num_objects {counts}, seed {seed}, shared_stars {shared_stars}: expected none negative, a fraction <= 1"
        )
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} exists and is not an empty folder")
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{directory.name}-unfinished-", dir=directory.parent))
    try:
        truth: list[Target] = []
        for name in surveys:
            (unfinished / name).mkdir()
            targets = draw_targets(seed, name, counts[name], shared_stars)
            written = SURVEYS[name].write(targets, unfinished / name) if targets else ()
            truth += tqdm(written, total=len(targets), desc=name, unit="spectra", disable=not progress)
        write_truth(truth, unfinished / "truth.csv")
        unfinished.chmod(0o755)
        if directory.exists():
            directory.rmdir()
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return {name: directory / name for name in surveys}


def write_truth(targets: list[Target], path: Path) -> None:
    """Write the truth table, one row per spectrum; blank where a quantity has no meaning.

    Columns: object_id as the survey's reader gives it; object_key, equal for one star in several surveys; class
    (STAR, GALAXY, QSO, SKY); redshift (of a star v/c); radial_velocity in km/s, teff in K, logg in dex of cm/s2, fe_h
    and alpha_m in dex (stars only); snr, median of flux / sigma; file; note.
    """
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, TRUTH_COLUMNS, restval="")
        table.writeheader()
        for target in targets:
            row = {"survey": target.survey, "object_key": target.key, "class": target.kind, **target.truth}
            if target.kind != "SKY":
                row["redshift"] = target.redshift
            if target.kind == "STAR":
                names = ("teff", "logg", "fe_h", "alpha_m")
                row |= {"radial_velocity": target.velocity, **{name: target.labels[name] for name in names}}
            table.writerow(row)
