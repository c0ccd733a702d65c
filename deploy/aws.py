"""`python deploy/aws.py`: make once what a cluster on AWS needs, and say what to put in cluster.yaml.

A bucket that nobody else can read, a role for the head (aws-head.json and aws-bucket.json) and one for the workers
(aws-bucket.json), and a security group that lets ssh in from one's own addresses alone. What is there already is kept,
so it can be run again, e.g. with a new address. `--remove` takes everything away but the bucket.

It was run against a server that answers as AWS does (tests/cluster/test_aws.py), not against AWS.
"""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

_HERE = Path(__file__).resolve().parent
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
# Role -> the policies in it.
_ROLES = {"head": ("aws-head", "aws-bucket"), "worker": ("aws-bucket",)}
_IMAGE = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 2?.04) *"
_SSH = 22


class Account:
    """What is made in one region of one's account.

    Args:
        region: As in cluster.yaml.
        cluster: `cluster_name` of cluster.yaml, with which all names begin.
    """

    def __init__(self, region: str, cluster: str) -> None:
        boto3 = _boto3()
        self.region = region
        self.cluster = cluster
        self.ec2 = boto3.client("ec2", region_name=region)
        self.iam = boto3.client("iam", region_name=region)
        self.s3 = boto3.client("s3", region_name=region)
        self.number: str = boto3.client("sts", region_name=region).get_caller_identity()["Account"]

    def make_bucket(self, bucket: str) -> None:
        """A bucket of one's own that is not public, or the one that is there."""
        place = (
            {}
            if self.region == "us-east-1"
            else {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
        )
        with _unless("BucketAlreadyOwnedByYou"):
            self.s3.create_bucket(Bucket=bucket, **place)
        closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        self.s3.put_public_access_block(
            Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(closed, True)
        )

    def make_roles(self, bucket: str) -> None:
        """Roles with instance profiles for head and workers, and the role that spot machines need."""
        for kind, policies in _ROLES.items():
            name = f"{self.cluster}-{kind}"
            with _unless("EntityAlreadyExists"):
                self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(_TRUST))
            for policy in policies:
                document = policy_document(policy, bucket, self.cluster, self.number)
                self.iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=document)
            with _unless("EntityAlreadyExists"):
                self.iam.create_instance_profile(InstanceProfileName=name)
            with _unless("LimitExceeded"):  # a profile has one role: it has this one
                self.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        with _unless("InvalidInput", "EntityAlreadyExists"):  # one an account
            self.iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")

    def make_group(self, ssh_from: str, vpc: str | None) -> str:
        """A security group that lets in ssh from `ssh_from` alone, and all traffic among its machines.

        Returns:
            Its id.
        """
        group = self._group(vpc)
        if group is None:
            vpc = vpc or self._default_vpc()
            made = self.ec2.create_security_group(
                GroupName=self.cluster, Description=f"Nodes of {self.cluster}", VpcId=vpc
            )
            group = self.ec2.describe_security_groups(GroupIds=[made["GroupId"]])["SecurityGroups"][0]
        number: str = group["GroupId"]
        wanted = _ssh_rule(ssh_from)
        old = [rule for rule in group["IpPermissions"] if rule["IpProtocol"] != "-1"]
        if old:
            self.ec2.revoke_security_group_ingress(GroupId=number, IpPermissions=old)
        inside = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": number}]}
        for rule in (inside, wanted):
            with _unless("InvalidPermission.Duplicate"):
                self.ec2.authorize_security_group_ingress(GroupId=number, IpPermissions=[rule])
        return number

    def newest_image(self) -> str | None:
        """The newest image of Amazon's with Ubuntu and a driver for CUDA, None if none is found."""
        filters = [
            {"Name": "name", "Values": [_IMAGE]},
            {"Name": "architecture", "Values": ["x86_64"]},
            {"Name": "state", "Values": ["available"]},
        ]
        images = self.ec2.describe_images(Owners=["amazon"], Filters=filters)["Images"]
        newest = max(
            images, key=lambda image: (str(image["CreationDate"])[:10], str(image["Name"])), default=None
        )
        return None if newest is None else f"{newest['ImageId']}  # {newest['Name']}"

    def remove(self, vpc: str | None) -> None:
        """Take away the roles and the group; the bucket stays."""
        for kind, policies in _ROLES.items():
            name = f"{self.cluster}-{kind}"
            with _unless("NoSuchEntity"):
                self.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
            with _unless("NoSuchEntity"):
                self.iam.delete_instance_profile(InstanceProfileName=name)
            for policy in policies:
                with _unless("NoSuchEntity"):
                    self.iam.delete_role_policy(RoleName=name, PolicyName=policy)
            with _unless("NoSuchEntity"):
                self.iam.delete_role(RoleName=name)
        group = self._group(vpc)
        if group is not None:
            self.ec2.delete_security_group(GroupId=group["GroupId"])

    def _group(self, vpc: str | None) -> dict[str, Any] | None:
        filters = [
            {"Name": "group-name", "Values": [self.cluster]},
            {"Name": "vpc-id", "Values": [vpc or self._default_vpc()]},
        ]
        groups: list[dict[str, Any]] = self.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        return groups[0] if groups else None

    def _default_vpc(self) -> str:
        filters = [{"Name": "is-default", "Values": ["true"]}]
        found = self.ec2.describe_vpcs(Filters=filters)["Vpcs"]
        if not found:
            raise click.ClickException(f"{self.region} has no default VPC; say --vpc")
        number: str = found[0]["VpcId"]
        return number


def policy_document(policy: str, bucket: str, cluster: str, account: str) -> str:
    """The text of a policy of this folder, for one bucket, cluster and account."""
    text = (_HERE / f"{policy}.json").read_text(encoding="utf-8")
    for word, by in (("BUCKET", bucket), ("CLUSTER", cluster), ("ACCOUNT", account)):
        text = text.replace(word, by)
    return text


def _ssh_rule(ssh_from: str) -> dict[str, Any]:
    network = ipaddress.ip_network(ssh_from)
    ranges = (
        {"IpRanges": [{"CidrIp": ssh_from}]}
        if network.version == 4
        else {"Ipv6Ranges": [{"CidrIpv6": ssh_from}]}
    )
    return {"IpProtocol": "tcp", "FromPort": _SSH, "ToPort": _SSH, **ranges}


def _own_addresses(_context: click.Context, _option: click.Parameter, given: str | None) -> str | None:
    if given is None:
        return None
    try:
        network = ipaddress.ip_network(given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if network.prefixlen < 8:
        raise click.BadParameter(f"{given} is open to the world; give your own address, as 203.0.113.7/32")
    return given


@contextlib.contextmanager
def _unless(*codes: str) -> Iterator[None]:
    """Let pass what AWS says about what is there already, or no longer."""
    errors = importlib.import_module("botocore.exceptions")
    try:
        yield
    except errors.ClientError as error:
        if error.response["Error"]["Code"] not in codes:
            raise click.ClickException(str(error)) from error
    except errors.BotoCoreError as error:  # no credentials, no network
        raise click.ClickException(str(error)) from error


def _boto3() -> Any:
    try:
        return importlib.import_module("boto3")
    except ModuleNotFoundError as error:
        raise click.ClickException(
            "boto3 is missing; pip install --constraint constraints.txt '.[cluster]'"
        ) from error


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--region", required=True, help="As in cluster.yaml.")
@click.option("--bucket", help="For the data and the runs; made if it is not there.")
@click.option("--ssh-from", callback=_own_addresses, help="Addresses that may log in, as 203.0.113.7/32.")
@click.option("--cluster", default="macil-tune", show_default=True, help="cluster_name of cluster.yaml.")
@click.option("--vpc", help="Default the region's default VPC.")
@click.option("--remove", is_flag=True, help="Take the roles and the group away again; after `ray down`.")
def prepare(
    region: str, bucket: str | None, ssh_from: str | None, cluster: str, vpc: str | None, remove: bool
) -> None:
    """Make what cluster.yaml needs on AWS: bucket, roles, security group."""
    if not remove and (bucket is None or ssh_from is None):
        raise click.UsageError("--bucket and --ssh-from are needed")
    with _unless():
        account = Account(region, cluster)
        if bucket is None or ssh_from is None or remove:
            account.remove(vpc)
            click.echo(f"removed the roles and the security group of {cluster}; a bucket is left as it is")
            return
        account.make_bucket(bucket)
        account.make_roles(bucket)
        group = account.make_group(ssh_from, vpc)
        image = account.newest_image()
    image = image or "none found: look for an AWS Deep Learning Base GPU image with Ubuntu"
    click.echo("For cluster.yaml:")
    click.echo(f"  region: {region}")
    click.echo(f"  ImageId: {image}")
    click.echo(f"  SecurityGroupIds: [{group}]")
    click.echo(f"  IamInstanceProfile: {{Name: {cluster}-head}} and {{Name: {cluster}-worker}}")
    click.echo(f"For the search: --data s3://{bucket}/xd.store --storage s3://{bucket}/runs")


if __name__ == "__main__":
    prepare()
