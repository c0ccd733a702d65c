"""The trainings of a run, counted: their epochs, and which rows of a sweep each of them is the training of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tune.planning.equal_rows import planned_equal_rows
from tune.planning.plan import Plan
from tune.results.rows import TrialRow


def trained_epochs(trials: Iterable[TrialRow]) -> dict[str, int]:
    """Epochs with a result, by the kind of the training: `search`, `confirm`, `refit`."""
    counted: dict[str, int] = {}
    for trial in trials:
        counted[trial.kind] = counted.get(trial.kind, 0) + trial.epochs_run
    return counted


def standing_for(trials: Sequence[TrialRow], plan: Plan) -> dict[str, tuple[str, ...]]:
    """Folder of a sweep's training -> the rows that it is the training of; nothing for a search.

    An earlier version trained equal rows apart. Of such trainings with one seed the first finished one, else the first,
    stands for all; the others have no entry.

    Args:
        trials: The trainings.
        plan: Of their run.
    """
    alike = planned_equal_rows(plan)
    found: dict[tuple[tuple[str, ...], int | None], list[TrialRow]] = {}
    for trial in trials:
        if trial.kind == "search" and trial.row is not None:
            found.setdefault((alike.get(trial.row, (trial.row,)), trial.seed), []).append(trial)
    standing: dict[str, tuple[str, ...]] = {}
    for (rows, _), same in found.items():
        first = min(same, key=lambda trial: (trial.status != "finished", rows.index(trial.row)))
        standing |= {trial.trial_dir: rows for trial in same if trial.row == first.row}
    return standing
