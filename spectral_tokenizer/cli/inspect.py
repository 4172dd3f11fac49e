"""`spectral-tokenizer inspect`: what was recognised in files, as a table, as JSON and as a picture."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from .console import console, error_console, read_entries, read_options, reader_options


if TYPE_CHECKING:
    from ..data.inspection import Inspection


MAX_UNITS = 200  # listed; all are counted
MAX_PANELS = 8
HEADER = f"{'survey':6} {'product':10} {'spectra':>7} {'pixels':>11}  {'wavelength (A)':>14}  {'S/N':>9}  {'usable':>8}  file"


def inspect(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="Files, globs, folders, or @LIST: a text file with one of them a line."),
    ],
    plot: Annotated[
        Path | None, typer.Option(help=f"Draw the first {MAX_PANELS} spectra to this file (.png, .pdf, .svg).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line instead of the table.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-O", help="Option of a reader, NAME or NAME=VALUE, such as sky or simulated."),
    ] = None,
) -> None:
    """
    Tell what files hold: survey, product, spectra, pixels, signal to noise, labels, and what is dropped and why.

    A file is read to its end, as `prepare` would read it. Wavelengths are in vacuum, S/N is the median of
    flux / sigma over usable pixels, both as the rows have them. Ends with exit code 1 if a file cannot be read.

    **Examples**

        spectral-tokenizer inspect spec-3586-55181-0001.fits --plot quasar.png

        spectral-tokenizer inspect /data/desi --option sky     (sky fibres are dropped unless asked for)

        spectral-tokenizer inspect --json "/data/galah/*.fits" | jq .snr
    """
    from ..data import SURVEYS
    from ..data.inspection import inspect_files

    options = read_options(option or (), reader_options(SURVEYS.values()))
    num_examples = MAX_PANELS if plot else 0
    totals, examples = Totals(), []
    for found in inspect_files(read_entries(files), SURVEYS, num_examples=num_examples, **options):
        if not as_json and not totals.units:
            console.print(HEADER, style="bold", highlight=False, soft_wrap=True)
        totals.add(found)
        examples += found.examples[: max(0, MAX_PANELS - len(examples))]
        if as_json:
            console.out(json.dumps(as_dict(found)), highlight=False)
        elif totals.units <= MAX_UNITS:
            for line, style in zip(as_lines(found), ("", "dim")):
                console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)
        if found.damage:
            error_console.print(describe_damage(found), highlight=False, markup=False, soft_wrap=True)
    if not as_json:
        totals.print()
    if plot:
        from .figure import draw_spectra

        draw_spectra(examples, plot)
        error_console.print(f"drew {len(examples)} spectra to {plot}", highlight=False, markup=False)
    if totals.damaged:
        raise typer.Exit(1)


class Totals:
    """Sums over all files."""

    def __init__(self):
        self.units = self.damaged = 0
        self.spectra: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def add(self, found: "Inspection") -> None:
        """Count one unit of files."""
        self.units += 1
        self.damaged += found.damage is not None
        self.spectra[found.survey or "unknown"] += found.num_spectra
        self.dropped.update(found.dropped)

    def print(self) -> None:
        """The last line of the table."""
        if self.units > MAX_UNITS:
            console.print(f"... and {self.units - MAX_UNITS} more", highlight=False)
        spectra = ", ".join(f"{name} {number}" for name, number in self.spectra.items() if number) or "none"
        text = f"spectra: {spectra}"
        if self.dropped:
            text += "; dropped: " + list_counts(self.dropped)
        if self.damaged:
            text += f"; not readable: {self.damaged} of {self.units}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def as_lines(found: "Inspection") -> Iterator[str]:
    """One unit of files: numbers, then labels and what is dropped. The file's name comes last: it may be long."""
    name = Path(found.files[0]).name + (f" and {len(found.files) - 1} more" if len(found.files) > 1 else "")
    name = name.encode("utf-8", "backslashreplace").decode()
    product = f"{found.survey or '?':6} {found.product if found.survey else '?':10}"
    if not found.num_spectra:
        yield f"{product} {0:7} {'':50}  {name}"
    else:
        low, high = found.num_pixels
        first, last = found.wavelength_range
        pixels = f"{low}" if low == high else f"{low}-{high}"
        yield (
            f"{product} {found.num_spectra:7} {pixels:>11}  {f'{first:.0f}-{last:.0f}':>14}  {np.median(found.snr):9.1f}"
            f"  {100 * np.mean(found.usable):7.1f}%  {name}"
        )
    notes = [list_labels(found)] if found.num_spectra else []
    notes += ["dropped: " + list_counts(found.dropped)] if found.dropped else []
    notes += ["not readable" if not found.num_spectra else "breaks off after these"] if found.damage else []
    if any(notes):
        yield " " * 18 + "; ".join(note for note in notes if note)


def list_labels(found: "Inspection") -> str:
    """A single spectrum's values; of several the numbers of spectra that have one."""
    if found.num_spectra == 1:
        parts = [*found.classes, *(f"{name} {values[0]:.5g}" for name, values in found.labels.items())]
    else:
        parts = [list_counts(found.classes)] if found.classes else []
        parts += [f"{name} {len(values)}" for name, values in found.labels.items()]
    return ", ".join(parts)


def list_counts(counts: Counter) -> str:
    """Names with numbers, the most frequent first."""
    return ", ".join(f"{name} {number}" for name, number in counts.most_common())


def describe_damage(found: "Inspection") -> str:
    """One line on why a file is not readable."""
    return str(found.damage) if found.survey else f"not recognised: {found.damage}"


def as_dict(found: "Inspection") -> dict:
    """One object of the JSON output."""
    known = bool(found.num_spectra)
    return {
        "files": list(found.files),
        "survey": found.survey,
        "product": found.product,
        "spectra": found.num_spectra,
        "num_pixels": list(found.num_pixels) if known else None,
        "wavelength_range": list(found.wavelength_range) if known else None,
        "frames": dict(found.frames),
        "snr": float(np.median(found.snr)) if known else None,
        "usable_fraction": float(np.mean(found.usable)) if known else None,
        "classes": dict(found.classes),
        "labels": {name: len(values) for name, values in found.labels.items()},
        "dropped": dict(found.dropped),
        "damage": str(found.damage) if found.damage else None,
    }
