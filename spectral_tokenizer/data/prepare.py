"""From a survey's files to Parquet at any scale: `prepare_files`, in public `prepare_survey`.

The work is cut into shards: slices of the sorted list of files, each of which becomes one Parquet file and one
manifest. A shard depends on nothing but its files. So shards are what processes share out, what a killed run resumes
by, and what
machines share out: a Slurm array, or any other way to start N commands, runs one shard per task and needs no scheduler
of our own and no service that has to be up. (`datasets` alone would use one machine, and begin anew after a kill.)

    OUTPUT/README.md                                what makes it a data set for the Hub: see `card`
    OUTPUT/SURVEY/_plan.json                        what is prepared from what: every run compares itself with it
    OUTPUT/SURVEY/train-00000-of-00008.parquet      the rows, columns as `schema.FEATURES`
    OUTPUT/SURVEY/_manifest/00000-of-00008.jsonl    a line per unit of files: rows, what was dropped, what is damaged

A file is written beside its place under another name and then moved: it is there whole or not at all. The manifest is
moved before the rows, so where there are rows there is their account.
"""

import hashlib
import json
import logging
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Value
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from tqdm.auto import tqdm

from .builder import SpectraBuilder, check_options, reader_name, survey_name
from .card import write_card
from .fits_access import SpectrumFileError
from .input_files import fingerprint
from .prepared import PLAN, read_metadata, rows_name, shard_name
from .report import FileRecord, SurveyReport, warn_of_catalogue
from .schema import FEATURES
from .sources import Sources, find_sources
from .storage import sweep, write_aside, write_first


logger = logging.getLogger(__name__)

BYTES_PER_SHARD = 2**29  # of input, unless the number of shards is given
TYPICAL_SIZE = 2**18  # bytes, of a file of one spectrum
INPUTS = b"spectral_tokenizer.inputs"  # in a Parquet file's metadata: the fingerprint of the files it was made from
READER = b"spectral_tokenizer.reader"  # there too: by which reader, with which options
REFRESH_SECONDS = 0.2

# Bytes of floating-point pixels compress twice as well when they are sorted by significance.
FLOAT_PIXELS = [name for name, value in FEATURES.items() if not isinstance(value, Value) and name != "segment_lengths"]
PARQUET = {
    "compression": "zstd",
    "compression_level": 1,
    "use_byte_stream_split": [f"{name}.list.element" for name in FLOAT_PIXELS],
    "use_dictionary": [name for name, value in FEATURES.items() if isinstance(value, Value)],
    "write_page_index": True,
}


@dataclass(frozen=True)
class Plan:
    """Which files make which shard: the same in every process and on every machine that sees the same files.

    Attributes:
        survey: the survey's builder.
        sources: the input files, on disk or in an archive.
        units: all units of files, in order.
        num_shards: number of shards.
        options: the reader's options.
        strict: stop at the first damaged file.
        output: the folder of the results, as a path or fsspec URL.
        storage_options: of fsspec.
    """

    survey: type[SpectraBuilder]
    sources: Sources
    units: list[tuple[str, ...]]
    num_shards: int
    options: dict
    strict: bool
    output: str
    storage_options: dict

    def units_of(self, shard: int) -> list[tuple[str, ...]]:
        """The shard's slice of the units; two slices differ by one unit at most."""
        first, end = (len(self.units) * number // self.num_shards for number in (shard, shard + 1))
        return self.units[first:end]

    def storage(self) -> tuple[AbstractFileSystem, str]:
        """The file system and the results' folder in it. For each process anew: connections do not survive a fork."""
        return url_to_fs(self.output, **self.storage_options)

    def reader(self) -> dict:
        """What makes rows of files, and how."""
        return {
            "survey": survey_name(self.survey),
            "reader": reader_name(self.survey),
            "reader_version": str(self.survey.VERSION),
            "options": self.options,
        }

    def as_dict(self) -> dict:
        """What two runs must agree on to work on one result."""
        digest = hashlib.sha256()
        for unit in self.units:
            digest.update("\0".join(map(self.sources.key, unit)).encode("utf-8", "surrogateescape") + b"\n")
        return {
            **self.reader(),
            "shards": self.num_shards,
            "units": len(self.units),
            "files": digest.hexdigest()[:16],
        }


def prepare_files(
    survey: type[SpectraBuilder],
    data_files: str | Path | int | Iterable[str | Path | int],
    output: str | Path,
    *,
    base_url: str | None = None,
    cache_dir: str | Path | None = None,
    num_shards: int | None = None,
    shards: Iterable[int] | None = None,
    num_proc: int = 1,
    strict: bool = False,
    storage_options: dict | None = None,
    progress: bool = False,
    **options,
) -> SurveyReport:
    """Write a survey's rows as Parquet, with a manifest. What is there already is not made again.

    A run that was killed goes on when it is started again with the same arguments. Shards whose input files have
    changed since are made anew, and so are those that are empty or cut off, or that other options made. Read the result
    with `load_prepared`, from the Hub with ``load_dataset("OUTPUT", "SURVEY")``, or as any other Parquet files.

    Args:
        survey: the survey's builder.
        data_files, base_url, cache_dir: as for `load_survey`. What is in an archive is downloaded shard by shard.
        output: folder, or fsspec URL of one; the results go into a folder with the survey's name in it.
        num_shards: number of Parquet files. By default that of the earlier run, else one per 512 MiB of input.
        shards: which shards to make, from 0; all by default. Several runs may share them out between them.
        num_proc: number of processes, each of which makes one shard at a time.
        strict: raise on the first damaged or foreign file. By default such files are skipped and stand in the
            manifest.
        storage_options: of the output's fsspec file system.
        progress: show a bar on stderr.
        **options: the survey's own, as for `load_survey`.

    Returns:
        The report over the shards asked for, including those that were there already.

    Raises:
        FileNotFoundError: no files.
        ConnectionError: the archive cannot be reached; what is finished stays.
        ValueError: the output was prepared from other files or with other options, or holds a file of another origin under
            a shard's name; or a shard that does not exist, or none; or a folder's name with ``::`` in it.
        TypeError: as `load_survey`.
        SpectrumFileError: a damaged or foreign file, if `strict`; a ``catalogue`` that cannot be read.
        ChildProcessError: a process was killed, mostly for want of memory.
    """
    output = f"{os.fspath(output).rstrip('/')}/{survey_name(survey)}"
    if "::" in output and "://" not in output:  # to fsspec a chain of addresses: it would write to the last of them
        raise ValueError(f"output: found {output!r}; expected a folder without '::', or a whole fsspec URL")
    options = check_options(survey, options)
    if num_shards is not None and num_shards < 1:
        raise ValueError(f"num_shards: found {num_shards}; expected 1 or more")
    sources = find_sources(data_files, survey, base_url, cache_dir)
    units = group(survey, sources.files)
    number = num_shards or planned_shards(output, storage_options or {}) or default_shards(units)
    plan = Plan(survey, sources, units, min(number, len(units)), options, strict, output, storage_options or {})
    chosen = list(range(plan.num_shards)) if shards is None else sorted(set(shards))
    if wrong := [shard for shard in chosen if not 0 <= shard < number]:
        raise ValueError(f"shard: found {wrong[0]}; expected 0 to {number - 1}, as there are {number} shards")
    chosen = [shard for shard in chosen if shard < plan.num_shards]  # fewer units than shards: some tasks do nothing
    agree(plan)
    report, total = SurveyReport(survey=survey_name(survey)), sum(len(plan.units_of(shard)) for shard in chosen)
    with tqdm(desc=report.survey, total=total, unit=" files", disable=not progress) as bar:
        for part in write_shards(plan, chosen, num_proc, bar.update):
            report.add(part)
    agree(plan)  # again: see `write_first`
    warn_of_catalogue(report, options.get("catalogue"), survey.CATALOGUE)
    file_system, folder = plan.storage()
    credit = f"{survey.CITATION}\n\n  > {survey.ACKNOWLEDGEMENT}\n" if survey.ACKNOWLEDGEMENT else survey.CITATION
    write_card(file_system, folder.rpartition("/")[0], {report.survey: credit})
    return report


def group(survey: type[SpectraBuilder], files: list[str]) -> list[tuple[str, ...]]:
    """The files in the units that the survey reads, sorted."""
    with tempfile.TemporaryDirectory() as cache_dir:
        return sorted(survey(cache_dir=cache_dir).group_files(files))


def default_shards(units: list[tuple[str, ...]]) -> int:
    """As many shards as the input has 512 MiB; what is still in an archive counts as `TYPICAL_SIZE`."""
    sizes = (os.path.getsize(file) if os.path.exists(file) else TYPICAL_SIZE for unit in units for file in unit)
    return -(-sum(sizes) // BYTES_PER_SHARD) or 1


def planned_shards(output: str, storage_options: dict) -> int | None:
    """The number of shards of an earlier run, if there was one."""
    file_system, folder = url_to_fs(output, **storage_options)
    path = f"{folder}/{PLAN}"
    return json.loads(file_system.cat_file(path))["shards"] if file_system.exists(path) else None


def agree(plan: Plan) -> None:
    """Write down the plan, or compare it with the one that is there.

    Raises:
        ValueError: it is another one.
    """
    file_system, folder = plan.storage()
    path, ours = f"{folder}/{PLAN}", plan.as_dict()
    file_system.makedirs(f"{folder}/_manifest", exist_ok=True)
    theirs = json.loads(write_first(file_system, path, json.dumps(ours, indent=2).encode()))
    differing = [key for key in ours if theirs.get(key) != ours[key]]
    if differing:
        told = [key for key in differing if key != "files" or "units" not in differing]
        found, expected = ({key: each.get(key) for key in told} for each in (ours, theirs))
        since = " Input files were added, removed or renamed since." if "files" in differing else ""
        raise ValueError(
            f"{plan.output} was prepared from something else: found {found}; expected {expected}, as {PLAN} there "
            f"says.{since} Choose another output folder, or remove this one"
        )


def write_shards(
    plan: Plan, shards: list[int], num_proc: int, advance: Callable[[int], object]
) -> Iterator[SurveyReport]:
    """Make shards, in this process or in several; `advance` is told the numbers of units done."""
    if num_proc <= 1 or len(shards) <= 1:
        yield from (write_shard(plan, shard, advance) for shard in shards)
        return
    if plan.output.startswith("memory:"):
        raise ValueError(f"{plan.output}: found num_proc {num_proc}; expected 1, as memory is not shared by processes")
    counter, seen = multiprocessing.Value("q", 0), 0
    pool = ProcessPoolExecutor(min(num_proc, len(shards)), initializer=start_worker, initargs=(plan, counter))
    try:
        pending = {pool.submit(write_in_worker, shard) for shard in shards}
        while pending:
            done, pending = wait(pending, timeout=REFRESH_SECONDS, return_when=FIRST_COMPLETED)
            # Without its lock: a process that was killed while it held that would never give it back.
            read = counter.get_obj().value
            advance(read - seen)
            seen = read
            yield from (future.result() for future in done)
    except BrokenProcessPool:
        raise ChildProcessError(
            "a process that was reading was killed, mostly for want of memory. What is finished stays: start again "
            "with fewer processes, and the run goes on"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def start_worker(plan: Plan, counter) -> None:
    """Runs first in each process: what it works on, and a watch that ends it if the process that started it dies."""
    global _plan, _counter
    _plan, _counter = plan, counter

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def write_in_worker(shard: int) -> SurveyReport:
    """`write_shard` in a process of a pool."""

    def advance(number: int) -> None:
        with _counter.get_lock():
            _counter.value += number

    return write_shard(_plan, shard, advance)


def write_shard(plan: Plan, shard: int, advance: Callable[[int], object]) -> SurveyReport:
    """Make one shard, unless it is there, made from the files as they are now; and its report either way."""
    file_system, folder = plan.storage()
    rows_path = f"{folder}/{rows_name(shard, plan.num_shards)}"
    manifest_path = f"{folder}/_manifest/{shard_name(shard, plan.num_shards)}.jsonl"
    origin = {INPUTS: fingerprint_of(plan, shard).encode(), READER: json.dumps(plan.reader(), sort_keys=True).encode()}
    found = made_from(file_system, rows_path)
    # What shards of earlier versions do not say of their reader, the plan beside them does.
    is_made = found and all(found.get(key, value) == value for key, value in origin.items())
    records = read_manifest(file_system, manifest_path, len(plan.units_of(shard))) if is_made else None
    if records is not None:
        advance(len(plan.units_of(shard)))
    else:
        with write_aside(file_system, rows_path, or_theirs=True) as unfinished:
            records = write_rows(file_system, unfinished, plan, shard, origin, advance)
            with write_aside(file_system, manifest_path, or_theirs=True) as unfinished:
                lines = "".join(record.to_json() + "\n" for record in records)
                file_system.pipe_file(unfinished, lines.encode())
    sweep(file_system, rows_path)
    sweep(file_system, manifest_path)
    report = SurveyReport(survey=survey_name(plan.survey))
    for record in records:
        report.add_file(record)
    return report


def read_manifest(file_system: AbstractFileSystem, path: str, num_units: int) -> list[FileRecord] | None:
    """What became of each unit of a finished shard; None where that is not whole: then the log names the file."""
    try:
        lines = file_system.cat_file(path).decode().splitlines()
        if len(lines) == num_units:
            return [FileRecord.from_json(line) for line in lines]
        found = f"{len(lines)} lines"
    except (FileNotFoundError, ValueError, TypeError, KeyError) as error:
        found = f"{type(error).__name__}: {error}"
    logger.warning("%s: found %s; expected %d lines: its shard is made anew", path, found, num_units)
    return None


def fingerprint_of(plan: Plan, shard: int) -> str:
    """Changes when a shard is to be made of other files, or when one of them was written to.

    What is in an archive does not change and need not be here any more: its name is enough.
    """
    files = [file for unit in plan.units_of(shard) for file in unit]
    local = tuple(file for file in files if file not in plan.sources.entries)
    companions = plan.survey.BUILDER_CONFIG_CLASS(files=local, **plan.options).companions()
    remote = "\n".join(plan.sources.key(file) for file in files if file in plan.sources.entries)
    return f"{fingerprint([*local, *companions])}-{hashlib.sha256(remote.encode()).hexdigest()[:16]}"


def write_rows(
    file_system: AbstractFileSystem,
    path: str,
    plan: Plan,
    shard: int,
    origin: dict[bytes, bytes],
    advance: Callable[[int], object],
) -> list[FileRecord]:
    """Read a shard's units and write their rows, a row group per batch of the reader, which may span units; and what
    became of each unit."""
    units, manifest = fetch_units(plan, shard)
    advance(len(manifest))
    schema = FEATURES.arrow_schema
    schema = schema.with_metadata({**schema.metadata, **origin})
    done = len(manifest)
    with tempfile.TemporaryDirectory() as cache_dir:
        files = tuple(file for unit in units for file in unit)
        reader = plan.survey(cache_dir=cache_dir, files=files, strict=plan.strict, **plan.options)
        # Readers may look at which files there are besides: DESI leaves out exposures whose coadd is among them.
        reader.config.files = tuple(plan.sources.files)
        reader.manifest = manifest
        with file_system.open(path, "wb") as file, pq.ParquetWriter(file, schema, **PARQUET) as writer:
            for _, table in reader._generate_tables(units):
                writer.write_table(table.cast(schema), row_group_size=len(table))
                advance(len(manifest) - done)
                done = len(manifest)
    advance(len(manifest) - done)
    return manifest


def fetch_units(plan: Plan, shard: int) -> tuple[list[tuple[str, ...]], list[FileRecord]]:
    """The shard's units as they are on this disk, after what is in an archive has come; and what did not come."""
    units = plan.units_of(shard)
    absent = plan.sources.fetch(file for unit in units for file in unit)
    if plan.strict and absent:
        raise next(iter(absent.values()))
    here, manifest = [], []
    for unit in units:
        failed = next((absent[file] for file in unit if file in absent), None)
        if failed is None:
            here.append(tuple(file for file in unit if file not in plan.sources.entries or os.path.exists(file)))
        else:
            manifest.append(FileRecord(survey_name(plan.survey), list(unit), damage=failed))
    return here, manifest


def made_from(file_system: AbstractFileSystem, path: str) -> dict[bytes, bytes]:
    """What a finished shard says that it was made from, `INPUTS` among it; nothing where there is no such shard, or one
    without its end, as a full disk or a broken copy leaves it: then the log names it.

    Raises:
        ValueError: the file is whole, and nothing that was made here. It may be somebody's only one.
    """
    try:
        with file_system.open(path, "rb") as file:
            told = read_metadata(file, path).metadata or {}
    except FileNotFoundError:
        return {}
    except SpectrumFileError as error:
        logger.warning("%s: it is made anew", error)
        return {}
    if INPUTS not in told:
        raise ValueError(
            f"{path}: found a Parquet file that prepare did not write; expected a shard, with {INPUTS.decode()} in its metadata. "
            "Choose another output folder, or remove this file"
        )
    return told
