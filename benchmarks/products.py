"""Files in, rows out, dropped and why, product by product: `python -m benchmarks.products FOLDER`.

Every file under the folder that has a survey's file name is read, with the files of one product in one folder
together. The table is Markdown; the last line is the same as JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path

from datasets.utils.logging import disable_progress_bar

from spectral_tokenizer.data import SURVEYS, load_survey, survey_report
from spectral_tokenizer.data.builder import options_of
from spectral_tokenizer.data.inspection import likeliest_of, product_of


def find_products(folder: Path) -> dict[tuple[str, str, str], list[str]]:
    """Files by survey, folder and product; those that are no survey's under the survey ``""``."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        index = likeliest_of(path.name, list(SURVEYS.values()))
        survey = "" if index is None else list(SURVEYS)[index]
        product = product_of(path.name) if survey else "other files"
        place = str(path.parent.relative_to(folder))
        found.setdefault((survey, place, product), []).append(str(path))
    return found


def account(survey: str, files: list[str], cache: str, options: dict) -> dict:
    """What became of one product's files."""
    chosen = {name: value for name, value in options.items() if name in options_of(SURVEYS[survey])}
    dataset = load_survey(survey, files, cache_dir=cache, **chosen)
    report = survey_report(dataset)
    return {
        "files": report.files,
        "rows": report.rows,
        "dropped": dict(sorted(report.dropped.items())),
        "damaged": report.damaged,
        "resolution": sorted({kind for kind in dataset["lsf_kind"][:] if kind}),
        "labelled": sum(value is not None for value in dataset["class"][:]),
        "messages": report.messages[:3],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--keep", nargs="*", default=[], help="options to switch on: sky, simulated, exposures, visits, ..."
    )
    given = parser.parse_args()
    disable_progress_bar()
    lines, other = [], 0
    print("| survey | folder | product | files | rows | with a class | resolution | dropped | damaged or foreign |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        for (survey, place, product), files in find_products(given.folder).items():
            if not survey:
                other += len(files)
                continue
            figures = account(survey, files, cache, dict.fromkeys(given.keep, True))
            lines.append({"survey": survey, "folder": place, "product": product, **figures})
            dropped = ", ".join(f"{number} {reason}" for reason, number in figures["dropped"].items())
            cells = [survey, place, product, figures["files"], figures["rows"], figures["labelled"]]
            cells += [", ".join(figures["resolution"]), dropped, figures["damaged"] or ""]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print(f"\n{other} files have no survey's name: catalogues, labels, other products.")
    for line in lines:
        for message in line["messages"]:
            print(f"- {message}")
    print(json.dumps({"products": lines, "other_files": other}))


if __name__ == "__main__":
    main()
