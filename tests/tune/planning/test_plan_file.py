"""plan.json: what is recorded is what a resume goes on by, whichever version wrote it; what cannot be read is named."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError, UsageError
from macil.io.files import read_json, write_json_atomic
from tests.support.repository import GOLDEN
from tune.algorithms.space import Dimension
from tune.algorithms.stopping.asha import AshaSettings
from tune.planning import resolve, space
from tune.planning.earlier import flags_of_earlier_version, plan_of_earlier_version
from tune.planning.options import Options
from tune.planning.plan import Plan, read_plan, write_plan
from tune.planning.resources import Machine
from tune.planning.run_spec import RunSpec, TrainingSettings
from tune.results.run_info import usable_info, usable_plan
from tune.storage.run_file import EarlierOptions, RunInfo
from tune.storage.run_folder import Workspace

# What commit 8e21a30 recorded on two CPUs.
EARLIER: dict[str, Any] = read_json(GOLDEN / "plans_without_version.json")
OWN = """
name = "own"
[[rows]]
name = "64"
changes = { batch_size = 64 }
[[rows]]
name = "same"
changes = {}
published_ap = 80.5
source = "here"
"""


def options(kind: str, folder: Path) -> Options:
    (folder / "own.toml").write_text(OWN)
    if kind == "sweep":
        return Options(sweep=str(folder / "own.toml"), seeds=2, hyperparameters={"epochs": 3})
    searched = Options(trials=6, confirm=2, confirm_seeds=3, keep_scores="all", hyperparameters={"ramp": 0.2})
    assert kind == "search"
    return searched


@pytest.mark.parametrize("kind", EARLIER)
def test_a_run_of_the_version_before_goes_on_with_the_plan_that_it_was_begun_with(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the demo of that version began with.
    monkeypatch.setattr(resolve, "_DEMO_START", {"epochs": 20, "batch_size": 16})
    planned = resolve.resolve_plan(options(kind, tmp_path), Machine(2, 0))
    write_json_atomic(tmp_path / "plan.json", EARLIER[kind]["plan"])
    recorded = EarlierOptions(**EARLIER[kind]["options"])
    assert read_plan(tmp_path) is None
    if kind == "search":  # widths were choices
        width = Dimension(choices=(64, 128, 256))
        planned = planned.model_copy(update={"space": planned.space | {"hidden_dim": width}})
    # A third of the trials, 3 to 10, were random.
    planned = planned.model_copy(update={"startup": min(10, max(3, planned.trials // 3))})
    assert plan_of_earlier_version(tmp_path, recorded) == planned
    flags = {**options(kind, tmp_path).flags(), **planned.flags()}
    earlier = flags_of_earlier_version(recorded)
    # It had neither samplers nor the name of a rule.
    assert earlier.pop("--asha") == (flags.pop("--stopping") == "asha")
    assert flags.pop("--sampler", "tpe") == "tpe"
    assert flags.pop("--split-by") == "source"
    assert {**earlier, "--sweep": None} == {**flags, "--sweep": None}


@pytest.mark.parametrize("lost", ["lockstep", "rows", "space", "refit_cpus", "options"])
def test_a_run_of_a_version_further_back_is_refused_by_name(lost: str, tmp_path: Path) -> None:
    run = tmp_path / "old-one"
    run.mkdir()
    plan = {name: each for name, each in EARLIER["search"]["plan"].items() if name != lost}
    recorded = {name: each for name, each in EARLIER["search"]["options"].items() if name != lost}
    write_json_atomic(run / "plan.json", plan)
    with pytest.raises(
        UsageError, match="--resume old-one: the run was begun by an earlier version"
    ) as caught:
        plan_of_earlier_version(run, None if lost == "options" else EarlierOptions(**recorded))
    assert "resume it with that version, or begin a new run" in str(caught.value)
    assert lost == "options" or lost in str(caught.value)


def test_options_of_an_earlier_version_that_are_no_options_are_a_fault_of_run_json() -> None:
    content = {"format_version": 1, "options": {"data": None, "hyperparameters": 3}}
    with pytest.raises(DataError, match=r"run\.json is damaged") as caught:
        RunInfo.parse(content, "run.json")
    assert caught.value.problems[0].startswith("options.hyperparameters = 3")


def test_a_run_of_the_version_before_goes_on_with_its_own_space(tmp_path: Path) -> None:
    plan = EARLIER["search"]["plan"]
    write_json_atomic(
        tmp_path / "plan.json", plan | {"space": plan["space"] | {"momentum": "0.5 to 1, linear"}}
    )
    resumed = plan_of_earlier_version(tmp_path, EarlierOptions(**EARLIER["search"]["options"]))
    assert resumed.space["momentum"] == Dimension(low=0.5, high=1.0)
    assert resumed.space["hidden_dim"] == Dimension(choices=(64, 128, 256))


def test_a_recorded_plan_takes_up_no_new_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = resolve.resolve_plan(Options(), Machine(2, 0))
    write_plan(tmp_path, planned)
    monkeypatch.setattr(resolve, "RULES", {"asha": partial(AshaSettings, reduction=4)})
    monkeypatch.setattr(resolve, "_GRACE", 1)
    monkeypatch.setattr(space, "default_space", lambda: {"ramp": Dimension(low=0.5, high=0.6)})
    monkeypatch.setattr(resolve, "STARTUP", 1)
    assert resolve.resolve_plan(Options(), Machine(2, 0)) != planned
    again = read_plan(tmp_path)
    assert again == planned
    assert again is not None
    assert (again.rungs, again.startup, sorted(again.space)) == (
        planned.rungs,
        planned.startup,
        sorted(planned.space),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format_version is 2, this version of macil reads 1"),
        ({"later": 1}, "it has the field 'later', which this version of macil does not know"),
        ({"trials": "ten"}, "trials = 'ten': Input should be a valid integer"),
        ({"base": {"ramp": -1.0}}, "ramp = -1.0 is not allowed: expected a number from 0 to 100"),
        ({"base": 3}, "base = 3"),
        (
            {"space": {"ramp": {"low": 1}}},
            "space.ramp = {'low': 1}: expected low and high, or choices",
        ),
        ({"rows": [{"name": "a", "changes": {"rampp": 1}}]}, "unknown hyperparameter 'rampp'"),
        ({"seeds": [0, -1]}, "seeds.1 = -1"),
    ],
)
def test_what_is_not_as_it_should_be_is_told_with_its_field(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_plan(tmp_path, resolve.resolve_plan(Options(), Machine(2, 0)))
    write_json_atomic(tmp_path / "plan.json", {**read_json(tmp_path / "plan.json"), **changes})
    with pytest.raises(DataError) as caught:
        read_plan(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / "plan.json") in str(caught.value)


def test_a_space_that_was_recorded_as_distributions_of_optuna_goes_on_with_its_own_values(
    tmp_path: Path,
) -> None:
    write_plan(tmp_path, resolve.resolve_plan(Options(), Machine(2, 0)))
    recorded = {
        "lambda_v2b": {
            "name": "FloatDistribution",
            "attributes": {"step": None, "low": 0.25, "high": 4.0, "log": True},
        },
        "hidden_dim": {"name": "CategoricalDistribution", "attributes": {"choices": [64, 128, 256]}},
    }
    write_json_atomic(
        tmp_path / "plan.json", read_json(tmp_path / "plan.json") | {"space": recorded, "first": {}}
    )
    plan = read_plan(tmp_path)
    assert plan is not None
    assert plan.space == {
        "lambda_v2b": Dimension(low=0.25, high=4.0, log=True),
        "hidden_dim": Dimension(choices=(64, 128, 256)),
    }
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan


def test_a_field_that_is_missing_is_told(tmp_path: Path) -> None:
    write_plan(tmp_path, resolve.resolve_plan(Options(), Machine(2, 0)))
    content = read_json(tmp_path / "plan.json")
    del content["lockstep"]
    write_json_atomic(tmp_path / "plan.json", content)
    with pytest.raises(DataError, match="it lacks lockstep"):
        read_plan(tmp_path)


@pytest.mark.parametrize("given", [{}, {"stopping": "none"}, {"sweep": "table3"}])
def test_a_plan_that_knew_asha_alone_is_read(given: dict[str, Any], tmp_path: Path) -> None:
    """As the version wrote it that had neither samplers nor other stopping rules."""
    plan = resolve.resolve_plan(Options(**given), Machine(2, 0))
    write_plan(tmp_path, plan)
    content = read_json(tmp_path / "plan.json")
    stopping = content.pop("stopping")
    assert (stopping is None) == bool(given)
    content["asha"] = stopping and {"grace_period": stopping["grace"], "reduction_factor": 3}
    for later in ("sampler", "enqueued"):
        del content[later]
    write_json_atomic(tmp_path / "plan.json", content)
    assert read_plan(tmp_path) == plan
    content["asha"] = {"grace_period": "x"}
    write_json_atomic(tmp_path / "plan.json", content)
    with pytest.raises(DataError, match="grace"):
        read_plan(tmp_path)


def test_a_resumed_search_stops_trials_by_the_recorded_factor(
    tmp_path: Path, demo_store: FeatureStore
) -> None:
    from tune.execution.batches import trials_batch

    planned = resolve.resolve_plan(Options(protocol="published", stopping="asha"), Machine(2, 0))
    assert planned.stopping is not None
    two = planned.model_copy(update={"stopping": AshaSettings(grace=planned.stopping.grace, reduction=2)})
    made = []
    for plan in (planned, two):
        batch = trials_batch(Workspace(tmp_path), plan, demo_store)
        assert batch.scheduler is not None
        scheduler: Any = batch.scheduler({})
        made.append(list(scheduler.rule.rungs))
    assert made == [[8], [16, 8]]


def test_every_training_setting_reaches_the_trainer_and_is_an_option_or_resolved() -> None:
    """One that is an option needs no line in between: the option, the setting, the argument of `Trainer`."""
    import inspect

    from macil.training.trainer import Trainer

    settings = TrainingSettings.model_fields.keys()
    assert settings <= inspect.signature(Trainer).parameters.keys()
    assert settings <= Plan.model_fields.keys()
    assert settings <= RunSpec.model_fields.keys()
    planned = resolve.resolve_plan(Options(keep_scores="all"), Machine(2, 0))
    assert planned.training_settings()["keep_scores"] == "all"
    assert planned.flags()["--keep-scores"] == "all"


def test_a_specification_of_another_version_is_told() -> None:
    content = {"protocol": "heldout", "device": "cpu", "threads": 1, "base": {}, "store": "/s", "later": True}
    with pytest.raises(DataError) as caught:
        RunSpec.parse(content, "the run specification")
    assert "it has the field 'later'" in str(caught.value)
    assert "it lacks store_hash" in str(caught.value)


def test_a_report_reads_what_is_usable_of_a_plan_and_names_the_rest(tmp_path: Path) -> None:
    planned = resolve.resolve_plan(Options(trials=6), Machine(2, 0))
    write_plan(tmp_path, planned)
    content = read_json(tmp_path / "plan.json")
    problems: list[str] = []
    read = usable_plan(content, problems)
    assert problems == []
    assert read.model_dump() == planned.model_dump()
    # As the version before recorded it.
    earlier = usable_plan(content | {"space": {"ramp": "0.02 to 3, logarithmic"}}, problems)
    assert earlier.space == {"ramp": Dimension(low=0.02, high=3.0, log=True)}
    assert problems == []
    content |= {"seeds": "none", "later": [1], "base": content["base"] | {"gone": 1, "ramp": 0.3}}
    read = usable_plan(content, problems)
    assert read.seeds == ()
    assert read.base == planned.base.replace(ramp=0.3)
    assert [problem.split(" = ")[0] for problem in problems] == [
        "plan.json: base holds ['gone'], which are no hyperparameters; left out",
        "plan.json: seeds",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("anything", "it is no range and no list of whole numbers"),
        ("x to 3, linear", "it is no range and no list of whole numbers"),
        ("1.5 or 2", "it is no range and no list of whole numbers"),
        ("0 to 3, logarithmic", "low = 0 must be above 0 where log is true"),
        ("3 to 3, linear", "low = 3 must be below high = 3"),
        ("nan to nan, linear", "low = nan must be below high = nan"),
        ("96", "choices must be at least two different values"),
    ],
)
def test_a_space_in_words_that_are_none_is_left_out_and_named(text: str, reason: str) -> None:
    problems: list[str] = []
    assert usable_plan({"space": {"ramp": text}}, problems).space == {}
    (problem,) = problems
    assert problem.startswith("plan.json: space = ")
    assert reason in problem


def test_run_json_is_read_strictly_by_the_search_and_leniently_by_a_report(tmp_path: Path) -> None:
    run = Workspace(tmp_path)
    run.update(name="one", status="running")
    run.update(phase="trials", winner={"trial": "00001"})
    assert (run.info.name, run.info.phase) == ("one", "trials")
    assert run.info.winner is not None
    content = json.loads((tmp_path / "run.json").read_text())
    assert set(content) == {"format_version", "name", "status", "phase", "updated", "winner"}
    with pytest.raises(ValueError, match="statsu"):
        run.update(statsu="finished")
    write_json_atomic(tmp_path / "run.json", content | {"phase": 3, "later": 1})
    with pytest.raises(DataError) as caught:
        run.update(status="finished")
    assert "phase = 3" in str(caught.value)
    assert "it has the field 'later'" in str(caught.value)
    problems: list[str] = []
    read = usable_info(content | {"phase": 3, "later": 1}, problems)
    assert read.model_dump(mode="json", exclude_unset=True) == {
        name: each for name, each in content.items() if name != "phase"
    }
    assert [problem.split(" is of no use")[0] for problem in problems] == [
        "run.json: ['later'] are no fields of this version; left out",
        "run.json: phase = 3",
    ]
