"""Sentences about the agreement of the selection metric with the test AP: one that chance gives is no evidence."""

from __future__ import annotations

from tests.support.made_runs import heldout_search, suggested_again
from tune.reporting.text.agreement_verdict import agreement_verdict

SCORES, APS = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9]


def test_a_constant_is_saturated_and_a_perfect_order_has_its_p() -> None:
    message = agreement_verdict(heldout_search(SCORES, [*APS], [5.0, 4.0, 3.0, 2.0, 1.0]))
    assert "The held-out AP, video level is saturated: all 5 trials are equal in it." in message
    assert "ρ = 1.00 (p 0.017, permutation test)" in message, "2 of 120 orders"


def test_too_few_trials_are_told_and_closed_labels_leave_nothing_to_say() -> None:
    four = heldout_search(SCORES[:4], [*APS[:4]], [1.0] * 4)
    assert agreement_verdict(four).startswith("4 trials have a test AP; at least 5 are needed")
    assert agreement_verdict(heldout_search(SCORES, [None] * 5, [1.0] * 5)) == ""


def test_an_agreement_that_chance_gives_too_is_reported_to_be_no_evidence() -> None:
    aps = [0.5, 0.6, 0.7, 0.8, 0.9, 0.55]
    assert "no evidence of an agreement" in agreement_verdict(
        heldout_search([0.3, 0.1, 0.4, 0.2, 0.5, 0.25], [*aps], [1.0] * 6)
    )


def test_a_training_that_was_suggested_again_counts_once() -> None:
    whole = heldout_search([0.1, 0.2, 0.3, 0.5, 0.4], [*APS], [1.0] * 5)
    message = agreement_verdict(whole)
    assert agreement_verdict(suggested_again(whole)) == message.replace("trials", "different trainings")
    few = suggested_again(whole, trials=3)
    assert agreement_verdict(few).startswith("4 different trainings have a test AP; at least 5 are needed")
