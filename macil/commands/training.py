"""The options of `python -m macil train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from macil.commands.cli import (
    PATH,
    PATH_OR_URI,
    config_options,
    hyperparameter_options,
    reading_options,
    split_by_option,
)
from macil.errors import UsageError
from macil.training.settings import MOST_THREADS


@click.command()
@click.argument("data", type=PATH_OR_URI)
@click.option("--out", type=PATH, required=True, help="Folder for checkpoints and results.")
@config_options
@click.option("--record", type=PATH, help="Run the training of this record.json again.")
@click.option(
    "--resume", is_flag=True, help="Continue from OUT/last.pt, or from best.pt where that is damaged."
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier training in OUT.")
@click.option("--protocol", type=click.Choice(["published", "heldout", "refit"]), help="Default published.")
@click.option("--split", "split_file", type=PATH, help="Held-out split (split.json).")
@click.option(
    "--split-seed", type=click.IntRange(0, 2**31 - 1), help="Seed of the held-out split; default 0."
)
@split_by_option
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Default auto.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Default bf16 on a GPU, else fp32.")
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="CPU threads; default all.")
@reading_options
@hyperparameter_options
def train(data: Path | str, out: Path, resume: bool, overwrite: bool, **options: Any) -> None:
    """Train one configuration on DATA: a folder in the XD-Violence layout, a manifest (.csv, .parquet) or a store.

    OUT gets best.pt and last.pt (checkpoints that hold their configuration), record.json, config.toml, epochs.jsonl
    (one line an epoch, rewritten after each) and scores.npz (test snippet scores).
    """
    if resume and overwrite:
        raise UsageError("--resume continues and --overwrite replaces; give one of them")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder")
    from macil.commands.run_training import run_train

    run_train(data, out, resume=resume, overwrite=overwrite, options=options)
