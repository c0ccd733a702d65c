"""What lies in deploy/ is right as far as can be seen without Kubernetes; tests/cluster runs Slurm and AWS's part."""

from __future__ import annotations

import copy
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.kuberay.utils import parse_quantity

from tests.cluster.lab import cluster_environment
from tests.support.repository import ROOT

DEPLOY = ROOT / "deploy"
Manifest = dict[str, Any]

# What KubeRay 1.5 knows, from its types (ray-operator/apis/ray/v1/raycluster_types.go).
GROUP = {"rayStartParams", "template", "resources", "labels"}
FIELDS = {
    "spec": {
        "suspend",
        "managedBy",
        "authOptions",
        "autoscalerOptions",
        "headServiceAnnotations",
        "enableInTreeAutoscaling",
        "gcsFaultToleranceOptions",
        "headGroupSpec",
        "rayVersion",
        "workerGroupSpecs",
    },
    "authOptions": {"mode"},
    "autoscalerOptions": {
        "resources",
        "image",
        "imagePullPolicy",
        "securityContext",
        "idleTimeoutSeconds",
        "upscalingMode",
        "version",
        "env",
        "envFrom",
        "volumeMounts",
    },
    "headGroupSpec": {*GROUP, "headService", "enableIngress", "serviceType"},
    "workerGroupSpecs": {
        *GROUP,
        "suspend",
        "groupName",
        "replicas",
        "minReplicas",
        "maxReplicas",
        "idleTimeoutSeconds",
        "scaleStrategy",
        "numOfHosts",
    },
}
# Of Kubernetes itself, those in use.
POD = {
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "securityContext",
    "nodeSelector",
    "tolerations",
    "containers",
    "volumes",
}
CONTAINER = {"name", "image", "securityContext", "env", "envFrom", "ports", "resources", "volumeMounts"}


def manifest() -> Manifest:
    loaded: Manifest = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text(encoding="utf-8"))
    return loaded


def groups(cluster: Manifest) -> dict[str, Manifest]:
    """Its groups of pods by name, the head's under "head"."""
    spec = cluster["spec"]
    return {
        "head": spec["headGroupSpec"],
        **{group["groupName"]: group for group in spec["workerGroupSpecs"]},
    }


def faults(cluster: Manifest) -> list[str]:
    """What is wrong with the manifest, as far as can be seen without Kubernetes."""
    return [*_field_faults(cluster), *_cluster_faults(cluster), *_pod_faults(cluster)]


def _field_faults(cluster: Manifest) -> list[str]:
    spec = cluster["spec"]
    found = [f"{field} is not a field of RayCluster" for field in spec.keys() - FIELDS["spec"]]
    for part in ("authOptions", "autoscalerOptions", "headGroupSpec"):
        found += [f"{part}.{field} is no field" for field in spec.get(part, {}).keys() - FIELDS[part]]
    for group in spec["workerGroupSpecs"]:
        found += [
            f"workerGroupSpecs.{field} is no field" for field in group.keys() - FIELDS["workerGroupSpecs"]
        ]
    for name, group in groups(cluster).items():
        pod = group["template"]["spec"]
        found += [f"{name}: {field} is not a field of a pod" for field in pod.keys() - POD]
        for container in pod["containers"]:
            found += [
                f"{name}: {field} is not a field of a container" for field in container.keys() - CONTAINER
            ]
        for key, value in group["rayStartParams"].items():
            if not isinstance(value, str):
                found.append(f"{name}: rayStartParams.{key} is no string")
    return found


def _cluster_faults(cluster: Manifest) -> list[str]:
    spec = cluster["spec"]
    found = []
    if (cluster["apiVersion"], cluster["kind"]) != ("ray.io/v1", "RayCluster"):
        found.append("no RayCluster of ray.io/v1")
    if spec.get("rayVersion") != ray.__version__:
        found.append(f"Ray {spec.get('rayVersion')} is not that of constraints.txt")
    if spec.get("authOptions") != {"mode": "token"}:
        found.append("whoever reaches the head may run code")
    if not spec.get("enableInTreeAutoscaling"):
        found.append("no worker comes")
    if spec["headGroupSpec"].get("serviceType", "ClusterIP") != "ClusterIP":
        found.append("the head can be reached from outside")
    if spec["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        found.append("the head runs trials")
    return found


def _pod_faults(cluster: Manifest) -> list[str]:
    found = []
    health = {name: value for name, value in cluster_environment().items() if "health_check" in name}
    images = set()
    for name, group in groups(cluster).items():
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        images.add(container["image"])
        environment = {each["name"]: each["value"] for each in container["env"]}
        if {key: value for key, value in environment.items() if "health_check" in key} != health:
            found.append(f"{name}: other health checks than in cluster.yaml")
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        if any(requests[key] != limits[key] for key in ("cpu", "memory")):
            found.append(f"{name}: what it is promised is not what it may use")
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: volumes.get(mount["name"], {}) for mount in container["volumeMounts"]}
        shared = mounts.get("/dev/shm", {}).get("emptyDir", {})
        if shared.get("medium") != "Memory":
            found.append(f"{name}: no shared memory")
        elif parse_quantity(shared["sizeLimit"]) * 2 > parse_quantity(limits["memory"]):
            found.append(f"{name}: shared memory takes what the trials need")
        if environment.get("MACIL_CACHE") not in mounts:
            found.append(f"{name}: the copy of the data has no volume")
        if name != "head" and requests.get("nvidia.com/gpu") != limits.get("nvidia.com/gpu", "0"):
            found.append(f"{name}: no GPU")
        if pod.get("securityContext", {}).get("runAsNonRoot") is not True:
            found.append(f"{name}: runs as root")
    if len(images) != 1:
        found.append("head and workers have different images")
    return found


def test_the_manifest_has_no_fault() -> None:
    assert faults(manifest()) == []


def _set(*path: str | int, value: Any) -> Callable[[Manifest], None]:
    def change(cluster: Manifest) -> None:
        part: Any = cluster
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value

    return change


HEAD = ("spec", "headGroupSpec")
WORKER = ("spec", "workerGroupSpecs", 0)
HEAD_POD = (*HEAD, "template", "spec")
POD_OF_WORKER = (*WORKER, "template", "spec")
BOX = (*POD_OF_WORKER, "containers", 0)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_set("apiVersion", value="ray.io/v1alpha1"), "no RayCluster of ray.io/v1"),
        (_set("spec", "enableAutoscaling", value=True), "enableAutoscaling is not a field"),
        (_set("spec", "enableInTreeAutoscaling", value=False), "no worker comes"),
        (_set("spec", "rayVersion", value="2.9.0"), "not that of constraints.txt"),
        (_set("spec", "authOptions", value={"mode": "disabled"}), "may run code"),
        (_set("spec", "autoscalerOptions", "idleTimeout", value=600), "autoscalerOptions.idleTimeout"),
        (_set(*HEAD, "serviceType", value="LoadBalancer"), "reached from outside"),
        (_set(*HEAD, "rayStartParams", value={}), "the head runs trials"),
        (_set(*HEAD, "rayStartParams", value={"num-cpus": 0}), "is no string"),
        (_set(*WORKER, "max_replicas", value=4), "workerGroupSpecs.max_replicas"),
        (_set(*POD_OF_WORKER, "volume", value=[]), "not a field of a pod"),
        (_set(*BOX, "environment", value=[]), "not a field of a container"),
        (_set(*BOX, "env", 0, "value", value="60000"), "other health checks"),
        (_set(*BOX, "resources", "requests", "cpu", value="1"), "what it is promised"),
        (_set(*BOX, "resources", "requests", "nvidia.com/gpu", value="2"), "gpu: no GPU"),
        (_set(*BOX, "image", value="rayproject/ray:2.60.0"), "different images"),
        (_set(*BOX, "volumeMounts", value=[]), "no shared memory"),
        (_set(*BOX, "env", 4, "value", value="/elsewhere"), "copy of the data has no volume"),
        (_set(*HEAD_POD, "volumes", 0, "emptyDir", "sizeLimit", value="6Gi"), "takes what the trials need"),
        (_set(*HEAD_POD, "securityContext", value={}), "runs as root"),
    ],
)
def test_faults_of_the_manifest_are_found(change: Callable[[Manifest], None], fault: str) -> None:
    cluster = copy.deepcopy(json.loads(json.dumps(manifest())))  # without what YAML's anchors share
    change(cluster)
    assert any(fault in found for found in faults(cluster))


def test_rays_autoscaler_reads_the_manifest_and_sees_a_head_without_cpus_and_workers_with_a_gpu() -> None:
    cluster = manifest()
    cluster["metadata"]["namespace"] = "default"  # as Kubernetes fills it in
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    head, workers = config["available_node_types"]["headgroup"], config["available_node_types"]["gpu"]
    assert head["resources"]["CPU"] == 0
    assert "GPU" not in head["resources"]
    assert (workers["resources"]["CPU"], workers["resources"]["GPU"]) == (8, 1)
    assert (workers["min_workers"], workers["max_workers"]) == (0, 4)
    assert config["idle_timeout_minutes"] == 10


def test_the_image_is_pinned_and_has_all_that_it_copies_and_what_kuberay_asks_for() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert {line.split()[0] for line in lines} == {"FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR"}
    version = ".".join(map(str, sys.version_info[:2]))
    assert re.match(rf"FROM python:{re.escape(version)}\.\d+-slim-bookworm$", lines[0])
    sources = [source for line in lines if line.startswith("COPY") for source in line.split()[1:-1]]
    assert {"macil", "tune", "pyproject.toml", "constraints.txt"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
    installs = [line for line in lines if "pip install" in line]
    assert installs
    assert all("--constraint /opt/macil-tune/constraints.txt" in line for line in installs)
    assert "'/opt/macil-tune[cluster]'" in installs[-1]
    assert re.search(r"install .* wget ", text)
    user = manifest()["spec"]["headGroupSpec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert f"useradd --uid {user} " in text
    assert [line for line in lines if line.startswith("USER")] == ["USER macil"]


def slurm_script() -> str:
    return (DEPLOY / "slurm.sh").read_text(encoding="utf-8")


def test_the_slurm_script_is_a_whole_one() -> None:
    subprocess.run(["bash", "-n", str(DEPLOY / "slurm.sh")], check=True)
    text = slurm_script()
    inner = re.search(r"^on_node='\n(.*?)'$", text, re.MULTILINE | re.DOTALL)
    assert inner is not None
    subprocess.run(["bash", "-n", "-c", inner[1]], check=True)
    waiting = re.search(r"^wait_for_nodes='\n(.*?)'$", text, re.MULTILINE | re.DOTALL)
    assert waiting is not None
    compile(waiting[1], "wait_for_nodes", "exec")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_the_slurm_script() -> None:
    # Called by traps only (SC2317), and a script for the nodes in single quotes (SC2016): both on purpose.
    command = ["shellcheck", "--exclude=SC2317,SC2016", str(DEPLOY / "slurm.sh")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_slurm_reads_what_the_script_asks_for() -> None:
    """Slurm stops reading at the first command."""
    lines = slurm_script().splitlines()
    first = next(at for at, line in enumerate(lines) if line and not line.startswith("#"))
    asked = [line.removeprefix("#SBATCH ") for line in lines[:first] if line.startswith("#SBATCH ")]
    assert len(asked) == sum("#SBATCH" in line for line in lines)
    assert {"--requeue", "--signal=B:USR1@180", "--open-mode=append", "--ntasks-per-node=1"} <= set(asked)


def test_the_slurm_script_has_the_health_checks_of_cluster_yaml_and_never_stops_the_ray_of_others() -> None:
    text = slurm_script()
    assert len(cluster_environment()) > 1
    for name, value in cluster_environment().items():
        assert re.findall(rf"{name}=(\w+)", text) == [value]
    code = "\n".join(line.split(" # ")[0] for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert "ray start" in code
    for forbidden in ("ray stop", "pkill", "killall", "0.0.0.0"):
        assert forbidden not in code


def test_the_rights_on_aws_are_those_of_one_cluster_and_one_bucket() -> None:
    statements = {
        file: json.loads((DEPLOY / file).read_text(encoding="utf-8"))["Statement"]
        for file in ("aws-head.json", "aws-bucket.json")
    }
    everything = [statement for each in statements.values() for statement in each]
    assert all(statement["Effect"] == "Allow" for statement in everything)
    assert not [action for statement in everything for action in _list(statement["Action"]) if "*" in action]
    for statement in statements["aws-bucket.json"]:
        assert statement["Resource"].startswith("arn:aws:s3:::BUCKET")
    for statement in statements["aws-head.json"]:
        actions = set(_list(statement["Action"]))
        if actions & {"ec2:TerminateInstances", "ec2:CreateTags", "iam:PassRole"}:
            assert statement["Condition"]
        if "ec2:TerminateInstances" in actions:
            assert statement["Condition"] == {"StringEquals": {"aws:ResourceTag/ray-cluster-name": "CLUSTER"}}


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_what_was_not_run_is_reported_at_the_top_of_each_file() -> None:
    for file in (DEPLOY / "kuberay.yaml", DEPLOY / "slurm.sh", DEPLOY / "Dockerfile", ROOT / "cluster.yaml"):
        lines = file.read_text(encoding="utf-8").splitlines()
        comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
        text = " ".join(line.lstrip("#").strip() for line in comment)
        assert re.search(r"(^|\. )(It was not run|Not run|Not built)\b[^.]{20,}", text), f"{file}: {text}"
