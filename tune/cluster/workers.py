"""A cluster's workers: waiting for them, asking its autoscaler for them, and saying which trial runs where.

`ray up` returns before there are workers, and an autoscaler starts some only when work waits for them. Tune lets one
trial wait at a time, so that a cluster would grow by one worker in the time that a machine takes to start. So this
module lets tasks wait that do nothing: one for each trial that could run at once and has no room yet. Ray's other way,
`request_resources`, is a floor that stays until somebody takes it away, after a killed search for ever; a task that
waits ends with its search, however that ends.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune.experiment import Trial

from macil.errors import UsageError
from macil.io.wording import clock, plural
from tune.execution.ray_internals import (
    GetClusterStatusReply,
    actor_number,
    autoscaler_report,
    cluster_status,
    log_subscriber,
    node_of_actor,
    printing_without,
)
from tune.planning.plan import Plan

# Seconds to wait for workers before the search gives up; another number by this variable.
WAIT_VARIABLE = "MACIL_WORKERS_PATIENCE"
# Of hosts that somebody owns. A provider's machines may be sold out for hours: for those it waits on.
_WAIT_SECONDS = 600.0
_POLL = 1.0
_REMIND = 30.0  # seconds between two messages while it waits
_LOOK = 5.0  # seconds between two looks at the cluster while trials run
_NEWS = 10.0  # seconds between two messages that it has grown or shrunk
_MOST_ASKED = 1000  # what Ray's autoscaler takes in at a time
# Seconds for which an autoscaler must have reported that no worker type can hold a trial.
_CERTAIN = 3.0
_RPC = 10.0
_IMPOSSIBLE = re.compile(r"No available node types can fulfill resource requests? (\{[^{}]*\})")
# Name of the node type of a cluster file of `type: local`.
_LISTED = "local.cluster.node"
# Ray's word about tasks that wait for a node of their size, which is what they are there for.
_NOISE = "infeasible resource requests"

Log = Callable[[str], None]


@dataclass(frozen=True)
class TrialResources:
    """The CPUs and GPUs that one trial takes of a host."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return " and ".join([plural(self.cpus, "CPU"), *([plural(self.gpus, "GPU")] if self.gpus else [])])

    @property
    def bundle(self) -> dict[str, float]:
        """The resources as Ray writes them."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


@dataclass(frozen=True)
class Needs:
    """The resources that a search needs.

    Attributes:
        trial: Of each trial.
        concurrent: Trials at once, at most.
        total: Trials altogether.
        refit: Of the winner's refit, None without one.
    """

    trial: TrialResources
    concurrent: int
    total: int
    refit: TrialResources | None = None

    @property
    def distinct_resources(self) -> list[TrialResources]:
        """The different resources of trial and refit; each must find a host."""
        return list(dict.fromkeys([self.trial, *([self.refit] if self.refit else [])]))

    @classmethod
    def of(cls, plan: Plan) -> Needs:
        """The resources that a plan needs."""
        trial = TrialResources(plan.cpus_per_trial, plan.gpus_per_trial)
        refit = TrialResources(plan.refit_cpus, plan.gpus_per_trial) if plan.refits else None
        return cls(trial, min(plan.concurrent, plan.tune_trials), plan.tune_trials, refit)


@dataclass(frozen=True)
class Host:
    """One of the cluster's live nodes.

    Attributes:
        node: Its number in Ray.
        name: Its host's name; with the end of `node` where several nodes have the same one.
    """

    node: str
    name: str
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.name}: {plural(self.cpus, 'CPU')}, {plural(self.gpus, 'GPU')}"

    def slots(self, resources: TrialResources) -> int:
        """How many trials it can hold."""
        most = [self.cpus // resources.cpus if resources.cpus else float(_MOST_ASKED)]
        most += [self.gpus // resources.gpus] if resources.gpus else []
        return int(min(most))


def hosts_now() -> list[Host]:
    """The live nodes, those without CPUs among them."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    names = Counter(node["NodeManagerHostname"] for node in nodes)
    hosts = []
    for node in nodes:
        name, resources = str(node["NodeManagerHostname"]), node["Resources"]
        if names[name] > 1:
            name = f"{name}#{node['NodeID'][-4:]}"
        cpus, gpus = float(resources.get("CPU", 0)), float(resources.get("GPU", 0))
        hosts.append(Host(node["NodeID"], name, cpus, gpus))
    return sorted(hosts, key=lambda host: host.name)


@dataclass(frozen=True)
class Autoscaler:
    """The state of the cluster's autoscaler.

    Attributes:
        there: Whether there is one that can start workers; None while that is not known.
        starting: Node type -> nodes on their way.
        trouble: Why some cannot be started at present.
        impossible: Requests that nothing it has can hold, counted by their bundle; of Ray's second autoscaler only.
        fixed: Whether it only starts Ray on hosts that a file lists, whose size it learns when they have joined.
    """

    there: bool | None = None
    starting: Mapping[str, int] | None = None
    trouble: tuple[str, ...] = ()
    impossible: Mapping[frozenset[tuple[str, float]], int] | None = None
    fixed: bool = False


def ask_autoscaler() -> Autoscaler:
    """Ask Ray's control service for the autoscaler: for the first kind by its key, for the second by its state."""
    status = autoscaler_report()
    return _first_autoscaler(status) if status else _second_autoscaler(cluster_status(_RPC))


def _first_autoscaler(status: bytes) -> Autoscaler:
    report = _read_report(status)
    types = (report.get("node_type_mapping") or {}).values()
    if not types:
        return Autoscaler()
    # A cluster put together by hand has one, too: it mirrors every node as a type of its own, and starts nothing.
    if all(re.fullmatch(r"node_[0-9a-f]{20,}", str(name)) for name in types):
        return Autoscaler(there=False)
    starting = Counter(report.get("pending_launches") or {})
    starting.update(str(node[1]) for node in report.get("pending_nodes") or [])
    availability = (report.get("node_availability_summary") or {}).get("node_availabilities") or {}
    trouble = []
    for name, state in availability.items():
        reason = (state or {}).get("unavailable_node_information")
        if reason:
            text = reason.get("description") or reason.get("category")
            trouble.append(f"{name}: {' '.join(str(text).split())[:200]}")
    failed = Counter(str(node[1]) for node in report.get("failed_nodes") or [])
    trouble += [f"{count} {name} failed" for name, count in failed.items()]
    return Autoscaler(True, dict(starting), tuple(trouble), fixed=_LISTED in types)


def _read_report(status: bytes) -> dict[str, Any]:
    try:
        report = json.loads(status).get("autoscaler_report")
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def _second_autoscaler(reply: GetClusterStatusReply) -> Autoscaler:
    state = reply.autoscaling_state
    if not state.autoscaler_state_version:
        return Autoscaler()
    types = {node.ray_node_type_name for node in reply.cluster_resource_state.node_states} - {""}
    if not types:
        return Autoscaler(there=False)
    starting = Counter(node.ray_node_type_name for node in state.pending_instances)
    for request in state.pending_instance_requests:
        starting[request.ray_node_type_name] += request.count
    trouble = {
        f"{request.ray_node_type_name}: {' '.join(request.reason.split())[:200]}"
        for request in state.failed_instance_requests
    }
    impossible = Counter(
        frozenset(request.resources_bundle.items()) for request in state.infeasible_resource_requests
    )
    return Autoscaler(True, dict(starting), tuple(sorted(trouble)), impossible, _LISTED in types)


class Cluster:
    """The cluster that a search has joined; see `joined`.

    Args:
        address: As given, for messages.
        log: Called with each message about what it waits for.
        check: Called while it waits; raises when the search is to stop.

    Attributes:
        short: Whether no live host can hold a trial now.
    """

    def __init__(self, address: str, needs: Needs, log: Log, check: Callable[[], None]) -> None:
        self.short = False
        self._address = address
        self._needs = needs
        self._log = log
        self._check = check
        self._waiting: dict[TrialResources, list[Any]] = {}
        self._scales: bool | None = None  # whether there is an autoscaler, None while that is not known
        self._looked = self._room_logged = 0.0
        self._last_room = ""
        self._names: dict[str, str] = {}
        self._of_actor: dict[str, str] = {}

    def wait_for_room(self) -> None:
        """Wait until the resources of every kind of trial fit a host, and log the hosts.

        Raises:
            UsageError: They cannot fit, or have not within the seconds of `MACIL_WORKERS_PATIENCE`.
        """
        began = last_logged = time.monotonic()
        first = True
        autoscaler_log = _AutoscalerLog()
        impossible_since: float | None = None
        with contextlib.closing(autoscaler_log):
            while True:
                hosts = hosts_now()
                missing = [
                    resources
                    for resources in self._needs.distinct_resources
                    if not any(host.slots(resources) for host in hosts)
                ]
                scaler = ask_autoscaler()
                self._scales = scaler.there
                if self._scales:
                    self._ask(hosts, self._needs.concurrent, missing)
                if not missing:
                    break
                now = time.monotonic()
                if self._is_impossible(missing, scaler, autoscaler_log):
                    impossible_since = now if impossible_since is None else impossible_since
                    if now - impossible_since >= _CERTAIN:
                        raise UsageError(self._refusal(missing, hosts, now - began, impossible=True))
                else:
                    impossible_since = None
                limit = _wait_limit(scaler)
                if limit is not None and now - began >= limit:
                    raise UsageError(self._refusal(missing, hosts, now - began, impossible=False))
                if first or now - last_logged >= _REMIND:
                    self._log(self._waits(missing, hosts, scaler, 0.0 if first else now - began))
                    first, last_logged = False, now
                self._check()
                time.sleep(_POLL)
        self._check()
        self._log_room(hosts, time.monotonic() - began if not first else 0.0)

    def tick(self, left: int) -> None:
        """Ask the autoscaler for what the trials that are left need, no more; cheap, for every step.

        Args:
            left: Trials that have not ended.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        with contextlib.suppress(RayError):  # a head that does not answer is noticed elsewhere
            self._look(left, now)

    def _look(self, left: int, now: float) -> None:
        hosts = hosts_now()
        self._names |= {host.node: host.name for host in hosts}
        self.short = left > 0 and not any(host.slots(self._needs.trial) for host in hosts)
        if self._scales is None:
            self._scales = ask_autoscaler().there
        if self._scales:
            self._ask(hosts, min(left, self._needs.concurrent), [])
        if left > 0 and now - self._room_logged >= _NEWS:
            self._log_room(hosts)

    def withdraw(self) -> None:
        """Ask for nothing any more."""
        for resources in list(self._waiting):
            self._let_wait(resources, 0)

    def host_of(self, trial: Trial) -> str:
        """The name of the host that a trial's worker is on, "" where that is not known."""
        actor = trial.temporary_state.ray_actor
        if actor is None:
            return ""
        number = actor_number(actor)
        if number not in self._of_actor:
            with contextlib.suppress(RayError):
                node = node_of_actor(number)
                if node not in self._names:
                    self._names |= {host.node: host.name for host in hosts_now()}
                if node in self._names:
                    self._of_actor[number] = self._names[node]
        return self._of_actor.get(number, "")

    def _ask(self, hosts: list[Host], at_once: int, missing: list[TrialResources]) -> None:
        """Let as many tasks wait as trials could run at once and have no room; totals count as room, free or not."""
        trial = self._needs.trial
        room = sum(host.slots(trial) for host in hosts)
        for resources in self._needs.distinct_resources:
            least = 1 if resources in missing else 0
            wanted = at_once - room if resources == trial else 0
            self._let_wait(resources, min(max(least, wanted), _MOST_ASKED))

    def _let_wait(self, resources: TrialResources, count: int) -> None:
        waiting = self._waiting.get(resources, [])
        if waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for task in waiting[count:]:
            ray.cancel(task)
        # Without a name that the worker would have to import.
        nothing = ray.remote(lambda: None).options(
            num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=0, name="room for a trial"
        )
        more = [nothing.remote() for _ in range(count - len(waiting))]
        self._waiting[resources] = [*waiting[:count], *more]

    def _is_impossible(
        self, missing: list[TrialResources], scaler: Autoscaler, autoscaler_log: _AutoscalerLog
    ) -> bool:
        """Whether the autoscaler has no worker type for one of the missing resources."""
        if not scaler.there or scaler.fixed:
            return False
        impossible = autoscaler_log.impossible()
        for resources in missing:
            bundle = frozenset(resources.bundle.items())
            asked = len(self._waiting.get(resources, ()))
            if scaler.impossible is None:
                if bundle in impossible:
                    return True
            elif asked and scaler.impossible.get(bundle, 0) >= asked and not scaler.starting:
                return True
        return False

    def _waits(
        self, missing: list[TrialResources], hosts: list[Host], scaler: Autoscaler, seconds: float
    ) -> str:
        text = f"waiting for workers{f', {clock(seconds)}' if seconds >= 1 else ''}: {self._no_room(missing)}"
        text += f"; {_there_is(hosts)}"
        if scaler.there:
            asked = sum(len(tasks) for tasks in self._waiting.values())
            text += f"; the cluster's autoscaler is asked for room for {asked}"
            if scaler.starting:
                text += f", starts {', '.join(f'{count} {name}' for name, count in scaler.starting.items())}"
            if scaler.trouble:
                text += f" ({'; '.join(scaler.trouble)})"
        elif scaler.there is False:
            text += "; the cluster has no autoscaler: start workers by hand"
        limit = _wait_limit(scaler)
        return text if limit is None else f"{text}; gives up after {clock(limit)} ({WAIT_VARIABLE})"

    def _refusal(
        self, missing: list[TrialResources], hosts: list[Host], seconds: float, *, impossible: bool
    ) -> str:
        reason = (
            "and its autoscaler has no worker type that could"
            if impossible
            else f"and none came in {seconds:.0f} s ({WAIT_VARIABLE} sets another number of seconds)"
        )
        return (
            f"--address {self._address}: {self._no_room(missing)}, {reason}; {_there_is(hosts)}. "
            "Ask for less (--cpus-per-trial, --gpus-per-trial), or "
            + ("add a worker type of that size" if impossible else "start a worker of that size")
            + "; a run that was begun goes on with --resume"
        )

    def _no_room(self, missing: list[TrialResources]) -> str:
        what = [
            f"the winner's refit ({resources})"
            if resources != self._needs.trial
            else f"a trial ({resources})"
            for resources in missing
        ]
        return f"no host can hold {' or '.join(what)}"

    def _log_room(self, hosts: list[Host], waited: float = 0.0) -> None:
        """Log the hosts and how many trials they hold, where that has changed."""
        trial = self._needs.trial
        useful = [host for host in hosts if host.slots(trial)]
        room = sum(host.slots(trial) for host in useful)
        at_once = min(room, self._needs.concurrent)
        cpus, gpus = sum(host.cpus for host in useful), sum(host.gpus for host in useful)
        there = ", ".join([plural(len(useful), "host"), plural(cpus, "CPU"), plural(gpus, "GPU")])
        text = f"cluster: {there}: {plural(at_once, 'trial')} at once ({trial} each)"
        if text == self._last_room:
            return
        self._last_room, self._room_logged = text, time.monotonic()
        text += f", {self._bound(useful, room)}"
        if asked := len(self._waiting.get(trial, ())):
            text += f"; its autoscaler is asked for room for {asked} more"
        self._log(f"{text}; waited {clock(waited)}" if waited >= 1 else text)

    def _bound(self, hosts: list[Host], room: int) -> str:
        needs = self._needs
        if not hosts:
            return "since no host can hold one"
        if needs.concurrent <= room:
            return "which are all" if needs.concurrent == needs.total else "as --concurrent says"
        by_gpus = needs.trial.gpus and all(
            host.gpus // needs.trial.gpus <= host.cpus // needs.trial.cpus for host in hosts
        )
        return f"as many as the {'GPUs' if by_gpus else 'CPUs'} hold"


@contextlib.contextmanager
def joined(address: str, needs: Needs, log: Log, check: Callable[[], None]) -> Iterator[Cluster]:
    """A cluster that Ray is connected to, once it has room for a trial; what it is asked for ends with the block.

    Raises:
        UsageError: See `Cluster.wait_for_room`.
    """
    cluster = Cluster(address, needs, log, check)
    with printing_without(_NOISE):
        try:
            cluster.wait_for_room()
        except RayError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(f"--address {address}: the cluster does not answer any more: {reason}") from None
        yield cluster
        # Only here: after an error Ray may not answer, and what waits ends with the connection in any case.
        cluster.withdraw()


class _AutoscalerLog:
    """Lines of the first autoscaler's log, the only source of what it cannot do."""

    def __init__(self) -> None:
        self._impossible: set[frozenset[tuple[str, float]]] = set()
        self._lines = log_subscriber()
        self._lines.subscribe()

    def impossible(self) -> set[frozenset[tuple[str, float]]]:
        """Bundles that it has no worker type for."""
        for _ in range(200):  # logs of other searches come along
            batch = self._lines.poll(0.01)
            if not batch or not batch.get("lines"):
                break
            if batch.get("pid") != "autoscaler":
                continue
            for bundle in _IMPOSSIBLE.findall("\n".join(batch["lines"]).replace("\\'", "'")):
                with contextlib.suppress(ValueError, SyntaxError):
                    content = ast.literal_eval(bundle)
                    self._impossible.add(
                        frozenset((str(key), float(value)) for key, value in content.items())
                    )
        return self._impossible

    def close(self) -> None:
        """Stop listening."""
        self._lines.close()


def _wait_limit(scaler: Autoscaler) -> float | None:
    """Seconds to wait for workers; None is without end."""
    try:
        return float(os.environ[WAIT_VARIABLE])
    except (KeyError, ValueError):
        return None if scaler.there and not scaler.fixed else _WAIT_SECONDS


def _there_is(hosts: list[Host], most: int = 10) -> str:
    shown = "; ".join(map(str, hosts[:most])) or "none"
    return f"hosts: {shown}" + (f"; and {len(hosts) - most} more" if len(hosts) > most else "")
