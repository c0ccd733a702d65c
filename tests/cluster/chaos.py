"""A search on three hosts with something random killed every few seconds, until it ends; then its promise is proved.

    python -m tests.cluster.chaos --seed 0 --trials 30

What can be hit: a trial's worker, the driver, a worker host's raylet, its link, its power, the head's power. The search
is resumed, hosts are switched on and joined again as an operator would. Needs root; see hosts.sh.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from macil.data.store.feature_store import FeatureStore
from tests.cluster.lab import RAYLET, WORKER, Host, Lab, what_is_missing
from tests.cluster.proof import assert_promise, failed_trials
from tests.cluster.searching import Search, slow, small_store
from tests.support.promise import Digits, digits

EPOCHS, GRACE = 30, 5
# Of a fault, relative to the others.
WEIGHTS = {"worker": 6, "driver": 4, "raylet": 3, "link": 3, "host": 3, "head": 2}
# Seconds between a fault and the next, counted from the next epoch, or from the fault itself ...
_PAUSE = (2.0, 8.0)
# ... so often: it falls into starts and resumes.
_EARLY = 0.3
# Seconds until a cable is plugged in again, from unnoticed to long lost; until a host is switched on again.
_CUT, _OFF = (1.0, 25.0), (2.0, 10.0)
# Seconds without an epoch after which the search is stuck.
_STUCK = 600.0


@dataclass
class Fault:
    """One fault.

    Attributes:
        kind: A key of WEIGHTS.
        host: Where.
        at: Seconds since the begin.
        epochs: Epochs in the logs before it.
        lost: Trials that it took from their workers, as far as the logs and the search say.
        noticed: Seconds until the search reported that a worker was lost.
        recovery: Seconds until the next epoch of one of them; None if there was none to go on with.
        alone: Nothing else was hit meanwhile.
    """

    kind: str
    host: str
    at: float
    epochs: int
    lost: list[str] = field(default_factory=list)
    noticed: float | None = None
    recovery: float | None = None
    alone: bool = True


class Chaos:
    """The search, its hosts and its fate.

    Args:
        lab: Where; with three hosts once it has begun.
        seed: Of what is hit, and when.
        log: Told of each fault.
    """

    def __init__(self, lab: Lab, seed: int, log: Callable[[str], None] = print) -> None:
        self.lab = lab
        self.search = Search(lab)
        self.faults: list[Fault] = []
        self.logs: list[Digits] = []
        self.resumes = 0
        self._log = log
        self._draw = random.Random(seed)
        self._began = time.monotonic()
        self._repairs: list[tuple[float, Callable[[], None]]] = []
        self._joining: dict[str, subprocess.Popen[bytes]] = {}
        self._head: Host
        self._progress = self._struck = self._began

    def run(self, store: Path, trials: int) -> None:
        """Begin the search, and go on until it has ended by itself."""
        self._head, *_ = self.lab.cluster("one", "two", "three")
        options = [
            "--trials",
            str(trials),
            "--epochs",
            str(EPOCHS),
            "--grace",
            str(GRACE),
            "--concurrent",
            "3",
        ]
        self.search.begin(self._head, store, *options)
        self._began = self._progress = self._struck = time.monotonic()
        due = self._next_due()
        while self.search.code != 0:
            self._look()
            self._heal()
            if self.search.code not in (None, 0):
                self._must_be_hit("driver", "head")
                self.search.resume(self._head)
                self.resumes += 1
            if self.search.code is None and due():
                self._strike()
                due = self._next_due()
            assert time.monotonic() - self._progress < _STUCK, (
                f"stuck:\n{self.search.output}\n{self.lab.logs()}"
            )
            time.sleep(0.05)
        self._look()

    def _next_due(self) -> Callable[[], bool]:
        early, wait = self._draw.random() < _EARLY, self._draw.uniform(*_PAUSE)

        def due() -> bool:
            if early:
                return time.monotonic() - self._struck > wait
            return self._progress > self._struck and time.monotonic() - self._progress_since > wait

        return due

    @property
    def _progress_since(self) -> float:
        """When the first epoch after the last fault was seen."""
        return next((line.seen for line in self.search.lines if line.seen > self._struck), self._struck)

    def _look(self, *, recovers: bool = True) -> None:
        known = len(self.search.worker_failures)
        new = self.search.look()
        now = time.monotonic()
        for failure in self.search.worker_failures[known:] if self.faults else []:
            fault = self.faults[-1]
            fault.noticed = now - self._began - fault.at if fault.noticed is None else fault.noticed
            fault.lost += {failure.trial} - set(fault.lost)
        if not new:
            return
        self._progress = now
        trials = {line.trial for line in new}
        for fault in self.faults:
            if recovers and fault.recovery is None and trials & set(fault.lost):
                fault.recovery = now - self._began - fault.at

    # --- faults -----------------------------------------------------------------------------------------------

    def _strike(self) -> None:
        """Hit something that is there."""
        workers = [host for host in self._up() if host is not self._head and host.processes(RAYLET)]
        possible = {
            "worker": [host for host in self._up() if host.processes(WORKER)],
            "driver": [self._head],
            **dict.fromkeys(("raylet", "link", "host"), workers),
            "head": [self._head],
        }
        kinds = [kind for kind, hosts in possible.items() if hosts]
        kind = self._draw.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
        host = self._draw.choice(possible[kind])
        self._look()
        self.logs.append(digits(self.search.run))
        for open_one in self._unrecovered():
            open_one.alone = False
        now = time.monotonic()
        epochs = sum(map(len, self.logs[-1].values()))
        fault = Fault(kind, host.name, now - self._began, epochs, self.search.unfinished(host))
        fault.alone = not self._unrecovered()
        self.faults.append(fault)
        if kind in ("driver", "head"):
            fault.lost = self.search.unfinished()
        getattr(self, f"_hit_{kind}")(host, fault)
        self._look(recovers=False)  # what was written just before the blow
        self._struck = time.monotonic()
        self._log(
            f"{fault.at:6.1f} s  {kind:6} on {host.name:5}  {epochs:4d} epochs logged  {' '.join(fault.lost)}"
        )

    def _unrecovered(self) -> list[Fault]:
        """Faults after which what was lost has not gone on yet."""
        return [fault for fault in self.faults if fault.recovery is None and fault.lost]

    def _hit_worker(self, host: Host, fault: Fault) -> None:
        worker = self._draw.choice(host.processes(WORKER))
        last = {line.trial: line for line in self.search.lines}
        fault.lost = [trial for trial in fault.lost if last[trial].content["pid"] == worker.inner]
        worker.kill()

    def _hit_driver(self, host: Host, fault: Fault) -> None:
        self.search.kill()

    def _hit_raylet(self, host: Host, fault: Fault) -> None:
        for raylet in host.processes(RAYLET):
            raylet.kill()

    def _hit_link(self, host: Host, fault: Fault) -> None:
        host.cut_link()
        self._later(_CUT, lambda: host.mend_link() if host.cut and host.powered else None)

    def _hit_host(self, host: Host, fault: Fault) -> None:
        host.power_off()
        self._later(_OFF, lambda: None if host.powered else host.power_on())

    def _hit_head(self, host: Host, fault: Fault) -> None:
        """The driver goes with it. A new head on another host; the others join it, this one later."""
        host.power_off()
        assert self.search.process is not None
        assert self.search.process.wait(timeout=60) != 0, "it had ended by itself"
        self._later(_OFF, lambda: None if host.powered else host.power_on())
        self._head = self._draw.choice([other for other in self.lab.hosts.values() if other is not host])
        if not self._head.powered:
            self._head.power_on()
        if self._head.cut:
            self._head.mend_link()
        self._joining.clear()
        for other in self._up():
            other.end_all()
        self.lab.bring_up(self._head)

    # --- repairs ----------------------------------------------------------------------------------------------

    def _later(self, seconds: tuple[float, float], repair: Callable[[], None]) -> None:
        self._repairs.append((time.monotonic() + self._draw.uniform(*seconds), repair))

    def _heal(self) -> None:
        """Mend what is due, and let hosts without Ray join the cluster."""
        now = time.monotonic()
        for repair in [repair for at, repair in self._repairs if at <= now]:
            repair()
        self._repairs = [(at, repair) for at, repair in self._repairs if at > now]
        for host in self._up():
            joining = self._joining.get(host.name)
            if host is self._head or (joining is not None and joining.poll() is None):
                continue
            if not host.processes(RAYLET):
                host.end_all()
                self._joining[host.name] = host.start_ray(self._head)

    def _up(self) -> list[Host]:
        return [host for host in self.lab.hosts.values() if host.powered and not host.cut]

    def _must_be_hit(self, *kinds: str) -> None:
        """The search may only end before its time because of a fault."""
        assert self.faults, self.search.output
        assert self.faults[-1].kind in kinds, f"{self.faults[-1]}\n{self.search.output}"


@dataclass(frozen=True)
class Outcome:
    """What it was, for whom it may concern."""

    seed: int
    trials: int
    seconds: float
    faults: list[Fault]
    resumes: int
    epochs: int
    worker_failures: int
    failed: list[tuple[int, str, int]]


def survive(folder: Path, seed: int, trials: int, log: Callable[[str], None] = print) -> Outcome:
    """Run a search through the chaos, and prove what it promises.

    Raises:
        AssertionError: It was not kept.
    """
    with Lab(folder, patch=slow(0.3)) as lab:
        store = small_store(lab)
        chaos = Chaos(lab, seed, log)
        began = time.monotonic()
        chaos.run(store, trials)
        seconds = time.monotonic() - began
        search = chaos.search
    assert_promise(search.run, FeatureStore.open(store), trials, chaos.logs, search.lines)
    return Outcome(
        seed,
        trials,
        seconds,
        chaos.faults,
        chaos.resumes,
        len(search.lines),
        len(search.worker_failures),
        failed_trials(search.run),
    )


def describe(outcome: Outcome) -> str:
    """The figures."""
    head = (
        f"seed {outcome.seed}: {outcome.trials} trials, {outcome.epochs} epochs, {outcome.seconds:.0f} s, "
        f"{len(outcome.faults)} faults, {outcome.resumes} resumes, {outcome.worker_failures} workers replaced"
    )
    failed = [
        f"failed: trial {number:05d} after {worker_failures} worker failures: {text}"
        for number, text, worker_failures in outcome.failed
    ]
    return "\n".join(
        [head, *failed, *(_describe(kind, outcome.faults) for kind in WEIGHTS), "the promise was kept"]
    )


def _describe(kind: str, faults: list[Fault]) -> str:
    these = [fault for fault in faults if fault.kind == kind]
    noticed = [
        fault.noticed for fault in these if fault.noticed is not None and kind not in ("driver", "head")
    ]
    times = [fault.recovery for fault in these if fault.recovery is not None]
    alone = [fault.recovery for fault in these if fault.recovery is not None and fault.alone]
    return (
        f"{kind}: {len(these)} times; noticed after {_spread(noticed)}; next epoch after {_spread(times)}, "
        f"with nothing else hit meanwhile {_spread(alone)}"
    )


def _spread(times: list[float]) -> str:
    if not times:
        return "-"
    return f"{statistics.median(times):.1f} s ({min(times):.1f} to {max(times):.1f}, {len(times)} of them)"


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else None)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--trials", type=click.IntRange(4), default=30, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the lab, which is kept.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(seed: int, trials: int, keep: Path | None, json_path: Path | None) -> None:
    """Entry point."""
    if reason := what_is_missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        outcome = survive(keep or Path(folder) / "lab", seed, trials, lambda text: print(text, flush=True))
    print(describe(outcome))
    if json_path:
        json_path.write_text(json.dumps(asdict(outcome), indent=2))


if __name__ == "__main__":
    main()
