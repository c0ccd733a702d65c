"""From options to a run: planned, given a folder, locked, run to its end. Command line and Python begin a run here."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from rich.console import Console

from macil.errors import UsageError
from macil.io.remote import is_uri
from macil.io.wording import now_in_name
from tune.execution.continuing import end_trials, extend, take_up
from tune.execution.pipeline import begin, run_to_end
from tune.execution.session import machine_at_hand, quietly
from tune.planning.earlier import flags_of_earlier_version, plan_of_earlier_version
from tune.planning.options import Options
from tune.planning.plan import Plan, read_plan
from tune.planning.resolve import check_data_path, check_resources, resolve_plan, with_timeout
from tune.storage.decisions import read_decisions, trials_ended
from tune.storage.run_file import Scalar
from tune.storage.run_folder import Workspace, existing_workspace, locked, new_workspace

# What a resumed run may be given anew: no number depends on it, or it is written down as a decision.
_CHANGEABLE = ("--trial-timeout", "--trials")
# A year.
_MOST_HOURS = 8784.0


class RunTarget(BaseModel):
    """Where a run lies, which Ray runs it and until when: options that are no part of the plan.

    Attributes:
        name: Of a new run; None is its kind and the time.
        storage: Folder or URI of the runs.
        resume: The run to go on with: a name in the storage, a path or a URI.
        finish: Begin no more trials of that run; end it with what there is.
        hours: End the trials in time for what follows them, so that all takes about so long; None is no limit.
        overwrite: Replace a run of the same name.
        address: Ray cluster, as for `ray.init`; None is this machine alone.
        shared_storage: Every host of the cluster sees the folder `storage` under the same path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str | None = None
    storage: str = "./runs"
    resume: str | None = None
    finish: bool = False
    hours: float | None = None
    overwrite: bool = False
    address: str | None = None
    shared_storage: bool = False


@dataclass(frozen=True)
class Launch:
    """A run that can begin, or go on: nothing of it is written yet.

    Attributes:
        run: Its folder.
        plan: What it does.
        given: The options without any default.
        target: Where, and on which Ray.
    """

    run: Workspace
    plan: Plan
    given: Options
    target: RunTarget

    def go(
        self, console: Console, *, report: bool = True, debug: bool = False, own_process: bool = True
    ) -> int:
        """Run it to its end, with nobody else in its folder.

        Args:
            console: Where to say how it goes.
            report: Write the report.
            debug: Show the messages of Ray and Tune.
            own_process: The process is there for this run alone: a second signal ends it at once.

        Returns:
            The exit status, see `tune.execution.pipeline.run_to_end`.

        Raises:
            UsageError: The run is in use; or this is no main thread, where Ctrl-C would not be heard.
        """
        if threading.current_thread() is not threading.main_thread():
            raise UsageError(
                "a run handles Ctrl-C, which Python allows in a main thread alone; start it from there, or in a "
                "process of its own"
            )
        with quietly(), locked(self.run):
            plan = self.plan
            if self.target.resume is None:
                begin(self.run, plan, self.given)
            else:
                plan = _go_on(self.run, plan, self.given.trials, finish=self.target.finish)
            return run_to_end(
                self.run,
                plan,
                console,
                self.target.address,
                report=report,
                hours=self.target.hours,
                debug=debug,
                own_process=own_process,
                fresh=self.target.resume is None,
            )


def prepare(given: Options, target: RunTarget) -> Launch:
    """Check everything that can be checked without data and without Ray, and name the run's folder.

    Raises:
        UsageError: Options that contradict one another or ask for the impossible; a name that is taken.
        DataError: Nothing that can be data is there; the plan of a run to resume cannot be read.
    """
    if target.resume is None:
        check_data_path(given.data)
    plan, run = planned(given, target)
    if target.address is None:
        check_resources(plan, machine_at_hand(), "this machine")
    if run is None:
        name = target.name or f"{plan.sweep or 'search'}-{now_in_name()}"
        run = new_workspace(target.storage, name, overwrite=target.overwrite)
    return Launch(run, plan, given, target)


def planned(given: Options, target: RunTarget) -> tuple[Plan, Workspace | None]:
    """The plan, and the run that it was recorded in if one is to be resumed.

    Raises:
        UsageError: Options that contradict one another; one that differs from how the run was begun.
        DataError: A recorded plan cannot be read.
    """
    _check_storage(target)
    _check_ending(target, given.trials)
    if target.resume is None:
        return resolve_plan(given, machine_at_hand() if target.address is None else None), None
    if target.name or target.overwrite:
        raise UsageError("--resume continues a run; leave out --name and --overwrite")
    run = existing_workspace(target.storage, target.resume)
    return _recorded_plan(run, given), run


def _go_on(run: Workspace, plan: Plan, trials: int | None, *, finish: bool) -> Plan:
    """The plan of a run that is resumed, after what is decided of it now."""
    plan = take_up(run, plan)
    if trials is not None and (trials != plan.trials or trials_ended(read_decisions(run.path))):
        plan = extend(run, plan, trials)
    if finish:
        end_trials(run)
    return plan


def _check_ending(target: RunTarget, trials: int | None) -> None:
    if target.finish and target.resume is None:
        raise UsageError("--finish ends a run that was begun; give --resume NAME too")
    if target.finish and (trials is not None or target.hours is not None):
        raise UsageError("--finish begins no more trials; leave out --trials and --hours")
    if target.hours is not None and not 0 < target.hours <= _MOST_HOURS:
        raise UsageError(
            f"--hours {target.hours:g} is not allowed: expected a number above 0, at most {_MOST_HOURS:g}"
        )


def _check_storage(target: RunTarget) -> None:
    if target.address is None and target.shared_storage:
        raise UsageError(
            "--shared-storage is about the hosts of a cluster; give --address too, or leave it out"
        )
    if (
        target.address is not None
        and not target.shared_storage
        and not is_uri(target.storage)
        and not is_uri(target.resume)
    ):
        raise UsageError(
            f"--storage {target.storage}: the hosts of the cluster at {target.address} write into it too. Give a URI "
            "such as s3://bucket/runs, or add --shared-storage if every host sees that folder under the same path"
        )


def _recorded_plan(run: Workspace, given: Options) -> Plan:
    """The plan that a resumed run goes on with.

    Raises:
        UsageError: A flag that differs from how the run was begun; a run that cannot go on.
        DataError: The plan cannot be read.
    """
    info, plan = run.info, read_plan(run.path)
    known = info.given or {}
    if plan is None:
        plan = plan_of_earlier_version(run.path, info.options)
        known = known | flags_of_earlier_version(info.options)
    _refuse_other_flags(given, {**known, **plan.flags()})
    return with_timeout(plan, given.trial_timeout)


def _refuse_other_flags(given: Options, known: Mapping[str, Scalar]) -> None:
    for flag, value in given.flags().items():
        if flag in _CHANGEABLE:
            continue
        if known.get(flag) != value:
            was = f"was begun with {known[flag]}" if flag in known else "was begun without it"
            raise UsageError(
                f"{flag} {value} cannot be changed by --resume: the run {was}; leave the flag out, or begin a new run"
            )
