"""What every sampler and every stopping rule keeps to, together: a killed search goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.repository import ROOT
from tests.support.studies import load_study
from tune.algorithms.journal import TRIAL_ID, repair_journal
from tune.algorithms.samplers.registry import SAMPLERS, SamplerName
from tune.algorithms.space import Dimension, Space, active_values
from tune.algorithms.stopping.asha import AshaSettings
from tune.algorithms.stopping.median import MedianSettings
from tune.algorithms.stopping.registry import RULES, StoppingSettings
from tune.algorithms.stopping.rule import Decision
from tune.algorithms.study import SearchStudy
from tune.storage.history import TrialHistory

SPACE: Space = {
    "rate": Dimension(low=0.01, high=10.0, log=True),
    "layers": Dimension(low=1, high=9, step=2),
    "kind": Dimension(choices=("a", "b")),
    "extra": Dimension(low=0.0, high=1.0, when={"kind": ("b",)}),
}
# The first is a whole configuration, the second a part of one.
INITIAL: tuple[Mapping[str, Any], ...] = ({"rate": 1.0, "layers": 3, "kind": "a"}, {"kind": "b"})
TRIALS, STARTUP, EPOCHS, FAILS = 8, 5, 6, 3
STOPPING: dict[str, StoppingSettings | None] = {
    "none": None,
    "asha": AshaSettings(grace=2),
    "median": MedianSettings(grace=2, others=2),
}


class KilledError(Exception):
    """The process of the search is killed."""


class Search:
    """A search as its driver sees it, one trial at a time; what it logs outlives it, as the trials' folders do."""

    def __init__(self, journal: Path | None, sampler: SamplerName, stopping: str, seed: int = 0) -> None:
        self.journal, self.sampler, self.stopping, self.seed = journal, sampler, STOPPING[stopping], seed
        self.histories: dict[int, TrialHistory] = {}
        self.steps = 0

    def run(self, kill_at: int | None = None, trials: int = TRIALS) -> None:
        """Train what is left, until the step `kill_at`."""
        if self.journal is not None:
            repair_journal(self.journal)
        study = SearchStudy(
            SPACE,
            self.journal,
            sampler=self.sampler,
            seed=self.seed,
            epochs=EPOCHS,
            startup=STARTUP,
            initial=INITIAL,
            histories=self.histories,
        )
        rule = self.stopping and self.stopping.make(EPOCHS)
        for history in self.histories.values():
            if rule:
                rule.recall(history.name, history.scores, history.epochs, ended=history.done)
        for number in range(study.rows - study.open_rows, trials):
            self._step(kill_at)
            suggestion = study.suggest(f"t{number}")
            history = self.histories.setdefault(
                suggestion.number, TrialHistory(f"{suggestion.number:05d}", params=dict(suggestion.params))
            )
            assert history.params == suggestion.params
            score, decision = None, Decision.CONTINUE
            # From its newest checkpoint, two epochs ago: what was logged is trained again.
            for epoch in range(max(1, history.epochs - 1), EPOCHS + 1):
                self._step(kill_at)
                if suggestion.number == FAILS and epoch == 2:
                    study.end(f"t{number}", epoch, None, "it was to fail")
                    break
                score = quality(suggestion.params, epoch)
                decision = rule.observe(history.name, epoch, score) if rule else Decision.CONTINUE
                done = epoch == EPOCHS or decision is Decision.STOP
                history = self._log(history, epoch, score, done=done)
                study.report(f"t{number}", epoch, score)
                if done:
                    self._step(kill_at)
                    study.end(f"t{number}", epoch, score)
                    break

    def _log(self, history: TrialHistory, epoch: int, score: float, *, done: bool) -> TrialHistory:
        scores = {epoch: score, **history.scores}
        found = replace(history, epochs=len(scores), scores=scores, done=done, saved=done)
        if epoch > history.epochs:
            self.histories[int(history.name)] = found
            return found
        assert history.scores[epoch] == score
        return history

    def _step(self, kill_at: int | None) -> None:
        self.steps += 1
        if self.steps == kill_at:
            raise KilledError

    @property
    def decided(self) -> list[tuple[Mapping[str, Any], int]]:
        """Of every trial what was suggested, and how many epochs it was given."""
        return [(history.params, history.epochs) for _, history in sorted(self.histories.items())]


def quality(params: Mapping[str, Any], epoch: int) -> float:
    """A running best that rises with the epochs."""
    distance = (
        abs(params["rate"] - 1) / (1 + params["rate"])
        + abs(params["layers"] - 5) / 8
        + params.get("extra", 0.2)
    )
    return round((1 - distance / 3) * epoch / (epoch + 1), 9)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Search]:
    """Every pair, undisturbed."""
    searches: dict[tuple[str, str], Search] = {}
    for sampler in SAMPLERS:
        for stopping in STOPPING:
            journal = tmp_path_factory.mktemp(f"{sampler}-{stopping}") / "study.journal"
            searches[sampler, stopping] = Search(journal, sampler, stopping)
            searches[sampler, stopping].run()
    return searches


PAIRS = [
    pytest.param(sampler, stopping, id=f"{sampler}-{stopping}")
    for sampler in SAMPLERS
    for stopping in STOPPING
]


def test_every_rule_is_tried() -> None:
    assert set(STOPPING) == {"none", *RULES}
    assert all(settings is None or settings.rule == name for name, settings in STOPPING.items())


@pytest.mark.parametrize(("sampler", "stopping"), PAIRS)
def test_a_killed_search_goes_on_as_if_nothing_had_happened(
    sampler: SamplerName, stopping: str, unbroken: dict[tuple[str, str], Search], tmp_path: Path
) -> None:
    """Killed again and again: before a suggestion, within a trial, between its last epoch and the study."""
    whole = unbroken[sampler, stopping]
    search = Search(tmp_path / "study.journal", sampler, stopping)
    for share in (0.3, 0.7, 0.95):
        with pytest.raises(KilledError):
            search.run(kill_at=int(share * whole.steps))
        assert search.journal is not None
        content = search.journal.read_bytes()
        search.journal.write_bytes(content[: -9 if share > 0.5 else None])  # a torn end
    search.run()
    assert search.decided == whole.decided
    states = [row.state for row in load_study(tmp_path / "study.journal").trials]
    assert whole.journal is not None
    assert states == [row.state for row in load_study(whole.journal).trials]
    assert states[FAILS].name == "FAIL"


@pytest.mark.parametrize(("sampler", "stopping"), PAIRS)
def test_a_search_stops_what_its_rule_stops_and_suggests_what_the_space_holds(
    sampler: SamplerName, stopping: str, unbroken: dict[tuple[str, str], Search]
) -> None:
    decided = unbroken[sampler, stopping].decided
    assert [dict(INITIAL[0]), "b"] == [decided[0][0], decided[1][0]["kind"]]
    for params, _ in decided:
        assert active_values(SPACE, params) == params
        assert all(SPACE[name].holds(value) for name, value in params.items())
        assert ("extra" in params) == (params["kind"] == "b")
    epochs = [each for _, each in decided]
    assert epochs.pop(FAILS) == 1
    assert (min(epochs) < EPOCHS) == (stopping != "none"), "the example should show it"
    assert max(epochs) == EPOCHS


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_suggestion_is_a_function_of_study_seed_and_number(
    sampler: SamplerName, unbroken: dict[tuple[str, str], Search]
) -> None:
    """In memory as on disk; another seed suggests other points, and so does another number."""
    points = [params for params, _ in unbroken[sampler, "asha"].decided]
    assert len({json.dumps(point, sort_keys=True) for point in points}) == TRIALS
    again, other = Search(None, sampler, "asha"), Search(None, sampler, "asha", seed=1)
    again.run()
    assert [params for params, _ in again.decided] == points
    other.run(trials=4)
    drawn = slice(len(INITIAL), 4)
    assert all(
        params["rate"] != point["rate"]
        for (params, _), point in zip(other.decided[drawn], points[drawn], strict=True)
    )


def test_a_suggestion_does_not_depend_on_threads_or_on_the_process(
    unbroken: dict[tuple[str, str], Search],
) -> None:
    """A process with another order of sets and other threads."""
    own = {sampler: [params for params, _ in unbroken[sampler, "asha"].decided] for sampler in SAMPLERS}
    code = (
        "import json, torch\n"
        f"from {__name__} import SAMPLERS, Search\n"
        "torch.set_num_threads(3)\n"
        "found = {}\n"
        "for sampler in SAMPLERS:\n"
        "    search = Search(None, sampler, 'asha')\n"
        "    search.run()\n"
        "    found[sampler] = [params for params, _ in search.decided]\n"
        "print(json.dumps(found))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == own
    assert done.stderr == "", "nothing is warned of"
    assert torch.get_num_threads() == 1


def test_a_suggestion_from_a_view_is_one_operation_of_the_journal(
    unbroken: dict[tuple[str, str], Search],
) -> None:
    journal = unbroken["gp", "asha"].journal
    assert journal is not None
    made = [line for line in map(json.loads, journal.read_text().splitlines()) if line["op_code"] == 4]
    assert len(made) == TRIALS
    assert all(line["params"] and TRIAL_ID in line["user_attrs"] for line in made)


@pytest.mark.parametrize("stopping", RULES)
def test_logs_imply_what_a_rule_knows(stopping: str, unbroken: dict[tuple[str, str], Search]) -> None:
    """Recalled in any order, a rule decides on every later trial as the one that saw all of them."""
    settings = STOPPING[stopping]
    assert settings is not None
    histories = list(unbroken["qmc", "none"].histories.values())
    seen, recalled = settings.make(EPOCHS), settings.make(EPOCHS)
    for epoch in range(1, EPOCHS + 1):
        for history in histories:
            if epoch in history.scores:
                seen.observe(history.name, epoch, history.scores[epoch])
    for history in reversed(histories):
        recalled.recall(history.name, history.scores, history.epochs, ended=history.done)
    for number in range(20):
        for epoch in range(1, EPOCHS + 1):
            score = (number / 20) * epoch / (epoch + 1)
            decisions = {rule.observe(f"new {number}", epoch, score) for rule in (seen, recalled)}
            assert len(decisions) == 1
            if decisions == {Decision.STOP}:
                break
        for rule in (seen, recalled):
            rule.forget(f"new {number}")
