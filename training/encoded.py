"""A frozen encoder answers once: rows with what it says of them, and batches of these."""

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from spectral_tokenizer import SpectralConfig, SpectralForSequenceClassification, SpectralProcessor
from spectral_tokenizer.data.collator import SpectralCollator
from spectral_tokenizer.data.embedding import PackedBatches, embed
from spectral_tokenizer.data.schema import SPECTRUM


#: Columns of a head that reads tokens, as bytes: those of latents and then of valid patches, and the pixels of these.
TOKENS = {"tokens": np.float16, "pixel_wavelength": np.float64, "pixel_usable": np.bool_}


def encode_once(
    model: SpectralForSequenceClassification, processor: SpectralProcessor, rows: Dataset, name: str = ""
) -> Dataset:
    """Rows with `pooler_output` in place of pixels, and where the head reads tokens with `TOKENS` too. They are held in
    memory, some 100 kB a spectrum at the tiny size.

    Raises:
        ValueError: the processor refuses a spectrum, as it says.
    """
    if not model.head.reads_tokens:
        vectors, problems = embed(model.spectral, processor, rows, progress=True)
        check(problems)
        return rows.remove_columns(list(SPECTRUM)).add_column("pooler_output", list(vectors))
    batches = PackedBatches(rows, processor, batch_size=32)
    columns = {name: [] for name in ("pooler_output", *TOKENS)}
    with tqdm(total=len(rows), desc=f"tokens {name}", unit="spectra", leave=False, disable=None) as bar:
        for inputs, problems in batches:
            check(problems)
            for column, values in encoded(model, inputs).items():
                columns[column] += values
            bar.update(len(problems))
    rows = rows.remove_columns(list(SPECTRUM))
    for column, values in columns.items():
        rows = rows.add_column(column, pa.array(values, pa.large_binary()) if column in TOKENS else values)
    return rows


def check(problems: list[str | None]) -> None:
    if any(problems):
        raise ValueError(next(problem for problem in problems if problem))


@torch.no_grad()
def encoded(model: SpectralForSequenceClassification, inputs: dict) -> dict[str, list]:
    """What the encoder says of packed spectra, in evaluation: column -> values."""
    was_training, device = model.training, model.device
    model.eval()
    found = model.spectral(
        **{name: each.to(device) if torch.is_tensor(each) else each for name, each in inputs.items()}
    )
    model.train(was_training)
    lengths = inputs["lengths"]
    packed = {
        "tokens": (found.last_hidden_state, [model.config.num_latents + length for length in lengths]),
        "pixel_wavelength": (inputs["wavelength"], lengths),
        "pixel_usable": (inputs["ivar"] > 0, lengths),
    }
    columns = {
        name: [each.cpu().numpy().astype(TOKENS[name]).tobytes() for each in values[0].split(sizes)]
        for name, (values, sizes) in packed.items()
    }
    return {"pooler_output": list(found.pooler_output.float().cpu().numpy()), **columns}


class EncodedCollator(SpectralCollator):
    """Rows of `encode_once` -> a batch for the head of a model of this configuration."""

    def __init__(self, config: SpectralConfig, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.config = config

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        batch = {"pooler_output": torch.from_numpy(np.array([row["pooler_output"] for row in rows], dtype=np.float32))}
        if set(TOKENS) <= set(rows[0]):
            sizes = dict(zip(TOKENS, (self.config.hidden_size, self.config.patch_size, self.config.patch_size)))
            tokens, wavelength, is_usable = (
                [from_bytes(row[name], TOKENS[name], size) for row in rows] for name, size in sizes.items()
            )
            padded = {
                "last_hidden_state": tokens,
                "wavelength": wavelength,
                "ivar": [each.float() for each in is_usable],
                "attention_mask": [torch.ones(len(each), dtype=torch.long) for each in wavelength],
            }
            batch |= {name: pad_sequence(each, batch_first=True) for name, each in padded.items()}
            batch["last_hidden_state"] = batch["last_hidden_state"].float()
        return batch | self.labels(rows)


def from_bytes(values: bytes, dtype, size: int) -> torch.Tensor:
    """(positions, size), none of a spectrum without a valid patch."""
    return torch.from_numpy(np.frombuffer(values, dtype=dtype).reshape(-1, size).copy())
