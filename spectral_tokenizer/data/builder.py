"""From files to rows, written once for all surveys.

A survey is a subclass of `SpectraBuilder` with a `read` method that turns one unit of files (usually one file) into
rows. Here the rows are checked, counted and written as Arrow in pieces of bounded memory. `datasets` keeps the result in
its cache, in a folder named after the survey's module, the input files' fingerprint, the options and `VERSION`.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import ArrowBasedBuilder, BuilderConfig, Dataset, DatasetInfo, Split, SplitGenerator
from datasets.builder import Key
from datasets.exceptions import DatasetGenerationError

from .archive import Address
from .fits_access import SpectrumFileError
from .input_files import fingerprint
from .report import FileRecord, SurveyReport
from .schema import FEATURES, FRAMES, LABELS
from .tables import UnitRows, to_table


PIXELS_PER_BATCH = 2**20  # 20 bytes each: a record batch stays near 20 MB
MAX_FLOAT32 = np.finfo(np.float32).max


@dataclass
class SurveyConfig(BuilderConfig):
    """What a build depends on. A survey's own options are further fields of a subclass.

    Args:
        files: the input files.
        strict: raise on the first damaged or foreign file, instead of skipping and counting it.
        absent: what an archive was asked for in vain: the parts of a `SpectrumFileError` each.
    """

    files: tuple[str, ...] = ()
    strict: bool = False
    absent: tuple[tuple[str, str, str, str], ...] = ()

    def companions(self) -> list[str]:
        """Existing files beside the input files that the reader looks into."""
        return []

    def create_config_id(self, config_kwargs: dict, custom_features=None) -> str:
        inputs = fingerprint([*self.files, *self.companions()])
        return super().create_config_id({**config_kwargs, "inputs": inputs}, custom_features)


@dataclass
class Dropped:
    """What a reader gives in place of a row that is left out on purpose; `reason` appears in the report."""

    reason: str


class SpectraBuilder(ArrowBasedBuilder):
    """Base class of the surveys' builders.

    A subclass sets the class attributes below and writes `read`. Raise `VERSION` with every change of a reader that can
    change a row: the cache knows changed files and options by itself, but not changed code.
    """

    BUILDER_CONFIG_CLASS = SurveyConfig
    VERSION = "1.0.0"
    FILE_NAMES: tuple[str, ...]
    HOMEPAGE = ""
    CITATION = ""

    #: Base URL of the survey's archive, and what an identifier looks like that `address` takes.
    ARCHIVE = ""
    IDENTIFIER = "a path: this survey has no archive here"

    #: A list in which a build leaves a record per unit of files; None: only the report's numbers are kept.
    manifest: list[FileRecord] | None = None

    @staticmethod
    def address(identifier: str) -> Address | None:
        """Where the archive keeps what an identifier stands for; None if the text is no identifier.

        Raises:
            ValueError: it is one, but says too little to find the file.
        """
        return None

    def read(self, files: tuple[str, ...]) -> Iterable[dict | Dropped]:
        """Read one unit of files.

        Yields:
            Rows with the columns of `schema.FEATURES` (without ``survey`` and ``snr``; what is unknown may be left
            out), arrays in native byte order, or `Dropped`.

        Raises:
            SpectrumFileError: a file is damaged or is another product; then no row of the unit is taken.
        """
        raise NotImplementedError

    def group_files(self, files: Iterable[str]) -> list[tuple[str, ...]]:
        """The units that `read` takes; one file each unless a subclass says otherwise."""
        return [(file,) for file in files]

    def build(self, num_proc: int | None = None) -> Dataset:
        """The dataset of all rows: from the cache, or built now."""
        self.download_and_prepare(num_proc=num_proc)
        if self.info.splits["train"].num_examples == 0:  # `as_dataset` refuses that
            return Dataset(FEATURES.arrow_schema.empty_table(), info=self.info, split=Split.TRAIN)
        return self.as_dataset(split="train")

    def _info(self) -> DatasetInfo:
        return DatasetInfo(features=FEATURES, homepage=self.HOMEPAGE, citation=self.CITATION)

    def _split_generators(self, dl_manager) -> list[SplitGenerator]:
        # A list, so that `num_proc` processes can share it out.
        return [SplitGenerator(Split.TRAIN, gen_kwargs={"units": self.group_files(self.config.files)})]

    def rows(self, files: tuple[str, ...]) -> Iterator[dict | Dropped]:
        """`read`, with every row checked and complete.

        Raises:
            SpectrumFileError: as `read`, also after the first rows.
        """
        for row in self.read(files):
            yield row if isinstance(row, Dropped) else self._finish(row)

    def _generate_tables(self, units: list[tuple[str, ...]]) -> Iterator[tuple[Key, pa.Table]]:
        self._report, number = SurveyReport(survey=self.name), itertools.count()
        rows: list[dict] = []  # of small units, until they make a batch
        for index, files in enumerate(units):
            with UnitRows(PIXELS_PER_BATCH) as unit:
                if not self._read_unit(files, unit):
                    continue
                for table in unit.spilled():
                    if rows:
                        yield Key(index, next(number)), to_table(rows)
                        rows = []
                    yield Key(index, next(number)), table
                rows += unit.rows
            if sum(len(row["flux"]) for row in rows) >= PIXELS_PER_BATCH:
                yield Key(index, next(number)), to_table(rows)
                rows = []
        if rows:
            yield Key(len(units) - 1, next(number)), to_table(rows)

    def _read_unit(self, files: tuple[str, ...], unit: UnitRows) -> bool:
        """Read all of one unit and account for it; False if it is damaged, then none of its rows may be used."""
        record = FileRecord(self.name, list(files))
        try:
            for row in self.rows(files):
                if isinstance(row, Dropped):
                    record.dropped[row.reason] += 1
                else:
                    unit.append(row)
            record.rows = unit.count
        except SpectrumFileError as error:
            if self.config.strict:
                raise
            record = FileRecord(self.name, list(files), damage=error)
        self._report.add_file(record)
        if self.manifest is not None:
            self.manifest.append(record)
        return record.damage is None

    def _finish(self, row: dict) -> dict | Dropped:
        """Fill in what is missing, state bad pixels once (ivar = 0) and check all that later code relies on."""
        missing = {name: None if value.dtype == "string" else np.nan for name, value in LABELS.items()}
        row = {"lsf_sigma": None, **missing, **row, "survey": self.name}
        flux, ivar = np.asarray(row["flux"]), np.asarray(row["ivar"])
        if row["lsf_sigma"] is not None:
            sigma = np.asarray(row["lsf_sigma"], dtype=np.float32)
            row["lsf_sigma"] = np.where(np.isfinite(sigma) & (sigma > 0), sigma, np.float32(0))
        check_row(row)
        row["lsf_sigma"] = np.zeros(0, dtype=np.float32) if row["lsf_sigma"] is None else row["lsf_sigma"]
        # Not `isfinite`: what overflows float32 is as useless as infinity.
        is_usable = (np.abs(flux) <= MAX_FLOAT32) & (ivar > 0) & (ivar <= MAX_FLOAT32)
        row["flux"] = np.where(np.abs(flux) <= MAX_FLOAT32, flux, 0).astype(np.float32)
        row["ivar"] = np.where(is_usable, ivar, 0).astype(np.float32)
        is_usable = row["ivar"] > 0
        if not is_usable.any():
            return Dropped("no usable pixel")
        row["snr"] = float(np.median(row["flux"][is_usable] * np.sqrt(row["ivar"][is_usable])))
        return row

    def _prepare_split_single(self, gen_kwargs, fpath, file_format, max_shard_size, job_id):
        # Runs in the worker. Its part of the report lies beside its Arrow files until `_prepare_split` adds them up.
        try:
            yield from super()._prepare_split_single(gen_kwargs, fpath, file_format, max_shard_size, job_id)
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, SpectrumFileError):
                raise error.__cause__ from None
            raise
        Path(os.path.dirname(fpath), f"report-{job_id:05d}.json").write_text(self._report.to_json())

    def _prepare_split(self, split_generator, **kwargs) -> None:
        super()._prepare_split(split_generator, **kwargs)
        report = SurveyReport(survey=self.name)
        for parts in self.config.absent:
            report.add_file(FileRecord(self.name, [parts[0]], damage=SpectrumFileError(*parts)))
        for part in sorted(Path(self._output_dir).glob("report-*.json")):
            report.add(SurveyReport.from_json(part.read_text()))
            part.unlink()
        # The info is written into the same temporary folder as the rows, which then takes its final name at once.
        self.info.description = report.to_json()


def check_row(row: dict) -> None:
    """Check that a row is what `schema` promises.

    Raises:
        SpectrumFileError: naming the source, the column, what was found and what was expected.
        KeyError, ValueError: the reader left out a column or made one up.
    """
    if unknown := set(row) - set(FEATURES):
        raise ValueError(f"columns {sorted(unknown)} are not in the schema")
    source, wavelength, segments = row["source"], row["wavelength"], np.asarray(row["segment_lengths"])
    if row["frame"] not in FRAMES:
        raise SpectrumFileError(source, "frame", row["frame"], f"one of {FRAMES}")
    for name in ("flux", "ivar", "lsf_sigma"):
        if row[name] is not None and np.shape(row[name]) != (len(wavelength),):
            raise SpectrumFileError(source, name, f"shape {np.shape(row[name])}", f"shape ({len(wavelength)},)")
    if (segments <= 0).any() or segments.sum() != len(wavelength):
        found = f"{segments.tolist()}, together {segments.sum()}"
        raise SpectrumFileError(source, "segment_lengths", found, f"lengths > 0 that add up to {len(wavelength)}")
    if not (np.isfinite(wavelength).all() and (wavelength > 0).all()):
        raise SpectrumFileError(source, "wavelength", "values that are not finite or not positive", "Angstrom")
    step = np.diff(wavelength)
    is_boundary = np.zeros(len(step), dtype=bool)
    is_boundary[np.cumsum(segments)[:-1] - 1] = True
    if not (is_boundary | (step > 0)).all():
        first = int(np.flatnonzero(~is_boundary & (step <= 0))[0])
        found = f"{wavelength[first]} before {wavelength[first + 1]} at pixel {first}"
        raise SpectrumFileError(source, "wavelength", found, "strictly ascending values in each segment")
