"""From the surveys' own files, or from tables, to one kind of row: `load_survey`, `load_table`; at scale
`prepare_survey`, read back by `load_prepared`.

A survey is one module with one class; a further one is one more file and one more line in `SURVEYS`.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from datasets import Dataset

from .apogee import APOGEE
from .builder import SpectraBuilder, check_options, survey_name
from .desi import DESI
from .fits_access import SpectrumFileError
from .galah import GALAH
from .lamost import LAMOST
from .multimodal_universe import MultimodalUniverse
from .prepare import prepare_files
from .prepared import load_prepared
from .report import SurveyReport, survey_report, warn_of_catalogue
from .sdss import SDSS
from .sources import find_sources
from .table import Table


__all__ = [
    "SURVEYS",
    "SpectrumFileError",
    "SurveyReport",
    "load_multimodal_universe",
    "load_prepared",
    "load_survey",
    "load_table",
    "prepare_survey",
    "survey_report",
]

SURVEYS: dict[str, type[SpectraBuilder]] = {
    "sdss": SDSS,
    "desi": DESI,
    "galah": GALAH,
    "apogee": APOGEE,
    "lamost": LAMOST,
}

logger = logging.getLogger(__name__)


def load_survey(
    name: str,
    data_files: str | Path | int | Iterable[str | Path | int],
    *,
    base_url: str | None = None,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
    strict: bool = False,
    **options,
) -> Dataset:
    """Read a survey's FITS files into a dataset with one row per spectrum.

    The rows have the columns of `spectral_tokenizer.data.schema.FEATURES`: native pixels, ``wavelength`` in vacuum
    Angstrom in the frame that the row names, ``flux`` in the survey's unit, ``ivar`` in its inverse square with 0 for
    unusable pixels. The result is cached on disk; changed input files, companion files or options build it anew.
    What was dropped and why is logged as a warning, and stays with the dataset: `survey_report`.

    Wavelengths are stored as float64. The formats "numpy" and "torch" of a dataset hand out float32 unless told
    otherwise, which is wrong by up to 1e-3 Angstrom: read that column in format "arrow", or with ``dtype``.

    Args:
        name: one of `SURVEYS`.
        data_files: a file, a glob, a folder (searched to any depth, links followed, for the survey's file names); an
            address (``https://...``); an identifier as the survey's ``address`` takes it, which is downloaded from its
            archive; or several of these.
        base_url: of a mirror of the archive. By default the environment variable SPECTRAL_TOKENIZER_{SURVEY}_URL, such
            as SPECTRAL_TOKENIZER_DESI_URL, else the survey's own archive.
        cache_dir: where the result is kept; by default the cache of Hugging Face Datasets.
        num_proc: number of processes that read.
        strict: raise on the first damaged or foreign file. By default such files are skipped and counted, as long as a
            folder has others too.
        **options: of every survey: ``catalogue="allStar.fits"`` takes labels from the survey's catalogue, a FITS table
            or a Parquet file, joined by its identifier (the log warns where it holds fewer than half of the spectra);
            ``unreliable_labels=True`` keeps labels that the survey's flags call unreliable and that are blank
            otherwise (the column ``label_warnings`` names the flags in both cases). Of some: ``sky=True`` (SDSS, DESI,
            LAMOST) keeps fibres on blank sky; ``bad_fibers=True`` and ``simulated=True`` (DESI) keep those;
            ``exposures=True`` (SDSS, DESI) and ``visits=True`` (APOGEE) give single exposures, or the visits inside
            apStar files.

    Raises:
        ValueError: an unknown survey.
        TypeError: an option that the survey does not have, or a value that it does not take.
        FileNotFoundError: no files.
        SpectrumFileError: a damaged or foreign file, or one that the archive does not have, if `strict`; a folder of
            such files alone; a ``catalogue`` that cannot be read.
        ConnectionError: the archive cannot be reached.
    """
    return _load(find_survey(name), data_files, cache_dir, num_proc, strict, options, base_url)


def load_table(
    data_files: str | Path | Iterable[str | Path],
    *,
    survey: str | None = None,
    frame: str | None = None,
    medium: str = "vacuum",
    columns: Mapping[str, str] | None = None,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
    strict: bool = False,
) -> Dataset:
    """Read tables that hold the canonical columns already, in Parquet, Arrow or HDF5, checked as a survey's files are.

    A damaged row is left out and counted by itself; otherwise as `load_survey`.

    Args:
        data_files: as `load_survey`; folders are searched for tables.
        survey: name of the survey, where there is no such column.
        frame: one of `schema.FRAMES`, where there is no such column.
        medium: "vacuum", or "air": then wavelengths are converted.
        columns: canonical column -> the file's name for it, where they differ; it has to be there.
        cache_dir, num_proc, strict: as `load_survey`.

    Raises:
        ValueError: an unknown medium or canonical column.
        TypeError: a table in memory, or `columns` that are no dict.
        FileNotFoundError, SpectrumFileError: as `load_survey`, and as `load_prepared` where a shard is missing beside
            others.
        ImportError: a file is HDF5 and h5py is not installed.
    """
    if not isinstance(columns, Mapping | None):
        raise TypeError(f"columns: found {columns!r}; expected a dict, canonical column -> the file's name for it")
    names = tuple(sorted((columns or {}).items()))
    options = {"survey": survey, "frame": frame, "medium": medium, "columns": names}
    return _load(Table, data_files, cache_dir, num_proc, strict, options)


def load_multimodal_universe(
    name: str,
    data_files: str | Path | Iterable[str | Path],
    *,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
    strict: bool = False,
    unreliable_labels: bool = False,
) -> Dataset:
    """Read a survey from MultimodalUniverse's HDF5 or Parquet files; `multimodal_universe` tells what is put right.

    Args:
        name: sdss, desi, galah or apogee.
        data_files: as `load_survey`.
        cache_dir, num_proc, strict, unreliable_labels: as `load_survey`.

    Raises:
        ValueError: an unknown survey.
        FileNotFoundError, SpectrumFileError, ImportError: as `load_table`.
    """
    options = {"survey": name, "unreliable_labels": unreliable_labels}
    return _load(MultimodalUniverse, data_files, cache_dir, num_proc, strict, options)


def _load(
    builder_class: type[SpectraBuilder],
    data_files: str | Path | Iterable[str | Path],
    cache_dir: str | Path | None,
    num_proc: int | None,
    strict: bool,
    options: dict,
    base_url: str | None = None,
) -> Dataset:
    options = check_options(builder_class, options)
    if isinstance(data_files, Mapping) or hasattr(data_files, "columns") or hasattr(data_files, "column_names"):
        expected = "files; a table in memory is one once it is written, by `to_parquet` or astropy's `write`"
        raise TypeError(f"data_files: found a {type(data_files).__name__}; expected {expected}")
    entries = [data_files] if isinstance(data_files, (str, Path, int)) else list(data_files)
    sources = find_sources(entries, builder_class, base_url, cache_dir)
    absent = sources.fetch(sources.files)
    if strict and absent:
        raise next(iter(absent.values()))
    here = (file for file in sources.files if file not in sources.entries or os.path.exists(file))
    files = [file for file in here if file not in absent]
    if absent:
        options["absent"] = tuple(dict.fromkeys(error.args for error in absent.values()))
    builder = builder_class(cache_dir=cache_dir and str(cache_dir), files=tuple(files), strict=strict, **options)
    dataset = builder.build(num_proc)
    report = survey_report(dataset)
    check_some_are_read(builder_class, entries, report)
    warn_of_catalogue(report, options.get("catalogue"), builder_class.CATALOGUE)
    logger.log(logging.WARNING if report.dropped or report.damaged else logging.INFO, "%s", report)
    return dataset


def check_some_are_read(
    builder_class: type[SpectraBuilder], entries: list[str | Path | int], report: SurveyReport
) -> None:
    """Files that the reader found in a folder by their names, and reads none of, are another survey's, or an option is
    wrong. Whoever names or globs files takes them whatever their names, and reads what they are from the report.

    Raises:
        SpectrumFileError: there is a folder among the entries, and nothing came of any.
    """
    folders = [str(entry) for entry in entries if os.path.isdir(os.path.expanduser(str(entry)))]
    if folders and report.damaged and not report.rows and not report.dropped:
        found = f"{report.files} files, all of them damaged or foreign, the first: {report.messages[0]}"
        expected = f"at least one that the reader {builder_class.__name__} reads"
        raise SpectrumFileError(", ".join(folders), "files", found, expected)


def prepare_survey(
    name: str, data_files: str | Path | int | Iterable[str | Path | int], output: str | Path, **arguments
) -> SurveyReport:
    """Write a survey's rows as Parquet with a manifest, resumable by shard: `prepare.prepare_files`, by the name.

    Args:
        name: one of `SURVEYS`.
        data_files, output, **arguments: as `prepare.prepare_files` has them.

    Raises:
        ValueError: an unknown survey, or as `prepare.prepare_files`.
    """
    return prepare_files(find_survey(name), data_files, output, **arguments)


def find_survey(name: str) -> type[SpectraBuilder]:
    """The survey of that name.

    Raises:
        ValueError: there is none, or its rows would have another name, that of its file.
    """
    if name not in SURVEYS:
        raise ValueError(f"unknown survey: found {name!r}; expected one of {sorted(SURVEYS)}")
    survey = SURVEYS[name]
    if survey_name(survey) != name:
        found, own = f"{survey.__name__} of the module {survey.__module__}", survey_name(survey)
        raise ValueError(
            f"SURVEYS[{name!r}]: found {found}; expected a class in {name}.py, or SURVEYS[{own!r}]: a survey's name is its "
            "file's, in lower case with underscores"
        )
    return survey
