from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from macil.data.store.conversion import convert
from macil.data.store.feature_store import FeatureStore
from macil.data.xd.audit import audit
from macil.errors import DataError
from tests.support.layouts import (
    ANNOTATIONS,
    AUDIO_DIM,
    CROPS,
    NORMAL,
    TEST_NORMAL,
    TEST_VIOLENT,
    TEST_VIOLENT_2,
    VISUAL_DIM,
    annotate,
    frame_labels,
    save,
    save_ground_truth,
    write_layout,
)

# As an attribute of its package the name is the function.
AUDIT_MODULE = importlib.import_module("macil.data.xd.audit")


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "data")


def visual(layout: Path, crop: int = 1, name: str = NORMAL, folder: str = "RGB") -> Path:
    return layout / folder / f"{name}__{crop}.npy"


def audio(layout: Path, name: str = NORMAL, split: str = "train") -> Path:
    return layout / "vggish-features" / split / f"{name}__vggish.npy"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def poison(path: Path, value: float) -> None:
    array = np.load(path)
    array[1, 2] = value
    save(path, array)


def rename_all(layout: Path, old: str, new: str) -> None:
    for path in [*layout.rglob(f"{old}__*.npy")]:
        path.rename(path.with_name(path.name.replace(old, new)))


def copy_to_test(layout: Path) -> None:
    for crop in range(CROPS):
        shutil.copy(visual(layout, crop), layout / "RGBTest")
    shutil.copy(audio(layout), layout / "vggish-features/test")


def misplace_labels(layout: Path) -> None:
    labels = frame_labels()
    labels[TEST_VIOLENT][11] = 0
    save_ground_truth(layout, labels)


# One row for every fault that the check promises to find: how to cause it, its kind, and what the line must say.
FAULTS: dict[str, tuple[Callable[[Path], object], str, tuple[str, ...]]] = {
    "crop missing": (lambda d: visual(d).unlink(), "missing", (f"RGB/{NORMAL}__1.npy", "crop 1 of 3")),
    "audio missing": (lambda d: audio(d).unlink(), "missing", (f"train/{NORMAL}__vggish.npy", "audio")),
    "unreadable npy": (
        lambda d: visual(d).write_bytes(b"hello"), "unreadable", (f"RGB/{NORMAL}__1.npy", "not a .npy file"),
    ),
    "truncated npy": (lambda d: truncate(visual(d)), "truncated", (f"RGB/{NORMAL}__1.npy", "is truncated")),
    "truncated audio": (lambda d: truncate(audio(d)), "truncated", (f"{NORMAL}__vggish.npy", "is truncated")),
    "visual width": (
        lambda d: save(visual(d), np.ones((3, VISUAL_DIM + 1))), "width", (f"RGB/{NORMAL}__1.npy", "has width 7"),
    ),
    "audio width": (
        lambda d: save(audio(d), np.ones((3, AUDIO_DIM - 1))), "width", (f"{NORMAL}__vggish.npy", "has width 3"),
    ),
    "dtype differs": (
        lambda d: save(visual(d), np.ones((3, VISUAL_DIM)), "float64"), "dtype", ("has dtype float64", "float32"),
    ),
    "dtype is no float": (
        lambda d: save(visual(d), np.ones((3, VISUAL_DIM)), "int32"), "dtype", ("holds int32", "float32"),
    ),
    "shape": (lambda d: save(visual(d), np.ones(VISUAL_DIM)), "shape", ("shape (6,)", "(snippets, features)")),
    "NaN": (lambda d: poison(visual(d), np.nan), "not-finite", (f"RGB/{NORMAL}__1.npy", "row 1, column 2")),
    "infinite": (lambda d: poison(audio(d), np.inf), "not-finite", (f"{NORMAL}__vggish.npy", "row 1, column 2")),
    "empty": (lambda d: save(visual(d), np.ones((0, VISUAL_DIM))), "empty", ("is empty",)),
    "all zero": (
        lambda d: save(visual(d), np.zeros((3, VISUAL_DIM))), "all-zero", (f"RGB/{NORMAL}__1.npy", "nothing but zeros"),
    ),
    "crop lengths differ": (
        lambda d: save(visual(d), np.ones((4, VISUAL_DIM))), "length", (f"RGB/{NORMAL}__1.npy", "4 rows", "3"),
    ),
    "audio two rows longer": (
        lambda d: save(audio(d), np.ones((5, AUDIO_DIM))), "length", (f"{NORMAL}__vggish.npy", "5 rows"),
    ),
    "name in both splits": (copy_to_test, "duplicate", (NORMAL, "both a training and a test video")),
    "violent test video without annotation": (
        lambda d: annotate(d, {TEST_VIOLENT: [(0, 9)]}), "annotation", ("annotations.txt", TEST_VIOLENT_2),
    ),
    "no annotations at all": (
        lambda d: (d / "annotations.txt").unlink(), "annotation", ("annotations.txt", "is missing"),
    ),
    "annotation with an odd count": (
        lambda d: (d / "annotations.txt").write_text(f"{TEST_VIOLENT} 1 2 3\n{TEST_VIOLENT_2} 1 2\n"),
        "annotation", ("annotations.txt line 1", TEST_VIOLENT, "odd count"),
    ),
    "annotation beyond the video": (
        lambda d: annotate(d, ANNOTATIONS | {TEST_VIOLENT_2: [(0, 81)]}),
        "annotation", ("annotations.txt line 2", TEST_VIOLENT_2, "beyond frame 80"),
    ),
    "annotated twice": (
        lambda d: annotate(d, ANNOTATIONS | {TEST_VIOLENT: [(0, 9)]}), "duplicate", ("line 3", TEST_VIOLENT),
    ),
    "annotated normal video": (
        lambda d: annotate(d, ANNOTATIONS | {TEST_NORMAL: [(0, 9)]}), "annotation", (TEST_NORMAL, "normal"),
    ),
    "name without a label": (
        lambda d: rename_all(d, NORMAL, "v=nolabel__#1"), "label", ("RGB/v=nolabel__#1", "holds no label"),
    ),
    "gt.npy disagrees": (misplace_labels, "gt-mismatch", ("gt.npy", TEST_VIOLENT, "1 frames", "first is 11")),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_kind_of_fault_is_found_and_is_the_only_one(layout: Path, fault: str) -> None:
    assert audit(layout).ok
    cause, kind, words = FAULTS[fault]
    cause(layout)
    report = audit(layout)
    assert [found.kind for found in report.faults] == [kind]
    for word in words:
        assert word in str(report.faults[0])
    with pytest.raises(DataError, match="has 1 fault"):
        report.raise_for_faults()


def test_all_faults_are_listed_at_once(layout: Path) -> None:
    visual(layout, 0).unlink()
    truncate(visual(layout, 2))
    poison(visual(layout, 1), np.nan)
    audio(layout, TEST_NORMAL, "test").unlink()
    annotate(layout, {TEST_VIOLENT: [(0, 9)]})
    kinds = sorted(fault.kind for fault in audit(layout).faults)
    assert kinds == ["annotation", "missing", "missing", "not-finite", "truncated"]


def test_one_row_more_or_less_of_audio_is_a_note(layout: Path) -> None:
    report = audit(layout)
    assert report.ok
    assert "2 videos have one audio row more or less than visual rows" in [
        note.reason for note in report.notes
    ]


def test_widths_and_crops_that_were_not_published_are_no_fault(layout: Path) -> None:
    totals = {total.name: (total.value, total.published) for total in audit(layout).totals}
    assert totals["visual width"] == (VISUAL_DIM, 1024)
    assert totals["audio width"] == (AUDIO_DIM, 128)
    assert totals["crops"] == (CROPS, 5)
    assert totals["training videos"] == (2, 3954)
    assert totals["training videos, normal"] == (1, 2049)
    assert totals["training videos, violent"] == (1, 1905)
    assert totals["test videos"] == (3, 800)
    assert totals["test videos, normal"] == (1, 300)
    assert totals["test videos, violent"] == (2, 500)
    assert totals["test snippets"] == (12, 145_649)
    assert totals["violent test frames"] == (10 + 16 + 64, None)


def test_only_a_deep_audit_reads_every_value(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(visual(layout), np.nan)
    monkeypatch.setattr(AUDIT_MODULE, "_SAMPLE_FILES", 1)
    quick = audit(layout, deep=False)
    assert (quick.mode, quick.ok) == ("quick", True)
    deep = audit(layout, deep=True)
    assert (deep.mode, [fault.kind for fault in deep.faults]) == ("deep", ["not-finite"])


def test_by_default_the_size_decides_how_deep_an_audit_goes(
    layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audit(layout).mode == "deep"
    monkeypatch.setattr(AUDIT_MODULE, "DEEP_BY_DEFAULT_BYTES", 100)
    assert audit(layout).mode == "quick"
    assert audit(layout, deep=True).mode == "deep"


def test_the_size_of_a_store_is_known_from_the_headers(layout: Path, tmp_path: Path) -> None:
    report = audit(layout)
    values = CROPS * VISUAL_DIM * (3 + 5 + 2 + 6 + 4) + AUDIO_DIM * (3 + 4 + 2 + 7 + 4)
    assert report.store_bytes("float32") == 4 * values
    assert report.store_bytes("float16") == 2 * values
    assert FeatureStore.open(convert(layout, tmp_path / "store")).nbytes == 4 * values


def test_rows_of_zeros_inside_an_array_are_a_note(layout: Path) -> None:
    array = np.load(visual(layout))
    array[-1] = 0
    save(visual(layout), array)
    array = np.load(audio(layout))
    array[0] = 0  # silence is no padding
    save(audio(layout), array)
    report = audit(layout)
    assert report.ok
    assert any("1 visual rows of the files read hold nothing but zeros" in str(note) for note in report.notes)


def test_ground_truth_is_left_out_rather_than_misjudged_when_a_test_video_has_faults(layout: Path) -> None:
    save_ground_truth(layout, frame_labels())
    for crop in range(CROPS):
        truncate(visual(layout, crop, TEST_NORMAL, "RGBTest"))
    report = audit(layout)
    assert {fault.kind for fault in report.faults} == {"truncated"}
    assert any(note.where == "gt.npy" and "is not compared" in note.reason for note in report.notes)


def test_features_of_another_float_type_are_fine_when_all_share_it(layout: Path) -> None:
    for path in [*layout.rglob("*__?.npy")]:
        save(path, np.load(path), "float16")
    assert audit(layout).ok
