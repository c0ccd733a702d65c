"""A search's study, read back."""

from __future__ import annotations

from pathlib import Path

import optuna

from tune.algorithms.journal import open_journal
from tune.algorithms.study import STUDY_NAME


def load_study(journal: Path) -> optuna.Study:
    """The study of a run, from its file."""
    return optuna.load_study(study_name=STUDY_NAME, storage=open_journal(journal))
