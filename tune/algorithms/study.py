"""A search's study on disk: the configurations that were suggested, their scores, and how each trial ended.

- The sampler is made anew before each suggestion, from the search seed and the trial's number. A suggestion is then a
  function of study and number alone, so that a resumed search suggests what the unbroken one would have.
- A trial that was stopped early is PRUNED in the study, one that failed or diverged FAIL.
- There is no state beside the study: when a search is resumed, its rows are repaired from what the trials logged, and
  those that have not ended are offered again, under their numbers, before anything new.
- Nothing is reported twice.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from macil.errors import DataError
from macil.io.text import brief
from tune.algorithms.asking import ask, distribution
from tune.algorithms.journal import TRIAL_ID, open_journal
from tune.algorithms.optuna_internals import open_row, row_of
from tune.algorithms.samplers.registry import SAMPLERS, SamplerName
from tune.algorithms.samplers.settings import SamplerSettings
from tune.algorithms.space import Space, active_values, is_active
from tune.algorithms.study_view import copy_of, view_of

if TYPE_CHECKING:
    from tune.storage.history import TrialHistory

STUDY_NAME = "search"
REASON = "reason"
_NO_REASON = "failed before it could be scored"


@dataclass(frozen=True)
class Suggestion:
    """A configuration to train.

    Attributes:
        number: Its row in the study.
        params: The searched hyperparameters.
        logged: Epochs that are in its trial's log already; None for a new one.
    """

    number: int
    params: Mapping[str, Any]
    logged: int | None = None


class SearchStudy:
    """Suggestions out of a journal study, and what became of them.

    Args:
        space: What to search.
        journal: File of the study, made if absent; None to keep it in memory.
        sampler: Who suggests.
        seed: Seed of the search; each suggestion has its own, derived from this and its number.
        epochs: Epochs of a whole training; a trial that ends earlier was stopped.
        startup: Finished trials before the model of the scores is used; random suggestions until then.
        initial: Configurations to try before anything else, whole or in part: what one leaves out is suggested.
        histories: What trials logged before, by number: the study is repaired from it.
        settle: What is trained in place of a suggestion, given that and the configurations of all rows; the suggestion
            itself, if there is none. A simulator knows what some configurations give, and not others.
        log, stop: See `tune.storage.retry.with_retry`.

    Raises:
        DataError: The study lacks rows that the folders cannot give back.
    """

    def __init__(
        self,
        space: Space,
        journal: Path | None,
        *,
        sampler: SamplerName = "tpe",
        seed: int,
        epochs: int,
        startup: int,
        initial: tuple[Mapping[str, Any], ...] = (),
        histories: Mapping[int, TrialHistory] | None = None,
        settle: Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], Mapping[str, Any]] | None = None,
        log: Callable[[str], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._space = space
        self._seed = seed
        self._epochs = epochs
        self._initial, self._settle = initial, settle
        self._sampler = SAMPLERS[sampler]
        # Optuna's Gaussian process warns of packages that would make it faster.
        optuna.logging.set_verbosity(
            optuna.logging.ERROR if self._sampler.on_view else optuna.logging.WARNING
        )
        self._settings = SamplerSettings(space, startup)
        self.study = optuna.create_study(
            storage=None if journal is None else open_journal(journal, log, stop),
            sampler=self._sampler.make(seed, 0, self._settings),
            pruner=NopPruner(),
            study_name=STUDY_NAME,
            direction="maximize",
            load_if_exists=True,
        )
        self._trials: dict[str, Trial] = {}
        histories = histories or {}
        repair_study(self.study, space, histories, epochs)
        rows = self.study.get_trials(deepcopy=False)
        begun = [row for row in rows if row.state != TrialState.WAITING]
        self._again = deque(row for row in begun if is_resumable(row, histories.get(row.number)))
        self._logged = {row.number: histories[row.number].epochs for row in begun if row.number in histories}
        self._count = len(begun)

    @property
    def open_rows(self) -> int:
        """Trials that were begun before and have not ended."""
        return len(self._again)

    @property
    def rows(self) -> int:
        """Trials that were ever begun."""
        return self._count

    @property
    def failed(self) -> dict[int, str]:
        """Why, by number, of the trials that failed for good."""
        rows = self.study.get_trials(deepcopy=False)
        failed = [row for row in rows if row.state == TrialState.FAIL]
        return {row.number: str(row.user_attrs.get(REASON, _NO_REASON)) for row in failed}

    def suggest(self, trial_id: str) -> Suggestion:
        """The next configuration, for the trial that is called `trial_id` from now on."""
        if self._again:
            row = self._again.popleft()
            self._trials[trial_id] = open_row(self.study, row)
            return Suggestion(row.number, row.params, self._logged.get(row.number, 0))
        number = self._count
        sampler = self._sampler.make(self._seed, number, self._settings)
        known = self._initial[number] if number < len(self._initial) else {}
        begin = self._begin_from_view if self._sampler.on_view or self._settle else self._begin
        trial = self._trials[trial_id] = begin(trial_id, sampler, known)
        self._count += 1
        return Suggestion(trial.number, trial.params)

    def _begin(self, trial_id: str, sampler: BaseSampler, known: Mapping[str, Any]) -> Trial:
        """A row that the study itself suggests, but for what is known of it."""
        if (
            known and len(self.study.get_trials(deepcopy=False)) == self._count
        ):  # else a kill left it enqueued
            self.study.enqueue_trial(dict(known))
        self.study.sampler = sampler
        trial = self.study.ask()
        ask(trial, self._space)
        # Last: a row without it is one that a kill cut short (tune.algorithms.journal).
        trial.set_user_attr(TRIAL_ID, trial_id)
        return trial

    def _begin_from_view(self, trial_id: str, sampler: BaseSampler, known: Mapping[str, Any]) -> Trial:
        """A row that a view of the study suggests, written into the study as a whole."""
        rows = self.study.get_trials(deepcopy=False)
        view = view_of(rows, sampler) if self._sampler.on_view else copy_of(rows, sampler)
        if known:
            view.enqueue_trial(dict(known))
        params: Mapping[str, Any] = ask(view.ask(), self._space)
        if self._settle:
            params = self._settle(params, [row.params for row in rows])
        self.study.add_trial(_running_row(params, self._space, trial_id))
        return open_row(self.study, self.study.get_trials(deepcopy=False)[-1])

    def report(self, trial_id: str, epoch: int, score: float | None) -> None:
        """Note the score of an epoch; of one that a recovered trial repeats, the first."""
        trial = self._trials.get(trial_id)
        if trial is None or score is None or not math.isfinite(score):
            return
        row = row_of(self.study, trial)
        if epoch not in row.intermediate_values and not row.state.is_finished():
            trial.report(score, epoch)

    def end(self, trial_id: str, epoch: int, score: float | None, reason: str | None = None) -> None:
        """Tell how a trial ended: COMPLETE, PRUNED (stopped early), or FAIL where it has no score, for `reason`."""
        self.report(trial_id, epoch, score)
        trial = self._trials.pop(trial_id, None)
        if trial is None or row_of(self.study, trial).state.is_finished():
            return
        if score is None or not math.isfinite(score):
            trial.set_user_attr(REASON, reason or _NO_REASON)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            _tell_end(self.study, trial, score, epoch, self._epochs)


def is_resumable(row: FrozenTrial, history: TrialHistory | None) -> bool:
    """Whether a trial that was begun is trained on: it has not failed, and its last epoch is not in its folder."""
    return row.state != TrialState.FAIL and not (history is not None and history.ended)


def repair_study(
    study: optuna.Study,
    space: Space,
    histories: Mapping[int, TrialHistory],
    epochs: int,
) -> None:
    """Make the study agree with the trials' folders: rows, scores by epoch, and how each trial ended.

    Raises:
        DataError: A row is missing, and its folder does not record its configuration.
    """
    for number in range(len(study.get_trials(deepcopy=False)), max(histories, default=-1) + 1):
        study.add_trial(_row_of(number, histories.get(number), space))
    for row in study.get_trials(deepcopy=False):
        history = histories.get(row.number)
        if history is None or row.state.is_finished() or row.state == TrialState.WAITING:
            continue
        trial = open_row(study, row)
        for epoch, score in sorted(history.scores.items()):
            if score is not None and epoch not in row.intermediate_values:
                trial.report(score, epoch)
        if not history.ended:  # an error.txt alone may be of a failure that was to be tried again
            continue
        last = history.scores.get(history.epochs)
        if history.diverged or last is None:
            trial.set_user_attr(REASON, history.reason or _NO_REASON)
            study.tell(trial, state=TrialState.FAIL)
        else:
            _tell_end(study, trial, last, history.epochs, epochs)


def _row_of(number: int, history: TrialHistory | None, space: Space) -> FrozenTrial:
    """A row that was lost with the end of the journal."""
    params = {} if history is None else active_values(space, history.params)
    missing = [
        name for name, dimension in space.items() if is_active(dimension, params) and name not in params
    ]
    wrong = [name for name, value in params.items() if not space[name].holds(value)]
    if wrong:
        raise DataError(
            f"the study has no row {number}, and trials/{number:05d}/params.json has values that the space does not "
            f"hold ({', '.join(f'{name} = {brief(params[name])}' for name in wrong)}); put study.journal back from a "
            "copy, or begin a new run with --overwrite"
        )
    if history is None or missing:
        raise DataError(
            f"the study has no row {number}, and trials/{number:05d}/params.json does not record what it was "
            f"({', '.join(missing)} missing); put study.journal back from a copy, or begin a new run with --overwrite"
        )
    return _running_row(params, space, history.trial_id or f"{number:05d}")


def _running_row(params: Mapping[str, Any], space: Space, trial_id: str) -> FrozenTrial:
    """A row whose trial has begun."""
    return create_trial(
        state=TrialState.RUNNING,
        params=dict(params),
        distributions={name: distribution(space[name]) for name in params},
        user_attrs={TRIAL_ID: trial_id},
    )


def _tell_end(study: optuna.Study, trial: Trial, score: float, last: int, epochs: int) -> None:
    """COMPLETE with its score, or PRUNED if it was stopped early."""
    if last < epochs:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, score)
