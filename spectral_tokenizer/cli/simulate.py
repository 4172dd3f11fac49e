"""`spectral-tokenizer simulate`: simulated files of the four surveys, to try everything else on."""

from pathlib import Path
from typing import Annotated

import typer

from .console import console


def simulate(
    directory: Annotated[Path, typer.Argument(help="Folder to make; must not exist, or be empty.")],
    num_objects: Annotated[int, typer.Option("--num-objects", "-n", min=0, help="Spectra per survey.")] = 500,
    survey: Annotated[
        list[str] | None,
        typer.Option("--survey", "-s", help="Only this survey; give it again for more. Default: all."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    shared_stars: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Fraction of the stars that all surveys observe.")
    ] = 0.5,
) -> None:
    """
    Write simulated files in the surveys' own formats, and their truth.

    The package's readers take them as they take real ones; every header says SIMULATE = T, and truth.csv tells what
    is in them. Nothing is left behind when it is interrupted.

    **Examples**

        spectral-tokenizer simulate simulated

        spectral-tokenizer simulate stars --num-objects 50 --survey galah --survey apogee --seed 7
    """
    from ..data.simulation import SURVEYS
    from ..data.simulation import simulate as write

    folders = write(directory, num_objects, survey or list(SURVEYS), seed, shared_stars, progress=True)
    for name, folder in folders.items():
        console.print(f"{name}: {folder}", highlight=False, soft_wrap=True)
