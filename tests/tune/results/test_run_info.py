"""Whether a run was made on generated data: as run.json says, or as far as the data can tell."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from macil.data import FeatureStore
from macil.data.origin import is_demo_data
from macil.io.files import read_json, write_json_atomic
from tests.support.made_runs import made_info
from tune.results.run_info import is_demo


def test_a_demo_folder_and_a_store_made_from_it_are_demo_data(
    demo_layout: Path, demo_store: FeatureStore, tmp_path: Path
) -> None:
    assert is_demo_data(demo_layout)
    assert is_demo_data(demo_store.path)
    assert not is_demo_data(tmp_path)
    assert not is_demo_data(tmp_path / "gone")
    for info in (
        {"options": {"data": str(demo_layout)}},
        {"options": {"data": "gone"}, "data": str(demo_store.path)},
    ):
        assert is_demo(made_info(**info))


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"options": {"data": None}}, True),
        ({"options": {"data": "gone"}, "data": "gone"}, False),
        ({"options": {"data": None}, "demo": False}, False),
        ({"options": {"data": "gone"}, "demo": True}, True),
        ({}, False),
    ],
)
def test_what_run_json_says_counts_first(info: dict[str, object], expected: bool) -> None:
    assert is_demo(made_info(**info)) is expected


def test_an_older_store_is_known_by_the_folder_it_was_made_from(
    demo_store: FeatureStore, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(demo_store.path, tmp_path / "store"))
    meta = read_json(store / "meta.json")
    meta.pop("made_up", None)
    for source, expected in (("/gone/demo-1.1.layout", True), ("/gone/xd", False)):
        write_json_atomic(store / "meta.json", {**meta, "source": {**meta["source"], "path": source}})
        assert is_demo_data(store) is expected
