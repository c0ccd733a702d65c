"""The options of `python tune/report.py`; what it does is in `tune.reporting.write`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from macil.commands import cli
from macil.commands.cli import echo
from macil.errors import UsageError
from tune.storage.names import EPOCHS_TABLE, TRIALS_SHEET, TRIALS_TABLE

if TYPE_CHECKING:
    from tune.reporting.write import Labels


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("runs", nargs=-1, required=True, type=cli.WORD, metavar="RUN...")
@click.option(
    "--storage",
    type=cli.WORD,
    default="./runs",
    show_default=True,
    help="Folder or URI that holds runs by name.",
)
@click.option(
    "--labels",
    type=click.Choice(["auto", "open", "closed"]),
    default="auto",
    show_default=True,
    help="Test labels of a held-out run: opened when it has ended, now, or not at all. Every access is logged.",
)
@click.option(
    "--out",
    type=cli.PATH,
    help="Several runs: folder of their comparison.  [default: comparison-NAMES beside the first]",
)
@click.option(
    "--figures/--no-figures",
    default=True,
    help="Draw the figures, which takes most of the time.  [default: yes]",
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def report(
    runs: tuple[str, ...],
    storage: str,
    labels: Labels,
    out: Path | None,
    figures: bool,
    debug: bool,  # noqa: ARG001 (`cli.main` takes --debug off the line)
) -> int:
    """Write the report of each RUN (a name, a path or a URI) into RUN/report/; also of one that is running or failed.

    Of several runs, a page that shows them side by side is written too.
    """
    if len(runs) == 1 and out is not None:
        raise UsageError("--out is the folder of a comparison; give two runs or more, or leave it out")
    from tune.reporting.write import write_report, write_reports

    if len(runs) == 1:
        path = write_report(runs[0], storage, labels, figures=figures)
        echo(f"report: {path}")
        echo(f"tables: {path.with_name(TRIALS_SHEET)}, {TRIALS_TABLE}, {EPOCHS_TABLE} beside it")
        return 0
    paths, comparison, unread = write_reports(runs, storage, labels, out, figures=figures)
    for path in paths:
        echo(f"report: {path}")
    if comparison is not None:
        echo(f"comparison: {comparison}")
        echo(f"tables: {comparison.with_name(TRIALS_SHEET)}, {TRIALS_TABLE} beside it")
    for name, reason in unread:
        echo(f"error: {name}: {reason}", err=True)
    return 1 if unread else 0


def main() -> None:
    """Entry point."""
    cli.main(report)
