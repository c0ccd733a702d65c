"""Searches with numbers of the test's choice, as `load_run` would give them: no training could be made to have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from macil.config import TrialConfig
from tests.support.run_rows import trial_rows
from tune.planning.space import describe, published_point, search_space
from tune.results.run import RunResults

BASE = TrialConfig(epochs=9)
SPACE = search_space(BASE)


def search_results(trials: Sequence[Mapping[str, Any]], *, demo: bool = False, **plan: Any) -> RunResults:
    """A search over the whole space: each trial the paper's setting with its own columns over it."""
    rows = [
        {
            **BASE.to_dict(),
            "trial_id": f"t{number}",
            "kind": "search",
            "protocol": "heldout",
            "status": "finished",
            "epochs_run": BASE.epochs,
            "epoch_rule": "chosen",
            "chosen_epoch": 1,
            "parameters": 1000 * int(own.get("hidden_dim", BASE.hidden_dim)),
            "trial_dir": f"trials/{number:05d}",
            **own,
        }
        for number, own in enumerate(trials)
    ]
    return RunResults(
        Path("run"),
        {"protocol": "heldout", "sweep": None, "demo": demo, "options": {"data": "d"}},
        trial_rows(rows),
        [],
        [],
        {
            "space": describe(SPACE),
            "base": BASE.to_dict(),
            "fixed": {},
            "first": published_point(SPACE),
            "asha": {"grace_period": 1, "reduction_factor": 3},
            **plan,
        },
    )


def spread(count: int, stopped: int = 0) -> list[dict[str, Any]]:
    """Trials all over the space, the last `stopped` of them stopped early; the colder, the better."""
    trials = []
    for number in range(count):
        share = number / max(count - 1, 1)
        trial: dict[str, Any] = {
            "lambda_v2b": 0.25 * 16**share,
            "lambda_v2n": 0.25 * 16 ** (1 - share),
            "ramp": 0.02 * 150 ** ((7 * number % count) / count),
            "temperature": 0.03 * 33 ** ((3 * number % count) / count),
            "momentum": 0.8 + 0.2 * ((5 * number % count) / count),
            "hidden_dim": (64, 128, 256)[number % 3],
        }
        trial["selection_score"] = 0.9 - 0.1 * trial["temperature"] - 0.01 * share
        trial["ap_trapezoid"] = trial["selection_score"] - 0.1
        if number >= count - stopped:
            trial |= {"status": "stopped", "epochs_run": 3}
        trials.append(trial)
    return trials
