"""The rank correlation of the selection metric with the test AP: by the ranks, and only of labels that are open."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.made_runs import made_results
from tune.reporting.statistics.selection_agreement import agreement_table, agreement_verdict, agreements
from tune.results.run import RunResults


def search(
    scores: list[float], aps: list[float | None], losses: list[float], heldout_ap: float = 1.0, **info: Any
) -> RunResults:
    rows, epochs = [], []
    for number, (score, ap, loss) in enumerate(zip(scores, aps, losses, strict=True)):
        name = f"trials/{number:05d}"
        own = {"trial_dir": name, "temperature": 0.1 + number / 1000}
        rows.append({**own, "selection_score": score, "ap_trapezoid": ap, "chosen_epoch": 2})
        for epoch, share in ((1, 9.0), (2, 1.0)):
            line = {"trial_id": name, "kind": "search", "epoch": epoch, "heldout_loss": loss * share}
            epochs.append({**line, "heldout_ap": heldout_ap, "heldout_score": score})
    return made_results(rows, epochs, **info)


def ranks(values: list[float]) -> np.ndarray:
    """Mean ranks, the slow way."""
    return np.array([sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=5, max_size=12))
def test_rho_is_the_correlation_of_mean_ranks(pairs: list[tuple[int, int]]) -> None:
    scores, aps = [a / 10 for a, _ in pairs], [b / 10 for _, b in pairs]
    results = search(scores, list(aps), [1.0] * len(pairs))
    (found,) = [each for each in agreements(results) if each.name.startswith("selection")]
    assert (found.n, found.distinct) == (len(pairs), len(set(scores)))
    if len(set(scores)) == 1 or len(set(aps)) == 1:
        assert found.rho is None
    else:
        assert found.rho == pytest.approx(np.corrcoef(ranks(scores), ranks(aps))[0, 1], abs=1e-12)


def test_a_loss_counts_with_its_sign_turned_at_the_chosen_epoch_and_a_constant_is_saturated() -> None:
    results = search([0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9], [5.0, 4.0, 3.0, 2.0, 1.0])
    found = {each.name: each.rho for each in agreements(results)}
    assert found["− held-out loss"] == pytest.approx(1.0)
    assert found["held-out AP, video level"] is None
    table = agreement_table(results)
    assert table is not None
    assert ["saturated: all equal" in row[1] for row in table.rows].count(True) == 1
    assert "took no part in the choice" in table.caption
    assert "The held-out AP, video level is saturated: all 5 trials are equal in it." in agreement_verdict(
        results
    )
    assert "ρ = 1.00 (p 0.017, permutation test)" in agreement_verdict(results), "2 of 120 orders"


def test_it_is_shown_only_for_opened_held_out_searches_of_five_trials() -> None:
    scores, aps, losses = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9], [1.0] * 5
    four = search(scores[:4], [*aps[:4]], losses[:4])
    assert agreement_table(four) is None
    assert agreement_verdict(four).startswith("4 trials have a test AP; at least 5 are needed")
    assert agreement_table(search(scores, [None] * 5, losses)) is None
    assert agreement_table(search(scores, [*aps], losses, protocol="published")) is None
    assert agreement_table(search(scores, [*aps], losses, sweep="table3")) is None
    assert agreement_verdict(search(scores, [None] * 5, losses)) == ""


@pytest.mark.parametrize("scores", [[0.1, 0.2, 0.3, 0.5, 0.4], [0.3, 0.1, 0.1, 0.5, 0.4, 0.2]])
def test_the_p_counts_the_orders_that_agree_as_much(scores: list[float]) -> None:
    aps = [0.5 + number / 100 for number in range(len(scores))]
    found = agreements(search(scores, [*aps], [1.0] * len(scores)))[0]
    every = [abs(np.corrcoef(ranks(list(order)), ranks(aps))[0, 1]) for order in permutations(scores)]
    assert found.rho is not None
    assert found.p == pytest.approx(np.mean(np.array(every) >= abs(found.rho) - 1e-9))


def test_an_agreement_that_chance_gives_too_is_reported_to_be_no_evidence() -> None:
    aps = [0.5, 0.6, 0.7, 0.8, 0.9, 0.55]
    assert "no evidence of an agreement" in agreement_verdict(
        search([0.3, 0.1, 0.4, 0.2, 0.5, 0.25], [*aps], [1.0] * 6)
    )


def test_trials_stopped_early_are_counted_apart() -> None:
    whole = search([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.5, 0.6, 0.7, 0.8, 0.9, 0.4], [1.0] * 6)
    rows = whole.trials.to_pylist()
    rows[-1]["status"] = "stopped"
    results = made_results(rows)
    assert agreements(results)[0].n == 6
    (finished,) = agreements(results, finished=True)
    assert finished.n == 5
    assert finished.rho == pytest.approx(1.0)


def test_a_training_that_was_suggested_again_counts_once() -> None:
    whole = search([0.1, 0.2, 0.3, 0.5, 0.4], [0.5, 0.6, 0.7, 0.8, 0.9], [1.0] * 5)
    rows, epochs = whole.trials.to_pylist(), whole.epochs.to_pylist()
    again = [{**rows[-1], "trial_dir": name, "trial_id": name} for name in ("trials/00005", "trials/00006")]
    lines = [
        {**line, "trial_id": row["trial_id"]}
        for row in again
        for line in epochs
        if line["trial_id"] == rows[-1]["trial_id"]
    ]
    repeated = made_results([*rows, *again], [*epochs, *lines])
    assert agreements(repeated) == agreements(whole)
    table = agreement_table(repeated)
    assert table is not None
    assert table.caption.endswith("Each training counts once: 2 trials repeated another's.")
    assert agreement_verdict(repeated) == agreement_verdict(whole).replace("trials", "different trainings")
    few = made_results([*rows[:3], *again], [*epochs, *lines])
    assert agreement_verdict(few).startswith("4 different trainings have a test AP; at least 5 are needed")
