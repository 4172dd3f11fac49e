"""The page: what stands where, and what happens when something is dropped, chosen or pressed."""

import contextlib
import functools
import logging
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import gradio as gr
import numpy as np
import words
from plot import draw_bins, draw_spectrum
from prediction import Answer, HiddenRangeError, Models, spectrum_of
from reading import Reader, Reading
from settings import Settings


MAX_NAME = 200  # bytes of a file's name
FAULT = "Something went wrong on this page's side, not on yours. It is in the log."
NO_HEADS = "No head is loaded, so the model names no labels here: HEADS may name fine-tuned models."
NO_REFERENCE = "There are no neighbours without a reference: REFERENCE may name a folder of embeddings."

logger = logging.getLogger(__name__)


def uploaded(payload) -> list[tuple[str, str]]:
    """Paths of files that were dropped, and the names that they had. Gradio hands over paths alone, whose names have
    lost characters such as the "+" of APOGEE's."""
    return [(each.path, each.orig_name or Path(each.path).name) for each in payload or []]


def guarded(part: str) -> Callable:
    """A handler that puts a message into a part of the page whatever happens in it."""

    def guard(handle: Callable) -> Callable:
        @functools.wraps(handle)
        def answer(self, *arguments):
            try:
                return handle(self, *arguments)
            except Exception:
                logger.exception(handle.__name__)
                return {getattr(self, part): words.notice(FAULT)}

        return answer

    return guard


class Page:
    """The page's parts, and what they do.

    Args:
        settings, models, reader: what it shows and reads with.
        examples: words -> files that visitors may choose instead of their own.
    """

    def __init__(self, settings: Settings, models: Models, reader: Reader, examples: dict[str, list[str]]):
        self.settings, self.models, self.reader, self.examples = settings, models, reader, examples
        self.blocks = gr.Blocks(
            title="Spectral tokenizer", analytics_enabled=False, delete_cache=(60, 600), fill_width=False
        )
        with self.blocks:
            self.lay_out()
            self.connect()
        self.blocks.queue(max_size=settings.queue_size)

    def lay_out(self) -> None:
        """What stands where."""
        gr.HTML(words.header(self.models), js_on_load=None)
        with gr.Row(elem_id="choose-file", equal_height=True):
            self.upload = gr.File(
                label=f"FITS file, at most {self.settings.max_megabytes} MB",
                file_count="multiple", elem_id="upload",
            )  # fmt: skip
            self.upload.preprocess = uploaded
            # Radio buttons, as Gradio's lists stay open over the page when the keyboard leaves them.
            self.example = gr.Radio(list(self.examples), value=None, label="Or an example", elem_id="example")
        self.recognised = gr.HTML(elem_id="recognised", js_on_load=None)
        self.rows = gr.State([], time_to_live=3600)
        with gr.Column(visible=False, elem_id="results") as self.results:
            self.chosen = gr.Radio([], label="Spectrum", elem_id="spectrum", visible=False)
            self.plot = gr.Plot(label="Spectrum, reconstruction, residuals in σ", show_label=False, elem_id="plot")
            self.numbers = gr.HTML(elem_id="numbers", js_on_load=None)
            with gr.Row(elem_id="hide", visible=self.models.model is not None):
                self.low = gr.Number(label="Hide from [Å]", elem_id="low", min_width=120)
                self.high = gr.Number(label="to [Å]", elem_id="high", min_width=120)
                self.hide = gr.Button("Hide and predict", variant="primary", elem_id="hide-range", min_width=120)
                self.random = gr.Button("A random block", elem_id="hide-random", min_width=120)
                self.show = gr.Button("Hide nothing", elem_id="hide-nothing", min_width=120)
            self.notice = gr.HTML(elem_id="notice", js_on_load=None)
            with gr.Tabs():
                with gr.Tab("Class, redshift, stellar labels"):
                    self.labels = gr.HTML(elem_id="labels", js_on_load=None)
                    self.bins = gr.Plot(label="Probability", show_label=False, elem_id="bins", visible=False)
                with gr.Tab("Nearest neighbours"):
                    self.neighbours = gr.HTML(elem_id="neighbours", js_on_load=None)

    def connect(self) -> None:
        """What happens when something is dropped, chosen or pressed."""
        hidden = [self.plot, self.numbers, self.low, self.high, self.notice]
        spectrum = [*hidden, self.labels, self.bins, self.neighbours]
        whole = [self.recognised, self.rows, self.results, self.chosen, self.upload, self.example, *spectrum]
        place = [self.rows, self.chosen]
        quiet = {"api_visibility": "private", "show_progress_on": self.recognised}
        self.upload.upload(self.receive, self.upload, whole, concurrency_limit=2, concurrency_id="read", **quiet)
        self.example.input(self.receive_example, self.example, whole, concurrency_id="read", **quiet)
        quiet["show_progress_on"] = self.plot
        self.chosen.input(self.choose, place, spectrum, **quiet)
        self.hide.click(self.hide_range, [*place, self.low, self.high], hidden, **quiet)
        for number in (self.low, self.high):
            number.submit(self.hide_range, [*place, self.low, self.high], hidden, **quiet)
        self.random.click(self.hide_random, place, hidden, **quiet)
        self.show.click(self.hide_nothing, place, hidden, **quiet)

    # Files

    @guarded("recognised")
    def receive(self, uploads: list[tuple[str, str]]) -> dict:
        """Read what was dropped, and forget the files."""
        with self.taken(uploads) as files:
            if len(files) > self.settings.max_files:
                reading = Reading(
                    problem=f"Found {len(files)} files; expected at most {self.settings.max_files} together."
                )
            elif not files:
                reading = Reading(problem="The files are no longer here. Drop them again.")
            else:
                reading = self.reader.read(files)
        return {**self.read(reading), self.upload: None, self.example: None}

    @guarded("recognised")
    def receive_example(self, example: str) -> dict:
        """Read one of the examples."""
        if example not in self.examples:
            return {}
        return self.read(self.reader.read(self.examples[example]))

    @contextlib.contextmanager
    def taken(self, uploads: list[tuple[str, str]]) -> Iterator[list[str]]:
        """Uploads under the names that they had, in a folder that is gone afterwards, and so are they."""
        with tempfile.TemporaryDirectory(prefix="upload-") as folder:
            files = []
            for path, name in uploads:
                path, place = Path(path), Path(folder, safe_name(name))
                if not path.is_file():
                    continue
                if place.exists():  # the same name twice, out of two folders
                    place = Path(folder, str(len(files)), place.name)
                    place.parent.mkdir()
                shutil.move(path, place)
                with contextlib.suppress(OSError):  # Gradio makes a folder per file
                    path.parent.rmdir()
                files.append(str(place))
            yield files

    def read(self, reading: Reading) -> dict:
        """What was recognised, and the first spectrum."""
        choices = [(words.choice(place, row), place) for place, row in enumerate(reading.rows)]
        answer = {
            self.recognised: words.recognised(reading),
            self.rows: reading.rows,
            self.results: gr.update(visible=bool(choices)),
            self.chosen: gr.update(choices=choices, value=0 if choices else None, visible=len(choices) > 1),
        }
        return answer | self.analyse(reading.rows[0]) if choices else answer

    # Spectra

    @guarded("notice")
    def choose(self, rows: list[dict], place: int) -> dict:
        """Another spectrum of the file."""
        return self.analyse(rows[place])

    def analyse(self, row: dict) -> dict:
        """Everything about one spectrum."""
        low, high = suggested_range(row)
        answer = {**self.predict(row, None), self.low: low, self.high: high}
        answers, neighbours = self.ask(row)
        said = words.labels_words(answers) if answers else "" if self.models.heads else words.quiet(NO_HEADS)
        answer[self.labels] = said + words.file_words(row)
        binned = next((each for each in answers if each.bins), None)
        answer[self.bins] = gr.update(value=draw_bins(binned) if binned else None, visible=binned is not None)
        answer[self.neighbours] = words.neighbours_words(neighbours) if neighbours else words.quiet(NO_REFERENCE)
        return answer

    def ask(self, row: dict) -> tuple[list[Answer], list[dict]]:
        """What the heads say, and the neighbours: nothing where too few pixels are usable, as `predict` tells."""
        try:
            return self.models.labels(row), self.models.neighbours(row)
        except ValueError:
            return [], []

    def predict(self, row: dict, hidden_range: tuple[float, float] | None) -> dict:
        """The picture and its numbers, with a range of wavelengths hidden."""
        if self.models.model is None:
            return {self.plot: draw_spectrum(spectrum_of(row)), self.numbers: "", self.notice: ""}
        try:
            spectrum = self.models.reconstruct(row, hidden_range)
        except HiddenRangeError as error:
            return {self.notice: words.notice(error)}
        except ValueError as error:  # too few usable pixels for a patch
            return {self.plot: draw_spectrum(spectrum_of(row)), self.numbers: "", self.notice: words.notice(error)}
        return {self.plot: draw_spectrum(spectrum), self.numbers: words.chi2_words(spectrum), self.notice: ""}

    @guarded("notice")
    def hide_range(self, rows: list[dict], place: int, low: float | None, high: float | None) -> dict:
        """Hide what the two numbers say."""
        if low is None or high is None or not low < high:
            found = f"{'nothing' if low is None else f'{low:g}'} to {'nothing' if high is None else f'{high:g}'}"
            return {self.notice: words.notice(f"Found {found}; expected two wavelengths, the smaller one first.")}
        return self.predict(rows[place], (low, high))

    @guarded("notice")
    def hide_random(self, rows: list[dict], place: int) -> dict:
        """Hide a block that is drawn."""
        try:
            low, high = self.models.random_range(rows[place], np.random.default_rng())
        except ValueError as error:  # too few usable pixels for a patch
            return {self.notice: words.notice(error)}
        return {**self.predict(rows[place], (low, high)), self.low: low, self.high: high}

    @guarded("notice")
    def hide_nothing(self, rows: list[dict], place: int) -> dict:
        """Show the model everything."""
        return self.predict(rows[place], None)


def safe_name(name: str) -> str:
    """A name for a file here, whatever it was called there: no folder, no control characters, not too long."""
    name = PurePosixPath(name.replace("\\", "/")).name
    name = "".join(sign for sign in name if unicodedata.category(sign) not in ("Cc", "Cs"))
    while len(os.fsencode(name)) > MAX_NAME:
        name = name[1:]
    return name if name.strip(". ") else "file"


def suggested_range(row: dict) -> tuple[float, float]:
    """Wavelengths to begin with: the middle fifth of the longest segment."""
    lengths = np.asarray(row["segment_lengths"])
    first = int(lengths[: lengths.argmax()].sum())
    low, high = (row["wavelength"][first + int(part * (lengths.max() - 1))] for part in (0.4, 0.6))
    return round(float(low), 1), round(float(high), 1)
