"""What a winner is compared with, and that only the paper's setting is called that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from macil.config import TrialConfig, departures
from tests.support.made_runs import made_results, search_results, trial_rows
from tune.planning.space import reference_title
from tune.reporting.pages.run_page import run_page
from tune.reporting.statistics.reference import reference_in_full
from tune.results.ranking import reference_trial
from tune.results.run import RunResults
from tune.storage.run_file import RunConfirmation

PAPER = TrialConfig().to_dict()


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({}, {}),
        ({"seed": 7}, {}),
        ({"fidelity": "paper"}, {}),
        ({"lambda_v2b": 3.5}, {"lambda_v2b": 1.5}),
        ({"epochs": 20, "batch_size": 16}, {"epochs": 50, "batch_size": 128}),
        ({"mask_padding": True}, {"mask_padding": False}),
        ({"fidelity": "paper", "cosine_epochs": 60}, {"cosine_epochs": 50}),
        ({"contrast": False}, {"contrast": True}),
    ],
)
def test_a_setting_is_the_papers_only_in_every_hyperparameter(
    changes: dict[str, Any], other: dict[str, Any]
) -> None:
    values = TrialConfig(**changes).to_dict()
    assert departures(values) == other
    assert reference_title(values) == ("the reference" if other else "the paper's setting")


def test_what_is_not_recorded_is_not_taken_for_the_papers() -> None:
    assert departures({**PAPER, "dropout": None}) == {"dropout": 0.1}
    assert set(departures({})) == set(PAPER) - {"seed"}


def test_the_reference_is_the_trial_with_the_papers_values_of_what_is_searched() -> None:
    trials = [{"momentum": 0.8}, {}, {}]
    found = reference_trial(search_results(trials))
    assert found is not None
    assert found.trial_id == "t1"
    results = search_results(trials)
    info = results.info.model_copy(update={"confirm": RunConfirmation(reference="00002")})
    named = reference_trial(replace(results, info=info))
    assert named is not None
    assert named.trial_id == "t2"
    assert reference_trial(search_results(trials, first={"momentum": 0.91})) is None


def test_in_full_it_says_in_what_it_departs_from_the_paper() -> None:
    def in_full(**changes: Any) -> str:
        (trial,) = trial_rows([{**PAPER, "trial_dir": "trials/00000", **changes}])
        return reference_in_full(trial)

    assert in_full() == "trial 00000, the paper's setting"
    small = in_full(epochs=20, batch_size=16)
    assert small == (
        "trial 00000, the paper's values of what was searched, "
        "with batch_size 16 (paper: 128), epochs 20 (paper: 50)"
    )
    several = in_full(epochs=1, batch_size=8, hidden_dim=16, num_heads=2, feedforward_dim=8)
    assert several.endswith(", epochs 1 (paper: 50), num_heads 2 (paper: 4), 1 more")


def page_of(protocol: str, tmp_path: Any, **changes: Any) -> str:
    """All that a report of a confirmed search says, as text."""
    rows: list[dict[str, Any]] = []
    for name, ramp, score in (("00000", 0.1, 0.5), ("00001", 0.3, 0.6)):
        config = {**PAPER, **changes, "ramp": ramp, "ap": 0.5, "ap_trapezoid": 0.5, "epochs_run": 1}
        rows.append({**config, "trial_dir": f"trials/{name}", "selection_score": score})
        rows += [
            {**config, "trial_dir": f"confirm/{name}_seed{seed}", "kind": "confirm", "row": name, "seed": seed,
             "selection_score": score + seed / 1e4, "status": "finished"}
            for seed in (1000, 1001, 1003)
        ]  # fmt: skip
    confirm = {"rows": ["00001"], "reference": "00000", "seeds": [1000, 1001, 1003]}
    plan = {"space": {"ramp": "0.02 to 3, logarithmic"}, "first": {"ramp": 0.1}}
    results: RunResults = made_results(
        rows, plan=plan, path=tmp_path, protocol=protocol, confirm=confirm, winner={"trial": "00001"}
    )
    return repr(run_page(results, tmp_path, figures=False))


def test_no_sentence_of_a_page_calls_anything_else_the_papers_setting(tmp_path: Any) -> None:
    assert "paper's setting" in page_of("heldout", tmp_path)
    assert "paper's setting" not in page_of("heldout", tmp_path, lambda_v2b=3.5)


def test_a_search_that_selects_by_the_test_ap_speaks_of_no_held_out_videos(tmp_path: Any) -> None:
    page = page_of("published", tmp_path)
    assert "held-out" not in page
    assert "80 %" not in page
    assert "held-out" in page_of("heldout", tmp_path)
