"""Coverage-guided fuzzing of the FITS readers: `python tests/data/fuzz_coverage.py CORPUS -max_total_time=300`.

Needs atheris, which the package does not depend on. The corpus is a folder; an empty one is filled with tiny undamaged
files first. Anything but rows, `Dropped` and `SpectrumFileError` ends the run with the input that did it.
"""

import os
import sys
import tempfile
from pathlib import Path

import atheris


with atheris.instrument_imports(include=["spectral_tokenizer.data"]):
    from spectral_tokenizer.data import SURVEYS, SpectrumFileError
    from spectral_tokenizer.data.builder import Dropped

from native_files import write_apstar, write_apvisit, write_aspcapstar, write_desi, write_galah_ccd, write_sdss  # noqa: E402
from test_lamost import write as write_lamost  # noqa: E402


STAR = "131123003001096"
NAMES = {"sdss": "spec-1.fits", "desi": "coadd-1.fits", "galah": f"{STAR}1.fits", "apogee": "apStar-1.fits"}
NAMES |= {"lamost": "spec-1-X_sp01-001.fits"}
FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
READERS = {}


def fill(corpus: Path) -> None:
    """Tiny undamaged files, each behind a byte that names the survey."""
    made = [
        ("sdss", write_sdss(FOLDER / "spec-1.fits")),
        ("sdss", write_sdss(FOLDER / "spec-2.fits", exposures=["B1-00012345-00000001", "R1-00012345-00000001"])),
        ("desi", write_desi(FOLDER / "coadd-1.fits", [1 << 60], cameras=("B",))),
        ("galah", write_galah_ccd(FOLDER, STAR, 1)),
        ("galah", write_galah_ccd(FOLDER, STAR, 2, layout="6.0")),
        ("apogee", write_apstar(FOLDER / "apStar-1.fits", num_visits=1)),
        ("apogee", write_aspcapstar(FOLDER / "aspcapStar-1.fits")),
        ("apogee", write_apvisit(FOLDER / "apVisit-1.fits")),
        ("lamost", write_lamost(FOLDER / NAMES["lamost"])),
    ]
    for index, (survey, path) in enumerate(made):
        (corpus / str(index)).write_bytes(bytes([list(NAMES).index(survey)]) + path.read_bytes())


def read(data: bytes) -> None:
    """One input: a byte for the survey, then a file."""
    if not data:
        return
    survey = list(NAMES)[data[0] % len(NAMES)]
    path = FOLDER / NAMES[survey]
    path.write_bytes(data[1:])
    if survey not in READERS:
        READERS[survey] = SURVEYS[survey](cache_dir=str(FOLDER / "cache"), files=(str(path),))
    try:
        for row in READERS[survey].read((str(path),)):
            if not isinstance(row, Dropped):
                READERS[survey]._finish(row)
    except SpectrumFileError:
        pass


if __name__ == "__main__":
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        fill(corpus)
    atheris.Setup([*sys.argv, "-max_len=400000", "-timeout=20", "-rss_limit_mb=1500"], read)
    atheris.Fuzz()
