from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from macil.config import PRESETS, TrialConfig, hyperparameters
from macil.data.split import Split
from macil.errors import DataError, UsageError
from macil.training.equivalence import training_key
from tune.planning import paper_sweeps as sweeps
from tune.planning.advice import distinct_points
from tune.planning.options import Options
from tune.planning.paper_sweeps import SWEEPS
from tune.planning.plan import Plan, read_plan, write_plan
from tune.planning.resolve import check_resources, resolve_plan
from tune.planning.resources import Machine
from tune.planning.run_spec import compose_config
from tune.planning.space import published_point, search_space
from tune.planning.space_file import default_space

TWO_CORES = Machine(cpus=2, gpus=0)


def plan(machine: Machine | None = TWO_CORES, **options: Any) -> Plan:
    return resolve_plan(Options(**options), machine)


def test_the_default_search_is_the_demo_on_all_cores() -> None:
    default = plan()
    assert (default.trials, default.base.epochs, default.protocol) == (10, 16, "heldout")
    assert (default.concurrent, default.cpus_per_trial, default.threads, default.device) == (2, 1.0, 1, "cpu")
    assert default.refits
    assert default.base == TrialConfig(epochs=16, batch_size=32)
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
        (Machine(8, 0), {"concurrent": 1}, (1, 8.0, 0.0)),
        (Machine(8, 0), {"concurrent": 3}, (3, 2.0, 0.0)),
        (Machine(8, 0), {"concurrent": 99, "trials": 2}, (2, 4.0, 0.0)),
        (Machine(8, 2), {"concurrent": 1}, (1, 8.0, 1.0)),
        (None, {"gpus_per_trial": 1.0}, (10, 1.0, 1.0)),
    ],
)
def test_resources_fit_the_machine(
    machine: Machine | None, options: dict[str, Any], expected: tuple[int, float, float]
) -> None:
    resolved = plan(machine, **options)
    assert (resolved.concurrent, resolved.cpus_per_trial, resolved.gpus_per_trial) == expected


@pytest.mark.parametrize("share", [1e-310, 0.00005, 1e6, 1e300, float("inf"), float("nan")])
def test_shares_that_ray_cannot_count_in_are_refused(share: float) -> None:
    with pytest.raises(
        UsageError, match=r"--cpus-per-trial .* is not allowed: expected a number from 0\.0001 to"
    ):
        plan(cpus_per_trial=share)
    with pytest.raises(UsageError, match=r"--gpus-per-trial .* is not allowed: expected 0, a fraction"):
        plan(Machine(2, 1), gpus_per_trial=share)


def test_impossible_resources_are_refused_by_flag() -> None:
    with pytest.raises(UsageError, match=r"--gpus-per-trial 1: here has no GPU"):
        check_resources(plan(gpus_per_trial=1.0), TWO_CORES, "here")
    with pytest.raises(UsageError, match=r"--cpus-per-trial 3: here has 2 CPU"):
        check_resources(plan(cpus_per_trial=3.0), TWO_CORES, "here")


@pytest.mark.parametrize(
    "options",
    [
        {"trials": 6, "hyperparameters": {"ramp": 0.2}},
        {"trials": 3},
        {"sweep": "table3", "seeds": 2},
        {"sweep": "hidden", "stopping": "asha", "grace": 4},
        {"trials": 6, "confirm": 2, "confirm_seeds": 3, "keep_scores": "all"},
    ],
)
def test_a_recorded_plan_is_read_back_as_it_was(options: dict[str, Any], tmp_path: Path) -> None:
    planned = plan(**options)
    write_plan(tmp_path, planned)
    assert read_plan(tmp_path) == planned


def test_asha_leaves_room_for_lambda_or_says_so() -> None:
    assert plan(data="/data").grace == 15
    roomy = plan(hyperparameters={"ramp": 2.0})
    assert roomy.base.ramp * (roomy.grace or 0) >= 4.0
    assert not roomy.notes
    assert plan(stopping="none").grace is None
    assert plan(stopping="none").rungs == []
    assert plan(data="/data").rungs == [15, 45]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data": "/d"},
        {"trials": 3, "stopping": "asha"},
        {"data": "/d", "hyperparameters": {"epochs": 90}},
    ],
)
def test_the_defaults_and_what_leaves_more_room_need_no_warning(options: dict[str, Any]) -> None:
    assert plan(**options).notes == ()


@pytest.mark.parametrize(
    ("options", "reached", "ramp"),
    [
        ({"hyperparameters": {"epochs": 6}}, 0.2, "after 3 epochs, {} with the paper's r = 0.1"),
        ({"grace": 1}, 0.0, "after 1 epoch, {} with the paper's r = 0.1"),
        ({"data": "/d", "hyperparameters": {"ramp": 0.1}}, 1.4, "after 15 epochs, {} with r = 0.1"),
    ],
)
def test_options_that_make_asha_compare_equal_trainings_are_told(
    options: dict[str, Any], reached: float, ramp: str
) -> None:
    resolved = plan(**options)
    (note,) = resolved.notes
    assert ramp.format(f"in which λ = r t reaches {reached:g}") in note

    def key(bound: float) -> object:
        return training_key(resolved.base.replace(epochs=resolved.grace, lambda_v2b=bound, lambda_v2n=1.0))

    assert key(reached + 0.01) == key(4.0), "as it says"
    assert not reached or key(reached - 0.01) != key(4.0)


def test_asha_compares_nothing_equal_where_lambda_is_not_searched() -> None:
    assert plan(grace=1, hyperparameters={"lambda_v2b": 1.0, "lambda_v2n": 2.0}).notes == ()


ALL_BUT_WIDTH = {"lambda_v2b": 1.0, "lambda_v2n": 1.0, "ramp": 0.1, "temperature": 0.1, "momentum": 0.9}


@pytest.mark.parametrize(
    ("fixed", "trials", "message"),
    [
        (ALL_BUT_WIDTH, 40, "only 4 distinct points in 16 epochs, fewer than the 40 trials"),
        (ALL_BUT_WIDTH, 40, "at least 36 trials repeat another's training"),
        (ALL_BUT_WIDTH, 5, "at least 1 trial repeats"),
        (ALL_BUT_WIDTH, 4, None),
        # λ is 0 in the first epoch, whatever Λ, r and τ are: only the widths differ.
        ({"epochs": 1, "momentum": 0.9}, 5, "only 4 different trainings in 1 epoch"),
        ({"epochs": 1, "momentum": 0.9, "hidden_dim": 64}, 2, "only 1 training in 1 epoch"),
        ({"epochs": 2, "momentum": 0.9}, 40, None),
        ({"hidden_dim": 64}, 100, None),
    ],
)  # fmt: skip
def test_a_space_that_holds_fewer_trainings_than_trials_is_told(
    fixed: dict[str, Any], trials: int, message: str | None
) -> None:
    notes = [
        note
        for note in plan(trials=trials, stopping="none", hyperparameters=fixed).notes
        if "space holds" in note
    ]
    assert len(notes) == (message is not None)
    assert message is None or message in notes[0]


def test_a_continuous_space_holds_any_number_of_points() -> None:
    assert distinct_points(plan().space) is None


def test_fixed_and_inert_hyperparameters_leave_the_space() -> None:
    assert plan().space.keys() == default_space().keys()
    assert "ramp" not in plan(hyperparameters={"ramp": 0.3}).space
    assert "momentum" not in plan(base=PRESETS["light"]).space
    without = plan(hyperparameters={"contrast": False}).space
    assert tuple(without) == ("momentum", "hidden_dim")
    with pytest.raises(UsageError, match="nothing is left to search"):
        plan(hyperparameters={name: getattr(TrialConfig(), name) for name in default_space()})


def test_the_space_lies_within_what_a_configuration_accepts_and_holds_the_published_point() -> None:
    space = search_space(TrialConfig())
    limits = {parameter.name: parameter for parameter in hyperparameters()}
    for name, dimension in space.items():
        low, high = limits[name].low, limits[name].high
        values: Any = dimension.choices or (dimension.low, dimension.high)
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
    rows = tuple(row.model_copy(update={"published_ap": 99.99}) for row in SWEEPS[name].rows)
    changed = MappingProxyType({**SWEEPS, name: SWEEPS[name].model_copy(update={"rows": rows})})
    monkeypatch.setattr(sweeps, "SWEEPS", changed)
    monkeypatch.setattr("tune.planning.sweep_file.SWEEPS", changed)
    after = plan(sweep=name, seeds=3)
    assert after.rows != before.rows

    def trained(which: Plan) -> list[TrialConfig]:
        assert which.rows
        return [
            compose_config(which.base, {"row": {"name": row.name, "changes": row.changes}, "seed": seed})
            for row in which.rows
            for seed in which.seeds
        ]

    assert trained(after) == trained(before)
    assert len({config.model_dump_json() for config in trained(before)}) == before.trials
    assert after.model_copy(update={"rows": before.rows}) == before


def test_a_workspace_tells_runs_from_other_folders(tmp_path: Path) -> None:
    from tune.storage.run_folder import locked, new_workspace

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


def test_the_refit_uses_what_the_trials_leave_free() -> None:
    first = plan(data="/data", trials=8)
    assert (first.threads, first.refit_threads) == (1, 2)
    assert plan(data="/data", seeds=2).refit_threads == 1
    assert plan(data="/data", cpus_per_trial=1.0).refit_threads == 1
    assert "--refit-cpus" not in first.flags()
    with pytest.raises(UsageError, match="planned with 2"):
        check_resources(first, Machine(cpus=1, gpus=0), "here")


@pytest.mark.parametrize("name", list(SWEEPS))
def test_the_reference_row_of_a_sweep_is_the_papers_setting(name: str) -> None:
    sweep = SWEEPS[name]
    row = next(row for row in sweep.rows if row.name == sweep.reference)
    assert TrialConfig().replace(**row.changes) == TrialConfig()
    assert row.published_ap == 83.40
    assert all((row.published_ap is None) == (row.source is None) for row in sweep.rows)


def test_sweeps_of_one_hyperparameter_vary_nothing_else() -> None:
    assert [dict(row.changes) for row in SWEEPS["hidden"].rows] == [
        {"hidden_dim": width} for width in (32, 64, 128, 256)
    ]
    assert [set(row.changes) for row in SWEEPS["tau"].rows] == [{"temperature"}] * 6
    values = [row.changes["momentum"] for row in SWEEPS["figure3"].rows]
    assert values == [0.81, 0.83, 0.85, 0.87, 0.89, 0.91, 0.93, 0.95, 0.97, 0.99, 1.0]


@pytest.mark.parametrize(
    ("epochs", "groups"),
    [
        # λ is 0 in the first epoch: no row differs.
        (1, "01 = 02 = 03 = 04 = 05 = 06 = 07 = 08 = 09 = 10 = 11 = 12"),
        # r = 3.0 is at its Λ at once; 0.3 has reached 0.9; 0.1 only 0.3.
        (4, "01 = 04 = 07 = 10; 02 = 05 = 08 = 11"),
        (11, "01 = 04 = 07 = 10"),
        (12, None),
    ],
)
def test_rows_that_are_the_same_training_are_told(epochs: int, groups: str | None) -> None:
    notes = plan(sweep="table4", hyperparameters={"epochs": epochs}).notes
    found = [note for note in notes if "rows that are the same training" in note]
    if groups is None:
        assert not found
    else:
        assert found == [
            f"rows that are the same training in {epochs} epochs: {groups}; raise --epochs to tell them apart"
        ]


def test_a_sweep_may_be_stopped_early_and_says_what_that_costs() -> None:
    assert plan(sweep="table4").grace is None
    stopped = plan(sweep="table4", stopping="asha")
    assert stopped.grace == 8
    assert any("enter no mean" in note for note in stopped.notes)
    assert any("by their test AP" in note for note in stopped.notes)
    assert any("when ASHA first compares them: 01 = 04" in note for note in stopped.notes)
    heldout = plan(sweep="table4", stopping="asha", protocol="heldout").notes
    assert any("enter no mean" in note for note in heldout)
    assert not any("by their test AP" in note for note in heldout)


@pytest.mark.parametrize(
    "options",
    [{"sweep": "table4"}, {"stopping": "none"}, {"trials": 3}, {"sweep": "tau", "stopping": "none"}],
)
def test_grace_is_refused_where_nothing_is_stopped(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"--grace belongs to a rule .* give --stopping asha or median"):
        plan(**options, grace=3)


def test_a_split_seed_is_refused_where_nothing_is_split() -> None:
    published: list[dict[str, Any]] = [{"sweep": "table4"}, {"protocol": "published"}]
    for options in published:
        with pytest.raises(UsageError, match="--split-seed belongs to --protocol heldout"):
            plan(**options, split_seed=1)
    assert plan(sweep="table4", protocol="heldout", split_seed=1).split_seed == 1


def test_confirmation_seeds_are_none_that_the_run_trains_with() -> None:
    confirmed = plan(confirm=3)
    assert confirmed.confirm_seeds == (1000, 1001, 1002, 1003, 1004)
    assert confirmed.most_epochs == (10 + 1 + 4 * 5) * 16
    many = plan(confirm=1, confirm_seeds=2, seeds=1500)
    assert many.confirm_seeds == (2000, 2001)
    assert not set(many.confirm_seeds) & set(many.seeds)
    assert plan().confirm_seeds == ()
    for options, message in (
        ({"confirm": 11}, "--confirm 11 is more than the 10 configurations"),
        ({"confirm": 0}, "--confirm 0 is not allowed"),
        ({"confirm_seeds": 3}, "--confirm-seeds belongs to --confirm"),
        ({"confirm": 2, "sweep": "table3"}, "--confirm belongs to a search"),
        ({"confirm": 2, "hyperparameters": {"seed": 2**31 - 1}}, "no 5 seeds are left"),
    ):
        with pytest.raises(UsageError, match=message):
            plan(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"seeds": 3, "hyperparameters": {"seed": 2**31 - 2}},
            "--seeds 3: not as many are left from 2147483646",
        ),
        ({"split_seed": 2**32}, "--split-seed 4294967296 is not allowed"),
        ({"search_seed": -1}, "--search-seed -1 is not allowed"),
    ],
)
def test_seeds_beyond_the_range_of_seeds_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(**options)
    assert plan(seeds=2, split_seed=2**31 - 1, hyperparameters={"seed": 2**31 - 2}).seeds[1] == 2**31 - 1


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_that_no_trial_can_exceed_or_keep_is_refused(seconds: float) -> None:
    with pytest.raises(UsageError, match=r"--trial-timeout \S+: expected a number of seconds, more than 0"):
        resolve_plan(Options(trial_timeout=seconds), Machine(2, 0))


def test_a_split_is_given_or_made_and_only_where_one_is_held_out(tmp_path: Path) -> None:
    file = tmp_path / "split.json"
    Split(("a", "b"), ("c",), 7).save(file)
    plan = resolve_plan(Options(split=str(file)), TWO_CORES)
    assert plan.split_seed == 7
    assert f"--split {file}: 1 video held out, 2 trained on (hash {str(plan.split_hash)[:8]})" in plan.notes
    for others, message in (
        ({"split_seed": 1}, "--split-seed makes a split, and --split"),
        ({"split_by": "video"}, "--split-by makes a split, and --split"),
        ({"protocol": "published"}, "--split belongs to --protocol heldout"),
        ({"sweep": "table3"}, "--split belongs to --protocol heldout"),
    ):
        with pytest.raises(UsageError, match=message):
            resolve_plan(Options(split=str(file), **others), TWO_CORES)
    with pytest.raises(DataError, match=r"--split: .*nowhere\.json"):
        resolve_plan(Options(split=str(tmp_path / "nowhere.json")), TWO_CORES)
