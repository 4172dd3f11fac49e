"""Survey files -> rows to train on and rows to validate on."""

from pathlib import Path

from datasets import Dataset
from recipe import Recipe

from spectral_tokenizer.data import SURVEYS, load_survey, load_table, splits


def load(recipe: Recipe) -> dict[str, Dataset]:
    """Rows of every survey in the recipe; simulated ones, written as survey files and read back, where it names none.

    Raises:
        ValueError: `data` or `options` name a survey that there is not, or options that come too late.
    """
    data = recipe.data or {name: str(path) for name, path in simulated(recipe).items()}
    for name, given, known in (("data", data, SURVEYS), ("options", recipe.options, data)):
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f"{name}: expected some of {sorted(known)}, found: {unknown}")
    return {survey: read(survey, files, recipe.options.get(survey, {})) for survey, files in data.items()}


def read(survey: str, files: str | list[str], options: dict) -> Dataset:
    """One survey's rows, from its own files or from what `spectral-tokenizer prepare` made of them."""
    entries = [files] if isinstance(files, (str, int, Path)) else list(files)
    tables = [str(entry) for entry in entries if is_prepared(entry)]
    if not tables:
        return load_survey(survey, entries, **options)
    if len(tables) < len(entries) or options:
        found = f"options {options}" if options else f"{tables} beside {sorted(set(map(str, entries)) - set(tables))}"
        raise ValueError(f"{survey}: found {found}; expected prepared files alone, which were read with their options")
    return load_table(entries)


def is_prepared(entry: str | int | Path) -> bool:
    """Whether it is a Parquet file, a glob of some, or a survey's folder that `prepare` wrote."""
    return str(entry).endswith(".parquet") or (Path(str(entry)) / "_plan.json").exists()


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
