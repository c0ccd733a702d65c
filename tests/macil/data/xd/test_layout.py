from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from macil.data import FeatureStore
from macil.data.xd.layout import read_layout
from macil.errors import DataError
from tests.support.layouts import (
    CROPS,
    NORMAL,
    TEST_NORMAL,
    TEST_ROWS,
    TEST_VIOLENT,
    TEST_VIOLENT_2,
    TRAIN_ROWS,
    VIOLENT,
    rename,
    write_layout,
)


def test_files_are_paired_by_name(tmp_path: Path) -> None:
    layout = read_layout(write_layout(tmp_path))
    assert layout.faults == []
    assert layout.crops == CROPS
    assert [video.name for video in layout.videos] == sorted(TRAIN_ROWS) + sorted(TEST_ROWS)
    for video in layout.videos:
        folders = ("RGB", "train") if video.split == "train" else ("RGBTest", "test")
        expected = [tmp_path / folders[0] / f"{video.name}__{crop}.npy" for crop in range(CROPS)]
        assert list(video.visual) == expected
        assert video.audio == tmp_path / "vggish-features" / folders[1] / f"{video.name}__vggish.npy"
        assert video.parsed.label == ("_label_A" not in video.name)
    assert layout.annotations == tmp_path / "annotations.txt"
    assert layout.ground_truth is None


def test_pairing_does_not_depend_on_position(tmp_path: Path) -> None:
    # One more audio file at the front would shift every pair that is made by position.
    write_layout(tmp_path)
    source = tmp_path / "vggish-features/train" / f"{VIOLENT}__vggish.npy"
    shutil.copy(source, source.with_name("0_first_label_A__vggish.npy"))
    layout = read_layout(tmp_path)
    assert [str(fault) for fault in layout.faults] == [
        "RGB/0_first_label_A: has audio in vggish-features/train/ but no visual features"
    ]
    for video in layout.videos[1:]:
        assert video.audio is not None
        assert video.audio.name == f"{video.name}__vggish.npy"


def test_the_other_usual_folders_are_found(tmp_path: Path) -> None:
    write_layout(tmp_path)
    (tmp_path / "i3d-features").mkdir()
    for folder in ("RGB", "RGBTest"):
        (tmp_path / folder).rename(tmp_path / "i3d-features" / folder)
    layout = read_layout(tmp_path)
    assert layout.faults == []
    assert layout.videos[0].visual[0].parent == tmp_path / "i3d-features" / "RGB"


def test_ten_crops_are_ordered_by_number(tmp_path: Path) -> None:
    write_layout(tmp_path)
    for folder, names in (("RGB", TRAIN_ROWS), ("RGBTest", TEST_ROWS)):
        for name in names:
            for crop in range(CROPS, 11):
                source = tmp_path / folder / f"{name}__0.npy"
                shutil.copy(source, source.with_name(f"{name}__{crop}.npy"))
    layout = read_layout(tmp_path)
    assert (layout.crops, layout.faults) == (11, [])
    assert [path.name.removeprefix(NORMAL) for path in layout.videos[1].visual] == [
        f"__{crop}.npy" for crop in range(11)
    ]


def test_the_same_file_in_both_usual_folders_is_a_fault(tmp_path: Path) -> None:
    write_layout(tmp_path)
    shutil.copytree(tmp_path / "RGB", tmp_path / "i3d-features" / "RGB")
    faults = read_layout(tmp_path).faults
    assert len(faults) == CROPS * len(TRAIN_ROWS)
    assert {fault.kind for fault in faults} == {"duplicate"}


def test_a_crop_that_is_there_twice_is_a_fault(tmp_path: Path) -> None:
    path = write_layout(tmp_path) / "RGB" / f"{NORMAL}__1.npy"
    shutil.copy(path, path.with_name(f"{NORMAL}__01.npy"))
    (fault,) = read_layout(tmp_path).faults
    assert fault.kind == "duplicate"
    assert "crop 1 again" in fault.reason


def test_a_name_in_both_splits_is_a_fault(tmp_path: Path) -> None:
    write_layout(tmp_path)
    for crop in range(CROPS):
        shutil.copy(tmp_path / "RGB" / f"{NORMAL}__{crop}.npy", tmp_path / "RGBTest")
    shutil.copy(tmp_path / f"vggish-features/train/{NORMAL}__vggish.npy", tmp_path / "vggish-features/test")
    assert [str(fault) for fault in read_layout(tmp_path).faults] == [
        f"{NORMAL}: is both a training and a test video"
    ]


MAY = "of a video without sound it may (--silent zeros, or leave-out)"


def test_missing_files_are_named_one_by_one(tmp_path: Path) -> None:
    write_layout(tmp_path)
    (tmp_path / "RGB" / f"{NORMAL}__2.npy").unlink()
    (tmp_path / "RGBTest" / f"{TEST_VIOLENT}__0.npy").unlink()
    (tmp_path / "vggish-features/test" / f"{TEST_NORMAL}__vggish.npy").unlink()
    assert [str(fault) for fault in read_layout(tmp_path).faults] == [
        f"RGB/{NORMAL}__2.npy: crop 2 of 3 is missing",
        f"RGBTest/{TEST_VIOLENT}__0.npy: crop 0 of 3 is missing",
        f"vggish-features/test/{TEST_NORMAL}__vggish.npy: the audio is missing; {MAY}",
    ]


def test_a_crop_that_no_video_has_is_a_fault(tmp_path: Path) -> None:
    write_layout(tmp_path)
    for path in [*tmp_path.glob("RGB*/*__1.npy")]:
        path.unlink()
    assert any("no video has crop 1" in fault.reason for fault in read_layout(tmp_path).faults)


def test_names_that_are_no_feature_files_are_faults_and_other_files_notes(tmp_path: Path) -> None:
    write_layout(tmp_path)
    (tmp_path / "RGB" / "stray.npy").touch()
    (tmp_path / "vggish-features/train" / "x_label_A__0.npy").touch()
    (tmp_path / "RGB" / "readme.txt").touch()
    (tmp_path / "RGB" / ".DS_Store").touch()
    layout = read_layout(tmp_path)
    assert sorted(str(fault) for fault in layout.faults) == [
        "RGB/stray.npy: expected a name ending in __CROP.npy",
        "vggish-features/train/x_label_A__0.npy: expected a name ending in __vggish.npy",
    ]
    assert [str(note) for note in layout.notes] == ["RGB/: 1 entry that is no .npy file is not read"]


def test_a_name_without_a_label_is_a_fault(tmp_path: Path) -> None:
    write_layout(tmp_path)
    for path in [*tmp_path.rglob(f"{NORMAL}__*.npy")]:
        path.rename(path.with_name(path.name.replace("_label_A", "")))
    (fault,) = read_layout(tmp_path).faults
    assert fault.kind == "label"
    assert fault.where == f"RGB/{NORMAL.removesuffix('_label_A')}"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    shutil.rmtree(write_layout(tmp_path) / "vggish-features" / "test")
    reasons = [str(fault) for fault in read_layout(tmp_path).faults]
    assert reasons[0] == "vggish-features/test/: the folder is missing"
    assert len(reasons) == 1 + len(TEST_ROWS)


@pytest.mark.parametrize("what", ["missing", "file", "empty", "foreign"])
def test_what_is_no_layout_is_refused_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / "data"
    if what == "file":
        path.touch()
    elif what != "missing":
        path.mkdir()
    if what == "foreign":
        (path / "something").touch()
    expected = {"missing": "does not exist", "file": "is a file", "empty": "is empty", "foreign": "is not in"}
    with pytest.raises(DataError, match=expected[what]):
        read_layout(path)


def test_a_store_is_not_taken_for_a_damaged_layout(demo_store: FeatureStore) -> None:
    with pytest.raises(DataError, match="is a converted store"):
        read_layout(demo_store.path)


def write_list(path: Path, names: list[str], prefix: str = "/cfs/of/someone/RGB/") -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{prefix}{name}\n" for name in names))


def test_the_authors_lists_are_matched_by_file_name(tmp_path: Path) -> None:
    write_layout(tmp_path)
    train = [f"{name}__{crop}.npy" for name in TRAIN_ROWS for crop in range(CROPS)]
    test = [
        f"{name}__{crop}.npy" for name in (TEST_VIOLENT_2, TEST_NORMAL, TEST_VIOLENT) for crop in range(CROPS)
    ]
    write_list(tmp_path / "list" / "rgb.list", train)
    write_list(tmp_path / "list" / "rgb_test.list", test, "C:\\someone\\RGBTest\\")
    write_list(tmp_path / "list" / "audio.list", [f"{name}__vggish.npy" for name in TRAIN_ROWS], "")
    text = (tmp_path / "list" / "audio.list").read_text()
    (tmp_path / "list" / "audio.list").write_text(text, "utf-8-sig")  # as Windows writes it
    write_list(tmp_path / "list" / "flow.list", ["not-there__0.npy"])
    layout = read_layout(tmp_path)
    assert layout.faults == []
    assert layout.test_list == (TEST_VIOLENT_2, TEST_NORMAL, TEST_VIOLENT)
    assert [str(note) for note in layout.notes] == ["list/flow.list: lists optical flow, which is not used"]


def test_a_list_chooses_the_videos(tmp_path: Path) -> None:
    write_layout(tmp_path)
    write_list(tmp_path / "rgb_test.list", [f"{TEST_VIOLENT}__{crop}.npy" for crop in range(CROPS)])
    layout = read_layout(tmp_path)
    assert layout.faults == []
    assert [video.name for video in layout.of_split("test")] == [TEST_VIOLENT]
    assert len(layout.of_split("train")) == len(TRAIN_ROWS)
    assert [str(note) for note in layout.notes] == ["RGBTest/: 2 videos are in no list and are left out"]


def test_what_a_list_names_must_be_there_once_and_in_its_split(tmp_path: Path) -> None:
    write_layout(tmp_path)
    names = [f"{name}__{crop}.npy" for name in TRAIN_ROWS for crop in range(CROPS)]
    write_list(tmp_path / "rgb.list", [*names, names[0], "gone_label_A__0.npy", f"{TEST_NORMAL}__0.npy"])
    reasons = [str(fault) for fault in read_layout(tmp_path).faults]
    other = "but among the files of the other split: a train list must not name it"
    assert reasons == [
        f"rgb.list: names {names[0]} 2 times",
        "rgb.list: names gone_label_A__0.npy, which is not in RGB/",
        f"rgb.list: names {TEST_NORMAL}__0.npy, which is not in RGB/, {other}",
    ]


def quoted(text: str) -> str:
    return text.replace("=", "%3D").replace("#", "%23")


@pytest.mark.parametrize("lists", ["as published", "quoted"])
def test_names_that_a_mirror_has_changed_are_read_as_they_were(tmp_path: Path, lists: str) -> None:
    ordinary = write_layout(tmp_path / "ordinary")
    changed = write_layout(tmp_path / "changed")
    test = [f"{name}__{crop}.npy" for name in TEST_ROWS for crop in range(CROPS)]
    if lists == "quoted":
        write_list(changed / "list" / "rgb_test.list", test)
    rename(changed, quoted)
    if lists == "as published":
        write_list(changed / "list" / "rgb_test.list", test)
    layout = read_layout(changed)
    assert layout.faults == []
    assert [(v.name, v.parsed) for v in layout.videos] == [
        (v.name, v.parsed) for v in read_layout(ordinary).videos
    ]
    assert layout.test_list == tuple(TEST_ROWS)
    assert all(path.is_file() for video in layout.videos for path in (*video.visual, video.audio) if path)
    (note,) = layout.notes
    files = len([*changed.rglob("*.npy")])
    assert str(note).startswith(
        f"RGB/{quoted(VIOLENT)}__0.npy: is read as {VIOLENT}__0.npy, {files - 1} more likewise"
    )


def test_two_spellings_of_one_name_are_a_fault_that_names_both(tmp_path: Path) -> None:
    write_layout(tmp_path)
    for path in [*tmp_path.glob(f"RGB/{VIOLENT}__*.npy"), *tmp_path.rglob(f"{VIOLENT}__vggish.npy")]:
        shutil.copy(path, path.with_name(quoted(path.name)))
    reasons = [str(fault) for fault in read_layout(tmp_path).faults]
    assert len(reasons) == CROPS + 1
    assert reasons[0] == (
        f"RGB/{quoted(VIOLENT)}__0.npy: has the same name as RGB/{VIOLENT}__0.npy, in another spelling; rename or "
        "remove one"
    )


def test_a_video_of_both_splits_is_found_in_another_spelling(tmp_path: Path) -> None:
    write_layout(tmp_path)
    for crop in range(CROPS):
        path = tmp_path / "RGB" / f"{NORMAL}__{crop}.npy"
        shutil.copy(path, tmp_path / "RGBTest" / quoted(path.name))
    audio = tmp_path / f"vggish-features/train/{NORMAL}__vggish.npy"
    shutil.copy(audio, tmp_path / "vggish-features/test" / quoted(audio.name))
    assert [str(fault) for fault in read_layout(tmp_path).faults] == [
        f"{NORMAL}: is both a training and a test video"
    ]
