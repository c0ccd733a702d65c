"""`cluster.yaml` is valid for Ray, and free of the faults that Ray accepts without a word."""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.lab import ray_environment, slowest_notice

ROOT = Path(__file__).resolve().parent.parent
Config = dict[str, Any]

PROVIDER_KEYS = {
    "type",
    "region",
    "availability_zone",
    "cache_stopped_nodes",
    "use_internal_ips",
    "security_group",
}
NODE_CONFIG_KEYS = {
    "InstanceType",
    "ImageId",
    "BlockDeviceMappings",
    "InstanceMarketOptions",
    "IamInstanceProfile",
    "KeyName",
    "SubnetIds",
    "SecurityGroupIds",
    "TagSpecifications",
}
# vCPUs and GPUs of the instance types in use, from AWS's public tables.
INSTANCES = {"m7i.xlarge": (4, 0), "c7i.4xlarge": (16, 0), "g6.2xlarge": (8, 1)}
RAY_ENVIRONMENT = ("RAY_AUTH_MODE=token", "RAY_health_check_failure_threshold=")
NOTICED = 15.0  # seconds until a lost node is noticed, as docs/cluster.md promises


class NoDuplicates(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would keep the last."""


def _mapping(loader: NoDuplicates, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    twice = {key for key in keys if keys.count(key) > 1}
    assert not twice, f"{node.start_mark}: given twice: {twice}"
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True)
        for key, value in node.value
    }


NoDuplicates.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load() -> Config:
    config: Config = yaml.load((ROOT / "cluster.yaml").read_text(encoding="utf-8"), Loader=NoDuplicates)
    return config


def silent_faults(config: Config) -> list[str]:
    """What is wrong with the configuration although Ray's own validation passes."""
    return [
        *_provider_faults(config),
        *_node_type_faults(config),
        *_mount_faults(config),
        *_command_faults(config),
    ]


def _provider_faults(config: Config) -> list[str]:
    faults = [f"provider.{key} is not a key of Ray" for key in set(config["provider"]) - PROVIDER_KEYS]
    if not config.get("auth", {}).get("ssh_user"):
        faults.append("auth.ssh_user is missing")
    if "max_workers" not in config:
        faults.append("max_workers is missing: Ray would take 2")
    if "min_workers" in config:
        faults.append("a global min_workers is dropped for AWS")
    return faults


def _node_type_faults(config: Config) -> list[str]:
    faults = []
    for name, node_type in config["available_node_types"].items():
        node_config = node_type["node_config"]
        faults += [f"{name}.{key} is not an EC2 setting" for key in set(node_config) - NODE_CONFIG_KEYS]
        if not str(node_config.get("ImageId", "")).startswith("ami-"):
            faults.append(f"{name} has no ImageId: Ray's default image is too old for torch")
        cpus, gpus = INSTANCES[node_config["InstanceType"]]
        resources = node_type["resources"]
        if resources.get("CPU", -1) not in ((0,) if name == config["head_node_type"] else (cpus,)):
            faults.append(f"{name} offers {resources.get('CPU')} CPUs, its instance has {cpus}")
        if resources.get("GPU", 0) != gpus:
            faults.append(f"{name} offers {resources.get('GPU', 0)} GPUs, its instance has {gpus}")
        if name == config["head_node_type"]:
            continue
        low, high = node_type.get("min_workers", 0), node_type.get("max_workers", 0)
        if not low <= high <= config.get("max_workers", 2) or high == 0:
            faults.append(f"{name}: {low} to {high} workers of at most {config.get('max_workers', 2)}")
    return faults


def _mount_faults(config: Config) -> list[str]:
    mounts = config.get("file_mounts", {})
    faults = [
        f"{local} does not exist"
        for local in mounts.values()
        if not local.startswith("~") and not (ROOT / local).exists()
    ]
    faults += [
        f"{local}: the whole repository" for local in mounts.values() if (ROOT / local).resolve() == ROOT
    ]
    faults += [f"{remote} is not absolute" for remote in mounts if not remote.startswith("/")]
    if "~/.ray/auth_token" not in mounts.values():
        faults.append("the authentication token does not reach the nodes")
    return faults


def _command_faults(config: Config) -> list[str]:
    faults = [
        f"{key}: not a whole shell command: {command!r}"
        for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
        for command in config[key]
        if subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False).returncode
    ]
    if config.get("head_setup_commands") != []:
        faults.append("head_setup_commands: Ray's default would run pip outside the environment")
    setup = "\n".join(config["setup_commands"])
    faults += [f"setup_commands: no {setting}" for setting in RAY_ENVIRONMENT if setting not in setup]
    if not faults and (slowest := slowest_notice(ray_environment(config))) > NOTICED:
        faults.append(f"a lost node is noticed after {slowest:g} s")
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = config[key][-1]
        if not start.startswith("source ~/macil-tune/env.sh; ulimit -n 65536; ray start "):
            faults.append(f"{key}: Ray starts without its environment")
    return faults


def test_ray_accepts_the_file() -> None:
    full = prepare_config(load())
    validate_config(full)
    assert full["available_node_types"]["head"]["max_workers"] == 0
    assert full["cluster_name"] == "macil-tune"


def test_the_file_has_no_silent_fault() -> None:
    assert silent_faults(load()) == []


def _set(*path: str, value: Any) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


def _replace(text: str, by: str) -> Callable[[Config], None]:
    """In the setup commands."""

    def change(config: Config) -> None:
        config["setup_commands"] = [command.replace(text, by) for command in config["setup_commands"]]

    return change


def _delete(*path: str) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        for key in path[:-1]:
            config = config[key]
        del config[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_set("provider", "regoin", value="eu-west-1"), "provider.regoin"),
        (
            _set("available_node_types", "cpu_worker", "node_config", "InstanceTypo", value="x"),
            "InstanceTypo",
        ),
        (_set("available_node_types", "cpu_worker", "max_workers", value=0), "1 to 0 workers"),
        (_set("available_node_types", "gpu_worker", "resources", value={"CPU": 8}), "offers 0 GPUs"),
        (_set("available_node_types", "cpu_worker", "resources", value={}), "offers None CPUs"),
        (_set("min_workers", value=1), "global min_workers"),
        (_delete("available_node_types", "head", "node_config", "ImageId"), "no ImageId"),
        (_delete("auth"), "ssh_user"),
        (_delete("max_workers"), "max_workers is missing"),
        (_delete("head_setup_commands"), "outside the environment"),
        (_delete("file_mounts", "/home/ubuntu/.ray/auth_token"), "token does not reach"),
        (_set("file_mounts", "/home/ubuntu/data", value="no-such-folder"), "no-such-folder does not exist"),
        (_set("file_mounts", "/home/ubuntu/all", value="."), "whole repository"),
        (_set("worker_start_ray_commands", value=["ray start"]), "without its environment"),
        (_set("setup_commands", value=["echo 'cut by a hash sign"]), "not a whole shell command"),
        (_replace("health_check_timeout_ms=2000", "health_check_timeout_ms=5000"), "noticed after 25 s"),
    ],
)
def test_faults_that_ray_accepts_silently_are_found(change: Callable[[Config], None], fault: str) -> None:
    config = load()
    change(config)
    validate_config(prepare_config(copy.deepcopy(config)))  # Ray says nothing
    assert any(fault in found for found in silent_faults(config))


def test_a_lost_node_is_noticed_within_15_s_at_worst_and_three_lost_answers_are_forgiven() -> None:
    environment = ray_environment(load())
    assert slowest_notice(environment) <= NOTICED
    assert int(environment["RAY_health_check_failure_threshold"]) > 3


def test_the_guide_to_clusters_sets_the_same_health_checks_as_the_file() -> None:
    guide = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    settings = {
        name: value for name, value in ray_environment(load()).items() if name.startswith("RAY_health_check_")
    }
    assert len(settings) == 4
    for name, value in settings.items():
        assert re.findall(rf"{name}=(\d+)", guide) == [value]


def test_every_shell_of_a_node_gets_the_environment(tmp_path: Path) -> None:
    (tmp_path / "macil-tune").mkdir()
    (tmp_path / ".bashrc").touch()
    commands = [command for command in load()["setup_commands"] if "env.sh" in command]
    script = "\n".join([*commands, *commands])  # a second `ray up` runs them again
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-e", "-c", script], env=environment, check=True)
    shown = subprocess.run(
        ["bash", "-c", "source ~/.bashrc; env"], env=environment, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert "RAY_AUTH_MODE=token" in shown
    assert f"PATH={tmp_path}/macil-env/bin:/usr/bin:/bin" in shown
    assert (tmp_path / ".bashrc").read_text().count("env.sh") == 1
