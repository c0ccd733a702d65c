"""Runs and data in a bucket: searched, killed, cut off and resumed, with the digits of a run on a disk."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from macil.data.store.feature_store import FeatureStore
from macil.io.remote import Remote
from tests.faults.test_search import SAVE_OFTEN, Patch, everyone, slow, together
from tests.support.promise import assert_kept, assert_replays, assert_whole, digits, rows
from tests.support.s3 import Link
from tests.support.search_command import SMALL, Command, finish, start
from tune.results.run import load_run
from tune.storage.location import copy_run
from tune.storage.names import LEASE_FILE
from tune.storage.retry import RETRY_VARIABLE

pytestmark = [pytest.mark.ray]
nightly = pytest.mark.nightly

EPOCHS, TRIALS = 6, 4
SEARCH = [*SMALL, "--epochs", str(EPOCHS), "--grace", "2", "--trials", str(TRIALS), "--concurrent", "1"]


@pytest.fixture
def data(bucket: str, demo_store: FeatureStore) -> str:
    """The demo in a bucket."""
    remote = Remote(f"{bucket}/data/demo.store")
    for file in demo_store.path.iterdir():
        remote.upload(file, file.name)
    return remote.uri


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, demo_store: FeatureStore) -> Path:
    """On a disk, disturbed by nobody."""
    folder = tmp_path_factory.mktemp("unbroken")
    code, output = finish(start("--data", str(demo_store.path), *SEARCH, "--name", "run", cwd=folder))
    assert code == 0, output
    return folder / "runs/run"


@pytest.fixture
def link(s3: str) -> Iterator[Link]:
    made = Link(s3)
    made.connect()
    yield made
    made.cut()


def logged(remote: Remote, number: int) -> int:
    name = f"trials/{number:05d}/result.json"
    return remote.read(name).count(b"\n") if remote.exists(name) else 0


def wait_for_epoch(command: Command, remote: Remote, number: int, epochs: int) -> None:
    deadline = time.monotonic() + 120
    while logged(remote, number) < epochs:
        assert command.process.poll() is None, command.log.read_text()
        assert time.monotonic() < deadline, command.log.read_text()
        time.sleep(0.05)


def copied(remote: Remote, target: Path) -> Path:
    return copy_run(remote, target)


def test_a_search_with_data_and_storage_in_a_bucket(
    bucket: str, data: str, demo_store: FeatureStore, tmp_path: Path
) -> None:
    small = [*SMALL, "--epochs", "2", "--trials", "2", "--concurrent", "1"]
    command = start("--data", data, *small, "--storage", f"{bucket}/runs", "--name", "run", cwd=tmp_path)
    code, output = finish(command)
    assert code == 0, output
    remote = Remote(f"{bucket}/runs/run")
    assert f"run     {remote.uri}, where all of this lies too" in output
    assert f"--replay {remote.uri} " in output
    names = set(remote.files())
    assert LEASE_FILE not in names
    assert {"run.json", "study.journal", "split.json", "model.pt", "report/report.html"} <= names
    assert {"trials/00001/result.json", "trials/00001/checkpoint_000000/trainer.pt"} <= names
    run = copied(remote, tmp_path / "copy")
    assert_whole(run, 2)
    assert_replays(run, demo_store)
    results = load_run(remote.uri)
    assert results.info.data == data
    assert results.trials["ap"].null_count == 0, "the labels were opened once"
    assert not (tmp_path / "runs").exists()


@nightly
def test_a_driver_that_is_killed_is_resumed_on_another_machine(
    bucket: str, data: str, demo_store: FeatureStore, tmp_path: Path, unbroken: Path
) -> None:
    remote = Remote(f"{bucket}/runs/run")
    storage = ["--storage", f"{bucket}/runs"]
    patch = together(SAVE_OFTEN, slow(0.3))
    command = start("--data", data, *SEARCH, *storage, "--name", "run", cwd=tmp_path, patch=patch)
    wait_for_epoch(command, remote, 1, 3)
    os.kill(command.process.pid, signal.SIGKILL)
    command.process.wait()
    before = digits(copied(remote, tmp_path / "before"))
    assert sum(map(len, before.values())) < TRIALS * EPOCHS, "epochs were outstanding"
    another = {"MACIL_CACHE": str(tmp_path / "another")}
    code, output = finish(start("--resume", "run", *storage, cwd=tmp_path, variables=another))
    assert code == 0, output
    assert "resuming 4 trials" in output
    run = copied(remote, tmp_path / "after")
    assert_kept(before, digits(run))
    assert digits(run) == digits(unbroken)
    assert rows(run) == rows(unbroken)


# Who meets the server while it is away: the driver, to whom a trial reports when it has known for long that the server
# does not answer, or a worker, whose checkpoint of the next epoch is due.
MET_BY = {
    "driver": together(
        {"tune.execution.save_policy": "def is_save_due(cost, seconds, epochs):\n    return False\n"},
        everyone(
            "import time; time.sleep(20 if self.config.get('number') == 0 and self._next == 5 else 0.3)"
        ),
    ),
    "workers": together(SAVE_OFTEN, slow(0.3)),
}
AWAY = 40  # seconds; a request that nobody answers is given up after 6


def server_stops(bucket: str, data: str, link: Link, tmp_path: Path, unbroken: Path, patch: Patch) -> None:
    remote = Remote(f"{bucket}/runs/run")
    through = {"AWS_ENDPOINT_URL": f"http://{link.address}"}
    storage = ["--storage", f"{bucket}/runs", "--name", "run"]
    command = start("--data", data, *SEARCH, *storage, cwd=tmp_path, patch=patch, variables=through)
    wait_for_epoch(command, remote, 0, 3)
    link.cut()
    assert command.process.poll() is None
    time.sleep(AWAY)
    before = logged(remote, 0)
    assert command.process.poll() is None, "it waits"
    assert load_run(remote.uri).trials.num_rows >= 1, "the run stays readable"
    link.connect()
    code, output = finish(command)
    assert code == 0, output
    assert "waiting for the storage" in output
    assert before < EPOCHS
    run = copied(remote, tmp_path / "after")
    assert digits(run) == digits(unbroken)
    assert rows(run) == rows(unbroken)


@nightly
@pytest.mark.parametrize("who", MET_BY)
def test_a_server_that_stops_is_waited_for(
    who: str, bucket: str, data: str, link: Link, tmp_path: Path, unbroken: Path
) -> None:
    server_stops(bucket, data, link, tmp_path, unbroken, MET_BY[who])


AT_ONCE = "def with_retry(write, where, **_):\n    return write()\n"
IMPATIENT = {
    "driver": {"tune.storage.sync": AT_ONCE},
    "workers": {"tune.execution.trainable": AT_ONCE},
}


@pytest.mark.mutation
@pytest.mark.parametrize("who", IMPATIENT)
def test_without_waiting_a_server_that_stops_ends_the_run(
    who: str, bucket: str, data: str, link: Link, tmp_path: Path, unbroken: Path
) -> None:
    with pytest.raises(AssertionError):
        server_stops(bucket, data, link, tmp_path, unbroken, together(MET_BY[who], IMPATIENT[who]))


@nightly
def test_a_server_that_stays_away_ends_the_run_which_is_resumed_when_it_is_back(
    bucket: str, data: str, link: Link, tmp_path: Path, unbroken: Path
) -> None:
    remote = Remote(f"{bucket}/runs/run")
    variables = {"AWS_ENDPOINT_URL": f"http://{link.address}", RETRY_VARIABLE: "3"}
    storage = ["--storage", f"{bucket}/runs"]
    patch = together(SAVE_OFTEN, slow(0.3))
    command = start(
        "--data", data, *SEARCH, *storage, "--name", "run", cwd=tmp_path, patch=patch, variables=variables
    )
    wait_for_epoch(command, remote, 1, 2)
    link.cut()
    code, output = finish(command)
    assert code == 1, output
    assert "NETWORK_CONNECTION" in output
    assert "go on with --resume" in output
    before = digits(copied(remote, tmp_path / "before"))
    assert load_run(remote.uri).trials.num_rows == 2
    link.connect()
    code, output = finish(start("--resume", "run", *storage, cwd=tmp_path, variables=variables))
    assert code == 0, output
    run = copied(remote, tmp_path / "after")
    assert_kept(before, digits(run))
    assert digits(run) == digits(unbroken)
    assert rows(run) == rows(unbroken)


@nightly
def test_a_report_is_written_back_into_the_bucket(bucket: str, data: str, tmp_path: Path) -> None:
    from tune.reporting.write import write_report

    remote = Remote(f"{bucket}/runs/run")
    small = [*SMALL, "--epochs", "2", "--trials", "2", "--concurrent", "2", "--storage", f"{bucket}/runs"]
    code, output = finish(start("--data", data, *small, "--name", "run", cwd=tmp_path))
    assert code == 0, output
    remote.delete("report/report.html")
    threads = threading.active_count()
    write_report(remote.uri, figures=False)
    assert remote.exists("report/report.html")
    assert threading.active_count() <= threads + 1
