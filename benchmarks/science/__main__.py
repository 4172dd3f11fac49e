"""python -m benchmarks.science TABLE [TABLE ...] [--encoder NAME ...] [--budget small|full]

The last line printed is the figures as JSON (of several tables, a list).
"""

import argparse
import json
import time
from pathlib import Path

import torch

from training.simulated.stream import DOMAINS

from . import report
from .bench import BUDGETS, Bench
from .cannon import cannon
from .comparisons import efficiency, leak, retrieval, transfer
from .curve import curve
from .limits import limits
from .real import real
from .reconstruction import reconstruction
from .redrock_fits import redrock
from .shifts import shifts
from .supervised import supervised
from .tables import classes, labels, redshift


TABLES = {
    each.__name__: each
    for each in (
        classes,
        redshift,
        shifts,
        labels,
        reconstruction,
        transfer,
        efficiency,
        retrieval,
        leak,
        cannon,
        limits,
        redrock,
        real,
        supervised,
        curve,
    )
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.science", description=__doc__)
    parser.add_argument("table", nargs="+", choices=sorted(TABLES), help="what to measure")
    parser.add_argument(
        "--encoder",
        nargs="+",
        default=["untrained", "pca64", "pca256", "raw"],
        metavar="NAME",
        help="saved models' folders, untrained[:SIZE], pcaN, pcaN+errors, raw (default: %(default)s); NAME=FOLDER gives it a name",
    )
    parser.add_argument("--budget", choices=sorted(BUDGETS), default="small")
    parser.add_argument("--templates", help='folder of published templates, or "none" for the package\'s own physics')
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--survey", nargs="+", default=list(DOMAINS), choices=list(DOMAINS), help="(default: all)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other objects")
    parser.add_argument("--keep", metavar="FOLDER", help="keep models' features there: a run that was cut off goes on")
    parser.add_argument("--output", help="folder to write TABLE.md and TABLE.json to")
    given = parser.parse_args(arguments)
    encoders = dict(name.split("=", 1) if "=" in name else (name, name) for name in given.encoder)
    bench = Bench(encoders, given.budget, given.templates, given.device, given.seed, given.survey, given.keep)
    about = {"budget": given.budget, "simulated_from": "published templates" if bench.templates else "own physics"}
    lines = []
    for table in given.table:
        started = time.perf_counter()
        rows = TABLES[table](bench)
        seconds = time.perf_counter() - started
        spectra = "heads of simulated spectra on real ones" if table == "real" else "simulated spectra"
        print(f"\n## {table} ({spectra}, {about['simulated_from']}; {seconds:.0f} s)\n\n{report.markdown(rows)}\n")
        lines.append(report.json_line(table, rows, seconds=seconds, seed=given.seed, **about))
        if given.output:
            folder = Path(given.output)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{table}.md").write_text(report.markdown(rows) + "\n")
            (folder / f"{table}.json").write_text(lines[-1] + "\n")
    print(lines[0] if len(lines) == 1 else json.dumps([json.loads(line) for line in lines]))


if __name__ == "__main__":
    main()
