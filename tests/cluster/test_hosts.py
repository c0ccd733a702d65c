"""Nodes, links, hosts and heads that are lost under a search on three hosts: real Ray, real namespaces, real kills.

Each fault has a scenario, which is run as it is, and again with the safeguard taken away (`-m mutation`): there it must
fail.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from macil.data.store.feature_store import FeatureStore
from tests.cluster.chaos import Chaos
from tests.cluster.detection import FAULTS, kill_raylet
from tests.cluster.lab import RAYLET, WORKER, Host, Lab, cluster_environment, what_is_missing
from tests.cluster.proof import assert_decisions, assert_promise, assert_seen_once
from tests.cluster.searching import Search, slow, small_store
from tests.support.promise import assert_kept, assert_replays, assert_whole, digits
from tests.support.search_command import info, lines_of
from tune.storage.history import TrialHistory, read_history

_MISSING = what_is_missing()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(_MISSING is not None, reason=f"no hosts of namespaces: {_MISSING}"),
]
nightly = pytest.mark.nightly
mutation = pytest.mark.mutation

NOTICED = 15.0  # seconds, as promised for clusters started by cluster.yaml
EPOCHS = 30
TWO = ["--trials", "2", "--epochs", str(EPOCHS), "--concurrent", "1"]


def begin(lab: Lab, *options: str) -> tuple[Search, list[Host]]:
    """A search on a head without CPUs, as cluster.yaml has it, and two workers; one trial has some epochs."""
    head, *workers = lab.cluster("head", "left", "right", head_cpus=0)
    search = Search(lab)
    search.begin(head, small_store(lab), *options)
    search.wait_for(lambda: len(search.lines) >= 4)
    return search, workers


def lose(search: Search, workers: Sequence[Host], hit: Callable[[Host], None]) -> Host:
    """Hit the host of the running trial, which must be alive and have epochs outstanding."""
    (host,) = [worker for worker in workers if search.unfinished(worker)]
    assert host.processes(RAYLET)
    assert host.processes(WORKER)
    hit(host)
    return host


def node_lost(lab: Lab, hit: Callable[[Host], None]) -> None:
    search, workers = begin(lab, *TWO)
    before = digits(search.run)
    worker_failures, at = len(search.worker_failures), len(search.lines)
    host = lose(search, workers, hit)
    assert search.wait_for(lambda: len(search.worker_failures) > worker_failures) <= NOTICED
    search.wait_for(lambda: any(line.address != host.address for line in search.lines[at:]))
    output = search.finish()
    assert "Traceback" not in output
    assert info(search.run)["status"] == "finished"
    assert_kept(before, digits(search.run))
    assert_whole(search.run, 2)
    assert [len(lines_of(search.run / f"trials/{number:05d}/result.json")) for number in (0, 1)] == [
        EPOCHS
    ] * 2
    assert_replays(search.run, FeatureStore.open(lab.shared / "store"))


@nightly
@pytest.mark.parametrize("fault", FAULTS)
def test_a_trial_whose_node_is_lost_goes_on_on_another_and_that_is_noticed_in_time(
    fault: str, tmp_path: Path
) -> None:
    with Lab(tmp_path / "lab", patch=slow(0.3)) as lab:
        node_lost(lab, FAULTS[fault])


@mutation
def test_with_the_health_checks_of_ray_a_cut_link_is_not_noticed_in_time(tmp_path: Path) -> None:
    ours = {name: value for name, value in cluster_environment().items() if "health_check" not in name}
    with (
        Lab(tmp_path / "lab", ours, patch=slow(0.3)) as lab,
        pytest.raises(AssertionError, match=r"<= 15\.0"),
    ):
        node_lost(lab, Host.cut_link)


@mutation
def test_without_another_try_the_trial_of_a_lost_node_fails(tmp_path: Path) -> None:
    patch = {**slow(0.3), "tune.execution.failure_policy": "MAX_WORKER_FAILURES = 0\n"}
    with (
        Lab(tmp_path / "lab", patch=patch) as lab,
        pytest.raises(AssertionError, match=r"too early|not within"),
    ):
        node_lost(lab, kill_raylet)


@nightly
def test_lost_nodes_and_a_trials_own_exception_are_counted_apart(tmp_path: Path) -> None:
    """Lost, raised once, lost again: each is made good."""
    raised = tmp_path / "raised"
    patch = slow(0.3)
    patch["tune.execution.trainable"] += (
        "_whole_epoch = _train_until\n"
        "def _train_until(trainer, epoch):\n"
        f"    raised = Path({str(raised)!r})\n"
        "    if epoch == 20 and not raised.exists():\n"
        "        raised.touch()\n"
        "        raise RuntimeError('only once')\n"
        "    _whole_epoch(trainer, epoch)\n"
    )
    with Lab(tmp_path / "lab", patch=patch) as lab:
        search, workers = begin(lab, "--trials", "1", "--epochs", "40", "--concurrent", "1")
        first = lose(search, workers, kill_raylet)
        search.wait_for(lambda: first.name != host_of_last(search, workers))
        lab.bring_up(first, head=lab.hosts["head"])
        search.wait_for(lambda: search.lines[-1].epoch >= 22)
        assert raised.exists()
        lose(search, workers, kill_raylet)
        search.finish()
        assert len(search.worker_failures) == 3
        assert_whole(search.run, 1)
        assert search.lines[-1].epoch == 40 or search.lines[-1].trial.startswith("refit")
        assert len(lines_of(search.run / "trials/00000/result.json")) == 40


def host_of_last(search: Search, hosts: Sequence[Host]) -> str:
    """Where the last epoch that was logged was trained."""
    return next(host.name for host in hosts if host.address == search.lines[-1].address)


def head_lost(lab: Lab) -> None:
    one, two, three = lab.cluster("one", "two", "three")
    search = Search(lab)
    search.begin(
        one, small_store(lab), "--trials", "5", "--epochs", "12", "--grace", "3", "--concurrent", "2"
    )
    trials = search.run / "trials"
    search.wait_for(lambda: any(line.content["done"] for line in search.lines) and bool(search.unfinished()))
    search.wait_for(lambda: any(history.ended for history in histories(trials)))
    finished = [history.name for history in histories(trials) if history.ended]
    kept = {name: contents(trials / name) for name in finished}
    before = digits(search.run)
    assert len(finished) < 5
    one.power_off()
    assert search.process is not None
    assert search.process.wait(timeout=60) != 0, "it had ended by itself"
    three.end_all()
    two.end_all()
    lab.form(two, three)
    search.resume(two)
    output = search.finish()
    assert f"resuming 5 trials: {len(finished)} finished" in output
    assert {name: contents(trials / name) for name in finished} == kept
    assert_kept(before, digits(search.run))
    assert_whole(search.run, 5)
    assert_decisions(search.run, search.lines)
    assert_replays(search.run, FeatureStore.open(lab.shared / "store"))


def histories(trials: Path) -> list[TrialHistory]:
    return [read_history(trials, folder.name) for folder in sorted(trials.glob("0*"))]


def contents(trial: Path) -> dict[str, bytes]:
    return {
        path.relative_to(trial).as_posix(): path.read_bytes() for path in trial.rglob("*") if path.is_file()
    }


@nightly
def test_a_search_whose_head_is_lost_goes_on_on_a_new_cluster(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", patch=slow(0.3)) as lab:
        head_lost(lab)


@mutation
def test_a_search_that_does_not_go_on_with_begun_trials_is_not_whole_on_a_new_cluster(tmp_path: Path) -> None:
    patch = {**slow(0.3), "tune.algorithms.study": "def is_resumable(row, history):\n    return False\n"}
    with Lab(tmp_path / "lab", patch=patch) as lab, pytest.raises(AssertionError) as raised:
        head_lost(lab)
    assert "assert_whole" in [entry.name for entry in raised.traceback]


# --- chaos ----------------------------------------------------------------------------------------------------

Lines = list[dict[str, Any]]


def change_a_digit(lines: Lines) -> Lines:
    lines[1]["loss_mil"] *= 1 + 1e-15
    return lines


TAMPERING: dict[str, Callable[[Lines], Lines]] = {
    "a digit": change_a_digit,
    "an epoch twice": lambda lines: [*lines[:2], *lines[1:]],
    "an epoch missing": lambda lines: [*lines[:1], *lines[2:]],
    "the last epoch missing": lambda lines: lines[:-1],
    "another order": lambda lines: [lines[1], lines[0], *lines[2:]],
}


@nightly
def test_a_search_survives_chaos_on_three_hosts_and_its_proof_sees_what_is_wrong(tmp_path: Path) -> None:
    trials = 8
    with Lab(tmp_path / "lab", patch=slow(0.3)) as lab:
        chaos = Chaos(lab, seed=0)
        chaos.run(small_store(lab), trials)
    run, lines = chaos.search.run, chaos.search.lines
    store = FeatureStore.open(lab.shared / "store")
    assert len(chaos.faults) >= 5
    assert_promise(run, store, trials, chaos.logs, lines)
    for what, tamper in TAMPERING.items():
        copy = shutil.copytree(run, tmp_path / what)
        log = copy / "trials" / "00002" / "result.json"
        log.write_text("".join(f"{json.dumps(line)}\n" for line in tamper(lines_of(log))))
        with pytest.raises(AssertionError):
            assert_promise(copy, store, trials, [], lines)
        with pytest.raises(AssertionError):
            assert_seen_once(copy, lines)
