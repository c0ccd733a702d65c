"""The study of the selection metric."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import average_precision_score

from benchmarks import selection_metric
from benchmarks.selection_metric import TEST_AP, candidates, judge
from macil.data.store.feature_store import FeatureStore
from macil.evaluation.whole_videos import VideoScores


def test_candidates_are_what_they_are_called() -> None:
    predictions = np.array([0.9, 0.2, 0.6, 0.1])
    labels = np.array([1, 1, 0, 0])
    snippets = np.array([0.9, 0.1, 0.3, 0.6, 0.2, 0.05], np.float32)
    lengths = np.array([2, 1, 2, 1])
    found = candidates(VideoScores(snippets, predictions), lengths, labels)
    assert found["video AP"] == pytest.approx(average_precision_score(labels, predictions))
    loss = -np.mean(np.log([0.9, 0.2, 0.4, 0.9]))
    assert found["-loss"] == pytest.approx(-loss)
    assert found["margin of p"] == pytest.approx(0.55 - 0.35)
    assert found["video AP and exp(-loss)"] == pytest.approx((found["video AP"] + math.exp(-loss)) / 2)
    bags = [1, 1, 1, 0, 0, 0]
    assert found["snippet AP, labels of videos"] == pytest.approx(average_precision_score(bags, snippets))
    # Whatever separates the classes better is larger for each of them.
    better = candidates(VideoScores(snippets, np.array([0.9, 0.7, 0.3, 0.1])), lengths, labels)
    assert all(better[name] >= found[name] for name in found)


def test_a_candidate_is_judged_by_the_trials_that_it_would_have_chosen() -> None:
    def curve(good: list[float], bad: list[float], test: list[float]) -> dict[str, Any]:
        rows = zip(good, bad, test, strict=True)
        return {"epochs": [{"good": a, "bad": b, TEST_AP: ap} for a, b, ap in rows]}

    trials = [
        curve([0.1, 0.4], [1.0, 1.0], [0.2, 0.5]),
        curve([0.6, 0.5], [0.8, 1.0], [0.7, 0.3]),
        curve([0.9, 0.2], [0.1, 1.0], [0.8, 0.6]),
        {"epochs": []},
    ]
    judged = judge(trials)
    assert judged["good"]["spearman"] == pytest.approx(1.0)
    assert (judged["good"]["winner"], judged["good"]["ties"]) == (0.8, 1)
    assert judged["good"]["mean_at_chosen"] == pytest.approx((0.5 + 0.7 + 0.8) / 3)
    assert (judged["good"]["mean_at_last"], judged["good"]["best_at_last"]) == pytest.approx(
        ((0.5 + 0.3 + 0.6) / 3, 0.6)
    )
    # Saturated: every trial reaches 1.0, so the first is chosen and nothing is correlated.
    assert math.isnan(judged["bad"]["spearman"])
    assert (judged["bad"]["winner"], judged["bad"]["ties"]) == (0.2, 3)


@pytest.mark.nightly
def test_the_study_runs_and_goes_on_where_it_stopped(demo_store: FeatureStore, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    options = ["--data", str(demo_store.path), "--epochs", "2", "--processes", "1"]
    first = CliRunner().invoke(selection_metric.main, [str(results), *options, "--trials", "3"])
    assert first.exit_code == 0, first.output
    assert "video AP and exp(-loss)" in first.output
    lines = results.read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [0, 1, 2]
    assert all(len(json.loads(line)["epochs"]) == 2 for line in lines)
    results.write_text("\n".join(lines[:2]) + "\n")
    again = CliRunner().invoke(selection_metric.main, [str(results), *options, "--trials", "3"])
    assert again.exit_code == 0, again.output
    assert "1/1 trainings" in again.output
    assert results.read_text().splitlines() == lines, "the same digits"
