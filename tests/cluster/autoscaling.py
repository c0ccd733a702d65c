"""A host of the lab whose Ray starts and ends workers as they are asked for: fake nodes, processes of that one host.

The autoscaler is Ray's own, and so is all that it reads and decides; only a new machine takes seconds here. GPUs are
numbers that nothing looks at.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.cluster.lab import PORT, RAYLET, Host, Lab

# Seconds after which a worker without work is given back.
IDLE = 12.0
_OBJECT_STORE = 80 * 2**20
_SOCKET = re.compile(r"--raylet_socket_name=(\S+)")
# Ray's second autoscaler wants to read that example, too.
WITHOUT_EXAMPLE = {
    "ray.autoscaler._private.providers": """
_whole = _get_default_config
def _get_default_config(provider_config):
    return {} if provider_config["type"] == "fake_multinode" else _whole(provider_config)
"""
}


def autoscaling_config(host: Host, worker: Mapping[str, int], most: int, version: int) -> dict[str, Any]:
    """What `ray up` would write for a head that runs nothing, and 0 to `most` workers of one type.

    Ray's wheel lacks the example that its own test helper reads.
    """
    resources = {**worker, "object_store_memory": _OBJECT_STORE}
    return {
        "cluster_name": "fake",
        "max_workers": most,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE / 60,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": f"{host.address}:{PORT}",
            "head_node_id": FAKE_HEAD_NODE_ID,
            # The first autoscaler starts too many so, and ends them again.
            "launch_multiple": version == 2,
            "use_node_id_as_ip": True,  # all nodes have the address of this host
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most},
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


@dataclass
class Autoscaling:
    """An autoscaling cluster on a host of its own; its workers are there when their raylets are.

    Attributes:
        counts: Workers, as often as `look` saw another number: (seconds since `began`, number).
    """

    lab: Lab
    host: Host
    began: float = field(default_factory=time.monotonic)
    counts: list[tuple[float, int]] = field(default_factory=list)

    def look(self) -> int:
        """How many workers there are now."""
        # By their sockets: a raylet that starts a process has its twin for a moment.
        sockets = {_SOCKET.findall(process.command)[0] for process in self.host.processes(RAYLET + " ")}
        number = len(sockets) - 1
        if not self.counts or self.counts[-1][1] != number:
            self.counts.append((time.monotonic() - self.began, number))
        return number

    def wait_for(self, reached: Callable[[int], bool], seconds: float) -> float:
        """Look until their number is as wanted; how many seconds that took."""
        began = time.monotonic()
        while not reached(self.look()):
            assert time.monotonic() - began < seconds, (
                f"not within {seconds:g} s: {self.counts}\n{self.lab.logs()}"
            )
            time.sleep(0.2)
        return time.monotonic() - began


def start_autoscaling(lab: Lab, worker: Mapping[str, int], most: int, *, version: int = 1) -> Autoscaling:
    """Start a head that starts up to `most` workers of these resources.

    Args:
        version: Of Ray's autoscaler.
    """
    host = lab.host("head")
    config = lab.folder / "autoscaling.json"
    config.write_text(json.dumps(autoscaling_config(host, worker, most, version)))
    settings = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": str(int(version == 2)),
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "RAY_NODE_TYPE_NAME": "ray.head.default",
    }
    ray = str(Path(sys.executable).with_name("ray"))
    command = [
        *("env", *(f"{name}={value}" for name, value in settings.items())),
        *(ray, "start", "--head", f"--port={PORT}", f"--node-ip-address={host.address}", "--num-cpus=0"),
        *("--include-dashboard=false", "--disable-usage-stats", f"--object-store-memory={_OBJECT_STORE}"),
        f"--autoscaling-config={config}",
    ]
    log = lab.folder / "head.ray.log"
    code = host.start(*command, log=log).wait(timeout=180)
    assert code == 0, f"Ray does not start: {log.read_text()}"
    return Autoscaling(lab, host)
