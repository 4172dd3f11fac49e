"""What the page is told from outside: environment variables, with a default for each."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1] if HERE.parent.name == "hub_configs" else HERE  # of the repository; in a Space this folder
#: Taken in this order where MODEL says nothing.
DEFAULT_MODELS = (ROOT / "hub_configs" / "released", ROOT / "runs" / "demo" / "model")


@dataclass(frozen=True)
class Settings:
    """What the page shows, and what a visitor may ask of it.

    Args:
        model: MODEL, a folder or the name of a repository on the Hub. None: there is none, and the page says so.
        heads: HEADS, the same for fine-tuned models, separated by commas.
        reference: REFERENCE, a folder of embeddings that `training/embed.py` wrote with the same model.
        max_megabytes: MAX_MEGABYTES, the largest file.
        max_files: MAX_FILES, dropped together.
        max_seconds: MAX_SECONDS, for the reading of what is dropped together.
        max_memory: MAX_MEMORY_MEGABYTES, for the same.
        queue_size: QUEUE_SIZE, how many requests may wait.
    """

    model: str | None = None
    heads: tuple[str, ...] = ()
    reference: str | None = None
    max_megabytes: int = 200
    max_files: int = 16
    max_seconds: int = 60
    max_memory: int = 2048
    queue_size: int = 20


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings as the environment has them.

    Raises:
        ValueError: a number is none, or not positive. Names the variable, what was found and what was expected.
    """

    def number(name: str, default: int) -> int:
        text = environment.get(name, "").strip() or str(default)
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"{name}: found {text!r}; expected a whole number of at least 1")
        return int(text)

    heads = environment.get("HEADS", "").split(",")
    return Settings(
        model=environment.get("MODEL", "").strip() or default_model(),
        heads=tuple(head.strip() for head in heads if head.strip()),
        reference=environment.get("REFERENCE", "").strip() or None,
        max_megabytes=number("MAX_MEGABYTES", Settings.max_megabytes),
        max_files=number("MAX_FILES", Settings.max_files),
        max_seconds=number("MAX_SECONDS", Settings.max_seconds),
        max_memory=number("MAX_MEMORY_MEGABYTES", Settings.max_memory),
        queue_size=number("QUEUE_SIZE", Settings.queue_size),
    )


def default_model() -> str | None:
    """The first of `DEFAULT_MODELS` that is there."""
    return next((str(folder) for folder in DEFAULT_MODELS if (folder / "config.json").is_file()), None)
