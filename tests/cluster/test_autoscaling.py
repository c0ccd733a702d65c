"""A search on a cluster that grows from no worker to three for it, and shrinks to none again: Ray's own autoscalers."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.autoscaling import IDLE, WITHOUT_EXAMPLE, Autoscaling, start_autoscaling
from tests.cluster.lab import DRIVER, PORT, Lab, what_is_missing
from tests.cluster.searching import Search, slow, small_store

_MISSING = what_is_missing()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.nightly,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(_MISSING is not None, reason=f"no hosts of namespaces: {_MISSING}"),
]

WORKERS = 3
LONG = ["--trials", "6", "--no-asha", "--epochs", "20"]


def impossible_is_refused(cluster: Autoscaling, store: Path) -> float:
    """What no worker type could hold is refused without waiting; seconds from the command to its end."""
    began, log = time.monotonic(), cluster.lab.folder / "impossible.log"
    storage = ["--storage", str(cluster.lab.shared / "runs"), "--shared-storage", "--name", "impossible"]
    where = ["--address", f"{cluster.host.address}:{PORT}", "--cpus-per-trial", "64"]
    command = [sys.executable, DRIVER, "--data", str(store), *storage, *where]
    code = cluster.host.start(*command, log=log).wait(timeout=120)
    output = log.read_text()
    assert code == 2, output
    assert "no host can hold a trial (64 CPUs)" in output
    assert "its autoscaler has no worker type that could" in output
    return time.monotonic() - began


def gone_again(cluster: Autoscaling) -> float:
    """Seconds until the last worker has gone; the cluster must live on."""
    seconds = cluster.wait_for(lambda workers: workers == 0, 120)
    ray = str(Path(sys.executable).with_name("ray"))
    log = cluster.lab.folder / "status.log"
    assert cluster.host.start(ray, "status", log=log).wait(timeout=60) == 0, log.read_text()
    return seconds


def grown(cluster: Autoscaling, search: Search) -> float:
    """Seconds until all workers are there; the search lives meanwhile."""
    began = time.monotonic()
    while cluster.look() < WORKERS:
        assert search.code is None, search.output
        assert time.monotonic() - began < 180, f"{cluster.counts}\n{search.output}\n{cluster.lab.logs()}"
        time.sleep(0.2)
    return time.monotonic() - began


@pytest.mark.parametrize("version", [1, 2])
def test_workers_come_for_a_search_and_go_after_it_however_it_ends(version: int, tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", patch={**slow(0.3), **WITHOUT_EXAMPLE}) as lab:
        cluster = start_autoscaling(lab, {"CPU": 1}, WORKERS, version=version)
        store = small_store(lab)
        assert cluster.look() == 0

        refused = impossible_is_refused(cluster, store)
        assert cluster.look() == 0

        # 0 -> 3 -> 0, and trials on all three.
        search = Search(lab, "whole")
        began = time.monotonic()
        search.begin(cluster.host, store, *LONG)
        search.wait_for(lambda: "waiting for workers: no host can hold a trial (1 CPU)" in search.output)
        assert cluster.look() == 0
        waited = time.monotonic() - began
        up = grown(cluster, search)
        while search.code is None:
            cluster.look()
            time.sleep(0.2)
        output = search.finish()
        whole = time.monotonic() - began
        assert "the cluster's autoscaler is asked for room for 6" in output
        finished = re.findall(r"trial \d+ finished after 20/20 epochs on \S*?(#\w{4})", output)
        assert len(finished) == 6
        assert len(set(finished)) == WORKERS, output
        assert "infeasible" not in output, "Ray's word about what waits"
        assert max(workers for _, workers in cluster.counts) == WORKERS
        down = gone_again(cluster)

        # A search that is killed while it asks for more leaves nothing behind that does.
        killed = Search(lab, "killed")
        killed.begin(cluster.host, store, *LONG)
        grown(cluster, killed)
        killed.kill()
        after_kill = gone_again(cluster)
    print(
        f"\nautoscaler {version}: an impossible size refused after {refused:.0f} s; the search says that it waits "
        f"after {waited:.0f} s, {WORKERS} workers {up:.0f} s later, finished {whole:.0f} s after its start, no worker "
        f"{down:.0f} s after its end (idle timeout {IDLE:.0f} s), and {after_kill:.0f} s after a kill -9; "
        f"workers over time: {', '.join(f'{number} at {seconds:.0f} s' for seconds, number in cluster.counts)}"
    )
