"""`python -m macil export`: a trained network as a file for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from macil.commands.cli import PATH, echo
from macil.errors import UsageError
from macil.inference.exporting import FORMATS, SHAPES, Format, export_network
from macil.inference.loading import load_trained


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
    trained = load_trained(checkpoint, released=released, num_heads=num_heads)
    if out.exists() and out.samefile(trained.file):
        raise UsageError(f"--out {out} is the file that is to be exported; name another")
    parity = export_network(trained.network, to, out, trained.origin, overwrite=overwrite)
    config = trained.network.config
    echo(
        f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB): {to}, visual {trained.network.fc_v.in_features} and audio "
        f"{trained.network.fc_a.in_features} wide"
    )
    echo(
        f"read back and compared on {len(SHAPES)} random inputs of {SHAPES[0][1]} to {SHAPES[-1][1]} snippets: largest "
        f"difference {parity.scores:.3g} in scores, {parity.logits:.3g} in logits"
    )
    if to == "released" and config.num_heads != 4:
        echo(
            f"the file does not tell its {config.num_heads} attention heads: read it with num_heads={config.num_heads}"
        )
