"""That a disturbed search kept its promise: checked from its run folder, and from what was seen while it ran."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import TrialState

from macil.data.store.feature_store import FeatureStore
from macil.io.files import read_json
from tests.cluster.searching import Line
from tests.support.promise import Digits, assert_kept, assert_replays, assert_whole, digits
from tests.support.search_command import info, lines_of
from tests.support.studies import load_study
from tune.algorithms.stopping.asha import REDUCTION
from tune.execution.failure_policy import MAX_WORKER_FAILURES
from tune.storage.trial_log import METRIC


def assert_promise(
    run: Path, store: FeatureStore, trials: int, logs: Sequence[Digits], lines: Sequence[Line]
) -> None:
    """All of the promise that can be checked of a search with several trials at a time.

    Args:
        logs: Every log, whole, before each fault.
        lines: Every epoch, in the order in which it came into the logs.
    """
    assert info(run)["status"] == "finished"
    assert_whole(run, trials)
    assert_params(run)
    for before in logs:
        assert_kept(before, digits(run))
    assert_seen_once(run, lines)
    assert_decisions(run, lines)
    assert_failures_deserved(run)
    for kind in ("trials", "refit"):
        assert_replays(run, store, kind)


def assert_params(run: Path) -> None:
    """The study's configurations are those that were trained."""
    for row in load_study(run / "study.journal").trials:
        trained = read_json(run / "trials" / f"{row.number:05d}" / "params.json")
        assert row.params == {name: trained[name] for name in row.params}, row.number


def assert_seen_once(run: Path, lines: Sequence[Line]) -> None:
    """What is in the logs at the end is what was seen to be written, in the same order: nothing was written twice."""
    for trial in {line.trial for line in lines}:
        written = [line.content for line in lines if line.trial == trial]
        assert written == lines_of(run / trial / "result.json"), trial


def assert_decisions(run: Path, lines: Sequence[Line]) -> None:
    """Each trial went on or was stopped at each rung as the logs of that moment say.

    Lines that were seen in neighbouring looks may have been written in either order: one of the orders must explain
    the decision.
    """
    plan = read_json(run / "plan.json")
    epochs, grace = plan["base"]["epochs"], plan["stopping"]["grace"]
    rungs = [grace * REDUCTION**k for k in range(10) if grace * REDUCTION**k < epochs]
    judged = stopped = 0
    for rung in rungs:
        entries = [line for line in lines if line.epoch == rung and line.trial.startswith("trials/")]
        for line in entries:
            if line.content["diverged"]:
                continue
            others = [other for other in entries if other.trial != line.trial]
            sure = [_score(other) for other in others if other.look < line.look - 1]
            maybe = [_score(other) for other in others if abs(other.look - line.look) <= 1]
            outcomes = {_stops(line, [*sure, *some]) for some in _subsets(maybe)}
            assert bool(line.content["done"]) in outcomes, (line.trial, rung, sure, maybe)
            judged += 1
            stopped += bool(line.content["done"])
    assert stopped, "the example should have trials that ASHA stops"
    ends = [line for line in lines if line.content["done"] and line.trial.startswith("trials/")]
    assert all(line.epoch in (*rungs, epochs) or line.content["diverged"] for line in ends)


def _score(line: Line) -> float:
    score = line.content[METRIC]
    return float("nan") if score is None else float(score)


def _stops(line: Line, recorded: Sequence[float]) -> bool:
    """ASHA's rule: below the best third of those that came before is below the cut."""
    return bool(recorded) and bool(_score(line) < np.nanpercentile(recorded, (1 - 1 / REDUCTION) * 100))


def _subsets(values: Sequence[float]) -> chain[tuple[float, ...]]:
    return chain.from_iterable(combinations(values, size) for size in range(len(values) + 1))


def assert_failures_deserved(run: Path) -> None:
    """No trial failed but by divergence, or because it was lost more often than it may be."""
    for row, reason, worker_failures in failed_trials(run):
        assert worker_failures > MAX_WORKER_FAILURES or "diverged" in reason, (row, reason)


def failed_trials(run: Path) -> list[tuple[int, str, int]]:
    """Number, last words and worker failures of each trial that failed."""
    found: list[tuple[int, str, int]] = []
    rows: list[Any] = load_study(run / "study.journal").trials
    for row in rows:
        if row.state == TrialState.FAIL:
            text = (run / "trials" / f"{row.number:05d}" / "error.txt").read_text()
            found.append((row.number, text.strip().splitlines()[-1], text.count("Failure # ")))
    return found
