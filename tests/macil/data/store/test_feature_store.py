from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from macil.data import FeatureStore, convert
from macil.data.store.arrow_files import allocate_feature_file, map_batch, write_table
from macil.data.store.columns import INDEX_SCHEMA
from macil.data.store.feature_store import is_store
from macil.data.store.verification import verify_store
from macil.errors import DataError
from tests.support.layouts import TEST_VIOLENT, frame_labels, rename, save_ground_truth, write_layout
from tests.support.old_stores import convert_as_version_1


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return convert(write_layout(tmp_path / "data"), tmp_path / "store")


def test_the_rows_of_a_store_are_the_rows_of_the_files(demo_layout: Path, demo_store: FeatureStore) -> None:
    for split, visual, audio in (("train", "RGB", "train"), ("test", "RGBTest", "test")):
        videos = demo_store.videos(split)  # type: ignore[arg-type]
        assert list(videos.names) == sorted(
            {path.name.rpartition("__")[0] for path in (demo_layout / visual).iterdir()}
        )
        for i, name in enumerate(videos.names):
            for crop in range(videos.crops):
                expected = np.load(demo_layout / visual / f"{name}__{crop}.npy")
                start = videos.visual_offsets[i] + crop * videos.lengths[i]
                rows = demo_store.visual[start : start + videos.lengths[i]]
                np.testing.assert_array_equal(rows.numpy(force=True), expected)
            expected = np.load(demo_layout / "vggish-features" / audio / f"{name}__vggish.npy")
            start = videos.audio_offsets[i]
            rows = demo_store.audio[start : start + videos.audio_lengths[i]]
            np.testing.assert_array_equal(rows.numpy(force=True), expected)


def test_every_row_of_a_store_belongs_to_exactly_one_video(demo_store: FeatureStore) -> None:
    visual = np.zeros(len(demo_store.visual), int)
    audio = np.zeros(len(demo_store.audio), int)
    for split in ("train", "test"):
        videos = demo_store.videos(split)
        for i in range(len(videos)):
            visual[videos.visual_offsets[i] :][: videos.crops * videos.lengths[i]] += 1
            audio[videos.audio_offsets[i] :][: videos.audio_lengths[i]] += 1
    assert (visual == 1).all()
    assert (audio == 1).all()


def test_the_files_of_a_store_are_plain_arrow_of_one_batch(demo_store: FeatureStore) -> None:
    with pa.OSFile(str(demo_store.path / "visual.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
    table.validate(full=True)
    assert table.column("features").num_chunks == 1
    assert table.schema.field("features").type.list_size == 64
    values = table.column("features").chunk(0).flatten().to_numpy().reshape(-1, 64)
    np.testing.assert_array_equal(values, demo_store.visual.numpy(force=True))
    assert table.column("nonzero").to_pylist() == demo_store.nonzero.tolist()


def test_the_tensors_are_the_mapped_pages_themselves(demo_store: FeatureStore) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    for tensor, name in ((demo_store.visual, "visual.arrow"), (demo_store.audio, "audio.arrow")):
        first, last = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        regions = [
            (int(start, 16), int(end, 16), flags)
            for start, end, flags in re.findall(
                rf"^(\w+)-(\w+) (\S+) .*{re.escape(str(demo_store.path / name))}$",
                maps.read_text(),
                re.MULTILINE,
            )
        ]
        inside = [flags for start, end, flags in regions if start <= first and last <= end]
        # Pages of a file that nobody may write to are the page cache's own, in every process.
        assert inside, f"{name} is not where its tensor is"
        assert {flags[:3] for flags in inside} == {"r--"}


def test_reading_a_store_makes_no_private_copy(demo_store: FeatureStore) -> None:
    smaps = Path("/proc/self/smaps")
    if not smaps.exists():
        pytest.skip("needs /proc")
    other = FeatureStore.open(demo_store.path)
    assert other.visual.data_ptr() != demo_store.visual.data_ptr()
    assert other.visual.sum() == demo_store.visual.sum()
    blocks = re.findall(
        rf"{re.escape(str(demo_store.path))}/visual\.arrow\n(?:[A-Z]\w+:.*\n)+", smaps.read_text()
    )
    assert len(blocks) >= 2
    for block in blocks:
        kilobytes = {key: int(value) for key, value in re.findall(r"(\w+): +(\d+) kB", block)}
        assert kilobytes["Rss"] > 0
        assert kilobytes["Anonymous"] == kilobytes["Private_Dirty"] == 0


def test_a_store_travels_as_its_path(demo_store: FeatureStore) -> None:
    data = pickle.dumps(demo_store)
    assert len(data) < 1000
    assert torch.equal(pickle.loads(data).visual, demo_store.visual)


def test_the_index_says_nothing_of_test_labels(store_path: Path) -> None:
    batch = map_batch(store_path / "index.arrow")
    rows = [row for row in batch.to_pylist() if row["split"] == "test"]
    assert len(rows) == 3
    assert {(row["label"], row["category"]) for row in rows} == {(None, None)}
    videos = FeatureStore.open(store_path).videos("test")
    assert videos.labels is None
    assert videos.categories == ("", "", "")


def test_training_labels_sources_and_categories_come_from_the_names(store_path: Path) -> None:
    videos = FeatureStore.open(store_path).videos("train")
    assert videos.labels is not None
    assert videos.labels.tolist() == [1, 0]
    assert videos.sources == ("Some.Film.1999", "v=a.b-c=d")
    assert videos.categories == ("B1-0-0", "A")


def test_test_labels_are_read_from_their_own_file(store_path: Path) -> None:
    store = FeatureStore.open(store_path)
    labels = store.test_labels()
    expected = frame_labels()
    assert labels.names == store.videos("test").names
    assert labels.video_labels.tolist() == [1, 1, 0]
    assert labels.categories == ("G-B2-B6", "B4-0-0", "A")
    np.testing.assert_array_equal(labels.frame_labels, np.concatenate([expected[n] for n in labels.names]))
    assert labels.hash == store.labels_hash


def test_a_store_without_test_labels_still_opens(store_path: Path) -> None:
    before = FeatureStore.open(store_path)
    (store_path / "labels.arrow").unlink()
    after = FeatureStore.open(store_path)
    assert after.content_hash == before.content_hash
    with pytest.raises(DataError, match=r"labels\.arrow is missing"):
        after.test_labels()


def test_labels_of_other_videos_are_refused(store_path: Path) -> None:
    path = store_path / "labels.arrow"
    table = pa.Table.from_batches([map_batch(path)])
    reordered = table.take([1, 0, 2])
    del table
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, reordered.schema) as writer:
        writer.write_table(reordered.combine_chunks())
    with pytest.raises(DataError, match=r"labels\.arrow is not what was converted"):
        FeatureStore.open(store_path).test_labels()
    damage_meta(store_path, hashes=None)  # as an earlier version wrote it
    with pytest.raises(DataError, match="other videos"):
        FeatureStore.open(store_path).test_labels()


def damage_meta(path: Path, **changes: object) -> None:
    meta = json.loads((path / "meta.json").read_text())
    meta.update(changes)
    (path / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if v is not None}))


def test_audio_more_than_a_row_longer_than_its_video_is_refused_by_name(store_path: Path) -> None:
    index = map_batch(store_path / "index.arrow").to_pydict()
    position = index["name"].index(TEST_VIOLENT)
    index["audio_length"][position] = index["length"][position] - 2
    write_table(store_path / "index.arrow", pa.table(index, schema=INDEX_SCHEMA))
    damage_meta(store_path, hashes={})
    with pytest.raises(DataError, match=r"index\.arrow is damaged") as error:
        FeatureStore.open(store_path)
    assert error.value.problems == (
        f"{TEST_VIOLENT} has 6 snippets and 4 rows of audio; at most one row of difference is expected",
    )


def test_tables_of_other_columns_than_a_conversion_writes_are_refused_with_each_of_these(
    store_path: Path,
) -> None:
    whole = (store_path / "index.arrow").read_bytes()
    index = pa.table(map_batch(store_path / "index.arrow").to_pydict())  # numbers of 64 bits
    labels = pa.table(map_batch(store_path / "labels.arrow").to_pydict())
    damage_meta(store_path, hashes={})
    spoiled = index.drop_columns(["source"]).append_column("split", index["split"])
    write_table(store_path / "index.arrow", spoiled)
    with pytest.raises(DataError, match=r"index\.arrow is damaged, convert again") as error:
        FeatureStore.open(store_path)
    assert error.value.problems == (
        "it has 0 columns 'source', expected one",
        "it has 2 columns 'split', expected one",
        "column 'label' holds int64, expected int8",
        "column 'crops' holds int64, expected int32",
    )
    (store_path / "index.arrow").write_bytes(whole)
    write_table(store_path / "labels.arrow", labels)
    with pytest.raises(DataError, match=r"labels\.arrow is damaged, convert again") as error:
        FeatureStore.open(store_path).test_labels()
    assert [fault.partition(" holds ")[0] for fault in error.value.problems] == [
        "column 'label'",
        "column 'frame_labels'",
    ]


def test_a_store_of_another_format_version_is_refused_by_name(store_path: Path) -> None:
    damage_meta(store_path, format_version=99)
    with pytest.raises(DataError, match=r"format_version is 99, this version of macil reads 1 and 2"):
        FeatureStore.open(store_path)


def test_a_store_of_version_1_is_read_as_it_is(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "data")
    rename(layout, lambda name: name.replace("#", "%23"))
    store = FeatureStore.open(convert_as_version_1(layout, tmp_path / "store"))
    assert store.meta.format_version == 1
    assert store.videos("train").names == (
        "Some.Film.1999__%2300-10-22_00-10-40_label_B1-0-0",
        "v=a.b-c=d__%231_label_A",
    )
    assert store.videos("train").sources[0] == "Some.Film.1999__%2300-10-22_00-10-40"
    (note,) = store.label_notes
    assert note.startswith(
        "the store is of format_version 1, which does not say what its test labels rest on"
    )
    assert store.test_labels().hash == store.labels_hash
    assert verify_store(store.path) == []


def test_changed_names_are_stored_as_they_were_and_ordinary_data_keep_their_hash(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "data")
    ordinary = FeatureStore.open(convert(layout, tmp_path / "ordinary"))
    # As version 1 of the format had it.
    assert ordinary.content_hash == "4ea9274699997ee30f6ffaab294b781a"
    assert ordinary.labels_hash == "9a8087ec3c6458b4b4ca96100c61d177"
    rename(layout, lambda name: name.replace("#", "%23"))
    changed = FeatureStore.open(convert(layout, tmp_path / "changed"))
    assert (changed.content_hash, changed.labels_hash) == (ordinary.content_hash, ordinary.labels_hash)
    assert changed.videos("train").sources == ordinary.videos("train").sources


def test_a_store_says_what_its_labels_rest_on(tmp_path: Path, store_path: Path) -> None:
    assert FeatureStore.open(store_path).label_notes == ()
    layout = write_layout(tmp_path / "alone")
    save_ground_truth(layout, frame_labels())
    (layout / "annotations.txt").unlink()
    (note,) = FeatureStore.open(convert(layout, tmp_path / "other")).label_notes
    assert note.startswith("gt.npy: the order of the videos in it is an assumption")
    damage_meta(store_path, label_notes=["a\nb"])
    with pytest.raises(DataError, match=r"label_notes = .* expected sentences"):
        FeatureStore.open(store_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: shutil.rmtree(path), "does not exist"),
        (lambda path: (path / "meta.json").unlink(), r"holds no meta\.json"),
        (lambda path: (path / "meta.json").write_text("{"), "not valid JSON"),
        (lambda path: (path / "meta.json").write_text("[]"), "is not the description of a feature store"),
        (lambda path: damage_meta(path, crops=None), "lacks crops"),
        (lambda path: (path / "audio.arrow").unlink(), r"audio\.arrow is missing"),
        (
            lambda path: (path / "index.arrow").write_bytes(b"ARROW1"),
            r"index\.arrow is not what was converted",
        ),
        (
            lambda path: (path / "visual.arrow").write_bytes(b"ARROW1"),
            r"visual\.arrow has 6 bytes, expected",
        ),
    ],
)
def test_a_damaged_store_is_refused_by_name(
    store_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(store_path)
    with pytest.raises(DataError, match=message):
        FeatureStore.open(store_path)


@pytest.mark.parametrize("name", ["visual.arrow", "audio.arrow"])
def test_a_truncated_store_is_refused_before_a_lost_page_is_touched(store_path: Path, name: str) -> None:
    path = store_path / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"{name} has .* it is truncated"):
        FeatureStore.open(store_path)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(DataError, match="is a file"):
        FeatureStore.open(tmp_path / "x")
    assert not is_store(tmp_path / "x")
    assert not is_store(tmp_path)


def test_a_large_file_is_laid_out_without_taking_space(tmp_path: Path) -> None:
    # As many values as XD-Violence has: more than 2^31 in one column.
    layout = allocate_feature_file(tmp_path / "x.arrow", 3_000_000, 1024, "float32", nonzero=True)
    stat = (tmp_path / "x.arrow").stat()
    assert stat.st_size > 3_000_000 * 1024 * 4
    assert stat.st_blocks * 512 < 10**6
    batch = map_batch(tmp_path / "x.arrow")
    assert len(batch.column("features").values) == 3_000_000 * 1024
    with (tmp_path / "x.arrow").open("r+b") as file:
        file.seek(layout.values + 4 * (2_999_999 * 1024 + 7))
        file.write(np.float32(1.5).tobytes())
    assert batch.column("features")[2_999_999].as_py()[7] == 1.5


def test_the_test_name_of_a_violent_video_is_kept(store_path: Path) -> None:
    assert FeatureStore.open(store_path).videos("test").names[0] == TEST_VIOLENT
