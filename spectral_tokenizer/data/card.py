"""The README.md of prepared surveys: it makes their folder a data set of the Hub's kind, a configuration per survey.

With it ``load_dataset("OUTPUT", "sdss")`` works on disk, and ``hf upload USER/NAME OUTPUT . --repo-type dataset`` is
all it takes to publish it (an upload that broke off goes on): ``load_dataset("USER/NAME", "sdss", streaming=True)``.
"""

from fsspec import AbstractFileSystem
from huggingface_hub import DatasetCard, DatasetCardData

from .storage import sweep, write_aside


ATTEMPTS = 10
TEXT = """
# Spectra

Rows of `spectral_tokenizer.data.schema`, one per spectrum, on the survey's own pixels: `wavelength` in vacuum Angstrom
in the frame that `frame` names, `flux` in the survey's unit, `ivar` its inverse variance with 0 for unusable pixels,
`segment_lengths` the pixels of each arm, chip or CCD. `_manifest` beside the rows tells what became of every file.

```python
from datasets import load_dataset

rows = load_dataset("<this repository or folder>", "{survey}", split="train", streaming=True)
```

Whoever uses a survey's spectra cites and acknowledges the survey:

"""


def write_card(file_system: AbstractFileSystem, folder: str, citations: dict[str, str]) -> None:
    """Write README.md, or add to the one that is there the configurations of surveys that it does not have yet. Tasks of an
    array may do so at once.

    Args:
        file_system, folder: of all surveys' results.
        citations: survey -> how it is cited and acknowledged, of the surveys in the folder.
    """
    path = f"{folder}/README.md"
    for attempts_left in reversed(range(ATTEMPTS)):
        try:
            add_to_card(file_system, path, citations)
            break
        except FileNotFoundError:
            # Another task that has finished its card swept away what this one was writing: now there is one to add to.
            if not attempts_left:
                raise
    sweep(file_system, path)


def add_to_card(file_system: AbstractFileSystem, path: str, citations: dict[str, str]) -> None:
    """The card with the configurations of `citations`, as far as it lacks them."""
    if file_system.exists(path):
        card = DatasetCard(file_system.cat_file(path).decode(), ignore_metadata_errors=True)
    else:
        data = DatasetCardData(tags=["astronomy", "spectroscopy"])
        card = DatasetCard(f"---\n{data}\n---\n{TEXT.replace('{survey}', next(iter(citations)))}")
    configs = list(getattr(card.data, "configs", None) or [])
    known = {config["config_name"] for config in configs}
    new = {survey: citation for survey, citation in citations.items() if survey not in known}
    if not new:
        return
    for survey in new:
        files = [{"split": "train", "path": f"{survey}/train-*.parquet"}]
        configs.append({"config_name": survey, "data_files": files})
    card.data.configs = sorted(configs, key=lambda config: config["config_name"])
    card.text = (
        card.text.rstrip("\n") + "".join(f"\n- {survey}: {citation}" for survey, citation in new.items()) + "\n"
    )
    with write_aside(file_system, path) as unfinished:
        file_system.pipe_file(unfinished, str(card).encode())
