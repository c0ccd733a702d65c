"""A view of a study in memory, for samplers that know nothing but finished trials; a pure function of the study's rows.

A stopped trial stands in it as finished. Its score is that of the epoch at which it was stopped, which finished trials
have long passed: taken as it is, it would tell the sampler that stopped configurations are far worse than they are, and
that the more, the earlier they were stopped. It is raised by what finished trials have gained from that epoch to their
last, in the median: stopped and finished trials are then compared at equal epochs. That supposes that all curves rise
alike, and serves to suggest: nothing is ranked by it or printed, and the study keeps what happened.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial


def view_of(rows: Sequence[FrozenTrial], sampler: BaseSampler) -> optuna.Study:
    """The view of a study's rows: finished, stopped and running trials; what failed has no score and is left out."""
    view = optuna.create_study(sampler=sampler, pruner=NopPruner(), direction="maximize")
    finished = [row for row in rows if row.state == TrialState.COMPLETE]
    for row in rows:
        if row.state == TrialState.RUNNING:
            view.add_trial(_copied(row, None))
        elif row.state in (TrialState.COMPLETE, TrialState.PRUNED):
            view.add_trial(_copied(row, _final_score(row, finished)))
    return view


def copy_of(rows: Sequence[FrozenTrial], sampler: BaseSampler) -> optuna.Study:
    """The rows as they are, in memory, for a suggestion that is not to be written down as it is made."""
    copy = optuna.create_study(sampler=sampler, pruner=NopPruner(), direction="maximize")
    copy.add_trials(rows)
    return copy


def _copied(row: FrozenTrial, score: float | None) -> FrozenTrial:
    state = TrialState.RUNNING if score is None else TrialState.COMPLETE
    return create_trial(state=state, value=score, params=row.params, distributions=row.distributions)


def _final_score(row: FrozenTrial, finished: Sequence[FrozenTrial]) -> float:
    """The score of a finished trial; of a stopped one what it would have, had it gained as much as the others."""
    if row.state == TrialState.COMPLETE:
        assert row.value is not None
        return row.value
    last = max(row.intermediate_values)
    gains = [
        other.value - other.intermediate_values[last]
        for other in finished
        if other.value is not None and last in other.intermediate_values
    ]
    return row.intermediate_values[last] + (statistics.median(gains) if gains else 0.0)
