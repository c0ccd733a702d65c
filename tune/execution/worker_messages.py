"""Short messages from a trial's worker to the search, beside its results: a worker that waits cannot report.

They go through the cluster's control service. A message is lost if that is; nothing depends on one.
"""

from __future__ import annotations

import json
import time
import uuid

import ray

from tune.execution.ray_internals import put_message, take_messages

_NAMESPACE = b"macil-messages"


def post(sender: str, text: str) -> None:
    """Leave a message for the search that this worker belongs to."""
    if not ray.is_initialized():
        return
    key = f"{_job()}/{time.time_ns():020d}/{uuid.uuid4().hex}"
    put_message(_NAMESPACE, key, json.dumps([sender, text]))


def collect() -> list[tuple[str, str]]:
    """Sender and text of what has come in since the last time, in order."""
    messages = []
    for message in take_messages(_NAMESPACE, f"{_job()}/"):
        sender, text = json.loads(message)
        messages.append((str(sender), str(text)))
    return messages


def _job() -> str:
    """A worker's job is that of the search that started it."""
    return str(ray.get_runtime_context().get_job_id())
