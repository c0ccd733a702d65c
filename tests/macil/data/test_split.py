"""The held-out split: by source, stratified, repeatable, handed on as a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from macil.data import convert
from macil.data.split import Split, make_split, split_doubt
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError, UsageError
from tests.support.layouts import NORMAL, VIOLENT, rename, write_layout


@pytest.mark.parametrize("seed", range(5))
def test_no_source_is_on_both_sides_and_both_classes_are(seed: int, demo_store: FeatureStore) -> None:
    videos = demo_store.videos("train")
    assert videos.labels is not None
    split = make_split(demo_store, seed)
    assert sorted(split.train + split.heldout) == sorted(videos.names)
    source = dict(zip(videos.names, videos.sources, strict=True))
    assert not {source[n] for n in split.train} & {source[n] for n in split.heldout}
    label = dict(zip(videos.names, videos.labels.tolist(), strict=True))
    assert {label[n] for n in split.heldout} == {label[n] for n in split.train} == {0, 1}
    assert len(split.heldout) / len(videos.names) == pytest.approx(0.2, abs=0.1)
    shares = [np.mean([label[n] for n in part]) for part in (split.train, split.heldout)]
    assert abs(shares[0] - shares[1]) < 0.35


def test_the_seed_decides_the_split(demo_store: FeatureStore) -> None:
    assert make_split(demo_store, 3) == make_split(demo_store, 3)
    assert len({make_split(demo_store, seed).hash for seed in range(5)}) > 1


def test_a_split_can_be_handed_on(demo_store: FeatureStore, tmp_path: Path) -> None:
    split = make_split(demo_store)
    split.save(tmp_path / "split.json")
    again = Split.load(tmp_path / "split.json")
    assert (again, again.hash) == (split, split.hash)
    again.check(demo_store)


def test_a_split_changed_by_hand_or_of_other_data_is_refused(
    demo_store: FeatureStore, tmp_path: Path
) -> None:
    split = make_split(demo_store)
    path = tmp_path / "split.json"
    split.save(path)
    content = json.loads(path.read_text())
    content["heldout"].append(content["train"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="changed by hand"):
        Split.load(path)
    path.write_text("{}")
    with pytest.raises(DataError, match="not a split"):
        Split.load(path)
    with pytest.raises(DataError, match="in neither list"):
        Split(split.train[1:], split.heldout, 0).check(demo_store)
    with pytest.raises(DataError, match="not a training video"):
        Split((*split.train, "other"), split.heldout, 0).check(demo_store)
    with pytest.raises(DataError, match="listed twice"):
        Split((*split.train, split.heldout[0]), split.heldout, 0).check(demo_store)


def test_a_split_in_another_spelling_of_the_names_fits_and_keeps_its_hash(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout")
    rename(layout, lambda name: name.replace("#", "%23"))
    store = FeatureStore.open(convert(layout, tmp_path / "store"))
    old = Split((VIOLENT.replace("#", "%23"),), (NORMAL.replace("#", "%23"),), 0)
    old.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json").hash == old.hash
    assert old.check(store) == Split((VIOLENT,), (NORMAL,), 0)
    assert old.check(store).check(store) == old.check(store)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, 10**400])
def test_a_seed_that_no_generator_takes_is_refused(demo_store: FeatureStore, seed: int) -> None:
    with pytest.raises(UsageError, match=r"split seed .* is not allowed: expected a whole number from 0 to"):
        make_split(demo_store, seed)


def test_a_part_of_one_class_cannot_serve(demo_store: FeatureStore) -> None:
    videos = demo_store.videos("train")
    assert videos.labels is not None
    normal = tuple(
        name for name, label in zip(videos.names, videos.labels.tolist(), strict=True) if not label
    )
    others = tuple(name for name in videos.names if name not in normal[:2])
    with pytest.raises(DataError, match="of the 2 videos that are held out at least one must be violent"):
        Split(others, normal[:2], 0).check_given(demo_store)


def test_a_split_that_parts_sources_is_told(demo_store: FeatureStore) -> None:
    made = make_split(demo_store)
    assert split_doubt(made, demo_store, "source") is None
    videos = demo_store.videos("train")
    pairs: dict[str, list[str]] = {}
    for name, source in zip(videos.names, videos.sources, strict=True):
        pairs.setdefault(source, []).append(name)
    one, *_ = next(names for names in pairs.values() if len(names) > 1)
    parted = Split(tuple(name for name in videos.names if name != one), (one,), 0)
    assert "of 1 held-out sources 1 are trained on too" in str(split_doubt(parted, demo_store, "source"))


def test_what_a_file_holds_is_read_from_text_too(demo_store: FeatureStore, tmp_path: Path) -> None:
    split = make_split(demo_store)
    split.save(tmp_path / "split.json")
    assert Split.parse((tmp_path / "split.json").read_text(), "here") == split
    with pytest.raises(DataError, match="here"):
        Split.parse("{}", "here")
