"""The cluster file for machines of one's own, for real: `ray up` over ssh, a sweep on two workers, `ray down`.

    python -m tests.cluster.onprem
    python -m tests.cluster.onprem --wheels FOLDER

A laptop, a head and two workers (namespaces, see hosts.sh), each with sshd, a home and a /tmp/macil-tune of its own,
and a folder that all share. deploy/cluster-onprem.yaml is used as it is, but for the addresses and the home. Nothing
can be
downloaded in there: without --wheels the step that installs the project links an environment of this machine; with it,
uv installs from a folder of wheels, as written in the file:

    pip download --constraint constraints.txt --dest FOLDER . 'ray[default]' 'setuptools>=77' uv
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
import yaml

from tests.cluster.lab import RAYLET, Host, Lab, Process, what_is_missing
from tests.support.repository import ROOT
from tune.planning.options import Options
from tune.planning.resolve import resolve_plan

FILE = "deploy/cluster-onprem.yaml"
NAME, EPOCHS = "table4", 3
# Rows that are the same training in so few epochs are trained once.
TRIALS = resolve_plan(Options(data="", sweep=NAME, hyperparameters={"epochs": EPOCHS}), None).trials
# The account, its home and Ray's folder in the file.
ACCOUNT, HOME, FOLDER = "macil", "/home/macil", "/tmp/macil-tune"
TOOLS = ("ssh", "ssh-keygen", "sshd", "rsync", "find")
SMALL = "--hidden-dim 16 --feedforward-dim 16 --batch-size 16 --max-snippets 20 --cpus-per-trial 1"
_OTHER_PORT = 6400
# ssh leaves a connection open for the next command, for 10 s.
_GRACE = 30.0


def tools_missing() -> str | None:
    """Why this cannot run here, None if it can."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (packages openssh-server, rsync, findutils)"
    return what_is_missing()


@dataclass(frozen=True)
class Step:
    """Something that was done.

    Attributes:
        command: As it was typed, or what was done otherwise.
        asserted: What held afterwards.
    """

    command: str
    seconds: float
    asserted: str


@dataclass
class Outcome:
    """What a run has shown.

    Attributes:
        left: Host -> command lines of what still ran after `ray down`, but for sshd and the other cluster.
        trials: Address -> trials of the sweep that were trained there.
    """

    steps: list[Step] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)
    trials: dict[str, int] = field(default_factory=dict)


class Machines:
    """The four machines, as they are before `ray up`; within a `with`.

    Args:
        folder: Folder for what they keep; made.
        wheels: Folder of wheels from which the nodes install the project; default: they link `environment`.
        environment: Environment with this project's requirements on this machine.
    """

    def __init__(self, folder: Path, wheels: Path | None = None, environment: Path | None = None) -> None:
        self.lab = Lab(folder, settings={})
        self.wheels = wheels
        self.environment = Path(sys.prefix) if environment is None else environment
        self.home = folder / "home"  # where every machine has its own
        self.checkout = folder / "checkout"
        self.outcome = Outcome()
        self._log = folder / "output.log"
        self._private: list[Path] = []

    def __enter__(self) -> Self:
        self.lab.__enter__()
        try:
            self._set_up()
        except BaseException:
            self.lab.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lab.__exit__(kind, error, trace)
        for folder in self._private:
            with contextlib.suppress(OSError):
                folder.rmdir()

    @property
    def laptop(self) -> Host:
        """Where the commands are typed."""
        return self.lab.hosts["laptop"]

    @property
    def nodes(self) -> list[Host]:
        """The head, then the workers."""
        return [self.lab.hosts[name] for name in ("head", "one", "two")]

    def home_of(self, name: str) -> Path:
        """The home of a machine, as it is seen from outside."""
        return self.lab.folder / "hosts" / name / "home"

    def _set_up(self) -> None:
        began = time.monotonic()
        folder = self.lab.folder
        self.home.mkdir()
        keys = folder / "sshd"
        keys.mkdir()
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / "host"))
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / "user"))
        settings = {
            "HostKey": keys / "host",
            "AuthorizedKeysFile": keys / "user.pub",
            "PasswordAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "UsePAM": "no",
            "StrictModes": "no",
        }
        (keys / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        # The account is root's double, so that it can read the environment of this machine.
        account = f"{ACCOUNT}:x:0:0::{self.home}:/bin/bash\n"
        (folder / "passwd").write_text(account + Path("/etc/passwd").read_text())
        # What the machines keep in /tmp, where Ray's ssh connections would else be taken for each other's.
        user = hashlib.sha256(getpass.getuser().encode()).hexdigest()[:10]
        self._private = [Path(FOLDER), Path(f"/tmp/ray_ssh_{user}")]
        for name in ("laptop", "head", "one", "two"):
            self._prepare(self.lab.host(name))
        self._prepare_laptop()
        self._note(f"(four machines, sshd on {len(self.nodes)})", began, "all are up")

    def _prepare(self, host: Host) -> None:
        own = self.lab.folder / "hosts" / host.name
        (own / "home" / ".ray" / "auth_token").unlink()  # `ray up` is to bring it
        (own / "home" / ".bashrc").touch()
        script = [
            f"mount --bind {own / 'home'} {self.home}",
            f"mount --bind {self.lab.folder / 'passwd'} /etc/passwd",
            "mount -t tmpfs tmpfs /run",
            "mkdir /run/sshd",
        ]
        for folder in self._private:
            (own / folder.name).mkdir()
            folder.mkdir(exist_ok=True)
            script.append(f"mount --bind {own / folder.name} {folder}")
        if host.name != "laptop":
            script.append(f"/usr/sbin/sshd -f {self.lab.folder / 'sshd' / 'config'}")
        self.inside(host, " && ".join(script))
        if self.wheels is not None and host.name != "laptop":
            self._offer_wheels(own / "home")

    def _offer_wheels(self, home: Path) -> None:
        assert self.wheels is not None
        (wheel,) = self.wheels.glob("uv-*.whl")
        tool = home / ".local" / "bin" / "uv"
        tool.parent.mkdir(parents=True)
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("scripts/uv")]
            tool.write_bytes(archive.read(name))
        tool.chmod(0o755)
        settings = home / ".config" / "uv" / "uv.toml"
        settings.parent.mkdir(parents=True)
        wheels, cache = str(self.wheels.resolve()), str(self.lab.folder / "uv-cache")
        settings.write_text(f'no-index = true\nfind-links = ["{wheels}"]\ncache-dir = "{cache}"\n')

    def _prepare_laptop(self) -> None:
        home = self.home_of("laptop")
        (home / ".ssh").mkdir(mode=0o700)
        shutil.copy(self.lab.folder / "sshd" / "user", home / ".ssh" / "macil-tune")
        config: dict[str, Any] = yaml.safe_load((ROOT / FILE).read_text(encoding="utf-8"))
        (self.checkout / FILE).parent.mkdir(parents=True)
        for local in config["file_mounts"].values():
            if not local.startswith("~"):
                copy = shutil.copytree if (ROOT / local).is_dir() else shutil.copy
                copy(ROOT / local, self.checkout / local)
        head, *workers = [host.address for host in self.nodes]
        config["provider"] |= {"head_ip": head, "worker_ips": workers}
        config["file_mounts"] = {
            remote.replace(HOME, str(self.home), 1): local for remote, local in config["file_mounts"].items()
        }
        if self.wheels is None:
            config["setup_commands"] = self._linking(config["setup_commands"])
        with (self.checkout / FILE).open("w", encoding="utf-8") as file:
            yaml.safe_dump(config, file, sort_keys=False)

    def _linking(self, commands: Sequence[str]) -> list[str]:
        """The commands with one that links the environment of this machine for those that install."""
        python = self.environment / "bin" / "python"
        code = "import sys; print(*[path for path in sys.path if path.endswith('site-packages')], sep='\\n')"
        packages = _run(str(python), "-c", code)
        script = self.lab.folder / "link.sh"
        script.write_text(
            f"set -e\n{python} -m venv --without-pip ~/macil-env\n"
            "cd ~/macil-env/lib/python*/site-packages\n"
            f"printf '%s\\n' ~/macil-tune {shlex.join(packages.split())} > 0.pth\n"
            f'sed "1s|.*|#!$HOME/macil-env/bin/python|" {self.environment}/bin/ray > ~/macil-env/bin/ray\n'
            "chmod +x ~/macil-env/bin/ray\n"
        )
        installing = [command for command in commands if ".local/bin/uv" in command]
        assert len(installing) == 3
        return [
            f"bash {script}" if command == installing[0] else command
            for command in commands
            if command not in installing[1:]
        ]

    def inside(self, host: Host, script: str, seconds: float = 60.0) -> str:
        """Run a script on a host, not over ssh, and return its output.

        Raises:
            AssertionError: It failed.
        """
        log = self.lab.folder / "inside.log"
        log.unlink(missing_ok=True)
        process = host.start("bash", "-c", script, log=log)
        code = process.wait(timeout=seconds)
        assert code == 0, f"{host.name}: {script}\nexit status {code}\n{log.read_text(errors='replace')}"
        return log.read_text(errors="replace")

    def begin(self, command: str) -> subprocess.Popen[bytes]:
        """Start a command on the laptop, in the checkout."""
        with self._log.open("a") as log:
            log.write(f"\n$ {command}\n")
        here = f"export PATH={self.environment}/bin:$PATH HOME={self.home} TMPDIR={self.home}; cd {self.checkout}; "
        return self.laptop.start("bash", "-c", here + command, log=self._log)

    def type(
        self,
        command: str,
        asserted: str,
        check: Callable[[str], None] = lambda output: None,
        seconds: float = 300.0,
    ) -> str:
        """Type a command on the laptop and wait for its end, which must be a success.

        Args:
            asserted: What `check` asserts, given the output of the command.

        Returns:
            The output of the command.
        """
        began = time.monotonic()
        at = len(self.output)
        process = self.begin(command)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not within {seconds:g} s: {command}\n{self.output[at:]}") from None
        took = time.monotonic() - began
        output = self.output[at:]
        assert code == 0, f"exit status {code}: {command}\n{output[-3000:]}"
        check(output)
        self._note(command, began, asserted, took)
        return output

    @property
    def output(self) -> str:
        """The output of all commands on the laptop."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _note(self, command: str, began: float, asserted: str, took: float | None = None) -> None:
        step = Step(command, time.monotonic() - began if took is None else took, asserted)
        self.outcome.steps.append(step)
        print(f"{step.seconds:7.1f} s  {step.command}\n{'':11}{step.asserted}", flush=True)

    def wait_for_nodes(self, seconds: float = 240.0) -> None:
        """Wait until Ray knows the head and both workers."""
        began = time.monotonic()
        script = self.lab.folder / "wait.py"
        script.write_text(
            "import time, ray\nray.init(address='auto', log_to_driver=False, logging_level='ERROR')\n"
            "alive = lambda: [node for node in ray.nodes() if node['Alive']]\n"
            f"deadline = time.monotonic() + {seconds}\n"
            f"while len(alive()) < {len(self.nodes)}:\n"
            "    assert time.monotonic() < deadline, alive()\n    time.sleep(0.2)\n"
            "print([node['Resources'].get('CPU', 0) for node in alive()])\n"
        )
        self.inside(self.nodes[0], f"source ~/macil-tune/env.sh; python {script}", seconds + 60)
        self._note("(waiting for the workers)", began, f"{len(self.nodes)} nodes")

    def start_other_cluster(self) -> list[Process]:
        """A Ray of somebody else on the head, of the same account even."""
        began = time.monotonic()
        head = self.nodes[0]
        options = f"--port={_OTHER_PORT} --num-cpus=1 --object-store-memory=100000000"
        start = f"ray start --head {options} --include-dashboard=false --disable-usage-stats"
        self.inside(head, f"PATH={self.environment}/bin:$PATH {start}", 120)
        self._note(f"on the head, not this cluster's: {start}", began, "runs")
        return head.processes()

    def note_what_is_left(self, other: Sequence[Process]) -> None:
        """What still runs, but for sshd and the processes of the other cluster."""
        began = time.monotonic()
        others = {process.pid for process in other}
        while True:
            self.outcome.left = {
                host.name: [
                    process.command
                    for process in host.processes()
                    if process.pid not in others and "[listener]" not in process.command
                ]
                for host in self.lab.hosts.values()
            }
            if not any(self.outcome.left.values()) or time.monotonic() - began > _GRACE:
                break
            time.sleep(0.2)
        assert not any(self.outcome.left.values()), self.outcome.left
        self._note(
            "(processes of each machine)", began, "nothing left on the laptop, the head and both workers"
        )


def _run(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"
    return done.stdout


def has_job_client(environment: Path) -> bool:
    """Whether `ray job submit` works with this environment (ray[default])."""
    code = "import aiohttp, aiohttp_cors, opencensus, prometheus_client, colorful, virtualenv"
    return subprocess.run([environment / "bin" / "python", "-c", code], capture_output=True).returncode == 0


def trials_by_address(run: Path) -> dict[str, int]:
    """Address -> trials of a run whose last epoch was trained there."""
    counts: dict[str, int] = {}
    for log in run.glob("trials/*/result.json"):
        address = str(json.loads(log.read_text().splitlines()[-1])["node_ip"])
        counts[address] = counts.get(address, 0) + 1
    return counts


def prove(machines: Machines) -> Outcome:
    """From nothing to a sweep over both workers and back to nothing.

    Raises:
        AssertionError: Something was not as it must be.
    """
    outcome, shared = machines.outcome, machines.lab.shared
    data, runs = f"--data {shared}/demo.store", f"--storage {shared}/runs --shared-storage"
    search = f"python tune/search.py --address auto {data} {runs}"
    in_project = f"ray exec {FILE} 'cd ~/macil-tune && %s'"
    few = f"--trials 2 --epochs 2 --no-asha {SMALL}"
    other = machines.start_other_cluster()

    token = machines.home_of("laptop") / ".ray" / "auth_token"
    machines.type("ray get-auth-token --generate", "a token", lambda output: _assert(token.is_file(), output))
    machines.type(f"ray up -y {FILE}", "exit status 0")
    machines.wait_for_nodes()
    machines.type(f"ray exec {FILE} 'ray status'", "says what it offers", _assert_says("local.cluster.node"))
    made, store = f"{shared}/demo", f"{shared}/demo.store"
    demo = f"python -m macil demo {made} --generated && python -m macil convert {made} {store}"
    machines.type(in_project % demo, "80 training videos", _assert_says("80 training and 40 test videos"))

    def on_both(output: str) -> None:
        outcome.trials = trials_by_address(shared / "runs" / NAME)
        workers = {host.address for host in machines.nodes[1:]}
        assert set(outcome.trials) == workers, f"{outcome.trials}\n{output[-3000:]}"
        assert sum(outcome.trials.values()) == TRIALS

    sweep = f"{search} --sweep table4 --name {NAME} --epochs {EPOCHS} {SMALL}"
    machines.type(in_project % sweep, f"{TRIALS} trials, on both workers", on_both, 600)
    machines.type(
        f"ray rsync-down {FILE} {shared}/runs/{NAME}/report/ fetched",
        "the report is on the laptop",
        lambda output: _assert((machines.checkout / "fetched" / "report.html").is_file(), output),
    )
    machines.type(
        f"ray submit {FILE} tune/search.py -- --address auto {data} {runs} --name submitted {few}",
        "2 trials",
        lambda output: _assert_trials(shared / "runs" / "submitted", 2),
    )
    if has_job_client(machines.environment):
        _submit_job(machines, f"cd ~/macil-tune && {search} --name job {few}")
    else:
        print("ray job submit: left out, ray[default] is not installed here", flush=True)
    _change_a_file(machines)
    machines.type(
        f"ray down -y {FILE}", "not the other cluster", lambda output: _assert_lives(machines, other)
    )
    machines.note_what_is_left(other)
    return outcome


def _submit_job(machines: Machines, command: str) -> None:
    """By way of the head's dashboard, to which ssh forwards a port of the laptop."""
    forwarding = machines.begin(f"ray dashboard {FILE}")
    _wait_for_port(machines)
    machines.type(
        f"RAY_AUTH_MODE=token ray job submit --address http://localhost:8265 -- bash -c {shlex.quote(command)}",
        "2 trials; `ray dashboard` forwards the port",
        lambda output: _assert_trials(machines.lab.shared / "runs" / "job", 2),
    )
    os.killpg(forwarding.pid, signal.SIGINT)  # Ctrl-C
    forwarding.wait(timeout=30)


def _change_a_file(machines: Machines) -> None:
    """`ray up` again brings the laptop's files to every machine and starts Ray anew there."""
    changed = "# changed\n"
    with (machines.checkout / "tune" / "__init__.py").open("a") as file:
        file.write(changed)
    machines.type(f"ray up -y {FILE}", "again, with a file changed: exit status 0")
    machines.wait_for_nodes()
    for host in machines.nodes:
        copy = machines.home_of(host.name) / "macil-tune" / "tune" / "__init__.py"
        assert copy.read_text().endswith(changed), f"{host.name} has the old file"


def _assert(holds: bool, output: str) -> None:
    assert holds, output[-3000:]


def _assert_says(words: str) -> Callable[[str], None]:
    return lambda output: _assert(words in output, output)


def _assert_lives(machines: Machines, other: Sequence[Process]) -> None:
    alive = {process.pid for process in machines.nodes[0].processes()}
    (raylet,) = [process for process in other if RAYLET in process.command]
    assert raylet.pid in alive, "the other cluster's raylet has been ended"


def _assert_trials(run: Path, count: int) -> None:
    assert sum(trials_by_address(run).values()) == count


def _wait_for_port(machines: Machines) -> None:
    code = (
        "import socket, time\n"
        "for _ in range(300):\n"
        "    try:\n        socket.create_connection(('127.0.0.1', 8265)).close()\n        break\n"
        "    except OSError:\n        time.sleep(0.2)\n"
        "else:\n    raise SystemExit('no port')\n"
    )
    machines.inside(machines.laptop, f"{sys.executable} -c {shlex.quote(code)}", 90)


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else None)
@click.option(
    "--wheels", type=click.Path(path_type=Path, exists=True), help="Install from this folder of wheels."
)
@click.option(
    "--environment", type=click.Path(path_type=Path, exists=True), help="Of the laptop; default this one."
)
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for what the machines keep; it stays.")
def main(wheels: Path | None, environment: Path | None, keep: Path | None) -> None:
    """Entry point."""
    if reason := tools_missing():
        sys.exit(reason)
    print(f"load of this machine: {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors", flush=True)
    print(
        f"the nodes install from {wheels}, as written in {FILE}"
        if wheels
        else f"the nodes link {environment or sys.prefix} instead of installing: they reach no registry",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = (keep or Path(scratch)) / "lab"
        with Machines(folder, wheels, environment) as machines:
            try:
                outcome = prove(machines)
            except BaseException:
                print(machines.output[-3000:], flush=True)
                raise
    print(f"trials by worker: {outcome.trials}")
    print(
        f"load of this machine: {os.getloadavg()[0]:.1f}, {sum(step.seconds for step in outcome.steps):.0f} s in all"
    )


if __name__ == "__main__":
    main()
