"""`cluster.yaml` and `deploy/aws.py` against a server that answers as AWS does: what Ray would start, and end, there.

Ray's own code launches and terminates every machine; moto's server, in a process of its own, is EC2, IAM and S3. Nobody
logs in to the machines: they are entries in a list.
"""

from __future__ import annotations

import copy
import json
import os
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ray.autoscaler._private.aws import utils as ray_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler.v2.instance_manager.config import FileConfigReader
from ray.autoscaler.v2.instance_manager.node_provider import NodeProviderAdapter

from tests.support.repository import ROOT
from tests.support.s3 import CREDENTIALS, s3_server

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

CLUSTER = "macil-tune"
REGION = "us-west-2"
BUCKET = "tests-macil"
MINE = "203.0.113.7/32"
WORLD = ("0.0.0.0/0", "::/0")
IMAGE = "ami-0123456789abcdef0"
IMAGES = [
    {
        "ami_id": number,
        "name": f"Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) {day}",
        "description": "With Ubuntu and a driver",
        "owner_id": "898082745236",
        "owner_alias": "amazon",
        "public": True,
        "architecture": "x86_64",
        "virtualization_type": "hvm",
        "hypervisor": "xen",
        "root_device_type": "ebs",
    }
    for number, day in (("ami-00000000000000001", "20260102"), (IMAGE, "20261002"))
]


@dataclass
class Cloud:
    """A server that answers as AWS does, and an account there.

    Attributes:
        home: Home of whoever says `ray up`.
    """

    endpoint: str
    home: Path

    def client(self, service: str, **credentials: str) -> Any:
        """A client of the account's owner, or of whom the credentials are for."""
        return boto3.client(service, region_name=REGION, **credentials)

    def prepare(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run deploy/aws.py."""
        command = [sys.executable, str(ROOT / "deploy" / "aws.py"), "--region", REGION, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def instances(self) -> list[dict[str, Any]]:
        """All that were ever started, as EC2 describes them."""
        pages = self.client("ec2").get_paginator("describe_instances").paginate()
        return [
            instance
            for page in pages
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        ]

    def alive(self) -> dict[str, dict[str, Any]]:
        """Node type -> the machine that is up; one of each type."""
        alive = [
            each for each in self.instances() if each["State"]["Name"] not in ("terminated", "shutting-down")
        ]
        by_type = {tags_of(each)["ray-user-node-type"]: each for each in alive}
        assert len(by_type) == len(alive)
        return by_type

    def check_rights(self, whether: bool) -> None:
        """Whether the server asks everybody from now on for the right to do what they ask for."""
        allowed = b"0" if whether else b"inf"
        request = urllib.request.Request(
            f"{self.endpoint}/moto-api/reset-auth", data=allowed, headers={"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200

    def become(self, role: str) -> dict[str, str]:
        """Credentials of a machine with this role."""
        arn = self.client("iam").get_role(RoleName=role)["Role"]["Arn"]
        given = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="machine")["Credentials"]
        return {
            "aws_access_key_id": given["AccessKeyId"],
            "aws_secret_access_key": given["SecretAccessKey"],
            "aws_session_token": given["SessionToken"],
        }


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    home = tmp_path / "home"
    home.mkdir()
    images = tmp_path / "images.json"
    images.write_text(json.dumps(IMAGES))
    settings = {
        **CREDENTIALS,
        "AWS_DEFAULT_REGION": REGION,
        "HOME": str(home),
        "MOTO_AMIS_PATH": str(images),
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for inherited in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(inherited, raising=False)
    with s3_server() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        _forget_clients()
        yield Cloud(endpoint, home)
    _forget_clients()


def _forget_clients() -> None:
    """Ray keeps its clients, with the server's address in them, for good."""
    ray_aws.resource_cache.cache_clear()
    ray_aws.client_cache.cache_clear()


def filled_in(output: str) -> dict[str, Any]:
    """cluster.yaml with the output of deploy/aws.py in its placeholders."""
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    put = yaml.safe_load(output.partition("For cluster.yaml:\n")[2].partition("  IamInstanceProfile:")[0])
    assert put["region"] == REGION
    for placeholder, value in (
        ("ami-" + 17 * "0", put["ImageId"]),
        ("sg-" + 17 * "0", put["SecurityGroupIds"][0]),
    ):
        assert text.count(placeholder) == 1
        text = text.replace(placeholder, value)
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def tags_of(resource: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource["Tags"]}


def everybody_who_may_enter(cloud: Cloud, group: str) -> list[tuple[str, int | None, str]]:
    """(protocol, port, from where) of each rule of a security group."""
    (found,) = cloud.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"]
    rules = []
    for rule in found["IpPermissions"]:
        sources = [
            *(each["CidrIp"] for each in rule.get("IpRanges", [])),
            *(each["CidrIpv6"] for each in rule.get("Ipv6Ranges", [])),
            *(each["GroupId"] for each in rule.get("UserIdGroupPairs", [])),
        ]
        rules += [(rule["IpProtocol"], rule.get("FromPort"), source) for source in sources]
    return sorted(rules, key=str)


def start_head(config: dict[str, Any]) -> AWSNodeProvider:
    """As `ray up` does it, with the same tags, up to where it would log in."""
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    head = copy.deepcopy(config["available_node_types"]["head"]["node_config"])
    head.update(config["head_node"])
    tags = {"ray-node-type": "head", "ray-user-node-type": "head", "ray-node-name": f"ray-{CLUSTER}-head"}
    provider.create_node(head, tags, 1)
    return provider


def test_ray_starts_head_and_workers_on_aws_as_the_file_says_and_ends_them_all(
    cloud: Cloud, tmp_path: Path
) -> None:
    prepared = cloud.prepare("--bucket", BUCKET, "--ssh-from", MINE)
    assert prepared.returncode == 0, prepared.stderr
    config = _bootstrap_config(filled_in(prepared.stdout), no_config_cache=True)
    group = config["available_node_types"]["head"]["node_config"]["SecurityGroupIds"][0]
    key = cloud.home / ".ssh" / f"{CLUSTER}.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    start_head(config)

    # From here on as the head does it: Ray's autoscaler, with the rights of the head's role and no others.
    only_actions(cloud)
    rights, weak_rights = cloud.become(f"{CLUSTER}-head"), cloud.become(f"{CLUSTER}-worker")
    on_head = copy.deepcopy(config)
    on_head["provider"]["aws_credentials"] = rights
    (tmp_path / "on_head.yaml").write_text(yaml.safe_dump(on_head))
    reader = FileConfigReader(str(tmp_path / "on_head.yaml"))
    provider = AWSNodeProvider(on_head["provider"], CLUSTER)
    adapter = NodeProviderAdapter(provider, reader)
    cloud.check_rights(True)
    adapter.launch({"gpu_spot": 1, "gpu_on_demand": 1, "cpu_worker": 1}, request_id="first")
    wait_for(lambda: len(adapter.get_non_terminated()) == 4, adapter)
    for node in adapter.get_non_terminated():
        provider.set_node_tags(node, {"ray-node-status": "up-to-date"})
    ec2 = cloud.client("ec2", **weak_rights)
    with pytest.raises(ec2.exceptions.ClientError, match="not authorized to perform"):
        ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1)
    cloud.check_rights(False)

    up = cloud.alive()
    assert {name: each["InstanceType"] for name, each in up.items()} == {
        "head": "m7i.xlarge",
        "gpu_spot": "g6.2xlarge",
        "gpu_on_demand": "g6.2xlarge",
        "cpu_worker": "c7i.4xlarge",
    }
    assert {name for name, each in up.items() if each.get("InstanceLifecycle") == "spot"} == {
        "gpu_spot",
        "cpu_worker",
    }
    for name, each in up.items():
        role = "head" if name == "head" else "worker"
        assert each["ImageId"] == IMAGE
        assert each["KeyName"] == CLUSTER
        assert [given["GroupId"] for given in each["SecurityGroups"]] == [group]
        assert each["IamInstanceProfile"]["Arn"].endswith(f":instance-profile/{CLUSTER}-{role}")
        tags = tags_of(each)
        assert tags["project"] == "macil-tune"
        assert tags["ray-cluster-name"] == CLUSTER
        assert tags["ray-node-type"] == role
        assert tags["ray-node-status"] == "up-to-date"
        assert tags["Name"] == f"ray-{CLUSTER}-{role}"
    volumes = cloud.client("ec2").describe_volumes()["Volumes"]
    assert [volume["Size"] for volume in volumes] == [200] * 4
    assert {tags_of(volume)["project"] for volume in volumes} == {"macil-tune"}
    assert everybody_who_may_enter(cloud, group) == [("-1", None, group), ("tcp", 22, MINE)]

    cloud.check_rights(True)
    adapter.terminate([each["InstanceId"] for name, each in up.items() if name != "head"], request_id="last")
    wait_for(lambda: len(adapter.get_non_terminated()) == 1, adapter)
    provider.terminate_nodes([up["head"]["InstanceId"]])
    cloud.check_rights(False)
    assert cloud.alive() == {}
    assert len(cloud.instances()) == 4
    removed = cloud.prepare("--remove")
    assert removed.returncode == 0, removed.stderr
    left = [role["RoleName"] for role in cloud.client("iam").list_roles()["Roles"]]
    assert left == ["AWSServiceRoleForspot"]  # the account's, for whoever starts spot machines
    groups = cloud.client("ec2").describe_security_groups()["SecurityGroups"]
    assert {each["GroupName"] for each in groups} == {"default"}


def only_actions(cloud: Cloud) -> None:
    """The server knows which actions a role may do, but neither conditions nor resources of a statement."""
    iam = cloud.client("iam")
    for role in (f"{CLUSTER}-head", f"{CLUSTER}-worker"):
        for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
            for statement in document["Statement"]:
                statement.pop("Condition", None)
                statement["Resource"] = "*"
            iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))


def wait_for(reached: Any, adapter: NodeProviderAdapter) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        errors = [str(error.__cause__) for error in adapter.poll_errors()]
        assert not errors, errors
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_without_a_group_of_ones_own_ray_opens_ssh_to_the_world(cloud: Cloud) -> None:
    """Why cluster.yaml names a group, and has no `security_group` of Ray's."""
    prepared = cloud.prepare("--bucket", BUCKET, "--ssh-from", MINE)
    config = filled_in(prepared.stdout)
    for node_type in config["available_node_types"].values():
        node_type["node_config"].pop("SecurityGroupIds", None)
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": MINE}]}
    config["provider"]["security_group"] = {"GroupName": "another", "IpPermissions": [rule]}
    config = _bootstrap_config(config, no_config_cache=True)
    (group,) = config["available_node_types"]["head"]["node_config"]["SecurityGroupIds"]
    assert ("tcp", 22, "0.0.0.0/0") in everybody_who_may_enter(cloud, group)


def test_the_account_is_prepared_once_and_again_for_another_address(cloud: Cloud) -> None:
    for address in (MINE, MINE, "198.51.100.0/24"):
        prepared = cloud.prepare("--bucket", BUCKET, "--ssh-from", address)
        assert prepared.returncode == 0, prepared.stderr
    config = filled_in(prepared.stdout)
    group = config["available_node_types"]["head"]["node_config"]["SecurityGroupIds"][0]
    assert everybody_who_may_enter(cloud, group) == [("-1", None, group), ("tcp", 22, "198.51.100.0/24")]
    assert config["available_node_types"]["gpu_spot"]["node_config"]["ImageId"] == IMAGE  # the newest
    closed = cloud.client("s3").get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert set(closed.values()) == {True}
    iam = cloud.client("iam")
    kinds = {"head": {"aws-head", "aws-bucket"}, "worker": {"aws-bucket"}}
    for kind, policies in kinds.items():
        name = f"{CLUSTER}-{kind}"
        (role,) = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
        assert role["RoleName"] == name
        assert set(iam.list_role_policies(RoleName=name)["PolicyNames"]) == policies
        assert iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] == []
        for policy in policies:
            document = json.dumps(iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"])
            assert not {"BUCKET", "CLUSTER", "ACCOUNT"} & set(
                document.replace("/", ":").replace('"', ":").split(":")
            )


@pytest.mark.parametrize("world", [*WORLD, "10.0.0.0/7"])
def test_a_group_open_to_the_world_is_refused(cloud: Cloud, world: str) -> None:
    prepared = cloud.prepare("--bucket", BUCKET, "--ssh-from", world)
    assert prepared.returncode == 2
    assert "open to the world" in prepared.stderr
    assert cloud.client("s3").list_buckets()["Buckets"] == []


def test_the_head_and_the_workers_can_do_with_the_bucket_what_a_search_does(cloud: Cloud) -> None:
    prepared = cloud.prepare("--bucket", BUCKET, "--ssh-from", MINE)
    assert prepared.returncode == 0, prepared.stderr
    cloud.client("s3").create_bucket(
        Bucket="another", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    for kind in ("head", "worker"):
        rights = cloud.become(f"{CLUSTER}-{kind}")
        cloud.check_rights(True)
        s3 = cloud.client("s3", **rights)
        with pytest.raises(s3.exceptions.ClientError, match="Access Denied"):
            s3.put_object(Bucket="another", Key="key", Body=b"")
        script = (
            "import os; from pyarrow import fs\n"
            "s3 = fs.S3FileSystem(region=os.environ['AWS_DEFAULT_REGION'],"
            " endpoint_override=os.environ['AWS_ENDPOINT_URL'])\n"
            f"place = '{BUCKET}/runs/{kind}'\n"
            "with s3.open_output_stream(place) as out: out.write(b'x' * 11 * 2**20)\n"  # in several parts
            "assert s3.get_file_info(place).size == 11 * 2**20\n"
            "assert len(s3.open_input_file(place).read()) == 11 * 2**20\n"
            f"assert len(s3.get_file_info(fs.FileSelector('{BUCKET}/runs'))) == 1\n"
            "s3.delete_file(place)\n"
        )
        environment = {**os.environ, **{name.upper(): value for name, value in rights.items()}}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        cloud.check_rights(False)
        assert done.returncode == 0, done.stderr
