"""The rank correlation of the selection metric with the test AP: by the ranks, each training counted once."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.made_runs import heldout_search, made_results, suggested_again
from tune.reporting.statistics.selection_agreement import agreements


def ranks(values: list[float]) -> np.ndarray:
    """Mean ranks, the slow way."""
    return np.array([sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=5, max_size=12))
def test_rho_is_the_correlation_of_mean_ranks(pairs: list[tuple[int, int]]) -> None:
    scores, aps = [a / 10 for a, _ in pairs], [b / 10 for _, b in pairs]
    results = heldout_search(scores, list(aps), [1.0] * len(pairs))
    (found,) = [each for each in agreements(results) if each.column == "selection_score"]
    assert (found.n, found.distinct) == (len(pairs), len(set(scores)))
    if len(set(scores)) == 1 or len(set(aps)) == 1:
        assert found.rho is None
    else:
        assert found.rho == pytest.approx(np.corrcoef(ranks(scores), ranks(aps))[0, 1], abs=1e-12)


def test_a_loss_counts_with_its_sign_turned_at_the_chosen_epoch_and_a_constant_has_no_rho() -> None:
    results = heldout_search([0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9], [5.0, 4.0, 3.0, 2.0, 1.0])
    found = {each.column: each.rho for each in agreements(results)}
    assert found["heldout_loss"] == pytest.approx(1.0)
    assert found["heldout_ap"] is None


@pytest.mark.parametrize("scores", [[0.1, 0.2, 0.3, 0.5, 0.4], [0.3, 0.1, 0.1, 0.5, 0.4, 0.2]])
def test_the_p_counts_the_orders_that_agree_as_much(scores: list[float]) -> None:
    aps = [0.5 + number / 100 for number in range(len(scores))]
    found = agreements(heldout_search(scores, [*aps], [1.0] * len(scores)))[0]
    every = [abs(np.corrcoef(ranks(list(order)), ranks(aps))[0, 1]) for order in permutations(scores)]
    assert found.rho is not None
    assert found.p == pytest.approx(np.mean(np.array(every) >= abs(found.rho) - 1e-9))


def test_trials_stopped_early_are_counted_apart() -> None:
    whole = heldout_search([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.5, 0.6, 0.7, 0.8, 0.9, 0.4], [1.0] * 6)
    rows = whole.trials.to_pylist()
    rows[-1]["status"] = "stopped"
    results = made_results(rows)
    assert agreements(results)[0].n == 6
    (finished,) = agreements(results, finished=True)
    assert finished.n == 5
    assert finished.rho == pytest.approx(1.0)


def test_a_training_that_was_suggested_again_counts_once() -> None:
    whole = heldout_search([0.1, 0.2, 0.3, 0.5, 0.4], [0.5, 0.6, 0.7, 0.8, 0.9], [1.0] * 5)
    assert agreements(suggested_again(whole)) == agreements(whole)
