"""Results as HTML. Whatever came with a file is escaped, and so it is for the templates that Gradio makes of HTML."""

import html
import re
from collections.abc import Iterable, Mapping

import numpy as np
from prediction import Answer, Models, Reconstruction
from reading import MAX_SPECTRA, Reading

from spectral_tokenizer.data import SURVEYS


#: Columns of a row: what they are called here, decimals, unit.
NUMBERS = {
    "redshift": ("redshift", 4, ""),
    "radial_velocity": ("radial velocity", 1, "km/s"),
    "teff": ("Teff", 0, "K"),
    "logg": ("log g", 2, "dex"),
    "fe_h": ("[Fe/H]", 2, "dex"),
}
#: Gradio takes HTML for a template: these three would begin an expression in it.
TEMPLATE_SIGNS = str.maketrans({sign: f"&#{ord(sign)};" for sign in "{}$`\\"})
DOUBT = " <em>not to rely on</em>"
DIGITS = re.compile(r"(\[0-9\])+")


def escape(text: object) -> str:
    return html.escape(str(text)).translate(TEMPLATE_SIGNS)


def number(name: str, value: float | None) -> str:
    """A label with its unit; a dash where it is not known."""
    if value is None or not np.isfinite(value):
        return "–"
    _, decimals, unit = NUMBERS.get(name, (name, 3, ""))
    return f"{value:.{decimals}f} {unit}".strip().replace("-", "−")


def called(name: str) -> str:
    """A label's name as it is said here, escaped."""
    return escape(NUMBERS[name][0] if name in NUMBERS else name)


def notice(text: str, kind: str = "problem") -> str:
    """A message that screen readers read out when it appears."""
    return f'<div class="notice {kind}" role="alert">{escape(text)}</div>'


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], caption: str) -> str:
    """A table of escaped cells; in a narrow window each row becomes a card, whose lines repeat the columns' names."""
    columns = list(columns)
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f'<td data-column="{column}">{cell}</td>' for column, cell in zip(columns, row)) + "</tr>"
        for row in rows
    )
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def quiet(text: str) -> str:
    return f'<p class="quiet">{escape(text)}</p>'


def header(models: Models) -> str:
    """What the page is for, with which models, and what of them is missing."""
    lines = [
        "<h1>Spectral tokenizer</h1>",
        "<p>One encoder for the spectra of SDSS, DESI, GALAH and APOGEE on their native wavelength grids, and one decoder "
        "that gives the flux back. Drop a file, hide a part of its spectrum, and see what the model makes of the rest. "
        "Files that belong together are dropped together: the CCDs of a star of GALAH, a coadd of DESI and its redrock "
        "file. They are deleted once they are read.</p>",
    ]
    if models.model is not None:
        parameters = sum(each.numel() for each in models.model.parameters())
        heads = f", {len(models.heads)} head{'s' * (len(models.heads) != 1)}" if models.heads else ""
        reference = f", {len(models.reference)} reference spectra" if models.reference is not None else ""
        lines.append(quiet(f"Model: {models.name}, {parameters / 1e6:.1f} million parameters{heads}{reference}."))
    lines += [notice(problem) for problem in models.problems]
    return "".join(lines)


# What was recognised


def recognised(reading: Reading) -> str:
    """What each file is, and what is left out of it and why."""
    if reading.problem:
        return notice(reading.problem)
    parts = [unit_words(unit) for unit in reading.units]
    total = sum(unit["num_spectra"] for unit in reading.units)
    if total > len(reading.rows) == MAX_SPECTRA:
        parts.append(f'<p class="quiet">The first {MAX_SPECTRA} of {total} spectra can be chosen.</p>')
    return "".join(parts)


def unit_words(unit: Mapping) -> str:
    files = "<br>".join(escape(file) for file in unit["files"])
    if unit["survey"] is None:
        return foreign(files, unit)
    facts = [f"<b>{escape(unit['survey'].upper())}</b>", escape(unit["product"])]
    facts += ["<b>simulated</b>"] if unit["is_simulated"] else []
    facts.append(f"{unit['num_spectra']} spectr{'um' if unit['num_spectra'] == 1 else 'a'}")
    if unit["num_spectra"]:
        low, high = unit["num_pixels"]
        first, last = unit["wavelength_range"]
        facts.append(f"{low if low == high else f'{low}–{high}'} pixels, {100 * unit['usable']:.1f} % usable")
        facts.append(f"{first:.0f}–{last:.0f} Å in vacuum, {escape(', '.join(unit['frames']))}")
        facts.append(f"{'' if unit['num_spectra'] == 1 else 'median '}S/N {unit['snr']:.1f}")
    lines = [f'<div class="file">{files}</div><div>{" · ".join(facts)}</div>']
    if unit["num_spectra"] > 1 and unit["classes"]:
        lines.append(f"<div>classes in the file: {counts(unit['classes'])}</div>")
    if unit["beside"]:
        lines.append(f"<div>labels from {escape(', '.join(unit['beside']))}</div>")
    if unit["dropped"]:
        lines.append(f"<div>left out: {counts(unit['dropped'])}</div>")
    if unit["damage"]:
        begin = "It breaks off after these" if unit["num_spectra"] else "Damaged, or not what its name says"
        lines.append(f'<div role="alert">{begin}: {damage_words(unit["damage"])}</div>')
    elif not unit["num_spectra"]:
        what = "No spectrum is left to show." if unit["dropped"] else "Found no spectrum in it; expected at least one."
        lines.append(f'<div role="alert">{what}</div>')
    kind = "problem" if unit["damage"] or not unit["num_spectra"] else "good"
    return f'<div class="notice {kind}">{"".join(lines)}</div>'


def foreign(files: str, unit: Mapping) -> str:
    """A file that no survey's reader takes."""
    names = "".join(f"<li><b>{escape(name.upper())}</b> {file_names(survey)}</li>" for name, survey in SURVEYS.items())
    return (
        f'<div class="notice problem" role="alert"><div class="file">{files}</div>'
        f"<div><b>Not recognised</b>: no survey's reader takes it. {damage_words(unit['damage'])}.</div>"
        f"<details><summary>What can be read, by its usual names</summary><ul>{names}</ul></details></div>"
    )


def file_names(survey: type) -> str:
    """How a survey's files are called, for people."""
    names = (DIGITS.sub(lambda digits: f"({len(digits[0]) // 5} digits)", name) for name in survey.FILE_NAMES)
    return escape(", ".join(name for name in names if not name.endswith(".gz")))


def damage_words(damage: Mapping) -> str:
    return escape(f"{damage['field']}: found {damage['found']}; expected {damage['expected']}")


def counts(numbers: Mapping[str, int]) -> str:
    return escape(", ".join(f"{name} {count}" for name, count in numbers.items()))


def choice(number_: int, row: Mapping) -> str:
    """One spectrum in the list to choose from, as plain text."""
    parts = [f"{number_ + 1}: {row['survey'].upper()} {row['object_id']}", row["class"] or ""]
    parts.append(f"S/N {row['snr']:.1f}")
    return "  ".join(part for part in parts if part)


# What the models say


def chi2_words(spectrum: Reconstruction) -> str:
    """How well the model does, as numbers."""
    chi2, cap = spectrum.chi2, f", each residual at most {spectrum.cap:g} σ" if spectrum.cap else ""
    cells = [("visible pixels, model", chi2["visible"], "")]
    if spectrum.hidden_range:
        is_better = chi2["hidden"] < chi2["interpolation"]
        cells.append(("hidden pixels, model", chi2["hidden"], " best" if is_better else ""))
        cells.append(("hidden pixels, straight lines", chi2["interpolation"], "" if is_better else " best"))
    boxes = "".join(
        f'<div class="number{mark}"><b>{value:.2f}</b><span>{text}</span></div>' for text, value, mark in cells
    )
    hidden = "Nothing is hidden: the model sees every patch and gives it back."
    if spectrum.hidden_range:
        low, high = spectrum.hidden_range
        level = ", but for the median of the whole spectrum" if spectrum.is_level_told else ", nor how bright they are"
        hidden = (
            f"Hidden: {spectrum.num_hidden} of {spectrum.num_patches} patches, those that {low:g} to {high:g} Å touches. "
            f"The encoder does not see them{level}; the decoder is asked for them."
        )
    return (
        f'<div class="numbers" aria-live="polite">{boxes}</div>'
        f'<p class="quiet">{hidden} Numbers are χ² per usable pixel (1 is perfect{cap}).</p>'
    )


def labels_words(answers: list[Answer]) -> str:
    """What the heads say beside what the file says."""
    rows = []
    for answer in answers:
        if answer.shares:
            ranked = sorted(answer.shares.items(), key=lambda item: -item[1])
            said = ", ".join(f"{escape(name)} {100 * share:.0f} %" for name, share in ranked)
            said = f"<b>{said}</b>{DOUBT if answer.is_flagged else ''}"
            rows.append((called(answer.name), said, "", escape(answer.known or "–")))
            continue
        low, high = answer.interval
        said = f"<b>{number(answer.name, answer.value)}</b> ± {number(answer.name, 0.5 * (high - low))}"
        said += DOUBT if answer.is_flagged else ""
        interval = f"{number(answer.name, low)} to {number(answer.name, high)}"
        rows.append((called(answer.name), said, interval, number(answer.name, answer.known)))
    note = (
        '<p class="quiet">Stellar labels mean something for stars alone, redshifts for what the head was trained on. '
        "“Not to rely on” is the head's own flag: it is unsure, or was fitted to no such spectra.</p>"
    )
    return table(("label", "model", "68 % interval", "file"), rows, "Labels") + note


def file_words(row: Mapping) -> str:
    """What the file itself says of the object."""
    known = [f"class {row['class']}"] if row["class"] else []
    known += [
        f"{called} {number(name, row[name])}" for name, (called, _, _) in NUMBERS.items() if np.isfinite(row[name])
    ]
    said = ", ".join(known) or "nothing"
    flags = f" Flags: {row['label_warnings']}." if row["label_warnings"] else ""
    return quiet(f"The file says of {row['object_id']}: {said}.{flags}")


def neighbours_words(neighbours: list[dict]) -> str:
    """The nearest spectra of the reference."""
    rows = [
        (
            escape((each["survey"] or "–").upper()), escape(each["object_id"]), escape(each["class"] or "–"),
            *(number(label, each[label]) for label in ("redshift", "teff", "logg", "fe_h")),
            f"{each['similarity']:.3f}",
        )
        for each in neighbours
    ]  # fmt: skip
    columns = ("survey", "object", "class", *(called(label) for label in ("redshift", "teff", "logg", "fe_h")))
    note = '<p class="quiet">Cosine similarity of embeddings, standardised over the reference. A spectrum of the reference finds itself first.</p>'
    return table((*columns, "similarity"), rows, "Nearest in the reference") + note
