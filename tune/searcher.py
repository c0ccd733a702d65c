"""Optuna's TPE behind Ray Tune, with a study on disk that can be replayed.

Three things differ from Ray's `OptunaSearch`:

- the sampler is seeded anew before each suggestion, from the search seed and the trial's number. A suggestion is then a
  function of study and number alone, so that a resumed search suggests what the unbroken one would have;
- a trial that ASHA stopped is PRUNED in the study, one that failed or diverged FAIL; Ray tells both as COMPLETE, and a
  NaN leaves the row RUNNING for ever;
- state is a table of trial ids. The study itself is the journal file, which `tune.snapshots` rolls back to the moment
  of Tune's snapshot before a resume, so that the two agree and nothing is enqueued or told twice.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune.search.optuna import OptunaSearch

from tune.scheduler import METRIC, TIME
from tune.space import Space

STUDY_NAME = "search"
TRIAL_ID = "tune_trial_id"
REASON = "reason"
NUMBER = "number"


class StudySearch(OptunaSearch):
    """Suggestions for Tune out of a journal study.

    Args:
        space: What to search.
        journal: File of the study; made if absent.
        seed: Seed of the search; each suggestion has its own, derived from this and its number.
        epochs: Epochs of a whole training; a trial that ends earlier was stopped.
        startup: Finished trials before the model of the scores is used; random suggestions until then.
        first: Points to try before anything else; enqueued when the study is made.
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
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        super().__init__(
            space=dict(space),
            metric=METRIC,
            mode="max",
            study_name=STUDY_NAME,
            storage=open_journal(journal),
            sampler=TPESampler(seed=seed),
        )
        self._search_seed = seed
        self._epochs = epochs
        self._startup = startup
        # Of every trial. Of trials that ended only this is kept: Optuna's object of a trial holds a copy of its row.
        self._numbers: dict[str, int] = {}
        # A sampler finds the space in the rows it has not seen yet; a new sampler would read all of them again.
        self._seen = IntersectionSearchSpace(include_pruned=True)
        if not self.study.get_trials(deepcopy=False):
            for point in first:
                self.study.enqueue_trial(dict(point))

    @property
    def study(self) -> optuna.Study:
        """The study on disk."""
        study: Any = self._ot_study
        assert isinstance(study, optuna.Study)
        return study

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next configuration, with the trial's number in the study under `number`."""
        if trial_id not in self._ot_trials:
            self.study.sampler = self._seeded_sampler(len(self._numbers))
        suggestion = super().suggest(trial_id)
        if suggestion is None:
            return None
        trial = self._ot_trials[trial_id]
        trial.set_user_attr(TRIAL_ID, trial_id)
        self._numbers[trial_id] = trial.number
        return {**suggestion, NUMBER: trial.number}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report the score of an epoch; an epoch that a recovered trial repeats is reported once."""
        if trial_id not in self._completed_trials:
            self._report(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell how a trial ended: COMPLETE, PRUNED (stopped early) or FAIL (error, divergence, no score)."""
        if trial_id in self._completed_trials or trial_id not in self._ot_trials:
            return
        trial = self._ot_trials[trial_id]
        score = None if result is None or error else _score(result)
        if result is None or score is None:
            trial.set_user_attr(REASON, str((result or {}).get(REASON) or "failed before it could be scored"))
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self._report(trial_id, result)
            if int(result[TIME]) < self._epochs:
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                self.study.tell(trial, score)
        self._completed_trials.add(trial_id)
        del self._ot_trials[trial_id]

    def save(self, checkpoint_path: str) -> None:
        """Write which trial of Tune is which row of the study."""
        state = {
            "trials": self._numbers,
            "completed": sorted(self._completed_trials),
        }
        Path(checkpoint_path).write_text(json.dumps(state), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Attach the rows of the study to Tune's trials again.

        Rows that the snapshot does not know fail, or they would stay RUNNING; a rollback of the journal leaves none.
        """
        state = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        rows = {row.number: row for row in self.study.get_trials(deepcopy=False)}
        self._numbers = state["trials"]
        self._completed_trials = set(state["completed"])
        self._ot_trials = {
            trial_id: Trial(self.study, rows[number]._trial_id)
            for trial_id, number in self._numbers.items()
            if trial_id not in self._completed_trials
        }
        for number in rows.keys() - set(state["trials"].values()):
            if rows[number].state == TrialState.RUNNING:
                self.study.tell(number, state=TrialState.FAIL)

    def _report(self, trial_id: str, result: Mapping[str, Any]) -> None:
        score, step = _score(result), int(result[TIME])
        trial = self._ot_trials[trial_id]
        row: FrozenTrial = self.study._storage.get_trial(trial._trial_id)
        if score is not None and step not in row.intermediate_values:
            trial.report(score, step)

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


def open_journal(path: Path) -> JournalStorage:
    """The journal file as an Optuna storage."""
    return JournalStorage(JournalFileBackend(str(path)))


def load_study(path: Path) -> optuna.Study:
    """The study of a run, for reading."""
    return optuna.load_study(study_name=STUDY_NAME, storage=open_journal(path))


def _score(result: Mapping[str, Any]) -> float | None:
    score = result.get(METRIC)
    return float(score) if isinstance(score, int | float) and math.isfinite(score) else None
