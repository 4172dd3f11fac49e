"""The command line, `spectral-tokenizer`: one module per command, each a function that Typer turns into options.

Typer, because Transformers brings it along already, with rich for tables and bars. Commands import what they work with
when they run: `--help` waits for nothing but the package itself, whose import of torch and transformers takes seconds.
"""

import typer

from .console import run
from .inspect import inspect
from .prepare import prepare
from .simulate import simulate


__all__ = ["app", "main"]

app = typer.Typer(
    name="spectral-tokenizer",
    help="""
    Spectra, from the surveys' own files to rows that a model reads.

    Look at a file, make files to try things on, and turn a survey's files into Parquet:

        spectral-tokenizer inspect spec-3586-55181-0001.fits

        spectral-tokenizer simulate simulated --num-objects 100

        spectral-tokenizer prepare desi simulated/desi --output prepared

    Every command explains itself: spectral-tokenizer prepare --help
    """,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(inspect)
app.command()(prepare)
app.command()(simulate)


def main() -> None:
    """Run the command line; see `console.run` for exit codes."""
    run(app)
