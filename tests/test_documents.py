"""Every code block of the documents, run as it stands: on simulated files and a model of 20,000 parameters.

A document's blocks run in order, in a working directory and a Python namespace of its own. ``python`` and ``sh``
blocks are run; a ``python`` or ``yaml`` block whose first line is a comment with a file's name is written to that
file. What cannot be run says so in the line before it, which readers do not see: ``<!-- not run: needs four GPUs
-->``.
"""

import dataclasses
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from unittest.mock import patch

import datasets
import finetune
import huggingface_hub
import pytest
import recipe
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoProcessor

from spectral_tokenizer import SpectralForPreTraining, cli
from spectral_tokenizer.cli.console import reader_options
from spectral_tokenizer.data import SURVEYS, load_survey
from spectral_tokenizer.objectives_spectral_tokenizer import OBJECTIVES


ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "spectral_tokenizer/data/README.md",
    "training/README.md",
    "benchmarks/README.md",
    "benchmarks/science/README.md",
    "hub_configs/README.md",
    "hub_configs/space/README.md",
    "hub_configs/released/README.md",
    "hub_configs/released_base/README.md",
    "hub_configs/released_class/README.md",
    "hub_configs/released_labels/README.md",
    "hub_configs/released_redshift/README.md",
)
FOLDERS = ("benchmarks", "hub_configs", "training")  # that commands name relative to the repository
READ = dict(SURVEYS)  # before a document adds one
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
FILE_NAME = re.compile(r"# (\S+\.(?:py|yaml))\n")

#: Options that are added to a command so that it takes seconds, and settings that replace a recipe's.
SMALL_COMMANDS = {
    "benchmarks.ingest": "--num-objects 2 --turns 1",
    "training/finetune.py": "--set num_train_epochs=1",
    "training/embed.py": "--batch-size 8",
}
OWN_PROCESS = ("training/pretrain.py",)  # it sets the number of threads and what signals do
SMALL_SETTINGS = {
    "num_steps": 4,
    "warmup_steps": 1,
    "validation_spectra": 6,
    "validate_every": 2,
    "checkpoint_every": 2,
}


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code in a document: its language, text and first line, and why it is not run."""

    document: str
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks_of(document: str) -> list[Block]:
    """The blocks that are run, written to files, or said not to be run."""
    text, blocks = (ROOT / document).read_text(), []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        if match["language"] in ("python", "sh", "yaml"):
            blocks.append(Block(document, line, match["language"], match["text"], match["reason"]))
    return blocks


BLOCKS = {document: blocks_of(document) for document in DOCUMENTS}


class Workspace:
    """Where a document's blocks are run, each once and after those before it.

    Args:
        blocks: of the document.
        folder: the working directory.
    """

    def __init__(self, blocks: list[Block], folder: Path):
        self.waiting = [block for block in blocks if block.reason is None]
        self.folder, self.names = folder, {"__name__": "__main__"}
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "HF_DATASETS_CACHE": str(folder / "cache"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TQDM_DISABLE": "1",
        }

    def run(self, last: Block | None = None) -> dict:
        """Run what waits, up to a block or all of it; the names that Python blocks have made so far."""
        while self.waiting and (last is None or last in self.waiting):
            block = self.waiting.pop(0)
            if name := FILE_NAME.match(block.text):
                (self.folder / name[1]).write_text(
                    small_recipe(block.text) if name[1].endswith("yaml") else block.text
                )
            elif block.language == "sh":
                for command in small_commands(block):
                    self.run_command(block, command)
            elif block.language == "python":
                self.run_python(block)
        return self.names

    @contextmanager
    def here(self) -> Iterator[None]:
        """This process in the workspace, and off the network: a model that is not there is no name on the Hub."""
        cache = patch.object(datasets.config, "HF_DATASETS_CACHE", self.folder / "cache")
        offline = patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with chdir(self.folder), cache, offline, patch.object(sys, "path", [str(self.folder), *sys.path]):
            yield

    def run_python(self, block: Block) -> None:
        code = compile("\n" * (block.line - 1) + block.text, ROOT / block.document, "exec")  # errors name the line
        with self.here():
            exec(code, self.names)

    def run_command(self, block: Block, command: str) -> None:
        """One line of a shell block; in this process, whose imports are done, unless it would leave traces here."""
        words = shlex.split(command)
        if words[0] == "spectral-tokenizer":
            with self.here(), patch.object(sys, "argv", words), pytest.raises(SystemExit) as end:
                cli.main()
            assert not end.value.code, f"{block}: {command}"
            return
        if words[:2] == ["python", "-m"]:
            with self.here(), patch.object(sys, "argv", words[2:]):
                runpy.run_module(words[2], run_name="__main__")
            return
        if words[0] == "python" and words[1] not in OWN_PROCESS:
            with self.here(), patch.object(sys, "argv", words[1:]):
                runpy.run_path(words[1], run_name="__main__")
            return
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block}: {command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def small_commands(block: Block) -> list[str]:
    """The commands of a shell block without comments, and with options that keep them short."""
    lines = (re.sub(r"\s+# .*$", "", line) for line in block.text.replace("\\\n", " ").splitlines())
    return [
        " ".join([line, *(options for name, options in SMALL_COMMANDS.items() if name in line)])
        for line in lines
        if line.strip()
    ]


def small_recipe(text: str) -> str:
    """A recipe with the same keys and smaller numbers."""
    settings = yaml.safe_load(text)
    return yaml.safe_dump(settings | {name: value for name, value in SMALL_SETTINGS.items() if name in settings})


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory, simulated_surveys, pretrained):
    """A working directory per document, with what its reader would have there. Registries are put back at the end."""
    surveys, made = simulated_surveys["sdss"].parent, {}
    for document, blocks in BLOCKS.items():
        folder = tmp_path_factory.mktemp("workspace")
        for name in FOLDERS:
            (folder / name).symlink_to(ROOT / name)
        (folder / "runs" / "demo").mkdir(parents=True)
        (folder / "runs" / "demo" / "model").symlink_to(pretrained)
        (folder / "runs" / "simulated").mkdir()
        (folder / "runs" / "simulated" / "seed0").symlink_to(surveys)
        if not any("simulate simulated" in block.text for block in blocks):
            (folder / "simulated").symlink_to(surveys)
        made[document] = Workspace(blocks, folder)
    with (
        patch.dict(SURVEYS),
        patch.dict(OBJECTIVES),
        patch.dict(sys.modules),
        patch.dict(os.environ, TQDM_DISABLE="1"),
    ):
        yield made


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=str(block), marks=pytest.mark.skip(reason=block.reason) if block.reason else ())
        for blocks in BLOCKS.values()
        for block in blocks
    ],
)
def test_block(workspaces, block):
    workspaces[block.document].run(block)


def test_the_readme_embeds_decodes_and_fine_tunes(workspaces):
    """Beyond running: its objects are what its text says."""
    names = workspaces["README.md"].run()
    assert [len(each) for each in names["flux"]] == [1000] * len(names["inputs"]["flux"])
    assert all(torch.isfinite(torch.as_tensor(each)).all() for each in names["flux"])
    # Whoever comes later needs no more than this.
    folder = workspaces["README.md"].folder / "runs" / "classes" / "model"
    model, processor = (each.from_pretrained(folder) for each in (AutoModelForSequenceClassification, AutoProcessor))
    rows = load_survey("sdss", workspaces["README.md"].folder / "simulated" / "sdss")[:5]
    output = model(**processor(rows, return_tensors="pt"))
    assert output.logits.shape == (5, 3) and model.config.id2label[1] == "QSO"
    torch.testing.assert_close(
        output.logits, names["model"].cpu().eval()(**names["processor"](rows, return_tensors="pt")).logits
    )
    assert not torch.equal(model.head.out_proj.weight, torch.zeros_like(model.head.out_proj.weight))
    before = SpectralForPreTraining.from_pretrained(ROOT / "hub_configs" / "released").spectral.state_dict()
    after = model.spectral.state_dict()
    moved = {name.split(".")[1] for name in before if "layers." in name and not torch.equal(before[name], after[name])}
    assert moved == {"0", "1", "2", "3"}


def test_every_survey_and_option_is_explained():
    text = (ROOT / "spectral_tokenizer" / "data" / "README.md").read_text()
    assert not [name for name in READ if f'`"{name}"`' not in text]
    assert not [name for name in reader_options(READ.values()) if f"`{name}=" not in text]


def test_every_module_of_the_package_is_on_the_map():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    modules = [path for folder in ("", "data") for path in (ROOT / "spectral_tokenizer" / folder).glob("*.py")]
    assert not {path.name for path in modules if not path.name.startswith("__") and path.name not in text}


def test_every_setting_is_explained():
    text = (ROOT / "training" / "README.md").read_text()
    for settings in (recipe.Recipe, finetune.FineTuningArguments):
        assert not [each.name for each in dataclasses.fields(settings) if f"`{each.name}`" not in text]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_reasons_stand_directly_before_their_block(document):
    """Elsewhere one would have no effect."""
    reasons = [block.reason for block in BLOCKS[document] if block.reason]
    marks = (ROOT / document).read_text().count("<!-- not run")
    assert marks == len(reasons), f"{marks} comments, but {len(reasons)} blocks that are not run"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    """Files that are linked to exist, and so do headings."""
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        if "://" in target:
            continue
        linked = (ROOT / document).parent / path if path else ROOT / document
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.M)
            assert heading in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, target


def test_every_measurement_is_explained_with_options_that_it_has(monkeypatch, capsys):
    """Also of the commands that are not run here."""
    commands = [
        command.split()
        for block in BLOCKS["benchmarks/README.md"]
        for command in block.text.splitlines()
        if command.startswith("python")
    ]
    modules = {re.sub(r".*benchmarks[./](\w+)(\.py)?$", r"\1", next(each for each in words if "benchmarks" in each)): words
               for words in commands}  # fmt: skip
    there = {path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py")} - {"common"}
    assert set(modules) == there
    for name, words in modules.items():
        module = __import__(f"benchmarks.{name}", fromlist=["main"])
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit):
            module.main()
        known = re.findall(r"--[\w-]+", capsys.readouterr().out)
        assert {word for word in words if word.startswith("--")} <= set(known), name
