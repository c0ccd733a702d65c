"""What a report says of contrastive terms that were exactly 0."""

from __future__ import annotations

from typing import Any

from tests.support.made_runs import made_results
from tune.reporting.statistics.outcome import find_outcome
from tune.reporting.text.contrast_warnings import contrast_fact, contrast_warnings
from tune.results.run import RunResults


def search(*trials: tuple[float | None, ...], **changes: Any) -> RunResults:
    """Trials by their terms in each epoch, None without contrast; the first is the best."""
    rows = [
        {"trial_dir": f"trials/{number:05d}", "selection_score": 1 - number / 10, "ramp": 0.1, **changes}
        for number in range(len(trials))
    ]
    epochs = [
        {
            "trial_id": f"trials/{number:05d}",
            "kind": "search",
            "epoch": epoch,
            "loss_v2b": term,
            "loss_v2n": term,
        }
        for number, terms in enumerate(trials)
        for epoch, term in enumerate(terms, start=1)
    ]
    return made_results(rows, epochs, trials=len(trials))


def warnings(results: RunResults) -> list[str]:
    return contrast_warnings(results, find_outcome(results))


def test_epochs_of_all_trainings_are_counted() -> None:
    results = search((0.0, 0.0, 0.5), (0.5, 0.5, 0.5))
    assert contrast_fact(results) == "2 of 6 epochs of all trainings had terms that were exactly 0"
    (message,) = warnings(results)
    assert message.startswith(
        "In trial 00000 the contrastive terms were exactly 0 in 2 of 3 epochs: no batch held both"
    )


def test_trainings_in_which_they_never_acted_are_told() -> None:
    first, never = warnings(search((0.0, 0.0), (0.5, 0.0), (0.5, 0.5)))
    assert "in all 2 epochs" in first
    assert never.startswith("In 2 of 3 trainings Λ, r and τ had no effect"), "λ is 0 in the first epoch"
    assert "let predictions part" in never
    weightless = warnings(search((0.5,)))[0]
    assert weightless.startswith(
        "In the only training Λ, r and τ had no effect: the weight λ of the contrastive terms"
    )
    assert "predictions part" not in weightless, "the terms were there, and steps would change nothing"
    assert warnings(search((0.5, 0.5), (0.4, 0.4), ramp=0.0))[0].startswith("In all 2 trainings")


def test_terms_that_acted_or_are_switched_off_need_no_word() -> None:
    assert warnings(search((0.5, 0.5), (0.4, 0.4))) == []
    assert warnings(search((None, None))) == []
    assert contrast_fact(search((None, None))) == ""
    assert contrast_fact(search((0.5, 0.5))) == "0 of 2 epochs of all trainings had terms that were exactly 0"
    assert warnings(made_results([], trials=0)) == []
