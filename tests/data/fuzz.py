"""Damage to survey files, of many kinds, and what becomes of it: `python tests/data/fuzz.py --help`.

A mutated file must end in the undamaged row, in a row that differs by no more than the damage explains, in nothing, or
in `SpectrumFileError`. It must not crash, hang, or give a row with other flux under the old name without a word.
"""

import argparse
import gzip
import json
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectral_tokenizer.data import SURVEYS, SpectrumFileError
from spectral_tokenizer.data.builder import Dropped


BLOCK, CARD = 2880, 80
MAX_SECONDS, MAX_MEMORY = 10, 2**30
#: Values that lie in wait: FITS is big-endian.
NASTY = [np.array([value], dtype=">f4").tobytes() for value in (np.nan, np.inf, -np.inf, 0.0, -1.0, 3e38, 1e-40)]
NASTY += [b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"    "]
TEXTS = ["-1", "0", "1", "2", "3", "7", "99999", "4294967296", "9223372036854775807", "-32", "-64", "8", "16", "1E400"]
TEXTS += [
    "NAN",
    "1.5",
    "T",
    "F",
    "'x       '",
    "''",
    "",
    "'1E       '",
    "'1J       '",
    "'PE(9)    '",
    "'999999999E'",
    "'A       '",
]


@dataclass
class Mutation:
    """A damaged file.

    Attributes:
        content: its bytes.
        kind: what was done.
        changed: number of bytes of data that differ, where nothing moved.
        in_header: a header changed, or whole parts moved.
    """

    content: bytes
    kind: str
    changed: int = 0
    in_header: bool = True


def headers(content: bytes) -> Iterator[tuple[int, int]]:
    """Where the headers of an undamaged file begin and end."""
    place = 0
    while place < len(content):
        end = content.find(b"END".ljust(CARD), place)
        if end < 0:
            return
        end = -(-(end + CARD) // BLOCK) * BLOCK
        cards = [content[start : start + CARD].decode("latin-1") for start in range(place, end, CARD)]
        values = {card[:8].strip(): card[10:30].strip() for card in cards if card[8:10] == "= "}
        yield place, end
        axes = [int(values[f"NAXIS{axis}"]) for axis in range(1, int(values["NAXIS"]) + 1)]
        size = abs(int(values["BITPIX"])) // 8 * int(np.prod(axes)) if axes else 0
        size += int(values.get("PCOUNT", 0)) if "XTENSION" in values else 0
        place = end - (-size // BLOCK) * BLOCK


def flip_bits(content: bytes, generator: np.random.Generator) -> Mutation:
    data = bytearray(content)
    places = generator.integers(0, len(data), int(generator.choice([1, 1, 2, 8, 64])))
    for place in places:
        data[place] ^= 1 << int(generator.integers(8))
    return Mutation(bytes(data), "bits flipped", *changes(content, data))


def overwrite(content: bytes, generator: np.random.Generator) -> Mutation:
    data = bytearray(content)
    for _ in range(int(generator.integers(1, 4))):
        place, value = int(generator.integers(0, len(data))) // 4 * 4, NASTY[generator.integers(len(NASTY))]
        count = int(generator.choice([1, 4, 64, 1024]))
        data[place : place + 4 * count] = (value * count)[: len(data) - place]
    return Mutation(bytes(data), "values overwritten", *changes(content, data))


def scramble(content: bytes, generator: np.random.Generator) -> Mutation:
    data = bytearray(content)
    place, size = int(generator.integers(0, len(data))), int(generator.choice([4, 80, 2880]))
    data[place : place + size] = generator.bytes(size)[: len(data) - place]
    return Mutation(bytes(data), "bytes scrambled", *changes(content, data))


def changes(before: bytes, after: bytes) -> tuple[int, bool]:
    """Number of bytes of data that differ in files of one length, and whether a header does.

    Two images with the same header may change places without a trace.
    """
    differs = np.frombuffer(before, dtype=np.uint8) != np.frombuffer(bytes(after), dtype=np.uint8)
    in_headers = sum(int(differs[start:end].sum()) for start, end in headers(before))
    return int(differs.sum()) - in_headers, in_headers > 0


def truncate(content: bytes, generator: np.random.Generator) -> Mutation:
    place = int(generator.integers(0, len(content)))
    if generator.random() < 0.3:
        place = place // BLOCK * BLOCK
    return Mutation(content[:place], "truncated")


def append(content: bytes, generator: np.random.Generator) -> Mutation:
    more = [generator.bytes(5000), b"\0" * 3 * BLOCK, content[: 2 * BLOCK], b" " * BLOCK][generator.integers(4)]
    return Mutation(content + more, "something appended")


def move_blocks(content: bytes, generator: np.random.Generator) -> Mutation:
    blocks = [content[start : start + BLOCK] for start in range(0, len(content), BLOCK)]
    first, second = generator.integers(0, len(blocks), 2)
    action = generator.integers(3)
    if action == 0:
        blocks[first], blocks[second] = blocks[second], blocks[first]
    elif action == 1:
        del blocks[first]
    else:
        blocks.insert(second, blocks[first])
    result = b"".join(blocks)
    kind = ("blocks swapped", "block lost", "block doubled")[action]
    return Mutation(result, kind, *changes(content, result)) if action == 0 else Mutation(result, kind)


def move_hdus(content: bytes, generator: np.random.Generator) -> Mutation:
    starts = [start for start, _ in headers(content)]
    hdus = [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)])]
    first, second = generator.integers(1, len(hdus), 2) if len(hdus) > 1 else (0, 0)
    action = generator.integers(3)
    if action == 0:
        hdus[first], hdus[second] = hdus[second], hdus[first]
    elif action == 1:
        del hdus[first]
    else:
        hdus.insert(second, hdus[first])
    result = b"".join(hdus)
    kind = ("HDUs swapped", "HDU lost", "HDU doubled")[action]
    if action == 0 and not (changed := changes(content, result))[1]:
        return Mutation(result, kind, *changed)
    return Mutation(result, kind)


def damage_card(content: bytes, generator: np.random.Generator) -> Mutation:
    data = bytearray(content)
    places = [
        place
        for start, end in headers(content)
        for place in range(start, end, CARD)
        if data[place : place + 3] != b"   "
    ]
    for place in generator.choice(places, int(generator.choice([1, 1, 3]))):
        card = bytes(data[place : place + CARD])
        if not card.strip():
            continue
        action = generator.integers(5)
        if action <= 1:
            card = card[:10] + TEXTS[generator.integers(len(TEXTS))].rjust(20).encode() + card[30:]
        elif action == 2:
            card = b" " * CARD
        elif action == 3:
            card = bytes(data[place + CARD : place + 2 * CARD])
        else:
            card = generator.bytes(CARD)
        data[place : place + CARD] = card.ljust(CARD)[:CARD]
    return Mutation(bytes(data), "cards damaged")


def lose_end(content: bytes, generator: np.random.Generator) -> Mutation:
    places = [content.find(b"END".ljust(CARD), start) for start, _ in headers(content)]
    place = places[generator.integers(len(places))]
    filler = [b" " * CARD, b"COMMENT ".ljust(CARD, b"x"), b"\0" * CARD][generator.integers(3)]
    return Mutation(content[:place] + filler + content[place + CARD :], "END lost")


def huge_header(content: bytes, generator: np.random.Generator) -> Mutation:
    starts = [end for _, end in headers(content)]
    end = content.rfind(b"END".ljust(CARD), 0, starts[generator.integers(len(starts))])
    cards = b"COMMENT ".ljust(CARD, b"y") * 36 * int(generator.choice([10, 100, 2000]))
    return Mutation(content[:end] + cards + content[end:], "huge header")


def empty(content: bytes, generator: np.random.Generator) -> Mutation:
    other = [
        b"",
        b"\0",
        b"SIMPLE  =",
        b" " * 10000,
        b"\0" * 10000,
        generator.bytes(10000),
        b"\x1f\x8b",
        b"<html>404</html>",
    ]
    return Mutation(other[generator.integers(len(other))], "no FITS file")


def compress(mutate: Callable, name: str) -> Callable:
    """The mutation, gzipped; or, half of the time, the damage done to the compressed bytes."""

    def mutate_compressed(content: bytes, generator: np.random.Generator) -> Mutation:
        if generator.random() < 0.5:
            inner = mutate(content, generator)
            return Mutation(gzip.compress(inner.content, 1), f"gzip of {name}", inner.changed, inner.in_header)
        packed = bytearray(gzip.compress(content, 1))
        if name == "truncated":
            return Mutation(bytes(packed[: generator.integers(len(packed))]), "gzip truncated")
        packed[generator.integers(len(packed))] ^= 1 << int(generator.integers(8))
        return Mutation(bytes(packed), "gzip with a bit flipped")

    return mutate_compressed


def bomb(content: bytes, generator: np.random.Generator) -> Mutation:
    start = next(headers(content))[1]
    zeros = gzip.compress(b"\0" * 2**24, 9)
    return Mutation(gzip.compress(content[:start], 1) + zeros * 40, "gzip bomb")  # 640 MB in 0.6 MB


MUTATIONS: list[tuple[Callable, float]] = [
    (flip_bits, 0.2),
    (overwrite, 0.16),
    (scramble, 0.08),
    (truncate, 0.08),
    (append, 0.02),
    (move_blocks, 0.08),
    (move_hdus, 0.08),
    (damage_card, 0.2),
    (lose_end, 0.02),
    (huge_header, 0.01),
    (empty, 0.01),
    (compress(flip_bits, "bits flipped"), 0.0295),
    (compress(truncate, "truncated"), 0.03),
    (bomb, 0.0005),
]


def mutate(content: bytes, generator: np.random.Generator) -> Mutation:
    """One mutation, drawn."""
    weights = np.array([weight for _, weight in MUTATIONS])
    return MUTATIONS[generator.choice(len(MUTATIONS), p=weights / weights.sum())][0](content, generator)


class Subject:
    """A reader and a file that it reads well.

    Args:
        survey: the reader's name.
        path: of an undamaged file.
    """

    def __init__(self, survey: str, path: Path, folder: Path):
        self.survey = survey
        content = path.read_bytes()
        self.content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        self.path = folder / path.name.removesuffix(".gz")
        self.path.write_bytes(self.content)
        options = {"simulated": True} if survey == "desi" else {}
        self.reader = SURVEYS[survey](cache_dir=str(folder / "cache"), files=(str(self.path),), **options)
        self.rows, self.seconds = self.read(self.content), 0.0

    def read(self, content: bytes) -> dict[str, dict]:
        """The rows by their source, as the builder gets them."""
        self.path.write_bytes(content)
        found = (
            row if isinstance(row, Dropped) else self.reader._finish(row)
            for row in self.reader.read((str(self.path),))
        )
        return {row["source"]: row for row in found if not isinstance(row, Dropped)}

    def outcome(self, mutation: Mutation) -> str:
        """What became of a mutation: one of the names below, the last four being failures."""
        start = time.process_time()  # the machine may have other work to do
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        try:
            rows = self.read(mutation.content)
        except SpectrumFileError:
            return "refused"
        except Hang:
            return "HANG"
        except Exception:
            return "CRASH"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.seconds = max(self.seconds, time.process_time() - start)
        if not rows:
            return "nothing usable"
        worst = "the same"
        for source, row in rows.items():
            verdict = self.compare(self.rows.get(source), row, mutation.changed, mutation.in_header)
            worst = max(
                worst, verdict, key=("the same", "other labels", "explained", "WAVELENGTHS MOVED", "WRONG").index
            )
        return worst

    def compare(self, before: dict | None, after: dict, changed: int, in_header: bool) -> str:
        """A row against the undamaged one.

        As many pixels may differ as bytes of data did. Where a header changed or parts moved, pixels may be missing or
        unusable besides, but none may have another flux.
        """
        if before is None:
            return "WRONG"
        old, new = align(before, after)
        was_usable, is_usable = before["ivar"][old] > 0, after["ivar"][new] > 0
        both = was_usable & is_usable
        moved = is_usable & (np.abs(after["wavelength"][new] - before["wavelength"][old]) > 0.02)
        if self.survey == "galah":  # the median by which a CCD is divided may change a little
            ratio = np.divide(after["flux"][new], before["flux"][old], where=both, out=np.ones(len(old)))
            differs = np.abs(ratio / (np.median(ratio[both]) if both.any() else 1.0) - 1) > 0.02
        else:
            differs = after["flux"][new] != before["flux"][old]
        differs &= both
        masked = is_usable != was_usable
        if (differs if in_header else differs | masked).sum() > 2 * changed + 16 + in_header * len(differs) // 100:
            return "WRONG"
        if moved.sum() > changed:
            return "WAVELENGTHS MOVED"
        same = not (differs | masked).any() and len(before["flux"]) == len(after["flux"])
        labels = ("class", "redshift", "radial_velocity", "teff", "logg", "fe_h", "object_id")
        if same and any(str(before[name]) != str(after[name]) for name in labels):
            return "other labels"
        return "the same" if same else "explained"


def align(before: dict, after: dict) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of two rows that belong together, as two arrays of indices: segments that begin alike, else in order."""
    starts = {name: np.cumsum([0, *row["segment_lengths"]]) for name, row in (("old", before), ("new", after))}
    old, new = [], []
    for start, end in zip(starts["new"], starts["new"][1:]):
        first = after["wavelength"][start]
        gaps = np.abs(before["wavelength"][starts["old"][:-1]] - first)
        place = starts["old"][np.argmin(gaps)] if gaps.min() < 0.02 else start
        length = min(end - start, max(len(before["flux"]) - place, 0))
        old.append(np.arange(place, place + length))
        new.append(np.arange(start, start + length))
    return np.concatenate(old), np.concatenate(new)


FAILURES = ("CRASH", "HANG", "WRONG", "WAVELENGTHS MOVED")


def run(
    subjects: list[Subject], count: int, seed: int = 0, seconds: float = np.inf, keep: Path | None = None
) -> tuple[Counter, list[str]]:
    """Mutate the subjects' files in turn; the outcomes by (survey, kind, outcome), and a line for each failure."""
    counts, failures, end = Counter(), [], time.process_time() + seconds
    previous = signal.signal(signal.SIGPROF, raise_hang)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in range(count):
                if time.process_time() > end:
                    break
                subject = subjects[number % len(subjects)]
                mutation = mutate(subject.content, np.random.default_rng([seed, number]))
                outcome = subject.outcome(mutation)
                counts[subject.survey, mutation.kind, outcome] += 1
                if outcome in FAILURES:
                    failures.append(f"{outcome}: {mutation.kind}, {subject.path.name}, seed {seed}, number {number}")
                    if keep is not None:
                        (keep / f"{seed}-{number}-{subject.path.name}").write_bytes(mutation.content)
    finally:
        signal.signal(signal.SIGPROF, previous)
    return counts, failures


def memory_in_use() -> int:
    """Bytes of this process's data that count against the limit."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmData:")[1].split()[0]) * 1024


class Hang(BaseException):
    """Not an `Exception`, and least of all a `TimeoutError`, which is an `OSError`: a reader may catch those."""


def raise_hang(*_: object) -> None:
    raise Hang


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", metavar="SURVEY=FILE", help="undamaged files, small ones")
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=np.inf, help="of processor time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the files that failed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as temporary:
        subjects = []
        for index, entry in enumerate(given.files):
            survey, path = entry.split("=", 1)
            folder = Path(temporary, str(index))
            folder.mkdir()
            subjects.append(Subject(survey, Path(path), folder))
        start, used = time.monotonic(), memory_in_use()
        resource.setrlimit(resource.RLIMIT_DATA, (used + MAX_MEMORY, used + MAX_MEMORY))
        counts, failures = run(subjects, given.mutations, given.seed, given.seconds, given.keep)
    print("\n".join(failures[:200]))
    outcomes, kinds = Counter(), Counter()
    for (_, kind, outcome), number in counts.items():
        outcomes[outcome] += number
        kinds[kind] += number
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"mutations": counts.total(), "outcomes": outcomes, "kinds": kinds, "peak_memory_mib": round(memory)}
    figures["longest_s"] = round(max(subject.seconds for subject in subjects), 1)
    print(json.dumps({**figures, "seconds": round(time.monotonic() - start)}))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
