"""The options of `python -m macil export`."""

from __future__ import annotations

from pathlib import Path

import click

from macil.commands.cli import PATH
from macil.inference.formats import FORMATS, Format


@click.command()
@click.argument("checkpoint", metavar="RUN|CHECKPOINT", type=PATH)
@click.option("--to", "to", type=click.Choice(FORMATS), required=True, help="Format of FILE.")
@click.option("--out", metavar="FILE", type=PATH, required=True, help="File to write.")
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
@click.option("--released", is_flag=True, help="RUN|CHECKPOINT is a weight file of the authors' code.")
@click.option(
    "--num-heads", type=click.IntRange(min=1), help="Attention heads of --released weights; default 4."
)
def export(
    checkpoint: Path, to: Format, out: Path, overwrite: bool, released: bool, num_heads: int | None
) -> None:
    """Write the audio-visual network of a run (its model.pt) or of a checkpoint to FILE.

    safetensors holds tensors and configuration, and score and evaluate read it. onnx is a graph from visual
    (N, T, width) and audio (N, T, width) to scores (N, T). released is a weight file for the authors' code.

    The file is read back and compared with the network on random features of several lengths; it gets its name only
    when the scores agree.
    """
    from macil.commands.run_exporting import run_export

    run_export(checkpoint, to, out, overwrite=overwrite, released=released, num_heads=num_heads)
