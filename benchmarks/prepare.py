"""What `prepare` costs: `python benchmarks/prepare.py DATA`, where DATA/SURVEY holds files, such as simulated ones.

For each survey: seconds (wall clock, and CPU of all processes) to read the bytes, to open the files with astropy and
touch all their arrays, and to prepare them; the peak resident memory of a process; the size of the result. Then the
preparation is killed at random moments and gone on with until it is through, and its files are compared byte for byte.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits

from spectral_tokenizer.data import SURVEYS, prepare_survey
from spectral_tokenizer.data.input_files import find_files


FORK = multiprocessing.get_context("fork")


def read_bytes(files: list[str]) -> int:
    """The least that reading can be."""
    return sum(len(Path(file).read_bytes()) for file in files)


def read_astropy(files: list[str]) -> int:
    """Every array of every HDU as astropy hands it out, in this machine's byte order; nothing is done with it."""
    pixels = 0
    for file in files:
        with fits.open(file, memmap=False) as hdus:
            arrays = [hdu.data for hdu in hdus if hdu.data is not None]
            pixels += sum(np.asarray(array, array.dtype.newbyteorder("=")).size for array in arrays)
    return pixels


def measure(function: Callable, *arguments, **settings) -> tuple[object, float, float, float]:
    """Call in a process of its own: result, wall seconds, CPU seconds, peak resident MiB of the largest process."""
    queue = FORK.SimpleQueue()

    def run() -> None:
        start = time.perf_counter()
        result = function(*arguments, **settings)
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        cpu = sum(usage.ru_utime + usage.ru_stime for usage in (own, children))
        queue.put((result, time.perf_counter() - start, cpu, max(own.ru_maxrss, children.ru_maxrss) / 1024))

    process = FORK.Process(target=run)
    process.start()
    answer = queue.get()
    process.join()
    return answer


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kill_and_resume(survey: str, source: Path, whole: Path, duration: float, kills: int, **settings) -> str:
    """Kill up to `kills` times at random moments, then let it get through and compare."""
    generator, output, killed = random.Random(survey), whole.with_name("killed"), 0
    for number in range(kills + 1):
        process = FORK.Process(target=prepare_survey, args=(survey, source, output), kwargs=settings)
        process.start()
        if number < kills:
            process.join(timeout=generator.uniform(0.1, 1.5 * duration / kills))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
        process.join()
    same = digests(output) == digests(whole)
    shutil.rmtree(output)
    return f"killed {killed} times and gone on with: {'the same bytes' if same else 'DIFFERENT'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder with a folder per survey")
    parser.add_argument("--output", type=Path, default=Path("runs/prepare-benchmark"))
    parser.add_argument("--num-proc", type=int, default=1)
    parser.add_argument("--num-shards", type=int, default=8)
    parser.add_argument("--kills", type=int, default=10)
    given = parser.parse_args()
    settings = {"num_proc": given.num_proc, "num_shards": given.num_shards}
    print(f"resident before anything is read: {measure(lambda: None)[3]:.0f} MiB")
    for survey in SURVEYS:
        source, output = given.data / survey, given.output / "whole"
        files = find_files(source, SURVEYS[survey].FILE_NAMES) if source.exists() else []
        if not files:
            continue
        shutil.rmtree(output, ignore_errors=True)
        read_bytes(files)  # into the page cache, alike for all
        size, wall, cpu, _ = measure(read_bytes, files)
        print(f"{survey}: {len(files)} files, {size / 1e6:.0f} MB; bytes {wall:.1f} s, CPU {cpu:.1f} s", flush=True)
        _, astropy_wall, astropy_cpu, peak = measure(read_astropy, files)
        print(f"    astropy  {astropy_wall:6.1f} s, CPU {astropy_cpu:6.1f} s, peak {peak:4.0f} MiB", flush=True)
        report, wall, cpu, peak = measure(prepare_survey, survey, source, output, **settings)
        print(
            f"    prepare  {wall:6.1f} s, CPU {cpu:6.1f} s, peak {peak:4.0f} MiB; CPU {cpu / astropy_cpu:.2f} of astropy's"
        )
        parquet = sum(path.stat().st_size for path in output.rglob("*.parquet"))
        print(
            f"    {report}; {parquet / 1e6:.0f} MB of Parquet; {1e3 * cpu / report.rows:.1f} ms of CPU a row",
            flush=True,
        )
        if given.kills:
            print("    " + kill_and_resume(survey, source, output, wall, given.kills, **settings), flush=True)
        shutil.rmtree(output)


if __name__ == "__main__":
    main()
