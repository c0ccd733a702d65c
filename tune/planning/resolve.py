"""From the command line to the plan: every default, and what can be checked without data and without Ray."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from macil.config import TrialConfig
from macil.data.manifest import SUFFIXES, is_manifest
from macil.data.opening import require_own_data
from macil.data.reading import Reading
from macil.data.split import Split
from macil.data.store.staging import RemoteSource, hashes_of
from macil.errors import ConfigError, DataError, UsageError
from macil.io.remote import is_uri, open_remote
from macil.io.text import brief
from macil.io.wording import plural
from tune.algorithms.space import Space, is_whole
from tune.algorithms.stopping.registry import RULES
from tune.planning.advice import plan_notes
from tune.planning.enqueue_file import read_points
from tune.planning.equal_rows import planned_rows
from tune.planning.options import CONFIRM, Options
from tune.planning.paper_sweeps import Sweep
from tune.planning.plan import Plan, PlannedConfirmation, PlannedRow
from tune.planning.resources import Machine
from tune.planning.run_spec import RunProtocol, TrainingSettings, compose_config
from tune.planning.space import published_point, search_space
from tune.planning.sweep_file import find_sweep
from tune.storage.run_file import Scalar

# Enough for the demo to end in minutes; a real search gets the published number of epochs.
_DEMO_TRIALS, _TRIALS, _EPOCHS = 10, 40, 50
# The demo has 600 training bags, not 19,770: of 32 bags, so that an epoch has 19 steps, not five. Of 16 epochs at
# r = 0.1 the last five tell the Λ of Table 4 apart, so that its rows are different trainings. See
# benchmarks/demo_criteria.py.
_DEMO_START = {"epochs": 16, "batch_size": 32}
# The paper's Λ is reached after 1.5 / 0.1 epochs: nothing is compared before, of 50 epochs; of fewer, in proportion.
_GRACE = 15
_FEWEST_TO_STOP = 4
# Trainings of each configuration that is confirmed.
_CONFIRM_SEEDS = 5
# Random suggestions before a model of the scores is used. Not a share of --trials: a search that is extended goes on as
# one that was longer from the start.
STARTUP = 5
# Seconds without a report after which a trial is taken to hang: longer than any epoch.
_TRIAL_TIMEOUT = 3600.0
# Confirmation seeds begin at the next multiple of this above the seeds of the run.
_FRESH = 1000
MOST = 100_000  # trials, seeds, or CPUs of a trial: more than anybody has
_LEAST_SHARE = 0.0001  # of a CPU or GPU: Ray counts in these
_LAST_SEED = 2**31 - 1


def resolve_plan(options: Options, machine: Machine | None) -> Plan:
    """Fill in every default and check what can be checked without data and without Ray.

    Args:
        options: The command line.
        machine: What this machine has; None when a cluster will run the trials.

    Raises:
        UsageError: Options that contradict one another or ask for the impossible.
    """
    demo = options.data is None
    if demo:
        require_own_data(options)
    sweep = _find_sweep(options)
    given = options.hyperparameters
    start: dict[str, Any] = _DEMO_START if demo else {"epochs": _EPOCHS}
    if options.base is not None:
        start = options.base.to_dict()
    base = TrialConfig(**{**start, **given})
    seeds = tuple(base.seed + offset for offset in range(_at_least_one("--seeds", options.seeds, 1)))
    if seeds[-1] > _LAST_SEED:
        raise UsageError(
            f"--seeds {len(seeds)}: not as many are left from {base.seed} on; give a smaller --seed"
        )
    space: Space = {}
    rows: tuple[PlannedRow, ...] = ()
    if sweep:
        rows = _planned_rows(base, sweep)
        trials = len({row.trained_as for row in rows}) * len(seeds)
    else:
        space = search_space(base, given, options.space, options.search or ())
        trials = _at_least_one("--trials", options.trials, _DEMO_TRIALS if demo else _TRIALS)
    first = published_point(space)
    enqueued, repeated = _enqueued(options, base, space, first, trials)
    rule = options.stopping or ("asha" if sweep is None and trials >= _FEWEST_TO_STOP else "none")
    if rule == "none" and options.grace is not None:
        usual = "a sweep" if sweep else f"fewer than {_FEWEST_TO_STOP} trials"
        why = f"--stopping none, the default of {usual}, trains"
        raise UsageError(
            f"--grace belongs to a rule that stops trials; {why} every one to its end: give --stopping "
            f"{' or '.join(RULES)}, or leave --grace out"
        )
    stopping = None if rule == "none" else RULES[rule](grace=_grace(options, base))
    confirm = _confirm(options, sweep, trials, seeds)
    cpus, gpus = _resources(options, machine, trials)
    protocol: RunProtocol = options.protocol or ("published" if sweep else "heldout")
    split = _given_split(options, protocol)
    usual_grace = _usual_grace(_DEMO_START["epochs"] if demo else _EPOCHS)
    # What the space or the rows of a sweep set is not the command line's, and must not look so on a resume.
    varied = space if sweep is None else sweep.swept
    assumed = {name: value for name, value in start.items() if name not in varied}
    settings = _taken_over(options) | {
        "protocol": protocol,
        "split_seed": split.seed if split else _seed("--split-seed", options.split_seed),
        "device": "cuda" if gpus > 0 else "cpu",
        "threads": max(1, int(cpus)),
    }
    return Plan(
        **settings,
        data=options.data,
        split=options.split,
        split_hash=split.hash if split else None,
        base=base,
        fixed={**(assumed if options.base is None else {}), **given, "epochs": base.epochs},
        space=space,
        first=first,
        enqueued=enqueued,
        sampler=None if sweep else options.sampler or "tpe",
        startup=STARTUP,
        search_seed=None if sweep else _seed("--search-seed", options.search_seed),
        sweep=sweep.name if sweep else None,
        title=sweep.title if sweep else None,
        source=sweep.source if sweep else None,
        reference=sweep.reference if sweep else None,
        rows=rows,
        trials=trials,
        seeds=seeds,
        stopping=stopping,
        confirm=confirm,
        trial_timeout=_timeout(options.trial_timeout),
        cpus_per_trial=cpus,
        gpus_per_trial=gpus,
        concurrent=_concurrent(options, machine, cpus, gpus, trials),
        refit_cpus=_refit_cpus(options, machine, cpus, gpus, len(seeds)),
        # Where it pays (docs/performance.md): on a GPU a configuration's seeds are trained together.
        lockstep=gpus > 0 and len(seeds) > 1,
        notes=(
            *plan_notes(base, space, sweep, stopping, usual_grace, trials, len(seeds), protocol),
            *repeated,
            *_split_notes(options, split),
        ),
    )


def with_timeout(plan: Plan, timeout: float | None) -> Plan:
    """A recorded plan with the one option that a resume may change; None leaves it.

    Raises:
        UsageError: No such timeout.
    """
    return plan if timeout is None else plan.model_copy(update={"trial_timeout": _timeout(timeout)})


def check_resources(plan: Plan, available: Machine, where: str) -> None:
    """Refuse what could only wait for ever.

    Raises:
        UsageError: A trial asks for more than there is.
    """
    if plan.gpus_per_trial > available.gpus:
        have = "no GPU that PyTorch can use" if available.gpus == 0 else f"{available.gpus} GPU(s)"
        raise UsageError(
            f"--gpus-per-trial {plan.gpus_per_trial:g}: {where} has {have}; use --gpus-per-trial {available.gpus}"
        )
    if plan.cpus_per_trial > available.cpus:
        raise UsageError(
            f"--cpus-per-trial {plan.cpus_per_trial:g}: {where} has {available.cpus} CPU(s); ask for at most that many"
        )
    if plan.refits and plan.refit_cpus > available.cpus:
        raise UsageError(
            f"{where} has {available.cpus} CPU(s), the winner's refit was planned with {plan.refit_cpus:g}, and its "
            "numbers depend on that; resume where as many are, or begin a new run"
        )


def check_data_path(data: str | None) -> None:
    """Refuse a path that cannot be data, before anything else is done.

    Raises:
        DataError: Nothing is there, or a file; at a URI, anything but a store.
    """
    if data is None:
        return
    if is_uri(data):
        hashes_of(RemoteSource(open_remote(data, "--data")))
        return
    path = Path(data)
    if not path.exists():
        raise DataError(
            f"--data {data} does not exist; expected a folder in the XD-Violence layout or a converted store"
        )
    if is_manifest(path):
        return
    if not path.is_dir():
        raise DataError(
            f"--data {data} is a file; expected a folder in the XD-Violence layout, a converted store, or a manifest "
            f"({' or '.join(SUFFIXES)})"
        )
    if not any(path.iterdir()):
        raise DataError(
            f"--data {data} is an empty folder; expected the XD-Violence layout or a converted store"
        )


def confirmable(trials: object) -> int:
    """How many configurations of a search with so many trials to confirm; of an unknown number as many as of many."""
    return min(CONFIRM, trials) if isinstance(trials, int) else CONFIRM


def _taken_over(options: Options) -> dict[str, Any]:
    """The settings of training and of reading that are options of the same name, where they are given."""
    settings = TrainingSettings.model_fields | Reading.model_fields
    shared = settings.keys() & Options.model_fields.keys()
    return {name: getattr(options, name) for name in shared if getattr(options, name) is not None}


def _find_sweep(options: Options) -> Sweep | None:
    if options.sweep is None:
        return None
    sweep = find_sweep(options.sweep)
    for flag, value in (
        ("--trials", options.trials),
        ("--sampler", options.sampler),
        ("--enqueue", options.enqueue),
        ("--search-seed", options.search_seed),
        ("--confirm", options.confirm),
        ("--confirm-seeds", options.confirm_seeds),
        ("--space", options.space),
        ("--search", options.search),
    ):
        if value is not None:
            raise UsageError(
                f"{flag} belongs to a search; --sweep {sweep.name} trains each of its {len(sweep.rows)} rows"
            )
    fixed = [f"--{name.replace('_', '-')}" for name in sweep.swept if name in options.hyperparameters]
    if fixed:
        raise UsageError(f"{', '.join(fixed)} cannot be given with --sweep {sweep.name}: its rows set it")
    return sweep


def _given_split(options: Options, protocol: RunProtocol) -> Split | None:
    """The held-out split of --split; whether it fits the data is seen when they are read.

    Raises:
        UsageError: The protocol holds nothing out; or an option that makes a split is given too.
        DataError: The file cannot be read.
    """
    makers = (("--split-seed", options.split_seed), ("--split-by", options.split_by))
    for flag, value in (*makers, ("--split", options.split)):
        if value is not None and protocol != "heldout":
            raise UsageError(
                f"{flag} belongs to --protocol heldout; {protocol} trains on all training videos"
            )
    if options.split is None:
        return None
    for flag, value in makers:
        if value is not None:
            raise UsageError(f"{flag} makes a split, and --split {options.split} is one; give one of the two")
    try:
        return Split.load(options.split)
    except DataError as error:
        raise DataError(f"--split: {error.message}", error.problems) from None


def _split_notes(options: Options, split: Split | None) -> list[str]:
    if split is None:
        return []
    videos = plural(len(split.heldout), "video")
    return [
        f"--split {options.split}: {videos} held out, {len(split.train)} trained on (hash {split.hash[:8]})"
    ]


def _planned_rows(base: TrialConfig, sweep: Sweep) -> tuple[PlannedRow, ...]:
    """The rows, each with the one that it is trained as; every one is a configuration together with `base`."""
    for row in sweep.rows:
        try:
            compose_config(base, {"row": {"changes": row.changes}})
        except ConfigError as error:
            raise UsageError(f"--sweep {sweep.name}, row {row.name}: {error}") from None
    return planned_rows(base, sweep.rows)


def _enqueued(
    options: Options, base: TrialConfig, space: Space, first: Mapping[str, Scalar], trials: int
) -> tuple[tuple[dict[str, Scalar], ...], list[str]]:
    """The known points that are tried after the first, each once, and a note on those that are left out."""
    if options.enqueue is None:
        return (), []
    given = read_points(options.enqueue, base, space)
    points: list[dict[str, Scalar]] = []
    for point in given:
        # Of two parts of configurations each may be completed otherwise.
        if not (is_whole(space, point) and point in (first, *points)):
            points.append(point)
    most = trials - bool(first)
    if len(points) > most:
        raise UsageError(
            f"--enqueue {options.enqueue}: {len(points)} points and the paper's setting are more than the "
            f"{trials} trials; give --trials {len(points) + trials - most}, or fewer points"
        )
    left = len(given) - len(points)
    note = (
        f"--enqueue: {plural(left, 'point')} that the paper's setting or an earlier point is too, tried once"
    )
    return tuple(points), [note] if left else []


def _confirm(
    options: Options, sweep: Sweep | None, trials: int, seeds: tuple[int, ...]
) -> PlannedConfirmation | None:
    """How many configurations are confirmed, and with which seeds: none that the run trains with otherwise."""
    if options.confirm is None:
        if options.confirm_seeds is not None:
            raise UsageError("--confirm-seeds belongs to --confirm; give both, or neither")
        return None
    if sweep is not None:
        return None
    confirm = _at_least_one("--confirm", options.confirm, 1)
    if confirm > trials:
        raise UsageError(f"--confirm {confirm} is more than the {trials} configurations that are searched")
    count = _at_least_one("--confirm-seeds", options.confirm_seeds, _CONFIRM_SEEDS)
    return PlannedConfirmation(configurations=confirm, seeds=fresh_seeds(seeds, count))


def fresh_seeds(taken: Collection[int], count: int) -> tuple[int, ...]:
    """Seeds for a confirmation, above all that are taken.

    Raises:
        UsageError: There are not as many.
    """
    first = (max(taken) // _FRESH + 1) * _FRESH
    if first + count - 1 > _LAST_SEED:
        raise UsageError(f"--confirm: no {count} seeds are left above {max(taken)}; give a smaller --seed")
    return tuple(range(first, first + count))


def _resources(options: Options, machine: Machine | None, trials: int) -> tuple[float, float]:
    gpus = options.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if machine and machine.gpus else 0.0
    cpus = options.cpus_per_trial
    if cpus is None:
        # All processors, whatever their number: shared between GPUs, or between the trials that run at once.
        at_once = min(machine.gpus / gpus if machine and gpus else trials, options.concurrent or trials)
        cpus = float(max(1, int(machine.cpus // max(1.0, at_once)))) if machine else 1.0
    if not _LEAST_SHARE <= cpus <= MOST:
        raise UsageError(
            f"--cpus-per-trial {cpus:g} is not allowed: expected a number from {_LEAST_SHARE:.4f} to {MOST}"
        )
    if not (gpus == 0 or _LEAST_SHARE <= gpus <= MOST) or (gpus > 1 and gpus != int(gpus)):
        raise UsageError(
            f"--gpus-per-trial {gpus:g} is not allowed: expected 0, a fraction of one from {_LEAST_SHARE:.4f} on, or a "
            "whole number"
        )
    return cpus, gpus


def _refit_cpus(options: Options, machine: Machine | None, cpus: float, gpus: float, seeds: int) -> float:
    """The CPUs free after the trials: all of this machine, shared between the seeds."""
    if machine is None or gpus or options.cpus_per_trial is not None:
        return cpus
    return float(max(1, machine.cpus // seeds))


def _concurrent(options: Options, machine: Machine | None, cpus: float, gpus: float, trials: int) -> int:
    most = trials
    if machine is not None:
        most = min(most, max(1, int(machine.cpus / cpus)), max(1, int(machine.gpus / gpus)) if gpus else most)
    return min(_at_least_one("--concurrent", options.concurrent, most), trials)


def _timeout(given: float | None) -> float:
    timeout = _TRIAL_TIMEOUT if given is None else given
    if not 0 < timeout < math.inf:
        raise UsageError(f"--trial-timeout {timeout:g}: expected a number of seconds, more than 0")
    return timeout


def _grace(options: Options, base: TrialConfig) -> int:
    grace = _at_least_one("--grace", options.grace, _usual_grace(base.epochs))
    if grace > base.epochs:
        raise UsageError(f"--grace {grace} is more than the {base.epochs} epochs of a trial")
    return grace


def _usual_grace(epochs: int) -> int:
    return min(_GRACE, max(1, epochs // 2))


def _at_least_one(flag: str, value: int | None, default: int) -> int:
    # A plan lists every seed and trial: it must fit memory.
    if value is not None and not 1 <= value <= MOST:
        raise UsageError(f"{flag} {brief(value)} is not allowed: expected a whole number from 1 to {MOST}")
    return default if value is None else value


def _seed(flag: str, value: int | None) -> int:
    if value is not None and not 0 <= value <= _LAST_SEED:
        raise UsageError(
            f"{flag} {brief(value)} is not allowed: expected a whole number from 0 to {_LAST_SEED}"
        )
    return value or 0
