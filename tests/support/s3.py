"""An S3 server on this machine, over HTTP as a real one: moto's, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import boto3

# Any: the server does not check them.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Yield the address, http://127.0.0.1:PORT, of a server that loses everything when it ends."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **CREDENTIALS},
    )
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            assert process.poll() is None, "moto's server did not start"
            assert time.monotonic() < deadline, "moto's server does not answer"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def make_bucket(endpoint: str, name: str) -> str:
    """Make a bucket; returns its URI."""
    _client(endpoint).create_bucket(Bucket=name)
    return f"s3://{name}"


def put_object(bucket: str, key: str, content: bytes) -> None:
    """Put an object under exactly this name."""
    parts = urlsplit(bucket)
    _client(os.environ["AWS_ENDPOINT_URL"]).put_object(
        Bucket=parts.netloc, Key=f"{parts.path[1:]}/{key}" if parts.path.strip("/") else key, Body=content
    )


@dataclass
class Link:
    """What stands between a client and the server, and can be cut: the server itself would lose its objects.

    Attributes:
        address: HOST:PORT of this end.
        bytes: What has gone through.
    """

    server: str
    address: str = ""
    bytes: int = 0
    _listener: socket.socket | None = None
    _open: list[socket.socket] = field(default_factory=list)

    def connect(self) -> None:
        """Listen; again on the same port after a cut."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(self.address.rpartition(":")[2] or 0)))
        listener.listen(64)
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """Refuse new connections and end those that are open."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        host, _, port = self.server.removeprefix("http://").partition(":")
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection((host, int(port)))
            except OSError:
                return
            self._open += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while block := source.recv(65536):
                target.sendall(block)
                self.bytes += len(block)
        except OSError:
            pass
        finally:
            for each in (source, target):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            source.close()


def _client(endpoint: str) -> boto3.client:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
        aws_access_key_id="tests",
        aws_secret_access_key="tests",
    )


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
