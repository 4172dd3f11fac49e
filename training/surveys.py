"""Survey files -> rows to train on and rows to validate on."""

from pathlib import Path

from datasets import Dataset
from recipe import Recipe

from spectral_tokenizer.data import SURVEYS, load_survey, load_table, splits
from spectral_tokenizer.data.table import Table


def load(recipe: Recipe) -> dict[str, Dataset]:
    """Rows of every survey in the recipe; simulated ones, written as survey files and read back, where it names none.

    Raises:
        ValueError: `data` names a survey that has no reader, or `options` one that is not in `data`.
    """
    data = recipe.data or {name: str(path) for name, path in simulated(recipe).items()}
    unknown = sorted(survey for survey, files in data.items() if survey not in SURVEYS and not tables_among(files))
    if unknown:
        raise ValueError(f"data: expected some of {sorted(SURVEYS)}, or tables of rows, found: {unknown}")
    if unknown := sorted(set(recipe.options) - set(data)):
        raise ValueError(f"options: expected some of {sorted(data)}, found: {unknown}")
    return {survey: read(survey, files, recipe.options.get(survey, {})) for survey, files in data.items()}


def read(survey: str, files: str | list[str], options: dict) -> Dataset:
    """One survey's rows, from its own files, or from tables of rows such as `spectral-tokenizer prepare` writes."""
    tables = tables_among(files)
    if not tables:
        return load_survey(survey, files, **options)
    if len(tables) < len(entries_of(files)):
        raise ValueError(f"{survey}: found tables beside other files: {files}; expected tables alone, or none")
    return load_table(tables, **{"survey": survey, **options})


def entries_of(files: str | list[str]) -> list[str]:
    return [str(entry) for entry in ([files] if isinstance(files, (str, int, Path)) else files)]


def tables_among(files: str | list[str]) -> list[str]:
    """Those entries that are a table's file, a glob of some, or a survey's folder that `prepare` wrote."""
    endings = tuple(pattern.removeprefix("*") for pattern in Table.FILE_NAMES)
    return [each for each in entries_of(files) if each.endswith(endings) or (Path(each) / "_plan.json").exists()]


def simulated(recipe: Recipe) -> dict[str, Path]:
    """Folders of simulated survey files, written once per setting. They are named after what they hold."""
    from spectral_tokenizer.data.simulation import simulate

    if not recipe.simulate:
        raise ValueError("the recipe names neither data nor a number of spectra to simulate")
    counts = "-".join(f"{survey}{count}" for survey, count in recipe.simulate.items())
    folder = Path(recipe.output).parent / "simulated" / f"seed{recipe.seed}-{counts}"
    if folder.exists():
        return {survey: folder / survey for survey in recipe.simulate}
    return simulate(folder, recipe.simulate, surveys=tuple(recipe.simulate), seed=recipe.seed)


def split(rows: dict[str, Dataset], fraction: float, seed: int = 0) -> dict[str, tuple[Dataset, Dataset]]:
    """Rows to train on and rows to validate on, by object: a star's visits never stand on both sides, nor its surveys."""
    return splits.split(rows, fraction, seed=seed)
