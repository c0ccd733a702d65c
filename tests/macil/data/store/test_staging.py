"""A store on this host's disk: one verified copy, whoever asks and how many at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import macil.data.store.staging
from macil.data import FeatureStore
from macil.data.opening import open_here, resolve
from macil.data.store.feature_store import VISUAL
from macil.data.store.meta import META
from macil.data.store.staging import STAGING, FolderSource, RemoteSource, is_far, source_of, stage
from macil.errors import DataError, WriteError
from macil.io.files import read_json
from macil.io.remote import Remote
from tests.support.faults import small_disk
from tests.support.layouts import rename, write_layout
from tests.support.old_stores import convert_as_version_1
from tests.support.s3 import Link


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("MACIL_CACHE", str(folder))
    return folder


@pytest.fixture
def remote(bucket: str, demo_store: FeatureStore) -> Remote:
    """The demo in a bucket."""
    remote = Remote(f"{bucket}/data/demo.store")
    for file in demo_store.path.iterdir():
        remote.upload(file, file.name)
    return remote


def size(store: FeatureStore) -> int:
    return sum(file.stat().st_size for file in store.path.iterdir())


def hashes(store: FeatureStore) -> tuple[str, str | None]:
    return store.content_hash, store.labels_hash


def test_a_store_in_a_bucket_is_copied_once_and_opened_from_there(
    remote: Remote, demo_store: FeatureStore, s3: str, cache: Path
) -> None:
    link = Link(s3)
    link.connect()
    uri = f"{remote.uri}?endpoint_override={link.address}&scheme=http"
    store = resolve(uri)
    assert store.path.is_relative_to(cache)
    assert hashes(store) == hashes(demo_store)
    assert (store.visual == demo_store.visual).all()
    assert link.bytes > size(demo_store)
    before = link.bytes
    messages: list[str] = []
    assert open_here(uri, uri, hashes(demo_store), messages.append).path == store.path
    assert link.bytes == before, "with the hashes known nothing is asked"
    assert messages == []
    link.cut()


def test_ten_that_ask_at_the_same_moment_make_one_copy(
    remote: Remote, demo_store: FeatureStore, s3: str, cache: Path
) -> None:
    link = Link(s3)
    link.connect()
    source = source_of(f"{remote.uri}?endpoint_override={link.address}&scheme=http")
    messages: list[str] = []
    with ThreadPoolExecutor(10) as pool:
        paths = list(pool.map(lambda _: stage(source, cache, messages.append, hashes(demo_store)), range(10)))
    assert len(set(paths)) == 1
    assert link.bytes < 1.5 * size(demo_store) + 200_000
    assert sum(text.startswith("copying") for text in messages) == 1
    assert sum("another trial is copying" in text for text in messages) == 9
    assert [path.name for path in (cache / "staged").iterdir()] == [paths[0].name]
    link.cut()


def test_processes_that_ask_at_the_same_moment_make_one_copy(demo_store: FeatureStore, cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from macil.data.store.staging import FolderSource, stage\n"
        "print(stage(FolderSource(Path(sys.argv[1])), Path(sys.argv[2]), print))"
    )
    line = [sys.executable, "-c", code, str(demo_store.path), str(cache)]
    running = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert len({output.splitlines()[-1] for output in outputs}) == 1
    assert sum("copied and checked" in output for output in outputs) == 1


def test_a_copy_that_came_out_otherwise_gets_no_name(
    demo_store: FeatureStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = FolderSource.copy

    def flip(self: FolderSource, name: str, target: Path, advance: object) -> None:
        copy(self, name, target, advance)  # type: ignore[arg-type]
        if name == VISUAL:
            content = bytearray(target.read_bytes())
            content[len(content) // 2] ^= 1
            target.write_bytes(content)

    monkeypatch.setattr(FolderSource, "copy", flip)
    with pytest.raises(DataError, match="is not what was converted"):
        stage(FolderSource(demo_store.path), cache, print)
    assert list((cache / "staged").iterdir()) == []
    monkeypatch.setattr(FolderSource, "copy", copy)
    assert FeatureStore.open(stage(FolderSource(demo_store.path), cache, print)).content_hash


def test_what_a_kill_left_is_made_again(demo_store: FeatureStore, cache: Path) -> None:
    path = stage(FolderSource(demo_store.path), cache, print)
    (path / VISUAL).write_bytes(b"cut short")
    partial = path.with_name(f".{path.name}.0.tmp")
    partial.mkdir()
    (partial / META).write_text("{}")
    assert stage(FolderSource(demo_store.path), cache, print) == path
    assert FeatureStore.open(path).content_hash == demo_store.content_hash
    assert not partial.exists()


def test_without_room_a_store_that_can_be_is_read_in_place(
    demo_store: FeatureStore, tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(macil.data.store.staging, "_MARGIN", 0)
    messages: list[str] = []
    with small_disk(tmp_path / "small", f"{size(demo_store) // 2048}k") as disk:
        full = disk.path
        assert stage(FolderSource(demo_store.path), full, messages.append) == demo_store.path
        assert "no room for a copy" in messages[-1]
        assert "read in place" in messages[-1]
        with pytest.raises(DataError, match=r"there is no room for s3://.* set MACIL_CACHE"):
            stage(RemoteSource(remote), full, messages.append)
        assert list((full / "staged").iterdir()) == []


def test_a_disk_that_fills_up_meanwhile(
    demo_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(macil.data.store.staging, "_MARGIN", -(10**12))  # nobody foresaw it
    messages: list[str] = []
    with small_disk(tmp_path / "small", f"{size(demo_store) // 2048}k") as disk:
        full = disk.path
        assert stage(FolderSource(demo_store.path), full, messages.append) == demo_store.path
        assert "its disk is full" in messages[-1]
        assert list((full / "staged").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(demo_store: FeatureStore, cache: Path) -> None:
    (cache / "staged").write_text("a file")
    with pytest.raises(WriteError, match="staged"):
        stage(FolderSource(demo_store.path), cache, print)


def test_another_content_than_the_run_was_begun_with_is_refused(
    demo_store: FeatureStore, cache: Path
) -> None:
    with pytest.raises(DataError, match="the run was begun with 0000"):
        stage(FolderSource(demo_store.path), cache, print, ("0" * 32, None))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "is not a feature store"),
        (b"{", "is damaged"),
        (b"[]", r"x: meta\.json is not the description of a feature store"),
        ({"content_hash": "../../x"}, r"content_hash = '../../x', expected a hash"),
        ({"content_hash": "a" * 65}, "a hash that is none"),
        ({"content_hash": None}, "content_hash = None, expected a hash"),
        ({"new": 1}, "it has the field 'new', which this version of macil does not know"),
        ({"format_version": 99}, r"x: meta\.json: format_version is 99, .* reads 1 and 2"),
    ],
)
def test_what_is_no_store_in_a_bucket_is_refused(
    content: bytes | dict[str, object] | None, text: str, bucket: str, demo_store: FeatureStore
) -> None:
    if isinstance(content, dict):
        content = json.dumps(read_json(demo_store.path / META) | content).encode()
    if content is not None:
        Remote(f"{bucket}/x").write(META, content)
    with pytest.raises(DataError, match=text):
        resolve(f"{bucket}/x")


def test_a_store_of_version_1_is_copied_as_it_is(tmp_path: Path, cache: Path) -> None:
    layout = write_layout(tmp_path / "layout")
    rename(layout, lambda name: name.replace("#", "%23"))
    old = FeatureStore.open(convert_as_version_1(layout, tmp_path / "old"))
    copy = FeatureStore.open(stage(FolderSource(old.path), cache, print))
    assert copy.path != old.path
    assert copy.videos("train").names == old.videos("train").names
    assert hashes(copy) == hashes(old)
    assert open_here(str(old.path), str(layout), hashes(old)).videos("test").names == old.videos("test").names


def test_a_host_that_does_not_see_the_store_makes_the_same_itself(
    demo_layout: Path, demo_store: FeatureStore, tmp_path: Path
) -> None:
    messages: list[str] = []
    store = open_here(str(tmp_path / "elsewhere"), str(demo_layout), hashes(demo_store), messages.append)
    assert hashes(store) == hashes(demo_store)
    assert messages == [f"looking {demo_layout} up in the cache of this host"]
    with pytest.raises(DataError, match="the run was begun with 0000"):
        open_here(str(tmp_path / "elsewhere"), str(demo_layout), ("0" * 32, None), messages.append)
    with pytest.raises(DataError, match="a folder that every host sees"):
        open_here(str(tmp_path / "elsewhere"), str(tmp_path / "gone"), hashes(demo_store), messages.append)


def test_only_a_store_on_another_hosts_file_system_is_copied(
    demo_store: FeatureStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_far(demo_store.path)
    path = str(demo_store.path)
    assert open_here(path, path, hashes(demo_store)).path == demo_store.path
    monkeypatch.setenv(STAGING, "always")
    assert open_here(path, path, hashes(demo_store)).path.is_relative_to(cache)
    shutil.rmtree(cache / "staged")
    monkeypatch.setenv(STAGING, "never")
    assert open_here(path, path, hashes(demo_store)).path == demo_store.path
