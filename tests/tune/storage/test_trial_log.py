"""One reader of a trial's log: what driver, resume, status and report know of an epoch is the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tune.results.rows import epoch_columns
from tune.storage.trial_log import read_last_report, read_log, report_line, trim_log


def line(epoch: int, **more: Any) -> str:
    return json.dumps({"epoch": epoch, "training_iteration": epoch, "selection_score": 0.5, **more}) + "\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "result.json"


def test_the_first_report_of_an_epoch_counts_and_they_come_in_order(log: Path) -> None:
    log.write_text(line(2, ap=0.1) + line(1, ap=0.25) + line(1, ap=0.75) + line(2, ap=0.9, done=True))
    found = read_log(log)
    assert [(epoch, report.metrics()["ap"]) for epoch, report in found.reports.items()] == [
        (1, 0.25),
        (2, 0.1),
    ]
    assert found.last == found.reports[2]
    assert not found.last.done
    trim_log(log, 2)
    assert [json.loads(each)["ap"] for each in log.read_text().splitlines()] == [0.25, 0.1]


def test_epochs_count_up_to_the_first_gap_and_scores_go_on(log: Path) -> None:
    log.write_text(line(1) + line(2, selection_score=None, diverged=True) + line(4, selection_score=0.75))
    found = read_log(log)
    assert found.epochs == 2
    assert found.scores == {1: 0.5, 4: 0.75}
    assert read_log(log.with_name("absent")).epochs == 0
    assert read_log(log / "in a file").last is None


@pytest.mark.parametrize(
    "damaged",
    [
        '{"epoch": 3, "selec',
        "not json",
        "[1, 2]",
        "null",
        '{"selection_score": 1.0}',
        '{"epoch": 0}',
        "[" * 9999,
    ],
)
def test_a_line_that_is_no_report_is_known_by_its_number(log: Path, damaged: str) -> None:
    log.write_text(f"{line(1)}{damaged}\n\n{line(2)}{damaged}")
    found = read_log(log)
    assert sorted(found.reports) == [1, 2]
    assert (found.damaged, found.lines) == ((2, 5), 5)
    trim_log(log, 2)
    assert log.read_text() == line(1) + line(2)


def test_a_value_of_another_type_is_left_out_and_kept_for_the_message(log: Path) -> None:
    whole = {"ap": 1, "parameters": 7, "chosen_epoch": 1}
    log.write_text(
        line(1, **whole) + line(2, ap="x", parameters=1.5, diverged=None, seconds=math.nan, reason="\ud83d")
    )
    found = read_log(log)
    assert found.wrong == {"ap": "x", "parameters": 1.5}
    assert found.reports[1].metrics()["ap"] == 1.0
    second = found.reports[2]
    measured = second.metrics()
    assert [measured[name] for name in ("ap", "parameters", "diverged", "seconds")] == [
        None,
        None,
        False,
        None,
    ]
    assert second.reason == "?"
    assert second.selection_score == 0.5


def test_an_epoch_is_the_trainings_or_else_ray_tunes(log: Path) -> None:
    log.write_text(
        '{"training_iteration": 1}\n{"epoch": 2, "training_iteration": 7}\n{"epoch": null, "training_iteration": 3}\n'
    )
    assert sorted(read_log(log).reports) == [1, 2, 3]


def test_what_is_written_is_read_again(log: Path) -> None:
    made = {
        "epoch": 1,
        "ap": math.inf,
        "seconds": 0.5,
        "hostname": "gpu-1",
        "path": Path("x"),
        "trial_id": "own",
    }
    log.write_text(report_line(made, None) + report_line({**made, "epoch": 2}, "a_seed1"))
    first, second = read_log(log).reports.values()
    assert (first.metrics()["ap"], first.metrics()["seconds"]) == (None, 0.5)
    assert (first.hostname, first.trial_id) == ("gpu-1", "own")
    assert second.trial_id == "a_seed1"
    assert json.loads(log.read_text().splitlines()[0])["path"] == "x"


def test_the_last_sign_of_life_is_the_last_whole_line_with_a_time(log: Path) -> None:
    assert read_last_report(log) is None
    log.write_text(line(1) * 300 + line(2, timestamp=5, hostname="gpu-1") + line(3) + '{"epoch": 4, "timest')
    found = read_last_report(log)
    assert found is not None
    assert (found.epoch, found.timestamp, found.hostname) == (2, 5.0, "gpu-1")


def test_the_columns_of_an_epoch_are_what_its_report_measured(log: Path) -> None:
    columns = {
        column.name: column.type for column in epoch_columns() if column.name not in ("trial_id", "kind")
    }
    log.write_text(line(1))
    report = read_log(log).reports[1]
    assert set(report.metrics()) == set(columns)
    for name, kind in columns.items():
        annotation = str(type(report).model_fields[name].annotation)
        assert kind.__name__ in annotation, name
