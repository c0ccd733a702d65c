"""Searches on a cluster wait for its workers, say what they wait for and where trials run, and give up with reasons."""

from __future__ import annotations

import io
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.autoscaler._private.local.config import LOCAL_CLUSTER_NODE_TYPE
from ray.cluster_utils import Cluster as Nodes
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]
from rich.console import Console

from macil.commands import cli
from macil.data.store.feature_store import FeatureStore
from macil.errors import UsageError
from tests.support.repository import INJECTED
from tests.support.search_command import SMALL, Command, finish, info, lines_of, start, stop_when
from tune.cluster import workers as cluster
from tune.cluster.workers import (
    WAIT_VARIABLE,
    Autoscaler,
    Cluster,
    Host,
    Needs,
    TrialResources,
    ask_autoscaler,
    hosts_now,
    joined,
)
from tune.commands.search import search
from tune.execution.progress import Display
from tune.execution.session import quiet_ray, ray_running
from tune.planning.resources import this_machine

_SMALL_NODE: dict[str, Any] = {"object_store_memory": 80 * 2**20}
# Without a refit, which would train on one of the workers only.
TRIALS = ["--trials", "4", "--epochs", "2", "--no-asha", "--protocol", "published"]
# Trials are short: without this the first worker would have done them all before another one has started.
TOGETHER = """
import time as _time
_train = Trainer.train_epoch
def train_epoch(self):
    run = Path({run!r})
    until = _time.monotonic() + 60
    while len(list(run.glob("trials/*/record.json"))) < 2 and _time.monotonic() < until:
        _time.sleep(0.05)
    while (run / "hold").exists() and _time.monotonic() < until:
        _time.sleep(0.05)
    return _train(self)
Trainer.train_epoch = train_epoch
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def nodes(folder: Path, without_ray: Callable[[], None]) -> Iterator[Nodes]:
    """A cluster of a head without CPUs, as cluster.yaml has it, and no worker yet; its workers take TOGETHER along."""
    without_ray()
    quiet_ray()
    patch = {"tune.execution.trainable": TOGETHER.format(run=str(folder / "runs" / "whole"))}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(INJECTED))
        environment.setenv("MACIL_TEST_PATCH", json.dumps(patch))
        environment.setenv("OMP_NUM_THREADS", "1")
        made = Nodes(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **_SMALL_NODE}
        )
        yield made
        made.shutdown()


@pytest.fixture
def connected(nodes: Nodes) -> Iterator[str]:
    """This process as a driver of the cluster."""
    with ray_running(nodes.address, this_machine(), debug=False):
        deadline = time.monotonic() + 60
        while ask_autoscaler().there is None:  # it has its first word some seconds after the head is up
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield str(nodes.address)


def nothing() -> None:
    """In place of a look for a wish to stop."""


def wait_for_message(command: Command, text: str) -> None:
    deadline = time.monotonic() + 120
    while text not in command.log.read_text():
        assert command.process.poll() is None, command.log.read_text()
        assert time.monotonic() < deadline, f"{text!r} was not logged:\n{command.log.read_text()}"
        time.sleep(0.05)


@pytest.mark.ray
@pytest.mark.nightly
def test_a_search_without_workers_gives_up_with_what_it_asked_for_and_what_there_is(
    connected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WAIT_VARIABLE, "2")
    messages: list[str] = []
    needs = Needs(TrialResources(4, 0.5), concurrent=3, total=3)
    with pytest.raises(UsageError) as refused, joined(connected, needs, messages.append, nothing):
        pytest.fail("the head has no CPUs, so there was no room")
    (host,) = hosts_now()
    text = str(refused.value)
    assert text.startswith(
        f"--address {connected}: no host can hold a trial (4 CPUs and 0.5 GPUs), and none came"
    )
    assert f"hosts: {host.name}: 0 CPUs, 0 GPUs" in text
    assert WAIT_VARIABLE in text
    assert "--cpus-per-trial" in text
    (waits,) = messages
    assert waits.startswith("waiting for workers: no host can hold a trial (4 CPUs and 0.5 GPUs)")
    assert "no autoscaler" in waits


@pytest.mark.ray
def test_while_it_waits_a_search_heeds_a_wish_to_stop(connected: str) -> None:
    looks = iter([None, None, KeyboardInterrupt])

    def check() -> None:
        if (stop := next(looks)) is not None:
            raise stop

    began = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        joined(connected, Needs(TrialResources(1, 0), 1, 1), no_log, check),
    ):
        pytest.fail("there was no room")
    assert time.monotonic() - began < 10


def no_log(_: str) -> None:
    """In place of a terminal."""


@pytest.mark.ray
@pytest.mark.nightly
def test_ctrl_c_while_a_search_waits_ends_it_and_says_how_to_go_on(
    nodes: Nodes, folder: Path, demo_store: FeatureStore
) -> None:
    where = ["--address", nodes.address, "--shared-storage", "--name", "stopped"]
    command = start("--data", str(demo_store.path), *SMALL, *TRIALS, *where, cwd=folder)
    waits = lambda: "waiting for workers" in command.log.read_text()  # noqa: E731
    stop_when(command, waits, signal.SIGINT, group=False)
    code, output = finish(command)
    assert code == 130
    assert re.search(r"go on: .*search\.py --resume stopped", output)
    assert info(folder / "runs" / "stopped")["status"] == "interrupted"


@pytest.mark.ray
def test_a_search_waits_for_workers_trains_on_all_of_them_and_tells_where(
    nodes: Nodes, folder: Path, demo_store: FeatureStore, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder / "runs" / "whole"
    where = ["--address", nodes.address, "--shared-storage", "--name", "whole", "--no-report"]
    command = start("--data", str(demo_store.path), *SMALL, *TRIALS, *where, cwd=folder)
    wait_for_message(command, "waiting for workers: no host can hold a trial (1 CPU)")
    (run / "hold").touch()
    workers = [nodes.add_node(num_cpus=1, **_SMALL_NODE) for _ in range(2)]
    names = {worker.node_id: f"#{worker.node_id[-4:]}" for worker in workers}
    wait_for_message(command, "waited")
    deadline = time.monotonic() + 120
    while len(list(run.glob("trials/*/record.json"))) < 2:
        assert time.monotonic() < deadline, command.log.read_text()
        time.sleep(0.05)
    with pytest.raises(SystemExit) as stop:
        cli.main(search, ["--status", "whole", "--storage", str(run.parent)])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert re.search(r"status +│ running", shown), shown
    assert re.search(r"trials +│ 0 of 4 done, 2 running, 2 not begun", shown), shown
    (run / "hold").unlink()
    code, output = finish(command)
    assert code == 0, output
    assert "trial at once (1 CPU each), as many as the CPUs hold" in output.replace("trials", "trial")
    lines = re.findall(r"trial (\d+) finished after 2/2 epochs on \S+(#\w{4}), best test AP", output)
    assert sorted(number for number, _ in lines) == ["00000", "00001", "00002", "00003"]
    assert {host for _, host in lines} == set(names.values()), "both workers"
    assert re.search(r"\d/4 done, 1 running on 1 host \(\S+ 1\), best", output)
    assert all(lines_of(run / f"trials/0000{number}/result.json")[-1]["hostname"] for number in range(4))
    assert "asked for room" not in output, "there is no autoscaler"


# --- messages, without Ray ------------------------------------------------------------------------------------


def room(needs: Needs, *hosts: tuple[float, float]) -> str:
    messages: list[str] = []
    named = [Host(str(number), f"h{number}", cpus, gpus) for number, (cpus, gpus) in enumerate(hosts)]
    Cluster("there", needs, messages.append, nothing)._log_room(named)
    return messages[0]


@pytest.mark.parametrize(
    ("needs", "hosts", "text"),
    [
        (
            Needs(TrialResources(8, 1), 40, 40),
            [(0, 0), (8, 1), (8, 1), (8, 1)],
            "3 hosts, 24 CPUs, 3 GPUs: 3 trials at once (8 CPUs and 1 GPU each), as many as the GPUs hold",
        ),
        (
            Needs(TrialResources(8, 1), 2, 40), [(8, 2), (8, 2)],
            "2 trials at once (8 CPUs and 1 GPU each), as --concurrent says",
        ),
        (
            Needs(TrialResources(8, 1), 9, 40), [(8, 4)],
            "1 trial at once (8 CPUs and 1 GPU each), as many as the CPUs hold",
        ),
        (
            Needs(TrialResources(1, 0.25), 9, 40), [(8, 1)],
            "4 trials at once (1 CPU and 0.25 GPUs each), as many as the GPUs",
        ),
        (
            Needs(TrialResources(1, 0), 3, 3), [(4, 0)],
            "3 trials at once (1 CPU each), which are all",
        ),
        (
            Needs(TrialResources(3, 0), 9, 9), [(4, 0), (4, 0)],
            "2 trials at once (3 CPUs each), as many as the CPUs hold",
        ),
        (
            Needs(TrialResources(3, 0), 9, 9), [(0, 0)],
            "0 hosts, 0 CPUs, 0 GPUs: 0 trials at once",
        ),
    ],
)  # fmt: skip
def test_what_there_is_says_how_many_trials_it_holds_and_why_no_more(
    needs: Needs, hosts: list[tuple[float, float]], text: str
) -> None:
    assert text in room(needs, *hosts)


def first_autoscaler(**report: Any) -> Autoscaler:
    """As it writes its status under a key of Ray's control service."""
    head = {"node_type_mapping": {"10.0.0.1": "head"}}
    return cluster._first_autoscaler(json.dumps({"autoscaler_report": {**head, **report}}).encode())


def test_a_cluster_put_together_by_hand_is_known_to_have_no_autoscaler() -> None:
    mirrored = "24f46c39c7b5726c1d3aa8b939a1fbe927661674cf6a2f715623b68b"
    assert first_autoscaler(node_type_mapping={mirrored: f"node_{mirrored}"}).there is False
    assert first_autoscaler(node_type_mapping={}).there is None
    assert cluster._first_autoscaler(b"{").there is None
    assert cluster._second_autoscaler(GetClusterStatusReply()).there is None


def test_the_first_autoscaler_says_what_it_starts_and_what_it_cannot_start() -> None:
    gone = {
        "is_available": False,
        "unavailable_node_information": {"category": "Spot", "description": "no\n capacity"},
    }
    found = first_autoscaler(
        pending_launches={"gpu": 2},
        pending_nodes=[["10.0.0.7", "gpu", "setting-up"]],
        failed_nodes=[["10.0.0.9", "gpu"]],
        node_availability_summary={"node_availabilities": {"gpu": gone, "cpu": {"is_available": True}}},
    )
    assert found.there is True
    assert found.starting == {"gpu": 3}
    assert found.trouble == ("gpu: no capacity", "1 gpu failed")


def test_the_second_autoscaler_says_what_it_starts_and_what_it_cannot_start() -> None:
    reply = GetClusterStatusReply()
    reply.autoscaling_state.autoscaler_state_version = 7
    assert cluster._second_autoscaler(reply).there is False
    reply.cluster_resource_state.node_states.add().ray_node_type_name = "head"
    pending = reply.autoscaling_state.pending_instance_requests.add()
    pending.ray_node_type_name, pending.count = "gpu", 2
    failed = reply.autoscaling_state.failed_instance_requests.add()
    failed.ray_node_type_name, failed.reason = "gpu", "no\n capacity"
    for _ in range(2):
        request = reply.autoscaling_state.infeasible_resource_requests.add()
        request.resources_bundle["CPU"] = 64
    found = cluster._second_autoscaler(reply)
    assert found.there is True
    assert found.starting == {"gpu": 2}
    assert found.trouble == ("gpu: no capacity",)
    assert found.impossible == {frozenset({("CPU", 64.0)}): 2}


def test_hosts_that_a_file_lists_are_not_taken_to_be_too_small_before_they_have_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = first_autoscaler(node_type_mapping={"10.0.0.1": LOCAL_CLUSTER_NODE_TYPE})
    assert listed.there is True
    assert listed.fixed
    assert not first_autoscaler().fixed
    reply = GetClusterStatusReply()
    reply.autoscaling_state.autoscaler_state_version = 7
    reply.cluster_resource_state.node_states.add().ray_node_type_name = LOCAL_CLUSTER_NODE_TYPE
    assert cluster._second_autoscaler(reply).fixed
    # Such hosts are there or not; machines of a provider may be sold out for hours.
    monkeypatch.delenv(WAIT_VARIABLE, raising=False)
    assert cluster._wait_limit(listed) == cluster._wait_limit(Autoscaler(there=False)) == 600
    assert cluster._wait_limit(first_autoscaler()) is None
    monkeypatch.setenv(WAIT_VARIABLE, "30")
    assert cluster._wait_limit(first_autoscaler()) == cluster._wait_limit(listed) == 30


def trial(number: str, actor: Any = None) -> Any:
    """As much of one of Tune's trials as is looked at."""
    state = SimpleNamespace(ray_actor=actor)
    return SimpleNamespace(trial_id=number, relative_logdir=number, temporary_state=state)


def test_a_trial_without_a_worker_has_no_host(without_ray: Callable[[], None]) -> None:
    without_ray()
    assert Cluster("there", Needs(TrialResources(1, 0), 1, 1), no_log, nothing).host_of(trial("0")) == ""
    assert not ray.is_initialized()


class OnHosts(Cluster):
    """One whose trials are on the hosts that the test names."""

    def __init__(self, hosts: dict[str, str]) -> None:
        super().__init__("there", Needs(TrialResources(1, 0), 9, 9), no_log, nothing)
        self.hosts = hosts

    def host_of(self, trial: Any) -> str:
        return self.hosts[trial.trial_id]


def display(hosts: dict[str, str] | None) -> Display:
    shown = Display(Console(file=io.StringIO(), width=120), {"trials": 40}, {"trials": 5})
    shown.cluster = None if hosts is None else OnHosts(hosts)
    shown._kind = "trials"
    for number in {"00000": ""} if hosts is None else hosts:
        shown.update(trial(number), "running", {"training_iteration": 2, "selection_score": 0.25})
    return shown


def drawn(shown: Display) -> str:
    text = io.StringIO()
    Console(file=text, width=120).print(shown._table())
    return text.getvalue()


def test_a_cluster_s_trials_are_shown_with_their_hosts_and_counted_by_them() -> None:
    shown = display({"00000": "h1", "00001": "h2", "00002": "h1", "00003": ""})
    assert shown.summary == "0/40 done, 4 running on 2 hosts (h1 2, h2 1), best 0.2500 (00000)"
    assert re.search(r"00001 │ running │ +2/5 │ +0.2500 │ h2 ", drawn(shown))
    one = display({"00000": "h1"})
    assert one.summary.startswith("0/40 done, 1 running on 1 host (h1 1), best")


def test_a_trial_that_went_on_elsewhere_is_shown_there() -> None:
    shown = display({"00000": "h1"})
    assert isinstance(shown.cluster, OnHosts)
    shown.cluster.hosts["00000"] = "h2"
    shown.update(trial("00000"), "running")
    assert "1 running on 1 host (h2 1)" in shown.summary


def test_of_many_hosts_some_are_named() -> None:
    shown = display({f"{number:05d}": f"h{number:02d}" for number in range(20)})
    assert (
        "20 running on 20 hosts (h00 1, h01 1, h02 1, h03 1, h04 1, h05 1, h06 1, 13 more)" in shown.summary
    )


def test_a_cluster_that_has_lost_its_workers_is_reported_to_wait_for_them() -> None:
    shown = display({})
    assert shown.cluster is not None
    shown.cluster.short = True
    assert shown.summary == "0/40 done, 0 running, waiting for workers"


def test_on_one_machine_nothing_is_reported_of_hosts() -> None:
    shown = display(None)
    assert shown.summary == "0/40 done, 1 running, best 0.2500 (00000)"
    assert "host" not in drawn(shown)
