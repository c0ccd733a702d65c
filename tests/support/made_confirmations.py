"""Searches with a confirmation that were never on disk, with scores of the test's choice."""

from __future__ import annotations

from typing import Any

from tests.support.made_runs import made_results
from tune.results.run import RunResults

SEEDS = (1000, 1001, 1002)
# Trial -> searched score; score and AP by fresh seed.
SCORES = {
    "00000": (0.60, (0.61, 0.63, 0.59)),
    "00004": (0.90, (0.70, 0.74, 0.72)),
    "00007": (0.88, (0.80, 0.78, 0.82)),
}
APS = {"00000": (0.50, 0.54, 0.52), "00004": (0.51, 0.53, 0.55), "00007": (0.56, 0.58, 0.60)}
CONFIRM = {"rows": ["00004", "00007"], "reference": "00000", "seeds": list(SEEDS)}


def confirmed(*, failed: str | None = None, **info: Any) -> RunResults:
    """A confirmation of two configurations and the reference; of one training that failed only its folder is left."""
    rows: list[dict[str, Any]] = []
    for name, (searched, fresh) in SCORES.items():
        rows.append(
            {"trial_dir": f"trials/{name}", "selection_score": searched, "ap_trapezoid": 0.5, "ap": 0.5}
        )
        for seed, score, ap in zip(SEEDS, fresh, APS[name], strict=True):
            folder = f"confirm/{name}_seed{seed}"
            row = {
                "trial_dir": folder,
                "kind": "confirm",
                "row": name,
                "seed": seed,
                "selection_score": score,
            }
            row |= {
                "ap_trapezoid": ap,
                "ap": ap - 0.01,
                "status": "failed" if folder == failed else "finished",
            }
            rows.append(row)
    return made_results(rows, confirm=CONFIRM, **info)


def scores_of(fresh: dict[str, tuple[float, ...]], searched: float = 0.5) -> RunResults:
    """Two configurations with these scores on fresh seeds."""
    rows: list[dict[str, Any]] = []
    for name, scores in fresh.items():
        rows.append({"trial_dir": f"trials/{name}", "selection_score": searched})
        rows += [
            {"trial_dir": f"confirm/{name}_seed{seed}", "kind": "confirm", "row": name, "seed": seed,
             "selection_score": score, "status": "finished"}
            for seed, score in zip(SEEDS, scores, strict=False)
        ]  # fmt: skip
    seeds = SEEDS[: max(map(len, fresh.values()))]
    confirm = {"rows": list(fresh), "reference": None, "seeds": list(seeds)}
    best = max(fresh, key=lambda name: sum(fresh[name]))
    return made_results(rows, confirm=confirm, winner={"trial": best})
