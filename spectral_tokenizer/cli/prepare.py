"""`spectral-tokenizer prepare`: a survey's files as Parquet, with a manifest."""

from pathlib import Path
from typing import Annotated

import typer

from .console import console, read_entries, read_options, reader_options


def prepare(
    survey: Annotated[str, typer.Argument(metavar="SURVEY", help="A survey; an unknown name lists them.")],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Files, globs, folders; URLs; identifiers, which are downloaded; or @LIST: a file with one a line.",
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder, or fsspec URL (s3://, gs://, hf://, ...), of the results.")
    ],
    num_proc: Annotated[int, typer.Option("--num-proc", "-j", min=1, help="Processes on this machine.")] = 1,
    num_shards: Annotated[
        int | None, typer.Option(min=1, help="Parquet files. Default: as in the earlier run, else one per 512 MiB.")
    ] = None,
    shard: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Make only this shard, from 0; give it again for more. Default: all."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="Mirror of the archive. Default: $SPECTRAL_TOKENIZER_{SURVEY}_URL, else the survey's own."),
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where downloads are kept. Default: the cache of Hugging Face Datasets.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first damaged or foreign file.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-O", help="Option of the reader, NAME or NAME=VALUE, such as sky or simulated."),
    ] = None,
) -> None:
    """
    Write a survey's spectra as Parquet, with a manifest of what was read, dropped and damaged.

    A run that was killed goes on when it is started again; what is finished is not made twice. The results lie in
    OUTPUT/SURVEY: a Parquet file and a manifest (a line of JSON per file) for each shard.

    **Examples**

        spectral-tokenizer prepare sdss /data/sdss --output prepared --num-proc 8

        spectral-tokenizer prepare desi @coadds.txt --output s3://bucket/spectra --option simulated

    On many machines, here as a Slurm array of 100 tasks (sbatch --array=0-99), a shard each:

        spectral-tokenizer prepare sdss /data/sdss --output prepared --num-shards 100 --shard $SLURM_ARRAY_TASK_ID

    From the archive, by plate, MJD and fibre, by healpix or tile, by sobject_id, or by field and star:

        spectral-tokenizer prepare sdss v5_13_2/3586-55181-0001 -o prepared

        spectral-tokenizer prepare desi main-dark-10000 0-1000-thru20210517 -o prepared

        spectral-tokenizer prepare galah 131116000501001 -o prepared

        spectral-tokenizer prepare apogee apo25m/M53/2M13121982+1731016 -o prepared

    **In Python**

        datasets.load_dataset("prepared", "sdss", split="train", streaming=True)

    **On the Hub**, where the same line reads it from USER/NAME:

        hf upload USER/NAME prepared . --repo-type dataset
    """
    from ..data import SURVEYS, prepare_survey

    if survey not in SURVEYS:
        raise typer.BadParameter(f"found {survey!r}; expected one of: {', '.join(SURVEYS)}", param_hint="SURVEY")
    options = read_options(option or (), reader_options([SURVEYS[survey]]))
    report = prepare_survey(
        survey,
        read_entries(files),
        output,
        num_shards=num_shards,
        shards=shard,
        base_url=base_url,
        cache_dir=cache_dir,
        num_proc=num_proc,
        strict=strict,
        progress=True,
        **options,
    )
    console.print(str(report), highlight=False, markup=False, soft_wrap=True)
    if not report.rows and report.damaged and shard is None:  # single shards may hold damaged files alone
        raise ValueError("no spectrum could be read")
    console.print(f"rows and manifest: {output.rstrip('/')}/{survey}", highlight=False, markup=False, soft_wrap=True)
