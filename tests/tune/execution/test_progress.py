"""Progress of the trials in a notebook: one table that is put in its own place, however many trials there are."""

from __future__ import annotations

import io
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

import tune.execution.progress
from tune.execution.progress import Display, SilentReporter


def test_a_notebook_gets_one_table_that_replaces_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Table] = []
    asked: list[dict[str, Any]] = []

    class Handle:
        def update(self, table: Table) -> None:
            shown[-1] = table

    def display(table: Table, **options: Any) -> Handle:
        asked.append(options)
        shown.append(table)
        return Handle()

    # IPython is no dependency; this is all that is used of it.
    notebook = ModuleType("IPython.display")
    notebook.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    monkeypatch.setattr(tune.execution.progress, "_REDRAW_IN_NOTEBOOK", 0.0)
    output = io.StringIO()
    progress = Display(Console(file=output, force_jupyter=True, width=100), {"trials": 50}, {"trials": 1})
    with progress.shown("trials"):
        for number in range(50):
            trial: Any = SimpleNamespace(trial_id=f"id{number}", relative_logdir=f"{number:05d}")
            progress.update(trial, "running", {"training_iteration": 1, "selection_score": number / 100})
            progress.update(trial, "finished")
            progress.tick()
    assert asked == [{"display_id": True}], "one output, whatever the number of trials"
    assert len(shown) == 1
    assert "50/50 done, 0 running, best 0.4900 (00049)" in str(shown[0].title)
    assert output.getvalue() == ""


def test_tunes_own_progress_which_would_clear_the_notebooks_cell_is_left_out() -> None:
    reporter = SilentReporter()
    reporter.setup(total_samples=3)
    reporter.report([], True)
    assert not reporter.should_report([], done=True)
