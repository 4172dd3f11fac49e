"""From files to rows, written once for all surveys.

A survey is a subclass of `SpectraBuilder` with a `read` method that turns one unit of files (usually one file) into
rows. Here the rows are checked, counted and written as Arrow in pieces of bounded memory. `datasets` keeps the result
in its cache, in a folder named after the survey's module, the input files' fingerprint, the options, `VERSION` and the
class.
"""

import hashlib
import inspect
import itertools
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import get_args, get_type_hints

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import ArrowBasedBuilder, BuilderConfig, Dataset, DatasetInfo, Split, SplitGenerator
from datasets.builder import Key
from datasets.exceptions import DatasetGenerationError
from datasets.naming import camelcase_to_snakecase

from .archive import Address
from .catalogues import NOT_FOUND, Catalogue, CatalogueLayout, LabelCut, join_labels
from .fits_access import SpectrumFileError
from .input_files import fingerprint
from .plain import plain_labels, plain_pixels
from .report import FileRecord, SurveyReport
from .schema import FEATURES, FRAMES, LABELS, LSF_KINDS, SPECTRUM
from .tables import UnitRows, to_table
from .wavelengths import PLAUSIBLE


logger = logging.getLogger(__name__)

PATCH_SIZE = 32  # of every size in hub_configs
PIXELS_PER_BATCH = 2**20  # 20 bytes each: a record batch stays near 20 MB
MAX_STEP_CHANGE = 0.1  # of a step, from pixel to pixel; rounding to float32 changes it by 0.01 at most
MAX_FLOAT32, MIN_FLOAT32 = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
NEAR_MAX_FLOAT32 = 1e-4 * MAX_FLOAT32  # where 1 / error^2 overflows, other pixels have errors up to 100 times as large

NEEDED = ("object_id", "source", "frame", *SPECTRUM)  # of every row, from its reader
TEXTS = {name for name, value in FEATURES.items() if getattr(value, "dtype", "") == "string"}
GIVEN = "rows, a dict of columns each, or Dropped(reason), one after another by `yield`"
OPTION_KINDS = {bool: ("True or False", bool), int: ("an integer", Integral), float: ("a number", Real)}


@dataclass
class SurveyConfig(BuilderConfig):
    """What a build depends on. A survey's own options are further fields of a subclass.

    Args:
        files: the input files.
        strict: raise on the first damaged or foreign file, instead of skipping and counting it.
        absent: what an archive was asked for in vain: the parts of a `SpectrumFileError` each.
        catalogue: the survey's catalogue, a FITS table or a Parquet file, to take labels from.
        unreliable_labels: keep labels that the survey's own flags call unreliable.
    """

    files: tuple[str, ...] = ()
    strict: bool = False
    absent: tuple[tuple[str, str, str, str], ...] = ()
    catalogue: str | None = None
    unreliable_labels: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.catalogue is not None and not isinstance(self.catalogue, str):
            found = type(self.catalogue).__name__
            raise TypeError(f"catalogue: found a {found}; expected the path of a FITS table or a Parquet file")

    def companions(self) -> list[str]:
        """Existing files beside the input files that the reader looks into."""
        if self.catalogue is not None:
            return [self.catalogue]
        return [beside for beside in dict.fromkeys(map(self.beside, self.files)) if beside]

    def beside(self, file: str) -> str | None:
        """The catalogue that the survey puts beside a file, if it is there."""
        return None

    def create_config_id(self, config_kwargs: dict, custom_features=None) -> str:
        inputs = fingerprint([*self.files, *self.companions()])
        return super().create_config_id({**config_kwargs, "inputs": inputs}, custom_features)


@dataclass
class Dropped:
    """What a reader gives in place of a row that is left out on purpose; `reason` appears in the report."""

    reason: str


class SpectraBuilder(ArrowBasedBuilder):
    """Base class of the surveys' builders.

    A subclass sets the class attributes below and writes `read`. Raise `VERSION` with every change of a reader that
    can change a row: the cache knows changed files and options by itself, but not changed code.
    """

    BUILDER_CONFIG_CLASS = SurveyConfig
    VERSION = "1.0.0"
    FILE_NAMES: tuple[str, ...]
    HOMEPAGE = ""
    CITATION = ""
    #: What the survey asks those to print who publish something made from its spectra.
    ACKNOWLEDGEMENT = ""
    #: Vacuum Angstrom beyond which no spectrum of the survey goes. Where given, rows are checked by `check_grid`, else
    #: by `check_angstrom`.
    WAVELENGTHS: tuple[float, float] | None = None
    CATALOGUE: CatalogueLayout | None = None
    LABEL_CUTS: tuple[LabelCut, ...] = ()
    _catalogue: Catalogue | None = None
    _sought = _found = 0  # objects of this unit's files, in a catalogue that somebody named
    _beside: tuple[str, str | None] = ("", None)  # the latest file, and what is beside it
    _wavelength: np.ndarray | None = None  # the latest, checked: in some surveys those of many rows

    #: Base URL of the survey's archive, and what an identifier looks like that `address` takes.
    ARCHIVE = ""
    IDENTIFIER = "a path: this survey has no archive here"

    #: A list in which a build leaves a record per unit of files; None: only the report's numbers are kept.
    manifest: list[FileRecord] | None = None

    def __init_subclass__(cls, **arguments):
        super().__init_subclass__(**arguments)
        for cut in cls.LABEL_CUTS if cls.CATALOGUE else ():
            if not cut.of_file and cut.column not in cls.CATALOGUE.flags:
                raise ValueError(
                    f"{cls.__name__}.LABEL_CUTS: found {cut.name} of the column {cut.column}; expected that among the "
                    f"catalogue's flags {cls.CATALOGUE.flags}, or of_file=True"
                )

    def __init__(self, *arguments, **settings):
        # Datasets' place for what tells one builder's code from another's: two classes may stand in one module.
        settings.setdefault("hash", hashlib.sha256(reader_name(type(self)).encode()).hexdigest()[:16])
        super().__init__(*arguments, **settings)
        self._told: set[str] = set()

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
            Rows with the columns of `schema.FEATURES` (without ``snr``; what is unknown may be left out, and
            ``survey`` where it is the builder's), arrays in native byte order, or `Dropped`.

        Raises:
            SpectrumFileError: a file is damaged or is another product; then no row of the unit is taken.
        """
        raise NotImplementedError

    def join_labels(
        self,
        labels: dict,
        flags: dict[str, int],
        file: str,
        key: int | tuple[int, ...] | str | None,
        own: Iterable[str] = (),
    ) -> dict:
        """An object's labels from its own `file` and from the catalogue, as far as the survey's flags trust them; see
        `catalogues.join_labels`.

        Raises:
            ValueError: flags that no cut looks at, or a catalogue that cannot be joined: the reader has to be changed.
        """
        if dead := sorted(flags.keys() - {cut.column for cut in self.LABEL_CUTS}):
            raise ValueError(f"flags: found {dead}; expected some of {[cut.column for cut in self.LABEL_CUTS]}")
        if self._beside[0] != file:  # a file system of a cluster is not to be asked once per row
            self._beside = file, self.config.beside(file)
        path = self.config.catalogue or self._beside[1]
        if path is not None and self.CATALOGUE is None:
            raise ValueError(f"catalogue: found {path}; expected none, as {self.name} has no identifiers to join by")
        if path is not None and (self._catalogue is None or self._catalogue.path != path):
            self._catalogue = Catalogue(path, self.CATALOGUE)  # the latest one alone stays in memory
        catalogue = None if path is None else self._catalogue
        is_beside, keep = self.config.catalogue is None, self.config.unreliable_labels
        joined = join_labels(labels, flags, self.LABEL_CUTS, catalogue, key, keep, own, is_beside)
        if not is_beside:
            self._sought += 1
            self._found += NOT_FOUND not in (joined["label_warnings"] or "")
        return joined

    def group_files(self, files: Iterable[str]) -> list[tuple[str, ...]]:
        """The units that `read` takes; one file each unless a subclass says otherwise."""
        return [(file,) for file in files]

    def source_name(self, path: str) -> str:
        """A file's name, as a row's ``source`` begins with it; where other input files have the same, after the folders
        that tell it from them."""
        folder = self._shared_names.get(os.path.basename(path))
        return os.path.basename(path) if folder is None else Path(os.path.relpath(path, folder)).as_posix()

    @cached_property
    def _shared_names(self) -> dict[str, str]:
        """Names that several input files have -> the folder that all of those are in."""
        named: dict[str, list[str]] = {}
        for file in self.config.files:
            named.setdefault(os.path.basename(file), []).append(file)
        return {name: os.path.commonpath(files) for name, files in named.items() if len(files) > 1}

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
            SpectrumFileError: as `read` and `check_given`, also after the first rows.
        """
        given, is_empty = self.read(files), True
        if not isinstance(given, Iterable):
            raise SpectrumFileError(files[0], "read", repr(given), GIVEN)
        for row in given:
            is_empty = False
            yield row if isinstance(row, Dropped) else self._finish(check_given(files[0], row))
        # As of a `read` that returns where it should yield; one that yields may have found a file without rows.
        if is_empty and not inspect.isgeneratorfunction(self.read) and "read" not in self._told:
            logger.warning("%s", SpectrumFileError(files[0], "read", "nothing", GIVEN))
            self._told.add("read")

    def _generate_tables(self, units: list[tuple[str, ...]]) -> Iterator[tuple[Key, pa.Table]]:
        # One number for all units: batches span them, and Datasets 5.0.0 fails where one gave no row.
        self._report, keys = SurveyReport(survey=self.name), (Key(0, batch) for batch in itertools.count())
        rows: list[dict] = []  # of small units, until they make a batch
        for files in units:
            with UnitRows(PIXELS_PER_BATCH) as unit:
                if not self._read_unit(files, unit):
                    continue
                for table in unit.spilled():
                    if rows:
                        yield next(keys), to_table(rows)
                        rows = []
                    yield next(keys), table
                rows += unit.rows
            if sum(len(row["flux"]) for row in rows) >= PIXELS_PER_BATCH:
                yield next(keys), to_table(rows)
                rows = []
        if rows:
            yield next(keys), to_table(rows)

    def _read_unit(self, files: tuple[str, ...], unit: UnitRows) -> bool:
        """Read all of one unit and account for it; False if it is damaged, then none of its rows may be used."""
        record = FileRecord(self.name, list(files))
        self._sought = self._found = 0
        try:
            for row in self.rows(files):
                if isinstance(row, Dropped):
                    record.dropped[row.reason] += 1
                else:
                    unit.append(row)
            record.rows, record.sought, record.found = unit.count, self._sought, self._found
        except SpectrumFileError as error:
            # A catalogue that somebody named is no spectrum's damage: all files would fail for the same reason.
            if self.config.strict or error.args[0] == self.config.catalogue:
                raise
            record = FileRecord(self.name, list(files), damage=error)
        self._report.add_file(record)
        if self.manifest is not None:
            self.manifest.append(record)
        return record.damage is None

    def _finish(self, row: dict) -> dict | Dropped:
        finished = finish_row({"survey": self.name, **row}, self._told)
        if isinstance(finished, Dropped):
            return finished
        if not has_patch(finished["ivar"] > 0, finished["segment_lengths"]):
            return Dropped(f"no patch of {PATCH_SIZE} pixels of which half are usable")
        if self._wavelength is None or not np.array_equal(finished["wavelength"], self._wavelength):
            if self.WAVELENGTHS:
                check_grid(finished, *self.WAVELENGTHS)
            else:
                check_angstrom(finished["source"], finished["wavelength"])
            # A copy, as a reader may write into its array again for the next row.
            self._wavelength = np.array(finished["wavelength"], dtype=np.float64)
        return finished | {"wavelength": self._wavelength}

    def _prepare_split_single(self, gen_kwargs, fpath, file_format, max_shard_size, job_id):
        # Runs in the worker. Its part of the report lies beside its Arrow files until `_prepare_split` adds them up.
        try:
            yield from super()._prepare_split_single(gen_kwargs, fpath, file_format, max_shard_size, job_id)
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, SpectrumFileError | OSError):
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


def survey_name(survey: type[SpectraBuilder]) -> str:
    """The survey's name, which is its module's, as Datasets writes it."""
    return camelcase_to_snakecase(survey.__module__.split(".")[-1])


def reader_name(survey: type[SpectraBuilder]) -> str:
    """What tells a reader from others: module and class; of a script, as every one is ``__main__``, its file."""
    module = survey.__module__
    if module == "__main__":
        module = os.path.abspath(getattr(sys.modules[module], "__file__", ""))
    return f"{module}:{survey.__qualname__}"


def options_of(survey: type[SpectraBuilder]) -> dict[str, type]:
    """The reader's options and their types, without None: what its configuration has besides Datasets' own fields and
    what is no choice."""
    others = {*BuilderConfig.__dataclass_fields__, "files", "strict", "absent"}
    # Not the fields' own types, which are text where a module imports annotations from the future.
    hints = get_type_hints(survey.BUILDER_CONFIG_CLASS)
    names = (name for name in survey.BUILDER_CONFIG_CLASS.__dataclass_fields__ if name not in others)
    return {name: without_none(hints[name]) for name in names}


def without_none(hint: type) -> type:
    """``int`` of ``int | None``; other types as they are."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 and NoneType in get_args(hint) else hint


def check_options(survey: type[SpectraBuilder], options: Mapping) -> dict:
    """Options as the reader takes them, paths as text.

    Raises:
        TypeError: the reader does not have one of them, or expects True or False or a number there.
    """
    known = options_of(survey)
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"options: found {unknown}; expected some of {sorted(known)}")
    options = {name: as_kind(name, value, known[name]) for name, value in options.items()}
    # Not by `Path`: Datasets puts a class of its own in its place, in modules with a builder.
    return {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in options.items()}


def as_kind(name: str, value: object, kind: type) -> object:
    """An option's value as its type has it, where that is one of `OPTION_KINDS`; None, where allowed, as it is.

    Raises:
        TypeError: it is another, such as text, which is True and no number.
    """
    if kind not in OPTION_KINDS or (value is None and kind is not bool):
        return value
    expected, allowed = OPTION_KINDS[kind]
    if not isinstance(value, allowed) or isinstance(value, bool) != (kind is bool):
        raise TypeError(f"{name}: found {value!r}; expected {expected}")
    return kind(value)


def check_given(file: str, row: object) -> dict:
    """A reader's row, of which later code may take for granted that it is one; its identifier as text.

    Raises:
        SpectrumFileError: it is none, lacks a column, or has another thing than text or whole numbers in one.
    """
    if not isinstance(row, Mapping):
        raise SpectrumFileError(file, "read", repr(row)[:80], GIVEN)
    if missing := [name for name in NEEDED if row.get(name) is None]:
        raise SpectrumFileError(file, f"columns {missing}", "none, or None", "those in every row")
    if isinstance(row["object_id"], Integral) and not isinstance(row["object_id"], bool):
        row = {**row, "object_id": str(row["object_id"])}
    if missing := [name for name in (TEXTS & row.keys()) - set(NEEDED) if is_missing(row[name])]:
        row = {**row, **dict.fromkeys(missing)}
    for name in TEXTS & row.keys():
        if not isinstance(row[name], str | NoneType) or (name in NEEDED and not row[name].strip()):
            expected = "text, or an integer" if name == "object_id" else "text"
            raise SpectrumFileError(file, f"column {name}", repr(row[name]), expected)
    lengths = np.asarray(row["segment_lengths"])
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        expected = "the pixels of each arm, as a list of whole numbers"
        raise SpectrumFileError(file, "column segment_lengths", repr(row["segment_lengths"]), expected)
    return row


def is_missing(text: object) -> bool:
    """Whether a column of text has what numpy or pandas has there for none: NaN, a masked value, NA."""
    return text is pd.NA or text is np.ma.masked or (isinstance(text, float | np.floating) and math.isnan(text))


def finish_row(row: dict, told: set[str]) -> dict | Dropped:
    """Fill in what is missing, state bad pixels once (ivar = 0) and check all that later code relies on.

    Args:
        row: as `SpectraBuilder.read` gives it.
        told: as `plain_labels` has it.

    Raises:
        SpectrumFileError: as `plain_pixels`, `check_row` and `check_float32`.
    """
    missing = {name: None if value.dtype == "string" else np.nan for name, value in LABELS.items()}
    row = plain_labels(plain_pixels({"lsf_sigma": None, "lsf_kind": None, **missing, **row}), told)
    flux, ivar = row["flux"], row["ivar"]
    check_row(row)
    row["lsf_sigma"] = fill_resolution(row["lsf_sigma"], row["segment_lengths"])
    row["lsf_kind"] = row["lsf_kind"] if len(row["lsf_sigma"]) else None
    check_float32(row["source"], flux, ivar)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows float32 is as useless as infinity
        flux, ivar = flux.astype(np.float32, copy=False), ivar.astype(np.float32, copy=False)
    is_finite = np.isfinite(flux)
    is_usable = is_finite & (ivar > 0) & (ivar <= MAX_FLOAT32)
    row["flux"], row["ivar"] = np.where(is_finite, flux, np.float32(0)), np.where(is_usable, ivar, np.float32(0))
    if not is_usable.any():
        return Dropped("no usable pixel")
    row["snr"] = float(np.median(row["flux"][is_usable] * np.sqrt(row["ivar"][is_usable])))
    return row


def check_float32(source: str, flux: np.ndarray, ivar: np.ndarray) -> None:
    """Check that flux and ivar fit: of flux in erg/s/cm2/A as it is, 1e-17 and so on, ivar does not, of the best
    pixels first. Infinite ivar is an error of 0, of a bad pixel; but in float32, beside others that hardly fit, it is
    what became of a good one.

    Raises:
        SpectrumFileError: too much of them does not. One pixel in a hundred may hold anything.
    """
    size, is_too_large = np.abs(flux), ivar > MAX_FLOAT32
    is_float32 = ivar.dtype.itemsize == 4
    has_overflowed = is_float32 and is_too_large.any() and (ivar[~is_too_large] > NEAR_MAX_FLOAT32).any()
    is_too_large &= np.isfinite(flux if has_overflowed else ivar)
    misfits = (
        ("ivar", ivar, is_too_large, "flux in a larger unit, such as 1e-17 erg/s/cm2/A"),
        ("ivar", ivar, (ivar > 0) & (ivar < MIN_FLOAT32), "flux in a smaller unit"),
        ("flux", flux, (size > MAX_FLOAT32) & np.isfinite(size), "flux in a smaller unit"),
    )
    for name, values, is_wrong, expected in misfits:
        if is_wrong.sum() > 0.01 * len(values):
            found = f"numbers like {values[is_wrong][0]:.2g}, which float32 does not hold, in {is_wrong.sum()} pixels"
            raise SpectrumFileError(source, f"column {name}", found, expected)


def has_patch(is_usable: np.ndarray, segment_lengths: Sequence[int]) -> bool:
    """Whether a processor of `PATCH_SIZE` finds a valid patch: one spectrum without any would end a run of days."""
    ends = np.cumsum(segment_lengths)
    starts = np.concatenate([np.arange(end - length, end, PATCH_SIZE) for end, length in zip(ends, segment_lengths)])
    return bool((2 * np.add.reduceat(is_usable, starts, dtype=np.int64) >= PATCH_SIZE).any())


def check_row(row: dict) -> None:
    """Check that a row is what `schema` promises.

    Raises:
        SpectrumFileError: naming the source, the column, what was found and what was expected.
        ValueError: the reader made a column up.
    """
    if unknown := set(row) - set(FEATURES):
        raise ValueError(f"columns {sorted(unknown)} are not in the schema")
    source, wavelength, segments = row["source"], row["wavelength"], np.asarray(row["segment_lengths"])
    if row["frame"] not in FRAMES:
        raise SpectrumFileError(source, "frame", row["frame"], f"one of {FRAMES}")
    if row["lsf_sigma"] is not None and row["lsf_kind"] not in LSF_KINDS:
        raise ValueError(f"lsf_kind: found {row['lsf_kind']!r} beside lsf_sigma; expected one of {LSF_KINDS}")
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


def check_grid(row: dict, low: float, high: float) -> None:
    """Check that wavelengths are those of a spectrograph: in its range, and in steps that change slowly.

    Raises:
        SpectrumFileError: they are in another unit, or some were damaged and still ascend.
    """
    wavelength, ends = row["wavelength"], np.cumsum(row["segment_lengths"])
    if not low <= wavelength.min() <= wavelength.max() <= high:
        found = f"{wavelength.min():g} to {wavelength.max():g}"
        raise SpectrumFileError(row["source"], "wavelength", found, f"{low:g} to {high:g} Angstrom")
    step = np.diff(wavelength)
    is_inside = np.ones(len(step), dtype=bool)
    is_inside[ends[:-1] - 1] = False  # from one segment to the next
    is_wrong = (np.abs(np.diff(step)) > MAX_STEP_CHANGE * np.abs(step[1:])) & is_inside[1:] & is_inside[:-1]
    if is_wrong.any():
        first = int(np.argmax(is_wrong)) + 1
        found = f"{wavelength[first - 1 : first + 2].tolist()} at pixel {first}"
        raise SpectrumFileError(row["source"], "wavelength", found, "steps that change slowly")


def check_angstrom(source: str, wavelength: np.ndarray) -> None:
    """Raise `SpectrumFileError` for what must be in nanometres, microns or a logarithm, before a model's processor does."""
    low, high = PLAUSIBLE
    if len(wavelength) and not (low <= wavelength.min() and wavelength.max() <= high):
        found = f"{wavelength.min():g} to {wavelength.max():g}"
        raise SpectrumFileError(source, "column wavelength", found, f"Angstrom, from {low:g} to {high:g}")


def fill_resolution(sigma: np.ndarray | None, segment_lengths: Iterable[int]) -> np.ndarray:
    """`lsf_sigma` as `schema` promises it: unknown pixels interpolated from the known ones of their segment.

    Returns:
        (num_pixels,) float32; empty if nothing is known.
    """
    sigma = np.zeros(0) if sigma is None else np.array(sigma, dtype=np.float32)
    is_known = np.isfinite(sigma) & (sigma > 0)
    if not is_known.any():
        return np.zeros(0, dtype=np.float32)
    if not is_known.all():
        ends = np.cumsum(segment_lengths)
        for start, end in zip(ends - segment_lengths, ends):
            known = start + np.flatnonzero(is_known[start:end])
            pixels = np.arange(start, end)
            sigma[start:end] = np.interp(pixels, known, sigma[known]) if len(known) else 0
    return sigma
