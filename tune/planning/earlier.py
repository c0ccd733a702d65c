"""Runs that the version before began: their plan, from a `plan.json` without format_version and from `run.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from macil.errors import DataError, UsageError
from macil.io.files import read_json
from tune.planning.options import as_flags
from tune.planning.plan import FORMAT_VERSION, Plan, upgraded
from tune.storage.names import PLAN_FILE
from tune.storage.run_file import EarlierOptions, Scalar

# Fields of the plan that the earlier file has not.
_LATER = ("format_version", "startup", "refit_cpus")
# Of the recorded options: those that are no flags.
_NO_FLAGS = ("hyperparameters", "base", "refit_cpus", "sweep_rows", "rows_apart")


def plan_of_earlier_version(run: Path, options: EarlierOptions | None) -> Plan:
    """The plan of a run of the version before, so that it goes on as it was begun.

    Args:
        run: Its folder.
        options: As its `run.json` has them.

    Raises:
        UsageError: It cannot go on: it was begun by a version further back.
    """
    try:
        recorded: Any = upgraded(read_json(run / PLAN_FILE))
        same = [name for name in Plan.model_fields if name in recorded and name not in _LATER]
        content = {"format_version": FORMAT_VERSION, **{name: recorded[name] for name in same}}
        others = {} if options is None else options.model_dump()
        content |= {"refit_cpus": others["refit_cpus"], "startup": _startup(recorded["trials"])}
        return Plan.parse(content, str(run / PLAN_FILE))
    except (KeyError, TypeError, DataError) as error:
        reason = f"{error} is not recorded" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"--resume {run.name}: the run was begun by an earlier version of macil-tune and cannot be gone on with "
            f"({'; '.join(reason.splitlines())}); resume it with that version, or begin a new run. Its report and "
            "--status can be had as ever"
        ) from None


def _startup(trials: int) -> int:
    """Random suggestions that a search of so many trials had: a third, 3 to 10."""
    return min(10, max(3, trials // 3))


def flags_of_earlier_version(options: EarlierOptions | None) -> dict[str, Scalar]:
    """The flags that the run was begun with, with its defaults."""
    content = {} if options is None else options.model_dump()
    own = {name: each for name, each in content.items() if name not in _NO_FLAGS and each is not None}
    return as_flags(own | ({} if options is None else options.hyperparameters))
