"""Optuna's TPE behind Ray Tune, with a study on disk; and fixed lists of configurations.

Four things differ from Ray's `OptunaSearch`:

- the sampler is seeded anew before each suggestion, from the search seed and the trial's number. A suggestion is then a
  function of study and number alone, so that a resumed search suggests what the unbroken one would have;
- a trial that ASHA stopped is PRUNED in the study, one that failed or diverged FAIL; Ray tells both as COMPLETE, and a
  NaN leaves the row RUNNING for ever;
- there is no state beside the study: when a search is resumed, its rows are repaired from what the trials logged, and
  those that have not ended are offered again, under their numbers, before anything new;
- nothing is told twice.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from macil.errors import DataError
from tune.groups import LOGGED
from tune.journal import TRIAL_ID, open_journal
from tune.ledger import TrialHistory
from tune.space import Space
from tune.storage.trial_log import METRIC, TIME

STUDY_NAME = "search"
REASON = "reason"
NUMBER = "number"
_NO_REASON = "failed before it could be scored"


class StudySearch(OptunaSearch):
    """Suggestions for Tune out of a journal study.

    Args:
        space: What to search.
        journal: File of the study; made if absent.
        seed: Seed of the search; each suggestion has its own, derived from this and its number.
        epochs: Epochs of a whole training; a trial that ends earlier was stopped.
        startup: Finished trials before the model of the scores is used; random suggestions until then.
        first: Points to try before anything else; enqueued when the study is made.
        pasts: What trials logged before, by number: the study is repaired from it.
        say, stop: As of `tune.patience.patiently`.

    Raises:
        DataError: The study lacks rows that the folders cannot give back.
    """

    def __init__(
        self,
        space: Space,
        journal: Path,
        *,
        seed: int,
        epochs: int,
        startup: int,
        first: tuple[Mapping[str, Any], ...] = (),
        pasts: Mapping[int, TrialHistory] | None = None,
        say: Callable[[str], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        super().__init__(
            space=dict(space),
            metric=METRIC,
            mode="max",
            study_name=STUDY_NAME,
            storage=open_journal(journal, say, stop),
            sampler=TPESampler(seed=seed),
        )
        self._search_seed = seed
        self._epochs = epochs
        self._startup = startup
        # A sampler finds the space in the rows it has not seen yet; a new sampler would read all of them again.
        self._seen = IntersectionSearchSpace(include_pruned=True)
        pasts = pasts or {}
        repair_study(self.study, space, pasts, epochs)
        rows = self.study.get_trials(deepcopy=False)
        if not rows:
            for point in first:
                self.study.enqueue_trial(dict(point))
        begun = [row for row in rows if row.state != TrialState.WAITING]
        self._again = deque(row for row in begun if goes_on(row, pasts.get(row.number)))
        self._logged = {row.number: pasts[row.number].epochs for row in begun if row.number in pasts}
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

    @property
    def study(self) -> optuna.Study:
        """The study on disk."""
        study: Any = self._ot_study
        assert isinstance(study, optuna.Study)
        return study

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next configuration, with the trial's number in the study under `number`."""
        if self._again:
            row = self._again.popleft()
            self._ot_trials[trial_id] = Trial(self.study, row._trial_id)
            return {**row.params, NUMBER: row.number, LOGGED: self._logged.get(row.number, 0)}
        self.study.sampler = self._seeded_sampler(self._count)
        suggestion = super().suggest(trial_id)
        if suggestion is None:
            return None
        trial = self._ot_trials[trial_id]
        # Last: a row without it is one that a kill cut short (tune.journal).
        trial.set_user_attr(TRIAL_ID, trial_id)
        self._count += 1
        return {**suggestion, NUMBER: trial.number}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report the score of an epoch; an epoch that a recovered trial repeats is reported once."""
        if trial_id not in self._completed_trials:
            self._report(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell how a trial ended: COMPLETE, PRUNED (stopped early) or FAIL (error, divergence, no score)."""
        trial = self._ot_trials.pop(trial_id, None)
        if trial is None:
            return
        self._completed_trials.add(trial_id)
        if self._row(trial).state.is_finished():
            return
        score = None if result is None or error else _score(result)
        if result is None or score is None:
            trial.set_user_attr(REASON, str((result or {}).get(REASON) or _NO_REASON))
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self._report(trial_id, result, trial)
            _tell_end(self.study, trial, score, int(result[TIME]), self._epochs)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed search has a new searcher, which reads the study."""

    def _report(self, trial_id: str, result: Mapping[str, Any], trial: Trial | None = None) -> None:
        score, step = _score(result), int(result[TIME])
        trial = trial or self._ot_trials[trial_id]
        row = self._row(trial)
        if score is not None and step not in row.intermediate_values and not row.state.is_finished():
            trial.report(score, step)

    def _row(self, trial: Trial) -> FrozenTrial:
        row: FrozenTrial = self.study._storage.get_trial(trial._trial_id)
        return row

    def _seeded_sampler(self, number: int) -> TPESampler:
        digest = hashlib.blake2b(f"{self._search_seed}/suggestion/{number}".encode(), digest_size=4).digest()
        # constant_liar: running trials count as bad ones, so that parallel trials do not all go to the same place.
        sampler = TPESampler(
            seed=int.from_bytes(digest, "little"),
            multivariate=True,
            constant_liar=True,
            n_startup_trials=self._startup,
        )
        sampler._search_space = self._seen
        return sampler


class ListSearch(Searcher):
    """A fixed list of configurations, each offered once, in order.

    Args:
        points: Configurations with the number of their logged epochs.
    """

    def __init__(self, points: Iterable[tuple[Mapping[str, Any], int]]) -> None:
        super().__init__(metric=METRIC, mode="max")
        self._points = deque(points)

    def suggest(self, trial_id: str) -> Any:
        """The next configuration."""
        if not self._points:
            return Searcher.FINISHED
        point, logged = self._points.popleft()
        return {**point, LOGGED: logged}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing to learn."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is left to do is in the run folder."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


def goes_on(row: FrozenTrial, past: TrialHistory | None) -> bool:
    """Whether a trial that was begun is trained on: it has not failed, and its last epoch is not in its folder."""
    return row.state != TrialState.FAIL and not (past is not None and past.ended)


def repair_study(
    study: optuna.Study, space: Mapping[str, BaseDistribution], pasts: Mapping[int, TrialHistory], epochs: int
) -> None:
    """Make the study say what the trials' folders say: rows, scores by epoch, and how each trial ended.

    Raises:
        DataError: A row is missing, and its folder does not say which configuration it was.
    """
    for number in range(len(study.get_trials(deepcopy=False)), max(pasts, default=-1) + 1):
        study.add_trial(_row_of(number, pasts.get(number), space))
    for row in study.get_trials(deepcopy=False):
        past = pasts.get(row.number)
        if past is None or row.state.is_finished() or row.state == TrialState.WAITING:
            continue
        trial = Trial(study, row._trial_id)
        for epoch, score in sorted(past.scores.items()):
            if score is not None and epoch not in row.intermediate_values:
                trial.report(score, epoch)
        if not past.ended:  # an error.txt alone may be of a failure that was to be tried again
            continue
        last = past.scores.get(past.epochs)
        if past.diverged or last is None:
            trial.set_user_attr(REASON, past.reason or _NO_REASON)
            study.tell(trial, state=TrialState.FAIL)
        else:
            _tell_end(study, trial, last, past.epochs, epochs)


def _row_of(number: int, past: TrialHistory | None, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A row that was lost with the end of the journal."""
    missing = [name for name in space if past is None or name not in past.params]
    if past is None or missing:
        raise DataError(
            f"the study has no row {number}, and trials/{number:05d}/params.json does not say what it was "
            f"({', '.join(missing)} missing); put study.journal back from a copy, or begin a new run with --overwrite"
        )
    return create_trial(
        state=TrialState.RUNNING,
        params={name: past.params[name] for name in space},
        distributions=dict(space),
        user_attrs={TRIAL_ID: past.trial_id or f"{number:05d}"},
    )


def _tell_end(study: optuna.Study, trial: Trial, score: float, last: int, epochs: int) -> None:
    """COMPLETE with its score, or PRUNED if it was stopped early."""
    if last < epochs:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, score)


def load_study(path: Path) -> optuna.Study:
    """The study of a run, for reading."""
    return optuna.load_study(study_name=STUDY_NAME, storage=open_journal(path))


def _score(result: Mapping[str, Any]) -> float | None:
    score = result.get(METRIC)
    return float(score) if isinstance(score, int | float) and math.isfinite(score) else None
