"""The options of `python -m macil evaluate` and `score`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from macil.commands.cli import (
    PATH,
    PATH_OR_URI,
    reading_options,
)
from macil.errors import UsageError

_CHECKPOINT = click.argument("checkpoint", type=PATH)
_RELEASED = click.option("--released", is_flag=True, help="CHECKPOINT is a weight file of the authors' code.")
_NUM_HEADS = click.option(
    "--num-heads", type=click.IntRange(min=1), help="Attention heads of --released weights; default 4."
)
_DEVICE = click.option(
    "--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), show_default=True
)


@click.command()
@_CHECKPOINT
@click.argument("data", type=PATH_OR_URI)
@_RELEASED
@_NUM_HEADS
@_DEVICE
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    checkpoint: Path,
    data: Path | str,
    released: bool,
    num_heads: int | None,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Frame-level average precision of CHECKPOINT on the test videos of DATA.

    CHECKPOINT is a checkpoint, the folder of a run (its model.pt) or a .safetensors export.
    """
    from macil.commands.run_scoring import run_evaluate

    run_evaluate(
        checkpoint,
        data,
        released=released,
        num_heads=num_heads,
        device=device,
        as_json=as_json,
        options=options,
    )


@click.command()
@_CHECKPOINT
@click.argument("features", metavar="FEATURES...", nargs=-1, required=True, type=PATH)
@click.option("--out", metavar="DIR", type=PATH, required=True, help="Folder to write.")
@click.option("--overwrite", is_flag=True, help="Replace the scores that DIR holds.")
@click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    help="Which videos of a data folder; default test.",
)
@click.option(
    "--video", "names", metavar="NAME", multiple=True, help="Only this video of a data folder; repeatable."
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(["csv", "parquet"]),
    multiple=True,
    default=["parquet"],
    show_default=True,
    help="Of the tables; repeatable.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Snippets that score above it are violent.",
)
@click.option(
    "--merge-seconds",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Join segments that are at most so far apart.",
)
@click.option(
    "--min-seconds", type=click.FloatRange(min=0), default=0.0, help="Then drop segments shorter than this."
)
@click.option(
    "--fps",
    type=click.FloatRange(0.001, 100_000),
    default=24.0,
    show_default=True,
    help="Frames a second of the videos.",
)
@click.option(
    "--snippet-frames",
    type=click.IntRange(1, 10_000),
    help="Frames of a snippet; default 16, or what a store says.",
)
@click.option(
    "--pictures",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    help="Timelines of the first so many videos.",
)
@click.option(
    "--labels", is_flag=True, help="Shade the annotated violence in the timelines; reads test labels."
)
@click.option(
    "--fill-audio",
    is_flag=True,
    help="Cut audio that is more than a row too long, fill what is too short with zeros; else it is refused.",
)
@_RELEASED
@_NUM_HEADS
@_DEVICE
def score(checkpoint: Path, features: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Score videos: a number between 0 and 1 for every snippet, violent segments, timelines. No labels are needed.

    CHECKPOINT is a checkpoint, the folder of a run (its model.pt) or a .safetensors export. FEATURES is one data
    folder (in the XD-Violence layout, or a converted store), or .npy files, told apart by their names:

    \b
    NAME__0.npy           a name of the layout: all crops NAME__0, NAME__1, ... beside it are read, and
                          NAME__vggish.npy from the layout's audio folder or from beside it
    NAME__vggish.npy      the audio of a NAME that is given too, where it lies elsewhere
    VISUAL.npy AUDIO.npy  any other names, one after the other: arrays (T, width) or (crops, T, width) and (T, width)

    DIR gets snippets.parquet and frames.parquet (a score a row), segments.json, and timelines/NAME.png and .svg.
    """  # noqa: D301 (click reads the escape)
    endless = [
        name
        for name in ("threshold", "fps", "min_seconds", "merge_seconds")
        if not math.isfinite(options[name])
    ]
    if endless:
        raise UsageError(f"--{endless[0].replace('_', '-')} {options[endless[0]]}: expected a finite number")
    from macil.commands.run_scoring import run_score

    run_score(checkpoint, features, out, options)
