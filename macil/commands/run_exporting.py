"""What `python -m macil export` does: a trained network as a file for other programs."""

from __future__ import annotations

from pathlib import Path

from macil.commands.cli import echo
from macil.errors import UsageError
from macil.inference.exporting import SHAPES, export_network
from macil.inference.formats import Format
from macil.inference.loading import load_trained


def run_export(
    checkpoint: Path, to: Format, out: Path, *, overwrite: bool, released: bool, num_heads: int | None
) -> None:
    """Write the network of `checkpoint` to `out`; see `macil.commands.exporting.export`."""
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
