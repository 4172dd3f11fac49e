"""Publish a trained model on the Hub, in one commit that loads by name.

    python training/publish.py runs/demo/model USER/NAME --dry-run runs/published
    python training/publish.py runs/demo/model USER/NAME --private --tag v1
    python training/publish.py runs/demo/model hub_configs/NAME --release

The model folder that `pretrain.py` or `finetune.py` left, and the figures measured beside it -> weights in
safetensors, processor, code, card, figures as JSON, licence, citation and example. Whoever publishes is logged in: `hf
auth login`, or a token in HF_TOKEN. With `--release` nothing is uploaded: the folder becomes one of this project, whose code,
licence and citation are there already.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from card import example, write_card
from checkpoints import let_read
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from measured import check_model, read_evaluation, read_metrics
from recipe import PICKLES, ROOT
from transformers import AutoConfig, AutoModelForPreTraining, AutoModelForSequenceClassification

from spectral_tokenizer import SpectralConfig, SpectralProcessor


# What a model's folder may hold. A list of what it may not hold would miss the next kind of pickle.
SUFFIXES = {".safetensors", ".json", ".py", ".md", ".png", ".cff"}
NAMES = {"LICENSE"}
# A pickle that Trainer leaves beside every model. It is neither opened nor published.
OF_TRAINER = "training_args.bin"
# Pictures that measure.py leaves beside evaluation.json.
OF_EVALUATION = ("evaluation.png", "stars.png")
# Settings that say where code lies, or what Trainer did.
OF_A_RUN = {"auto_map", "use_cache"}
AUTO_CLASSES = {
    "SpectralForPreTraining": AutoModelForPreTraining,
    "SpectralForSequenceClassification": AutoModelForSequenceClassification,
}


@dataclass
class Publication:
    """What is published, and as what.

    Args:
        folder: Of the model.
        name: USER/NAME of the repository.
        metrics, evaluation: What `metrics.json` and, where there is one, `evaluation.json` of the run hold.
        tag: Name of the revision that this commit becomes.
        datasets: Repositories on the Hub of the training data.
        max_shard_size: Of a file of weights, as for `save_pretrained`.
        pictures: Of the evaluation.
        is_release: For whoever has this project: without its code, licence and citation.
    """

    folder: Path
    name: str
    metrics: dict
    evaluation: dict | None = None
    tag: str | None = None
    datasets: tuple[str, ...] = ()
    max_shard_size: str = "50GB"
    pictures: tuple[Path, ...] = ()
    is_release: bool = False


def check_files(folder: Path, names: set[str] = NAMES) -> None:
    """Raises ValueError where a model's folder holds anything but safetensors and what goes along with them."""
    foreign = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in SUFFIXES and path.name not in names
    )
    if foreign:
        reason = (
            "a pickle can run any code as it is opened" if any(map(is_pickle, foreign)) else "they are unknown here"
        )
        raise ValueError(
            f"{folder}: expected weights as .safetensors and {sorted(SUFFIXES)}, found: {foreign}: {reason}"
        )


def is_pickle(name: str) -> bool:
    return name.endswith(PICKLES)


def find_figures(folder: Path, given: Path | None, name: str) -> Path | None:
    """JSON that a run left beside its model, or in it; None where there is none.

    Raises:
        FileNotFoundError: `given` does not exist.
    """
    places = [given] if given else [folder / name, folder.parent / name]
    found = next((path for path in places if path.exists()), None)
    if given and found is None:
        raise FileNotFoundError(f"{given}: expected the figures of {folder}, found no such file")
    return found


def public(metrics: dict) -> dict:
    """Figures without paths of the machine that they were measured on."""
    metrics = json.loads(json.dumps(metrics))
    for run in (metrics, *(metrics.get("earlier") or [])):
        for settings in (run.get(part) for part in ("recipe", "arguments")):
            if settings:
                settings["data"] = dict.fromkeys(settings.get("data") or {}, "")
                settings["options"] = dict.fromkeys(settings.get("options") or {}, "")
                if table := (settings.get("label_table") or {}).get("table"):
                    settings["label_table"]["table"] = Path(table).name
                places = {"output", "model", "stream", "resume"} & set(settings)
                for name in (each for each in places if isinstance(settings[each], str)):
                    given = Path(settings[name])
                    # A folder of this project is everybody's.
                    settings[name] = given.as_posix() if given.parent == Path("hub_configs") else given.name
    return metrics


def assemble(publication: Publication, target: Path) -> Path:
    """Write everything that goes into the repository to a new folder: aside, then renamed.

    Raises:
        FileExistsError: `target` exists.
        ValueError: the folder holds a pickle or another foreign file, or another kind of model; or the evaluation is of
            another model.
    """
    folder = publication.folder
    if target.exists():
        raise FileExistsError(f"{target}: expected a new folder, found one that exists")
    check_files(folder, NAMES | {OF_TRAINER})
    config = AutoConfig.from_pretrained(folder)
    kind = (config.architectures or ["none"])[0]
    if not isinstance(config, SpectralConfig) or kind not in AUTO_CLASSES:
        raise ValueError(f"{folder}: expected a model of {sorted(AUTO_CLASSES)}, found: {kind} ({config.model_type})")
    # Opened and written anew: what goes out is what loads, with the code of this version.
    model, processor = AUTO_CLASSES[kind].from_pretrained(folder), SpectralProcessor.from_pretrained(folder)
    if publication.evaluation:
        check_model(publication.evaluation, model, folder)
    aside = target.with_name(f".writing-{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        model.save_pretrained(aside, max_shard_size=publication.max_shard_size)
        processor.save_pretrained(aside)
        let_read(aside)
        write_texts(publication, aside)
        if publication.is_release:
            remove_code(aside)
        check_files(aside)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def write_texts(publication: Publication, folder: Path) -> None:
    """Card, pictures, figures and, unless it is a release, example, licence and citation."""
    metrics = public(publication.metrics)
    write_card(
        folder,
        metrics,
        next((path for path in sorted(publication.folder.glob("*.png")) if path.name not in OF_EVALUATION), None),
        name=publication.name,
        revision=publication.tag,
        datasets=list(publication.datasets),
        evaluation=publication.evaluation,
        has_code=not publication.is_release,
    )
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    if publication.evaluation:
        (folder / "evaluation.json").write_text(json.dumps(publication.evaluation, indent=2) + "\n")
    copies = () if publication.is_release else (ROOT / "LICENSE", ROOT / "CITATION.cff")
    for path in (*publication.pictures, *copies):
        shutil.copy(path, folder / path.name)
    if not publication.is_release:
        (folder / "example.py").write_text(example(metrics, publication.name, publication.tag))


def remove_code(folder: Path) -> None:
    """Leave what needs this package, for everyone to read, whatever the umask."""
    for path in folder.glob("*.py"):
        path.unlink()
    for path in (folder / "config.json", folder / "preprocessor_config.json"):
        settings = {name: value for name, value in json.loads(path.read_text()).items() if name not in OF_A_RUN}
        path.write_text(json.dumps(settings, indent=2) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)


def push(folder: Path, publication: Publication, private: bool, revision: str | None) -> str:
    """Upload a complete folder in one commit, on a branch, and tag it. Returns the commit's address.

    Weights that an earlier commit left and this one does not have, in shards of another size, say, go in the same
    commit.

    Raises:
        ValueError: the repository is public where a private one was asked for, or has the tag already: then nothing
            was uploaded.
    """
    api, name = HfApi(library_name="spectral-tokenizer"), publication.name
    api.create_repo(name, private=private or None, exist_ok=True)
    if private and not api.repo_info(name).private:
        raise ValueError(f"{name}: expected a private repository, found one that is public")
    if publication.tag in [each.name for each in api.list_repo_refs(name).tags]:
        raise ValueError(f"{name}: expected a new tag, found one that exists: {publication.tag}")
    if revision:
        api.create_branch(name, branch=revision, exist_ok=True)
    files = {path.name: path for path in sorted(folder.iterdir())}
    stale = [path for path in api.list_repo_files(name, revision=revision) if is_weights(path) and path not in files]
    operations = [CommitOperationDelete(path) for path in stale]
    operations += [CommitOperationAdd(path, str(file)) for path, file in files.items()]
    message = f"Publish {publication.tag or 'model'}"
    commit = api.create_commit(name, operations, commit_message=message, revision=revision)
    if publication.tag:
        api.create_tag(name, tag=publication.tag, revision=commit.oid)
    return commit.commit_url


def is_weights(path: str) -> bool:
    return path.endswith((".safetensors", ".safetensors.index.json")) or is_pickle(path)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Publish a trained model on the Hub, in one commit.")
    parser.add_argument("folder", type=Path, help="the run's model/")
    parser.add_argument("name", metavar="USER/NAME", help="repository on the Hub; made where there is none")
    parser.add_argument("--private", action="store_true", help="only its owner sees it")
    parser.add_argument("--tag", help="name of this revision, e.g. v1; card and example pin it")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to (default: main)")
    parser.add_argument(
        "--max-shard-size", default="50GB", help="of a file of weights, e.g. 5GB (default: %(default)s)"
    )
    parser.add_argument(
        "--metrics", type=Path, help="figures of the run (default: metrics.json in or above the folder)"
    )
    parser.add_argument("--evaluation", type=Path, help="on further spectra (default: evaluation.json, likewise)")
    parser.add_argument(
        "--datasets", nargs="+", default=[], metavar="USER/NAME", help="of the training data, on the Hub"
    )
    parser.add_argument(
        "--simulated", action="store_true", help="the training data were simulated, whatever the figures say"
    )
    parser.add_argument("--dry-run", type=Path, metavar="OUT", help="leave the complete folder there, upload nothing")
    parser.add_argument(
        "--release",
        action="store_true",
        help="write the folder hub_configs/NAME, for this project, and upload nothing",
    )
    given = parser.parse_args(arguments)
    if given.release and (given.private or given.tag or given.revision):
        parser.error("--release uploads nothing: expected no --private, --tag or --revision beside it")
    if given.name.count("/") != 1:
        parser.error(f"expected USER/NAME, found: {given.name!r}")
    return given


def main(arguments: list[str] | None = None) -> None:
    given = parse_arguments(arguments)
    if not (given.folder / "config.json").exists():
        raise FileNotFoundError(f"{given.folder}: expected a model's folder, found no config.json")
    figures = find_figures(given.folder, given.metrics, "metrics.json")
    if figures is None:
        raise FileNotFoundError(f"{given.folder}: expected metrics.json in it or above it, found none; see --metrics")
    architectures = AutoConfig.from_pretrained(given.folder).architectures or []
    kind = "head" if "SpectralForSequenceClassification" in architectures else "tokenizer"
    metrics = read_metrics(figures, kind)
    metrics["simulated"] |= given.simulated
    measured = find_figures(given.folder, given.evaluation, "evaluation.json")
    pictures = [measured.with_name(name) for name in OF_EVALUATION] if measured else []
    publication = Publication(
        given.folder,
        given.name,
        metrics,
        read_evaluation(measured, kind) if measured else None,
        given.tag,
        tuple(given.datasets),
        given.max_shard_size,
        tuple(path for path in pictures if path.exists()),
        given.release,
    )
    if given.dry_run or given.release:
        print(f"complete, and not uploaded: {assemble(publication, given.dry_run or Path(given.name))}")
        return
    with tempfile.TemporaryDirectory() as aside:
        folder = assemble(publication, Path(aside) / "repository")
        print(push(folder, publication, given.private, given.revision))


if __name__ == "__main__":
    main()
