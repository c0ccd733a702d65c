"""Several hosts on this machine, with Ray clusters on them: see hosts.sh.

Nothing here touches a process outside the hosts: what is killed is looked up by its PID namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.support.repository import INJECTED, ROOT

HOSTS = Path(__file__).with_name("hosts.sh")
PORT = 6379
# Processes of a host, by a part of their command line.
RAYLET = "raylet/raylet"
WORKER = "ray::MacilTrainable"
DRIVER = str(ROOT / "tune" / "search.py")
_FIRST = ("tini -- sleep infinity", "sleep infinity")


def what_is_missing() -> str | None:
    """Why there can be no lab on this machine, None if there can."""
    if os.geteuid() != 0:
        return "hosts of namespaces need root"
    missing = [tool for tool in ("ip", "tini", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (packages iproute2, tini, util-linux)"
    namespaces = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork"]
    bridge = ["ip", "link", "add", "bridge", "type", "bridge"]
    tried = subprocess.run(["unshare", *namespaces, *bridge], capture_output=True, text=True)
    return f"namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else None


def cluster_environment() -> dict[str, str]:
    """What `cluster.yaml` sets for Ray on every node."""
    return ray_environment(yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8")))


def ray_environment(config: Mapping[str, Any]) -> dict[str, str]:
    """What the setup commands of a cluster's file set for Ray on every node."""
    words = [word for command in config["setup_commands"] for word in shlex.split(command)]
    return dict(word.split("=", 1) for word in words if word.startswith("RAY_") and "=" in word)


def slowest_notice(environment: Mapping[str, str]) -> float:
    """Seconds after which Ray has given up a node that is silent, at most, with these settings.

    Its control service asks a node that was silent for a period, or for the initial delay at first; a
    question is lost after the timeout, and so many lost in a row, a period between them, are the node's end.
    """
    delay, period, timeout, threshold = (
        int(environment[f"RAY_health_check_{name}"])
        for name in ("initial_delay_ms", "period_ms", "timeout_ms", "failure_threshold")
    )
    return (max(delay, period) + threshold * timeout + (threshold - 1) * period) / 1000


@dataclass(frozen=True)
class Process:
    """A process of a host.

    Attributes:
        pid: Its number here.
        inner: Its number on its host.
    """

    pid: int
    inner: int
    command: str

    def kill(self) -> None:
        """SIGKILL.

        Raises:
            ProcessLookupError: It had ended by itself.
        """
        os.kill(self.pid, signal.SIGKILL)


class Host:
    """One machine of the lab; see `Lab.host`."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.cut = False

    @property
    def address(self) -> str:
        """Its IP address."""
        return (self.lab.folder / "hosts" / self.name / "address").read_text().strip()

    @property
    def powered(self) -> bool:
        """Whether it is switched on."""
        return (self.lab.folder / "running" / self.name).exists()

    def power_on(self) -> None:
        """Switch it on and plug it in."""
        self.lab.call("host_up", self.name)
        self.lab.call("net_up", self.name)
        self.cut = False
        # Where cluster.yaml puts it: the same secret on every node.
        token = self.lab.folder / "hosts" / self.name / "home" / ".ray" / "auth_token"
        token.parent.mkdir(exist_ok=True)
        token.write_text(self.lab.token)
        token.chmod(0o600)

    def power_off(self) -> None:
        """Cut its power: every process ends at once."""
        self.lab.call("host_kill", self.name)

    def cut_link(self) -> None:
        """Pull the cable: no connection is closed, packets are lost."""
        self.lab.call("link_cut", self.name)
        self.cut = True

    def mend_link(self) -> None:
        """Plug it in again."""
        self.lab.call("link_mend", self.name)
        self.cut = False

    def processes(self, part: str = "") -> list[Process]:
        """Its processes whose command line has `part`, but for its first two."""
        own = _namespace(int((self.lab.folder / "running" / self.name).read_text()))
        assert own, f"{self.name} is not switched on"
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or _namespace(int(folder.name)) != own:
                continue
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                command = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
                if command and part in command and command not in _FIRST:
                    inner = int(_status(folder, "NSpid").split()[-1])
                    found.append(Process(int(folder.name), inner, command))
        return found

    def end_all(self) -> None:
        """End every process but its first two, as `ray stop` would on a machine of its own."""
        while found := self.processes():
            for process in found:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            time.sleep(0.05)

    def start(self, *command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a command there; its output is appended to `log`."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(HOSTS), "in_host", self.name, *command],
                env=self.lab.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.lab.started.append(process)
        return process

    def start_ray(self, head: Host | None = None, cpus: int = 1) -> subprocess.Popen[bytes]:
        """Start a node of Ray: the head of a new cluster, or a worker of that of `head`."""
        where = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        if head is not None:
            where = [f"--address={head.address}:{PORT}"]
        own = [f"--node-ip-address={self.address}", f"--num-cpus={cpus}"]
        common = ["--object-store-memory=100000000", "--disable-usage-stats"]
        ray = str(Path(sys.executable).with_name("ray"))
        return self.start(ray, "start", *where, *own, *common, log=self.lab.folder / f"{self.name}.ray.log")


class Lab:
    """Hosts that are there within a `with`, however it ends; also when this process is killed.

    Args:
        folder: Folder for what the lab keeps; made.
        settings: Environment of Ray on the hosts; default that of cluster.yaml.
        patch: Module -> code for the searches and their workers (tests/injected).

    Attributes:
        shared: The storage that all hosts see.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str] | None = None, patch: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.token = secrets.token_hex(32)
        self.hosts: dict[str, Host] = {}
        self.started: list[subprocess.Popen[bytes]] = []
        self.shared = folder / "shared"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "TUNE_", "PYTHONPATH"))
        }
        settings = cluster_environment() if settings is None else settings
        self.environment = {**inherited, "LAB": str(folder), "OMP_NUM_THREADS": "1", **settings}
        if patch:
            self.environment |= {"PYTHONPATH": str(INJECTED), "MACIL_TEST_PATCH": json.dumps(dict(patch))}

    def __enter__(self) -> Self:
        self.shared.mkdir(parents=True)
        self.call("lab_follow", str(os.getpid()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call("lab_down")
        for process in self.started:
            process.wait(timeout=60)

    def host(self, name: str) -> Host:
        """A new host, switched on."""
        self.hosts[name] = Host(self, name)
        self.hosts[name].power_on()
        return self.hosts[name]

    def cluster(self, *names: str, head_cpus: int = 1) -> list[Host]:
        """New hosts with a Ray cluster, the first its head."""
        hosts = [self.host(name) for name in names]
        self.form(hosts[0], *hosts[1:], head_cpus=head_cpus)
        return hosts

    def form(self, head: Host, *workers: Host, head_cpus: int = 1) -> None:
        """Start Ray on the head, then on the workers, all at a time."""
        self.bring_up(head, cpus=head_cpus)
        self.bring_up(*workers, head=head)

    def bring_up(self, *hosts: Host, head: Host | None = None, cpus: int = 1) -> None:
        """Start Ray on hosts; again where it did not come up, as it may on a busy machine."""
        left = list(hosts)
        for _ in range(5):
            started = [(host, host.start_ray(head, cpus)) for host in left]
            left = [host for host, process in started if process.wait(timeout=180) != 0]
            for host in left:
                host.end_all()
        assert not left, f"Ray does not start on {', '.join(host.name for host in left)}:\n{self.logs()}"

    def logs(self) -> str:
        """The last words of everything started here, for a failed assertion."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-2000:]}" for log in logs)

    def call(self, *arguments: str) -> None:
        """Call a function of hosts.sh."""
        done = subprocess.run(
            [str(HOSTS), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"hosts.sh {' '.join(arguments)}: {done.stderr.strip()}")


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def _status(folder: Path, name: str) -> str:
    for line in (folder / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2]
    raise ProcessLookupError(name)
