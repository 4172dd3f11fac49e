"""What the commands share: where they write, how errors look, options of the surveys' readers."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import typer
from rich.console import Console


DEBUG_VARIABLE = "SPECTRAL_TOKENIZER_DEBUG"
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
NUMBERS = {"int": (int, "an integer"), "float": (float, "a number")}

#: Results go to stdout; progress, warnings and errors to stderr, so that results can be piped on.
console = Console()
error_console = Console(stderr=True)


def run(command: Callable[[], None]) -> None:
    """Run a command line and end the process with its exit code.

    0: done. 1: it could not be done, or `inspect` met files that cannot be read; one line says why. 2: wrong usage.
    130: interrupted (Typer's). What is no user's fault keeps its traceback, and so does everything if the environment
    variable SPECTRAL_TOKENIZER_DEBUG is set.
    """
    try:
        command()
    except (OSError, ValueError) as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        report_error(str(error))
        sys.exit(1)


class BadOption(typer.BadParameter):
    """A wrong ``--option``."""

    def __init__(self, message: str):
        super().__init__(message, param_hint="--option")


def report_error(message: str) -> None:
    """One line on stderr, without markup and never wrapped."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)


def read_entries(entries: Iterable[str]) -> list[str]:
    """Input as given on the command line, with ``@FILE`` replaced by the lines of that file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    found = []
    for entry in entries:
        if not entry.startswith("@"):
            found.append(entry)
            continue
        # Names need be no Unicode, and lines end where `ls` and `find` end them.
        lines = (os.fsdecode(line).strip() for line in Path(entry[1:]).read_bytes().splitlines())
        found += [line for line in lines if line and not line.startswith("#")]
    return found


def read_options(given: Iterable[str], known: dict[str, str]) -> dict[str, bool | int | float | str]:
    """``NAME`` or ``NAME=VALUE`` as a reader's options.

    Args:
        given: as on the command line; ``NAME`` alone means true.
        known: the names that are options, with what they may be, ``"bool"``, ``"int"``, ``"float"`` or other.

    Raises:
        BadOption: an unknown name or a value that does not fit.
    """
    options: dict[str, bool | int | float | str] = {}
    for text in given:
        name, _, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            raise BadOption(f"found {name!r}; expected one of: {', '.join(sorted(known)) or 'no option'}")
        if known[name] != "bool":
            if not value:
                raise BadOption(f"{name}: found no value; expected {name}=VALUE")
            options[name] = read_number(name, value, known[name]) if known[name] in NUMBERS else value
        elif (value.lower() or "true") in BOOLEANS:
            options[name] = BOOLEANS[value.lower() or "true"]
        else:
            raise BadOption(f"{name}: found {value!r}; expected true or false")
    return options


def read_number(name: str, text: str, kind: str) -> int | float:
    """Text as ``"int"`` or ``"float"``; raises `BadOption` for other text."""
    convert, expected = NUMBERS[kind]
    try:
        return convert(text)
    except ValueError:
        raise BadOption(f"{name}: found {text!r}; expected {expected}") from None


def reader_options(surveys: Iterable[type]) -> dict[str, str]:
    """The options of the surveys' readers, with their type's name."""
    from ..data.builder import options_of

    found = {name: kind for survey in surveys for name, kind in options_of(survey).items()}
    return {name: getattr(kind, "__name__", str(kind)) for name, kind in found.items()}
