"""The requirements that every host of a cluster must meet, and how a host that does not is named."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import tune.cluster.host_check
from tune.cluster.host_check import (
    MARKER,
    HostError,
    check_host,
    code_here,
    differences,
    host_requirements,
    versions_here,
)
from tune.planning.run_spec import HostRequirements


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostRequirements:
    monkeypatch.setattr(tune.cluster.host_check, "_CHECKED", set())
    return host_requirements(tmp_path)


def test_this_host_meets_its_own_requirements(requirements: HostRequirements, tmp_path: Path) -> None:
    check_host(requirements)
    assert differences(requirements, "here") == []
    (tmp_path / MARKER).unlink()
    check_host(requirements)  # once a process


def test_one_machine_has_no_requirements(requirements: HostRequirements) -> None:
    check_host(None)
    assert requirements.token not in tune.cluster.host_check._CHECKED


def test_another_version_is_refused_by_name(requirements: HostRequirements) -> None:
    requirements.versions["torch"] = "2.0.1"
    with pytest.raises(HostError) as refused:
        check_host(requirements)
    text = str(refused.value)
    assert socket.gethostname() in text
    assert f"torch {versions_here()['torch']} on" in text
    assert "2.0.1 in the search" in text
    assert "numpy" not in text


def test_builds_of_one_version_are_the_same_version() -> None:
    assert "+" not in versions_here()["torch"], (
        "a head without GPU has another build of torch than its workers"
    )
    assert versions_here()["python"].count(".") == 1


def test_other_code_is_refused(requirements: HostRequirements) -> None:
    with pytest.raises(HostError, match=r"the code of macil-tune on .* is not that of the search"):
        check_host(requirements.model_copy(update={"code": "0" * 16}))


def test_the_hash_of_the_code_knows_every_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = code_here()
    for package in ("macil", "tune"):
        (tmp_path / package / "inner").mkdir(parents=True)
        (tmp_path / package / "inner/one.py").write_text("x = 1\n")
        monkeypatch.setattr(getattr(tune.cluster.host_check, package), "__path__", [str(tmp_path / package)])
    here = code_here()
    assert here != before
    (tmp_path / "macil/inner/one.py").write_text("x = 2\n")
    assert code_here() != here


@pytest.mark.parametrize("content", [None, "another text", "f" * 32])
def test_a_folder_that_is_not_shared_is_refused(
    requirements: HostRequirements, tmp_path: Path, content: str | None
) -> None:
    (tmp_path / MARKER).unlink()
    if content is not None:
        (tmp_path / MARKER).write_text(content)
    with pytest.raises(HostError, match="does not share the run's folder") as refused:
        check_host(requirements)
    assert socket.gethostname() in str(refused.value)
    assert "s3://" in str(refused.value)
    host_requirements(tmp_path)
    with pytest.raises(HostError):
        check_host(requirements)


def test_a_bucket_needs_no_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune.cluster.host_check, "_CHECKED", set())
    requirements = host_requirements(None)
    assert requirements.marker is None
    check_host(requirements)
    assert requirements.token in tune.cluster.host_check._CHECKED
