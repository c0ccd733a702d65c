"""Sentences about a confirmation: how far the scores of the search fell, and what is a tie."""

from __future__ import annotations

import pytest

from tests.support.made_confirmations import CONFIRM, confirmed, scores_of
from tests.support.made_runs import made_results
from tune.reporting.statistics.outcome import find_outcome
from tune.reporting.text.confirmation_verdict import confirmation_verdicts


def test_the_sentences_say_how_much_the_best_of_the_search_fell() -> None:
    text = " ".join(confirmation_verdicts(confirmed()))
    assert "The best searched score, 0.9000 (trial 00004, one seed), came to 0.7200 [" in text
    assert "0.1800 less" in text
    assert "this is how much" in text
    assert (
        "Trial 00007 has the best mean score on fresh seeds; in the search trial 00004 had the best score."
        in text
    )
    assert confirmation_verdicts(made_results([])) == []


def test_a_score_that_rose_on_fresh_seeds_is_not_called_luck() -> None:
    text = confirmation_verdicts(scores_of({"00001": (0.6, 0.62, 0.61), "00002": (0.4, 0.41, 0.42)}))[0]
    assert text.endswith("on fresh seeds: 0.1100 more. The search did not flatter it.")
    level = confirmation_verdicts(scores_of({"00001": (0.5, 0.5, 0.5)}))[0]
    assert level.endswith("on fresh seeds: the same. The search did not flatter it.")


def test_a_lead_within_its_paired_interval_is_a_tie() -> None:
    near = scores_of({"00001": (0.60, 0.62, 0.61), "00002": (0.61, 0.60, 0.61)})
    text = confirmation_verdicts(near)[-1]
    assert "leads trial 00002 by +0.0033 [" in text
    assert text.endswith(
        "no evidence of a difference. A tie with trial 00002: the winner is that of the larger mean."
    )
    assert find_outcome(near).subject.endswith(
        "the best mean score on 3 fresh seeds (a tie with trial 00002)."
    )
    far = scores_of({"00001": (0.60, 0.62, 0.61), "00002": (0.50, 0.51, 0.52)})
    assert confirmation_verdicts(far)[-1].endswith("more than the noise between seeds.")
    assert "tie" not in find_outcome(far).subject


def test_every_configuration_that_is_not_told_from_the_first_is_tied_with_it() -> None:
    apart, noisy = (0.50, 0.51, 0.52), (0.70, 0.30, 0.45)
    results = scores_of({"00001": (0.60, 0.62, 0.61), "00002": apart, "00000": noisy})
    text = confirmation_verdicts(results)[-1]
    assert "leads trial 00002 by +0.1000 [" in text
    assert text.endswith(
        "more than the noise between seeds; no evidence of a difference to trial 00000. A tie with trial 00000: the "
        "winner is that of the larger mean."
    )
    assert "(a tie with trial 00000)" in find_outcome(results).subject
    both = scores_of({"00001": (0.60, 0.62, 0.61), "00002": (0.61, 0.60, 0.61), "00000": noisy})
    assert confirmation_verdicts(both)[-1].endswith(
        "no evidence of a difference, nor to trial 00000. A tie with trials 00002 and 00000: the winner is that of the "
        "largest mean."
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_for_an_interval_decide_nothing(seeds: int) -> None:
    results = scores_of({"00001": (0.60, 0.62)[:seeds], "00002": (0.50, 0.51)[:seeds]})
    text = confirmation_verdicts(results)[-1]
    assert "no evidence" not in text
    assert text.endswith(
        "whether by more than the noise between seeds is not known. A tie with trial 00002: the winner is that of the "
        "larger mean."
    )


def test_the_best_searched_is_named_though_none_of_its_fresh_seeds_finished() -> None:
    results = confirmed(failed="confirm/00004_seed1000")
    rows = [
        {**row, "status": "failed"} if row["row"] == "00004" else row for row in results.trials.to_pylist()
    ]
    (text,) = confirmation_verdicts(made_results(rows, confirm=CONFIRM))
    assert "in the search trial 00004 had the best score" in text
