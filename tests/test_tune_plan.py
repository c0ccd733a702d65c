from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from macil.config import PRESETS, TrialConfig, hyperparameters
from macil.errors import UsageError
from tune import sweeps
from tune.machine import Machine
from tune.plan import Options, Plan, check_resources, resolve_plan
from tune.space import SEARCHABLE, published_point, search_space
from tune.sweeps import SWEEPS
from tune.trainable import trial_config

TWO_CORES = Machine(cpus=2, gpus=0)


def plan(machine: Machine | None = TWO_CORES, **options: Any) -> Plan:
    return resolve_plan(Options(**options), machine)


def test_the_default_search_is_the_demo_on_all_cores() -> None:
    default = plan()
    assert (default.trials, default.base.epochs, default.protocol) == (10, 20, "heldout")
    assert (default.concurrent, default.cpus_per_trial, default.threads, default.device) == (2, 1.0, 1, "cpu")
    assert default.refits
    assert default.base == TrialConfig(epochs=20, batch_size=16)
    assert plan(data="/data").base.epochs == 50


@pytest.mark.parametrize(
    ("machine", "options", "expected"),
    [
        (Machine(16, 0), {"trials": 4}, (4, 4.0, 0.0)),
        (Machine(16, 2), {}, (2, 8.0, 1.0)),
        (Machine(16, 1), {"gpus_per_trial": 0.25}, (4, 4.0, 0.25)),
        (Machine(16, 1), {"gpus_per_trial": 0.0}, (10, 1.0, 0.0)),
        (Machine(2, 0), {"cpus_per_trial": 2.0}, (1, 2.0, 0.0)),
        (Machine(8, 0), {"concurrent": 1, "cpus_per_trial": 1.0}, (1, 1.0, 0.0)),
        (None, {"gpus_per_trial": 1.0}, (10, 1.0, 1.0)),
    ],
)
def test_resources_fit_the_machine(
    machine: Machine | None, options: dict[str, Any], expected: tuple[int, float, float]
) -> None:
    resolved = plan(machine, **options)
    assert (resolved.concurrent, resolved.cpus_per_trial, resolved.gpus_per_trial) == expected


def test_impossible_resources_are_refused_by_flag() -> None:
    with pytest.raises(UsageError, match=r"--gpus-per-trial 1: here has no GPU"):
        check_resources(plan(gpus_per_trial=1.0), TWO_CORES, "here")
    with pytest.raises(UsageError, match=r"--cpus-per-trial 3: here has 2 CPU"):
        check_resources(plan(cpus_per_trial=3.0), TWO_CORES, "here")


@pytest.mark.parametrize(
    "options",
    [{"trials": 6, "hyperparameters": {"ramp": 0.2}}, {"trials": 3}, {"sweep": "table3", "seeds": 2}],
)
def test_a_recorded_plan_resolves_to_itself_on_another_machine(options: dict[str, Any]) -> None:
    first = plan(**options)
    again = resolve_plan(Options.from_dict(asdict(first.options)), Machine(64, 8))
    assert again == first


def test_asha_leaves_room_for_lambda_or_says_so() -> None:
    assert plan(data="/data").grace == 15
    assert any("same" in note or "equal" in note for note in plan().notes)
    roomy = plan(hyperparameters={"ramp": 2.0})
    assert roomy.base.ramp * (roomy.grace or 0) >= 4.0
    assert not roomy.notes
    assert plan(asha=False).grace is None
    assert plan(asha=False).rungs == []
    assert plan(data="/data").rungs == [15, 45]


def test_fixed_and_inert_hyperparameters_leave_the_space() -> None:
    assert tuple(plan().space) == SEARCHABLE
    assert "ramp" not in plan(hyperparameters={"ramp": 0.3}).space
    assert "momentum" not in plan(base=PRESETS["light"].to_dict()).space
    without = plan(hyperparameters={"contrast": False}).space
    assert tuple(without) == ("momentum", "hidden_dim")
    with pytest.raises(UsageError, match="nothing is left to search"):
        plan(hyperparameters={name: getattr(TrialConfig(), name) for name in SEARCHABLE})


def test_the_space_lies_within_what_a_configuration_accepts_and_holds_the_published_point() -> None:
    space = search_space(TrialConfig())
    limits = {parameter.name: parameter for parameter in hyperparameters()}
    for name, distribution in space.items():
        low, high = limits[name].low, limits[name].high
        values = getattr(distribution, "choices", None) or (distribution.low, distribution.high)  # type: ignore[attr-defined]
        assert low is not None
        assert high is not None
        assert low <= min(values) <= max(values) <= high
    assert published_point(space) == {name: getattr(TrialConfig(), name) for name in space}


def test_sweeps_hold_the_papers_rows() -> None:
    table4 = SWEEPS["table4"].rows
    assert [row.published_ap for row in table4] == [
        82.62, 82.67, 82.09, 82.95, 81.37, 82.15, 83.21, 82.62, 81.68, 83.40, 81.61, 82.14,
    ]  # fmt: skip
    assert len({tuple(sorted(row.changes.items())) for row in table4}) == 12
    best = max(table4, key=lambda row: row.published_ap or 0.0)
    assert TrialConfig().replace(**best.changes) == TrialConfig()
    # Rows 4 to 6: the first column of the table, called Λ_v2a there and Λ_v2n in the text, is 1.5.
    assert dict(table4[4].changes) == {"lambda_v2n": 1.5, "lambda_v2b": 1.0, "ramp": 0.3}
    table3 = SWEEPS["table3"].rows
    assert [(row.name, row.published_ap) for row in table3] == [
        ("two-stream", 71.37),
        ("two-stream+sd", 74.01),
        ("light", 82.17),
        ("full", 83.40),
    ]
    for row in table3:
        assert TrialConfig().replace(**row.changes) == PRESETS[row.name]


@pytest.mark.parametrize("name", list(SWEEPS))
def test_changing_a_published_number_changes_no_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan(sweep=name, seeds=3)
    rows = tuple(replace(row, published_ap=99.99) for row in SWEEPS[name].rows)
    changed = MappingProxyType({**SWEEPS, name: replace(SWEEPS[name], rows=rows)})
    monkeypatch.setattr(sweeps, "SWEEPS", changed)
    monkeypatch.setattr("tune.plan.SWEEPS", changed)
    after = plan(sweep=name, seeds=3)
    assert after.sweep != before.sweep

    def trained(which: Plan) -> list[TrialConfig]:
        assert which.sweep
        return [
            trial_config(
                which.base.to_dict(), {"row": {"name": row.name, "changes": dict(row.changes)}, "seed": seed}
            )
            for row in which.sweep.rows
            for seed in which.seeds
        ]

    assert trained(after) == trained(before)
    assert len({config.model_dump_json() for config in trained(before)}) == before.trials
    assert replace(after, sweep=before.sweep) == before


def test_a_workspace_tells_runs_from_other_folders(tmp_path: Path) -> None:
    from tune.workspace import locked, new_workspace

    run = new_workspace(str(tmp_path), "one", overwrite=False)
    with locked(run):
        run.update(status="running")
        with pytest.raises(UsageError, match="in use by process"), locked(run):
            pass
    with pytest.raises(UsageError, match="exists already"):
        new_workspace(str(tmp_path), "one", overwrite=False)
    assert new_workspace(str(tmp_path), "one", overwrite=True) == run
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(UsageError, match="is not a run"):
        new_workspace(str(tmp_path), "thesis", overwrite=True)


def test_the_refit_uses_what_the_trials_leave_free_and_keeps_it_on_resume() -> None:
    first = plan(data="/data", trials=8)
    assert (first.threads, first.refit_threads) == (1, 2)
    assert plan(data="/data", seeds=2).refit_threads == 1
    assert plan(data="/data", cpus_per_trial=1.0).refit_threads == 1
    resumed = resolve_plan(Options.from_dict(asdict(first.options)), Machine(cpus=8, gpus=0))
    assert resumed.refit_threads == 2
    assert "--refit-cpus" not in first.options.flags()
    with pytest.raises(UsageError, match="planned with 2"):
        check_resources(first, Machine(cpus=1, gpus=0), "here")
