from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from macil.__main__ import app
from macil.data import FeatureStore, audit, convert, resolve
from macil.data.manifest import read_manifest
from macil.data.reading import Reading
from macil.errors import DataError, UsageError
from tests.support import fuzzing
from tests.support.layouts import NORMAL, TEST_NORMAL, TEST_VIOLENT, TEST_VIOLENT_2, VIOLENT, write_layout
from tests.support.manifests import rows_of, write_csv

MANIFEST_MODULE = "macil.data.manifest"
Rows = list[dict[str, str]]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "data")


@pytest.fixture
def rows(layout: Path) -> Rows:
    return rows_of(layout)


def row_of(rows: Rows, name: str) -> dict[str, str]:
    return next(row for row in rows if row["name"] == name)


def faults(path: Path, **options: Any) -> list[str]:
    return [str(fault) for fault in audit(path, reading=Reading(**options)).faults]


def test_a_manifest_gives_the_store_that_the_layout_gives(layout: Path, rows: Rows, tmp_path: Path) -> None:
    path = write_csv(layout / "videos.csv", rows[::-1])
    report = audit(path, deep=True)
    assert (report.ok, report.layout.crops) == (True, 3)
    stores = [FeatureStore.open(convert(each, tmp_path / f"{each.stem}.store")) for each in (layout, path)]
    assert stores[0].content_hash == stores[1].content_hash
    assert stores[0].labels_hash == stores[1].labels_hash
    for name in ("visual.arrow", "audio.arrow", "index.arrow", "labels.arrow"):
        first, second = ((store.path / name).read_bytes() for store in stores)
        assert first == second, name
    assert resolve(path).content_hash == stores[0].content_hash


def test_a_parquet_file_with_lists_and_numbers_gives_the_same(layout: Path, rows: Rows) -> None:
    table = pa.table(
        {
            "name": [row["name"] for row in rows],
            "split": [row["split"] for row in rows],
            "label": [int(row["label"]) for row in rows],
            "category": [row["category"] for row in rows],
            "visual": [row["visual"].split(";") for row in rows],
            "audio": [row["audio"] for row in rows],
            "frames": [[int(word) for word in row["frames"].split()] or None for row in rows],
        }
    )
    pa.parquet.write_table(table, layout / "videos.parquet")
    store = resolve(layout / "videos.parquet")
    other = resolve(layout)
    assert (store.content_hash, store.labels_hash) == (other.content_hash, other.labels_hash)


def test_names_classes_and_splits_are_ones_own(layout: Path, rows: Rows) -> None:
    for number, row in enumerate(rows):
        row |= {
            "name": f"video {number}",
            "category": "" if number % 2 else "stealing",
            "source": f"cam {number // 2}",
        }
        row["label"] = "violent" if row["label"] == "1" else "Normal"
    store = resolve(write_csv(layout / "videos.csv", rows))
    train = store.videos("train")
    assert (train.names, train.sources) == (("video 0", "video 1"), ("cam 0", "cam 0"))
    assert train.categories == ("stealing", "A" if rows[1]["label"] == "Normal" else "violent")
    assert store.test_labels().video_labels.tolist() == [1, 1, 0]


def test_times_in_seconds_become_the_nearest_frames(layout: Path, rows: Rows) -> None:
    for row in rows:
        row |= {"seconds": " ".join(str(int(word) / 24) for word in row.pop("frames").split()), "fps": "24"}
    store = resolve(write_csv(layout / "videos.csv", rows))
    assert store.labels_hash == resolve(layout).labels_hash


def test_a_column_that_may_lack_does(layout: Path, rows: Rows) -> None:
    needed = ("name", "split", "label", "visual", "audio", "frames")
    store = resolve(write_csv(layout / "videos.csv", [{name: row[name] for name in needed} for row in rows]))
    assert store.videos("train").sources == tuple(
        name.rpartition("__#")[0] for name in store.videos("train").names
    )
    assert set(store.videos("train").categories) == {"A", "violent"}


def test_every_fault_is_told_at_once_with_row_and_field(layout: Path, rows: Rows) -> None:
    for row, changes in zip(
        rows,
        (
            {"name": "a/b", "label": "maybe"},
            {"split": "val", "visual": " ; "},
            {"frames": "10 20 80", "audio": f"{rows[2]['audio']};b.npy"},
            {"visual": "../../etc/passwd"},
            {"audio": "/etc/passwd.npy"},
        ),
        strict=True,
    ):
        row |= changes
    path = write_csv(layout / "videos.csv", rows)
    outside = "lies outside of the manifest's folder; --outside allows that to files you trust"
    assert faults(path) == [
        "videos.csv line 2 name: is 'a/b', expected a name without / and control characters, that begins with no dot",
        "videos.csv line 2 label: is 'maybe', expected 0, normal, 1, violent",
        "videos.csv line 3 split: is 'val', expected train or test",
        "videos.csv line 3 visual: is empty, expected the file of each crop, separated by ;",
        "videos.csv line 4 audio: names 2 files, expected one",
        "videos.csv line 4 frames: holds 3 frame numbers, an odd count; expected START END pairs",
        f"videos.csv line 5 visual: ../../etc/passwd {outside}",
        f"videos.csv line 6 audio: /etc/passwd.npy {outside}",
        "videos.csv: there is no train video",
        "videos.csv: there is no test video",
    ]
    assert fuzzing.call(app, "check", path).code == 1
    assert "docs/data.md#a-manifest" in fuzzing.call(app, "check", path).out


def test_what_repeats_in_the_rows_is_one_line(layout: Path, rows: Rows) -> None:
    lines = audit(write_csv(layout / "videos.csv", [row | {"label": "x"} for row in rows])).fault_lines()
    assert lines[0].startswith(
        "videos.csv: 5 times (manifest); the first three are line 2 label, line 3 label, line 4 "
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"frames": "9 3"}, "frames: interval 9 3 ends before it starts"),
        ({"frames": "0 900"}, "interval 0 900 of"),
        ({"frames": ""}, "does not annotate"),
        ({"frames": "", "seconds": "1 2", "fps": "0"}, "seconds: are given with fps '0'"),
        ({"frames": "", "seconds": "1 nan", "fps": "24"}, "seconds: 'nan' is not a time in seconds"),
        ({"frames": "1 2", "seconds": "1 2", "fps": "24"}, "frames: and seconds are both given"),
        ({"audio": ""}, "audio: is empty; of a video without sound it may be (--silent zeros, or leave-out)"),
        ({"audio": "gone.npy"}, "gone.npy: cannot be read: No such file or directory"),
        ({"audio": "x.txt"}, "audio: x.txt is not the name of a .npy file"),
        ({"visual": "RGBTest/a.npy;RGBTest/a.npy;b.npy"}, "visual: names RGBTest/a.npy twice"),
        ({"visual": "a.npy"}, "visual: names 1 file, 4 other videos have 3"),
        ({"name": "x" * 300}, "name: has 300 bytes, expected at most 240"),
        ({"name": ".hidden"}, "name: is '.hidden'"),
        ({"source": "a\x1bb"}, "source: holds a control character"),
    ],
)  # fmt: skip
def test_a_fault_of_a_violent_test_video_is_named(
    layout: Path, rows: Rows, changes: dict[str, str], text: str
) -> None:
    changed = [row | dict.fromkeys(changes.keys() - row.keys(), "") for row in rows]
    row_of(changed, TEST_VIOLENT_2).update(changes)
    found = faults(write_csv(layout / "videos.csv", changed))
    assert text in "\n".join(found)
    assert len(found) <= 3


def test_videos_may_not_share_names_or_files(layout: Path, rows: Rows) -> None:
    row_of(rows, VIOLENT)["audio"] = row_of(rows, NORMAL)["audio"].replace(
        "train/", "../vggish-features/train/"
    )
    row_of(rows, TEST_NORMAL)["name"] = TEST_VIOLENT
    found = "\n".join(faults(write_csv(layout / "videos.csv", rows)))
    assert "is named in videos.csv line" in found
    assert f"name: {TEST_VIOLENT} is the name in videos.csv line" in found


def test_files_outside_are_an_option(layout: Path, rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    outside = [
        row
        | {
            "visual": ";".join(f"../data/{each}" for each in row["visual"].split(";")),
            "audio": f"{layout}/{row['audio']}",
        }
        for row in rows
    ]
    path = write_csv(tmp_path / "lists" / "videos.csv", outside)
    assert len(faults(path)) == 4 * 5 + 2
    store = resolve(path, reading=Reading(outside=True))
    assert store.meta.reading.outside
    assert len(store.videos("test")) == 3
    (tmp_path / "lists" / "RGB").symlink_to(layout / "RGB")
    linked = [row_of(rows, NORMAL)]
    assert any("lies outside" in fault for fault in faults(write_csv(path, linked)))
    with pytest.raises(UsageError, match="--outside is for a manifest"):
        audit(layout, reading=Reading(outside=True))


def test_a_video_without_audio_needs_the_option_that_says_what_is_done(layout: Path, rows: Rows) -> None:
    row_of(rows, TEST_NORMAL)["audio"] = ""
    path = write_csv(layout / "videos.csv", rows)
    assert len(faults(path)) == 1
    assert (
        resolve(path, reading=Reading(silent="zeros"))
        .notes[0]
        .startswith("1 video without sound (1 without an")
    )
    assert resolve(path, reading=Reading(silent="leave-out")).videos("test").names == (
        TEST_VIOLENT,
        TEST_VIOLENT_2,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column name is missing"),
        ("name,split\na,b\n", "column visual is missing"),
        ("name,name,split,label,visual\n", "column name occurs twice"),
        ("nam,split,label,visual\n", "did you mean name?"),
        ('name,split,label,visual\n"a,b\n', "is not CSV"),
        ("name;split;label;visual\n", "column name is missing"),
    ],
)
def test_a_table_that_is_none_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "videos.csv"
    path.write_text(text)
    with pytest.raises(DataError) as refused:
        read_manifest(path)
    assert str(path) in refused.value.message
    assert message in str(refused.value)


def test_a_column_that_is_not_read_is_a_note(layout: Path, rows: Rows) -> None:
    report = audit(write_csv(layout / "videos.csv", [row | {"camera": "7"} for row in rows]))
    assert report.ok
    assert "videos.csv: column 'camera' is not read" in [str(note) for note in report.notes]


def test_sizes_are_bounded(layout: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    row_of(rows, NORMAL)["source"] = "x" * 9000
    found = faults(write_csv(layout / "videos.csv", rows))
    assert any("source': has more than 8,192 characters" in fault for fault in found)
    monkeypatch.setattr(f"{MANIFEST_MODULE}._MOST_ROWS", 3)
    with pytest.raises(DataError, match="has more than 3 rows"):
        read_manifest(layout / "videos.csv")
    pa.parquet.write_table(pa.table({"name": ["a"] * 4}), layout / "videos.parquet")
    with pytest.raises(DataError, match="has more than 3 rows"):
        read_manifest(layout / "videos.parquet")
    monkeypatch.setattr(f"{MANIFEST_MODULE}._MOST_BYTES", 100)
    with pytest.raises(DataError, match="it is no manifest of videos"):
        read_manifest(layout / "videos.csv")


def test_a_change_of_the_table_or_of_a_file_is_noticed(layout: Path, rows: Rows) -> None:
    path = write_csv(layout / "videos.csv", rows)
    first = resolve(path)
    assert resolve(path).path == first.path
    row_of(rows, TEST_VIOLENT_2)["frames"] = "0 32"
    second = resolve(write_csv(path, rows))
    assert (second.content_hash, second.labels_hash == first.labels_hash) == (first.content_hash, False)
    file = layout / row_of(rows, NORMAL)["audio"]
    np.save(file, np.load(file) + 1)
    assert resolve(path).content_hash != first.content_hash


def test_one_split_of_a_manifest_is_enough_where_it_is(layout: Path, rows: Rows) -> None:
    path = write_csv(layout / "videos.csv", rows)
    shutil.rmtree(layout / "RGB")
    assert resolve(path, part="test").videos("test").names == (TEST_VIOLENT, TEST_VIOLENT_2, TEST_NORMAL)
    with pytest.raises(DataError, match="No such file"):
        resolve(path)


def test_a_manifest_is_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "videos.csv")
    with pytest.raises(DataError, match=r"videos\.csv"):
        read_manifest(tmp_path / "videos.csv")
