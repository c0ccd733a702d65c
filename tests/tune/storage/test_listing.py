"""The runs of a storage by name, in a folder and in a bucket."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from macil.errors import UsageError
from macil.io.remote import Remote
from tune.storage.listing import runs_in, runs_text
from tune.storage.location import locate_run
from tune.storage.run_folder import existing_workspace


def made(storage: Path, *names: str) -> str:
    for age, name in enumerate(names):
        (storage / name).mkdir(parents=True)
        (storage / name / "run.json").write_text("{}")
        os.utime(storage / name / "run.json", (10**9 - age, 10**9 - age))
    return str(storage)


def test_runs_come_with_the_one_changed_last_first_and_nothing_else(tmp_path: Path) -> None:
    storage = made(tmp_path, "new", "middle", "old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert runs_in(storage) == ["new", "middle", "old"]
    assert runs_in(str(tmp_path / "nowhere")) == []


def test_the_most_similar_names_are_told_first_and_not_too_many(tmp_path: Path) -> None:
    assert runs_text("x", str(tmp_path)) == f"there is no run in {tmp_path}"
    storage = made(tmp_path, "other", "first-search", *(f"run{number}" for number in range(20)))
    text = runs_text("frist-search", storage)
    assert text.startswith(f"runs in {storage}: first-search, ")
    assert text.endswith(" and 12 more")
    assert text.count(",") == 9


def test_whoever_names_no_run_is_told_those_there_are(tmp_path: Path) -> None:
    storage = made(tmp_path, "first", "second")
    with pytest.raises(
        UsageError, match=r"--resume secnd: there is no run of that name; runs in .*: second, first$"
    ):
        existing_workspace(storage, "secnd")
    with pytest.raises(UsageError, match=r"no run 'secnd': .*; runs in .*: second, first$"):
        locate_run("secnd", storage)


def test_a_bucket_is_listed_likewise(bucket: str) -> None:
    for name in ("first", "second"):
        Remote(bucket).child("runs", name).write("run.json", b"{}")
    Remote(bucket).child("runs", "third").write("other.json", b"{}")
    assert sorted(runs_in(f"{bucket}/runs")) == ["first", "second"]
    with pytest.raises(UsageError, match=r"there is no run of that name; runs in .*/runs: second, first$"):
        existing_workspace(f"{bucket}/runs", "secnd")
    with pytest.raises(UsageError, match=r"no run at .*/runs/secnd; runs in .*/runs: second, first$"):
        locate_run("secnd", f"{bucket}/runs")
