from __future__ import annotations

import os
from pathlib import Path

import pytest

from macil.errors import UsageError
from macil.io.folders import (
    atomic_folder,
    remove_replaced,
    remove_unfinished,
    replace_folder,
    require_creatable,
    require_writable,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_there_when_its_block_has_ended_and_replaces_what_was(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    for content in ("first", "second"):
        with atomic_folder(target) as building:
            (building / content).touch()
            (building / "inner").mkdir()
            assert (target / "first").exists() == (content == "second")
        assert names(target) == sorted([content, "inner"])
        assert names(target.parent) == ["out"]


def test_a_folder_that_cannot_be_is_refused_and_nothing_is_left_of_the_attempt(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    require_writable(tmp_path / "deep" / "out", "no")
    require_creatable(tmp_path / "deep" / "out")
    with pytest.raises(
        UsageError, match=r"^--storage x: /proc takes nothing new \(.*\); choose a folder you may"
    ):
        require_writable(Path("/proc/x/y"), "--storage x")
    with pytest.raises(UsageError, match=r"file is a file; expected a folder"):
        require_writable(tmp_path / "file" / "out", "no")
    with pytest.raises(UsageError, match=r"cannot write /proc/x: /proc takes nothing new"):
        require_creatable(Path("/proc/x"))
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_block_that_fails_leaves_what_was_and_nothing_beside_it(
    tmp_path: Path, error: type[Exception]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "older").touch()

    def fail(folder: Path) -> None:
        (folder / "newer").touch()
        raise error

    with pytest.raises(error), atomic_folder(tmp_path / "out") as building:
        fail(building)
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["older"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, built = tmp_path / "out", tmp_path / "built"
    for folder in (target, built):
        folder.mkdir()
        (folder / folder.name).touch()
    replace = os.replace

    def killed(source: Path, to: Path) -> None:
        replace(source, to)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(built, target)
    monkeypatch.undo()
    assert not target.exists()
    replace_folder(built, target)
    assert names(tmp_path) == ["out"], "what was put aside is gone"
    for name in (".out.1.tmp", ".out.1.old", ".other.1.tmp", ".other.1.old"):
        (tmp_path / name).mkdir()
    remove_unfinished(target)
    remove_replaced(target)
    assert names(tmp_path) == [".other.1.old", ".other.1.tmp", "out"]
