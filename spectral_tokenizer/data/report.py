"""What became of the input files: how many spectra they gave, what was dropped, and why."""

import json
import logging
from collections import Counter
from dataclasses import dataclass, field

from datasets import Dataset

from .catalogues import CatalogueLayout
from .fits_access import SpectrumFileError


logger = logging.getLogger(__name__)

MAX_MESSAGES = 100


@dataclass
class FileRecord:
    """What became of one unit of files, usually one file: a line of the manifest.

    Attributes:
        survey: the survey's name.
        files: the unit's files.
        rows: number of spectra taken.
        dropped: spectra that were read and left out, by reason.
        damage: why nothing was taken, or None.
        sought: spectra whose objects were looked up in a catalogue that somebody named.
        found: those of them that it holds.
    """

    survey: str
    files: list[str]
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    damage: SpectrumFileError | None = None
    sought: int = 0
    found: int = 0

    def to_json(self) -> str:
        """One line, with the same fields in every line."""
        damage = None
        if self.damage is not None:
            damage = dict(zip(("file", "field", "found", "expected"), self.damage.args))
        return json.dumps(vars(self) | {"damage": damage})  # ASCII: names of files may be no valid Unicode

    @classmethod
    def from_json(cls, text: str) -> "FileRecord":
        line = json.loads(text)
        line["dropped"] = Counter(line["dropped"])
        if line["damage"] is not None:
            line["damage"] = SpectrumFileError(**line["damage"])
        return cls(**line)


@dataclass
class SurveyReport:
    """The account of one build.

    Attributes:
        survey: the survey's name.
        files: number of files given.
        rows: number of spectra in the dataset.
        dropped: spectra that were read and left out, by reason: selections such as sky fibres, and
            ``"no usable pixel"``.
        damaged: number of damaged or foreign files or groups of files (a GALAH star is one group of CCD files), from
            which no row was taken.
        messages: the first 100 error messages of these.
        sought: spectra whose objects were looked up in a catalogue that somebody named.
        found: those of them that it holds.
    """

    survey: str
    files: int = 0
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    messages: list[str] = field(default_factory=list)
    sought: int = 0
    found: int = 0

    def add(self, other: "SurveyReport") -> None:
        """Add another part's numbers to this report."""
        self.files += other.files
        self.rows += other.rows
        self.dropped.update(other.dropped)
        self.damaged += other.damaged
        self.messages = (self.messages + other.messages)[:MAX_MESSAGES]
        self.sought += other.sought
        self.found += other.found

    def add_file(self, record: FileRecord) -> None:
        """Count one unit of files."""
        self.files += len(record.files)
        self.rows += record.rows
        self.dropped.update(record.dropped)
        self.sought += record.sought
        self.found += record.found
        if record.damage is not None:
            self.damaged += 1
            self.messages = (self.messages + [str(record.damage)])[:MAX_MESSAGES]

    def to_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> "SurveyReport":
        report = cls(**json.loads(text))
        report.dropped = Counter(report.dropped)
        return report

    def __str__(self) -> str:
        text = f"{self.survey}: {self.rows} spectra from {self.files} files"
        if self.dropped:
            text += "; dropped " + ", ".join(f"{n} ({reason})" for reason, n in sorted(self.dropped.items()))
        if self.sought:
            text += f"; {self.found} of {self.sought} spectra are of objects in the catalogue"
        if self.damaged:
            text += f"; {self.damaged} damaged or foreign, the first: {self.messages[0]}"
        return text


def warn_of_catalogue(report: SurveyReport, catalogue: str | None, layout: CatalogueLayout | None) -> None:
    """Of a catalogue that somebody named, and that is another survey's, data release's or only a sample's, no spectrum
    would have its labels: the log warns where it holds fewer than half of them. It is no error, as a small table of
    somebody's own rightly holds none of some files.

    Args:
        report: of what was read with it.
        catalogue: its path, if one was named.
        layout: the survey's, if it has catalogues.
    """
    if 2 * report.found < report.sought:
        found, expected = f"{report.found} of {report.sought} spectra", f"the objects of {report.survey}'s files"
        logger.warning("%s", SpectrumFileError(catalogue, f"columns {list(layout.key)}", found, expected))


def survey_report(dataset: Dataset) -> SurveyReport:
    """The report of the build that `dataset` comes from.

    It stands in the dataset's own info, which is written together with the Arrow files; so it is there, and the same,
    when the dataset comes from the cache, was selected from, saved or shuffled. It always describes the whole build.

    Raises:
        ValueError: the dataset does not come from `load_survey`.
    """
    try:
        return SurveyReport.from_json(dataset.info.description)
    except (ValueError, TypeError) as error:
        raise ValueError(f"not a dataset of load_survey: its description is {dataset.info.description!r}") from error
