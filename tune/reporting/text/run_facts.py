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
from tune.reporting.statistics.sweep_rows import sweep_rows, trained_rows
from tune.reporting.text import wording
from tune.results import run_info
from tune.results.next_commands import resume_command
from tune.results.rows import TrialRow
from tune.results.run import RunResults, planned_confirmation, read_record
from tune.results.run_info import given_data
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
            f"Go on with: {resume_command(results.location.shown, results.info.get('address'))}"
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
    if is_demo(results):
        messages.append("Demo data, generated: no number here says anything about XD-Violence.")
    return [*messages, *data_notes(results)]


def data_notes(results: RunResults) -> list[str]:
    """Assumptions behind the test labels and the held-out split that no file proves, as the run recorded them."""
    notes = results.info.get("data_notes")
    if notes is None and results.info.get("store_hash"):
        notes = [
            "the run was begun by a version that did not note what the test labels and the split rest on"
        ]
    return [printable(f"About the data: {text}.") for text in notes or ()]


def is_demo(results: RunResults) -> bool:
    """Whether the run was made on the generated data set."""
    return run_info.is_demo(results.info)


def status_counts(results: RunResults, kind: str = "search") -> Counter[str]:
    """Trials of a kind by status; those of the search exclude confirmation and refit."""
    return Counter(row.status for row in results.trial_rows if row.kind == kind)


def trials_in_short(results: RunResults) -> str:
    """How many trainings of how many epochs, by what they were for: "8 trials of up to 6 epochs, then ..."."""
    rows = results.trial_rows
    search = [row for row in rows if row.kind == "search"]
    epochs = max((row.epochs or row.epochs_run for row in search), default=0)
    asked = results.info.get("trials", results.plan.get("trials"))
    number = asked if isinstance(asked, int) else len(search)
    seeds = results.plan.get("seeds") or results.info.get("seeds")
    seeds = len(seeds) if isinstance(seeds, list) and seeds else 1
    if results.info.get("sweep"):
        rows_of = sweep_rows(results)
        text = counted_rows(len(rows_of), len(trained_rows(rows_of)), seeds)
    else:
        text = plural(number, "trial")
    if epochs:
        early = results.plan.get("asha", results.info.get("asha"))
        text += f" of {'up to ' if isinstance(early, dict) else ''}{plural(epochs, 'epoch')}"
    planned_seeds = planned_confirmation(results.info)
    if planned_seeds:
        best = len({name for name, _ in planned_seeds})
        text += f", {plural(best, 'configuration')} again on {len({seed for _, seed in planned_seeds})} fresh seeds"
    return text


def data_in_short(results: RunResults) -> str:
    """The data of the run, in a few words."""
    counts = results.info.get("dataset")
    sizes = ""
    if isinstance(counts, dict) and {"train", "test"} <= set(counts):
        sizes = f" ({counts['train']} training, {counts['test']} test videos)"
    if is_demo(results):
        return f"Demo data, generated{sizes}"
    location = _given_data(results)
    return f"Data {Path(location).name if location else 'unknown'}{sizes}"


def facts(results: RunResults) -> list[tuple[str, str]]:
    """Term and text: data set, protocol, epoch rule, definitions, seeds, trials."""
    info, plan = results.info, results.plan
    protocol = results.protocol
    rule = epoch_rule(protocol, info.get("epoch_rule"))
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
        ("Early stopping", _early_stopping(plan, info)),
        *([("Notes", " ".join(str(note) for note in plan["notes"]))] if plan.get("notes") else []),
        ("Started", f"{info.get('created') or 'unknown'}; last change {info.get('updated') or 'unknown'}"),
    ]


def record(results: RunResults, trial: TrialRow | None) -> list[tuple[str, str]]:
    """Everything in run.json, flat, and the environment that the reported trial was trained in."""
    info = dict(results.info)
    if isinstance(info.get("command"), list):
        info["command"] = shlex.join(str(part) for part in info["command"])
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
    phase = str(results.info.get("phase") or "")
    if phase == "trials":
        asked, done = results.info.get("trials"), status_counts(results)
        ended = sum(done[status] for status in ("finished", "stopped", "failed", "diverged"))
        return f"Phase: trials, {ended} of {asked} ended." if isinstance(asked, int) else "Phase: trials."
    if phase == "confirm":
        finished = status_counts(results, "confirm")["finished"]
        planned = len(planned_confirmation(results.info))
        return f"Phase: confirmation on fresh seeds, {finished} of {planned} trainings finished; no winner is named."
    if phase == "refit":
        return "Phase: refit of the winner on all training videos."
    return ""


def _kind(results: RunResults) -> str:
    sweep = results.info.get("sweep") or results.plan.get("sweep")
    if sweep:
        source = results.plan.get("source")
        return f"sweep {sweep}" + (f"; published numbers: {source}" if source else "")
    space = results.plan.get("space")
    if isinstance(space, dict) and space:
        return "search over " + "; ".join(f"{name} ({text})" for name, text in space.items())
    return "search"


def _given_data(results: RunResults) -> str:
    return str(given_data(results.info)[1] or results.info.get("data") or "")


def _data(results: RunResults) -> str:
    info = results.info
    given = _given_data(results)
    if given_data(info) == (True, None):
        parts = ["the embedded demo data set, generated"]
    else:
        parts = [f"{given or 'unknown'}{' (demo data, generated)' if is_demo(results) else ''}"]
    counts = info.get("dataset")
    if isinstance(counts, dict):
        messages = {"train": "training videos", "test": "test videos"}
        parts += [f"{wording.value(item)} {messages.get(key, key)}" for key, item in _flat(counts)]
    if info.get("store_hash"):
        parts.append(f"content hash {info['store_hash']}")
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
    seeds = results.plan.get("seeds") or results.info.get("seeds")
    confirm = results.info.get("confirm")
    if isinstance(confirm, dict) and isinstance(confirm.get("seeds"), list):
        each += (
            f"; confirmed with seeds {', '.join(str(seed) for seed in confirm['seeds'])}, which no trial had"
        )
    if isinstance(seeds, list) and seeds:
        shown = ", ".join(str(seed) for seed in seeds)
        return f"{shown}; {wording.seeds(len(seeds))}" if results.info.get("sweep") else f"{shown}; {each}"
    return each


def _trials(results: RunResults) -> str:
    counts = status_counts(results)
    asked = results.info.get("trials", results.plan.get("trials"))
    text = ", ".join(f"{counts[status]} {_SAID.get(status, status)}" for status in _ORDER if counts[status])
    started = sum(counts.values())
    if isinstance(asked, int) and asked > started:
        text = ", ".join(part for part in (text, f"{asked - started} not started") if part)
    rows = results.trial_rows
    epochs = trained_epochs(rows)
    seconds = sum(row.seconds or 0.0 for row in rows)
    spent = (
        f"; epochs: {epochs_text(epochs)}; {wording.duration(seconds)} of training in all"
        if sum(epochs.values())
        else ""
    )
    return f"{asked if isinstance(asked, int) else started} asked for: {text or 'none has started'}{spent}"


def _early_stopping(plan: dict[str, Any], info: dict[str, Any]) -> str:
    asha = plan.get("asha", info.get("asha"))
    if isinstance(asha, dict):
        return "ASHA on the selection score; " + ", ".join(
            f"{key.replace('_', ' ')} {wording.value(item)}" for key, item in asha.items()
        )
    return "none"


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
