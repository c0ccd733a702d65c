"""Seeds trained in lockstep as one of Tune's trials, and the folder of each: a run's tables have one row a seed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from tune.storage.names import CONFIRM_FOLDER, GROUP_PREFIX, REFIT_FOLDER

# In a trial's configuration: what all trials of its batch share (`tune.planning.run_spec.RunSpec`, as JSON).
SPEC = "spec"
# In a trial's configuration: the seeds that are trained together. A trial alone has `seed` instead.
SEEDS = "seeds"
# In a trial's configuration: its number in the study, of a suggestion.
NUMBER = "number"
# In a trial's configuration: how many of its epochs are in its log already.
LOGGED = "logged"
# In an epoch's result of a group: seed to the epoch of that seed.
MEMBERS = "members"


def trial_name(folder: PurePath) -> str:
    """What the trial in `folder` is called, in logs, tables and by `--replay`: its folder below the run.

    Without `trials/`, as most are there: `00004`, `10_seed0`, `confirm/00004_seed1000`, `refit/seed0`.
    """
    parent = folder.parent.name
    return f"{parent}/{folder.name}" if parent in (CONFIRM_FOLDER, REFIT_FOLDER) else folder.name


def refit_row(trials: int, acted_upon: int | None) -> str | None:
    """The row that the winner's refits have in a run of so many trials; None unless the run was extended.

    The winner of an extended search may be another one, so its refits are trainings of their own.
    """
    return None if acted_upon is None else f"of{trials}"


def folder_name(config: Mapping[str, Any]) -> str:
    """Folder of one of Tune's trials: its number in the study, its row and seed, or its group."""
    if NUMBER in config:
        return f"{config[NUMBER]:05d}"
    if SEEDS in config:
        return GROUP_PREFIX + _name(config, f"seeds{'-'.join(map(str, config[SEEDS]))}")
    return _name(config, f"seed{config['seed']}")


def member_folders(config: Mapping[str, Any]) -> dict[str, str]:
    """Seed to the folder that it would have as a trial of its own; empty for such a trial."""
    return {str(seed): _name(config, f"seed{seed}") for seed in config.get(SEEDS, ())}


def _name(config: Mapping[str, Any], last: str) -> str:
    row = config.get("row")
    return re.sub(r"[^A-Za-z0-9._+=-]", "-", "_".join([*([row["name"]] if row else []), last]))
