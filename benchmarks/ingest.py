"""FITS to Arrow against a bare read of the same files: `python -m benchmarks.ingest [--data sdss=/data/sdss ...]`.

Bare is `astropy.io.fits` opening each file and copying the data of each of its HDUs into memory. Ours is `load_survey`
into an empty cache: files found, read, checked, written as Arrow. Both run in one process, in turns, after one turn that
does not count. Without `--data`, simulated files. The last line is the figures as JSON.
"""

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from pathlib import Path

import astropy
import datasets
import numpy as np
from astropy.io import fits
from datasets.utils.logging import disable_progress_bar

from spectral_tokenizer.data import SURVEYS, load_survey, survey_report
from spectral_tokenizer.data.input_files import find_files
from spectral_tokenizer.data.simulation import simulate


def bare_read(files: list[str]) -> int:
    """Copy everything that the files hold into memory; the number of bytes."""
    num_bytes = 0
    for file in files:
        with fits.open(file) as hdus:
            num_bytes += sum(np.array(hdu.data).nbytes for hdu in hdus if hdu.data is not None)
    return num_bytes


def ingest(survey: str, files: list[str], folder: Path) -> int:
    """Build the survey's dataset in an empty cache; the number of its rows."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        return survey_report(load_survey(survey, files, cache_dir=cache)).rows


def measure(survey: str, files: list[str], turns: int, folder: Path) -> dict:
    """Best time of each over the turns, and their ratio."""
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(turns + 1):
        start = time.perf_counter()
        num_bytes = bare_read(files)
        middle = time.perf_counter()
        rows = ingest(survey, files, folder)
        times["bare"].append(middle - start)
        times["ours"].append(time.perf_counter() - middle)
    bare, ours = (min(values[1:]) for values in times.values())
    figures = {"files": len(files), "megabytes": num_bytes / 1e6, "rows": rows, "bare_s": bare, "ours_s": ours}
    return figures | {"ratio": ours / bare, "rows_per_s": rows / ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="*", metavar="SURVEY=PATH", help="files of your own instead of simulated ones")
    parser.add_argument("--num-objects", type=int, default=200, help="simulated spectra per survey (default: 200)")
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if given.data:
            data = dict(entry.split("=", 1) for entry in given.data)
        else:
            data = simulate(folder / "simulated", given.num_objects)
        figures = {}
        for survey, path in data.items():
            files = find_files(path, SURVEYS[survey].FILE_NAMES)
            figures[survey] = measure(survey, files, given.turns, folder)
            line = "{files} files, {rows} rows: bare {bare_s:.2f} s, ours {ours_s:.2f} s, ratio {ratio:.2f}"
            print(f"{survey}:", line.format(**figures[survey]), flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    machine |= {"python": platform.python_version(), "astropy": astropy.__version__, "datasets": datasets.__version__}
    machine |= {"data": "real" if given.data else "simulated"}
    print(json.dumps({"ingest": figures, "machine": machine}))


if __name__ == "__main__":
    main()
