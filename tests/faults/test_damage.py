"""Files that were damaged after they were written: the last good one is used, or the damaged one is named."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from macil.__main__ import app
from macil.data import FeatureStore, resolve
from macil.data.split import Split, make_split
from macil.data.store.arrow_files import locate_buffers
from macil.data.store.verification import verify_store
from macil.errors import DataError
from macil.io.files import read_json, write_json_atomic
from macil.training.checkpoint import load_checkpoint
from tests.support.faults import contents, flip
from tests.support.fuzzing import Outcome, call
from tests.support.layouts import write_layout
from tests.support.run_folders import RunFolder
from tune.reporting.write import write_report
from tune.results.label_access import read_label_accesses
from tune.results.measured import read_measured
from tune.results.run import load_run
from tune.storage.names import ACCESS_LOG, MEASURED_FILE

SMALL = [
    "--batch-size",
    24,
    "--hidden-dim",
    16,
    "--feedforward-dim",
    16,
    "--max-snippets",
    20,
    "--threads",
    1,
]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flip_header(path: Path) -> None:
    flip(path, 0)


def flip_end(path: Path) -> None:
    flip(path, 1 - 60 / path.stat().st_size)


def remove(path: Path) -> None:
    path.unlink()


def flip_weight(path: Path) -> None:
    """The lowest bit of a weight in a checkpoint: nothing about the file looks wrong."""
    content = bytearray(path.read_bytes())
    weights = load_checkpoint(path)["network"]["fc_v.weight"].numpy().tobytes()
    content[content.index(weights) + 100] ^= 1
    path.write_bytes(content)


@pytest.fixture
def store(demo_store: FeatureStore, tmp_path: Path) -> Path:
    """A store to be damaged."""
    return Path(shutil.copytree(demo_store.path, tmp_path / "store"))


@pytest.mark.parametrize("damage", [truncate, flip_header, flip_end, remove])
@pytest.mark.parametrize("name", ["visual.arrow", "audio.arrow", "index.arrow", "meta.json"])
def test_a_store_with_a_damaged_file_is_refused_by_its_name(
    name: str, damage: Callable[[Path], None], store: Path
) -> None:
    damage(store / name)
    for command in (["check", store], ["train", store, "--out", store.parent / "out", *SMALL]):
        ended = call(app, *command)
        assert ended.code == 1
        assert name in ended.output
    assert not (store.parent / "out").exists()


@pytest.mark.parametrize("damage", [truncate, flip_header, flip_end, remove])
def test_damaged_test_labels_are_named_and_only_where_they_are_needed(
    damage: Callable[[Path], None], store: Path
) -> None:
    damage(store / "labels.arrow")
    ended = call(app, "check", store)
    assert ended.code == 1
    assert "labels.arrow" in ended.out
    with pytest.raises(DataError, match=r"labels\.arrow"):
        FeatureStore.open(store).test_labels()


@pytest.mark.parametrize("position", [k / 23 for k in range(24)])
@pytest.mark.parametrize("name", ["index.arrow", "labels.arrow"])
def test_no_flipped_bit_of_the_small_files_goes_unnoticed(name: str, position: float, store: Path) -> None:
    flip(store / name, position)
    with pytest.raises(DataError, match=name):
        FeatureStore.open(store).test_labels()


def test_flipped_labels_in_a_store_of_an_earlier_version_are_noticed(store: Path) -> None:
    meta = read_json(store / "meta.json")
    write_json_atomic(store / "meta.json", {key: value for key, value in meta.items() if key != "hashes"})
    content = (store / "labels.arrow").read_bytes()
    position = content.index(b"\x01" * 32)  # frames that are labelled violent
    (store / "labels.arrow").write_bytes(content[:position] + b"\x00" + content[position + 1 :])
    with pytest.raises(DataError, match=r"labels\.arrow is not what was converted"):
        FeatureStore.open(store).test_labels()


@pytest.mark.parametrize("name", ["visual.arrow", "audio.arrow"])
@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_check_finds_a_flipped_bit_among_the_features_and_names_the_video(
    name: str, position: float, store: Path
) -> None:
    """Nothing else reads every byte: a store opens as it did."""
    flip(store / name, position)
    FeatureStore.open(store)
    assert call(app, "check", store, "--quick").code == 0
    ended = call(app, "check", store)
    assert ended.code == 1
    assert re.search(rf"{re.escape(name)}.*: the features of \S+ are not what was converted", ended.out)
    assert ended.out.endswith("1 fault\n")


def test_check_of_a_whole_store_finds_nothing(store: Path) -> None:
    ended = call(app, "check", store)
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "no faults")
    assert "reading the features: 34/34 videos" in ended.err


def test_check_finds_flipped_features_and_hashes_in_a_store_of_an_earlier_version(
    demo_layout: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has one hash of all features, and none of each video."""
    verify = importlib.import_module("macil.data.store.verification")
    rows = verify.map_index
    monkeypatch.setattr(
        verify,
        "map_index",
        lambda path: rows(path).select([n for n in rows(path).schema.names if n != "digest"]),
    )
    assert verify_store(store) == []
    meta = read_json(store / "meta.json")
    write_json_atomic(store / "meta.json", {**meta, "content_hash": "0" * 32})
    assert "another content hash" in verify_store(store)[0]
    write_json_atomic(store / "meta.json", meta)
    flip(store / "visual.arrow", 0.5)
    assert "another content hash" in verify_store(store)[0]


def test_check_finds_damaged_marks_of_zero_rows(store: Path) -> None:
    offset = locate_buffers(store / "visual.arrow").nonzero
    assert offset is not None
    content = bytearray((store / "visual.arrow").read_bytes())
    content[offset] ^= 2
    (store / "visual.arrow").write_bytes(content)
    (problem,) = verify_store(store)
    assert "rows" in problem
    assert "zero are damaged" in problem


@pytest.mark.parametrize("name", ["visual.arrow", "index.arrow", "meta.json"])
def test_a_damaged_output_of_an_earlier_conversion_is_made_again_or_asked_about(
    name: str, tmp_path: Path
) -> None:
    """The advice of the error, to convert again, works."""
    layout, out = write_layout(tmp_path / "data"), tmp_path / "out"
    assert call(app, "convert", layout, out).code == 0
    whole = contents(out)
    truncate(out / name)
    ended = call(app, "convert", layout, out)
    if name == "meta.json":  # which alone says that the store is of these data
        assert ended.code == 1
        assert "meta.json" in ended.err
        ended = call(app, "convert", layout, out, "--overwrite")
    else:
        assert name in ended.err
        assert "convert again: done now" in ended.err
    assert ended.code == 0
    assert contents(out) == whole


@pytest.mark.parametrize("damage", [truncate, flip_header, remove])
@pytest.mark.parametrize("name", ["visual.arrow", "audio.arrow", "index.arrow", "meta.json"])
def test_a_damaged_store_in_the_cache_is_made_again_and_named(
    name: str,
    damage: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    layout = write_layout(tmp_path / "data")
    path = resolve(layout).path
    whole = contents(path)
    damage(path / name)
    assert resolve(layout).path == path
    assert contents(path) == whole
    assert re.search(rf"note: .*{name}.*; making it again", capsys.readouterr().err)
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [path.name]


def test_a_damaged_split_is_named(demo_store: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    make_split(demo_store).save(path)
    whole = path.read_bytes()
    assert Split.load(path).hash
    for position in (k / 40 for k in range(41)):
        path.write_bytes(whole)
        flip(path, position)
        found: Split | str
        try:
            found = Split.load(path)
        except DataError as error:
            found = str(error)
        # The seed, or white space: both lists are as they were.
        assert str(path) in found if isinstance(found, str) else found.hash == json.loads(whole)["hash"]
    truncate(path)
    with pytest.raises(DataError, match=r"split\.json is not valid JSON"):
        Split.load(path)


def train(store: Path, out: Path, *more: object) -> Outcome:
    return call(app, "train", store, "--out", out, *more)


@pytest.fixture(scope="module")
def trained(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A heldout training of four epochs whose best is not its last; read only."""
    out = tmp_path_factory.mktemp("train") / "run"
    ended = train(
        demo_store.path,
        out,
        *SMALL,
        "--epochs",
        4,
        "--learning-rate",
        0.002,
        "--protocol",
        "heldout",
        "--seed",
        1,
    )
    assert ended.code == 0, ended.output
    assert load_checkpoint(out / "best.pt")["epoch"] < 4
    return out


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def scores(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "scores.npz") as file:
        return dict(file)


def require_same(first: Path, second: Path) -> None:
    one, two = scores(first), scores(second)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize("damage", [truncate, flip_header, flip_end, remove, flip_weight])
def test_a_damaged_checkpoint_is_named_and_the_last_good_one_used(
    damage: Callable[[Path], None], copy: Path, trained: Path, demo_store: FeatureStore
) -> None:
    best = load_checkpoint(copy / "best.pt")["epoch"]
    damage(copy / "last.pt")
    ended = train(demo_store.path, copy, "--resume")
    assert ended.code == 0, ended.output
    assert f"note: checkpoint {copy / 'last.pt'}" in ended.err
    assert "best.pt is used" in ended.err
    assert f"note: going on after epoch {best} of 4" in ended.err
    require_same(copy, trained)


def test_without_a_good_checkpoint_every_damaged_one_is_named_and_nothing_is_begun_anew(
    copy: Path, demo_store: FeatureStore
) -> None:
    for name in ("last.pt", "best.pt"):
        flip_weight(copy / name)
    before = contents(copy)
    ended = train(demo_store.path, copy, "--resume")
    assert ended.code == 1
    assert all(str(copy / name) in ended.err for name in ("last.pt", "best.pt"))
    assert train(demo_store.path, copy, *SMALL).code == 2
    assert contents(copy) == before


@pytest.mark.parametrize("name", ["record.json", "split.json", "epochs.jsonl", "scores.npz", "config.toml"])
@pytest.mark.parametrize("damage", [truncate, remove])
def test_a_training_goes_on_without_the_files_that_its_checkpoint_holds(
    name: str, damage: Callable[[Path], None], copy: Path, trained: Path, demo_store: FeatureStore
) -> None:
    shutil.copy(copy / "best.pt", copy / "last.pt")  # epochs are outstanding
    damage(copy / name)
    ended = train(demo_store.path, copy, "--resume")
    assert ended.code == 0, ended.output
    assert ("split.json" in ended.err) == (name == "split.json" and damage is truncate)
    require_same(copy, trained)
    assert json.loads((copy / "record.json").read_text())["config"]["epochs"] == 4
    assert len((copy / "epochs.jsonl").read_text().splitlines()) == 4
    assert (copy / "split.json").read_bytes() == (trained / "split.json").read_bytes()


@pytest.mark.parametrize("damage", [truncate, flip_header, flip_end, flip_weight, remove])
@pytest.mark.parametrize("command", ["score", "export", "evaluate"])
def test_a_damaged_model_is_named_and_never_used(
    command: str, damage: Callable[[Path], None], trained: Path, demo_store: FeatureStore, tmp_path: Path
) -> None:
    model = Path(shutil.copy(trained / "best.pt", tmp_path / "model.pt"))
    damage(model)
    arguments: dict[str, list[Any]] = {
        "score": [model, demo_store.path, "--out", tmp_path / "out"],
        "export": [model, "--to", "safetensors", "--out", tmp_path / "out.safetensors"],
        "evaluate": [model, demo_store.path],
    }
    ended = call(app, command, *arguments[command])
    assert ended.code == 1
    assert str(model) in ended.err
    assert {path.name for path in tmp_path.iterdir()} <= {"model.pt"}


def test_a_flipped_bit_of_a_weight_is_noticed_although_torch_loads_it(trained: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(trained / "best.pt", tmp_path / "model.pt"))
    epoch = load_checkpoint(path)["epoch"]
    flip_weight(path)
    assert torch.load(path, weights_only=True)["epoch"] == epoch
    with pytest.raises(DataError, match=rf"{path} cannot be read: it is damaged: archive/data/\d+ is not"):
        load_checkpoint(path)


@pytest.fixture(scope="module")
def reported(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with its report; read only."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "search", demo_store, "heldout").begin(trials=2)
    folder.add("00000", lambda_v2b=0.5)
    folder.add("00001", lambda_v2b=2.0)
    write_report(folder.path, figures=False)
    return folder.path


@pytest.mark.parametrize("name", ["trials.parquet", "epochs.parquet", "trials.csv", "report.html"])
def test_a_damaged_table_of_a_report_is_never_read_back(name: str, reported: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(reported, tmp_path / "search"))
    truncate(run / "report" / name)
    write_report(run, figures=False)
    before, after = contents(reported / "report"), contents(run / "report")
    if name != "report.html":  # which says when it was written
        assert after[name] == before[name]
    assert len(read_label_accesses(run, [])) == 1


def test_no_flipped_digit_of_a_measured_number_gets_into_a_report(reported: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(reported, tmp_path / "search"))
    text = (run / MEASURED_FILE).read_text()
    found = re.search(r'"ap": 0\.(\d)', text)
    assert found
    digit = str((int(found.group(1)) + 1) % 10)
    (run / MEASURED_FILE).write_text(text[: found.start(1)] + digit + text[found.end(1) :])
    problems: list[str] = []
    assert read_measured(run, problems) == (None, {})
    assert problems == [f"{MEASURED_FILE} is damaged; the test metrics in it are not used"]
    assert load_run(run).trials["ap"].null_count == 2

    write_report(run, figures=False)  # measures them again, which is another look at the labels
    assert f"{MEASURED_FILE} is damaged" in (run / "report/report.md").read_text()
    assert len(read_label_accesses(run, [])) == 2
    assert load_run(run).trials["ap"].equals(load_run(reported).trials["ap"])


def test_a_damaged_log_of_label_accesses_is_kept_and_counted(reported: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(reported, tmp_path / "search"))
    truncate(run / ACCESS_LOG)
    kept = (run / ACCESS_LOG).read_text()
    (run / MEASURED_FILE).unlink()
    write_report(run, figures=False)
    assert (run / ACCESS_LOG).read_text().startswith(kept)
    assert len(read_label_accesses(run, [])) == 2
    assert f"{ACCESS_LOG} line 1 is damaged" in (run / "report/report.md").read_text()


@pytest.mark.parametrize("damage", [truncate, lambda path: flip(path, 0.5)])
def test_damaged_scores_of_a_trial_are_named_and_not_measured(
    damage: Callable[[Path], None], reported: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(reported, tmp_path / "search"))
    newest = max((run / "trials/00000").glob("checkpoint_*"))
    damage(newest / "scores.npz")
    (run / MEASURED_FILE).unlink()  # numbers that were measured before stay right
    write_report(run, figures=False)
    table = {row["trial_dir"]: row for row in load_run(run).trials.to_pylist()}
    assert table["trials/00000"]["ap"] is None
    assert table["trials/00001"]["ap"] is not None
    assert f"00000/{newest.name}/scores.npz cannot be read" in (run / "report/report.md").read_text()
