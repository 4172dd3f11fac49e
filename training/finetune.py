"""Fine-tune a pre-trained encoder with a head, for classes, redshifts or stellar labels.

    python training/finetune.py --config training/recipes/finetune_class.yaml
    python training/finetune.py --config training/recipes/finetune_class.yaml --model runs/mine/model \
        --data sdss=/data/sdss --set num_trainable_layers=0 num_train_epochs=3

Survey files (or simulated ones) -> labelled rows -> Trainer -> a folder that AutoModelForSequenceClassification and
AutoProcessor open: `<output_dir>/model`. A recipe holds the fields of `FineTuningArguments` and of Transformers'
`TrainingArguments`. `accelerate launch` runs it on several processes.
"""

import argparse
import hashlib
import json
import re
import shutil
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from inspect import signature
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import checkpoints
import head_figures
import labelled
import numpy as np
import torch
from card import write_card
from datasets import Dataset
from devices import needs_cpu
from encoded import EncodedCollator, encode_once
from fsspec.implementations.local import LocalFileSystem
from recipe import (
    as_typed,
    check_limits,
    find,
    has_weights,
    is_files,
    is_names,
    is_number,
    is_whole,
    model_folder,
    parse_data,
    read_yaml,
)
from throughput import describe_device
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    HfArgumentParser,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from spectral_tokenizer import SpectralConfig, SpectralForSequenceClassification, SpectralProcessor
from spectral_tokenizer.data.collator import SpectralCollator
from spectral_tokenizer.data.cross_match import cross_match
from spectral_tokenizer.data.shards import model_fingerprint
from spectral_tokenizer.data.storage import write_aside
from spectral_tokenizer.metrics import make_compute_metrics, with_novelty


RUN = "run.json"
#: Trainer's settings that a run which goes on must have as it began. Of some the optimiser's state brings back those of
#: before without a word, and by the size of a step Trainer counts where in an epoch it is: however it is divided among
#: processes and micro-batches, the same spectra are in it.
LEARNT_BY = (
    "learning_rate", "weight_decay", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_type",
    "lr_scheduler_kwargs", "warmup_steps", "max_grad_norm", "label_smoothing_factor", "spectra_per_step", "seed",
    "data_seed",
)  # fmt: skip
#: What settings have to be, in words and as a check, as in `recipe`.
LIMITS = (
    (("labels",), "names of columns", lambda value: is_names(value) and value),
    (("classes",), "names", is_names),
    (
        ("simulation_seed", "split_seed", "cool_dwarfs"),
        "a whole number of 0 or more",
        lambda value: is_whole(value, 0),
    ),
    (
        ("num_trainable_layers",),
        "a whole number of 0 or more, or nothing",
        lambda value: value is None or is_whole(value, 0),
    ),
    (
        ("test_fraction", "calibration_fraction"),
        "a part between 0 and 1",
        lambda value: is_number(value) and 0 < value < 1,
    ),
    (("false_alarms",), "a part from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1),
)
#: The same of what a setting says of each survey, or of each label.
LIMITS_EACH = (
    (("data",), "files", is_files),
    (("options", "targets"), "a mapping", lambda value: isinstance(value, dict)),
    (
        ("simulate", "templates", "faint_templates"),
        "a whole number of 1 or more",
        lambda value: is_whole(value, 1),
    ),
)
#: Those that say where a run was, and whose it is: nothing for whoever reads its figures.
PRIVATE = re.compile(r"_dir$|_config$|_id$|^hub_|^(run_name|project|deepspeed|resume_from_checkpoint|local_rank)$")


@dataclass
class FineTuningArguments:
    """What is fine-tuned, and on what.

    Args:
        model: Checkpoint to start from, or folder with config.json alone (a size): from scratch.
        labels: Columns of the rows that are predicted: one with the names of classes, or several with numbers.
        classes: Names of the classes. Empty: the labels are numbers.
        targets: Label -> how it is predicted: fields of `TargetConfig`. Labels that are missing here have its
            defaults.
        head: Further settings of `SpectralConfig`: pooling, num_pooling_queries, classifier_hidden_size, ...
        label_head: Begin with the label head that the checkpoint was pre-trained with (`label_weight`), its `targets`
            and no other `head`; with `num_train_epochs: 0` it is only calibrated and tested.
        num_trainable_layers: None: the whole encoder is trained. 0: it is frozen. n: its last n layers are trained.
        select: Column -> values: only such rows are used.
        data: Survey -> what `load_survey` reads (files, folder, glob, identifiers), or tables of rows such as
            `prepare` writes (Parquet, Arrow, HDF5; then under any name). Where empty, surveys are simulated.
        options: Survey -> further arguments of `load_survey`, such as {galah: {catalogue: allstar.fits}}, or of
            `load_table`.
        label_table: Labels that no survey gives, from a table of one's own: the arguments of `cross_match` but for the
            rows, such as {table: ages.csv, columns: [age], key: sobject_id}.
        data_is_simulated: `data` holds simulated spectra, in a survey's own file format or not. Files do not say so.
        data_description: What `data` is, in words, for the model's card.
        simulate: Simulated spectra per survey, used where `data` is empty.
        templates: Survey -> number of spectra from published templates, as a stream of pre-training has them
            (`simulated.stream`): beside `data` or `simulate`, or alone. They are held in memory, some 0.1 MB each.
        faint_templates: The same, lost in noise, to train on alone. From them a head learns how little it knows of such
            spectra; without, it may be sure of anything.
        faint_snr: Their signal-to-noise per pixel, from and to, drawn evenly in its logarithm. None: from 0.03 to where
            that of `templates` begins.
        cool_dwarfs: Number of spectra of M dwarfs in APOGEE from published templates, beside those. Their class is
            known; they have no labels.
        simulation_seed: Of all of them. Other than pre-training's, so that they are objects never seen.
        test_fraction, calibration_fraction: Parts of the objects that are never trained on. Trainer evaluates on the
            second; errors and the flag of failures are calibrated on it.
        split_seed: Of the parts.
        false_alarms: Fraction of right predictions that the flag of failures may take for wrong.
        resume: "auto": go on from the last checkpoint in `output_dir`, if there is one. Or a checkpoint's folder. One of
            other rows, labels, settings of the model or of training (`LEARNT_BY`), as `run.json` beside it says, is
            refused; so are, without `resume`, an earlier run's. The number of epochs or steps may change: the
            learning rate follows the new schedule from there on. So may the number of processes, with as many spectra
            in a step: batch size and accumulation make up for it.

    Raises:
        ValueError: a setting is not what it has to be, which no file of a survey is needed to tell. Names it.
    """

    model: str = "runs/demo/model"
    labels: list[str] = field(default_factory=lambda: ["class"])
    classes: list[str] = field(default_factory=list)
    targets: dict = field(default_factory=dict)
    head: dict = field(default_factory=dict)
    label_head: bool = False
    num_trainable_layers: int | None = None
    select: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    label_table: dict = field(default_factory=dict)
    data_is_simulated: bool = False
    data_description: str = ""
    simulate: dict = field(default_factory=dict)
    templates: dict = field(default_factory=dict)
    faint_templates: dict = field(default_factory=dict)
    faint_snr: list[float] | None = None
    cool_dwarfs: int = 0
    simulation_seed: int = 1
    test_fraction: float = 0.2
    calibration_fraction: float = 0.15
    split_seed: int = 0
    false_alarms: float = 0.05
    resume: str | None = None

    def __post_init__(self):
        check_limits(self, LIMITS, LIMITS_EACH)
        if self.test_fraction + self.calibration_fraction >= 1:
            found = f"{self.test_fraction} and {self.calibration_fraction}"
            raise ValueError(f"test_fraction, calibration_fraction: expected less than 1 together, found: {found}")
        if self.classes and len(self.labels) > 1:
            raise ValueError(f"labels: expected one column with the names of classes, found: {self.labels}")
        if self.label_table:
            check_label_table(self.label_table)


def check_label_table(table: dict) -> None:
    """Raise ValueError for what `cross_match` does not take: it is asked once all files of a survey are read."""
    known = set(signature(cross_match).parameters) - {"rows"}
    unknown, missing = sorted(set(table) - known), sorted({"table", "columns"} - set(table))
    if unknown or missing:
        found = f"unknown ones {unknown}" if unknown else f"no {', '.join(missing)}"
        raise ValueError(f"label_table: expected table, columns and others of {sorted(known)}, found {found}")
    if not (is_names(table["columns"]) or isinstance(table["columns"], dict)):
        found = table["columns"]
        raise ValueError(f"label_table: columns: expected a list of names, or {{new: table's}}, found: {found!r}")
    if (table.get("key") is None) == (table.get("position") is None):
        raise ValueError(f"label_table: expected one of key and position, found: {sorted(table)}")


def checked(settings: dict, source: str) -> dict:
    """Settings of a recipe or of the command line, which may be the head's or Trainer's, each of its type.

    Raises:
        ValueError: as `as_typed`; or Trainer, which looks at no type, would take a text for a number, or for yes.
    """
    for name, kind in get_type_hints(TrainingArguments).items():
        value = settings.get(name)
        kinds = {get_origin(each) or each for each in (kind, *get_args(kind))}
        if isinstance(value, str) and not kinds & {str, dict, list}:
            raise ValueError(f"{source}: {name}: expected a number, or yes or no, found the text {value!r}")
    own = {each.name for each in fields(FineTuningArguments)} & set(settings)
    return settings | as_typed({name: settings[name] for name in own}, FineTuningArguments, source)


def parse_arguments(arguments: list[str] | None = None) -> tuple[FineTuningArguments, TrainingArguments]:
    """Command line -> settings of the head and of Trainer.

    Raises:
        ValueError: as `read_yaml`, `checked` and `FineTuningArguments`; or there is no such setting. Names it.
    """
    parser = argparse.ArgumentParser(description="Fine-tune a spectral tokenizer.")
    parser.add_argument("--config", required=True, help="recipe, e.g. training/recipes/finetune_class.yaml")
    several = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument("--data", **several, metavar="SURVEY=PATH", help="survey files, folder or glob")
    parser.add_argument(
        "--simulated", action="store_true", help="the spectra in --data are simulated: the card will say so"
    )
    parser.add_argument("--model", help="checkpoint or size to start from (default: the recipe's)")
    parser.add_argument("--output", help="folder to write to (default: the recipe's)")
    parser.add_argument("--resume", metavar="auto|FOLDER", help="go on from the last checkpoint, or from this one")
    parser.add_argument("--set", **several, metavar="NAME=VALUE", help="any other setting, as in YAML")
    given = parser.parse_args(arguments)
    if given.simulated and not given.data:
        parser.error("--simulated says of --data what it is: expected both, found no --data")
    settings = checked(read_yaml(find(given.config).read_text(), given.config) or {}, given.config)
    for pair in given.set:
        name, separator, value = pair.partition("=")
        if not separator:
            raise ValueError(f"--set: expected NAME=VALUE, found: {pair!r}")
        settings |= checked({name: read_yaml(value, f"--set {name}")}, "--set")
    chosen = {"model": given.model, "output_dir": given.output, "resume": given.resume}
    settings |= {name: value for name, value in chosen.items() if value is not None}
    if given.data:
        # What the recipe says of its own data is not true of these.
        settings |= {"data": parse_data(given.data), "data_is_simulated": given.simulated, "data_description": ""}
    # Rows have columns that the model does not take: Trainer would drop them before the collator sees them.
    fixed = {"remove_unused_columns": False, "label_names": ["labels"]}
    settings.setdefault("dataloader_pin_memory", torch.cuda.is_available())
    settings.setdefault("use_cpu", needs_cpu())
    return HfArgumentParser((FineTuningArguments, TrainingArguments)).parse_dict({**settings, **fixed})


def prepare_model(arguments: FineTuningArguments):
    """The encoder of a checkpoint (or a fresh one) with the head that the labels ask for, and the processor.

    Raises:
        FileNotFoundError: as `model_folder`.
        ValueError: the model has no such setting; or it is a head for classes and numbers are asked for, or one for
            numbers and classes are: its answers would be read as the others where they are as many.
    """
    folder = model_folder("model", arguments.model)
    names = arguments.classes or arguments.labels
    settings = {
        "problem_type": "single_label_classification" if arguments.classes else "regression",
        "id2label": dict(enumerate(names)),
        "targets": arguments.targets or None,
        "num_trainable_layers": arguments.num_trainable_layers,
        **arguments.head,
    }
    processor = SpectralProcessor.from_pretrained(folder)
    if arguments.label_head:
        return with_label_head(folder, arguments), processor
    config = AutoConfig.from_pretrained(folder, num_labels=len(names), **settings)
    unknown = sorted(set(arguments.head) - set(config.to_dict()))
    if unknown:
        raise ValueError(f"head: expected settings of SpectralConfig, found: {unknown}")
    if has_weights(folder):
        check_kind(folder, config)
        return AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=torch.float32
        ), processor
    return AutoModelForSequenceClassification.from_config(config), processor


def check_kind(folder: Path, config: SpectralConfig) -> None:
    """Raise ValueError as `prepare_model` where a checkpoint's head is of another kind than `config` asks for."""
    saved = AutoConfig.from_pretrained(folder)
    is_head = SpectralForSequenceClassification.__name__ in (saved.architectures or [])
    if is_head and saved.is_regression != config.is_regression:
        expected, found = (
            f"{'numbers' if each.is_regression else 'classes'} ({', '.join(each.label_names)})"
            for each in (config, saved)
        )
        raise ValueError(
            f"model: {folder}: expected a tokenizer or a head for {expected}, found a head for {found}: begin with the "
            "tokenizer that it stands on"
        )


def with_label_head(folder: Path, arguments: FineTuningArguments) -> SpectralForSequenceClassification:
    """The head of pre-training, on as much of the encoder as is asked for.

    Raises:
        ValueError: a head of another kind is asked for, or classes that it was not told.
    """
    if arguments.targets or arguments.head:
        raise ValueError(
            f"label_head: expected neither targets nor head beside it, found: {arguments.targets}, {arguments.head}"
        )
    asked = "class" if arguments.classes else arguments.labels
    model = SpectralForSequenceClassification.from_label_head(folder, asked, dtype=torch.float32)
    told = list(model.config.id2label.values())
    if told != (arguments.classes or arguments.labels):
        raise ValueError(f"classes: expected {told}, as the label head was told, found: {arguments.classes}")
    model.config.num_trainable_layers = arguments.num_trainable_layers
    model.freeze()
    return model


def batches(rows: Dataset, collator: SpectralCollator, training: TrainingArguments) -> torch.utils.data.DataLoader:
    """All rows in order, the same on every process."""
    return torch.utils.data.DataLoader(rows, training.per_device_eval_batch_size, collate_fn=collator)


def find_checkpoint(output: Path, resume: str | None) -> Path | None:
    """The checkpoint to go on from, if any. Raises as `checkpoints.choose`."""
    # Whole ones: Trainer writes its state last, and a kill may leave a folder without.
    states = (path.parent for path in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}"))
    last = max(states, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return checkpoints.choose(output, last, "auto" if resume is True else resume, TRAINER_STATE_NAME)


def identity(rows: dict[str, Dataset], labels: list[str], model, training: TrainingArguments) -> dict:
    """What a run is of, and checkpoints of another are not: objects with their labels, the model that it begins with,
    and what it learns by. Not pixels, of which simulated ones differ in their last bits with the number of threads."""
    told = {part: each.select_columns(["survey", "object_id", *labels]).to_pandas() for part, each in rows.items()}
    told = {part: hashlib.sha256(each.round(6).to_csv().encode()).hexdigest()[:16] for part, each in told.items()}
    prints = {f"{part} rows": print_of for part, print_of in told.items()} | {"model": model_fingerprint(model)}
    step = training.world_size * training.train_batch_size * training.gradient_accumulation_steps
    asked = training.to_dict() | {"spectra_per_step": step}
    return prints | {name: asked[name] for name in LEARNT_BY}


def check_run(checkpoint: Path, run: dict) -> None:
    """Raise ValueError, which names what differs, where a checkpoint is of another run, as `run.json` beside it says."""
    path = checkpoint.parent / RUN
    if not path.exists():
        print(f"{path}: found none, as before there was one: whether {checkpoint} is of these rows is not known")
        return
    # From before a setting was written down, it is not known; rows and model always were.
    then = {name: run[name] for name in LEARNT_BY} | json.loads(path.read_text())
    differing = sorted(name for name in run if run[name] != then.get(name))
    others = [f"{name} {run[name]} for {then[name]}" if name in LEARNT_BY else name for name in differing]
    if others:
        raise ValueError(
            f"{checkpoint}: expected what {path} says, found others: {', '.join(others)}. With these begin a new run: take "
            "another --output"
        )


def write_run(output: Path, run: dict) -> None:
    """Tell what the run's checkpoints will be of."""
    output.mkdir(parents=True, exist_ok=True)
    with write_aside(LocalFileSystem(), (output / RUN).as_posix()) as unfinished:
        Path(unfinished).write_text(json.dumps(run, indent=2) + "\n")


class ReadableCheckpoints(TrainerCallback):
    """Weights of Trainer's checkpoints for whoever may read their folder, as `checkpoints.let_read` has it."""

    def on_save(self, args, state, control, **_):
        if state.is_world_process_zero:
            checkpoints.let_read(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


def step_of(checkpoint: Path) -> int:
    return TrainerState.load_from_json(checkpoint / TRAINER_STATE_NAME).global_step


def main() -> None:
    arguments, training = parse_arguments()
    model_folder("model", arguments.model)  # before the files of a survey, which are read in hours
    with ExitStack() as stack:
        # Of two runs in one folder each would go on from the other's checkpoints.
        if training.process_index == 0:
            stack.callback(checkpoints.alone_in(Path(training.output_dir)).release)
        fine_tune(arguments, training)


def fine_tune(arguments: FineTuningArguments, training: TrainingArguments) -> None:
    """Read, train, measure and write, as the settings say."""
    output = Path(training.output_dir)
    # Of all nodes: which checkpoint is the last is asked while the folder is held.
    with training.main_process_first(desc="surveys", local=False):
        checkpoint = find_checkpoint(output, arguments.resume)
        begun = step_of(checkpoint) if checkpoint else None  # Trainer may remove the checkpoint meanwhile
        rows = labelled.load(arguments, training.output_dir)
    print({name: len(part) for name, part in rows.items()})
    learnt = set(rows["train"][arguments.labels[0]][:]) if arguments.classes else set()
    if (missing := sorted(set(arguments.classes) - learnt)) and not arguments.label_head:
        raise ValueError(f"classes: expected spectra of each to train on, found none of {missing}")
    torch.manual_seed(training.seed)
    model, processor = prepare_model(arguments)
    model.forget_calibration()  # of the head that it begins with, if any: it is found anew at the end
    run = identity(rows, arguments.labels, model, training)
    if checkpoint:
        check_run(checkpoint, run)
    if training.process_index == 0:
        write_run(output, run)
    model.to(training.device)
    collator = SpectralCollator(processor, arguments.labels, arguments.classes or None)
    if arguments.num_trainable_layers == 0:
        rows = {name: encode_once(model, processor, part, name) for name, part in rows.items()}
        collator = EncodedCollator(model.config, processor, arguments.labels, arguments.classes or None)
    if not arguments.label_head:  # whose weights are for features as they are
        model.fit_scales(batches(rows["train"], collator, training))

    trainer = Trainer(
        model,
        training,
        data_collator=collator,
        train_dataset=rows["train"],
        eval_dataset=rows["calibration"],
        processing_class=processor,
        compute_metrics=make_compute_metrics(model.config),
        callbacks=[ReadableCheckpoints()],
    )
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - start
    if trainer.state.global_step == begun:
        print(f"{checkpoint} is of the last of {trainer.state.global_step} steps: nothing was left to train")
    finish(trainer, rows, arguments, seconds)


def finish(trainer: Trainer, rows: dict[str, Dataset], arguments: FineTuningArguments, seconds: float) -> None:
    """Calibrate, test, draw, and save the model with all that was measured of it."""
    model, processor, output = trainer.model, trainer.processing_class, Path(trainer.args.output_dir)
    raw = trainer.predict(rows["test"], metric_key_prefix="raw").metrics
    model.fit_novelty(batches(rows["train"], trainer.data_collator, trainer.args))
    model.calibrate(batches(rows["calibration"], trainer.data_collator, trainer.args), arguments.false_alarms)
    tested = trainer.predict(rows["test"], with_novelty(model.config), "test")
    if not trainer.is_world_process_zero():
        return
    metrics = {
        "arguments": asdict(arguments),
        "training": {name: value for name, value in trainer.args.to_dict().items() if not PRIVATE.search(name)},
        "simulated": arguments.data_is_simulated or not arguments.data,
        "num_spectra": {name: len(part) for name, part in rows.items()},
        "num_parameters": {
            "all": sum(each.numel() for each in model.parameters()),
            "trained": sum(each.numel() for each in model.parameters() if each.requires_grad),
        },
        "steps": trainer.state.global_step,
        "train_seconds": round(seconds, 1),
        "compute": {**describe_device(model.device, trainer.args.world_size), "seconds": seconds},
        "test": strip(tested.metrics, "test_"),
        **told_apart(trainer, rows["test"], tested),
        "test_before_calibration": strip(raw, "raw_"),
    }
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    figure = head_figures.draw(model.config, tested, rows["test"], output / "predictions.png", metrics["simulated"])
    save(model, processor, metrics, figure, output / "model")
    for name, value in metrics["test"].items():
        print(f"{name:<28} {value:10.4g}")
    print(f"\nmodel and processor: {output / 'model'}\npicture: {figure}\nfigures: {output / 'metrics.json'}")


def strip(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    """Metrics of the predictions alone: how fast they came is another matter, and what was trained is not what the
    calibrated head says."""
    names = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    return {
        name: value for name, value in names.items() if not re.search("^loss$|runtime|per_second|preparation", name)
    }


def told_apart(trainer: Trainer, rows: Dataset, tested) -> dict[str, dict]:
    """`test_by_survey`, and of a head for numbers `test_by_class` where several classes are known: of galaxies, quasars
    and stars together a redshift's scatter says little. Of a head for classes, its metrics tell them apart."""
    scores = {"test_by_survey": by_column("survey", trainer, rows, tested)}
    if trainer.model.config.is_regression and "class" in rows.column_names:
        by_class = by_column("class", trainer, rows, tested)
        scores |= {"test_by_class": by_class} if len(by_class) > 1 else {}
    return scores


def by_column(column: str, trainer: Trainer, rows: Dataset, tested) -> dict[str, dict[str, float]]:
    """The same metrics of the rows of each survey or class alone."""
    values = np.array(rows[column], dtype=object)
    scores = {}
    for name in sorted({value for value in values if value}):  # plain text: the card's YAML has no word for numpy's
        chosen = values == name
        predictions = tested.predictions
        part = tuple(each[chosen] for each in predictions) if isinstance(predictions, tuple) else predictions[chosen]
        scores[name] = trainer.compute_metrics(tested._replace(predictions=part, label_ids=tested.label_ids[chosen]))
    return scores


def save(model, processor, metrics: dict, figure: Path, folder: Path) -> None:
    """Model, processor, card and picture: written aside, then renamed."""
    aside = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    processor.save_pretrained(aside)
    checkpoints.let_read(aside)
    write_card(aside, metrics, figure)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


if __name__ == "__main__":
    main()
