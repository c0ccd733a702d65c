"""The selection score of held-out videos."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, log_loss

from macil.evaluation.heldout import assess_heldout, heldout_score

PREDICTIONS = st.lists(st.floats(0, 1), min_size=4, max_size=30)


@given(PREDICTIONS)
def test_figures_are_those_of_scikit_learn(predictions: list[float]) -> None:
    p = np.array(predictions)
    labels = np.arange(len(p)) % 2
    found = assess_heldout(p, labels)
    assert found.ap == pytest.approx(average_precision_score(labels, p), abs=1e-12)
    assert found.accuracy == pytest.approx(accuracy_score(labels, p > 0.5), abs=1e-12)
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    assert found.loss == pytest.approx(log_loss(labels, clipped), rel=1e-6)
    assert -1 <= found.score <= 1
    # Right and wrong exchanged is the same margin on the other side.
    assert assess_heldout(p, 1 - labels).score == pytest.approx(-found.score, abs=1e-12)
    assert assess_heldout(1 - p, 1 - labels).score == pytest.approx(found.score, abs=1e-12)


def test_a_perfect_ranking_does_not_tie_everything() -> None:
    labels = np.array([0, 0, 1, 1])
    unsure = assess_heldout(np.array([0.4, 0.45, 0.55, 0.6]), labels)
    sure = assess_heldout(np.array([0.1, 0.1, 0.9, 0.9]), labels)
    assert unsure.ap == sure.ap == 1.0
    assert unsure.score < sure.score


def test_the_score_is_the_margin_between_the_classes() -> None:
    labels = np.array([1, 0, 1, 0, 0])
    assert heldout_score(np.array([0.9, 0.1, 0.5, 0.3, 0.2]), labels) == pytest.approx(0.7 - 0.2)
    assert heldout_score(labels.astype(float), labels) == 1.0
    assert heldout_score(np.full(5, 0.5), labels) == 0.0
