"""Runs that were never on disk, with numbers of the test's choice: no training could be made to have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from macil.config import TrialConfig
from macil.evaluation.protocols import epoch_rule
from tests.support.run_folders import BASE
from tune.algorithms.space import Dimension, Space
from tune.planning.plan import Plan
from tune.planning.space import published_point, search_space
from tune.results.rows import EpochRow, TrialRow
from tune.results.run import RunResults
from tune.results.run_info import usable_info, usable_plan
from tune.storage.run_file import RunInfo

SEARCHED = TrialConfig(epochs=9)
SPACE = search_space(SEARCHED)
Seeds = Sequence[float | str]

_USUAL = {"kind": "search", "status": "finished", "epoch_rule": "last"}


def recorded(space: Space) -> dict[str, Any]:
    """The space as plan.json has it."""
    return {name: dimension.model_dump(mode="json") for name, dimension in space.items()}


def trial_rows(rows: Iterable[Mapping[str, Any]]) -> list[TrialRow]:
    """A row from the columns that are given, hyperparameters among them; the others as of a finished trial."""
    found = []
    for row in rows:
        given = {name: value for name, value in row.items() if value is not None}
        values = {**_USUAL, "trial_id": row["trial_dir"], **given}
        config = {name: values.pop(name) for name in TrialConfig.model_fields if name in values}
        found.append(TrialRow(**values, config=config))
    return found


def epoch_rows(rows: Iterable[Mapping[str, Any]]) -> list[EpochRow]:
    """A row from the columns that are given."""
    return [EpochRow(**{"kind": "search", **row}) for row in rows]


def made_info(**content: Any) -> RunInfo:
    """A run.json of these fields as a report reads it."""
    problems: list[str] = []
    info = usable_info(content, problems)
    assert problems == []
    return info


def made_plan(**content: Any) -> Plan:
    """A plan.json of these fields as a report reads it."""
    problems: list[str] = []
    plan = usable_plan(content, problems)
    assert problems == []
    return plan


def made_results(
    rows: Sequence[Mapping[str, Any]],
    epochs: Sequence[Mapping[str, Any]] = (),
    plan: Mapping[str, Any] | None = None,
    path: Path = Path("nowhere"),
    base: TrialConfig | None = BASE,
    **info: Any,
) -> RunResults:
    """A run as `load_run` would give it.

    Args:
        rows: Columns of its trainings; those that are left out are those of a finished trial of `base`.
        epochs: Columns of their epochs.
        plan: What plan.json says.
        path: Where it would lie.
        base: Configuration of every training, where its row says nothing else; None: it has what its row says.
        info: What run.json says.
    """
    protocol = str(info.get("protocol", "heldout"))
    usual = {"protocol": protocol, "epoch_rule": epoch_rule(protocol), "seed": 0}
    if base is not None:
        usual |= {**base.to_dict(), "seed": 0, "epochs_run": base.epochs, "chosen_epoch": base.epochs}
    info = {"name": "made", "status": "finished", "protocol": protocol, "demo": False, **info}
    return RunResults(
        path=path,
        info=made_info(**info),
        trial_rows=trial_rows({**usual, **row} for row in rows),
        epoch_rows=epoch_rows(epochs),
        problems=[],
        plan=made_plan(**(plan or {})),
    )


def search_results(trials: Sequence[Mapping[str, Any]], *, demo: bool = False, **plan: Any) -> RunResults:
    """A search over the whole space: each trial the paper's setting with its own columns over it."""
    rows = [
        {
            "trial_id": f"t{number}",
            "trial_dir": f"trials/{number:05d}",
            "chosen_epoch": 1,
            "parameters": 1000 * int(own.get("hidden_dim", SEARCHED.hidden_dim)),
            **own,
        }
        for number, own in enumerate(trials)
    ]
    searched = {
        "space": recorded(SPACE),
        "base": SEARCHED.to_dict(),
        "fixed": {},
        "first": published_point(SPACE),
        "stopping": {"rule": "asha", "grace": 1, "reduction": 3},
    }
    return made_results(
        rows, (), {**searched, **plan}, Path("run"), SEARCHED, sweep=None, demo=demo, options={"data": "d"}
    )


def heldout_search(
    scores: list[float], aps: list[float | None], losses: list[float], heldout_ap: float = 1.0, **info: Any
) -> RunResults:
    """A held-out search: of each trial the selection score, the test AP and the held-out loss at its chosen epoch."""
    rows, epochs = [], []
    for number, (score, ap, loss) in enumerate(zip(scores, aps, losses, strict=True)):
        name = f"trials/{number:05d}"
        own = {"trial_dir": name, "temperature": 0.1 + number / 1000}
        rows.append({**own, "selection_score": score, "ap_trapezoid": ap, "chosen_epoch": 2})
        for epoch, share in ((1, 9.0), (2, 1.0)):
            line = {"trial_id": name, "kind": "search", "epoch": epoch, "heldout_loss": loss * share}
            epochs.append({**line, "heldout_ap": heldout_ap, "heldout_score": score})
    return made_results(rows, epochs, **info)


def suggested_again(results: RunResults, trials: int | None = None) -> RunResults:
    """The search with its last trial twice more; of the others the first `trials`."""
    rows, epochs = results.trials.to_pylist(), results.epochs.to_pylist()
    last, kept = rows[-1], rows if trials is None else rows[:trials]
    again = [{**last, "trial_dir": name, "trial_id": name} for name in ("trials/again", "trials/once-more")]
    lines = [
        {**line, "trial_id": row["trial_id"]}
        for row in again
        for line in epochs
        if line["trial_id"] == last["trial_id"]
    ]
    return made_results([*kept, *again], [*epochs, *lines])


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


def conditional_results(count: int) -> RunResults:
    """A search in which every third trial is without MA-CIL, and so without the temperature of the others."""
    space = {
        "contrast": Dimension(choices=(True, False)),
        "temperature": SPACE["temperature"].model_copy(update={"when": {"contrast": (True,)}}),
        "momentum": SPACE["momentum"],
        "hidden_dim": SPACE["hidden_dim"],
    }
    trials = [
        trial | ({"contrast": False, "temperature": 0.1} if number % 3 == 2 else {"contrast": True})
        for number, trial in enumerate(spread(count))
    ]
    return search_results(trials, space=recorded(space), first=published_point(space))


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
    return made_results(
        trials,
        (),
        {"sweep": "own", "rows": planned, "seeds": list(range(asked)), "reference": None, **plan},
        Path("run"),
        None,
        protocol=protocol,
        sweep=plan.get("sweep", "own"),
        demo=demo,
        options={"data": "d"},
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
