"""The table of the selection metric and the test AP: only of labels that are open, and what it leaves out."""

from __future__ import annotations

from tests.support.made_runs import heldout_search, suggested_again
from tune.reporting.tables.agreement_table import agreement_table

SCORES, APS = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9]


def test_a_constant_is_saturated_and_a_loss_has_its_sign_turned() -> None:
    table = agreement_table(heldout_search(SCORES, [*APS], [5.0, 4.0, 3.0, 2.0, 1.0]))
    assert table is not None
    cells = {row[0]: row[1] for row in table.rows}
    assert cells["− held-out loss"] == "1.00"
    assert cells["held-out AP, video level"] == "saturated: all equal"
    assert ["saturated: all equal" in row[1] for row in table.rows].count(True) == 1
    assert "took no part in the choice" in table.caption


def test_it_is_shown_only_for_opened_held_out_searches_of_five_trials() -> None:
    losses = [1.0] * 5
    assert agreement_table(heldout_search(SCORES[:4], [*APS[:4]], losses[:4])) is None
    assert agreement_table(heldout_search(SCORES, [None] * 5, losses)) is None
    assert agreement_table(heldout_search(SCORES, [*APS], losses, protocol="published")) is None
    assert agreement_table(heldout_search(SCORES, [*APS], losses, sweep="table3")) is None


def test_a_training_that_was_suggested_again_is_told() -> None:
    table = agreement_table(suggested_again(heldout_search(SCORES, [*APS], [1.0] * 5)))
    assert table is not None
    assert table.caption.endswith("Each training counts once: 2 trials repeated another's.")
