"""Intervals for a headline that is one model: how its AP depends on the test videos. Kept, for they take seconds.

Test labels are read here only of trainings whose test AP is measured already: every epoch under `published`, else at an
opening that is logged (`tune.openings`); an interval around a known number chooses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from macil.data.store import FeatureStore
from macil.errors import DataError
from macil.files import read_json, write_json_atomic
from tune.measured import stamp_of
from tune.reporting.bootstrap import RESAMPLES, ap_interval
from tune.reporting.intervals import Estimate
from tune.results import RunResults
from tune.scorefile import read_scores
from tune.trialfolder import newest_scores

Trial = dict[str, Any]

FILE = "report/intervals.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ModelInterval:
    """95 % percentile bootstrap over `videos` test videos, as shares; `stamp` tells of which scores and labels."""

    stamp: str
    ap: tuple[float, float]
    ap_trapezoid: tuple[float, float]
    videos: int
    resamples: int

    def estimate(self, trial: Trial, column: str) -> Estimate:
        """The trial's AP with this interval in the place of one over seeds."""
        low, high = self.ap if column == "ap" else self.ap_trapezoid
        return Estimate(1, trial[column], None, low, high)


def model_intervals(results: RunResults, trials: Sequence[Trial]) -> dict[str, ModelInterval]:
    """Intervals by `trial_dir`, of those of `trials` whose test AP is measured; without an entry where none can be had.

    Computed where the stored scores, the labels or the epoch are not those of the kept ones, and written to
    report/intervals.json.
    """
    kept = _read(results.path)
    found: dict[str, ModelInterval] = {}
    for trial in trials:
        if trial["ap_trapezoid"] is None:
            continue
        folder = str(trial["trial_dir"])
        stamp = f"{stamp_of(results.path / folder, trial['epochs_run'], trial['chosen_epoch'])}, AP {trial['ap']!r}"
        entry = kept.get(folder)
        if entry is None or entry.stamp != stamp:
            entry = _measure(results, trial, stamp)
        if entry is not None:
            found[folder] = entry
    if any(kept.get(folder) != entry for folder, entry in found.items()):
        _write(results.path, {**kept, **found})
    return found


def _measure(results: RunResults, trial: Trial, stamp: str) -> ModelInterval | None:
    path = newest_scores(results.path / str(trial["trial_dir"]))
    place = results.info.get("data")
    if path is None or not place:
        return None
    try:
        store = FeatureStore.open(str(place))
        scores = read_scores(path, str(trial["epoch_rule"]).__eq__)[trial["epoch_rule"]]
        drawn = ap_interval(
            scores, store.test_labels().frame_labels, store.videos("test").lengths, store.snippet_frames
        )
    except (DataError, KeyError):
        return None
    step, trapezoid = drawn.ap, drawn.ap_trapezoid
    # The scores of another epoch, or other labels: an interval around another number.
    if not np.isclose(step.value, trial["ap"], rtol=1e-9, atol=0):
        return None
    if step.low is None or step.high is None or trapezoid.low is None or trapezoid.high is None:
        return None
    return ModelInterval(
        stamp, (step.low, step.high), (trapezoid.low, trapezoid.high), drawn.videos, drawn.resamples
    )


def _read(run: Path) -> dict[str, ModelInterval]:
    """What is kept; nothing when it is damaged or of another version, since it can be computed again."""
    try:
        content = read_json(run / FILE)
        if content["format_version"] != FORMAT_VERSION or content["resamples"] != RESAMPLES:
            return {}
        return {str(folder): _entry(entry) for folder, entry in content["trials"].items()}
    except (DataError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def _entry(content: dict[str, Any]) -> ModelInterval:
    (low, high), (trapezoid_low, trapezoid_high) = content["ap"], content["ap_trapezoid"]
    return ModelInterval(
        str(content["stamp"]),
        (float(low), float(high)),
        (float(trapezoid_low), float(trapezoid_high)),
        int(content["videos"]),
        int(content["resamples"]),
    )


def _write(run: Path, trials: dict[str, ModelInterval]) -> None:
    entries = {folder: asdict(entry) for folder, entry in trials.items()}
    write_json_atomic(
        run / FILE, {"format_version": FORMAT_VERSION, "resamples": RESAMPLES, "trials": entries}
    )
