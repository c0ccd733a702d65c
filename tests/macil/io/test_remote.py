"""Files in a bucket: put and read whole, listed by name, and every refusal put into words."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from macil.errors import UsageError
from macil.io.remote import (
    _CHUNK,
    Entry,
    Remote,
    RemoteError,
    error_text,
    is_uri,
    local_path,
    open_remote,
    send,
    side_by_side,
)
from tests.support.s3 import Link, put_object


def test_names_of_folders_keep_the_query_that_says_how_to_reach_them() -> None:
    remote = Remote("s3://bucket/runs?region=eu-west-1")
    assert remote.child("a", "b").uri == "s3://bucket/runs/a/b?region=eu-west-1"
    assert remote.child("a", "b").name == "b"
    assert remote.child("a", "b").parent == remote.child("a")
    assert Remote("s3://bucket/").child("a").uri == "s3://bucket/a"


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("s3://b/x", True),
        ("gs://b", True),
        ("file:///x", False),
        ("FILE:///x", False),
        ("/x", False),
        ("/x/y://z", False),
        ("x", False),
        ("", False),
        (None, False),
    ],
)
def test_what_is_a_uri(text: str | None, remote: bool) -> None:
    assert is_uri(text) == remote


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/x/y", "/x/y"),
        ("x y", "x y"),
        ("file:///x/y", "/x/y"),
        ("FILE:///x", "/x"),
        ("file:/x", "/x"),
        ("file://localhost/x", "/x"),
        ("file:///a%20b%23c/%C3%A9#d?e", "/a b#c/é#d?e"),
        ("file:", "file:"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name/x"),
        (Path("/x"), "/x"),
    ],
)
def test_a_file_uri_is_a_path(location: str | Path, path: str) -> None:
    assert local_path(location) == Path(path)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "the path is empty"),
        ("  ", "the path is empty"),
        ("file://host/x", "file://host/x names no file of this machine"),
        ("file://", "names no file of this machine"),
        (os.fsdecode(b"/x/\xff"), "is not UTF-8; rename it"),
        ("file:///%ff", "is not UTF-8; rename it"),
        ("s3://bucket/x", "s3://bucket/x is a URI; expected a path on this machine"),
    ],
)
def test_what_is_no_path_of_this_machine_is_refused(location: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        local_path(location)


def test_the_home_of_this_user_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/x") == Path("/home/me/x")


def test_files_are_put_listed_read_copied_and_removed(bucket: str, tmp_path: Path) -> None:
    remote = Remote(f"{bucket}/runs/one")
    assert remote.files() == {}
    assert not remote.exists("a/b.json")
    remote.write("a/b.json", b"text")
    assert remote.exists("a/b.json")
    assert not remote.exists("a"), "a folder is no file"
    assert remote.read("a/b.json") == b"text"
    remote.write("a/b.json", b"another")
    assert remote.read("a/b.json") == b"another"

    large = os.urandom(2 * _CHUNK + 17)
    (tmp_path / "large").write_bytes(large)
    remote.upload(tmp_path / "large", "large")
    counted: list[int] = []
    remote.download("large", tmp_path / "copy", counted.append)
    assert (tmp_path / "copy").read_bytes() == large
    assert sum(counted) == len(large)
    (tmp_path / "empty").touch()
    remote.upload(tmp_path / "empty", "empty")
    remote.download("empty", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b""

    found = remote.files()
    assert {name: entry.size for name, entry in found.items()} == {
        "a/b.json": 7,
        "large": len(large),
        "empty": 0,
    }
    assert all(entry.changed > 0 for entry in found.values())
    assert set(remote.child("a").files()) == {"b.json"}
    remote.delete("large")
    remote.delete("large")
    assert set(remote.files()) == {"a/b.json", "empty"}
    remote.child("a").delete_all()
    assert set(remote.files()) == {"empty"}


def test_files_are_sent_with_the_one_that_makes_them_a_whole_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote((tmp_path / "there").as_uri())
    here = tmp_path / "here"
    (here / "a").mkdir(parents=True)
    names = ["whole", "a/b", "c", "d"]
    for name in names:
        (here / name).write_text(name)
    sent: list[str] = []
    send(here, remote, [*names, "gone"], last="whole", sent=sent.append)
    assert sorted(remote.files()) == sorted(sent) == ["a/b", "c", "d", "whole"]
    assert sent[-1] == "whole"
    assert remote.read("a/b") == b"a/b"

    upload = Remote.upload

    def refuse(self: Remote, local: Path, name: str) -> None:
        if name == "c":
            raise FileNotFoundError(errno.ENOENT, "no such bucket")
        upload(self, local, name)

    monkeypatch.setattr(Remote, "upload", refuse)
    sent.clear()
    with pytest.raises(FileNotFoundError, match="no such bucket"):
        send(here, remote, names, last="whole", sent=sent.append)
    assert sorted(sent) == ["a/b", "d"]


def test_a_copy_of_what_may_change_within_the_same_second_is_not_taken_for_it_later(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(b"text")
    for age, kept in ((3600, True), (0, False), (-3600, False)):
        changed = (time.time_ns() - age * 10**9) // 10**9 * 10**9
        entry = Entry(4, changed)
        entry.mark(copy)
        assert entry.is_copied_to(copy) == kept
        assert not Entry(5, changed).is_copied_to(copy)
    assert not entry.is_copied_to(tmp_path / "absent")


def test_a_folder_whose_name_begins_like_another_is_another(bucket: str) -> None:
    Remote(f"{bucket}/run").write("x", b"")
    Remote(f"{bucket}/run2").write("y", b"")
    assert set(Remote(f"{bucket}/run").files()) == {"x"}


def test_what_is_not_there_is_told_apart_from_a_refusal(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Remote(bucket).read("none")
    with pytest.raises(FileNotFoundError):
        Remote(bucket).download("none", tmp_path / "copy")
    with pytest.raises(RemoteError, match="bucket does not exist") as refused:
        Remote("s3://no-such-bucket-here/runs").write("x", b"")
    assert refused.value.errno == errno.EREMOTEIO
    assert "Request ID" not in str(refused.value)


def test_a_name_that_leads_outside_is_refused(bucket: str) -> None:
    put_object(bucket, "run/../escaped", b"x")
    with pytest.raises(RemoteError, match="leads outside"):
        Remote(f"{bucket}/run").files()


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("s3://no-such-bucket-here/runs", "there is no bucket 'no-such-bucket-here'"),
        ("nowhere://bucket/runs", "cannot be opened"),
        ("s3://key:secret@bucket/runs", "a user name or a key"),
        ("s3://bucket/runs?colour=red", "cannot be opened"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused_at_once(uri: str, text: str, bucket: str) -> None:
    with pytest.raises(UsageError, match=text) as refused:
        open_remote(uri, "--storage")
    assert "--storage" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_server_that_does_not_answer_is_a_refusal_in_words(bucket: str, s3: str) -> None:
    link = Link(s3)
    link.connect()
    remote = Remote(f"{bucket}/runs?endpoint_override={link.address}&scheme=http")
    remote.write("x", b"1")
    assert link.bytes > 0
    link.cut()
    with pytest.raises(RemoteError, match="NETWORK_CONNECTION") as refused:
        remote.write("x", b"2")
    assert "\n" not in error_text(refused.value)
    link.connect()
    assert remote.read("x") == b"1", "nothing was written by halves"
    link.cut()


def test_the_first_error_of_several_jobs_is_raised_when_all_have_ended() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise ValueError("three")
        done.append(number)

    with pytest.raises(ValueError, match="three"):
        side_by_side(work, range(40))
    assert sorted(done) == [number for number in range(40) if number != 3]
