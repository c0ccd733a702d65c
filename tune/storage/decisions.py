"""`decisions.jsonl`: what was decided of a run and no log implies, a line each, written before it is acted upon."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from macil.errors import DataError
from macil.io.files import write_text_atomic
from macil.io.formats import FileFormat
from macil.io.reading import parse_json, read_text
from macil.io.wording import now, plural
from tune.storage.names import DECISIONS_FILE
from tune.storage.run_file import Count
from tune.storage.run_folder import Workspace

FORMAT_VERSION: Literal[1] = 1


class Decision(FileFormat):
    """A line of the file.

    Attributes:
        time: When, in UTC.
        kind: `end`: no trial begins or goes on any more. `extend`: the search goes on to more trials.
        flag: The option that decided it, with its value.
        trials: Begun until then; of an extension the number that the search is to have from then on.
        opened: Of an extension: test labels had been read, so that it may be the choice of somebody who knows results.
    """

    WHAT: ClassVar[str] = "a decision of a run"

    format_version: Literal[1] = FORMAT_VERSION
    time: str
    kind: Literal["end", "extend"]
    flag: str
    trials: Count
    opened: bool = False

    @property
    def text(self) -> str:
        """The decision in a sentence."""
        if self.kind == "end":
            return (
                f"{self.flag} ended the trials on {self.time}, when {plural(self.trials, 'trial')} had begun."
            )
        after = " after test labels had been opened: a choice that test numbers may have led to" * self.opened
        return f"{self.flag} extended the search to {plural(self.trials, 'trial')} on {self.time}{after}."


def read_decisions(run: Path, problems: list[str] | None = None) -> list[Decision]:
    """The decisions, oldest first; none without the file.

    Args:
        run: The run's folder.
        problems: Where to say what is damaged; such lines are left out.

    Raises:
        DataError: A line is damaged, and there is no `problems`.
    """
    path = run / DECISIONS_FILE
    try:
        lines = read_text(path, errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(lines, start=1):
        where = f"{path} line {number}"
        try:
            try:
                found.append(Decision.parse(parse_json(line), where))
            except (ValueError, RecursionError):
                raise DataError(f"{where} is damaged: it is no JSON") from None
        except DataError as error:
            if problems is None:
                raise
            problems.append(" ".join([error.message, *error.problems]))
    return found


def decide(
    run: Workspace, kind: Literal["end", "extend"], flag: str, trials: int, *, opened: bool = False
) -> Decision:
    """Write a decision down, in the bucket of the run too."""
    before = read_decisions(run.path)
    decision = Decision(time=now(), kind=kind, flag=flag, trials=trials, opened=opened)
    lines = [json.dumps(each.model_dump(mode="json")) for each in (*before, decision)]
    write_text_atomic(run.path / DECISIONS_FILE, "".join(f"{line}\n" for line in lines))
    run.sync.flush()
    return decision


def trials_ended(decisions: Sequence[Decision]) -> Decision | None:
    """The decision that ended the trials; None where none did, or the search was extended since."""
    last = decisions[-1] if decisions else None
    return last if last is not None and last.kind == "end" else None
