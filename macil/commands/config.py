"""`python -m macil config`: what a preset, a file and options resolve to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from macil.commands.cli import PATH, config_options, echo, hyperparameter_options, resolve_config


@click.command()
@config_options
@hyperparameter_options
@click.option("--out", type=PATH, help="Write it to this .toml or .yaml file.")
@click.option("--format", "kind", type=click.Choice(["toml", "yaml"]), default="toml", show_default=True)
def config(preset: str | None, config_file: Path | None, out: Path | None, kind: str, **options: Any) -> None:
    """Print the resolved configuration."""
    resolved = resolve_config(preset, config_file, options)
    if out is not None:
        resolved.save(out)
        echo(f"wrote {out}")
    else:
        echo(resolved.to_text(kind), keep="\n", nl=False)
