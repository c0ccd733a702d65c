"""Run folders as tables: every state a run or a trial can be in, and the opening of the test labels."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from macil.data import FeatureStore
from macil.errors import DataError, MacilError, UsageError
from macil.io import remote as remote_files
from macil.io.files import read_json, write_json_atomic
from macil.io.remote import Remote
from tests.support.run_folders import BASE, EPOCHS, RunFolder, edit_report, write_report_line
from tune.results.label_access import closed_trials, needs_label_access, open_labels, read_label_accesses
from tune.results.ranking import leaderboard
from tune.results.replay import find_trial
from tune.results.run import RunResults, load_run
from tune.results.tables import EPOCHS_SCHEMA, TRIALS_SCHEMA
from tune.storage.location import copy_run, locate_run
from tune.storage.names import ACCESS_LOG, MEASURED_FILE


@pytest.fixture(scope="module")
def heldout(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search: trials finished, stopped, failed, diverged, and the winner's refit. Read only."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "search", demo_store, "heldout").begin(trials=5)
    run.add("0000", lambda_v2b=0.5)
    run.add("0001", lambda_v2b=2.0, distill=False)
    run.add("0002", "stopped", 1, ramp=0.5)
    run.add("0003", "failed", 2, error="RuntimeError: <b>no</b> | memory")
    run.add("0004", "diverged", 1)
    run.add("seed0", kind="refit", epochs=2)
    return run.path


@pytest.fixture(scope="module")
def published(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run under the published protocol with one trial. Read only."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "published", demo_store, "published").begin(trials=1)
    run.add("0000")
    return run.path


@pytest.fixture
def copy(heldout: Path, tmp_path: Path) -> Path:
    """The held-out run, to be changed."""
    return Path(shutil.copytree(heldout, tmp_path / "runs" / "search"))


def by_name(results: RunResults) -> dict[str, dict[str, object]]:
    return {Path(row["trial_dir"]).name: row for row in results.trials.to_pylist()}


def sklearn_ap(scores: np.ndarray, frame_labels: np.ndarray) -> tuple[float, float]:
    """Both definitions on the expanded frames, by scikit-learn alone."""
    frames = np.repeat(scores, 16)
    precision, recall, _ = precision_recall_curve(frame_labels, frames)
    return float(average_precision_score(frame_labels, frames)), float(auc(recall, precision))


def set_info(run: Path, **changes: object) -> None:
    write_json_atomic(run / "run.json", {**read_json(run / "run.json"), **changes})


def test_every_state_of_a_trial_is_told_apart(heldout: Path) -> None:
    results = load_run(heldout)
    status = {name: row["status"] for name, row in by_name(results).items()}
    assert status == {
        "0000": "finished",
        "0001": "finished",
        "0002": "stopped",
        "0003": "failed",
        "0004": "diverged",
        "seed0": "refit",
    }
    rows = by_name(results)
    assert rows["0003"]["error"] == "RuntimeError: <b>no</b> | memory"
    assert rows["0004"]["error"] == "diverged in epoch 2: the loss is no finite number"
    assert [rows[name]["epochs_run"] for name in ("0000", "0002", "0003", "0004", "seed0")] == [3, 1, 2, 1, 2]
    assert results.problems == []
    assert results.trials.schema.equals(TRIALS_SCHEMA, check_metadata=True)
    assert results.epochs.schema.equals(EPOCHS_SCHEMA, check_metadata=True)


def test_a_trial_is_called_in_the_tables_as_replay_finds_it(heldout: Path) -> None:
    rows = load_run(heldout).trial_rows
    assert {row.trial_id for row in rows} >= {"0000", "refit/seed0"}
    for row in rows:
        assert row.name == row.trial_id
        assert find_trial(heldout, row.trial_id)[0] == heldout / row.trial_dir


def test_a_folder_that_is_a_copy_of_a_trials_is_named(copy: Path) -> None:
    shutil.copytree(copy / "trials/0000", copy / "trials/0000-copy")
    results = load_run(copy)
    assert "two folders hold trial trials-0000; both are listed" in results.problems


def test_the_tables_hold_what_the_trainer_reported(heldout: Path) -> None:
    results = load_run(heldout)
    reported = [json.loads(line) for line in (heldout / "trials/0000/result.json").read_text().splitlines()]
    epochs = [row for row in results.epochs.to_pylist() if row["trial_id"] == "0000"]
    for row, line in zip(epochs, reported, strict=True):
        assert all(row[name] == line[name] for name in row if name not in ("kind", "trial_id"))
    row = by_name(results)["0000"]
    chosen = next(line for line in reported if line["epoch"] == row["chosen_epoch"])
    assert row["heldout_ap"] == chosen["heldout_ap"]
    assert row["selection_score"] == reported[-1]["selection_score"]
    assert row["seconds"] == sum(line["seconds"] for line in reported)
    assert {name: row[name] for name in BASE.to_dict()} == BASE.replace(lambda_v2b=0.5).to_dict()
    assert (row["epoch_rule"], row["protocol"], row["threads"], row["device"]) == (
        "chosen",
        "heldout",
        1,
        "cpu",
    )
    assert by_name(results)["seed0"]["epoch_rule"] == "last"


def test_test_metrics_are_null_until_the_labels_are_opened(heldout: Path) -> None:
    results = load_run(heldout)
    for column in (
        "ap",
        "ap_trapezoid",
        "ap_last",
        "ap_trapezoid_last",
        "visual_ap",
        "ap_best",
        "best_epoch",
    ):
        assert results.trials[column].null_count == results.trials.num_rows
    assert results.epochs["ap"].null_count == results.epochs.num_rows
    assert needs_label_access(results)
    assert not (heldout / ACCESS_LOG).exists()


def test_opened_metrics_equal_scikit_learn_on_the_stored_scores(copy: Path, demo_store: FeatureStore) -> None:
    opened = open_labels(load_run(copy), demo_store)
    labels = demo_store.test_labels().frame_labels
    for name, row in by_name(opened).items():
        stored = np.load(max((copy / str(row["trial_dir"])).glob("checkpoint_*/scores.npz")))
        rule = str(row["epoch_rule"])
        assert (row["ap"], row["ap_trapezoid"]) == pytest.approx(
            sklearn_ap(stored[rule], labels), abs=1e-9
        ), name
        expected = pytest.approx(sklearn_ap(stored["last"], labels), abs=1e-9)
        assert (row["ap_last"], row["ap_trapezoid_last"]) == expected, name
        if row["distill"]:
            visual = sklearn_ap(stored[f"visual_{rule}"], labels)[0]
            assert row["visual_ap"] == pytest.approx(visual, abs=1e-9), name
        else:
            assert row["visual_ap"] is None
    assert opened.epochs.equals(load_run(copy).epochs)


def test_a_label_access_is_logged_once_and_its_figures_are_kept(copy: Path, demo_store: FeatureStore) -> None:
    opened = open_labels(load_run(copy), demo_store)
    again = load_run(copy)
    assert again.trials.equals(opened.trials)
    assert not needs_label_access(again, demo_store.labels_hash)
    for path in copy.rglob("scores.npz"):
        os.utime(path, ns=(1, 1))  # a copy on another machine
    assert not needs_label_access(load_run(copy))
    (entry,) = opened.label_accesses
    assert entry.trials == 6
    assert entry.labels_hash == demo_store.labels_hash
    assert entry.time
    second = open_labels(again, demo_store)
    assert len(second.label_accesses) == 2
    assert len({entry.scores_hash for entry in second.label_accesses}) == 1


def test_other_scores_need_and_show_another_opening(copy: Path, demo_store: FeatureStore) -> None:
    open_labels(load_run(copy), demo_store)
    path = copy / "trials/0000/checkpoint_000002/scores.npz"
    stored = dict(np.load(path))
    np.savez(path, **{name: scores[::-1] for name, scores in stored.items()})
    results = load_run(copy)
    assert by_name(results)["0000"]["ap"] is None
    assert needs_label_access(results)
    opened = open_labels(results, demo_store)
    assert len({entry.scores_hash for entry in opened.label_accesses}) == 2
    assert not needs_label_access(opened, demo_store.labels_hash)
    assert needs_label_access(opened, "another hash of labels")


def test_scores_kept_of_other_epochs_are_not_looked_at(copy: Path, demo_store: FeatureStore) -> None:
    first = open_labels(load_run(copy), demo_store)
    path = max((copy / "trials/0000").glob("checkpoint_*/scores.npz"))
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **arrays, epoch_1=np.zeros(3), visual_epoch_1=np.zeros(3))
    again = open_labels(load_run(copy), demo_store)
    assert again.trials.equals(first.trials)
    label_accesses = read_label_accesses(copy, [])
    assert [entry.scores_hash for entry in label_accesses] == [label_accesses[0].scores_hash] * 2
    assert label_accesses[0].trials == len(closed_trials(again))


def test_another_store_is_refused_and_nothing_is_opened(copy: Path, demo_store: FeatureStore) -> None:
    set_info(copy, store_hash="0" * 32)
    with pytest.raises(DataError, match="not the data this run was trained on"):
        open_labels(load_run(copy), demo_store)
    assert not (copy / ACCESS_LOG).exists()
    assert not (copy / MEASURED_FILE).exists()


def test_absent_labels_are_not_an_opening(copy: Path, demo_store: FeatureStore, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(demo_store.path, tmp_path / "store"))
    (bare / "labels.arrow").unlink()
    with pytest.raises(DataError, match="no test labels"):
        open_labels(load_run(copy), FeatureStore.open(bare))
    assert not (copy / ACCESS_LOG).exists()


def test_changed_labels_are_measured_and_said(copy: Path, demo_store: FeatureStore) -> None:
    set_info(copy, labels_hash="0" * 32)
    opened = open_labels(load_run(copy), demo_store)
    assert any("not those the run was started with" in problem for problem in opened.problems)


def test_a_run_without_closed_trials_opens_nothing(published: Path, demo_store: FeatureStore) -> None:
    results = load_run(published)
    assert open_labels(results, demo_store) is results
    assert not (published / ACCESS_LOG).exists()


def test_published_headline_is_the_last_epoch_with_the_best_beside_it(
    published: Path, demo_store: FeatureStore, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(published, tmp_path / "published"))
    (row,) = load_run(run).trials.to_pylist()
    stored = np.load(run / "trials/0000" / f"checkpoint_{EPOCHS - 1:06d}" / "scores.npz")
    labels = demo_store.test_labels().frame_labels
    assert (row["ap"], row["ap_trapezoid"]) == pytest.approx(sklearn_ap(stored["last"], labels), abs=1e-9)
    epochs = load_run(run).epochs.to_pylist()
    assert (
        row["ap_trapezoid_best"] == max(epoch["ap_trapezoid"] for epoch in epochs) == row["selection_score"]
    )

    for epoch, ap in ((1, 0.97), (2, 0.97)):
        edit_report(run / "trials/0000", epoch, ap=ap - 0.01, ap_trapezoid=ap)
    (edited,) = load_run(run).trials.to_pylist()
    assert (edited["best_epoch"], edited["ap_best"], edited["ap_trapezoid_best"]) == (1, 0.96, 0.97), (
        "the first of equals"
    )
    for name in ("ap", "ap_trapezoid"):
        assert edited[name] == edited[f"{name}_last"] == row[name] == epochs[-1][name]


def test_the_leaderboard_ranks_only_trials_with_a_result(heldout: Path) -> None:
    (rank, refit), *ranked = leaderboard(load_run(heldout))
    assert (rank, refit.status) == (None, "refit")
    assert {row.name for _, row in ranked} == {"0000", "0001", "0002"}
    assert [rank for rank, _ in ranked] == [1, 2, 3]
    scores = [row.selection_score or 0.0 for _, row in ranked]
    assert scores == sorted(scores, reverse=True)
    assert 0.0 not in scores


def test_equal_scores_keep_the_order_of_the_trials(copy: Path) -> None:
    for name in ("0000", "0001", "0002"):
        path = copy / "trials" / name / "result.json"
        lines = [json.loads(line) | {"selection_score": 0.5} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ranked = leaderboard(load_run(copy))[1:]
    assert [row.name for _, row in ranked] == ["0000", "0001", "0002"]


def test_a_line_cut_short_is_left_out_and_said(copy: Path) -> None:
    path = copy / "trials/0000/result.json"
    path.write_text(path.read_text()[:-40])
    results = load_run(copy)
    assert by_name(results)["0000"]["epochs_run"] == EPOCHS - 1
    assert by_name(results)["0000"]["status"] == "interrupted"
    assert results.problems == [
        f"0000: result.json line {EPOCHS} is cut short; it was being written or the process was killed; ignored"
    ]


def test_an_epoch_reported_again_counts_once_and_its_first_report_wins(copy: Path) -> None:
    folder = copy / "trials/0000"
    last = json.loads((folder / "result.json").read_text().splitlines()[-1])
    write_report_line(folder, last | {"loss_mil": 7.5, "seconds": 99.0})
    results = load_run(copy)
    epochs = [row for row in results.epochs.to_pylist() if row["trial_id"] == "0000"]
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert epochs[-1]["loss_mil"] == last["loss_mil"]
    assert by_name(results)["0000"]["status"] == "finished"


def test_every_kind_of_damage_is_listed_and_the_rest_survives(copy: Path, demo_store: FeatureStore) -> None:
    (copy / "trials/0000/record.json").write_text("{")
    lines = (copy / "trials/0001/result.json").read_text().splitlines()
    (copy / "trials/0001/result.json").write_text("\n".join([lines[0], "not json", lines[2], ""]))
    shutil.rmtree(copy / "trials/0002/checkpoint_000000")
    (copy / "trials/0003/checkpoint_000001/scores.npz").write_bytes(b"no zip")
    opened = open_labels(load_run(copy), demo_store)
    text = "\n".join(opened.problems)
    assert "0000: record.json is not valid JSON" in text
    assert "0001: result.json line 2 is damaged" in text
    assert "0001: result.json has no report of epoch 2" in text
    assert "0002: no checkpoint with test scores" in text
    assert "0003/checkpoint_000001/scores.npz cannot be read" in text
    rows = by_name(opened)
    assert rows["0002"]["ap"] is None
    assert rows["0003"]["ap"] is None
    assert rows["0000"]["ap"] is not None
    assert rows["0000"]["lambda_v2b"] == 0.5
    assert rows["0001"]["epochs_run"] == EPOCHS
    assert rows["0001"]["status"] == "finished"
    assert rows["0001"]["ap_last"] is not None
    # What was found then is still reported when the figures come from the log.
    assert "0002: no checkpoint with test scores" in "\n".join(load_run(copy).problems)


def test_scores_of_another_epoch_than_logged_are_left_out(copy: Path, demo_store: FeatureStore) -> None:
    shutil.rmtree(copy / "trials/0003/checkpoint_000001")
    opened = open_labels(load_run(copy), demo_store)
    assert by_name(opened)["0003"]["ap_last"] is None
    assert any(
        "the scores of the last epoch are of epoch 1, the log says 2" in text for text in opened.problems
    )


def test_a_trial_that_has_reported_nothing_yet_is_running_too(copy: Path) -> None:
    set_info(copy, status="running", trials=7)
    lines = (copy / "trials/0000/result.json").read_text().splitlines()
    (copy / "trials/0000/result.json").write_text(lines[0] + "\n")
    (copy / "trials/0001/result.json").unlink()
    results = load_run(copy)
    rows = by_name(results)
    assert rows["0000"]["status"] == "running"
    assert rows["0001"]["status"] == "running"
    assert rows["0003"]["status"] == "failed", (
        "what is tried again has no error.txt (tune.execution.epoch_log)"
    )
    assert results.problems == ["2 of 7 trials have not started"]
    state = [json.dumps({"trial_id": "trials-0003", "status": "ERROR"}), "{}"]
    write_json_atomic(copy / "trials/experiment_state-2026.json", {"trial_data": [state]})
    assert by_name(load_run(copy))["0003"]["status"] == "failed"


def test_a_killed_driver_is_noticed(copy: Path) -> None:
    set_info(copy, status="running")
    gone = os.spawnlp(
        os.P_WAIT, "sh", "sh", "-c", f"echo process $$ on {os.uname().nodename} > '{copy / '.lock'}'"
    )
    assert gone == 0
    results = load_run(copy)
    assert results.status == "interrupted"
    assert any("it was killed" in problem for problem in results.problems)
    (copy / ".lock").write_text(f"process {os.getpid()} on {os.uname().nodename}")
    assert load_run(copy).status == "running"


def test_an_empty_run_and_one_without_run_json_are_read(tmp_path: Path, demo_store: FeatureStore) -> None:
    RunFolder(tmp_path / "empty", demo_store).begin("running", trials=3)
    empty = load_run("empty", tmp_path)
    assert (empty.trials.num_rows, empty.epochs.num_rows, leaderboard(empty)) == (0, 0, [])
    (tmp_path / "bare/trials").mkdir(parents=True)
    bare = load_run("bare", tmp_path)
    assert bare.status == "unknown"
    assert any("run.json is missing" in problem for problem in bare.problems)


def test_a_newer_format_is_refused(copy: Path) -> None:
    set_info(copy, format_version=99)
    with pytest.raises(DataError, match="format_version 99"):
        load_run(copy)


def test_damaged_logs_of_label_accesses_are_counted_and_damaged_figures_left_out(
    copy: Path, demo_store: FeatureStore
) -> None:
    open_labels(load_run(copy), demo_store)
    (copy / MEASURED_FILE).write_text("{}")
    with (copy / ACCESS_LOG).open("a") as file:
        file.write("half a li")
    results = load_run(copy)
    assert by_name(results)["0000"]["ap"] is None
    assert any("measured.json is damaged" in problem for problem in results.problems)
    problems: list[str] = []
    assert len(read_label_accesses(copy, problems)) == 2
    assert problems == [f"{ACCESS_LOG} line 2 is damaged; it is counted as an opening of unknown time"]
    assert len(open_labels(results, demo_store).label_accesses) == 3


def test_a_run_is_found_by_name_path_and_uri(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent.parent)
    for run, storage in (
        ("search", "./runs"),
        ("search", copy.parent),
        (copy, "elsewhere"),
        ("runs/search", "elsewhere"),
        (copy.as_uri(), "elsewhere"),
        ("search", copy.parent.as_uri()),
    ):
        assert locate_run(run, storage).path == copy


def test_a_run_that_is_not_there_is_named(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    cases: list[tuple[str, type[MacilError], str]] = [
        ("nothing", UsageError, "runs in .*: search"),
        ("", UsageError, "empty"),
        (str(tmp_path / "file"), UsageError, "is a file; expected the folder"),
        (str(tmp_path / "folder"), DataError, "neither run.json nor trials/"),
        ("nowhere://bucket/run", UsageError, "cannot be opened"),
        ((tmp_path / "gone").as_uri(), UsageError, "does not exist"),
    ]
    for run, kind, text in cases:
        with pytest.raises(kind, match=text):
            locate_run(run, copy.parent)


def test_a_run_elsewhere_is_mirrored_without_weights_and_its_report_published(
    copy: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the bucket had changed longer ago than its clock ticks.
    monkeypatch.setattr(remote_files, "_TICK", -(10**9))
    remote = Remote(f"{bucket}/search")
    for file in copy.rglob("*"):
        if file.is_file():
            remote.upload(file, file.relative_to(copy).as_posix())
    assert any(name.endswith(".pt") for name in remote.files())
    target = copy_run(remote, tmp_path / "mirror")
    assert not list(target.rglob("*.pt"))
    assert load_run(target).trials.num_rows == load_run(copy).trials.num_rows
    before = (target / "run.json").stat().st_ino
    assert (copy_run(remote, target) / "run.json").stat().st_ino == before
    location = type(locate_run(copy))(target, remote.uri, remote)
    (target / "report").mkdir()
    (target / "report/report.md").write_text("text")
    location.publish("report")
    assert remote.read("report/report.md") == b"text"


def test_values_of_a_wrong_type_become_null_and_are_said(copy: Path) -> None:
    path = copy / "trials/0000/result.json"
    lines = [json.loads(line) | {"heldout_ap": "high"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = load_run(copy)
    assert by_name(results)["0000"]["heldout_ap"] is None
    assert by_name(results)["0001"]["heldout_ap"] is not None
    assert any("heldout_ap: 'high' is not a value" in problem for problem in results.problems)
