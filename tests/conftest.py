"""Shared fixtures, made once a session: a tiny demo data set, an S3 server, a Ray; and what runs in one process."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from macil.data import FeatureStore, convert, write_demo
from tests.support import distribution
from tests.support.s3 import CREDENTIALS, make_bucket, s3_server
from tests.support.shared_ray import SharedRay


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests with Ray first; what shares a process is written down."""
    distribution.order(items)
    distribution.write_groups(config, items)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A process of pytest-xdist is being started."""
    distribution.tell_worker(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> distribution.ByGroup | None:
    """Hand out tests by group, where that is asked for."""
    return distribution.ByGroup(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(scope="session")
def demo_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo in the XD-Violence layout: 24 training and 10 test videos of 8 to 30 snippets, 5 crops, 64 and 16 wide."""
    return write_demo(
        tmp_path_factory.mktemp("demo") / "layout",
        train_videos=24,
        test_videos=10,
        min_snippets=8,
        max_snippets=30,
        visual_dim=64,
        audio_dim=16,
        ground_truth=True,
    )


@pytest.fixture(scope="session")
def demo_store(demo_layout: Path) -> FeatureStore:
    """The same demo, converted. Never write to it."""
    return FeatureStore.open(convert(demo_layout, demo_layout.parent / "store"))


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Address of an S3 server on this machine."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of a new bucket, which this process and those it starts can reach."""
    for name, value in (*CREDENTIALS.items(), ("AWS_ENDPOINT_URL", s3)):
        monkeypatch.setenv(name, value)
    return make_bucket(s3, f"tests-{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="session")
def _rays(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[SharedRay]:
    own = tmp_path_factory.getbasetemp()
    shared = SharedRay(own.parent if hasattr(request.config, "workerinput") else own)
    yield shared
    shared.stop()


@pytest.fixture
def shared_ray(_rays: SharedRay) -> None:
    """A Ray of two CPUs that this process is connected to, the same one in all tests."""
    _rays.start()


@pytest.fixture(scope="session")
def without_ray(_rays: SharedRay) -> Callable[[], None]:
    """Ends the shared Ray, for tests that start or join another one."""
    return _rays.stop


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tensors here are tiny: threads would only wait for one another, for long on a busy machine."""
    torch.set_num_threads(1)
