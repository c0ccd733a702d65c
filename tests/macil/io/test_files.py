"""Files are whole or absent."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from macil.errors import DataError, UsageError
from macil.io.files import atomic_path, read_json, write_json_atomic, write_text_atomic


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json_atomic(path, {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(path, {"x": float("nan")})
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        _ = 1 / 0
    assert read_json(path) == {"x": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_bytes_of_a_name_that_are_no_text_are_written_as_escapes(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "page", "run \udcff, Λ")
    assert (tmp_path / "page").read_bytes() == "run \\udcff, Λ".encode()


def test_an_unwritable_path_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for unwritable in (tmp_path / "file" / "a.json", Path("/proc/nowhere/a.json"), Path("/proc/a.json")):
        with pytest.raises(UsageError, match="cannot write"):
            write_json_atomic(unwritable, {})
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot write"):
        write_json_atomic(tmp_path / "folder", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="disk is full"), atomic_path(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "does not exist"), (b'{"x": ', "cut short"), (b"\xff", "read")]
)
def test_unreadable_json_is_named(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_json(path)
