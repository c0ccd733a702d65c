"""Short messages from a trial's worker to the search, beside its results: a worker that waits cannot report.

They go through the cluster's control service. A message is lost if that is; nothing depends on one.
"""

from __future__ import annotations

import json
import time
import uuid

import ray
from ray.experimental import internal_kv

_NAMESPACE = b"macil-notices"


def post(sender: str, text: str) -> None:
    """Leave a message for the search that this worker belongs to."""
    if not ray.is_initialized():
        return
    key = f"{_job()}/{time.time_ns():020d}/{uuid.uuid4().hex}"
    internal_kv._internal_kv_put(key, json.dumps([sender, text]), namespace=_NAMESPACE)


def collect() -> list[tuple[str, str]]:
    """Sender and text of what has come in since the last time, in order."""
    messages = []
    for key in sorted(internal_kv._internal_kv_list(f"{_job()}/", namespace=_NAMESPACE)):
        value = internal_kv._internal_kv_get(key, namespace=_NAMESPACE)
        internal_kv._internal_kv_del(key, namespace=_NAMESPACE)
        if value is not None:
            sender, text = json.loads(value)
            messages.append((str(sender), str(text)))
    return messages


def _job() -> str:
    """A worker's job is that of the search that started it."""
    return str(ray.get_runtime_context().get_job_id())
