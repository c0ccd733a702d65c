from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import optuna
import pytest

from macil.config import TrialConfig
from macil.errors import DataError
from tests.support.studies import load_study
from tune.algorithms.journal import TRIAL_ID, open_journal, repair_journal
from tune.algorithms.study import STUDY_NAME, SearchStudy
from tune.planning.space import published_point, search_space
from tune.storage.history import TrialHistory
from tune.storage.retry import RETRY_VARIABLE, StorageError

SPACE = search_space(TrialConfig())


def search(journal: Path) -> SearchStudy:
    return SearchStudy(SPACE, journal, seed=3, epochs=4, startup=3, initial=(published_point(SPACE),))


def suggestions(journal: Path, count: int) -> list[dict[str, Any]]:
    study = search(journal)
    return [_config(study, f"t{number}") for number in range(count)]


def _config(study: SearchStudy, trial_id: str) -> dict[str, Any]:
    return dict(study.suggest(trial_id).params)


@pytest.fixture
def written(tmp_path: Path) -> bytes:
    """A study of four suggestions, the first of them enqueued, with scores in between."""
    journal = tmp_path / "whole.journal"
    study = search(journal)
    for number in range(4):
        study.suggest(f"t{number}")
        study.report(f"t{number}", 1, number / 8)
    study.end("t1", 4, 0.5)
    return journal.read_bytes()


def test_a_journal_cut_anywhere_goes_on_as_if_it_had_not_been(tmp_path: Path, written: bytes) -> None:
    """A kill can tear it at any byte; the rows that are left are whole, and the next suggestions the same."""
    whole = dict(enumerate(_rows(tmp_path, written)))
    lines = written.splitlines(keepends=True)
    cuts = [sum(map(len, lines[:count])) for count in range(len(lines) + 1)]
    for cut in [*cuts, *(cut + 7 for cut in cuts[:-1])]:
        journal = tmp_path / "study.journal"
        journal.write_bytes(written[:cut])
        repair_journal(journal)
        assert written.startswith(journal.read_bytes())
        study = load_study(journal) if journal.read_bytes() else None
        for row in study.trials if study else []:
            assert row.state == optuna.trial.TrialState.WAITING or row.params == whole[row.number]
        resumed = search(journal)
        left = resumed.open_rows + 4 - resumed.rows
        made = [resumed.suggest(f"u{number}") for number in range(left)]
        assert [row.params for row in load_study(journal).trials] == list(whole.values())
        for one in made:
            assert one.params == whole[one.number]
        journal.unlink()


def _rows(tmp_path: Path, written: bytes) -> list[dict[str, Any]]:
    copy = tmp_path / "copy.journal"
    copy.write_bytes(written)
    return [row.params for row in load_study(copy).trials]


@pytest.mark.parametrize(
    "line",
    [
        b'{"op_code": garbage}',
        b'{"op_code": 99}',
        b'{"op_code": 1e999}',
        b'{"op_code": 8, "trial_id": "x"}',
        b'{"op_code": 8, "trial_id": 1, "user_attr": 3}',
        b'{"op_code": 6, "trial_id": 1}',
        b"[]",
    ],
)
def test_damage_in_the_middle_ends_the_journal_and_is_told(
    line: bytes, tmp_path: Path, written: bytes
) -> None:
    journal = tmp_path / "study.journal"
    lines = written.splitlines(keepends=True)
    lines[20] = line + b"\n"
    journal.write_bytes(b"".join(lines))
    message = repair_journal(journal)
    assert message is not None
    assert "damaged from line 21" in message
    assert str(journal) in message
    assert written.startswith(journal.read_bytes())
    assert load_study(journal).trials
    assert repair_journal(journal) is None, "once"


def test_an_operation_that_optuna_cannot_read_is_a_fault_of_the_file(tmp_path: Path, written: bytes) -> None:
    journal = tmp_path / "study.journal"
    journal.write_bytes(written + b'{"op_code": 5, "worker_id": "w", "trial_id": 0, "param_name": 3}\n')
    assert repair_journal(journal) is None
    with pytest.raises(DataError, match=r"study.journal is damaged: an operation in it .* from a copy"):
        open_journal(journal)


def test_a_lost_row_whose_values_the_space_does_not_hold_is_refused(tmp_path: Path) -> None:
    params = {**published_point(SPACE), "momentum": 1e30, "ramp": "x"}
    with pytest.raises(DataError, match=r"momentum = 1e\+30, ramp = 'x'|ramp = 'x', momentum = 1e\+30"):
        SearchStudy(
            SPACE,
            tmp_path / "study.journal",
            seed=3,
            epochs=4,
            startup=3,
            histories={0: TrialHistory("00000", epochs=1, params=params)},
        )


def test_a_torn_end_is_nothing_worth_telling(tmp_path: Path, written: bytes) -> None:
    journal = tmp_path / "study.journal"
    journal.write_bytes(written + b'{"op_code": 7, "tri')
    assert repair_journal(journal) is None
    assert journal.read_bytes() == written
    assert repair_journal(tmp_path / "absent") is None


def test_the_file_is_the_one_that_optuna_reads(tmp_path: Path, written: bytes) -> None:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    (tmp_path / "study.journal").write_bytes(written)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
    assert [row.user_attrs[TRIAL_ID] for row in study.trials] == ["t0", "t1", "t2", "t3"]
    assert not list(tmp_path.glob("*.lock*"))


def test_an_operation_that_the_disk_refuses_leaves_nothing_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "study.journal"
    lines: list[str] = []
    storage = open_journal(journal, lines.append)
    study = optuna.create_study(storage=storage, study_name=STUDY_NAME)
    before = journal.read_bytes()
    real, refusals = os.write, [3]

    def short(descriptor: int, data: bytes) -> int:
        if refusals[0]:
            refusals[0] -= 1
            if refusals[0] % 2:
                return real(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        assert journal.read_bytes() == before, "half of a line would end the study"
        return real(descriptor, data)

    monkeypatch.setattr("tune.storage.retry._PAUSE", 0.01)
    monkeypatch.setattr("tune.storage.retry.os.write", short)
    study.set_user_attr("name", "value")
    monkeypatch.undo()
    assert [json.loads(line)["op_code"] for line in journal.read_bytes().splitlines()] == [0, 2]
    assert "No space left on device; waiting for the storage" in lines[0]
    assert "takes" in lines[-1]

    monkeypatch.setenv(RETRY_VARIABLE, "0")
    monkeypatch.setattr("tune.storage.retry.os.write", lambda *_: 0)
    with pytest.raises(StorageError, match="make room"):
        study.set_user_attr("name", "other")
    monkeypatch.undo()
    assert load_study(journal).user_attrs == {"name": "value"}
