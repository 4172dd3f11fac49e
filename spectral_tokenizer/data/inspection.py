"""What files hold, without building anything from them: `inspect_files`."""

import fnmatch
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .builder import Dropped, SpectraBuilder, check_options, options_of
from .fits_access import SpectrumFileError
from .input_files import find_files
from .schema import LABELS


NOT_OBJECT_LABELS = ("ra", "dec", "snr")


@dataclass
class Inspection:
    """What one unit of files, usually one file, holds.

    Attributes:
        files: the unit's files.
        survey: the survey whose reader takes them; None if none does.
        product: the survey's name of the product, from the file's name.
        num_pixels: smallest and largest number of pixels of a spectrum.
        wavelength_range: of all spectra, vacuum Angstrom.
        frames: the frames of the wavelengths, with the number of spectra.
        snr: median signal to noise of each spectrum.
        usable: usable fraction of the pixels of each spectrum.
        classes: spectra by class.
        labels: known values of the other labels, by label.
        dropped: spectra that the reader leaves out, by reason.
        damage: why the files cannot be read, or None. The other attributes then count what was read before.
        examples: the first rows, as many as were asked for.
    """

    files: tuple[str, ...]
    survey: str | None = None
    product: str = ""
    num_pixels: tuple[int, int] = (0, 0)
    wavelength_range: tuple[float, float] = (np.nan, np.nan)
    frames: Counter[str] = field(default_factory=Counter)
    snr: list[float] = field(default_factory=list)
    usable: list[float] = field(default_factory=list)
    classes: Counter[str] = field(default_factory=Counter)
    labels: dict[str, list[float]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    damage: SpectrumFileError | None = None
    examples: list[dict] = field(default_factory=list, repr=False)

    @property
    def num_spectra(self) -> int:
        return len(self.snr)

    def add(self, row: dict) -> None:
        """Count one row of the reader."""
        length, wavelength = len(row["flux"]), row["wavelength"]
        first, last = float(np.min(wavelength)), float(np.max(wavelength))
        if self.num_spectra:
            first, last = min(first, self.wavelength_range[0]), max(last, self.wavelength_range[1])
            self.num_pixels = (min(length, self.num_pixels[0]), max(length, self.num_pixels[1]))
        else:
            self.num_pixels = (length, length)
        self.wavelength_range = (first, last)
        self.frames[row["frame"]] += 1
        self.snr.append(row["snr"])
        self.usable.append(float(np.mean(row["ivar"] > 0)))
        if row["class"] is not None:
            self.classes[row["class"]] += 1
        for name, value in LABELS.items():
            if value.dtype != "string" and name not in NOT_OBJECT_LABELS and np.isfinite(row[name]):
                self.labels.setdefault(name, []).append(float(row[name]))


def inspect_files(
    data_files: str | Path | Iterable[str | Path],
    surveys: dict[str, type[SpectraBuilder]],
    *,
    num_examples: int = 0,
    **options,
) -> Iterator[Inspection]:
    """Tell what each file holds, in the order of their names.

    A file is read by the survey whose file names it matches, then by the others until one takes it. It is read to its
    end, as a build would.

    Args:
        data_files: a file, a glob, a folder (searched to any depth for the surveys' file names), or several of these.
        surveys: the surveys that are asked.
        num_examples: rows to keep of each unit.
        **options: of the readers, as for `load_survey`; each survey takes those that it has.

    Raises:
        FileNotFoundError: no files.
    """
    file_names = [pattern for survey in surveys.values() for pattern in survey.FILE_NAMES]
    files = find_files(data_files, file_names)
    with tempfile.TemporaryDirectory() as cache_dir:
        readers = []
        for survey in surveys.values():
            chosen = {name: value for name, value in options.items() if name in options_of(survey)}
            readers.append(survey(cache_dir=cache_dir, files=tuple(files), **check_options(survey, chosen)))
        for unit, candidates in group_by_reader(files, readers):
            yield inspect_unit(unit, candidates, num_examples)


def group_by_reader(
    files: list[str], readers: list[SpectraBuilder]
) -> list[tuple[tuple[str, ...], list[SpectraBuilder]]]:
    """Units of files that are read together, each with the readers to ask, the likeliest first."""
    likeliest: dict[int, list[str]] = {}
    for file in files:
        first = likeliest_of(file, readers) or 0
        likeliest.setdefault(first, []).append(file)
    units = []
    for first, group in likeliest.items():
        candidates = [readers[first], *readers[:first], *readers[first + 1 :]]
        units += [(unit, candidates) for unit in readers[first].group_files(group)]
    return sorted(units, key=lambda unit: unit[0])


def likeliest_of(file: str, surveys: Sequence) -> int | None:
    """Which of several surveys (their readers, or the classes of these) a file is of by its name: where several would have
    it, the one whose pattern says most, as LAMOST's and not SDSS's spec-*.fits. None where none would."""
    patterns = (
        (len(pattern), -index)
        for index, survey in enumerate(surveys)
        for pattern in survey.FILE_NAMES
        if fnmatch.fnmatchcase(Path(file).name, pattern)
    )
    likeliest = max(patterns, default=None)
    return None if likeliest is None else -likeliest[1]


def inspect_unit(files: tuple[str, ...], readers: list[SpectraBuilder], num_examples: int) -> Inspection:
    """What one unit holds, by the first reader that takes it; if none does, the first one's complaint."""
    failed = None
    for reader in readers:
        found = Inspection(files, survey=reader.name, product=product_of(files[0]))
        try:
            for row in reader.rows(files):
                if isinstance(row, Dropped):
                    found.dropped[row.reason] += 1
                    continue
                if len(found.examples) < num_examples:
                    found.examples.append(row)
                found.add(row)
            return found
        except SpectrumFileError as error:
            found.damage = error
            if found.num_spectra:  # it is this survey's, but it breaks off
                return found
            if likeliest_of(files[0], [reader]) is None:
                found.survey = None
            failed = failed or found
    if failed.survey is None and failed.damage.args[1].startswith("HDU"):  # it is FITS, and nobody's
        file, *_, expected = failed.damage.args
        others = "rows of other files: load_table, specutils_adapter"
        failed.damage = SpectrumFileError(file, "file", "no spectra of a survey that has a reader here", others)
    return failed


def product_of(file: str) -> str:
    """The product in a file's name: ``spec``, ``coadd``, ``apStar``, ...; blank where the name begins with a
    number."""
    name = Path(file).name
    return "CCDs" if name[:1].isdigit() else name.split("-")[0].split(".")[0]
