"""Contrastive terms that never acted: what Λ, r and τ are searched for in vain where no batch has pairs to contrast."""

from __future__ import annotations

from typing import Any

from macil.objective import ramp_weight
from macil.silence import WHY, is_silent, silence_text, silent_epochs
from tune.ranking import trial_name
from tune.reporting import wording
from tune.reporting.outcome import Outcome
from tune.results import RunResults

Trial = dict[str, Any]


def contrast_fact(results: RunResults) -> str:
    """In how many of how many epochs of all trainings the terms were exactly 0; "" without any such term."""
    silent, epochs = silent_epochs(row for trial in _epochs(results).values() for row in trial)
    if not epochs:
        return ""
    return f"{wording.count(silent)} of {wording.count(epochs)} epochs of all trainings had terms that were exactly 0"


def contrast_warnings(results: RunResults, outcome: Outcome) -> list[str]:
    """Sentences where the terms were silent: in the reported training, and in trainings in which they never acted."""
    by_trial = _epochs(results)
    said = []
    for trial in outcome.trials[:1]:
        silent, epochs = silent_epochs(by_trial.get(_key(trial), []))
        if silent:
            terms = f"the contrastive terms were {silence_text(silent, epochs)}"
            said.append(f"In {_called(trial)} {terms}: {WHY}.")
    trained = [trial for trial in results.trials.to_pylist() if by_trial.get(_key(trial))]
    never = [trial for trial in trained if not any(_acts(trial, epoch) for epoch in by_trial[_key(trial)])]
    if never:
        which = f"{len(never)} of {len(trained)} trainings"
        if len(never) == len(trained):
            which = "the only training" if len(trained) == 1 else f"all {len(trained)} trainings"
        silent = any(is_silent(epoch) for trial in never for epoch in by_trial[_key(trial)])
        why = (
            "in every epoch the contrastive terms, or their weight λ (which is 0 in the first), were exactly 0. More "
            "steps (more epochs, a smaller --batch-size) let predictions part."
            if silent
            else "the weight λ of the contrastive terms, which grows by r an epoch from 0 in the first on, was exactly "
            "0 in every epoch."
        )
        said.append(f"In {which} Λ, r and τ had no effect: {why}")
    return said


def _epochs(results: RunResults) -> dict[tuple[str, str], list[Trial]]:
    """The epochs that have contrastive terms, by training."""
    found: dict[tuple[str, str], list[Trial]] = {}
    for row in results.epochs.to_pylist():
        if row["loss_v2b"] is not None:
            found.setdefault(_key(row), []).append(row)
    return found


def _key(row: Trial) -> tuple[str, str]:
    return row["kind"], row["trial_id"]


def _acts(trial: Trial, epoch: Trial) -> bool:
    weights = (
        ramp_weight(epoch["epoch"] - 1, trial["ramp"] or 0.0, trial[name] or 0.0)
        for name in ("lambda_v2b", "lambda_v2n")
    )
    return not is_silent(epoch) and any(weights)


def _called(trial: Trial) -> str:
    if trial["kind"] == "refit":
        return "the refit"
    if trial["row"] is not None:
        return f"row {trial['row']}, seed {trial['seed']},"
    return f"trial {trial_name(trial)}"
