"""What a person should know about a plan before it is run."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from optuna.distributions import BaseDistribution

from macil.config import TrialConfig
from macil.equivalence import training_key
from tune.sweeps import Sweep


def plan_notes(
    base: TrialConfig,
    space: Mapping[str, BaseDistribution],
    sweep: Sweep | None,
    grace: int | None,
    seeds: int,
    protocol: str,
) -> list[str]:
    """Sentences on what would be compared too early, twice, or by the test labels.

    Args:
        base: The run's configuration.
        space: What is searched; empty for a sweep.
        sweep: The sweep, None for a search.
        grace: Epochs before ASHA compares trials, None without it.
        seeds: Seeds of a sweep's row, or of the winner's refit.
        protocol: `heldout` or `published`.
    """
    notes = []
    if grace is not None and base.contrast and grace < base.epochs:
        largest = max(
            getattr(space.get(name), "high", getattr(base, name)) for name in ("lambda_v2b", "lambda_v2n")
        )
        if sweep is None and base.ramp * grace < largest:
            notes.append(
                f"ASHA first compares trials after {grace} epochs, when λ = r t has reached {base.ramp * grace:g} with "
                f"r = {base.ramp:g}: trials that differ only in a larger Λ (up to {largest:g}) are still equal then; "
                "raise --epochs and --grace, or use --no-asha, to tell them apart"
            )
    if sweep is not None:
        alike = _equal_rows(base, sweep, base.epochs)
        if alike:
            notes.append(
                f"rows that are the same training in {base.epochs} epochs: {alike}; raise --epochs to tell them apart"
            )
        if grace is not None and grace < base.epochs:
            early = _equal_rows(base, sweep, grace)
            if early != alike:
                notes.append(f"rows that are the same training when ASHA first compares them: {early}")
            notes.append(
                "--asha: rows that are stopped have no result at the last epoch and enter no mean; a table of the "
                "paper needs every row trained to its end"
            )
    if grace is not None and protocol == "published":
        notes.append(
            "published protocol: ASHA stops trials by their test AP, which flatters those that go on"
        )
    if sweep is None and protocol == "published":
        notes.append(
            "published protocol: the search chooses by test AP, which flatters; the headline is the last epoch's; "
            "without --protocol a search is steered by a part of the training videos, and reads no test label"
        )
    if sweep is None and seeds > 1:
        notes.append(
            f"each suggestion is trained with one seed; the winner is trained again with {seeds} seeds"
        )
    return notes


def _equal_rows(base: TrialConfig, sweep: Sweep, epochs: int) -> str:
    """Which rows are one and the same training for that many epochs, and would measure nothing but chance."""
    alike: dict[Hashable, list[str]] = {}
    for row in sweep.rows:
        config = base.replace(**{**row.changes, "epochs": epochs})
        alike.setdefault(training_key(config), []).append(row.name)
    return "; ".join(" = ".join(names) for names in alike.values() if len(names) > 1)
