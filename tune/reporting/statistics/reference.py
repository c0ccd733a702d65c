"""The reference of a search's winner: the trial of the first suggestion, and when it is the paper's setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from macil.config import departures
from tune.planning.space import reference_title
from tune.reporting.text import wording
from tune.results.rows import TrialRow

# More than so many departures from the paper are no longer read.
_MOST_NAMED = 4


def reference_called(trial: TrialRow) -> str:
    """The reference of a search, as a table has room for it: "paper's setting" where it is that."""
    return reference_title(trial.config).removeprefix("the ")


def reference_in_full(trial: TrialRow) -> str:
    """The reference with its trial, and in what it departs from the paper."""
    name = f"trial {trial.name}"
    if not departures(trial.config):
        return f"{name}, {reference_title(trial.config)}"
    return f"{name}, the paper's values of what was searched, with {departures_in_words(trial.config)}"


def departures_in_words(values: Mapping[str, Any]) -> str:
    """The departures as text: "epochs 20 (paper: 50), batch_size 16 (paper: 128)"; "" for the paper's setting."""
    other = departures(values)
    messages = [
        f"{name} {wording.value(values.get(name))} (paper: {wording.value(paper)})"
        for name, paper in list(other.items())[:_MOST_NAMED]
    ]
    if len(other) > _MOST_NAMED:
        messages.append(f"{len(other) - _MOST_NAMED} more")
    return ", ".join(messages)
