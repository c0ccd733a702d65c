"""`cluster.yaml` is valid for Ray, and free of the faults that Ray accepts without a word."""

from __future__ import annotations

import copy
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from tests.cluster.lab import ray_environment, slowest_notice
from tests.support.repository import ROOT

# Modules without a source for mypy to read.
asking = importlib.import_module("ray.core.generated.autoscaler_pb2")
machines = importlib.import_module("ray.core.generated.instance_manager_pb2")

Config = dict[str, Any]

# Without `security_group`: what Ray makes of it is open to the world (tests/cluster/test_aws.py shows it).
PROVIDER_KEYS = {
    "type",
    "region",
    "availability_zone",
    "cache_stopped_nodes",
    "use_internal_ips",
    "key_pair",
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
# What cluster.yaml says of them, in dollars an hour on demand: to be looked up whenever an instance type changes.
PRICES = {"m7i.xlarge": "$0.20", "c7i.4xlarge": "$0.71", "g6.2xlarge": "$0.98"}
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
        *_account_faults(config),
        *_market_faults(config),
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
        if not 0 <= low <= high <= config.get("max_workers", 2) or high == 0:
            faults.append(f"{name}: {low} to {high} workers of at most {config.get('max_workers', 2)}")
    return faults


def _account_faults(config: Config) -> list[str]:
    """Who may enter the machines, what they may do, and on whose bill they are."""
    faults = []
    roles: dict[bool, set[str]] = {True: set(), False: set()}
    for name, node_type in config["available_node_types"].items():
        node_config = node_type["node_config"]
        if not node_config.get("SecurityGroupIds"):
            faults.append(f"{name} has no SecurityGroupIds: Ray would open port 22 to the world")
        profile = node_config.get("IamInstanceProfile")
        if isinstance(profile, dict) and profile.keys() & {"Name", "Arn"}:
            roles[name == config["head_node_type"]] |= set(profile.values())
        else:
            faults.append(f"{name} has no IamInstanceProfile: the bucket is closed to it")
        specifications = node_config.get("TagSpecifications", [])
        tags = {
            each["ResourceType"]: {tag["Key"]: tag["Value"] for tag in each["Tags"]}
            for each in specifications
        }
        faults += [
            f"{name}: {resource} without the tag project"
            for resource in ("instance", "volume")
            if tags.get(resource, {}).get("project") != "macil-tune"
        ]
        taken = [key for key in tags.get("instance", {}) if key == "Name" or key.startswith("ray-")]
        faults += [f"{name}: tag {key} would replace one of Ray's" for key in taken]
    if roles[True] & roles[False]:
        faults.append("workers have the head's role: they could start machines")
    return faults


def _market_faults(config: Config) -> list[str]:
    faults = []
    gpu: dict[str, list[int]] = {"spot": [], "on demand": []}
    for name, node_type in config["available_node_types"].items():
        market = node_type["node_config"].get("InstanceMarketOptions", {}).get("MarketType", "on demand")
        if market not in gpu:
            faults.append(f"{name}: no market of EC2: {market}")
        elif name == config["head_node_type"] and market == "spot":
            faults.append("the head is a spot machine: all ends when it is taken away")
        elif node_type["resources"].get("GPU"):
            gpu[market].append(node_type.get("priority", 0))
    faults += [f"no GPU worker {market}" for market, priorities in gpu.items() if not priorities]
    if all(gpu.values()) and min(gpu["spot"]) <= max(gpu["on demand"]):
        faults.append("GPU workers on demand come as soon as those of spot")
    return faults


def _install_faults(setup: str) -> list[str]:
    wanted = {
        "the pins are left out": "--constraint ~/macil-tune/constraints.txt",
        "no extra `cluster`": "--editable ~/macil-tune'[cluster]'",
        "no CPU build of torch for machines without a GPU": "else build=--torch-backend=cpu",
        "nobody looks whether torch can use the GPU": "assert torch.cuda.is_available()",
        "the secret can be read by others": "chmod 600 ~/.ray/auth_token",
    }
    return [f"setup_commands: {fault}" for fault, text in wanted.items() if text not in setup]


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
    faults += _install_faults(setup)
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


def put(*path: str, value: Any) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


def _of_node(name: str) -> tuple[str, ...]:
    return "available_node_types", name, "node_config"


def _node(name: str, key: str, value: Any) -> Callable[[Config], None]:
    return put(*_of_node(name), key, value=value)


def _tagged(resource: str, *keys: str) -> Config:
    return {"ResourceType": resource, "Tags": [{"Key": key, "Value": "macil-tune"} for key in keys]}


def _replace(text: str, by: str) -> Callable[[Config], None]:
    """In the setup commands."""

    def change(config: Config) -> None:
        config["setup_commands"] = [command.replace(text, by) for command in config["setup_commands"]]

    return change


def delete(*path: str) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        for key in path[:-1]:
            config = config[key]
        del config[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (put("provider", "regoin", value="eu-west-1"), "provider.regoin"),
        (
            put("available_node_types", "cpu_worker", "node_config", "InstanceTypo", value="x"),
            "InstanceTypo",
        ),
        (put("available_node_types", "cpu_worker", "max_workers", value=0), "0 to 0 workers"),
        (put("available_node_types", "gpu_spot", "resources", value={"CPU": 8}), "offers 0 GPUs"),
        (_node("gpu_spot", "SecurityGroupIds", value=[]), "open port 22 to the world"),
        (delete(*_of_node("head"), "SecurityGroupIds"), "open port 22 to the world"),
        (put("provider", "security_group", value={"GroupName": "own"}), "provider.security_group"),
        (delete(*_of_node("gpu_on_demand"), "IamInstanceProfile"), "bucket is closed"),
        (_node("cpu_worker", "IamInstanceProfile", value={"Name": "macil-tune-head"}), "the head's role"),
        (_node("gpu_spot", "IamInstanceProfile", value="macil-tune-worker"), "bucket is closed"),
        (delete(*_of_node("cpu_worker"), "TagSpecifications"), "volume without the tag"),
        (
            _node("head", "TagSpecifications", value=[_tagged("instance", "project")]),
            "volume without the tag",
        ),
        (
            _node("head", "TagSpecifications", value=[_tagged("instance", "project", "ray-cluster-name")]),
            "tag ray-cluster-name would replace",
        ),
        (_node("gpu_spot", "InstanceMarketOptions", value={"MarketType": "Spot"}), "no market of EC2: Spot"),
        (
            _node("gpu_on_demand", "InstanceMarketOptions", value={"MarketType": "spot"}),
            "no GPU worker on demand",
        ),
        (delete(*_of_node("gpu_spot"), "InstanceMarketOptions"), "no GPU worker spot"),
        (_node("head", "InstanceMarketOptions", value={"MarketType": "spot"}), "the head is a spot machine"),
        (delete("available_node_types", "gpu_spot", "priority"), "come as soon as those of spot"),
        (_replace("--constraint ~/macil-tune/constraints.txt", ""), "the pins are left out"),
        (_replace("'[cluster]'", ""), "no extra `cluster`"),
        (_replace("--torch-backend=cpu", ""), "no CPU build"),
        (_replace("assert torch.cuda", "torch.cuda"), "nobody looks whether"),
        (_replace("chmod 600", "chmod 644"), "read by others"),
        (put("available_node_types", "cpu_worker", "resources", value={}), "offers None CPUs"),
        (put("min_workers", value=1), "global min_workers"),
        (delete("available_node_types", "head", "node_config", "ImageId"), "no ImageId"),
        (delete("auth"), "ssh_user"),
        (delete("max_workers"), "max_workers is missing"),
        (delete("head_setup_commands"), "outside the environment"),
        (delete("file_mounts", "/home/ubuntu/.ray/auth_token"), "token does not reach"),
        (put("file_mounts", "/home/ubuntu/data", value="no-such-folder"), "no-such-folder does not exist"),
        (put("file_mounts", "/home/ubuntu/all", value="."), "whole repository"),
        (put("worker_start_ray_commands", value=["ray start"]), "without its environment"),
        (put("setup_commands", value=["echo 'cut by a hash sign"]), "not a whole shell command"),
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


Asked = tuple[dict[str, int], int]


def asked_for(bundle: dict[str, float], count: int, **known: Any) -> Asked:
    """What Ray's autoscaler starts for a search that asks for `count` times `bundle`.

    Args:
        known: What it knows of the cloud, as in its `SchedulingRequest`.

    Returns:
        Node type -> machines, and how many requests it gives up.
    """
    config = AutoscalingConfig(prepare_config(load()), skip_content_hash=True)
    request = asking.ResourceRequestByCount(request=ResourceRequestUtil.make(bundle), count=count)
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            cluster_resource_constraints=[asking.ClusterResourceConstraint(resource_requests=[request])],
            **known,
        )
    )
    started = {launch.instance_type: launch.count for launch in reply.to_launch}
    return started, len(reply.infeasible_cluster_resource_constraints)


TRIAL = {"CPU": 2.0, "GPU": 0.25}


@pytest.mark.parametrize(
    ("bundle", "count", "started"),
    [
        (TRIAL, 8, {"gpu_spot": 2}),
        (TRIAL, 24, {"gpu_spot": 4, "gpu_on_demand": 2}),
        ({"CPU": 4.0}, 9, {"cpu_worker": 3}),
    ],
    ids=["spot first", "on demand when the maximum of spot is reached", "no GPU for trials without one"],
)
def test_the_autoscaler_starts_what_a_search_asks_for(
    bundle: dict[str, float], count: int, started: dict[str, int]
) -> None:
    assert asked_for(bundle, count) == (started, 0)


def test_the_autoscaler_starts_nothing_for_a_request_above_the_maximum() -> None:
    """All or nothing: who asks must not ask for more than the file allows."""
    assert asked_for(TRIAL, 25) == ({}, 1)


def test_ray_does_not_notice_by_itself_that_there_is_no_spot_machine() -> None:
    """What cluster.yaml tells about it; when this fails, Ray has learnt it, and the file can say so."""
    monitor = CloudResourceMonitor()
    refused = machines.InstanceUpdateEvent(
        instance_id="1", new_instance_status=machines.Instance.ALLOCATION_FAILED, instance_type="gpu_spot"
    )
    monitor.notify([refused])
    known = monitor.get_recoverable_resource_availabilities()
    assert asked_for(TRIAL, 8, recoverable_resource_availabilities=known) == ({"gpu_spot": 2}, 0)
    late = machines.InstanceUpdateEvent(
        instance_id="1", new_instance_status=machines.Instance.ALLOCATION_TIMEOUT, instance_type="gpu_spot"
    )
    monitor.notify([late])
    known = monitor.get_recoverable_resource_availabilities()
    assert asked_for(TRIAL, 8, recoverable_resource_availabilities=known) == ({"gpu_on_demand": 2}, 0)


def install_commands() -> tuple[str, str]:
    """The setup commands that install the project, and that look whether its torch can use the GPU."""
    install, look = (command for command in load()["setup_commands"] if "0x10de" in command)
    return install, look


@pytest.mark.parametrize(
    ("vendor", "options"), [("0x8086", "--torch-backend=cpu --constraint"), ("0x10de", "--constraint")]
)
def test_machines_with_a_gpu_get_the_cuda_build_and_the_others_the_cpu_build(
    vendor: str, options: str, tmp_path: Path
) -> None:
    (tmp_path / "devices" / "0000:00:1e.0").mkdir(parents=True)
    (tmp_path / "devices" / "0000:00:1e.0" / "vendor").write_text(f"{vendor}\n")
    uv = tmp_path / ".local" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text('#!/bin/sh\necho "$@"\n')
    uv.chmod(0o755)
    python = tmp_path / "macil-env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n")  # torch cannot use a GPU
    python.chmod(0o755)
    install, look = (
        command.replace("/sys/bus/pci/devices", str(tmp_path / "devices")) for command in install_commands()
    )
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    installed = subprocess.run(
        ["bash", "-c", install], env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert installed.split("bin/python ")[1] == (
        f"{options} {tmp_path}/macil-tune/constraints.txt --editable {tmp_path}/macil-tune[cluster]\n"
    )
    looked = subprocess.run(["bash", "-c", look], env=environment, check=False)
    assert looked.returncode == (vendor == "0x10de")


def test_a_torch_without_cuda_is_named_by_the_look() -> None:
    _, look = install_commands()
    script = look.split(" -c ", 1)[1].strip().strip("'")
    cuda = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if torch.cuda.is_available():
        assert cuda.returncode == 0
    else:
        assert cuda.returncode == 1
        assert f"no CUDA {torch.version.cuda}" in cuda.stderr


def test_the_file_says_what_each_machine_costs_and_what_all_may_cost() -> None:
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    config = load()
    for name, node_type in config["available_node_types"].items():
        instance = node_type["node_config"]["InstanceType"]
        assert re.search(
            rf"^# +{name} +{re.escape(instance)} .*{re.escape(PRICES[instance])}", text, re.MULTILINE
        )
    assert "look them up" in text
    disk, head, worker = 0.02, 0.20, 0.98
    most = head + disk + config["max_workers"] * (worker + disk)
    assert f"= ${most:.2f} an hour" in text
