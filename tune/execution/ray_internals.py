"""All that is used of Ray beside its documented interface, checked against the version that is installed."""

from __future__ import annotations

import contextlib
import inspect
import ipaddress
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from pyarrow import fs
from ray import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from macil.errors import MacilError
from tune.algorithms.private_names import require_names

NAMES = (
    "ray._private.ray_constants.ENABLE_RAY_CLUSTER",
    "ray._private.state.actors",
    "ray._private.worker.print_to_stdstream",
    "ray._private.worker.global_worker",
    "ray._raylet.GcsLogSubscriber",
    "ray.actor.ActorHandle._actor_id",
    "ray.core.generated.autoscaler_pb2.GetClusterStatusReply",
    "ray.experimental.internal_kv._internal_kv_put",
    "ray.experimental.internal_kv._internal_kv_list",
    "ray.experimental.internal_kv._internal_kv_get",
    "ray.experimental.internal_kv._internal_kv_del",
    "ray.train._internal.session._TrainingResult",
    "ray.train._internal.storage.StorageContext._update_checkpoint_index",
    "ray.tune.Trainable._report_class_trainable_checkpoint",
    "ray.tune.Trainable._storage",
    "ray.tune.Trainable._iteration",
    "ray.tune.Trainable._last_result",
    "ray.tune.Trainable._restored",
    "ray.air.execution._internal.actor_manager.RayActorManager._actor_start_failed(…, exception)",
    "ray.air.execution._internal.actor_manager.RayActorManager._actor_task_failed(…, exception)",
    "ray.tune.execution.tune_controller.TuneController._trial_task_failure(…, exception)",
    "ray.tune.execution.tune_controller.TuneController._set_trial_status",
    "ray.tune.execution.tune_controller.TuneController._unstage_trial_with_resources",
    "ray.tune.execution.tune_controller.TuneController._resetting_trials",
)
KNOWN = "2.60.0"


def check() -> None:
    """Refuse a version that lacks one of the names.

    Raises:
        MacilError: It does.
    """
    require_names("ray", NAMES, KNOWN)


check()

from ray._private import ray_constants  # noqa: E402
from ray._private import worker as ray_worker  # noqa: E402
from ray.air.execution._internal.actor_manager import RayActorManager  # noqa: E402
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]  # noqa: E402
from ray.experimental import internal_kv  # noqa: E402
from ray.train._internal.session import _TrainingResult  # noqa: E402

# Keyword of `ray.init`: the address of the node that it starts.
LOOPBACK: dict[str, Any] = {"_node_ip_address": "127.0.0.1"}

Recovers = Callable[[Trial, Exception], bool]

__all__ = [
    "LOOPBACK",
    "GetClusterStatusReply",
    "OwnCheckpoints",
    "Recovers",
    "actor_number",
    "autoscaler_report",
    "changed_failures",
    "check",
    "cluster_status",
    "log_subscriber",
    "loopback_only",
    "node_of_actor",
    "printing_without",
    "put_message",
    "take_messages",
    "without_experiment_state",
]


# --- one machine ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def loopback_only() -> Iterator[None]:
    """Let a Ray that is started meanwhile listen on the loopback address and nowhere else.

    Ray's servers listen on the address of their node, and Ray replaces 127.0.0.1 as such by the network's, unless
    clusters are switched off. The name of that setting is older than its meaning.

    Raises:
        MacilError: This version of Ray has another setting; what was started has been ended.
    """
    variable = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    before, enabled = os.environ.get(variable), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[variable] = "0"  # for the processes that Ray starts
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = enabled
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
    address = ray.util.get_node_ip_address()
    if not ipaddress.ip_address(address).is_loopback:
        ray.shutdown()
        raise MacilError(
            f"Ray {ray.__version__} would listen on {address}, where others can reach it; "
            "install the version of Ray that constraints.txt names"
        )


# --- a cluster ------------------------------------------------------------------------------------------------


def put_message(namespace: bytes, key: str, message: str) -> None:
    """Leave a message with the cluster's control service."""
    internal_kv._internal_kv_put(key, message, namespace=namespace)


def take_messages(namespace: bytes, prefix: str) -> list[bytes]:
    """The messages under keys that begin with `prefix`, in the order of the keys; they are gone then."""
    messages = []
    for key in sorted(internal_kv._internal_kv_list(prefix, namespace=namespace)):
        message = internal_kv._internal_kv_get(key, namespace=namespace)
        internal_kv._internal_kv_del(key, namespace=namespace)
        if message is not None:
            messages.append(message)
    return messages


def autoscaler_report() -> bytes | None:
    """The status of Ray's first autoscaler in the control service, as JSON."""
    report: bytes | None = internal_kv._internal_kv_get(b"__autoscaling_status")
    return report


def cluster_status(timeout: float) -> GetClusterStatusReply:
    """The status of the cluster and of Ray's second autoscaler in the control service."""
    reply = GetClusterStatusReply()
    reply.ParseFromString(_control().get_cluster_status(timeout_s=timeout))
    return reply


def log_subscriber() -> Any:
    """A subscriber to the log lines of all processes, the autoscaler's among them."""
    subscriber: Any = ray._raylet.GcsLogSubscriber  # type: ignore[attr-defined]
    return subscriber(worker_id=os.urandom(28), address=_control().address)


def actor_number(actor: Any) -> str:
    """The number of an actor in Ray."""
    return str(actor._actor_id.hex())


def node_of_actor(number: str) -> str:
    """The number of the node that an actor is on, "" where Ray's table has none: the worker itself would be busy."""
    found = ray._private.state.actors(number) or {}
    return str((found.get("Address") or {}).get("NodeID") or "")


@contextlib.contextmanager
def printing_without(noise: str) -> Iterator[None]:
    """Keep what Ray says about one thing off the terminal."""
    printed = ray_worker.print_to_stdstream

    def print_the_rest(data: dict[str, Any], *given: Any, **named: Any) -> None:
        if not any(noise in str(line) for line in data.get("lines", ())):
            printed(data, *given, **named)

    ray_worker.print_to_stdstream = print_the_rest
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = printed


def _control() -> Any:
    """The client of the control service."""
    return ray_worker.global_worker.gcs_client  # type: ignore[attr-defined]


# --- Tune -----------------------------------------------------------------------------------------------------


class OwnCheckpoints(tune.Trainable):
    """A trainable that puts its checkpoints into its storage itself, where Tune would copy file by file."""

    @property
    def stored(self) -> Any:
        """Tune's storage context: experiment, folder and next checkpoint; None for a trainable without a run."""
        return self._storage

    def put_checkpoint(self, folder: Path, name: str) -> str:
        """Bring the checkpoint in `folder` under its name into the storage, and return its location there."""
        raise NotImplementedError

    def count_on(self, epoch: int) -> None:
        """Let the next step be the one after `epoch`: Tune begins to count anew on a new worker."""
        self._iteration = epoch

    def number_checkpoints_from(self, number: int) -> None:
        """The number of the newest checkpoint that is there."""
        self.stored.current_checkpoint_index = number

    def count_as_restored(self) -> None:
        """Set Tune's mark that the state is that of a checkpoint."""
        self._restored = True

    def _report_class_trainable_checkpoint(self, checkpoint_dir: str, returned: Any) -> Any:
        storage = self._storage
        if storage is None:
            return super()._report_class_trainable_checkpoint(checkpoint_dir, returned)
        metrics: dict[str, Any] = dict(self._last_result or {})
        storage._update_checkpoint_index(metrics)
        where = self.put_checkpoint(Path(checkpoint_dir), storage.checkpoint_dir_name)
        # For Tune, which never opens it: the folder is what a training goes on from.
        checkpoint = tune.Checkpoint(where, fs.LocalFileSystem())
        return _TrainingResult(checkpoint=checkpoint, metrics=metrics)


@contextlib.contextmanager
def without_experiment_state() -> Iterator[None]:
    """Keep Tune from saving its own state in between."""
    variable = "TUNE_GLOBAL_CHECKPOINT_S"
    before = os.environ.get(variable)
    os.environ[variable] = "1e9"  # seconds
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


@contextlib.contextmanager
def changed_failures(change: Callable[[Exception], Exception], recovers: Recovers | None) -> Iterator[None]:
    """Change the errors that Tune gets for failures of its actors, within the block.

    Args:
        change: Gives the error that Tune gets in place of one of Ray's.
        recovers: Whether a trial is tried again after this failure; asked once for each. None: Tune's `max_failures`.
    """
    originals = [
        (RayActorManager, "_actor_start_failed", RayActorManager._actor_start_failed),
        (RayActorManager, "_actor_task_failed", RayActorManager._actor_task_failed),
        (TuneController, "_trial_task_failure", TuneController._trial_task_failure),
    ]
    for owner, name, method in originals:
        changed = (
            _reported_once(method, recovers)
            if owner is TuneController
            else _with_changed_error(method, change)
        )
        setattr(owner, name, changed)
    try:
        yield
    finally:
        for owner, name, method in originals:
            setattr(owner, name, method)


def _with_changed_error(method: Any, change: Callable[[Exception], Exception]) -> Any:
    signature = inspect.signature(method)

    def failed(*given: Any, **named: Any) -> None:
        call = signature.bind(*given, **named)
        call.arguments["exception"] = change(call.arguments["exception"])
        method(*call.args, **call.kwargs)

    return failed


def _reported_once(method: Any, recovers: Recovers | None) -> Any:
    last: BaseException | None = None

    def failed(self: TuneController, trial: Trial, exception: Exception) -> None:
        nonlocal last
        if trial in self._resetting_trials:
            self._resetting_trials.remove(trial)  # or it would be taken to wait for this worker for ever
            if trial.status == Trial.PENDING:
                # It raised, and its worker lives. Tune tries again only what is running.
                self._set_trial_status(trial, Trial.RUNNING)
                self._unstage_trial_with_resources(trial)
        elif exception is last:
            return  # reported as the actor's failure before, and now as that of its task
        last = exception
        if recovers is not None:
            trial.max_failures = -1 if recovers(trial, exception) else 0  # always, or never
        method(self, trial, exception)

    return failed
