"""A frozen encoder answers once: rows with what it says of them, and batches of these."""

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from datasets.fingerprint import generate_random_fingerprint
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from spectral_tokenizer import SpectralConfig, SpectralForSequenceClassification, SpectralProcessor
from spectral_tokenizer.data.collator import SpectralCollator
from spectral_tokenizer.data.embedding import PackedBatches, embed
from spectral_tokenizer.data.packing import count_patches
from spectral_tokenizer.data.schema import SPECTRUM
from spectral_tokenizer.modeling_spectral_tokenizer import SpectralModelOutput


#: Columns of a head that reads tokens, as bytes: those of latents and then of valid patches, and the pixels of these.
TOKENS = {"tokens": np.float16, "pixel_wavelength": np.float64, "pixel_usable": np.bool_}


def encode_once(
    model: SpectralForSequenceClassification, processor: SpectralProcessor, rows: Dataset, name: str = ""
) -> Dataset:
    """Rows with `pooler_output` in place of pixels, and where the head reads tokens with `TOKENS` too. They are held in
    memory, once: some 100 kB a spectrum at the tiny size.

    Raises:
        ValueError: the processor refuses a spectrum, as it says.
    """
    if model.head.reads_tokens:
        columns = with_tokens(model, processor, rows, name)
    else:
        vectors, problems = embed(model.spectral, processor, rows, progress=True)
        check(problems)
        columns = {"pooler_output": list(vectors)}
    rows = rows.remove_columns(list(SPECTRUM))
    for column, values in columns.items():
        # Without a fingerprint Datasets would pickle the whole table to find one.
        rows = rows.add_column(column, values, new_fingerprint=generate_random_fingerprint())
    return rows


def with_tokens(
    model: SpectralForSequenceClassification, processor: SpectralProcessor, rows: Dataset, name: str
) -> dict[str, list | pa.Array]:
    """`pooler_output` and `TOKENS` of all rows. There is room for all of them before the first batch: arrays kept from
    each batch would lie scattered among the encoder's large ones, and what those gave back could not be used again."""
    config = model.config
    num_patches = int(count_patches(rows, config.patch_size).sum())  # of which some may have no usable pixel
    heights = dict.fromkeys(TOKENS, num_patches) | {"tokens": num_patches + config.num_latents * len(rows)}
    room = {
        column: np.empty((height, token_size(config, column)), TOKENS[column]) for column, height in heights.items()
    }
    ends, vectors = {column: [0] for column in TOKENS}, np.empty((len(rows), config.pooled_size), np.float32)
    with tqdm(total=len(rows), desc=f"tokens {name}", unit="spectra", leave=False, disable=None) as bar:
        for number, (inputs, problems) in enumerate(batches := PackedBatches(rows, processor, batch_size=32)):
            check(problems)
            found, start = encoded(model, inputs), number * batches.batch_size
            vectors[start : start + len(problems)] = found.pooler_output.float().cpu()
            lengths = np.array(inputs["lengths"])
            for column, values, sizes in (
                ("tokens", found.last_hidden_state, config.num_latents + lengths),
                ("pixel_wavelength", inputs["wavelength"], lengths),
                ("pixel_usable", inputs["ivar"] > 0, lengths),
            ):
                reached = ends[column][-1] + sizes.cumsum()
                room[column][ends[column][-1] : reached[-1]] = values[0].cpu()
                ends[column] += reached.tolist()
            bar.update(len(problems))
    return {"pooler_output": list(vectors)} | {column: as_bytes(room[column], ends[column]) for column in TOKENS}


def token_size(config: SpectralConfig, column: str) -> int:
    """Numbers of one token, or pixels of one patch."""
    return config.hidden_size if column == "tokens" else config.patch_size


def as_bytes(values: np.ndarray, ends: list[int]) -> pa.Array:
    """Rows `ends[place]` to `ends[place + 1]` of values, for each place, without a copy."""
    offsets = np.array(ends, dtype=np.int64) * values.itemsize * values.shape[1]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(values[: ends[-1]])]
    return pa.Array.from_buffers(pa.large_binary(), len(ends) - 1, buffers)


def check(problems: list[str | None]) -> None:
    if any(problems):
        raise ValueError(next(problem for problem in problems if problem))


@torch.no_grad()
def encoded(model: SpectralForSequenceClassification, inputs: dict) -> SpectralModelOutput:
    """What the encoder says of packed spectra, in evaluation."""
    was_training, device = model.training, model.device
    model.eval()
    found = model.spectral(
        **{name: each.to(device) if torch.is_tensor(each) else each for name, each in inputs.items()}
    )
    model.train(was_training)
    return found


class EncodedCollator(SpectralCollator):
    """Rows of `encode_once` -> a batch for the head of a model of this configuration."""

    def __init__(self, config: SpectralConfig, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.config = config

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        batch = {"pooler_output": torch.from_numpy(np.array([row["pooler_output"] for row in rows], dtype=np.float32))}
        if set(TOKENS) <= set(rows[0]):
            tokens, wavelength, is_usable = (
                [from_bytes(row[name], TOKENS[name], token_size(self.config, name)) for row in rows] for name in TOKENS
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
