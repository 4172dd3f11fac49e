"""A run's settings: one YAML file, every key known, every path found."""

import argparse
import math
import os
import re
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path

import yaml


ROOT = Path(__file__).resolve().parent.parent
#: Settings that are written down with a run since they exist: a checkpoint that does not name one is of a run without it.
BEFORE = {"cool_dwarfs": 0.0, "freeze_encoder": False}
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_number(value) -> bool:
    """True is a number to Python, and to YAML's readers a slip."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value, least: int) -> bool:
    return type(value) is int and value >= least


def is_files(value) -> bool:
    """One place or several. A survey with nothing behind its colon has none; a published recipe has blank ones."""
    entries = list(value) if isinstance(value, (list, tuple)) else [value]
    return bool(entries) and all(type(each) is int or isinstance(each, (str, Path)) for each in entries)


def is_names(value) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


#: What settings have to be, in words and as a check.
LIMITS = (
    (
        (
            "num_steps",
            "max_spectra",
            "num_micro_batches",
            "views",
            "max_skipped_steps",
            "validation_spectra",
            "log_every",
            "validate_every",
            "checkpoint_every",
            "keep_checkpoints",
        ),
        "a whole number of 1 or more",
        lambda value: is_whole(value, 1),
    ),
    (("max_tokens",), "a whole number of 1 or more", lambda value: value is None or is_whole(value, 1)),
    (
        ("warmup_steps", "num_workers", "seed", "split_seed"),
        "a whole number of 0 or more",
        lambda value: is_whole(value, 0),
    ),
    (
        ("learning_rate", "muon_learning_rate", "weight_decay"),
        "a number of 0 or more",
        lambda value: is_number(value) and value >= 0,
    ),
    # Gradients that are clipped to nothing train nothing.
    (("max_grad_norm",), "a number above 0", lambda value: is_number(value) and value > 0),
    (("data_share",), "a part between 0 and 1", lambda value: is_number(value) and 0 < value < 1),
    (
        ("pairs", "cool_dwarfs", "validation_fraction"),
        "a part from 0 to 1",
        lambda value: is_number(value) and 0 <= value <= 1,
    ),
)
#: The same of what a setting says of each survey.
LIMITS_EACH = (
    (("data",), "files", is_files),
    (("options",), "a mapping", lambda value: isinstance(value, dict)),
    (("simulate",), "a whole number of 1 or more", lambda value: is_whole(value, 1)),
    (("weights",), "a number of 0 or more", lambda value: is_number(value) and 0 <= value < math.inf),
)
SIMULATED = "simulated "  # before the name of a survey in what is measured, where there are real spectra beside


class Loader(yaml.SafeLoader):
    """YAML in which `1e-4` is a number (to version 1.1 it is text, as it has no point) and no key stands twice (where
    the last one would count)."""

    def compose_mapping_node(self, anchor):
        node, lines = super().compose_mapping_node(anchor), {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, (key.tag, str(key.value))
            if name in lines:
                raise ValueError(
                    f"{self.name}: {key.value}: expected it once, found it in lines {lines[name]} and {line}"
                )
            lines[name] = line
        return node


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+$"), list("+-0123456789")
)


def read_yaml(text: str, name: str | Path):
    """Settings as written down in a file, or given on the command line; errors call them by this name.

    Raises:
        ValueError: a key stands twice. Names it, and its lines.
    """
    loader = Loader(text)
    loader.name = str(name)
    return loader.get_single_data()


def as_float(value):
    """Whole numbers where a setting is a number. What is none stays as it is, to be refused by name."""
    return float(value) if type(value) is int else value


def as_typed(settings: dict, kind: type, source: str | Path) -> dict:
    """Settings of a dataclass as they were written down, whole numbers made floats where its own are; nothing (null)
    is its default.

    Raises:
        ValueError: a value is of another type than the default, where there is one that tells. Names source and setting.
    """
    known, typed = {each.name: each for each in fields(kind)}, {}
    for name, value in settings.items():
        default = known[name].default_factory() if known[name].default is MISSING else known[name].default
        if value is None:
            value = default
        elif isinstance(default, float):
            value = as_float(value)
        elif default is not None and type(value) is not type(default):
            raise ValueError(f"{source}: {name}: expected {type(default).__name__}, found: {value!r}")
        typed[name] = value
    return typed


def check_limits(settings, limits: tuple, limits_each: tuple) -> None:
    """Raise ValueError, which names the setting, where one is not what it has to be: as `LIMITS` and `LIMITS_EACH` say it."""
    for names, expected, is_fine in limits:
        for name in names:
            if not is_fine(value := getattr(settings, name)):
                raise ValueError(f"{name}: expected {expected}, found: {value!r}")
    for names, expected, is_fine in limits_each:
        for name in names:
            for survey, value in getattr(settings, name).items():
                if not is_fine(value):
                    raise ValueError(f"{name}: {survey}: expected {expected}, found: {value!r}")


@dataclass
class Recipe:
    """Settings of one pre-training run.

    Args:
        model: Folder with config.json (a size) or a checkpoint to go on from.
        model_options: Settings of the model that differ from that folder's, such as {label_weight: 0.2}.
        freeze_encoder: The encoder of the checkpoint `model` stays as it is, so that heads and embeddings that stand on
            it hold, and its decoder is trained on.
        output: Folder that the run writes to: checkpoints, log, figures, and the trained model in `model/`.
        data: Survey -> what `load_survey` reads (files, folder, glob, identifiers), or tables of rows such as
            `prepare` writes (Parquet, Arrow, HDF5; then under any name). Where empty, surveys are simulated.
        options: Survey -> further arguments of `load_survey`, such as {galah: {catalogue: allstar.fits}}, or of
            `load_table`.
        data_is_simulated: `data` holds simulated spectra, in a survey's own file format or not. Files do not say so.
        data_description: What `data` is, in words, for the model's card.
        simulate: Simulated spectra per survey, used where `data` is empty.
        stream: Instead of both, spectra without end, simulated where the model is and never repeated: from published
            "templates" (or a folder of them; see benchmarks/science/README.md), or from the package's own "physics".
        data_share: Of a recipe with `data` and a `stream`: the part of the steps that are of `data`.
        pairs: Part of a stream's spectra that come in pairs, one object as both surveys of its domain see it, in one
            sequence: SDSS with DESI, APOGEE with GALAH.
        cool_dwarfs: Part of a stream's APOGEE spectra that are of M dwarfs, whose labels are not told (published
            templates alone have them).
        noiseless: A stream's decoder is to answer with the flux without noise, which a simulator knows, and not with
            what was observed.
        views: How often each spectrum of a stream stands in its step, every time with other patches hidden.
        weights: Survey -> relative frequency of its spectra, 1 where not given.
        num_steps: Optimisation steps.
        max_spectra, max_tokens: Spectra and patches per step over all processes, whichever is reached first.
        num_micro_batches: Parts of a step that each process accumulates gradients over.
        optimizer: "adamw", or "muon" for the layers' matrices beside AdamW for the rest.
        learning_rate, muon_learning_rate, warmup_steps: Peaks, reached linearly, then half a cosine down to zero.
        weight_decay, max_grad_norm: Decoupled decay of matrices; the norm that gradients are clipped to.
        max_skipped_steps: Consecutive steps with a non-finite gradient after which the run stops.
        mixed_precision: "no" or "bf16" (GPU); weights and optimiser stay float32.
        compile: Compile the layers, and what makes vectors of pixels and back, with torch.compile (GPU): the first
            steps take some 15 s more, most others less.
        validation_fraction: Part of each survey's objects that is never trained on.
        split_seed: Which objects these are. Not `seed`: a run that goes on from another with a seed of its own must
            not train on what that one held apart.
        validation_spectra: Spectra per survey that validation looks at.
        log_every, validate_every, checkpoint_every: In steps.
        keep_checkpoints: The last so many are kept, and the best by validation.
        trackers: Names that Accelerate knows, e.g. [tensorboard] or [trackio]. `log.jsonl` is always written.
        num_workers: Processes that prepare batches ahead. With none, a stream is simulated where the model is; with
            some, on the CPU.
        seed: Of the weights, the order and what is hidden.
    """

    model: str = "hub_configs/tiny"
    model_options: dict = field(default_factory=dict)
    freeze_encoder: bool = False
    output: str = "runs/pretrain"
    data: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    data_is_simulated: bool = False
    data_description: str = ""
    simulate: dict = field(default_factory=dict)
    stream: str = ""
    data_share: float = 0.5
    pairs: float = 0.0
    cool_dwarfs: float = 0.0
    noiseless: bool = False
    views: int = 1
    weights: dict = field(default_factory=dict)
    num_steps: int = 1000
    max_spectra: int = 64
    max_tokens: int | None = None
    num_micro_batches: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    muon_learning_rate: float = 2.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    max_skipped_steps: int = 20
    mixed_precision: str = "no"
    compile: bool = False
    validation_fraction: float = 0.1
    split_seed: int = 0
    validation_spectra: int = 64
    log_every: int = 10
    validate_every: int = 500
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    trackers: list = field(default_factory=list)
    num_workers: int = 0
    seed: int = 0

    def __post_init__(self):
        self.output, self.stream = (os.path.expanduser(each) for each in (self.output, self.stream))
        for name, choices in (("optimizer", ("adamw", "muon")), ("mixed_precision", ("no", "bf16"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {choices}, found: {getattr(self, name)!r}")
        check_limits(self, LIMITS, LIMITS_EACH)
        # Rows without a weight count once; a stream is of the surveys that have one, if any has.
        of_rows = [self.weights.get(survey, 1.0) for survey in self.data or ({} if self.stream else self.simulate)]
        for drawn in (of_rows, self.weights.values() if self.stream else []):
            if drawn and not any(drawn):
                raise ValueError(f"weights: expected some above 0, found: {self.weights}")
        if self.max_tokens and self.stream and not self.data:
            raise ValueError(
                f"max_tokens: expected none of a stream, whose steps are of max_spectra, found: {self.max_tokens}"
            )
        if self.pairs and not self.stream:
            raise ValueError(f"pairs: expected 0, or a part of a stream's spectra, found: {self.pairs}")
        if self.noiseless and not self.stream:
            raise ValueError(
                "noiseless: only a stream knows its spectra without noise; expected one, found: stream ''"
            )
        if self.cool_dwarfs and not self.stream:
            raise ValueError(
                f"cool_dwarfs: expected 0, or a part of a stream's APOGEE spectra, found: {self.cool_dwarfs}"
            )
        if self.views > 1 and not self.stream:
            raise ValueError(f"views: expected 1, or more of a stream's spectra, found: {self.views}")

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Recipe":
        """Raises ValueError for a key that is not a setting, or stands twice: a misspelt one must not be ignored."""
        settings = read_yaml(Path(path).read_text(), path) or {}
        known = {each.name for each in fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(f"{path}: unknown settings {unknown}, expected some of {sorted(known)}")
        settings = as_typed(settings, cls, path)
        weights = {survey: as_float(each) for survey, each in settings.get("weights", {}).items()}
        return cls(**settings | {"weights": weights})

    def to_dict(self) -> dict:
        return asdict(self)

    def identity(self) -> dict:
        """Settings that a run which goes on must have as it began: which spectra come when, and what is learnt of them
        how. Others, such as `num_steps` and `num_micro_batches`, may change."""
        names = (
            "seed", "split_seed", "validation_fraction", "weights", "max_spectra", "max_tokens", "stream", "data_share",
            "pairs", "cool_dwarfs", "views", "noiseless", "model", "model_options", "freeze_encoder", "optimizer", "learning_rate",
            "muon_learning_rate", "warmup_steps", "weight_decay", "max_grad_norm",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    @property
    def is_simulated(self) -> bool:
        """Whether all that is trained on is simulated."""
        return self.data_is_simulated or not self.data

    @property
    def is_mixed(self) -> bool:
        """Whether some steps are of `data` and others of a stream."""
        return bool(self.data and self.stream)


def find(path: str) -> Path:
    """A path as given or, failing that, relative to the project's root. `~` is the user's home."""
    given = Path(path).expanduser()
    found = given if given.exists() else ROOT / path
    if not found.exists():
        raise FileNotFoundError(f"{path}: found neither in the working directory nor in {ROOT}")
    return found


def find_model(argument: str, given: str) -> str:
    """A model's folder, where `find` looks for it, or its name on the Hub, as it was given: OWNER/NAME, where there is
    no folder OWNER.

    Raises:
        FileNotFoundError: it is neither. Names the argument that it was given by.
    """
    places = [base / given for base in (Path(), ROOT)]
    # runs/modle is a folder misspelt where there are runs, and nobody's model.
    if HUB_NAME.fullmatch(given) and not any(each.parent.exists() for each in places):
        return given
    return str(model_folder(argument, given, "a model's folder, with config.json, or OWNER/NAME on the Hub"))


def model_folder(
    argument: str, given: str, expected: str = "the folder of a size or a checkpoint, with config.json"
) -> Path:
    """A model's folder, where `find` looks for it: all that training begins with. Raises as `find_model`."""
    folder = next((each for base in (Path(), ROOT) if (each := base / Path(given).expanduser()).exists()), None)
    if folder is None or not (folder / "config.json").is_file():
        found = (
            sorted(each.name for each in folder.iterdir())[:8] if folder and folder.is_dir() else folder or "nothing"
        )
        raise FileNotFoundError(f"{argument}: {given}: expected {expected}, found: {found}")
    return folder


PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a checkpoint, or config.json alone: a size.

    Raises:
        ValueError: its weights are pickles, which are never opened: they can run any code.
    """
    if any(folder.glob("*.safetensors")):
        return True
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise ValueError(f"{folder}: expected weights as .safetensors, found: {pickles}, which are never opened")
    return False


def parse_arguments(arguments: list[str] | None = None) -> tuple[Recipe, str | None]:
    """Command line -> recipe, and the checkpoint to resume from ("auto", a folder or None)."""
    parser = argparse.ArgumentParser(description="Pre-train a spectral tokenizer.")
    parser.add_argument("--config", required=True, help="recipe, e.g. training/recipes/demo.yaml")
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="SURVEY=PATH",
        help="survey files, a folder or a glob, e.g. sdss=/data/sdss; give a survey twice for two places",
    )
    parser.add_argument(
        "--simulated", action="store_true", help="the spectra in --data are simulated: card and figures will say so"
    )
    parser.add_argument("--output", help="folder to write to (default: the recipe's)")
    parser.add_argument("--model", help="size or checkpoint (default: the recipe's)")
    parser.add_argument("--num-steps", type=int, help="optimisation steps (default: the recipe's)")
    parser.add_argument("--seed", type=int, help="(default: the recipe's)")
    parser.add_argument("--resume", metavar="auto|FOLDER", help="go on from the last checkpoint, or from this one")
    given = parser.parse_args(arguments)
    if given.simulated and not given.data:
        parser.error("--simulated says of --data what it is: expected both, found no --data")
    recipe = Recipe.from_yaml(find(given.config))
    overrides = {name: getattr(given, name) for name in ("output", "model", "num_steps", "seed")}
    recipe = replace(recipe, **{name: value for name, value in overrides.items() if value is not None})
    if given.data:
        settings = {"data": parse_data(given.data), "data_is_simulated": given.simulated, "data_description": ""}
        if recipe.stream and not recipe.is_mixed:
            print(
                f"--data: the recipe's stream ({recipe.stream}) is left out; a recipe with `data` beside it keeps it"
            )
            # What only a stream can do falls with it.
            settings |= {"stream": "", "noiseless": False, "pairs": 0.0, "cool_dwarfs": 0.0, "views": 1}
        recipe = replace(recipe, **settings)
    return recipe, given.resume


def parse_options(pairs: list[str]) -> dict[str, dict]:
    """["mine.frame=barycentric"] -> {"mine": {"frame": "barycentric"}}; values as in YAML."""
    options: dict[str, dict] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        survey, dot, option = name.rpartition(".")
        if not separator or not dot:
            raise ValueError(f"--options: expected SURVEY.NAME=VALUE, found: {pair!r}")
        options.setdefault(survey, {})[option] = read_yaml(value, f"--options {name}")
    return options


def parse_data(pairs: list[str]) -> dict[str, list[str]]:
    """["sdss=a", "sdss=b"] -> {"sdss": ["a", "b"]}"""
    data: dict[str, list[str]] = {}
    for pair in pairs:
        survey, separator, path = pair.partition("=")
        if not separator or not path:
            raise ValueError(f"--data: expected SURVEY=PATH, found: {pair!r}")
        data.setdefault(survey, []).append(path)
    return data
