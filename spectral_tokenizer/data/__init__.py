"""From the surveys' own FITS files to one kind of row: `load_survey`, at scale `prepare_survey`.

A survey is one module with one class; a further one is one more file and one more line in `SURVEYS`.
"""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from datasets import Dataset

from .apogee import APOGEE
from .builder import SpectraBuilder
from .desi import DESI
from .fits_access import SpectrumFileError
from .galah import GALAH
from .prepare import prepare_files
from .report import SurveyReport, survey_report
from .sdss import SDSS
from .sources import find_sources


__all__ = ["SURVEYS", "SpectrumFileError", "SurveyReport", "load_survey", "prepare_survey", "survey_report"]

SURVEYS: dict[str, type[SpectraBuilder]] = {"sdss": SDSS, "desi": DESI, "galah": GALAH, "apogee": APOGEE}

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
        data_files: a file, a glob, a folder (searched to any depth for the survey's file names); an address
            (``https://...``); an identifier as the survey's ``address`` takes it, which is downloaded from its
            archive; or several of these.
        base_url: of a mirror of the archive. By default the environment variable SPECTRAL_TOKENIZER_{SURVEY}_URL, such
            as SPECTRAL_TOKENIZER_DESI_URL, else the survey's own archive.
        cache_dir: where the result is kept; by default the cache of Hugging Face Datasets.
        num_proc: number of processes that read.
        strict: raise on the first damaged or foreign file. By default such files are skipped and counted.
        **options: the survey's own: ``sky=True`` (SDSS, DESI) keeps fibres on blank sky; ``bad_fibers=True``,
            ``simulated=True`` and ``redshifts="catalogue.fits"`` (DESI); ``catalogue="catalogue.fits"`` (GALAH).

    Raises:
        ValueError: an unknown survey.
        TypeError: an option that the survey does not have.
        FileNotFoundError: no files.
        SpectrumFileError: a damaged or foreign file, or one that the archive does not have, if `strict`.
        ConnectionError: the archive cannot be reached.
    """
    survey = find_survey(name)
    sources = find_sources(data_files, survey, base_url, cache_dir)
    absent = sources.fetch(sources.files)
    if strict and absent:
        raise next(iter(absent.values()))
    here = (file for file in sources.files if file not in sources.entries or os.path.exists(file))
    files = [file for file in here if file not in absent]
    options = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    if absent:
        options["absent"] = tuple(dict.fromkeys(error.args for error in absent.values()))
    builder = survey(cache_dir=cache_dir and str(cache_dir), files=tuple(files), strict=strict, **options)
    dataset = builder.build(num_proc)
    report = survey_report(dataset)
    logger.log(logging.WARNING if report.dropped or report.damaged else logging.INFO, "%s", report)
    return dataset


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
        ValueError: there is none.
    """
    if name not in SURVEYS:
        raise ValueError(f"unknown survey: found {name!r}; expected one of {sorted(SURVEYS)}")
    return SURVEYS[name]
