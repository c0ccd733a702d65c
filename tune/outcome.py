"""What a run found: the numbers on its first screen, and how to get them again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tune import wording
from tune.intervals import estimate
from tune.results import RunResults, leaderboard
from tune.sections import trial_name

Trial = dict[str, Any]


@dataclass(frozen=True)
class Tile:
    """A number worth a tile: what it is, the number, all that it depends on."""

    name: str
    number: str
    basis: str


def headline(results: RunResults) -> tuple[str, list[Tile], Trial | None]:
    """What the run found: a sentence on whose numbers follow, the numbers, and the trial that is replayed for them."""
    board = leaderboard(results).to_pylist()
    refits = [row for row in board if row["status"] == "refit"]
    ranked = [row for row in board if row["rank"] is not None]
    if results.info.get("sweep"):
        return "", [], None
    if refits:
        name = winner_name(results) or "of the search"
        subject = f"Winner: trial {name}, trained again on all training videos: the run's result."
        return subject, _tiles(refits, [row for row in ranked if trial_name(row) == name]), refits[0]
    if not ranked:
        return "No trial has a selection score yet.", [], None
    subject = f"Best trial so far by selection score: {trial_name(ranked[0])} ({ranked[0]['status']})."
    if results.status == "finished":
        subject = f"Best trial by selection score: {trial_name(ranked[0])}."
    return subject, _tiles(ranked[:1], ranked[:1]), ranked[0]


def winner_name(results: RunResults) -> str | None:
    """The trial that was refitted: as run.json says, else the first of the leaderboard."""
    winner = results.info.get("winner")
    if isinstance(winner, dict) and winner.get("trial"):
        return str(winner["trial"])
    ranked = [row for row in leaderboard(results).to_pylist() if row["rank"] == 1]
    return trial_name(ranked[0]) if ranked else None


def disagreements(results: RunResults) -> list[str]:
    """Whether the winner that run.json names is not the first of the leaderboard, in words."""
    named = results.info.get("winner")
    ranked = [row for row in leaderboard(results).to_pylist() if row["rank"] == 1]
    if not (isinstance(named, dict) and named.get("trial") and ranked):
        return []
    first = trial_name(ranked[0])
    if first == str(named["trial"]):
        return []
    return [f"run.json names trial {named['trial']} as the winner, but {first} has the best selection score"]


def replay(results: RunResults, trial: Trial | None) -> tuple[str, list[tuple[str, str]]]:
    """The command that trains `trial` again, and the figures it must give, to the last digit; ("", []) without one."""
    if trial is None:
        return "", []
    folder = results.path / str(trial["trial_dir"])
    data = results.info.get("data") or "DATA"
    parts = ["python", "-m", "macil", "train", str(data), "--record", str(folder / "record.json")]
    split = results.path / "split.json"
    if trial["protocol"] == "heldout" and split.exists():
        parts += ["--split", str(split)]
    parts += ["--out", f"replay-{trial_name(trial)}"]
    expected = [
        (f"{wording.SHORT_DEFINITIONS[name]}, {where}", repr(trial[f"{name}{suffix}"]))
        for suffix, where in _epochs_of(trial)
        for name in ("ap_trapezoid", "ap")
        if trial[f"{name}{suffix}"] is not None
    ]
    return shlex.join(parts), expected


def _epochs_of(trial: Trial) -> list[tuple[str, str]]:
    if trial["epoch_rule"] == "last":
        return [("", f"last epoch ({trial['epochs_run']})")]
    return [("", f"chosen epoch ({trial['chosen_epoch']})"), ("_last", f"last epoch ({trial['epochs_run']})")]


def _tiles(trials: Sequence[Trial], selected: Sequence[Trial]) -> list[Tile]:
    first = trials[0]
    tiles = []
    for definition in ("ap_trapezoid", "ap"):
        figure = estimate(trial[definition] for trial in trials)
        seeds = figure.n if figure else len(trials)
        number = wording.estimate_text(figure)
        number = number if figure is None else f"{number} %"
        basis = wording.ap_statement(definition, str(first["protocol"]), str(first["epoch_rule"]), seeds)
        if figure is None:
            basis = f"not measured ({basis})"
        tiles.append(Tile(f"AP, {wording.SHORT_DEFINITIONS[definition]}", number, basis))
    if first["protocol"] == "published" and first["ap_trapezoid_best"] is not None:
        tiles.append(
            Tile(
                "AP, trapezoidal, best test epoch",
                f"{wording.percent(first['ap_trapezoid_best'])} %",
                f"the published convention: epoch {first['best_epoch']} chosen on the test set, which flatters; "
                f"{wording.DEFINITIONS['ap_trapezoid']}; protocol published; one seed, no interval",
            )
        )
    if selected and selected[0]["selection_score"] is not None and selected[0]["protocol"] != "published":
        tiles.append(
            Tile(
                "Selection score",
                wording.decimal(selected[0]["selection_score"]),
                "what the winner was chosen by: held-out training videos only, best of its epochs "
                f"(epoch {wording.count(selected[0]['chosen_epoch'])}); one seed, no interval",
            )
        )
    tiles.append(
        Tile(
            "Parameters",
            wording.count(first["parameters"]),
            f"in use; {wording.count(first['parameters_published'])} in the published convention",
        )
    )
    return tiles
