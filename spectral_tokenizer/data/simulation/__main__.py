"""`python -m spectral_tokenizer.data.simulation OUT --num-objects 500 --seed 0`: write simulated survey files."""

import argparse

from . import SURVEYS, simulate


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and simulate."""
    parser = argparse.ArgumentParser(
        prog="spectral_tokenizer.data.simulation", description=simulate.__doc__.split("\n")[0]
    )
    parser.add_argument("directory", help="folder to make; must not exist, or be empty")
    parser.add_argument("--num-objects", type=int, default=500, help="spectra per survey (default: 500)")
    parser.add_argument("--surveys", nargs="+", choices=list(SURVEYS), default=list(SURVEYS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared-stars", type=float, default=0.5, help="fraction of stars common to all surveys")
    given = parser.parse_args(arguments)
    folders = simulate(
        given.directory, given.num_objects, given.surveys, given.seed, given.shared_stars, progress=True
    )
    for name, folder in folders.items():
        print(f"{name}: {folder}")


if __name__ == "__main__":
    main()
