"""`decisions.jsonl`: written before anything is done about it, read by all."""

from __future__ import annotations

from pathlib import Path

import pytest

from macil.errors import DataError
from tune.storage.decisions import decide, read_decisions, trials_ended
from tune.storage.run_folder import Workspace


def test_decisions_are_read_as_they_were_made(tmp_path: Path) -> None:
    run = Workspace(tmp_path)
    assert read_decisions(tmp_path) == []
    assert trials_ended([]) is None
    ended = decide(run, "end", "--hours 2", 7)
    assert trials_ended(read_decisions(tmp_path)) == ended
    extended = decide(run, "extend", "--trials 12", 12, opened=True)
    assert read_decisions(tmp_path) == [ended, extended]
    assert trials_ended(read_decisions(tmp_path)) is None, "they go on"
    assert ended.text == f"--hours 2 ended the trials on {ended.time}, when 7 trials had begun."
    assert extended.text == (
        f"--trials 12 extended the search to 12 trials on {extended.time} after test labels had been opened: a choice "
        "that test numbers may have led to."
    )


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"format_version": 1, "kind": "guess"}', '{"format_version": 9}']
)
def test_a_damaged_line_is_refused_by_a_run_and_left_out_by_a_report(damage: str, tmp_path: Path) -> None:
    made = decide(Workspace(tmp_path), "end", "--finish", 3)
    file = tmp_path / "decisions.jsonl"
    file.write_text(file.read_text() + damage + "\n")
    with pytest.raises(DataError, match=r"decisions\.jsonl line 2"):
        read_decisions(tmp_path)
    problems: list[str] = []
    assert read_decisions(tmp_path, problems) == [made]
    assert len(problems) == 1
