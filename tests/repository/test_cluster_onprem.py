"""cluster-onprem.yaml is valid for Ray, free of faults that Ray accepts without a word, and stops its own alone."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from tests.cluster.lab import ray_environment, slowest_notice
from tests.repository.test_cluster_yaml import NOTICED, NoDuplicates, delete, put
from tests.support.repository import ROOT

Config = dict[str, Any]

HOME, FOLDER = "/home/macil", "/tmp/macil-tune"
PROVIDER_KEYS = {"type", "head_ip", "worker_ips", "external_head_ip"}
COMMANDS = ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
START = "source ~/macil-tune/env.sh; ulimit -n 65536; ray start {} --object-manager-port=8076 "


def load() -> Config:
    text = (ROOT / "deploy/cluster-onprem.yaml").read_text(encoding="utf-8")
    config: Config = yaml.load(text, Loader=NoDuplicates)
    return config


def of_aws() -> Config:
    config: Config = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    return config


def silent_faults(config: Config) -> list[str]:
    """What is wrong with the configuration although Ray's own validation passes."""
    return [
        *_machine_faults(config),
        *_mount_faults(config),
        *_setup_faults(config),
        *_start_faults(config),
    ]


def _machine_faults(config: Config) -> list[str]:
    provider = config["provider"]
    head, workers = provider["head_ip"], provider["worker_ips"]
    faults = [f"provider.{key} is not a key of Ray" for key in set(provider) - PROVIDER_KEYS]
    if len({head, *workers}) <= len(workers):
        faults.append("a machine is named twice")
    faults += [
        f"{key}: {config.get(key)} of {len(workers)} machines"
        for key in ("min_workers", "max_workers")
        if config.get(key) != len(workers)
    ]
    faults += [
        f"auth.{key} is missing"
        for key in ("ssh_user", "ssh_private_key")
        if not config.get("auth", {}).get(key)
    ]
    return faults


def _mount_faults(config: Config) -> list[str]:
    own = {remote.removeprefix(HOME): local for remote, local in config["file_mounts"].items()}
    aws = {remote.removeprefix("/home/ubuntu"): local for remote, local in of_aws()["file_mounts"].items()}
    faults = [f"{remote} differs from cluster.yaml" for remote, _ in own.items() ^ aws.items()]
    return faults + [f"{remote} is not absolute" for remote in config["file_mounts"] if remote[0] != "/"]


def _setup_faults(config: Config) -> list[str]:
    faults = [
        f"{key}: not a whole shell command: {command!r}"
        for key in COMMANDS
        for command in config[key]
        if subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False).returncode
    ]
    if faults:
        return faults
    environment, aws = ray_environment(config), ray_environment(of_aws())
    own = {"RAY_TMPDIR": FOLDER, "RAY_enable_autoscaler_v2": "0"}
    faults += [f"env.sh: {name} differs" for name, _ in environment.items() ^ (aws | own).items()]
    if not faults and (slowest := slowest_notice(environment)) > NOTICED:
        faults.append(f"a lost node is noticed after {slowest:g} s")
    setup = "\n".join(config["setup_commands"])
    faults += [f"no {name}" for name in ("stop.sh", "down.sh") if f"cat > ~/macil-tune/{name}" not in setup]
    if f"folder={environment.get('RAY_TMPDIR')}\n" not in setup:
        faults.append("stop.sh looks for another folder")
    if "--constraint ~/macil-tune/constraints.txt" not in setup:
        faults.append("setup_commands: without pins")
    return faults


def _start_faults(config: Config) -> list[str]:
    faults = []
    for key, where in (
        ("head_start_ray_commands", "--head --port=6379"),
        ("worker_start_ray_commands", "--address=$RAY_HEAD_IP:6379"),
    ):
        first, last = config[key][0], config[key][-1]
        if any("ray stop" in command for command in config[key]):
            faults.append(f"{key}: ends every Ray of the account")
        if not first.startswith("bash ~/macil-tune/stop.sh"):
            faults.append(f"{key}: does not end the cluster's former Ray")
        if not last.startswith(START.format(where)):
            faults.append(f"{key}: Ray starts without its environment, or at another port")
        if "--disable-usage-stats" not in last:
            faults.append(f"{key}: usage statistics")
    head = config["head_start_ray_commands"][-1]
    faults += [
        f"the head without {option}" for option in ("--num-cpus=0", "--num-gpus=0") if option not in head
    ]
    if "--autoscaling-config=~/ray_bootstrap_config.yaml" not in head:
        faults.append("the head does not start the workers")
    if "--dashboard-host" in head:
        faults.append("the dashboard is open to others")
    return faults


def test_ray_accepts_the_file_and_waits_for_every_machine() -> None:
    full = prepare_config(load())
    validate_config(full)
    (node_type,) = full["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == len(full["provider"]["worker_ips"]) == 2
    assert full["cluster_name"] == "macil-tune"


def test_the_file_has_no_silent_fault() -> None:
    assert silent_faults(load()) == []


def _replace(key: str, text: str, by: str) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        assert any(text in command for command in config[key])
        config[key] = [command.replace(text, by) for command in config[key]]

    return change


HEAD, WORKER = "head_start_ray_commands", "worker_start_ray_commands"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (put("provider", "worker_ip", value=["192.0.2.13"]), "provider.worker_ip is not a key"),
        (put("provider", "worker_ips", value=["192.0.2.11", "192.0.2.11"]), "named twice"),
        (put("provider", "worker_ips", value=["192.0.2.10", "192.0.2.11"]), "named twice"),
        (put("provider", "worker_ips", value=["192.0.2.11"]), "min_workers: 2 of 1"),
        (put("min_workers", value=1), "min_workers: 1 of 2"),
        (delete("max_workers"), "max_workers: None of 2"),
        (delete("auth", "ssh_user"), "auth.ssh_user"),
        (delete("auth", "ssh_private_key"), "auth.ssh_private_key"),
        (delete("file_mounts", f"{HOME}/.ray/auth_token"), "/.ray/auth_token differs"),
        (put("file_mounts", f"{HOME}/macil-tune", value="."), "/macil-tune differs"),
        (put("setup_commands", value=["echo 'cut by a hash sign"]), "not a whole shell command"),
        (
            _replace("setup_commands", "autoscaler_v2=0", "autoscaler_v2=1"),
            "RAY_enable_autoscaler_v2 differs",
        ),
        (_replace("setup_commands", "RAY_AUTH_MODE=token", ""), "RAY_AUTH_MODE differs"),
        (_replace("setup_commands", "timeout_ms=2000", "timeout_ms=5000"), "timeout_ms differs"),
        (_replace("setup_commands", f"folder={FOLDER}", "folder=/tmp/other"), "looks for another folder"),
        (_replace("setup_commands", "--constraint ~/macil-tune/constraints.txt", ""), "without pins"),
        (_replace(HEAD, "bash ~/macil-tune/stop.sh", "ray stop"), "every Ray of the account"),
        (_replace(WORKER, "bash ~/macil-tune/stop.sh; ", ""), "former Ray"),
        (_replace(WORKER, "source ~/macil-tune/env.sh; ", ""), "without its environment"),
        (_replace(WORKER, " --disable-usage-stats", ""), "usage statistics"),
        (_replace(HEAD, " --num-cpus=0", ""), "the head without --num-cpus=0"),
        (_replace(HEAD, "--port=6379", "--port=6380"), "at another port"),
        (_replace(HEAD, "--num-gpus=0", "--num-gpus=0 --dashboard-host=0.0.0.0"), "open to others"),
        (
            _replace(HEAD, "--autoscaling-config=~/ray_bootstrap_config.yaml", ""),
            "does not start the workers",
        ),
    ],
)
def test_faults_that_ray_accepts_silently_are_found(change: Callable[[Config], None], fault: str) -> None:
    config = load()
    change(config)
    validate_config(prepare_config(copy.deepcopy(config)))  # Ray says nothing
    assert any(fault in found for found in silent_faults(config))


def test_the_newer_autoscaler_still_counts_the_head_as_a_worker() -> None:
    """Once it does not, `RAY_enable_autoscaler_v2=0` can go."""
    config = load()
    del config["auth"]["ssh_private_key"]  # it would be read
    full = AutoscalingConfig(prepare_config(config), skip_content_hash=True)
    (node_type,) = full.get_node_type_configs().values()
    assert node_type.name == full.get_head_node_type()
    assert (node_type.min_worker_nodes, node_type.max_worker_nodes) == (2, 3)


# --- what the setup commands write, run ---------------------------------------------------------------------


def run(script: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin", **variables}
    return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An account after the setup, with a folder of Ray's of its own."""
    for folder in ("macil-tune", "macil-env/bin", "bin", "folder"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".bashrc").touch()
    commands = [
        command.replace(FOLDER, f"{tmp_path}/folder")
        for command in load()["setup_commands"]
        if any(name in command for name in ("env.sh", "stop.sh"))
    ]
    for _ in range(2):  # a second `ray up` runs them again
        assert run("set -e\n" + "\n".join(f"({command})" for command in commands), tmp_path).returncode == 0
    return tmp_path


def executable(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def test_every_shell_of_a_node_gets_the_environment_and_a_ray_stop_of_its_own(home: Path) -> None:
    executable(home / "macil-env" / "bin" / "ray", 'echo "real ray $*"')
    (home / "macil-tune" / "down.sh").write_text("echo the whole cluster")
    done = run("source ~/.bashrc; env; (ray stop); (ray status --address=x)", home)
    shown = done.stdout.splitlines()
    assert "RAY_AUTH_MODE=token" in shown
    assert f"RAY_TMPDIR={home}/folder" in shown
    assert f"PATH={home}/macil-env/bin:{home}/bin:/usr/bin:/bin" in shown
    assert shown[-2:] == ["the whole cluster", "real ray status --address=x"]
    assert (home / ".bashrc").read_text().count("env.sh") == 1


@contextmanager
def running(program: Path | str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Closed again here, or this process would be one of those that are stopped."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen([str(program), "60"], stdout=file)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_stopping_ends_what_logs_into_the_folder_and_nothing_else(home: Path) -> None:
    service = home / "bin" / "gcs_server"
    shutil.copy(shutil.which("sleep") or "", service)
    logs = home / "folder" / "ray" / "session" / "logs"
    with (
        running("sleep", logs / "raylet.out") as ours,
        running(service, logs / "gcs_server.out") as control,
        running("sleep", home / "folder-of-another" / "raylet.out") as other,
    ):
        assert run("bash ~/macil-tune/stop.sh", home).returncode == 0
        assert (ours.wait(5), control.wait(5)) == (-15, -9)
        assert other.poll() is None
    assert run("bash ~/macil-tune/stop.sh", home).returncode == 0  # nothing there


@pytest.mark.parametrize("unreachable", [None, "192.0.2.12"])
def test_going_down_stops_every_worker_and_names_those_that_it_does_not_reach(
    unreachable: str | None, home: Path
) -> None:
    config = prepare_config(load())
    (home / "ray_bootstrap_config.yaml").write_text(json.dumps(config))
    (home / "macil-env" / "bin" / "python").symlink_to(sys.executable)
    executable(home / "bin" / "ssh", f'echo "$@" >> {home}/asked; [[ "$*" != *@{unreachable}* ]]')
    state = home / "folder" / "ray" / "cluster-macil-tune.state"
    state.parent.mkdir(parents=True)
    state.touch()
    done = run("bash ~/macil-tune/down.sh", home)
    asked = (home / "asked").read_text()
    assert "macil@192.0.2.11 test" in asked
    assert "macil@192.0.2.12 test" in asked
    assert "192.0.2.10" not in asked
    assert "stopped on the head" in done.stdout
    assert not state.exists()
    if unreachable:
        assert "stopped on 1 of 2 workers" in done.stdout
        assert f"NOT STOPPED on {unreachable}" in done.stderr
        assert done.returncode == 1
    else:
        assert "stopped on 2 of 2 workers" in done.stdout
        assert done.returncode == 0, done.stderr
