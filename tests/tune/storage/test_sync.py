"""A run in a bucket: what the driver writes gets there, in an order that keeps it whole; one driver at a time."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tune.storage.sync
from macil.errors import UsageError
from macil.io.files import write_text_atomic
from macil.io.remote import Remote
from tests.support.s3 import Link
from tune.results.run import load_run
from tune.storage.names import ACCESS_LOG, LEASE_FILE, ORIGIN_FILE
from tune.storage.retry import RETRY_VARIABLE, StorageError
from tune.storage.run_folder import Workspace, clear, existing_workspace, locked, new_workspace
from tune.storage.sync import BucketSync


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tune.storage.sync, "_PERIOD", 0.02)
    monkeypatch.setattr(tune.storage.sync, "RENEWAL", 0.1)
    monkeypatch.setattr(tune.storage.sync, "WATCHED", 2.5)


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def begin(run: Workspace) -> None:
    clear(run)
    run.update(name=run.name, status="running", phase="trials")


def put_by_worker(bucket: str, name: str, content: bytes) -> None:
    Remote(f"{bucket}/runs/one").write(name, content)


def test_what_the_driver_writes_is_in_the_bucket_soon_and_at_the_end_all_of_it(bucket: str) -> None:
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)
    there = Remote(f"{bucket}/runs/one")
    with locked(run):
        begin(run)
        log = run.path / "trials/00000/result.json"
        log.parent.mkdir(parents=True)
        log.write_text("one\n")
        wait_until(lambda: there.exists("trials/00000/result.json"))
        log.write_text("one\ntwo\n")
        run.sync.flush()
        assert there.read("trials/00000/result.json") == b"one\ntwo\n"
        (run.path / ".hidden").touch()
        (run.path / "trials/experiment_state-2026.json").touch()
        (run.path / "report").mkdir()
        (run.path / "report/report.html").write_text("page")
    assert set(there.files()) == {"run.json", "trials/00000/result.json", "report/report.html"}


def test_a_file_of_the_same_size_and_time_is_put_again(bucket: str) -> None:
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)
    there = Remote(f"{bucket}/runs/one")
    with locked(run):
        begin(run)
        for text in ("one", "two"):
            write_text_atomic(run.path / "note.txt", text)
            os.utime(run.path / "note.txt", ns=(1, 1))
            run.sync.flush()
            assert there.read("note.txt") == text.encode()


def test_what_the_driver_removes_is_removed_in_the_bucket(bucket: str) -> None:
    """The error of a trial that is tried again would keep it from winning."""
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)
    error = run.path / "trials/00000/error.txt"
    with locked(run):
        begin(run)
        error.parent.mkdir(parents=True)
        error.write_text("failed")
    again = existing_workspace(f"{bucket}/runs", "one")
    with locked(again):
        assert error.exists()
        error.unlink()
    assert not Remote(f"{bucket}/runs/one").exists("trials/00000/error.txt")


def test_an_access_that_somebody_logged_meanwhile_is_brought_here(bucket: str) -> None:
    """A report of the running search, from another machine: the driver's own access is not the first."""
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)
    with locked(run):
        begin(run)
        put_by_worker(bucket, ACCESS_LOG, b"one\n")
        run.sync.pull()
        assert (run.path / ACCESS_LOG).read_bytes() == b"one\n"
        (run.path / ACCESS_LOG).write_bytes(b"one\ntwo\n")
        run.sync.pull()
        assert (run.path / ACCESS_LOG).read_bytes() == b"one\ntwo\n"
    assert Remote(f"{bucket}/runs/one").read(ACCESS_LOG) == b"one\ntwo\n"


def test_the_lease_is_renewed_while_something_large_is_put(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)
    there = Remote(f"{bucket}/runs/one")
    with locked(run):
        begin(run)
        upload = Remote.upload

        def slowly(self: Remote, local: Path, name: str) -> None:
            before = there.read(LEASE_FILE)
            wait_until(lambda: there.read(LEASE_FILE) != before)
            upload(self, local, name)

        monkeypatch.setattr(Remote, "upload", slowly)
        (run.path / "plan.json").write_text("{}")
        run.sync.flush()
    assert there.read("plan.json") == b"{}"


def test_the_study_never_knows_more_than_the_logs(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)
    sync = run.sync
    assert isinstance(sync, BucketSync)
    put: list[tuple[str, bytes]] = []
    write, upload = Remote.write, Remote.upload

    def record(self: Remote, name: str, content: bytes) -> None:
        write(self, name, content)
        put.append((name, content))

    def record_file(self: Remote, local: Path, name: str) -> None:
        if name.endswith("result.json"):  # the driver goes on while the log is on its way
            (run.path / "study.journal").write_text("row\n")
        upload(self, local, name)
        put.append((name, local.read_bytes()))

    with locked(run):
        begin(run)
        sync.flush()
        monkeypatch.setattr(Remote, "write", record)
        monkeypatch.setattr(Remote, "upload", record_file)
        with sync._lock:
            (run.path / "trials/00000").mkdir(parents=True)
            (run.path / "trials/00000/result.json").write_text("one\n")
            (run.path / "study.journal").write_text("before\n")
            put.clear()
            sync._push()
            assert [pair for pair in put if pair[0] != LEASE_FILE] == [
                ("trials/00000/result.json", b"one\n"),
                ("study.journal", b"before\n"),
            ]
            sync._push()
        assert put[-1] == ("study.journal", b"row\n")


def test_what_workers_put_is_brought_here_and_never_put_back(bucket: str) -> None:
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)
    there = Remote(f"{bucket}/runs/one")
    with locked(run):
        begin(run)
        for name in ("record.json", "checkpoint_000000/scores.npz", "checkpoint_000000/trainer.pt"):
            put_by_worker(bucket, f"trials/00000/{name}", b"1")
        run.sync.pull()
        trial = run.path / "trials/00000"
        assert (trial / "record.json").read_bytes() == b"1"
        assert (trial / "checkpoint_000000/scores.npz").read_bytes() == b"1"
        assert not (trial / "checkpoint_000000/trainer.pt").exists(), "weights stay"
        put_by_worker(bucket, "trials/00000/record.json", b"22")
        (trial / "checkpoint_000000/scores.npz").write_bytes(b"older")
        run.sync.flush()
        assert there.read("trials/00000/record.json") == b"22"
        assert there.read("trials/00000/checkpoint_000000/scores.npz") == b"1"
        run.sync.fetch(trial)
        assert (trial / "checkpoint_000000/trainer.pt").read_bytes() == b"1"
        there.child("trials", "00000", "checkpoint_000000").delete_all()
        run.sync.pull()
        assert not (trial / "checkpoint_000000").exists(), "it was pruned"


def test_a_run_is_resumed_from_the_bucket_on_any_machine(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with locked(new_workspace(f"{bucket}/runs", "one", overwrite=False)) as _:
        pass
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)
    with locked(run):
        begin(run)
        (run.path / "study.journal").write_text("rows\n")
    put_by_worker(bucket, "trials/00000/checkpoint_000000/scores.npz", b"1")
    put_by_worker(bucket, "trials/00000/checkpoint_000000/trainer.pt", b"1")
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "another"))
    again = existing_workspace(f"{bucket}/runs", "one")
    assert again.path != run.path
    assert again.info.phase == "trials"
    stale = again.path / "trials/00009/result.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("of an older copy")
    with locked(again):
        assert (again.path / "study.journal").read_text() == "rows\n"
        assert (again.path / "trials/00000/checkpoint_000000/scores.npz").exists()
        assert not stale.exists()
    assert existing_workspace("./runs", f"{bucket}/runs/one").bucket == f"{bucket}/runs/one"


def test_after_a_kill_the_copy_of_this_machine_may_know_more_and_is_kept(bucket: str) -> None:
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)
    sync = run.sync
    assert isinstance(sync, BucketSync)
    run.path.mkdir(parents=True)
    sync.open()
    begin(run)
    run.sync.flush()
    sync._end()  # as if killed: the lease stays
    log = run.path / "trials/00000/result.json"
    log.parent.mkdir(parents=True)
    log.write_text("the last second\n")
    sync._holder = "process 999999999 on elsewhere"
    again = existing_workspace(f"{bucket}/runs", "one")
    with locked(again):
        assert log.read_text() == "the last second\n"
    assert Remote(f"{bucket}/runs/one").read("trials/00000/result.json") == b"the last second\n"


def _hold(bucket: str, holder: str) -> None:
    lease = {"token": "another", "holder": holder, "turn": "1"}
    Remote(f"{bucket}/runs/one").write(LEASE_FILE, json.dumps(lease).encode())


def test_a_run_that_another_machine_holds_is_refused(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(new_workspace(f"{bucket}/runs", "one", overwrite=False)) as _:
        pass
    _hold(bucket, "process 7 on h9")
    renewing = threading.Event()

    def renew() -> None:
        number = 1
        while not renewing.wait(0.2):
            number += 1
            lease = {"token": "another", "holder": "process 7 on h9", "turn": str(number)}
            Remote(f"{bucket}/runs/one").write(LEASE_FILE, json.dumps(lease).encode())

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        run = new_workspace(f"{bucket}/runs", "one", overwrite=True)
        with pytest.raises(UsageError, match="in use by process 7 on h9"), locked(run):
            pass
    finally:
        renewing.set()
        thread.join()
    assert "looking for" in capsys.readouterr().err


def test_a_run_whose_holder_is_gone_is_taken_over(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    _hold(bucket, "process 7 on h9")
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)
    with locked(run):
        begin(run)
    assert "held by process 7 on h9" in capsys.readouterr().err
    assert LEASE_FILE not in Remote(f"{bucket}/runs/one").files()


def test_a_driver_whose_run_was_taken_over_stops(bucket: str) -> None:
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)

    def work() -> None:
        with locked(run):
            begin(run)
            _hold(bucket, "process 7 on h9")
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                run.sync.check()
                time.sleep(0.05)

    with pytest.raises(StorageError, match="taken over by process 7 on h9"):
        work()
    assert json.loads(Remote(f"{bucket}/runs/one").read(LEASE_FILE))["token"] == "another", "it is theirs"


def test_a_bucket_out_of_reach_is_waited_for(bucket: str, s3: str) -> None:
    link = Link(s3)
    link.connect()
    storage = f"{bucket}/runs?endpoint_override={link.address}&scheme=http"
    run = new_workspace(storage, "one", overwrite=False)
    messages: list[str] = []
    waiting = threading.Event()

    def log(text: str) -> None:
        messages.append(text)
        waiting.set()

    def mend() -> None:
        assert waiting.wait(60)
        link.connect()

    with locked(run):
        begin(run)
        run.sync.flush()
        run.sync.report_to(log, lambda: False)
        link.cut()
        (run.path / "plan.json").write_text("{}")
        back = threading.Thread(target=mend)
        back.start()
        run.sync.flush()
        back.join()
    assert "waiting for the storage" in messages[0]
    assert "takes" in messages[-1]
    assert Remote(f"{bucket}/runs/one").read("plan.json") == b"{}"


@pytest.mark.nightly
def test_a_bucket_that_stays_out_of_reach_ends_the_run_with_that_reason(
    bucket: str, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link(s3)
    link.connect()
    again = new_workspace(
        f"{bucket}/runs?endpoint_override={link.address}&scheme=http", "two", overwrite=False
    )
    monkeypatch.setenv(RETRY_VARIABLE, "1")

    def work() -> None:
        with locked(again):
            begin(again)
            again.sync.flush()
            link.cut()
            again.update(status="finished")

    with pytest.raises(StorageError, match=r"cannot write s3://.* go on with --resume"):
        work()


@pytest.mark.parametrize("overwrite", [True, False])
def test_names_that_are_taken(bucket: str, overwrite: bool) -> None:
    Remote(f"{bucket}/runs/thesis").write("chapter.tex", b"x")
    with pytest.raises(UsageError, match="is not a run"):
        new_workspace(f"{bucket}/runs", "thesis", overwrite=overwrite)
    with locked(new_workspace(f"{bucket}/runs", "one", overwrite=False)) as _:
        pass
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)
    with locked(run):
        begin(run)
    if overwrite:
        again = new_workspace(f"{bucket}/runs", "one", overwrite=True)
        with locked(again):
            Remote(f"{bucket}/runs/one").write("trials/00000/record.json", b"{}")
            clear(again)
        assert set(Remote(f"{bucket}/runs/one").files()) == set()
    else:
        with pytest.raises(UsageError, match="exists already"):
            new_workspace(f"{bucket}/runs", "one", overwrite=False)


def test_a_run_that_is_not_there(bucket: str) -> None:
    with pytest.raises(UsageError, match="no run of that name"):
        existing_workspace(f"{bucket}/runs", "none")


def test_a_copy_says_where_its_run_lies(bucket: str) -> None:
    run = new_workspace(f"{bucket}/runs", "one", overwrite=False)
    with locked(run):
        begin(run)
    assert (run.path / ORIGIN_FILE).read_text() == f"{bucket}/runs/one"
    location = load_run(run.path).location
    assert location.shown == f"{bucket}/runs/one"


def test_a_run_whose_lease_is_not_renewed_was_killed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Remote(f"{bucket}/runs/one")
    there.write("run.json", json.dumps({"format_version": 1, "status": "running"}).encode())
    there.write(LEASE_FILE, b"{}")
    assert load_run(there.uri).status == "running"
    monkeypatch.setattr("tune.results.run.EXPIRED", -5.0)
    assert load_run(there.uri).status == "interrupted"
