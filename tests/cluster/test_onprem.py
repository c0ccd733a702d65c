"""`ray up` with cluster-onprem.yaml on machines of namespaces: a sweep on two workers; `ray down` leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.onprem import FILE, TRIALS, Machines, has_job_client, prove, tools_missing

_MISSING = tools_missing()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.nightly,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(_MISSING is not None, reason=f"no machines of namespaces: {_MISSING}"),
]


def test_a_sweep_runs_on_machines_of_ones_own_and_nothing_is_left_on_them(tmp_path: Path) -> None:
    with Machines(tmp_path / "lab") as machines:
        outcome = prove(machines)
    commands = [step.command for step in outcome.steps]
    wanted = [
        "ray get-auth-token",
        "ray up",
        "ray exec",
        "ray rsync-down",
        "ray submit",
        "ray up",
        "ray down",
    ]
    left = iter(commands)
    assert all(any(command.startswith(word) for command in left) for word in wanted), commands
    assert all(step.asserted for step in outcome.steps)
    assert len(outcome.trials) == 2
    assert sum(outcome.trials.values()) == TRIALS
    assert outcome.left == {"laptop": [], "head": [], "one": [], "two": []}
    assert f"ray down -y {FILE}" in commands
    submitted = any("ray job submit" in command for command in commands)
    assert submitted == has_job_client(machines.environment)
