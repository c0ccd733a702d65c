"""The options of `python -m macil check`, `convert` and `demo`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from macil.commands.cli import (
    PATH,
    reading_options,
)
from macil.data.demo.generator import DemoSize
from macil.data.store.meta import DTYPES, Dtype


def _size_options(command: Callable[..., None]) -> Callable[..., None]:
    """The sizes of the generated set; one that is not given is None."""
    for name, default in reversed(dict(DemoSize()).items()):
        flag = f"--{name.replace('_', '-')}"
        command = click.option(flag, name, type=int, help=f"[default: {default}]")(command)
    return command


@click.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--quick", "mode", flag_value="quick", help="Headers, and a small sample of the values.")
@click.option("--deep", "mode", flag_value="deep", help="Every value of every file.")
@reading_options
def check(folder: Path, mode: str | None, **options: Any) -> int:
    """List everything wrong in DIR: a folder in the XD-Violence layout, a manifest (.csv, .parquet) or a store.

    Without --quick or --deep, every value of a folder is read up to 2 GiB of features, and a sample of them beyond. A
    store is compared with the hashes of what was converted: every byte, or with --quick all but the features. Exit
    status 1 when something is wrong.
    """
    from macil.commands.run_data import run_check

    return run_check(folder, mode, options)


@click.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.argument("out", type=PATH)
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace the store that OUT holds.")
@reading_options
def convert(folder: Path, out: Path, dtype: Dtype, overwrite: bool, **options: Any) -> None:
    """Convert DIR, a folder in the XD-Violence layout or a manifest (.csv, .parquet), into the feature store OUT.

    A conversion that was interrupted continues where it stopped when the same command is run again.
    """
    from macil.commands.run_data import run_convert

    run_convert(folder, out, dtype, overwrite=overwrite, options=options)


@click.command()
@click.argument("out", type=PATH)
@click.option("--generated", is_flag=True, help="Write the generated set; any size below means it, too.")
@_size_options
@click.option("--ground-truth", is_flag=True, help="Write gt.npy, too.")
@click.option("--overwrite", is_flag=True, help="Replace the demo that OUT holds.")
def demo(out: Path, generated: bool, ground_truth: bool, overwrite: bool, **size: int | None) -> None:
    """Write a demo data set in the XD-Violence layout into OUT.

    It is the one that a search without --data runs on: real handwritten and spoken digits in a made-up story, under CC
    BY-SA 4.0 (NOTICE in OUT). With --generated or a size it is a set of made-up features of that size. Both are for
    trying the tools; results on them say nothing about XD-Violence. The size of the real data is about
    --train-videos 3954 --test-videos 800 --min-snippets 20 --max-snippets 400 (20 GB).
    """
    from macil.commands.run_data import run_demo

    run_demo(out, generated=generated, ground_truth=ground_truth, overwrite=overwrite, size=size)
