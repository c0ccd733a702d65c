"""Who suggests configurations, as Ray Tune asks it: a search's study, or a fixed list."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from ray.tune.search import Searcher

from tune.algorithms.study import REASON, SearchStudy
from tune.storage.trial_log import METRIC, TIME
from tune.storage.trial_names import LOGGED, NUMBER


class StudySearch(Searcher):
    """The suggestions of a study.

    Ray's own `OptunaSearch` tells a trial that was stopped early and one that failed as COMPLETE, leaves the row of a
    NaN RUNNING for ever, and keeps state beside the study.
    """

    def __init__(self, study: SearchStudy) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.study = study

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next configuration, with the trial's number in the study under `number`."""
        found = self.study.suggest(trial_id)
        logged = {} if found.logged is None else {LOGGED: found.logged}
        return {**found.params, NUMBER: found.number, **logged}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report the score of an epoch."""
        self.study.report(trial_id, int(result[TIME]), _score(result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell how a trial ended."""
        found = result or {}
        score = None if error else _score(found)
        self.study.end(trial_id, int(found.get(TIME, 0)), score, found.get(REASON))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed search has a new searcher, which reads the study."""


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


def _score(result: Mapping[str, Any]) -> float | None:
    score = result.get(METRIC)
    return float(score) if isinstance(score, int | float) else None
