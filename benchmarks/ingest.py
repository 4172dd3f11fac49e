"""FITS to Arrow against a bare read of the same files: `python -m benchmarks.ingest [--data sdss=/data/sdss ...]`.

Bare is `astropy.io.fits` opening each file and copying the data of each of its HDUs into memory. Ours is `load_survey`
into an empty cache: files found, read, checked, written as Arrow. Both run in one process, in turns, after one turn
that does not count. Without `--data`, simulated files. With `--cold` the system forgets the files before each turn, so
that they come from the disk, as a survey's do. The last line is the figures as JSON.
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


def forget(files: list[str]) -> None:
    """Ask the system to drop what it has in memory of files."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)  # what is not written yet would be kept
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(survey: str, files: list[str], turns: int, folder: Path, is_cold: bool = False) -> dict:
    """Best time of each over the turns, and their ratio."""
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    found = {}
    for _ in range(turns + 1):
        for name, run in (("bare", lambda: bare_read(files)), ("ours", lambda: ingest(survey, files, folder))):
            if is_cold:
                forget(files)
            start = time.perf_counter()
            found[name] = run()
            times[name].append(time.perf_counter() - start)
    bare, ours = (min(values[1:]) for values in times.values())
    figures = {
        "files": len(files),
        "megabytes": found["bare"] / 1e6,
        "rows": found["ours"],
        "bare_s": bare,
        "ours_s": ours,
    }
    return figures | {"ratio": ours / bare, "rows_per_s": found["ours"] / ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="*", metavar="SURVEY=PATH", help="files of your own instead of simulated ones")
    parser.add_argument("--num-objects", type=int, default=200, help="simulated spectra per survey (default: 200)")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="files from the disk, not from the system's memory")
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
            figures[survey] = measure(survey, files, given.turns, folder, given.cold)
            line = "{files} files, {rows} rows: bare {bare_s:.2f} s, ours {ours_s:.2f} s, ratio {ratio:.2f}"
            print(f"{survey}:", line.format(**figures[survey]), flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    machine |= {"python": platform.python_version(), "astropy": astropy.__version__, "datasets": datasets.__version__}
    machine |= {"data": "real" if given.data else "simulated", "cold": given.cold}
    print(json.dumps({"ingest": figures, "machine": machine}))


if __name__ == "__main__":
    main()
