"""The space of a run: what leaves it, what it must not hold, what is refused because it can have no effect."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from macil.config import PRESETS, TrialConfig
from macil.errors import UsageError
from tune.algorithms.space import Dimension
from tune.planning.advice import distinct_points, distinct_trainings
from tune.planning.bags import _batch_sizes
from tune.planning.options import Options
from tune.planning.resolve import resolve_plan
from tune.planning.resources import Machine
from tune.planning.space import published_point, search_space, space_text
from tune.planning.space_file import DEFAULT, default_space
from tune.planning.view import print_plan
from tune.storage.run_folder import Workspace

BASE = TrialConfig(epochs=20)


def write(folder: Path, text: str) -> str:
    (folder / "own.toml").write_text(f"format_version = 1\n{text}")
    return str(folder / "own.toml")


def test_conditions_of_what_is_not_searched_are_settled_by_the_base() -> None:
    assert not any(dimension.when for dimension in search_space(BASE).values())
    assert search_space(BASE).keys() == default_space().keys()
    assert search_space(PRESETS["light"]).keys() == default_space().keys() - {"momentum"}


def test_conditions_of_what_is_searched_stay() -> None:
    space = search_space(BASE, changes=["contrast=true,false"])
    conditional = [name for name, dimension in space.items() if dimension.when]
    assert conditional == ["lambda_v2b", "lambda_v2n", "ramp", "temperature"]
    assert list(space).index("contrast") < min(map(list(space).index, conditional))
    assert published_point(space) == {name: getattr(TrialConfig(), name) for name in space}


def test_a_file_stands_in_place_of_the_default_space(tmp_path: Path) -> None:
    file = write(tmp_path, "[learning_rate]\nlow = 1e-5\nhigh = 1e-2\nlog = true\n")
    assert search_space(BASE, file=file) == {"learning_rate": Dimension(low=1e-5, high=1e-2, log=True)}
    both = search_space(BASE, file=file, changes=["learning_rate=1e-4..1e-3", "ramp=0.1..1"])
    assert both == {
        "learning_rate": Dimension(low=1e-4, high=1e-3),
        "ramp": Dimension(low=0.1, high=1.0),
    }
    assert search_space(BASE, ["learning_rate"], file, ["ramp=0.1..1"]).keys() == {"ramp"}


def test_a_dimension_of_a_file_leaves_where_its_condition_does_not_hold(tmp_path: Path) -> None:
    text = "[ramp]\nlow = 0.1\nhigh = 1\nwhen = { contrast = true }\n[dropout]\nlow = 0\nhigh = 0.5\n"
    file = write(tmp_path, text)
    assert search_space(BASE.replace(contrast=False), file=file).keys() == {"dropout"}
    # What depends on it goes with it, unless the value that stays is the right one.
    chain = "[num_heads]\nchoices = [2, 4]\nwhen = { contrast = false }\n"
    chained = write(tmp_path, f"{text}{chain}[batch_size]\nlow = 8\nhigh = 64\nwhen = {{ num_heads = 2 }}\n")
    assert search_space(BASE, file=chained).keys() == {"ramp", "dropout"}


@pytest.mark.parametrize(
    ("base", "changes", "fault"),
    [
        ({"contrast": False}, ["temperature=0.1..1"], "it is searched only with contrast = true, and contrast is fal"),
        ({"distill": False}, ["visual_learning_rate=1e-5..1e-3:log"], "distill is false"),
        ({"epochs": 1}, ["ramp=0.1..1"], "in 1 epoch, all its values give the same training"),
        ({"dropout": 0.1}, ["dropout_everywhere=true,false"], "in 20 epochs, all its values give the same"),
    ],
)  # fmt: skip
def test_what_can_have_no_effect_is_refused_where_it_is_asked_for(
    base: dict[str, Any], changes: list[str], fault: str, tmp_path: Path
) -> None:
    name, _, _ = changes[0].partition("=")
    with pytest.raises(UsageError, match=rf"^--search {name} can have no effect: {fault}"):
        search_space(BASE.replace(**base), changes=changes)
    search_space(BASE.replace(**base))  # the default space is silent about it


def test_what_can_have_no_effect_is_refused_in_a_file_too(tmp_path: Path) -> None:
    file = write(tmp_path, "[ramp]\nlow = 0.1\nhigh = 1\n[dropout]\nlow = 0\nhigh = 0.5\n")
    with pytest.raises(UsageError, match=r"\[ramp\] can have no effect: contrast is false"):
        search_space(BASE.replace(contrast=False), file=file)


def test_what_acts_under_a_condition_alone_is_searched() -> None:
    changes = ["distill=true,false", "momentum_epochs=10..50"]
    assert "momentum_epochs" in search_space(BASE.replace(distill=False), changes=changes)


@pytest.mark.parametrize(
    ("base", "changes", "fault"),
    [
        ({}, ["num_heads=3,4"], "hidden_dim = 64 is not divisible by num_heads = 3"),
        ({}, ["hidden_dim=64..70:step=2"], "hidden_dim = 66 is not divisible by num_heads = 4"),
        ({"hidden_dim": 96, "num_heads": 3}, [], "hidden_dim = 64 is not divisible by num_heads = 3"),
        ({}, ["hidden_dim=10..100", "num_heads=3,7"], "more such pairs"),
    ],
)
def test_widths_that_the_heads_do_not_divide_are_told(
    base: dict[str, int], changes: list[str], fault: str
) -> None:
    with pytest.raises(UsageError, match="what no configuration can be") as caught:
        search_space(BASE.replace(**base), changes=changes)
    assert fault in str(caught.value)
    assert "--search hidden_dim=LOW..HIGH:step=STEP" in str(caught.value)


def test_widths_and_heads_are_compared_where_they_meet_only(tmp_path: Path) -> None:
    text = "[num_heads]\nchoices = [3, 4]\n[hidden_dim]\nlow = 64\nhigh = 128\nstep = 4\n"
    apart = "when = { num_heads = 4 }\n"
    meets = write(tmp_path, text + apart)
    with pytest.raises(UsageError, match=r"hidden_dim = 128 is not divisible by num_heads = 3"):
        search_space(BASE, file=meets)
    space = search_space(BASE.replace(hidden_dim=96), file=meets)
    assert space["hidden_dim"].when == {"num_heads": (4,)}


def test_a_preset_of_switches_is_not_searched_beside_a_switch_that_is_fixed() -> None:
    assert "fidelity" in search_space(BASE, changes=["fidelity=released,paper"])
    assert "fidelity" in search_space(BASE, changes=["fidelity=released,paper", "mask_padding=true,false"])
    for base, fixed in ((BASE, ["stream_swap"]), (BASE.replace(stream_swap=False), [])):
        with pytest.raises(
            UsageError, match="fidelity sets stream_swap, which the configuration sets itself"
        ):
            search_space(base, fixed, changes=["fidelity=released,paper"])


def test_faults_of_file_and_command_line_are_told_together(tmp_path: Path) -> None:
    file = write(tmp_path, "[rampp]\nlow = 1\nhigh = 2\n[dropout]\nlow = 0\nhigh = 2\n")
    with pytest.raises(UsageError) as caught:
        search_space(BASE, ["momentum"], file, ["momentum=0.8..1", "ramp=3"])
    assert str(caught.value).splitlines() == [
        f"--space {file}:",
        "  [rampp] unknown hyperparameter 'rampp'; did you mean ramp?",
        "  [dropout] high = 2 is not allowed: expected a number from 0 to 0.95",
        "--search ramp=3: a single value is not searched; fix it with --ramp 3",
        "--search momentum is fixed too, by --momentum; leave one out",
    ]


def test_a_circle_between_a_file_and_the_command_line_is_told_once(tmp_path: Path) -> None:
    text = "[contrast]\nchoices = [true, false]\nwhen = { distill = true }\n"
    file = write(tmp_path, f"{text}[distill]\nchoices = [true, false]\nwhen = {{ contrast = true }}\n")
    with pytest.raises(UsageError) as caught:
        search_space(BASE, file=file)
    assert str(caught.value).count("go in a circle") == 1


def test_the_first_suggestion_leaves_out_what_depends_on_a_value_that_is_not_the_papers() -> None:
    space = search_space(BASE, changes=["contrast=true,false", "learning_rate=1e-3..1e-2:log"])
    first = published_point(space)
    assert "learning_rate" not in first
    assert first["contrast"] is True
    assert "temperature" in first
    heads = {
        "num_heads": Dimension(choices=(2, 8)),
        "ramp": Dimension(low=0.02, high=1.0, when={"num_heads": (8,)}),
    }
    assert published_point(heads) == {}


def test_the_default_space_is_printed_with_its_comments_another_one_as_a_file(tmp_path: Path) -> None:
    assert space_text(search_space(BASE)) == DEFAULT.read_text()
    space = search_space(BASE, ["ramp"], changes=["contrast=true,false"])
    (tmp_path / "own.toml").write_text(space_text(space))
    assert search_space(BASE, file=str(tmp_path / "own.toml")) == space


def test_the_plan_fixes_nothing_that_it_searches_and_knows_how_it_was_begun() -> None:
    options = Options(search=("batch_size=8..64:log", "learning_rate=1e-5..1e-2:log"), space="/x.toml")
    assert options.flags() == {
        "--search": "batch_size=8..64:log learning_rate=1e-5..1e-2:log",
        "--space": "/x.toml",
    }
    plan = resolve_plan(Options(search=options.search), Machine(2, 0))
    assert "batch_size" not in plan.fixed
    assert "--batch-size" not in plan.flags()
    assert "--space" not in plan.flags()
    assert plan.first["learning_rate"] == 4e-4


@pytest.mark.parametrize("given", [{"search": ("ramp=0.1..1",)}, {"space": "x.toml"}])
def test_a_sweep_searches_nothing(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="belongs to a search"):
        resolve_plan(Options(sweep="table3", **given), Machine(2, 0))


def test_points_and_trainings_are_counted_without_what_their_conditions_rule_out() -> None:
    fixed = {name: getattr(BASE, name) for name in default_space()}
    search = ("contrast=true,false", "background_pool=video,batch")
    planned = resolve_plan(
        Options(search=search, hyperparameters=fixed, trials=9, stopping="none"), Machine(2, 0)
    )
    assert distinct_points(planned.space) == 4
    # Without MA-CIL the background has no say.
    assert distinct_trainings(planned.base, planned.space) == 3
    assert any("holds only 3 different trainings" in note for note in planned.notes)
    pool = Dimension(choices=("video", "batch"), when={"contrast": (True,)})
    assert distinct_points(planned.space | {"background_pool": pool}) == 3
    assert distinct_points(planned.space | {"ramp": Dimension(low=0.1, high=1.0)}) is None


def test_the_plan_shows_a_line_for_each_dimension_and_the_ends_of_the_batch_sizes(tmp_path: Path) -> None:
    options = Options(search=("batch_size=8..64", "contrast=true,false", "learning_rate=1e-3,1e-2"))
    plan = resolve_plan(options, Machine(2, 0))
    console = Console(width=200, record=True, file=io.StringIO())
    print_plan(console, plan, Workspace(tmp_path), None, ["bags"])
    shown = console.export_text()
    assert "8 to 64, whole numbers, linear; first suggested" in shown
    assert "true or false; first true" in shown
    assert "0.25 to 4, logarithmic; only with contrast = true; first 1.5" in shown
    assert "0.001 or 0.01; first suggested" in shown
    assert _batch_sizes(plan) == [8, 64]
