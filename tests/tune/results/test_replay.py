"""A recorded trial trained again outside Tune gives the recorded digits; what differs is reported."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from macil.commands import cli
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError, UsageError
from macil.io.files import read_json, write_json_atomic
from tests.support.run_folders import EPOCHS, RunFolder, edit_report
from tune.commands.search import search
from tune.reporting.write import write_report
from tune.results.label_access import read_label_accesses
from tune.results.replay import replay_trial
from tune.results.trial_folder import newest_scores


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, demo_store: FeatureStore) -> Path:
    """A held-out search with a stopped trial and a refit."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "mine", demo_store).begin()
    folder.add("00000")
    folder.add("00001", end="stopped", epochs_run=2, ramp=0.3)
    folder.add("seed0", kind="refit", epochs=2)
    return folder.path


def replay(run: Path, trial: str, seed: int | None = None, data: str | None = None) -> tuple[int, str]:
    text = io.StringIO()
    code = replay_trial(str(run), trial, "./runs", data, seed, Console(file=text, width=140))
    return code, text.getvalue()


@pytest.mark.parametrize(
    ("trial", "epochs"), [("00000", EPOCHS), ("00001", 2), ("trials/00001", 2), ("refit/seed0", 2)]
)
def test_a_replay_gives_every_digit_again_and_opens_no_label(run: Path, trial: str, epochs: int) -> None:
    code, output = replay(run, trial)
    assert code == 0
    assert "equal: every number of every epoch, and every test score kept, to the last digit" in output
    assert "test AP: not measured" in output
    assert "demo data, made up" in output
    name = trial if "/" in trial else f"trials/{trial}"
    written = read_json(run / "replays" / f"{name.replace('/', '-')}.json")
    assert (written["trial"], written["equal"], len(written["epochs"])) == (name, True, epochs)
    assert written["test_scores"]["last"] == 0.0
    assert written["environment"] == written["recorded_environment"]
    assert read_label_accesses(run, []) == []


def test_a_published_trial_gives_its_test_ap_again(tmp_path: Path, demo_store: FeatureStore) -> None:
    folder = RunFolder(tmp_path / "sweep", demo_store, protocol="published").begin(sweep="table3")
    trainer = folder.add("full_seed1", row="full", seed=1)
    code, output = replay(folder.path, "full_seed1")
    assert code == 0
    assert repr(trainer.history[-1]["ap_trapezoid"]) in output
    written = read_json(folder.path / "replays" / "trials-full_seed1.json")
    assert written["test_ap"]["ap"] == [trainer.history[-1]["ap"]] * 2


def test_another_seed_is_trained_beside_the_recorded_one(
    tmp_path: Path, run: Path, demo_store: FeatureStore
) -> None:
    code, output = replay(run, "00000", seed=7)
    assert code == 0
    assert "another seed than the recorded 0" in output
    written = read_json(run / "replays" / "trials-00000-seed7.json")
    assert (written["seed"], written["recorded_seed"], written["equal"]) == (7, 0, None)
    assert written["test_ap"] is None
    # Once the labels have been opened, a new training is one more look at them.
    opened = tmp_path / "opened"
    shutil.copytree(run, opened)
    write_report(opened)
    assert len(read_label_accesses(opened, [])) == 1
    code, output = replay(opened, "00000", seed=7)
    label_accesses = read_label_accesses(opened, [])
    assert [entry.purpose for entry in label_accesses] == ["report", "replay of trials/00000, seed 7"]
    assert "test ap_trapezoid" in output
    recorded, replayed = read_json(opened / "replays" / "trials-00000-seed7.json")["test_ap"]["ap"]
    assert recorded != replayed
    # The recorded scores again are not: what they give is known.
    code, output = replay(opened, "00000")
    assert code == 0
    assert len(read_label_accesses(opened, [])) == 2
    assert read_json(opened / "replays" / "trials-00000.json")["test_ap"]["ap"] == [recorded, recorded]


def test_a_digit_that_differs_is_told_and_is_an_error_on_the_recorded_environment(
    tmp_path: Path, run: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    loss = json.loads((run / "trials/00000/result.json").read_text().splitlines()[1])["loss_mil"]
    edit_report(changed / "trials/00000", 2, loss_mil=loss + 1e-9)
    code, output = replay(changed, "00000")
    assert code == 1
    assert "differs: loss_mil, by up to 1e-09, first in epoch 2" in output
    assert "please report this" in output
    # Elsewhere it is only reported, with what differs about the environment.
    record = read_json(changed / "trials/00000/record.json")
    write_json_atomic(changed / "trials/00000/record.json", {**record, "torch_version": "1.0"})
    code, output = replay(changed, "00000")
    assert code == 0
    assert "torch_version: recorded 1.0, here" in output
    assert not read_json(changed / "replays" / "trials-00000.json")["equal"]


def test_a_number_that_was_not_recorded_is_told_as_a_difference(tmp_path: Path, run: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    edit_report(changed / "trials/00000", 2, loss_mil="high")
    code, output = replay(changed, "00000")
    assert code == 1
    assert "differs: loss_mil, only one has a number, first in epoch 2" in output
    written = read_json(changed / "replays" / "trials-00000.json")
    assert written["differences"] == {"loss_mil": {"largest": None, "first_epoch": 2}}


def test_kept_scores_of_other_snippets_are_not_called_equal(tmp_path: Path, run: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    path = newest_scores(copy / "trials/00001")
    assert path is not None
    with np.load(path) as kept:
        arrays = {name: kept[name] for name in kept.files}
    np.savez(path, **{name: scores[:-1] for name, scores in arrays.items()})
    with pytest.raises(
        DataError, match=r"scores\.npz keeps \d+ test scores .* the test videos have \d+ snippets"
    ):
        replay(copy, "00001")
    np.savez(path, **{name: scores * np.nan for name, scores in arrays.items()})
    with pytest.raises(DataError, match=r"scores\.npz keeps .* no finite numbers; it is damaged"):
        replay(copy, "00001")


def test_what_cannot_be_replayed_is_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UsageError, match="has no trial '9'; it has 00000, 00001, refit/seed0"):
        replay(run, "9")
    for outside in ("..", "../mine", "/", "."):
        with pytest.raises(UsageError, match="has no trial"):
            replay(run, outside)
    with pytest.raises(UsageError, match="no run"):
        replay(tmp_path / "nowhere", "00000")
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("replays"))
    (copy / "trials/00000/result.json").write_text("")
    with pytest.raises(DataError, match="no finished epoch"):
        replay(copy, "00000")
    record = read_json(copy / "trials/00001/record.json")
    del record["config"]
    write_json_atomic(copy / "trials/00001/record.json", {**record, "later": 1})
    with pytest.raises(DataError, match=r"00001/record\.json is damaged") as caught:
        replay(copy, "00001")
    assert caught.value.problems == (
        "it lacks config",
        "it has the field 'later', which this version of macil does not know",
    )
    (copy / "trials/00001/record.json").write_text("{")
    with pytest.raises(DataError, match="no record"):
        replay(copy, "00001")
    info = read_json(copy / "run.json")
    write_json_atomic(copy / "run.json", {**info, "data": str(tmp_path / "gone")})
    with pytest.raises(DataError, match="are not there any more; give them with --data"):
        replay(copy, "refit/seed0")
    for content in ("[]", "null", '{"data": 3}', "{"):
        (copy / "run.json").write_text(content)
        with pytest.raises(DataError, match=r"run\.json does not say where the data lie; give them with"):
            replay(copy, "refit/seed0")
    assert not (copy / "replays").exists(), "nothing half-made is left"
    code, _ = replay(copy, "refit/seed0", data=info["data"])
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "3"], "leave out --trials"),
        (["--ramp", "0.3", "--sweep", "table3"], "leave out --sweep, --ramp"),
    ],
)
def test_a_replay_takes_no_other_option(
    arguments: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(search, ["--replay", str(run), "00000", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_line_replays(run: Path, capsys: pytest.CaptureFixture[Any]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(search, ["--replay", run.name, "00001", "--storage", str(run.parent)])
    assert stop.value.code == 0
    assert "to the last digit" in capsys.readouterr().out
