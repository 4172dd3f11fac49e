"""Survey files -> rows to train on and rows to validate on."""

from pathlib import Path

from datasets import Dataset
from recipe import Recipe

from spectral_tokenizer.data import SURVEYS, load_survey, splits


def load(recipe: Recipe) -> dict[str, Dataset]:
    """Rows of every survey in the recipe; simulated ones, written as survey files and read back, where it names none."""
    data = recipe.data or {name: str(path) for name, path in simulated(recipe).items()}
    unknown = sorted(set(data) - set(SURVEYS))
    if unknown:
        raise ValueError(f"data: expected some of {sorted(SURVEYS)}, found: {unknown}")
    return {survey: load_survey(survey, files) for survey, files in data.items()}


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
