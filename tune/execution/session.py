"""Starting Ray quietly, on this machine or as a part of a cluster."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from macil.errors import MacilError, UsageError
from macil.io.folders import require_writable
from macil.io.notes import note
from tune.planning.resources import Machine, this_machine

ROOT = Path(__file__).resolve().parents[2]

# Bytes that the path of a socket may have, and those that Ray appends to its folder: a session's name with the time and
# the longest process number, and a socket's. On macOS a path has four less, and a process number is shorter by two.
_SOCKET_PATH = 107 - 4 * (sys.platform == "darwin")
_LONGEST_FOLDER = _SOCKET_PATH - len("/session_2026-11-30_09-41-00_123456_1234567/sockets/plasma_store")


# What Ray and Tune read from the environment.
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new engine prints whatever `verbose` says
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # tune.execution.epoch_log writes the logs
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # tune.execution.interrupts
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# The last one asks for further packages wherever there is a notebook.
_LOGGERS = ("ray", "ray.tune", "ray.train", "ray.widgets")


def quiet_ray() -> None:
    """Set what Ray and Tune read from the environment; before Ray is imported."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def quietly() -> Iterator[None]:
    """`quiet_ray` for the block: afterwards environment and loggers are as they were, for whoever uses Ray besides."""
    before = {name: os.environ.get(name) for name in _SETTINGS}
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    quiet_ray()
    logging.getLogger(_LOGGERS[-1]).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        _restore(before)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def machine_at_hand() -> Machine:
    """What the Ray has that this process is connected to; without one, what this machine has."""
    ray: Any = sys.modules.get("ray")  # who has not imported it is connected to none
    return _machine_of(ray) if ray is not None and ray.is_initialized() else this_machine()


@contextmanager
def ray_running(address: str | None, machine: Machine, *, debug: bool) -> Iterator[Machine]:
    """Start Ray here (loopback only, no dashboard) or join the cluster at `address`; yields what it can run.

    A Ray that this process is connected to already is used, and left as it is.

    Raises:
        UsageError: No cluster answers at `address`; without one, the Ray of this process has other hosts too, or there
            is no folder for the sockets of a Ray started here.
        MacilError: The Ray started here does not start, or would listen beyond loopback.
    """
    import ray
    from ray.exceptions import RayError

    from tune.execution.ray_internals import LOOPBACK, loopback_only

    level = logging.INFO if debug else logging.ERROR
    root = str(ROOT)
    before = {"PYTHONPATH": os.environ.get("PYTHONPATH")}
    path = os.pathsep.join([root, *filter(None, before.values())])
    started = not ray.is_initialized()
    if started and address is None:
        # Workers inherit the environment of the Ray they start from; this is how they find both packages in a checkout.
        os.environ["PYTHONPATH"] = path
        folder = ray_folder()
        try:
            with loopback_only(), _hushed(debug), _deaf_children():
                ray.init(
                    address="local",  # never one that somebody else has started here
                    num_cpus=machine.cpus,
                    num_gpus=machine.gpus,
                    include_dashboard=False,
                    logging_level=level,
                    log_to_driver=debug,
                    **LOOPBACK,
                    object_store_memory=100 * 2**20,  # nothing large goes through it: data are memory-mapped
                    _temp_dir=str(folder),
                )
        except (RayError, RuntimeError, ValueError, OSError) as error:
            raise MacilError(
                f"Ray does not start on this machine: {_first_line(error)}; its logs are in "
                f"{folder}/session_latest/logs"
            ) from None
        finally:
            _restore(before)
    elif started:
        try:
            _knock(address)
            with _hushed(debug):
                ray.init(
                    address=address,
                    logging_level=level,
                    log_to_driver=debug,
                    runtime_env=_code_of_this_checkout(),
                )
        except (RuntimeError, ValueError, OSError, OverflowError) as error:
            raise UsageError(
                f"--address {address}: no Ray cluster answers there ({_first_line(error)}); "
                "start one with `ray start --head`, or leave --address out to use this machine"
            ) from None
    try:
        if address is None and (hosts := sum(bool(node["Alive"]) for node in ray.nodes())) > 1:
            raise UsageError(
                f"this process is connected to a Ray of {hosts} hosts, which do not share this machine's folders; give "
                "--address auto, and a --storage that all of them reach"
            )
        yield _machine_of(ray)
    finally:
        if started:
            ray.shutdown()


def _machine_of(ray: Any) -> Machine:
    """The resources of the cluster that `ray` is connected to."""
    resources = ray.cluster_resources()
    return Machine(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def _restore(variables: Mapping[str, str | None]) -> None:
    """Set environment variables as they were; None is not at all."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def ray_folder() -> Path:
    """The folder for the sockets and logs of a Ray started here: the usual one, where its path is short enough.

    Raises:
        UsageError: Neither it nor another of this machine will do; names each with the reason.
    """
    # In Ray's own order.
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    others = ["/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("HOME")]
    reasons = []
    for each in dict.fromkeys(os.path.abspath(parent) for parent in (usual, *others) if parent):
        folder = Path(each) / "ray"
        try:
            if (length := len(os.fsencode(folder))) > _LONGEST_FOLDER:
                raise UsageError(
                    f"{folder} has {length} bytes, {_LONGEST_FOLDER} are the most for Ray's sockets"
                )
            require_writable(folder, f"cannot write {folder}")
        except UsageError as error:
            reasons.append(str(error).partition("; ")[0])
            continue
        if reasons:
            note(f"Ray's sockets and logs are in {folder}: {reasons[0]}")
        return folder
    raise UsageError(
        f"there is no folder for Ray's sockets: {'; '.join(reasons)}; set RAY_TMPDIR to a short one that you may write "
        "to"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _code_of_this_checkout() -> dict[str, Any]:
    """The runtime environment of a cluster's workers: they run this code and not a version installed on their host."""
    return {"py_modules": [str(ROOT / "macil"), str(ROOT / "tune")], "excludes": ["__pycache__"]}


def _knock(address: str | None) -> None:
    """Fail at once where nobody listens: Ray would wait for minutes, deaf to Ctrl-C."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that are started meanwhile do not hear that the terminal is closed: the search needs them to save.

    Ray does the same about Ctrl-C.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _hushed(debug: bool) -> Iterator[None]:
    """Keep Ray's advice about future defaults off the terminal."""
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore", FutureWarning)
            logging.getLogger("ray").setLevel(logging.CRITICAL)
        yield
