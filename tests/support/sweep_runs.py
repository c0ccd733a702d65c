"""Sweeps with numbers of the test's choice, as `load_run` would give them: no training could be made to have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.run_rows import trial_rows
from tune.results.run import RunResults

Seeds = Sequence[float | str]


def sweep_results(
    rows: Mapping[str, Seeds],
    *,
    published: Mapping[str, float] | None = None,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    best: float = 0.5,
    protocol: str = "published",
    demo: bool = False,
    seeds: int | None = None,
    **plan: Any,
) -> RunResults:
    """A sweep of `rows`: for each seed its AP in percent (trapezoidal) or, without one, its status.

    The step-wise AP is 1 point below, the AP of the best test epoch `best` points above.
    """
    changes = changes or {}
    trials = [
        _trial(name, seed, entry, best, protocol) | dict(changes.get(name, {}))
        for name, entries in rows.items()
        for seed, entry in enumerate(entries)
    ]
    planned = [
        {
            "name": name,
            "changes": dict(changes.get(name, {})),
            "published_ap": (published or {}).get(name),
            "source": None,
        }
        for name in rows
    ]
    asked = max(map(len, rows.values()), default=0) if seeds is None else seeds
    return RunResults(
        Path("run"),
        {"protocol": protocol, "sweep": plan.get("sweep", "own"), "demo": demo, "options": {"data": "d"}},
        trial_rows(trials),
        [],
        [],
        {"sweep": "own", "rows": planned, "seeds": list(range(asked)), "reference": None, **plan},
    )


def _trial(name: str, seed: int, entry: float | str, best: float, protocol: str) -> dict[str, Any]:
    finished = not isinstance(entry, str)
    trial = {
        "trial_id": f"{name}-{seed}",
        "trial_dir": f"trials/{name}-{seed}",
        "kind": "search",
        "row": name,
        "seed": seed,
        "protocol": protocol,
        "status": "finished" if finished else entry,
        "epochs_run": 3,
        "parameters": 100,
        "parameters_published": 120,
        "seconds": 5.0,
    }
    # A training that was cut short has numbers too, and they must enter no mean.
    ap = entry if isinstance(entry, float | int) else 1.0
    trial |= {"ap_trapezoid": ap / 100, "ap": (ap - 1) / 100}
    return trial | ({"ap_trapezoid_best": (ap + best) / 100} if protocol == "published" else {})
