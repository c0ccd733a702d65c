from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macil.data.xd.annotations import parse_annotation, rasterise, read_frame_labels
from macil.data.xd.layout import read_layout
from tests.support.layouts import (
    ANNOTATIONS,
    TEST_NORMAL,
    TEST_ROWS,
    TEST_VIOLENT,
    TEST_VIOLENT_2,
    annotate,
    frame_labels,
    rename,
    save_ground_truth,
    write_layout,
)

LENGTHS = {name: rows for name, (rows, _) in TEST_ROWS.items()}

intervals = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 60)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    min_size=1,
    max_size=6,
)


@given(
    name=st.from_regex(r"[A-Za-z0-9=#.\-_]{1,20}_label_(A|B1-0-0|G-B2-B6)", fullmatch=True),
    mp4=st.booleans(),
    pairs=intervals,
    gap=st.sampled_from([" ", "  ", "\t"]),
)
def test_a_written_line_parses_back(name: str, mp4: bool, pairs: list[tuple[int, int]], gap: str) -> None:
    line = gap.join([name + ".mp4" * mp4, *(str(number) for pair in pairs for number in pair)]) + "\n"
    assert parse_annotation(line) == (name, pairs)


@given(pairs=intervals, frames=st.integers(0, 300))
def test_a_frame_is_violent_exactly_when_an_interval_holds_it(
    pairs: list[tuple[int, int]], frames: int
) -> None:
    labels = rasterise(pairs, frames)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [int(any(a <= frame < b for a, b in pairs)) for frame in range(frames)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x_label_G-0-0", "no interval"),
        ("x_label_G-0-0 10", "odd count"),
        ("x_label_G-0-0 10 20 30", "odd count"),
        ("x_label_G-0-0 10 2x", "not a frame number"),
        ("x_label_G-0-0 -10 20", "not a frame number"),
        ("x_label_G-0-0 1_0 20", "not a frame number"),
        ("x_label_G-0-0 1.5 20", "not a frame number"),
        ("x_label_G-0-0 0 " + "9" * 400, "not a frame number: no video is so long"),
        ("x_label_G-0-0 0 " + "9" * 5000, "not a frame number: no video is so long"),
        ("x_label_G-0-0 30 20", "ends before it starts"),
    ],
)
def test_a_line_at_fault_is_refused_with_its_reason(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_annotation(line)


def test_labels_come_from_annotations_clipped_to_whole_snippets(tmp_path: Path) -> None:
    result = read_frame_labels(read_layout(write_layout(tmp_path)), LENGTHS)
    assert result.faults == []
    assert [note.reason for note in result.notes] == [
        "1 video is annotated past the last whole snippet; what is beyond is clipped"
    ]
    for name, expected in frame_labels().items():
        np.testing.assert_array_equal(result.labels[name], expected)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool"])
def test_ground_truth_that_agrees_is_accepted(tmp_path: Path, dtype: str) -> None:
    save_ground_truth(write_layout(tmp_path), {n: x.astype(dtype) for n, x in frame_labels().items()})
    assert read_frame_labels(read_layout(tmp_path), LENGTHS).faults == []


def test_ground_truth_alone_gives_the_same_labels(tmp_path: Path) -> None:
    save_ground_truth(write_layout(tmp_path), frame_labels())
    (tmp_path / "annotations.txt").unlink()
    result = read_frame_labels(read_layout(tmp_path), LENGTHS)
    assert result.faults == []
    for name, expected in frame_labels().items():
        np.testing.assert_array_equal(result.labels[name], expected)


def test_a_line_is_read_by_its_name_however_a_tool_has_spelt_it(tmp_path: Path) -> None:
    root = write_layout(tmp_path)
    text = (root / "annotations.txt").read_text()
    (root / "annotations.txt").write_text(text.replace("#", "%23").replace("=", "%3D"))
    result = read_frame_labels(read_layout(root), LENGTHS)
    assert result.faults == []
    for name, expected in frame_labels().items():
        np.testing.assert_array_equal(result.labels[name], expected)
    rename(root, lambda name: name.replace("#", "&#35;"))
    assert read_frame_labels(read_layout(root), LENGTHS).faults == []


@pytest.mark.parametrize("annotated", [True, False])
def test_without_annotations_the_order_of_the_ground_truth_is_reported_to_be_an_assumption(
    tmp_path: Path, annotated: bool
) -> None:
    save_ground_truth(write_layout(tmp_path), frame_labels())
    if not annotated:
        (tmp_path / "annotations.txt").unlink()
    doubts = read_frame_labels(read_layout(tmp_path), LENGTHS).doubts
    assert len(doubts) == (not annotated)
    for doubt in doubts:
        assert str(doubt).startswith("gt.npy: the order of the videos in it is an assumption")
        assert "violent videos first, then normal ones, each by name" in doubt.reason
        assert "would pass as well" not in doubt.reason


def list_order(root: Path, order: tuple[str, ...]) -> None:
    (root / "list").mkdir(exist_ok=True)
    lines = [f"RGBTest/{name}__{crop}.npy" for name in order for crop in range(3)]
    (root / "list" / "rgb_test.list").write_text("\n".join(lines))


def test_an_order_that_the_names_exclude_is_none_that_the_ground_truth_may_have(tmp_path: Path) -> None:
    save_ground_truth(write_layout(tmp_path), frame_labels())
    (tmp_path / "annotations.txt").unlink()
    list_order(tmp_path, (TEST_NORMAL, TEST_VIOLENT, TEST_VIOLENT_2))
    result = read_frame_labels(read_layout(tmp_path), LENGTHS)
    assert result.faults == []
    np.testing.assert_array_equal(result.labels[TEST_VIOLENT], frame_labels()[TEST_VIOLENT])
    (doubt,) = result.doubts
    assert "is no annotations.txt: violent videos first" in doubt.reason
    assert "would pass as well" not in doubt.reason


def test_two_orders_that_the_names_allow_are_both_said(tmp_path: Path) -> None:
    save_ground_truth(write_layout(tmp_path), frame_labels())
    (tmp_path / "annotations.txt").unlink()
    list_order(tmp_path, (TEST_VIOLENT_2, TEST_VIOLENT, TEST_NORMAL))
    result = read_frame_labels(read_layout(tmp_path), LENGTHS)
    assert result.faults == []
    (doubt,) = result.doubts
    assert "annotations.txt: that of the test list" in doubt.reason
    assert "would pass as well, with other labels: violent videos first" in doubt.reason
    # Where both orders give the same labels there is nothing to choose.
    list_order(tmp_path, (TEST_VIOLENT, TEST_VIOLENT_2, TEST_NORMAL))
    (doubt,) = read_frame_labels(read_layout(tmp_path), LENGTHS).doubts
    assert "would pass as well" not in doubt.reason


def test_where_no_order_fits_the_names_the_orders_tried_are_said(tmp_path: Path) -> None:
    save_ground_truth(write_layout(tmp_path), {name: 1 - each for name, each in frame_labels().items()})
    (tmp_path / "annotations.txt").unlink()
    result = read_frame_labels(read_layout(tmp_path), LENGTHS)
    assert {fault.kind for fault in result.faults} == {"gt-mismatch"}
    assert "in no order that was tried (violent videos first" in result.notes[-1].reason


def test_a_snippet_length_that_only_the_ground_truth_says_is_doubted(tmp_path: Path) -> None:
    save_ground_truth(write_layout(tmp_path), {name: each[::2] for name, each in frame_labels().items()})
    (tmp_path / "annotations.txt").unlink()
    result = read_frame_labels(read_layout(tmp_path), LENGTHS)
    assert (result.snippet_frames, result.faults) == (8, [])
    assert any(
        "8 frames a snippet (published: 16), which its length alone says" in d.reason for d in result.doubts
    )


def test_annotations_beyond_most_videos_are_reported_to_be_in_another_unit(tmp_path: Path) -> None:
    annotate(write_layout(tmp_path), {TEST_VIOLENT: [(400, 900)], TEST_VIOLENT_2: [(0, 2600)]})
    result = read_frame_labels(read_layout(tmp_path), LENGTHS)
    assert len(result.faults) == 2
    assert "2 of 2 annotated videos end beyond their last snippet" in result.notes[-1].reason


def test_one_wrong_frame_of_the_ground_truth_is_placed(tmp_path: Path) -> None:
    labels = frame_labels()
    labels[TEST_VIOLENT][25] = 1
    save_ground_truth(write_layout(tmp_path), labels)
    faults = read_frame_labels(read_layout(tmp_path), LENGTHS).faults
    assert [(fault.kind, fault.reason) for fault in faults] == [
        ("gt-mismatch", f"disagrees with annotations.txt on 1 frames of {TEST_VIOLENT}, the first is 25")
    ]


def test_ground_truth_alone_must_not_contradict_the_names(tmp_path: Path) -> None:
    labels = frame_labels()
    labels[TEST_NORMAL][3] = 1
    labels[TEST_VIOLENT_2][:] = 0
    save_ground_truth(write_layout(tmp_path), labels)
    (tmp_path / "annotations.txt").unlink()
    faults = read_frame_labels(read_layout(tmp_path), LENGTHS).faults
    assert {fault.reason for fault in faults} == {
        f"gives {TEST_NORMAL} violent frames, against its name",
        f"gives {TEST_VIOLENT_2} no violent frame, against its name",
    }


def test_ground_truth_of_another_length_is_a_fault(tmp_path: Path) -> None:
    write_layout(tmp_path)
    np.save(tmp_path / "gt.npy", np.zeros(100))
    faults = read_frame_labels(read_layout(tmp_path), LENGTHS).faults
    assert [fault.reason for fault in faults] == ["holds 100 frames, the test videos 192 (16 a snippet)"]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full(192, 0.5), "0.5 at frame 0"),
        (np.zeros((2, 96)), "shape"),
        (np.array(["a"]), "expected one 0/1"),
    ],
)
def test_ground_truth_that_is_no_labels_is_a_fault(tmp_path: Path, array: np.ndarray, reason: str) -> None:
    write_layout(tmp_path)
    np.save(tmp_path / "gt.npy", array)
    (fault,) = read_frame_labels(read_layout(tmp_path), LENGTHS).faults
    assert reason in fault.reason


def test_pickled_ground_truth_is_never_loaded(tmp_path: Path) -> None:
    write_layout(tmp_path)
    np.save(tmp_path / "gt.npy", np.array([{}], dtype=object), allow_pickle=True)
    (fault,) = read_frame_labels(read_layout(tmp_path), LENGTHS).faults
    assert fault.kind == "unreadable"


def test_ground_truth_follows_the_order_of_the_authors_list(tmp_path: Path) -> None:
    write_layout(tmp_path)
    order = (TEST_NORMAL, TEST_VIOLENT_2, TEST_VIOLENT)
    (tmp_path / "list").mkdir()
    lines = [f"/cfs/someone/RGBTest/{name}__{crop}.npy" for name in order for crop in range(3)]
    (tmp_path / "list" / "rgb_test.list").write_text("\n".join(lines))
    np.save(tmp_path / "gt.npy", np.concatenate([frame_labels()[name] for name in order]))
    assert read_frame_labels(read_layout(tmp_path), LENGTHS).faults == []


def test_the_length_of_a_snippet_is_read_off_the_ground_truth(tmp_path: Path) -> None:
    write_layout(tmp_path)
    halved = {name: labels[::2] for name, labels in frame_labels().items()}
    save_ground_truth(tmp_path, halved)
    annotate(tmp_path, {TEST_VIOLENT: [(5, 10), (40, 53)], TEST_VIOLENT_2: [(0, 32)]})
    result = read_frame_labels(read_layout(tmp_path), LENGTHS)
    assert result.faults == []
    assert result.snippet_frames == 8
    assert any("8 frames a snippet (published: 16)" in note.reason for note in result.notes)


def test_a_ground_truth_twice_too_long_does_not_redefine_the_snippet(tmp_path: Path) -> None:
    write_layout(tmp_path)
    np.save(tmp_path / "gt.npy", np.zeros(2 * 192))
    result = read_frame_labels(read_layout(tmp_path), LENGTHS)
    assert result.snippet_frames == 16
    assert [fault.reason for fault in result.faults] == [
        "holds 384 frames, the test videos 192 (16 a snippet)"
    ]


def test_an_end_may_exceed_the_last_snippet_by_one_snippet_and_no_more(tmp_path: Path) -> None:
    write_layout(tmp_path)
    for end, count in ((112, 0), (113, 1)):
        annotate(tmp_path, ANNOTATIONS | {f"{TEST_VIOLENT}.mp4": [(0, end)]})
        faults = read_frame_labels(read_layout(tmp_path), LENGTHS).faults
        assert len(faults) == count
    assert "interval 0 113" in faults[0].reason
    assert "beyond frame 112" in faults[0].reason
