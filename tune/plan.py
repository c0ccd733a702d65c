"""What a run will do, resolved once from the command line; nothing later reads options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from macil.config import TrialConfig
from macil.data.staging import RemoteSource, hashes_of
from macil.errors import ConfigError, DataError, UsageError
from macil.protocols import EpochRule, epoch_rule
from macil.remote import is_uri, open_remote
from macil.training import KeptScores
from tune.algorithms.stopping.asha import REDUCTION, rung_epochs
from tune.equalrows import equal_rows
from tune.machine import Machine
from tune.plannotes import plan_notes
from tune.space import Space, describe, published_point, search_space
from tune.sweepfile import find_sweep, parse_sweep, sweep_content
from tune.sweeps import SWEEPS, Row, Sweep

RunProtocol = Literal["heldout", "published"]
# Enough for the demo to end in minutes; a real search gets the published number of epochs.
_DEMO_TRIALS, _TRIALS, _EPOCHS = 10, 40, 50
# The demo has 400 training bags, not 19,770: at the published 128 an epoch would be three steps.
_DEMO_START = {"epochs": 20, "batch_size": 16}
# The paper's Λ is reached after 1.5 / 0.1 epochs: nothing is compared before, of 50 epochs; of fewer, in proportion.
_GRACE = 15
_FEWEST_FOR_ASHA = 4
# Configurations that are confirmed unless a number is given, and trainings of each.
CONFIRM, _CONFIRM_SEEDS = 3, 5
# Seconds without a report after which a trial is taken to hang: longer than any epoch.
TRIAL_TIMEOUT = 3600.0
# Confirmation seeds begin at the next multiple of this above the seeds of the run.
_FRESH = 1000
_MOST = 100_000  # trials, or seeds: more than anybody trains
_LAST_SEED = 2**31 - 1


@dataclass(frozen=True)
class Options:
    """The command line as given; None where the default applies. After `resolve`, as recorded in `run.json`."""

    data: str | None = None
    sweep: str | None = None
    seeds: int | None = None
    trials: int | None = None
    protocol: RunProtocol | None = None
    asha: bool | None = None
    grace: int | None = None
    confirm: int | None = None
    confirm_seeds: int | None = None
    keep_scores: KeptScores | None = None
    search_seed: int | None = None
    split_seed: int | None = None
    concurrent: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    trial_timeout: float | None = None
    refit_cpus: float | None = None  # no flag: recorded, since digits depend on threads
    sweep_rows: Mapping[str, Any] | None = None  # no flag: what the file of a sweep of one's own said
    rows_apart: bool = (
        False  # no flag: equal rows are trained apart, as a run of an earlier version goes on to do
    )
    preset: str | None = None
    config_file: str | None = None
    base: Mapping[str, Any] | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def flags(self) -> dict[str, Any]:
        """Flag as typed -> value, of those that are set."""
        hidden = ("hyperparameters", "base", "refit_cpus", "sweep_rows", "rows_apart")
        own = {
            name: value for name, value in asdict(self).items() if name not in hidden and value is not None
        }
        own |= self.hyperparameters
        return {f"--{name.removesuffix('_file').replace('_', '-')}": value for name, value in own.items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Options:
        """Read back what `asdict` gave; what an earlier version did not record is as that one had it."""
        return cls(**{"rows_apart": True, **content})


@dataclass(frozen=True)
class Plan:
    """A run: what is trained, steered and measured how, with which resources."""

    options: Options
    base: TrialConfig
    sweep: Sweep | None
    trained: Mapping[str, str]
    """Row of the sweep -> the row whose trainings are its own: itself, or an earlier one that is the same training."""
    space: Space
    first: Mapping[str, Any]
    trials: int
    seeds: tuple[int, ...]
    protocol: RunProtocol
    grace: int | None
    confirm: int
    confirm_seeds: tuple[int, ...]
    keep_scores: KeptScores
    trial_timeout: float
    cpus_per_trial: float
    gpus_per_trial: float
    concurrent: int
    refit_cpus: float
    lockstep: bool
    notes: tuple[str, ...]

    @property
    def groups_of_seeds(self) -> int:
        """Trials of Tune that train all seeds of one configuration."""
        return 1 if self.lockstep else len(self.seeds)

    @property
    def confirm_together(self) -> bool:
        """Whether the confirmation trains a configuration's seeds as one trial."""
        return len(self.confirm_seeds) > 1 and (self.lockstep or self.gpus_per_trial > 0)

    @property
    def tune_trials(self) -> int:
        """Trials of Tune; a lockstep group is one."""
        return len(self.trained_rows) * self.groups_of_seeds if self.sweep else self.trials

    @property
    def trained_rows(self) -> list[Row]:
        """The rows of the sweep that are trained: one of those that are the same training."""
        return [row for row in self.sweep.rows if self.trained[row.name] == row.name] if self.sweep else []

    @property
    def epoch_rule(self) -> EpochRule:
        """The epoch whose AP is the headline."""
        return epoch_rule(self.protocol)

    @property
    def threads(self) -> int:
        """CPU threads of a trial."""
        return max(1, int(self.cpus_per_trial))

    @property
    def refit_threads(self) -> int:
        """CPU threads of the winner's refit, which runs when the trials are done."""
        return max(1, int(self.refit_cpus))

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """Where trials train."""
        return "cuda" if self.gpus_per_trial > 0 else "cpu"

    @property
    def rungs(self) -> list[int]:
        """Epochs at which ASHA compares trials."""
        return rung_epochs(self.grace or self.base.epochs, self.base.epochs)

    @property
    def refits(self) -> bool:
        """Whether the winner is trained again on all training videos."""
        return self.sweep is None and self.protocol == "heldout"

    @property
    def startup(self) -> int:
        """Random suggestions before the model of the scores is used: a third of the trials, 3 to 10."""
        return min(10, max(3, self.trials // 3))

    @property
    def epochs_by_kind(self) -> dict[str, int]:
        """Epochs if nothing is stopped early, by the kind of the training (see `tune.counts`)."""
        refits = len(self.seeds) if self.refits else 0
        confirmed = (self.confirm + 1) * len(self.confirm_seeds) if self.confirm else 0
        trainings = {"search": self.trials, "confirm": confirmed, "refit": refits}
        return {kind: number * self.base.epochs for kind, number in trainings.items()}

    @property
    def most_epochs(self) -> int:
        """Epochs in all if nothing is stopped early."""
        return sum(self.epochs_by_kind.values())

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-able values, for `plan.json`."""
        return {
            "kind": "sweep" if self.sweep else "search",
            "data": self.options.data,
            "protocol": self.protocol,
            "epoch_rule": self.epoch_rule,
            "metric": "selection_score",
            "trials": self.trials,
            "seeds": list(self.seeds),
            "search_seed": self.options.search_seed,
            "split_seed": self.options.split_seed,
            "base": self.base.to_dict(),
            "fixed": dict(self.options.hyperparameters),
            "space": describe(self.space),
            "first": dict(self.first),
            "sweep": self.sweep and self.sweep.name,
            "rows": [
                {
                    "name": row.name,
                    "changes": dict(row.changes),
                    "published_ap": row.published_ap,
                    "source": row.source,
                    "trained_as": self.trained[row.name],
                }
                for row in (self.sweep.rows if self.sweep else ())
            ],
            "title": self.sweep and self.sweep.title,
            "source": self.sweep and self.sweep.source,
            "reference": self.sweep and self.sweep.reference,
            "asha": None
            if self.grace is None
            else {"grace_period": self.grace, "reduction_factor": REDUCTION},
            "confirm": {"configurations": self.confirm, "seeds": list(self.confirm_seeds)}
            if self.confirm
            else None,
            "keep_scores": self.keep_scores,
            "trial_timeout": self.trial_timeout,
            "cpus_per_trial": self.cpus_per_trial,
            "gpus_per_trial": self.gpus_per_trial,
            "concurrent": self.concurrent,
            "lockstep": self.lockstep,
            "threads": self.threads,
            "refit_threads": self.refit_threads if self.refits else None,
            "device": self.device,
            "refits": self.refits,
            "most_epochs": self.most_epochs,
            "notes": list(self.notes),
        }


def resolve_plan(options: Options, machine: Machine | None) -> Plan:
    """Fill in every default and check what can be checked without data and without Ray.

    Args:
        options: The command line.
        machine: What this machine has; None when a cluster will run the trials.

    Raises:
        UsageError: Options that contradict one another or ask for the impossible.
    """
    demo = options.data is None
    sweep = _find_sweep(options)
    given = dict(options.hyperparameters)
    start = (_DEMO_START if demo else {"epochs": _EPOCHS}) if options.base is None else options.base
    base = TrialConfig(**{**start, **given})
    seeds = tuple(base.seed + offset for offset in range(_at_least_one("--seeds", options.seeds, 1)))
    if sweep:
        space: Space = {}
        _check_rows(base, sweep)
        alike = equal_rows(base, ((row.name, row.changes) for row in sweep.rows))
        trained = {name: name if options.rows_apart else rows[0] for name, rows in alike.items()}
        trials = len(set(trained.values())) * len(seeds)
    else:
        trained = {}
        space = search_space(base, given)
        trials = _at_least_one("--trials", options.trials, _DEMO_TRIALS if demo else _TRIALS)
    asha = (sweep is None and trials >= _FEWEST_FOR_ASHA) if options.asha is None else options.asha
    grace = _grace(options, base) if asha else None
    usual_grace = _usual_grace(_DEMO_START["epochs"] if demo else _EPOCHS)
    confirm, confirm_seeds = _confirm(options, sweep, trials, seeds)
    timeout = TRIAL_TIMEOUT if options.trial_timeout is None else options.trial_timeout
    if not timeout > 0:
        raise UsageError(f"--trial-timeout {timeout:g}: expected seconds, more than 0")
    cpus, gpus = _resources(options, machine, trials)
    # Where it pays (docs/performance.md): on a GPU a configuration's seeds are trained together.
    lockstep = gpus > 0 and len(seeds) > 1
    concurrent = _concurrent(options, machine, cpus, gpus, trials)
    refit_cpus = _refit_cpus(options, machine, cpus, gpus, len(seeds))
    protocol: RunProtocol = options.protocol or ("published" if sweep else "heldout")
    # What the rows of a sweep set is not the command line's, and must not look so on a resume.
    assumed = {name: value for name, value in start.items() if not (sweep and name in sweep.swept)}
    resolved = replace(
        options,
        seeds=len(seeds),
        trials=None if sweep else trials,
        protocol=protocol,
        asha=asha,
        grace=grace,
        confirm=confirm or None,
        confirm_seeds=len(confirm_seeds) or None,
        keep_scores=options.keep_scores or "ends",
        trial_timeout=timeout,
        sweep_rows=sweep_content(sweep) if sweep and sweep.name not in SWEEPS else None,
        search_seed=None if sweep else _from_zero("--search-seed", options.search_seed),
        split_seed=_from_zero("--split-seed", options.split_seed),
        concurrent=concurrent,
        cpus_per_trial=cpus,
        gpus_per_trial=gpus,
        refit_cpus=refit_cpus,
        hyperparameters={**(assumed if options.base is None else {}), **given, "epochs": base.epochs},
    )
    return Plan(
        options=resolved,
        base=base,
        sweep=sweep,
        trained=trained,
        space=space,
        first=published_point(space),
        trials=trials,
        seeds=seeds,
        protocol=protocol,
        grace=grace,
        confirm=confirm,
        confirm_seeds=confirm_seeds,
        keep_scores=options.keep_scores or "ends",
        trial_timeout=timeout,
        cpus_per_trial=cpus,
        gpus_per_trial=gpus,
        concurrent=concurrent,
        refit_cpus=refit_cpus,
        lockstep=lockstep,
        notes=tuple(plan_notes(base, space, sweep, grace, usual_grace, trials, len(seeds), protocol)),
    )


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


def _refit_cpus(options: Options, machine: Machine | None, cpus: float, gpus: float, seeds: int) -> float:
    """What the trials left free: all CPUs of this machine, shared between the seeds."""
    if options.refit_cpus is not None:
        return options.refit_cpus
    if machine is None or gpus or options.cpus_per_trial is not None:
        return cpus
    return float(max(1, machine.cpus // seeds))


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
    if not path.is_dir():
        raise DataError(
            f"--data {data} is a file; expected a folder in the XD-Violence layout or a converted store"
        )
    if not any(path.iterdir()):
        raise DataError(
            f"--data {data} is an empty folder; expected the XD-Violence layout or a converted store"
        )


def _find_sweep(options: Options) -> Sweep | None:
    if options.sweep is None:
        return None
    if options.sweep_rows is not None:  # a recorded run: the file may have gone
        name = str(options.sweep_rows["name"])
        sweep = parse_sweep(options.sweep_rows, options.sweep, name)
    else:
        sweep = find_sweep(options.sweep)
    for flag, value in (
        ("--trials", options.trials),
        ("--search-seed", options.search_seed),
        ("--confirm", options.confirm),
        ("--confirm-seeds", options.confirm_seeds),
    ):
        if value is not None:
            raise UsageError(
                f"{flag} belongs to a search; --sweep {sweep.name} trains each of its {len(sweep.rows)} rows"
            )
    if options.grace is not None and not options.asha:
        raise UsageError(
            f"--grace belongs to ASHA; --sweep {sweep.name} trains every row to its end without --asha"
        )
    fixed = [f"--{name.replace('_', '-')}" for name in sweep.swept if name in options.hyperparameters]
    if fixed:
        raise UsageError(f"{', '.join(fixed)} cannot be given with --sweep {sweep.name}: its rows set it")
    return sweep


def _check_rows(base: TrialConfig, sweep: Sweep) -> None:
    """Every row must be a configuration, together with what the command line sets."""
    for row in sweep.rows:
        try:
            base.replace(**row.changes)
        except ConfigError as error:
            raise UsageError(f"--sweep {sweep.name}, row {row.name}: {error}") from None


def confirmable(trials: object) -> int:
    """How many configurations of a search with so many trials to confirm; of an unknown number as many as of many."""
    return min(CONFIRM, trials) if isinstance(trials, int) else CONFIRM


def _confirm(
    options: Options, sweep: Sweep | None, trials: int, seeds: tuple[int, ...]
) -> tuple[int, tuple[int, ...]]:
    """How many configurations are confirmed, and with which seeds: none that the run trains with otherwise."""
    if options.confirm is None:
        if options.confirm_seeds is not None:
            raise UsageError("--confirm-seeds belongs to --confirm; give both, or neither")
        return 0, ()
    if sweep is not None:
        return 0, ()
    confirm = _at_least_one("--confirm", options.confirm, 1)
    if confirm > trials:
        raise UsageError(f"--confirm {confirm} is more than the {trials} configurations that are searched")
    count = _at_least_one("--confirm-seeds", options.confirm_seeds, _CONFIRM_SEEDS)
    first = (max(seeds) // _FRESH + 1) * _FRESH
    if first + count - 1 > _LAST_SEED:
        raise UsageError(f"--confirm: no {count} seeds are left above {max(seeds)}; give a smaller --seed")
    return confirm, tuple(range(first, first + count))


def _resources(options: Options, machine: Machine | None, trials: int) -> tuple[float, float]:
    gpus = options.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if machine and machine.gpus else 0.0
    cpus = options.cpus_per_trial
    if cpus is None:
        # All processors, whatever their number: shared between GPUs, or between as many trials as there are.
        at_once = machine.gpus / gpus if machine and gpus else trials
        cpus = float(max(1, int(machine.cpus // max(1.0, at_once)))) if machine else 1.0
    if not 0 < cpus < math.inf:
        raise UsageError(f"--cpus-per-trial {cpus:g} is not allowed: expected more than 0")
    if not 0 <= gpus < math.inf or (gpus > 1 and gpus != int(gpus)):
        raise UsageError(
            f"--gpus-per-trial {gpus:g} is not allowed: expected a fraction of one, or a whole number"
        )
    return cpus, gpus


def _concurrent(options: Options, machine: Machine | None, cpus: float, gpus: float, trials: int) -> int:
    most = trials
    if machine is not None:
        most = min(most, max(1, int(machine.cpus / cpus)), max(1, int(machine.gpus / gpus)) if gpus else most)
    return min(_at_least_one("--concurrent", options.concurrent, most), trials)


def _grace(options: Options, base: TrialConfig) -> int:
    grace = _at_least_one("--grace", options.grace, _usual_grace(base.epochs))
    if grace > base.epochs:
        raise UsageError(f"--grace {grace} is more than the {base.epochs} epochs of a trial")
    return grace


def _usual_grace(epochs: int) -> int:
    return min(_GRACE, max(1, epochs // 2))


def _at_least_one(flag: str, value: int | None, default: int) -> int:
    # A plan lists every seed and trial: it must fit memory.
    if value is not None and not 1 <= value <= _MOST:
        raise UsageError(f"{flag} {value} is not allowed: expected a whole number from 1 to {_MOST}")
    return default if value is None else value


def _from_zero(flag: str, value: int | None) -> int:
    if value is not None and value < 0:
        raise UsageError(f"{flag} {value} is not allowed: expected a whole number from 0")
    return value or 0
