"""Facts about a run and its state, in words."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from macil.config import hyperparameters
from macil.evaluation.protocols import epoch_rule
from macil.io.text import printable
from macil.io.wording import plural
from tune.planning.counts import counted_rows, epochs_text
from tune.planning.plan import Plan
from tune.planning.space_file import describe
from tune.reporting.statistics.sweep_rows import sweep_rows, trained_rows
from tune.reporting.text import wording
from tune.results.next_commands import resume_command
from tune.results.rows import TrialRow
from tune.results.run import RunResults, planned_confirmation, read_record
from tune.results.run_info import given_data, is_demo
from tune.results.trainings import trained_epochs

_STATES = {
    "running": "Still running: what follows is partial and will change.",
    "interrupted": "Interrupted: what follows is partial.",
    "failed": "The run failed: what follows is partial.",
    "unknown": "The state of the run is not known (no run.json): what follows may be partial.",
}
_ORDER = ("finished", "stopped", "running", "interrupted", "pending", "failed", "diverged")
_SAID = {"stopped": "stopped early", "pending": "not reported"}


def banners(results: RunResults) -> list[str]:
    """Sentences that a reader must see before any number; empty for a whole run."""
    messages = []
    if results.status in _STATES:
        phase = _phase(results)
        go_on = (
            f"Go on with: {resume_command(results.location.shown, results.info.address)}"
            if results.status == "interrupted"
            else ""
        )
        messages.append(" ".join(part for part in (_STATES[results.status], phase, go_on) if part))
    counts = status_counts(results)
    wrong = counts["failed"] + counts["diverged"]
    if wrong:
        messages.append(
            f"{wrong} of {sum(counts.values())} trials failed or diverged; reasons stand under “Status of the trials”."
        )
    if is_demo(results.info):
        messages.append("Demo data, made up: no number here says anything about XD-Violence.")
    return [*messages, *decided(results), *data_notes(results)]


def decided(results: RunResults) -> list[str]:
    """What was decided on the way that the numbers of a search are to be read with."""
    return [each.text for each in results.decisions if each.opened or each.kind == "end"]


def data_notes(results: RunResults) -> list[str]:
    """Assumptions behind the test labels and the held-out split that no file proves, as the run recorded them."""
    notes = results.info.data_notes
    if notes is None and results.info.store_hash:
        notes = (
            "the run was begun by a version that did not note what the test labels and the split rest on",
        )
    return [printable(f"About the data: {text}.") for text in notes or ()]


def status_counts(results: RunResults, kind: str = "search") -> Counter[str]:
    """Trials of a kind by status; those of the search exclude confirmation and refit."""
    return Counter(row.status for row in results.trial_rows if row.kind == kind)


def trials_in_short(results: RunResults) -> str:
    """How many trainings of how many epochs, by what they were for: "8 trials of up to 6 epochs, then ..."."""
    rows = results.trial_rows
    search = [row for row in rows if row.kind == "search"]
    epochs = max((row.epochs or row.epochs_run for row in search), default=0)
    if results.info.sweep:
        rows_of = sweep_rows(results)
        text = counted_rows(len(rows_of), len(trained_rows(rows_of)), len(_planned_seeds(results)) or 1)
    else:
        text = plural(_asked(results) or len(search), "trial")
    if epochs:
        text += f" of {'up to ' if results.plan.stopping else ''}{plural(epochs, 'epoch')}"
    planned_seeds = planned_confirmation(results.info)
    if planned_seeds:
        best = len({name for name, _ in planned_seeds})
        text += f", {plural(best, 'configuration')} again on {len({seed for _, seed in planned_seeds})} fresh seeds"
    return text


def data_in_short(results: RunResults) -> str:
    """The data of the run, in a few words."""
    counts = results.info.dataset or {}
    sizes = ""
    if {"train", "test"} <= set(counts):
        sizes = f" ({counts['train']} training, {counts['test']} test videos)"
    if is_demo(results.info):
        return f"Demo data, made up{sizes}"
    location = given_data(results.info)[1] or results.info.data
    return f"Data {Path(location).name if location else 'unknown'}{sizes}"


def facts(results: RunResults) -> list[tuple[str, str]]:
    """Term and text: data set, protocol, epoch rule, definitions, seeds, trials."""
    info, protocol = results.info, results.protocol
    rule = epoch_rule(protocol, info.epoch_rule)
    return [
        ("Kind", _kind(results)),
        ("Data set", _data(results)),
        ("Protocol", wording.PROTOCOLS.get(protocol, protocol)),
        ("Epoch rule", wording.EPOCH_RULES[rule]),
        (
            "AP",
            (
                f"frame level, on the test videos. Trapezoidal: {wording.DEFINITIONS['ap_trapezoid']}. "
                f"Step-wise: {wording.DEFINITIONS['ap']}."
            ),
        ),
        ("Selection score", _selection(protocol)),
        ("Seeds", _seeds(results)),
        ("Trials", _trials(results)),
        *([("Suggestions", results.plan.suggestions)] if results.plan.suggestions else []),
        ("Early stopping", _early_stopping(results.plan)),
        *([("Decisions", " ".join(each.text for each in results.decisions))] if results.decisions else []),
        *([("Notes", " ".join(results.plan.notes))] if results.plan.notes else []),
        ("Started", f"{info.created or 'unknown'}; last change {info.updated or 'unknown'}"),
    ]


def record(results: RunResults, trial: TrialRow | None) -> list[tuple[str, str]]:
    """Everything in run.json, flat, and the environment that the reported trial was trained in."""
    info = results.info.model_dump(mode="json", exclude_unset=True)
    if results.info.command:
        info["command"] = shlex.join(results.info.command)
    rows = [(key, _exact(item)) for key, item in _flat(info)]
    if trial is not None:
        environment = {key: item for key, item in read_record(results, trial).items() if key != "config"}
        rows += [(f"trial {trial.name}: {key}", wording.value(item)) for key, item in _flat(environment)]
    return rows


def configuration(trial: TrialRow | None) -> list[tuple[str, str, str, str]]:
    """Name, symbol, value of `trial` and default of each hyperparameter; empty without a trial."""
    if trial is None:
        return []
    return [
        (p.name, p.symbol, wording.value(trial.config[p.name]), wording.value(p.default))
        for p in hyperparameters()
        if p.name in trial.config
    ]


def _phase(results: RunResults) -> str:
    """The phase of the run: "Phase: confirmation, 4 of 15 trainings finished."; "" where it is not known."""
    phase = results.info.phase
    if phase == "trials":
        asked, done = results.info.trials, status_counts(results)
        ended = sum(done[status] for status in ("finished", "stopped", "failed", "diverged"))
        return f"Phase: trials, {ended} of {asked} ended." if asked is not None else "Phase: trials."
    if phase == "confirm":
        finished = status_counts(results, "confirm")["finished"]
        planned = len(planned_confirmation(results.info))
        return f"Phase: confirmation on fresh seeds, {finished} of {planned} trainings finished; no winner is named."
    if phase == "refit":
        return "Phase: refit of the winner on all training videos."
    return ""


def _kind(results: RunResults) -> str:
    plan = results.plan
    sweep = results.info.sweep or plan.sweep
    if sweep:
        return f"sweep {sweep}" + (f"; published numbers: {plan.source}" if plan.source else "")
    if plan.space:
        return "search over " + "; ".join(
            f"{name} ({describe(dimension)})" for name, dimension in plan.space.items()
        )
    return "search"


def _data(results: RunResults) -> str:
    info = results.info
    known, given = given_data(info)
    if known and given is None:
        parts = ["the embedded demo data set, made up"]
    else:
        parts = [f"{given or info.data or 'unknown'}{' (demo data, made up)' if is_demo(info) else ''}"]
    messages = {"train": "training videos", "test": "test videos"}
    parts += [f"{number} {messages.get(split, split)}" for split, number in (info.dataset or {}).items()]
    if info.store_hash:
        parts.append(f"content hash {info.store_hash}")
    return "; ".join(parts)


def _selection(protocol: str) -> str:
    if protocol == "published":
        return "best test AP so far (trapezoidal): this is the published convention and flatters"
    return (
        "best held-out score so far: on the held-out training videos, the mean prediction of the violent ones less "
        "that of the normal ones"
    )


def _seeds(results: RunResults) -> str:
    each = "each trial is one seed, no interval"
    seeds, confirm = _planned_seeds(results), results.info.confirm
    if confirm and confirm.seeds:
        each += f"; confirmed with seeds {', '.join(map(str, confirm.seeds))}, which no trial had"
    if seeds:
        shown = ", ".join(map(str, seeds))
        return f"{shown}; {wording.seeds(len(seeds))}" if results.info.sweep else f"{shown}; {each}"
    return each


def _trials(results: RunResults) -> str:
    counts = status_counts(results)
    asked = _asked(results)
    text = ", ".join(f"{counts[status]} {_SAID.get(status, status)}" for status in _ORDER if counts[status])
    started = sum(counts.values())
    if asked is not None and asked > started:
        text = ", ".join(part for part in (text, f"{asked - started} not started") if part)
    rows = results.trial_rows
    epochs = trained_epochs(rows)
    seconds = sum(row.seconds or 0.0 for row in rows)
    spent = (
        f"; epochs: {epochs_text(epochs)}; {wording.duration(seconds)} of training in all"
        if sum(epochs.values())
        else ""
    )
    return f"{started if asked is None else asked} asked for: {text or 'none has started'}{spent}"


def _early_stopping(plan: Plan) -> str:
    return f"{plan.early_stopping}, by the selection score" if plan.stopping else "none"


def _asked(results: RunResults) -> int | None:
    """The trials, or trainings of a sweep, that the run was to have."""
    return results.info.trials or results.plan.trials or None


def _planned_seeds(results: RunResults) -> tuple[int, ...]:
    return results.plan.seeds or results.info.seeds or ()


def _exact(item: Any) -> str:
    """Every digit: a record is there to be compared."""
    return repr(item) if isinstance(item, float) else wording.value(item)


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in content.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{key}.")
        elif isinstance(item, list):
            yield f"{prefix}{key}", ", ".join(wording.value(entry) for entry in item)
        else:
            yield f"{prefix}{key}", item
