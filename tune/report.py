"""`python tune/report.py RUN`: a run as tables and figures, in a page that needs no network and in files."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Run as a script: this folder is first on the path, its parent, which holds both packages, is not on it at all.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import base64
import datetime
import os
import shlex
from dataclasses import replace
from typing import Any, Literal

import click

from macil import __version__
from macil.cli import main
from macil.data.store import FeatureStore
from macil.errors import DataError, UsageError
from macil.files import write_text_atomic
from tune import outcome, rendering, sections, summary
from tune.drawings import draw_all
from tune.openings import closed_trials, needs_opening, open_labels, read_openings
from tune.results import RunResults, leaderboard, load_run
from tune.runtables import write_table
from tune.sweeprows import sweep_table

Labels = Literal["auto", "open", "closed"]


def write_report(run: str | Path, storage: str | Path = "./runs", labels: Labels = "auto") -> Path:
    """Write RUN/report/: report.html, report.md, trials.parquet, epochs.parquet, trials.csv, figures.

    Every file is replaced in one step. Test metrics that the protocol has kept closed are computed by opening the test
    labels, once for all trials.

    Args:
        run: A name in `storage`, a path or a URI.
        storage: Folder or URI of runs.
        labels: "auto" opens the labels of a run that has ended, "open" of any run, "closed" of none.

    Returns:
        Path of report.html; of its local copy when the run lies elsewhere.

    Raises:
        UsageError: There is no such run, or its folder cannot be written.
        DataError: The folder is no run.
    """
    results = load_run(run, storage)
    folder = _report_folder(results.path)
    results = _with_labels(results, labels)
    write_table(results.trials, folder / "trials.parquet")
    write_table(results.epochs, folder / "epochs.parquet")
    write_table(results.trials, folder / "trials.csv")
    content = _content(results, folder)
    write_text_atomic(folder / "report.md", rendering.markdown(content))
    write_text_atomic(folder / "report.html", rendering.html(content))
    if results.location:
        results.location.publish("report")
    return folder / "report.html"


def _report_folder(run: Path) -> Path:
    """Made before anything is computed: no label may be opened for a report that cannot be written."""
    folder = run / "report"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write {folder}: {error.strerror}; the report is written into the run"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {folder}: permission denied; the report is written into the run")
    return folder


def _with_labels(results: RunResults, labels: Labels) -> RunResults:
    """Open the test labels if they are to be opened and can be; whatever prevents it is said in `problems`."""
    problems = list(results.problems)
    results = replace(results, openings=read_openings(results.path, problems), problems=problems)
    if not closed_trials(results):
        return results
    if labels == "closed" or (labels == "auto" and results.status in ("running", "interrupted", "unknown")):
        if needs_opening(results):
            why = (
                "--labels closed"
                if labels == "closed"
                else f"the run is {results.status}; --labels open opens them now"
            )
            problems.append(
                f"the test labels stay closed ({why}): test metrics not measured before are absent"
            )
        return results
    try:
        store = _store_of(results)
        return open_labels(results, store) if needs_opening(results, store.labels_hash) else results
    except DataError as error:
        if needs_opening(results):
            problems.append(f"test metrics are absent: {'; '.join(str(error).splitlines())}")
        return results


def _store_of(results: RunResults) -> FeatureStore:
    place = results.info.get("data")
    if not place:
        raise DataError("run.json does not say where the converted data lie (field data)")
    return FeatureStore.open(str(place))


def _content(results: RunResults, folder: Path) -> dict[str, Any]:
    subject, tiles, trial = outcome.headline(results)
    command, expected = outcome.replay(results, trial or _first_ranked(results))
    drawn = draw_all(results, folder)
    return {
        "name": results.name,
        "status": results.status,
        "version": __version__,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "banners": summary.banners(results),
        "subject": subject,
        "tiles": tiles,
        "facts": summary.facts(results),
        "result": sections.result_table(results),
        "sweep": sweep_table(results),
        "leaderboard": sections.leaderboard_table(results),
        "states": sections.failures_table(results),
        "openings": sections.openings_table(results),
        "closed": needs_opening(results) and not results.openings,
        "problems": [*results.problems, *outcome.disagreements(results)],
        "figures": [
            {"title": f.title, "caption": f.caption, "file": f.png.name, "uri": _data_uri(f.svg, f.png)}
            for f in drawn
        ],
        "replay": command,
        "expected": expected,
        "configuration": summary.configuration(trial or _first_ranked(results)),
        "record": summary.record(results, trial or _first_ranked(results)),
        "rebuild": shlex.join(
            ["python", "tune/report.py", str(results.location.shown if results.location else results.path)]
        ),
    }


def _first_ranked(results: RunResults) -> dict[str, Any] | None:
    return next((row for row in leaderboard(results).to_pylist() if row["rank"] == 1), None)


def _data_uri(svg: Path, png: Path, largest: int = 400_000) -> str:
    """SVG, which prints sharply, unless thousands of lines make the picture smaller as PNG."""
    small = svg.stat().st_size <= largest
    kind, content = ("svg+xml", svg.read_bytes()) if small else ("png", png.read_bytes())
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("run")
@click.option("--storage", default="./runs", show_default=True, help="Folder or URI that holds runs by name.")
@click.option(
    "--labels",
    type=click.Choice(["auto", "open", "closed"]),
    default="auto",
    show_default=True,
    help="Test labels of a held-out run: opened when it has ended, now, or not at all. Every opening is logged.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def command(run: str, storage: str, labels: Labels, debug: bool) -> None:  # noqa: ARG001 (main takes --debug off the line)
    """Write the report of RUN (a name, a path or a URI) into RUN/report/; also of one that is running or failed."""
    path = write_report(run, storage, labels)
    click.echo(f"report: {path}")
    click.echo(f"tables: {path.with_name('trials.csv')}, trials.parquet, epochs.parquet beside it")


if __name__ == "__main__":
    main(command)
