"""`python -m macil`: data, single trainings, scores and exports, without a search."""

from __future__ import annotations

import click

from macil import __version__
from macil.commands import cli
from macil.commands.config import config
from macil.commands.data import check, convert, demo
from macil.commands.exporting import export
from macil.commands.scoring import evaluate, score
from macil.commands.training import train


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Every command takes --debug, which shows the traceback of an error.",
)
@click.version_option(__version__, prog_name="macil")
def app() -> None:
    """MACIL-SD: data, single trainings, scores and exports. Searches: tune/search.py, or macil-search."""


for command in (demo, check, convert, config, train, evaluate, score, export):
    app.add_command(command)


def main() -> None:
    """Entry point."""
    cli.main(app)
