"""A run's data: what is noted of them, and that a resumed run goes on with what it was begun with."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from macil.data.opening import open_here, resolve
from macil.data.reading import Reading
from macil.data.split import Split, make_split
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError, UsageError
from macil.io.remote import Remote
from tests.support.layouts import rename, tiny_demo
from tests.support.manifests import rows_of, write_csv
from tests.support.old_stores import convert_as_version_1
from tune.execution.batches import run_spec
from tune.execution.pipeline import begin
from tune.execution.run_data import describe_data, open_data
from tune.execution.trainable import build_trainer
from tune.planning.options import Options
from tune.planning.plan import Plan, read_plan, write_plan
from tune.planning.resolve import check_data_path, resolve_plan
from tune.planning.resources import Machine
from tune.storage.run_folder import Workspace, new_workspace


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    return tiny_demo(tmp_path / "layout")


def plan_of(layout: Path) -> Plan:
    return resolve_plan(Options(data=str(layout)), Machine(cpus=1, gpus=0))


@pytest.fixture
def run(tmp_path: Path) -> Workspace:
    workspace = new_workspace(str(tmp_path / "runs"), "first", overwrite=False)
    workspace.path.mkdir(parents=True)
    workspace.update()
    return workspace


def begin_as_version_1(run: Workspace, layout: Path, store: Path) -> FeatureStore:
    """Begin the run on a store of the first version, from quoted names; as run.json recorded it then."""
    rename(layout, lambda name: name.replace("#", "%23"))
    old = FeatureStore.open(convert_as_version_1(layout, store))
    describe_data(run, plan_of(layout), old)
    run.update(data_notes=None)
    return old


def test_a_run_of_an_older_store_goes_on_with_it(
    run: Workspace, layout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = begin_as_version_1(run, layout, tmp_path / "old")
    assert "%23" in old.videos("train").names[0]
    split = Split.load(run.split)
    store = open_data(run, plan_of(layout))
    assert store.path == old.path
    assert f"run 'first' goes on with its own store, {old.path}" in capsys.readouterr().err
    describe_data(run, plan_of(layout), store)
    assert run.info.data == str(old.path)
    assert run.info.data_notes
    assert run.info.data_notes[0].startswith("the store is of format_version 1, which does not say")
    assert Split.load(run.split) == split.check(store) == split
    hashes = old.content_hash, old.labels_hash
    assert open_here(str(store.path), str(layout), hashes, copy=False).path == old.path


def test_how_the_folder_is_read_is_of_the_plan_of_the_data_and_of_every_training(
    run: Workspace, layout: Path
) -> None:
    silent, absent = sorted((layout / "vggish-features/train").iterdir())[:2]
    np.save(silent, np.zeros_like(np.load(silent)))
    absent.unlink()
    plan = resolve_plan(Options(data=str(layout), snippet_frames=16, silent="zeros"), Machine(cpus=1, gpus=0))
    assert plan.flags()["--silent"] == "zeros"
    write_plan(run.path, plan)
    assert read_plan(run.path) == plan
    store = open_data(run, plan)
    assert store.meta.reading == Reading(silent="zeros")
    describe_data(run, plan, store)
    (note,) = store.notes
    assert note.startswith("2 videos without sound")
    assert note in (run.info.data_notes or ())
    spec = run_spec(run, plan, store)
    assert Reading(**build_trainer(spec, {}).record()["reading"]) == Reading(silent="zeros")
    with pytest.raises(UsageError, match="--silent zeros belongs to a data folder of your own"):
        resolve_plan(Options(silent="zeros"), Machine(cpus=1, gpus=0))


def test_a_manifest_is_data_of_a_run(run: Workspace, layout: Path) -> None:
    layout.joinpath("gt.npy").unlink()
    for row in (rows := rows_of(layout)):
        row["frames"] = "0 16" if row["label"] == "1" else ""
    path = write_csv(layout / "videos.csv", rows)
    check_data_path(str(path))
    plan = plan_of(path)
    store = open_data(run, plan)
    describe_data(run, plan, store)
    assert run.info.dataset == {"train": 24, "test": 6}
    assert run.info.demo
    with pytest.raises(
        DataError, match=r"is a file; expected a folder .*, or a manifest \(\.csv or \.parquet\)"
    ):
        check_data_path(str(layout / "annotations.txt"))


def test_without_its_own_store_it_is_refused_by_name(run: Workspace, layout: Path, tmp_path: Path) -> None:
    old = begin_as_version_1(run, layout, tmp_path / "old")
    shutil.rmtree(old.path)
    with pytest.raises(DataError) as refused:
        open_data(run, plan_of(layout))
    assert f"run 'first' was begun with data of the content hash {old.content_hash}" in refused.value.message
    assert f"put back its own store, {old.path}, or begin a new run" in refused.value.message
    with pytest.raises(DataError, match=f"this host needs the store of the run, {old.path}"):
        open_here(str(old.path), str(layout), (old.content_hash, old.labels_hash))


def test_a_folder_that_is_refused_by_now_leaves_the_run_its_store(
    run: Workspace, layout: Path, tmp_path: Path
) -> None:
    old = begin_as_version_1(run, layout, tmp_path / "old")
    (path, *_) = (layout / "RGB").glob("*.npy")
    shutil.copy(path, path.with_name(path.name.replace("%23", "#")))
    assert open_data(run, plan_of(layout)).path == old.path
    shutil.rmtree(old.path)
    with pytest.raises(DataError, match="cannot be read any more") as refused:
        open_data(run, plan_of(layout))
    assert any("in another spelling" in problem for problem in refused.value.problems)


def test_an_older_run_on_ordinary_names_goes_on_with_a_new_conversion(
    run: Workspace, layout: Path, tmp_path: Path
) -> None:
    old = FeatureStore.open(convert_as_version_1(layout, tmp_path / "old"))
    describe_data(run, plan_of(layout), old)
    shutil.rmtree(old.path)
    store = open_data(run, plan_of(layout))
    assert (store.content_hash, store.labels_hash) == (old.content_hash, old.labels_hash)
    assert (len(old.label_notes), store.label_notes) == (1, ())


def test_what_is_doubtful_about_the_data_is_noted(run: Workspace, layout: Path) -> None:
    (layout / "annotations.txt").unlink()
    rename(layout, lambda name: name.replace("__#", "--"))
    store = open_data(run, plan_of(layout))
    describe_data(run, plan_of(layout), store)
    order, split = run.info.data_notes or ()
    assert order.startswith("gt.npy: the order of the videos in it is an assumption")
    assert "a held-out split is by video" in split
    assert np.unique(store.videos("train").sources).size == 24


def begun_with_split(layout: Path, file: Path, storage: Path) -> tuple[Workspace, Plan]:
    given = Options(data=str(layout), split=str(file))
    plan = resolve_plan(given, Machine(cpus=1, gpus=0))
    run = new_workspace(str(storage), "split", overwrite=False)
    run.path.mkdir(parents=True)
    begin(run, plan, given)
    return run, plan


def test_a_split_that_is_given_is_the_one_of_the_run(layout: Path, tmp_path: Path) -> None:
    store = resolve(layout)
    split = make_split(store, 3, "video")
    file = tmp_path / "given.json"
    split.save(file)
    run, plan = begun_with_split(layout, file, tmp_path / "runs")
    file.unlink()
    assert (plan.split, plan.split_hash, plan.split_seed) == (str(file), split.hash, 3)
    assert read_plan(run.path) == plan
    describe_data(run, plan, store)
    assert Split.load(run.split) == split
    spec = run_spec(run, plan, store)
    assert spec.split_hash == split.hash
    assert build_trainer(spec, {"seed": 0}).record()["split_hash"] == split.hash
    run.split.unlink()
    with pytest.raises(
        DataError, match=f"it held the split of {file}, with the hash {split.hash}: put it back"
    ):
        describe_data(run, plan, store)


def test_a_split_of_other_data_is_refused(layout: Path, tmp_path: Path) -> None:
    store = resolve(layout)
    split = make_split(store, 3, "video")
    Split(split.train[1:], split.heldout, 3).save(tmp_path / "given.json")
    run, plan = begun_with_split(layout, tmp_path / "given.json", tmp_path / "runs")
    with pytest.raises(DataError, match=r"does not fit the data set:\n.*in neither list"):
        describe_data(run, plan, store)


def test_a_worker_that_does_not_see_the_folder_reads_the_split_in_the_bucket(
    layout: Path, tmp_path: Path, bucket: str
) -> None:
    store = resolve(layout)
    split = make_split(store, 3, "video")
    split.save(tmp_path / "split.json")
    Remote(f"{bucket}/run").write("split.json", (tmp_path / "split.json").read_bytes())
    plan = plan_of(layout).model_copy(update={"protocol": "published"})
    run = new_workspace(str(tmp_path / "runs"), "first", overwrite=False)
    spec = run_spec(run, plan, store).model_copy(
        update={
            "bucket": f"{bucket}/run",
            "protocol": "heldout",
            "split": "/nowhere",
            "split_hash": split.hash,
        }
    )
    assert build_trainer(spec, {"seed": 0}).split == split
