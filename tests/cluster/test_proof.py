"""The proof of a disturbed search finds what it is to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from macil.io.files import write_json_atomic
from tests.cluster.proof import assert_decisions
from tests.cluster.searching import Line


def test_a_stop_that_the_rungs_do_not_explain_is_found(tmp_path: Path) -> None:
    """A trial is stopped below the best third of those before it; which of two came first in one look is open."""
    write_json_atomic(
        tmp_path / "plan.json", {"base": {"epochs": 20}, "stopping": {"rule": "asha", "grace": 4}}
    )

    def line(trial: int, look: int, score: float, done: bool) -> Line:
        content = {"selection_score": score, "done": done, "diverged": False}
        return Line(f"trials/{trial:05d}", 4, 0.0, look, content)

    good, better = line(0, 10, 0.5, done=False), line(1, 20, 0.6, done=False)
    assert_decisions(tmp_path, [good, better, line(2, 30, 0.1, done=True)])
    assert_decisions(tmp_path, [good, line(1, 11, 0.4, done=True)])
    with pytest.raises(AssertionError):  # goes on as if the rung were empty
        assert_decisions(tmp_path, [good, line(1, 20, 0.4, done=True), line(2, 30, 0.1, done=False)])
    with pytest.raises(AssertionError):  # stopped although it is the best
        assert_decisions(tmp_path, [good, line(2, 30, 0.7, done=True)])
    first = [line(0, 10, 0.5, done=False), line(1, 10, 0.4, done=False), line(2, 30, 0.1, done=True)]
    assert_decisions(tmp_path, first)  # the second may have come first
