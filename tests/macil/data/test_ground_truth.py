"""Frame labels by video, from either form of the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from macil.data.ground_truth import truth_of_layout, truth_of_store
from macil.data.store.conversion import convert
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError
from tests.support import layouts

LENGTHS = {name: rows for name, (rows, _) in layouts.TEST_ROWS.items()}


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return layouts.write_layout(tmp_path / "data")


def assert_truth(found: dict[str, np.ndarray], names: list[str]) -> None:
    expected = layouts.frame_labels()
    assert sorted(found) == sorted(names)
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name])


def test_layout_and_store_give_the_labels_written_by_hand(layout: Path, tmp_path: Path) -> None:
    assert_truth(truth_of_layout(layout, LENGTHS, 16), list(LENGTHS))
    store = FeatureStore.open(convert(layout, tmp_path / "store"))
    assert_truth(truth_of_store(store), list(LENGTHS))


def test_some_videos_need_only_their_own_annotations(layout: Path) -> None:
    name = layouts.TEST_VIOLENT_2
    layouts.annotate(layout, {name: layouts.ANNOTATIONS[name]})
    assert_truth(truth_of_layout(layout, {name: LENGTHS[name]}, 16), [name])
    with pytest.raises(DataError, match=f"does not annotate {layouts.TEST_VIOLENT}"):
        truth_of_layout(layout, LENGTHS, 16)


def test_missing_labels_are_said(layout: Path) -> None:
    layouts.save_ground_truth(layout, layouts.frame_labels())
    (layout / "annotations.txt").unlink()
    assert_truth(truth_of_layout(layout, LENGTHS, 16), list(LENGTHS))
    (layout / "gt.npy").unlink()
    with pytest.raises(DataError, match=r"has no labels: expected annotations\.txt or gt\.npy"):
        truth_of_layout(layout, LENGTHS, 16)
