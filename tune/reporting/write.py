"""The report of a run, or of several side by side: tables and figures, in pages that need no network and in files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from macil.data.opening import resolve
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError, MacilError, UsageError
from macil.io.command_line import from_any_folder
from macil.io.files import remove_temporaries, write_text_atomic
from macil.io.locks import Held, exclusive
from macil.io.notes import note
from macil.io.remote import is_uri, local_path
from tune.reporting.pages import rendering
from tune.reporting.pages.run_page import run_page
from tune.reporting.pages.several_runs import comparison_folder, write_comparison
from tune.results.label_access import (
    closed_trials,
    move_older,
    needs_label_access,
    open_labels,
    read_label_accesses,
)
from tune.results.run import RunResults, load_run
from tune.results.tables import write_table
from tune.storage.names import (
    EPOCHS_TABLE,
    INTERVALS_FILE,
    MEASURED_FILE,
    REPORT_FOLDER,
    REPORT_MARK,
    REPORT_PAGE,
    REPORT_TEXT,
    TRIALS_SHEET,
    TRIALS_TABLE,
)

Labels = Literal["auto", "open", "closed"]


def write_report(
    run: str | Path, storage: str | Path = "./runs", labels: Labels = "auto", *, figures: bool = True
) -> Path:
    """Write RUN/report/: report.html, report.md, trials.parquet, epochs.parquet, trials.csv, figures.

    Every file is replaced in one step, report.html last: until then an older one stays readable. Test metrics that the
    protocol has kept closed are computed by opening the test labels, once for all trials.

    Args:
        run: A name in `storage`, a path or a URI.
        storage: Folder or URI of runs.
        labels: "auto" opens the labels of a run that has ended, "open" of any run, "closed" of none.
        figures: Draw them; they take most of the time.

    Returns:
        Path of report.html; of its local copy when the run lies elsewhere.

    Raises:
        UsageError: There is no such run, or its folder cannot be written.
        DataError: The folder is no run.
    """
    return _report(run, storage, labels, figures=figures)[1]


def write_reports(
    runs: Sequence[str | Path],
    storage: str | Path = "./runs",
    labels: Labels = "auto",
    out: str | Path | None = None,
    *,
    figures: bool = True,
) -> tuple[list[Path], Path | None, list[tuple[str, str]]]:
    """The report of each run, and a page that compares them.

    A run that cannot be read or written does not spoil the others.

    Args:
        runs: Two or more, as for `write_report`.
        storage: Folder or URI of runs.
        labels: As for `write_report`.
        out: Folder of the comparison; None: comparison-NAMES beside the first run.
        figures: As for `write_report`; the comparison's own are drawn in any case. Where they are left out, a report
            that a run has already is left as it is.

    Returns:
        The pages of the runs, that of the comparison (None when no run could be read), and the runs that could not be
        read with the reason.

    Raises:
        UsageError: The folder of the comparison cannot be written.
    """
    read: dict[Path, RunResults] = {}
    paths, unread = [], []
    for run in runs:
        try:
            results, path = _report(run, storage, labels, figures=figures, keep=not figures)
        except (MacilError, OSError) as error:
            unread.append((str(run), "; ".join(str(error).splitlines())))
            continue
        if results.path not in read:
            read[results.path] = results
            paths.append(path)
    if not read:
        return [], None, unread
    found = list(read.values())
    folder = comparison_folder(found) if out is None else local_path(out)
    _writable(folder, "choose another --out")
    with _writing(folder), from_any_folder():
        return paths, write_comparison(found, unread, folder), unread


def _report(
    run: str | Path, storage: str | Path, labels: Labels, *, figures: bool, keep: bool = False
) -> tuple[RunResults, Path]:
    """The results of a run, with its labels where they may be opened, and its page; `keep` leaves one that is there."""
    results = load_run(run, storage)
    folder = results.path / REPORT_FOLDER
    # Before anything is computed: no label may be opened for a report that cannot be written.
    if folder.is_symlink():
        raise UsageError(
            f"{folder} is a link; the report is written into the run itself, so remove the link first"
        )
    _writable(folder, "the report is written into the run")
    with _writing(folder) as held:
        if held.waited:
            results = load_run(run, storage)  # the other process may have opened the labels
        move_older(results.location)
        results = _with_labels(results, labels)
        if not (keep and (folder / REPORT_PAGE).is_file()):
            _write_pages(results, folder, figures=figures)
    results.location.publish(REPORT_FOLDER, MEASURED_FILE, INTERVALS_FILE)
    return results, folder / REPORT_PAGE


def _write_pages(results: RunResults, folder: Path, *, figures: bool) -> None:
    write_table(results.trials, folder / TRIALS_TABLE)
    write_table(results.epochs, folder / EPOCHS_TABLE)
    write_table(results.trials, folder / TRIALS_SHEET)
    with from_any_folder():
        page = run_page(results, folder, figures=figures)
    write_text_atomic(folder / REPORT_TEXT, rendering.markdown(page))
    write_text_atomic(folder / REPORT_PAGE, rendering.html(page))


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[Held]:
    """One process at a time; a mark stands in the folder meanwhile, and what a killed process left is removed."""
    with exclusive(folder / REPORT_MARK, f"writing {folder}") as held:
        if held.cut_short:
            note(f"an earlier report was cut short; writing it again ({folder})")
        remove_temporaries(folder)
        yield held


def _writable(folder: Path, hint: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}; {hint}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {folder}: permission denied; {hint}")


def _with_labels(results: RunResults, labels: Labels) -> RunResults:
    """Open the test labels if they are to be opened and can be; a reason against it is added to `problems`."""
    problems = list(results.problems)
    results = replace(results, label_accesses=read_label_accesses(results.path, problems), problems=problems)
    if not closed_trials(results):
        return _with_chance(results)
    if labels == "closed" or (labels == "auto" and results.status in ("running", "interrupted", "unknown")):
        if needs_label_access(results):
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
        return open_labels(results, store) if needs_label_access(results, store.labels_hash) else results
    except DataError as error:
        if needs_label_access(results):
            problems.append(f"test metrics are absent: {'; '.join(str(error).splitlines())}")
        return results


def _with_chance(results: RunResults) -> RunResults:
    """The AP of guessing, for a run of an earlier version, which did not record it; its trainings read the labels."""
    if results.chance is None and results.protocol == "published":
        with contextlib.suppress(DataError):
            return replace(results, chance=_store_of(results).test_labels().violent_share)
    return results


def _store_of(results: RunResults) -> FeatureStore:
    location = results.info.data
    if not location:
        raise DataError("run.json does not say where the converted data lie (field data)")
    return resolve(location) if is_uri(location) else FeatureStore.open(location)
