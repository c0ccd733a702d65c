"""How long it takes until a lost node is noticed, and until its trial runs again elsewhere.

    python -m tests.cluster.detection --repeats 3
    python -m tests.cluster.detection --settings 1000/1000/1000/3
    python -m tests.cluster.detection --answers 120

One trial on one of two workers; the worker's raylet is killed, its link cut or its power taken, and mended when the
trial runs on the other. The settings are those of cluster.yaml, or the initial delay, period and timeout in
milliseconds and the threshold that are given.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tests.cluster.lab import RAYLET, Host, Lab, cluster_environment, slowest_notice, what_is_missing
from tests.cluster.searching import Search, slow, small_store

# One trial is lost again and again here.
_ENDURING = {"tune.execution.failure_policy": "MAX_WORKER_FAILURES = 1000\n"}
_TIMEOUTS = (250, 500, 1000, 2000)
_NAMES = ("initial_delay_ms", "period_ms", "timeout_ms", "failure_threshold")


def kill_raylet(host: Host) -> None:
    """Kill -9 of the raylet."""
    (raylet,) = host.processes(RAYLET)
    raylet.kill()


FAULTS: dict[str, Callable[[Host], None]] = {
    "raylet killed": kill_raylet,
    "link cut": Host.cut_link,
    "power cut": Host.power_off,
}


@dataclass(frozen=True)
class Detection:
    """One fault.

    Attributes:
        noticed: Seconds until the search reported that the trial's worker was lost.
        running: Seconds until the trial's next epoch was logged, from another host.
    """

    fault: str
    noticed: float
    running: float


def measure(folder: Path, settings: dict[str, str], repeats: int) -> list[Detection]:
    """Every fault so many times."""
    found: list[Detection] = []
    with Lab(folder, settings, patch={**slow(0.3), **_ENDURING}) as lab:
        head, *workers = lab.cluster("head", "left", "right", head_cpus=0)
        search = Search(lab)
        options = ["--trials", "1", "--epochs", "5000", "--no-asha", "--concurrent", "1"]
        search.begin(head, small_store(lab), *options)
        search.wait_for(lambda: len(search.lines) > 2)
        for _ in range(repeats):
            for fault in FAULTS:
                found.append(_lose(search, workers, fault))
                print(
                    f"  {fault}: noticed {found[-1].noticed:.1f} s, running {found[-1].running:.1f} s",
                    flush=True,
                )
                _mend(search, head, workers)
    return found


def count_slow_answers(folder: Path, timeouts: Sequence[int], seconds: float) -> dict[int, tuple[int, int]]:
    """Of health checks of nodes that are well, how many are answered later than each timeout, and of how many.

    Args:
        folder: Folder for the labs.
        timeouts: In milliseconds.
        seconds: How long to look, at all of them at a time.
    """
    period = 250
    with contextlib.ExitStack() as stack:
        labs = []
        for timeout in timeouts:
            settings = health_checks(f"1000/{period}/{timeout}/1000000")
            labs.append(stack.enter_context(Lab(folder / str(timeout), settings)))
            labs[-1].cluster("head", "worker", head_cpus=0)
        time.sleep(seconds)
        return {
            timeout: (_lost_checks(lab), int(2 * seconds * 1000 / period))
            for timeout, lab in zip(timeouts, labs, strict=True)
        }


def _lost_checks(lab: Lab) -> int:
    (log,) = (lab.folder / "hosts" / "head" / "ray").glob("session_2*/logs/gcs_server.out")
    return log.read_text(errors="replace").count("Health check failed for node")


def health_checks(values: str) -> dict[str, str]:
    """The environment of cluster.yaml with other health checks: DELAY/PERIOD/TIMEOUT/THRESHOLD."""
    own = {f"RAY_health_check_{name}": value for name, value in zip(_NAMES, values.split("/"), strict=True)}
    return cluster_environment() | own


def _lose(search: Search, workers: list[Host], fault: str) -> Detection:
    (host,) = [worker for worker in workers if search.unfinished(worker)]
    worker_failures, before = len(search.worker_failures), len(search.lines)
    began = time.monotonic()
    FAULTS[fault](host)
    search.wait_for(lambda: len(search.worker_failures) > worker_failures)
    search.wait_for(lambda: any(line.address != host.address for line in search.lines[before:]))
    elsewhere = next(line for line in search.lines[before:] if line.address != host.address)
    return Detection(fault, search.worker_failures[worker_failures].seen - began, elsewhere.seen - began)


def _mend(search: Search, head: Host, workers: list[Host]) -> None:
    """Make both workers whole; a new node is not killed before its first health checks."""
    for host in workers:
        if search.unfinished(host):
            continue
        if not host.powered:
            host.power_on()
        if host.cut:
            host.mend_link()
        host.end_all()
        search.lab.bring_up(host, head=head)
    at = len(search.lines)
    search.wait_for(lambda: len(search.lines) > at + 10)


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else None)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--settings", multiple=True, metavar="DELAY/PERIOD/TIMEOUT/THRESHOLD", help="Default cluster.yaml's."
)
@click.option(
    "--answers", type=float, metavar="SECONDS", help="Only count late answers of nodes that are well."
)
def main(repeats: int, settings: tuple[str, ...], answers: float | None) -> None:
    """Entry point."""
    if reason := what_is_missing():
        sys.exit(reason)
    print(f"load of this machine: {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors", flush=True)
    if answers:
        with tempfile.TemporaryDirectory() as folder:
            for timeout, (slow_ones, asked) in count_slow_answers(Path(folder), _TIMEOUTS, answers).items():
                print(f"answered later than {timeout} ms: {slow_ones} of {asked} checks at most")
        return
    environments = [health_checks(values) for values in settings] or [cluster_environment()]
    for environment in environments:
        values = "/".join(environment[f"RAY_health_check_{name}"] for name in _NAMES)
        print(
            f"settings {values}: noticed after {slowest_notice(environment):.1f} s at most, by the settings",
            flush=True,
        )
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder) / "lab", environment, repeats)
        for fault in FAULTS:
            these = [detection for detection in found if detection.fault == fault]
            print(
                f"{fault}: noticed {_spread([each.noticed for each in these])}, "
                f"running again {_spread([each.running for each in these])}",
                flush=True,
            )
    print(f"load of this machine: {os.getloadavg()[0]:.1f}", flush=True)


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"


if __name__ == "__main__":
    main()
