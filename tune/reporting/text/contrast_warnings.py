"""Contrastive terms that never acted: what Λ, r and τ are searched for in vain where no batch has pairs to contrast."""

from __future__ import annotations

from macil.loss_weights import ramp_weight
from macil.training.silent_terms import WHY, is_silent, silence_text, silent_epochs
from tune.reporting.statistics.outcome import Outcome
from tune.reporting.text import wording
from tune.results.rows import EpochRow, TrialRow
from tune.results.run import RunResults


def contrast_fact(results: RunResults) -> str:
    """In how many of how many epochs of all trainings the terms were exactly 0; "" without any such term."""
    silent, epochs = silent_epochs(row.contrast for trial in _epochs(results).values() for row in trial)
    if not epochs:
        return ""
    return f"{wording.count(silent)} of {wording.count(epochs)} epochs of all trainings had terms that were exactly 0"


def contrast_warnings(results: RunResults, outcome: Outcome) -> list[str]:
    """Sentences where the terms were silent: in the reported training, and in trainings in which they never acted."""
    by_trial = _epochs(results)
    messages = []
    for trial in outcome.trials[:1]:
        silent, epochs = silent_epochs(row.contrast for row in by_trial.get(trial.key, []))
        if silent:
            terms = f"the contrastive terms were {silence_text(silent, epochs)}"
            messages.append(f"In {_called(trial)} {terms}: {WHY}.")
    trained = [trial for trial in results.trial_rows if by_trial.get(trial.key)]
    never = [trial for trial in trained if not any(_acts(trial, epoch) for epoch in by_trial[trial.key])]
    if never:
        which = f"{len(never)} of {len(trained)} trainings"
        if len(never) == len(trained):
            which = "the only training" if len(trained) == 1 else f"all {len(trained)} trainings"
        silent = any(is_silent(epoch.contrast) for trial in never for epoch in by_trial[trial.key])
        why = (
            "in every epoch the contrastive terms, or their weight λ (which is 0 in the first), were exactly 0. More "
            "steps (more epochs, a smaller --batch-size) let predictions part."
            if silent
            else "the weight λ of the contrastive terms, which grows by r an epoch from 0 in the first on, was exactly "
            "0 in every epoch."
        )
        messages.append(f"In {which} Λ, r and τ had no effect: {why}")
    return messages


def _epochs(results: RunResults) -> dict[tuple[str, str], list[EpochRow]]:
    """The epochs that have contrastive terms, by training."""
    found: dict[tuple[str, str], list[EpochRow]] = {}
    for row in results.epoch_rows:
        if row.loss_v2b is not None:
            found.setdefault(row.key, []).append(row)
    return found


def _acts(trial: TrialRow, epoch: EpochRow) -> bool:
    weights = (
        ramp_weight(epoch.epoch - 1, *(_number(trial, each) for each in ("ramp", name)))
        for name in ("lambda_v2b", "lambda_v2n")
    )
    return not is_silent(epoch.contrast) and any(weights)


def _number(trial: TrialRow, name: str) -> float:
    """A hyperparameter that is a number, 0 where it is not known."""
    value = trial.config.get(name)
    return 0.0 if value is None or isinstance(value, str) else float(value)


def _called(trial: TrialRow) -> str:
    if trial.kind == "refit":
        return "the refit"
    if trial.row is not None:
        return f"row {trial.row}, seed {trial.seed},"
    return f"trial {trial.name}"
