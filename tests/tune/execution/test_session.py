"""A local Ray has a folder short enough for its sockets, and listens on the loopback address and nowhere else."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from macil.errors import UsageError
from tune.execution import session
from tune.execution.session import ROOT, ray_folder

_LISTEN = "0A"

# As if a later Ray took the network's address in any case.
_ANOTHER_RAY = """
from ray._private import services
services.resolve_ip_for_localhost = lambda host: services.node_ip_address_from_perspective(None)
from tune.execution.session import quiet_ray, ray_running
from tune.planning.resources import Machine
quiet_ray()
with ray_running(None, Machine(cpus=1, gpus=0), debug=False):
    print("running")
"""


def listening(pids: set[int]) -> dict[tuple[str, int], str]:
    """Address and port -> process of every TCP socket that one of the processes listens on."""
    inodes: dict[str, str] = {}
    for pid in pids:
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115 (no file)
        except OSError:
            continue  # ended meanwhile
        inodes |= {link[8:-1]: f"{name} ({pid})" for link in links if link.startswith("socket:[")}
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and fields[9] in inodes:
                address, port = fields[1].split(":")
                found[_address(address), int(port, 16)] = inodes[fields[9]]
    return found


def _address(text: str) -> str:
    words = [struct.pack("<I", int(text[start : start + 8], 16)) for start in range(0, len(text), 8)]
    packed = b"".join(words)
    mapped = b"\0" * 10 + b"\xff\xff"
    if len(packed) == 16 and packed.startswith(mapped):
        packed = packed[12:]
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def descendants(root: int) -> set[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                stat = (path / "stat").read_text()
            except OSError:
                continue
            parents[int(path.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def test_a_long_temporary_folder_is_left_for_a_short_one_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert ray_folder() == Path("/tmp/ray")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("slurm-job" * 9)))
    assert ray_folder() == Path("/tmp/ray")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: Ray's sockets and logs are in /tmp/ray: {os.environ['TMPDIR']}/ray has ")
    monkeypatch.setenv("RAY_TMPDIR", "/proc/mine")
    assert ray_folder() == Path("/tmp/ray")
    assert "/tmp/ray: cannot write /proc/mine/ray: /proc takes nothing new" in capsys.readouterr().err


def test_without_a_short_folder_the_message_says_what_was_tried_and_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(session, "_LONGEST_FOLDER", 4)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(UsageError, match="no folder for Ray's sockets") as refused:
        ray_folder()
    assert str(refused.value).endswith("; set RAY_TMPDIR to a short one that you may write to")
    assert all(f"{each}/ray has " in str(refused.value) for each in (tmp_path, "/tmp", "/var/tmp"))
    assert not (tmp_path / "ray").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the length of a path is the system's")
def test_the_longest_folder_holds_a_socket_and_a_longer_one_none(tmp_path: Path) -> None:
    rest = "/session_2026-11-30_09-41-00_123456_1234567/sockets/plasma_store"
    short = Path("/tmp") / tmp_path.name[-20:] / ("x" * 60)
    folder = str(short)[: session._LONGEST_FOLDER]
    (Path(folder + rest).parent).mkdir(parents=True)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(folder + rest)
        with socket.socket(socket.AF_UNIX) as one, pytest.raises(OSError, match="too long"):
            one.bind(f"{folder}x{rest}")
    finally:
        shutil.rmtree(short.parent)


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_listens_beyond_loopback(tmp_path: Path) -> None:
    import ray

    started, end = tmp_path / "started", tmp_path / "end"

    @ray.remote
    def task(started: Path, end: Path) -> None:
        started.with_suffix(".new").write_text(str(os.getpid()))
        started.with_suffix(".new").rename(started)
        while not end.exists():
            time.sleep(0.02)

    running = task.remote(started, end)
    try:
        deadline = time.monotonic() + 200
        while not started.exists():
            assert time.monotonic() < deadline, "no task ran in 200 s"
            time.sleep(0.05)
        worker = int(started.read_text())
        found = listening(descendants(os.getpid()))
    finally:
        end.touch()
        ray.get(running)
    # All that is known to listen was looked at: another name may only be added.
    names = {name.split(" (")[0] for name in found.values()}
    assert {"raylet", "gcs_server", "ray::RuntimeEnv"} <= names, found
    assert any(f"({worker})" in name for name in found.values()), found
    assert all(ipaddress.ip_address(address).is_loopback for address, _ in found), found


@pytest.mark.ray
@pytest.mark.nightly
def test_a_ray_that_would_listen_beyond_loopback_is_ended_and_named() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ANOTHER_RAY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    assert "running" not in done.stdout
    assert "would listen on" in done.stderr.splitlines()[-1]
