"""What stands below a picture."""

from __future__ import annotations

from tests.support.made_runs import search_results
from tune.reporting.figures.captions import basis


def test_a_caption_says_what_its_numbers_depend_on() -> None:
    results = search_results([])
    assert basis(results, 3, definition="ap_trapezoid") == (
        "Protocol heldout; chosen epoch (first best held-out score); trapezoidal AP, the published definition; "
        "3 seeds, 95 % t interval."
    )
    assert basis(results, 1, protocol="refit") == "Protocol refit; last epoch; one seed, no interval."
    assert basis(results, "a line each", rule="every epoch") == "Protocol heldout; every epoch; a line each."


def test_generated_data_are_named_in_every_caption() -> None:
    assert basis(search_results([], demo=True), 1).endswith("demo data, made up.")
