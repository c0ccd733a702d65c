"""Shared fixtures: one tiny demo data set, made once a session."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from macil.data import FeatureStore, convert, write_demo
from tests.s3 import CREDENTIALS, make_bucket, s3_server


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


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tensors here are tiny: threads would only wait for one another, for long on a busy machine."""
    torch.set_num_threads(1)
