"""`deploy/slurm.sh` with a real Slurm, on two hosts of the lab: to its end, requeued, and into its time limit.

Needs Debian's slurmctld, slurmd, slurm-client and munge.
"""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from macil.data.store.feature_store import FeatureStore
from tests.cluster.lab import HOSTS, RAYLET, Host, Lab, what_is_missing
from tests.cluster.searching import SMALL, slow, small_store
from tests.support.promise import assert_kept, assert_replays, assert_whole, digits
from tests.support.repository import ROOT
from tests.support.search_command import info

_TOOLS = [tool for tool in ("slurmctld", "slurmd", "sbatch", "munged") if shutil.which(tool) is None]
_MISSING = what_is_missing() or (f"not installed: {', '.join(_TOOLS)}" if _TOOLS else None)
pytestmark = [
    pytest.mark.ray,
    pytest.mark.nightly,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(_MISSING is not None, reason=f"no Slurm here: {_MISSING}"),
]
EPOCHS = 16
TRIALS = 3


class Slurm:
    """A Slurm cluster of two hosts with two CPUs each, the first with its controller."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hosts = [lab.host(name) for name in ("one", "two")]
        self.folder = lab.folder / "slurm"
        (self.folder / "state").mkdir(parents=True)
        self.root = lab.shared / "checkout"  # where jobs are submitted
        self.root.mkdir()
        for part in ("deploy", "macil", "tune"):
            (self.root / part).symlink_to(ROOT / part)
        lab.environment |= {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "MACIL_ENV": str(Path(sys.executable).parent.parent),
            "MACIL_LOCAL": "/tmp/ray",  # of each host alone, in the lab
        }
        self._configure()
        one, *_ = self.hosts
        self._start(one, "munged", "--foreground", "--force", f"--origin={one.address}", *self._munge())
        _until((self.folder / "munge.socket").exists)
        self._start(one, "slurmctld", "-D", "-i")
        for host in self.hosts:
            self._start(host, "slurmd", "-D", "-N", host.name)
        _until(lambda: self.output("sinfo", "--noheader", "--format=%D %t").split() == ["2", "idle"])

    def _configure(self) -> None:
        nodes = "\n".join(f"NodeName={host.name} NodeAddr={host.address} CPUs=2" for host in self.hosts)
        (self.folder / "slurm.conf").write_text(
            f"""
ClusterName=lab
SlurmctldHost=one({self.hosts[0].address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={self.folder}/munge.socket,cred_expire=5
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool-%n
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1
PartitionName=high Nodes=ALL PriorityTier=2
"""
        )
        names = "".join(f"{host.address} {host.name}\n" for host in self.hosts)
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (self.folder / "munge.key").chmod(0o400)
        for host in self.hosts:
            mounted = host.start(
                "mount", "--bind", str(self.folder / "hosts"), "/etc/hosts", log=self._log("mount")
            )
            assert mounted.wait(timeout=30) == 0

    def _munge(self) -> list[str]:
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
        return [f"--{option}={self.folder}/munge.{name}" for option, name in files.items()]

    def _log(self, name: str) -> Path:
        return self.lab.folder / f"{name}.log"

    def _start(self, host: Host, tool: str, *arguments: str) -> None:
        host.start(tool, *arguments, log=self._log(f"{tool}-{host.name}"))

    def output(self, *command: str) -> str:
        """Run a command of Slurm's on the first host."""
        script = f'cd "{self.root}" && exec "$@"'
        done = subprocess.run(
            [str(HOSTS), "in_host", "one", "bash", "-c", script, "bash", *command],
            env=self.lab.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}{self.lab.logs()}"
        return done.stdout

    def submit(self, name: str, *options: str) -> Job:
        """Submit deploy/slurm.sh for a search of some minutes."""
        search = [
            *(
                "--name",
                name,
                "--data",
                str(self.lab.shared / "store"),
                f"--storage={self.lab.shared / 'runs'}",
            ),
            *("--shared-storage", "--cpus-per-trial", "1", "--trials", str(TRIALS), "--epochs", str(EPOCHS)),
            *("--no-asha", *SMALL),
        ]
        smaller = ["--cpus-per-task=2", "--gpus-per-node=0", "--mem=0"]
        number = self.output("sbatch", "--parsable", *smaller, *options, "deploy/slurm.sh", *search)
        return Job(self, int(number), self.lab.shared / "runs" / name)


class Job:
    """A search that was submitted.

    Attributes:
        run: Its folder.
    """

    def __init__(self, slurm: Slurm, number: int, run: Path) -> None:
        self.slurm = slurm
        self.number = number
        self.run = run

    @property
    def facts(self) -> dict[str, str]:
        """What Slurm knows of it."""
        words = self.slurm.output("scontrol", "show", "job", str(self.number)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    @property
    def output(self) -> str:
        log = self.slurm.root / f"macil-tune-{self.number}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def epochs(self) -> int:
        """Logged so far, of all trials."""
        return sum(map(len, digits(self.run, "trials").values()))

    def wait_for(self, reached: Callable[[], bool], seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, f"{self.facts}\n{self.output}\n{self.slurm.lab.logs()}"
            time.sleep(0.2)

    def finish(self) -> dict[str, str]:
        """Wait for its end, which must be a success that leaves nothing behind."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        self.wait_for(lambda: self.facts["JobState"] in over, seconds=700)
        facts = self.facts
        assert (facts["JobState"], facts["ExitCode"]) == ("COMPLETED", "0:0"), self.output
        assert "2 of 2 nodes are up" in self.output
        assert "Traceback" not in self.output
        assert info(self.run)["status"] == "finished"
        assert_whole(self.run, TRIALS)
        assert_replays(self.run, FeatureStore.open(self.slurm.lab.shared / "store"))
        self.assert_nothing_is_left()
        return facts

    def assert_nothing_is_left(self) -> None:
        _until(lambda: self.slurm.output("squeue", "--noheader") == "")
        assert list(self.slurm.root.glob(".macil-tune-*")) == []  # the secret
        for host in self.slurm.hosts:
            local = self.slurm.lab.folder / "hosts" / host.name / "ray"
            assert list(local.glob("macil-*")) == []
            left = [process.command for process in host.processes() if "macil-" in process.command]
            assert left == []

    def hosts_of_trials(self) -> set[str]:
        logs = self.run.glob("trials/*/result.json")
        return {found for log in logs for found in re.findall(r'"node_ip": "([^"]+)"', log.read_text())}


def _until(reached: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def slurm(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Slurm]:
    """With epochs of half a second, or as long as the test says."""
    with Lab(tmp_path / "lab", patch=slow(getattr(request, "param", 0.5))) as lab:
        small_store(lab)
        yield Slurm(lab)


def test_a_search_runs_on_all_nodes_of_its_job_and_leaves_the_ray_of_others_alone(slurm: Slurm) -> None:
    foreign = slurm.hosts[1]
    slurm.lab.bring_up(foreign, cpus=1)
    (raylet,) = foreign.processes(RAYLET)
    job = slurm.submit("whole")
    job.finish()
    assert job.hosts_of_trials() == {host.address for host in slurm.hosts}
    assert [process.pid for process in foreign.processes(RAYLET)] == [raylet.pid]


def test_a_job_that_was_preempted_goes_on_by_itself(slurm: Slurm) -> None:
    job = slurm.submit("preempted")
    job.wait_for(lambda: job.epochs() >= 8)
    before = digits(job.run)
    first = slurm.output(
        "sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 5"
    )
    job.wait_for(lambda: job.facts["Restarts"] == "1")
    after = digits(job.run)
    assert_kept(before, after)
    assert job.epochs() < TRIALS * EPOCHS
    assert job.finish()["Restarts"] == "1"
    assert_kept(after, digits(job.run))
    assert int(first) > job.number


@pytest.mark.parametrize("slurm", [7.0], indirect=True)
def test_a_job_stops_before_its_time_limit_and_goes_on_by_itself(slurm: Slurm) -> None:
    # Slurm counts in minutes, and may send the signal up to a minute early: 60 to 120 s after the start. No trial is
    # done by then.
    job = slurm.submit("long", "--time=3", "--signal=B:USR1@60")
    job.wait_for(lambda: "back into the queue" in job.output or job.facts["JobState"] == "COMPLETED")
    before = digits(job.run)
    assert 0 < job.epochs() < TRIALS * EPOCHS
    assert int(job.finish()["Restarts"]) >= 1
    assert_kept(before, digits(job.run))


def test_a_cancelled_job_ends_for_good_and_the_same_line_goes_on_with_its_run(slurm: Slurm) -> None:
    job = slurm.submit("cancelled")
    job.wait_for(lambda: job.epochs() >= 8)
    slurm.output("scancel", str(job.number))
    job.wait_for(lambda: job.facts["JobState"] == "CANCELLED")
    job.assert_nothing_is_left()
    before = digits(job.run)
    again = slurm.submit("cancelled")
    assert again.finish()["Restarts"] == "0"
    assert_kept(before, digits(job.run))


def test_without_a_name_the_job_says_what_it_needs(slurm: Slurm) -> None:
    number = int(
        slurm.output("sbatch", "--parsable", "--gpus-per-node=0", "--mem=0", "-c2", "deploy/slurm.sh")
    )
    job = Job(slurm, number, slurm.root)
    job.wait_for(lambda: job.facts["JobState"] == "FAILED")
    assert job.facts["ExitCode"] == "2:0"
    assert "give the run a --name" in job.output
