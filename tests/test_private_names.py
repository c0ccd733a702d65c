"""What is used of Optuna and Ray beside their documented interfaces: in one file each, and checked by name."""

from __future__ import annotations

import re

import pytest
from optuna.trial import Trial

from macil.errors import MacilError
from tests.support.repository import ROOT
from tune.algorithms import optuna_internals
from tune.algorithms.private_names import require_names


def test_a_version_of_optuna_without_a_name_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "__init__", lambda self: None)
    monkeypatch.setattr("tune.algorithms.private_names.metadata.version", lambda _: "6.1.0")
    with pytest.raises(MacilError) as raised:
        optuna_internals.check()
    assert str(raised.value) == (
        "Optuna 6.1.0 has no optuna.trial.Trial._trial_id: this program relies on what Optuna does not promise to "
        "keep. It is known to work with Optuna 5.0.0; install that version (constraints.txt names those of all "
        "libraries): pip install 'optuna==5.0.0'"
    )


@pytest.mark.parametrize(
    "name",
    [
        "optuna.no_such_module.name",
        "optuna.trial.NoSuchClass.name",
        "optuna.trial.Trial._no_such_name",
        "optuna.trial.Trial.report(…, no_such_argument)",
    ],
)
def test_a_module_a_class_a_name_and_an_argument_are_looked_for(name: str) -> None:
    there = ["optuna.trial.Trial._trial_id", "optuna.trial.Trial.report(…, step)", "optuna.trial.Trial"]
    require_names("optuna", there, "5.0.0")
    with pytest.raises(MacilError, match=re.escape(f"has no {name}: ")):
        require_names("optuna", [*there, name], "5.0.0")


def test_the_versions_that_are_known_to_work_are_those_that_are_tested() -> None:
    pinned = dict(
        line.split("==", 1) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    assert pinned["optuna"].strip() == optuna_internals.KNOWN
