"""A space file and --search: what they say, and every fault of both at once, each with its place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from macil.config import Hyperparameter, TrialConfig, hyperparameters
from macil.errors import UsageError
from tune.algorithms.space import Dimension, Space
from tune.planning.space_file import (
    DEFAULT,
    SHARED,
    default_space,
    describe,
    in_order,
    read_search,
    read_space,
    to_text,
)

HEAD = "format_version = 1\n"
OWN = """
format_version = 1
[temperature]
low = 0.05
high = 1
when = { contrast = true, num_heads = [4, 8] }
[learning_rate]
low = 1e-5
high = 1e-2
log = true
[contrast]
choices = [true, false]
[num_heads]
choices = [2, 4, 8]
[hidden_dim]
low = 64
high = 256
step = 64
[dropout]
low = 0
high = 0.5
step = 0.25
[batch_size]
low = 8
high = 64
[fidelity]
choices = ["released", "paper"]
"""
SPACE: Space = {
    "temperature": Dimension(low=0.05, high=1.0, when={"contrast": (True,), "num_heads": (4, 8)}),
    "learning_rate": Dimension(low=1e-5, high=1e-2, log=True),
    "contrast": Dimension(choices=(True, False)),
    "num_heads": Dimension(choices=(2, 4, 8)),
    "hidden_dim": Dimension(low=64, high=256, step=64),
    "dropout": Dimension(low=0.0, high=0.5, step=0.25),
    "batch_size": Dimension(low=8, high=64),
    "fidelity": Dimension(choices=("released", "paper")),
}


def read(text: str, folder: Path) -> tuple[Space, list[str]]:
    (folder / "own.toml").write_text(text)
    faults: list[str] = []
    return read_space(folder / "own.toml", faults), faults


def test_a_file_says_ranges_scales_steps_choices_and_conditions(tmp_path: Path) -> None:
    assert read(OWN, tmp_path) == (SPACE, [])


def test_a_number_is_whole_where_its_hyperparameter_is(tmp_path: Path) -> None:
    space, _ = read(OWN, tmp_path)
    assert [name for name, each in space.items() if each.choices is None and each.whole] == [
        "hidden_dim",
        "batch_size",
    ]
    assert type(space["temperature"].high) is float


def test_a_space_is_written_as_it_is_read(tmp_path: Path) -> None:
    text = to_text(SPACE)
    assert read(text, tmp_path) == (SPACE, [])
    assert tomllib.loads(text)["temperature"]["when"] == {"contrast": True, "num_heads": [4, 8]}


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = "[lamda_v2b]\nlow = 1\n[ramp]\nlow = 0\nhigh = 1\nlog = true\n[momentum]\nlow = 0.8\nhigh = 1.2\nstp = 1"
    space, faults = read(text, tmp_path)
    assert space == {}
    assert faults == [
        "format_version is missing; expected format_version = 1, above the first table",
        "[lamda_v2b] unknown hyperparameter 'lamda_v2b'; did you mean lambda_v2b?",
        "[ramp] low = 0 must be above 0 where log is true",
        "[momentum] stp: unknown; did you mean step?",
        "[momentum] high = 1.2 is not allowed: expected a number from 0 to 1",
    ]


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("learning_rate = 3", "[learning_rate] 3 is no table; expected low and high, or choices"),
        ("[learning_rate]\nlow = 1e-5", "[learning_rate] expected low and high, or choices"),
        ("[learning_rate]\nlow = 0\nhigh = 1", "low = 0 is not allowed: expected a number above 0 to 1"),
        ("[ramp]\nlow = true\nhigh = 1", "low = True is not allowed: expected a number from 0 to 100"),
        ("[ramp]\nlow = nan\nhigh = 1", "low = nan is not allowed"),
        ('[ramp]\nlow = "1"\nhigh = 2', "low = '1' is not allowed"),
        ("[ramp]\nlow = 2\nhigh = 1", "low = 2 must be below high = 1"),
        ("[ramp]\nlow = 1\nhigh = 1.0", "fix a single value instead"),
        ("[ramp]\nlow = 1\nhigh = 2\nlog = 1", "log = 1 is not allowed: expected true or false"),
        ("[ramp]\nlow = 1\nhigh = 2\nstep = 0", "step = 0 is not allowed: expected a number above 0"),
        ("[ramp]\nlow = 1\nhigh = 2\nstep = 0.3", "does not lead from low = 1 to high = 2"),
        ("[ramp]\nlow = 1\nhigh = 2\nstep = 0.5\nlog = true", "a range has log or step, not both"),
        ("[ramp]\nlow = 1\nhigh = 2\nchoices = [1, 2]", "choices stand alone"),
        ("[ramp]\nchoices = 1", "choices = 1 is not allowed: expected a list"),
        ("[ramp]\nchoices = [1, 1.0]", "choices must be at least two different values"),
        ("[ramp]\nchoices = [1, 200]", "a choice = 200 is not allowed: expected a number from 0 to 100"),
        ("[hidden_dim]\nlow = 64.0\nhigh = 256", "low = 64.0 is not allowed: expected a whole number from 1"),
        ("[hidden_dim]\nlow = 64\nhigh = 256\nstep = 1.5", "step = 1.5 is not allowed: expected a whole number"),
        ("[contrast]\nlow = 0\nhigh = 1", "low, high: contrast is no number; expected choices = [true, false]"),
        ("[contrast]\nchoices = [1, true]", "a choice = 1 is not allowed: expected true or false"),
        ('[fidelity]\nchoices = ["paper", "mine"]', "a choice = 'mine' is not allowed: expected released or paper"),
        ('[fidelity]\nlog = true\nchoices = ["paper", "released"]', 'expected choices = ["released", "paper"]'),
        ("[seed]\nlow = 0\nhigh = 9", "[seed] is not searched: all trials of a search have one seed"),
        ("[epochs]\nlow = 1\nhigh = 9", "[epochs] is not searched: all trials of a search may take as many epochs"),
        ("[ramp]\nlow = 1\nhigh = 2\nwhen = true", "when = True is not allowed: expected a table"),
        ("[ramp]\nlow = 1\nhigh = 2\nwhen = { contrst = true }", "'contrst'; did you mean contrast?"),
        ("[ramp]\nlow = 1\nhigh = 2\nwhen = { contrast = 1 }", "when: contrast = 1 is not allowed: expected true"),
        ("[ramp]\nlow = 1\nhigh = 2\nwhen = { contrast = [] }", "when: contrast = [] is not allowed"),
        ("[ramp]\nlow = 1\nhigh = 2\nwhen = { ramp = 1 }", "a dimension cannot depend on itself"),
        ("[ramp]\nlow = 1\nhigh = 2\nwhen = { seed = 1 }", "when: seed: all trials of a search share it"),
        ("", "no dimension; expected a table such as [learning_rate]"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_field_and_what_was_expected(table: str, fault: str, tmp_path: Path) -> None:
    space, faults = read(HEAD + table, tmp_path)
    assert space == {}
    (found,) = faults
    assert fault in found


@pytest.mark.parametrize("version", ["2", '"1"', "true", "1.0"])
def test_a_file_of_another_version_is_refused(version: str, tmp_path: Path) -> None:
    _, faults = read(OWN.replace("format_version = 1", f"format_version = {version}"), tmp_path)
    (fault,) = faults
    assert "expected format_version = 1" in fault


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"format_version = 1\n[ramp\n", "is not valid TOML: .*line 2"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"a = " + b"[" * 5000, "is not valid TOML"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_line(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "own.toml").write_bytes(content)
    with pytest.raises(UsageError, match=rf"--space .*own\.toml {message}"):
        read_space(tmp_path / "own.toml", [])


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("learning_rate=1e-5..1e-2:log", Dimension(low=1e-5, high=1e-2, log=True)),
        ("hidden_dim=64..256:step=64", Dimension(low=64, high=256, step=64)),
        ("dropout=0..0.5:step=0.1", Dimension(low=0.0, high=0.5, step=0.1)),
        (" batch_size = 8 .. 64 : log ", Dimension(low=8, high=64, log=True)),
        ("num_heads=2,4,8", Dimension(choices=(2, 4, 8))),
        ("contrast=true,false", Dimension(choices=(True, False))),
        ("fidelity=released,paper", Dimension(choices=("released", "paper"))),
        ("ramp=.5..1.", Dimension(low=0.5, high=1.0)),
    ],
)
def test_search_gives_a_dimension(text: str, dimension: Dimension) -> None:
    faults: list[str] = []
    assert list(read_search([text], {}, faults).values()) == [dimension]
    assert faults == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("ramp", "expected NAME=LOW..HIGH"),
        ("=1..2", "expected NAME=LOW..HIGH"),
        ("ramp=", "expected NAME=LOW..HIGH"),
        ("learning-rate=1..2", "did you mean learning_rate?"),
        ("seed=1..2", "is not searched: all trials of a search have one seed"),
        ("ramp=0.1", "a single value is not searched; fix it with --ramp 0.1"),
        ("ramp=0.1:log", "expected NAME=LOW..HIGH"),
        ("ramp=0..1:log", "low = 0 must be above 0 where log is true"),
        ("ramp=1..500", "high = 500 is not allowed: expected a number from 0 to 100"),
        ("ramp=a..1", "low = 'a' is not allowed"),
        ("ramp=1..", "high = '' is not allowed"),
        ("ramp=1..2:lg", "'lg' behind the range; expected log or step=STEP"),
        ("ramp=1..2:log=yes", "'log=yes' behind the range"),
        ("ramp=1..2:step", "'step' behind the range"),
        ("hidden_dim=64..256:step=x", "step = 'x' is not allowed: expected a whole number above 0"),
        ("hidden_dim=64..256:step=100", "step = 100 does not lead from low = 64 to high = 256"),
        ("contrast=yes,no", "a choice = 'yes' is not allowed: expected true or false"),
        ("contrast=0..1", "contrast is no number; expected choices"),
    ],
)
def test_a_fault_of_search_is_told_with_its_text(text: str, fault: str) -> None:
    faults: list[str] = []
    assert read_search([text], {}, faults) == {}
    assert faults[0].startswith(f"--search {text}: ")
    assert fault in " ".join(faults)


def test_search_replaces_a_range_and_keeps_its_condition_and_is_given_once_a_name() -> None:
    faults: list[str] = []
    changed = read_search(["temperature=0.1..1", "temperature=0.2..1"], default_space(), faults)
    assert changed == {"temperature": Dimension(low=0.1, high=1.0, when={"contrast": (True,)})}
    assert faults == ["--search temperature=0.2..1: temperature is given twice; leave one out"]


def test_what_a_condition_names_comes_first() -> None:
    faults: list[str] = []
    ordered = in_order(SPACE, faults)
    assert faults == []
    assert tuple(ordered) == (
        "learning_rate", "contrast", "num_heads", "temperature", "hidden_dim", "dropout", "batch_size", "fidelity"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"contrast": Dimension(choices=(True, False), when={"num_heads": (4,)}),
             "num_heads": Dimension(choices=(2, 4), when={"contrast": (True,)})},
            "conditions go in a circle: contrast only with num_heads, num_heads only with contrast",
        ),
        (
            {"ramp": Dimension(low=0.1, high=1.0, when={"num_heads": (3, 4)})},
            "[ramp] when: num_heads is never 3; it is searched as 2 or 4 or 8",
        ),
        (
            {"ramp": Dimension(low=0.1, high=1.0, when={"hidden_dim": (64, 100)})},
            "[ramp] when: hidden_dim is never 100; it is searched as 64 to 256, in steps of 64",
        ),
        (
            {"ramp": Dimension(low=0.1, high=1.0, when={"learning_rate": (0.001,)})},
            "[ramp] when: learning_rate is a continuous range",
        ),
    ],
)  # fmt: skip
def test_conditions_that_cannot_hold_are_told(changes: Space, fault: str) -> None:
    faults: list[str] = []
    without_condition = {name: each.model_copy(update={"when": {}}) for name, each in SPACE.items()}
    ordered = in_order(without_condition | changes, faults)
    assert ordered.keys() == SPACE.keys() | changes.keys()
    assert len(faults) == 1
    assert fault in faults[0]


@pytest.mark.parametrize(
    ("dimension", "text"),
    [
        (Dimension(low=0.25, high=4.0, log=True), "0.25 to 4, logarithmic"),
        (Dimension(low=8, high=64), "8 to 64, whole numbers, linear"),
        (Dimension(low=64, high=256, step=64), "64 to 256, in steps of 64"),
        (Dimension(choices=(True, False)), "true or false"),
        (
            Dimension(low=0.8, high=1.0, when={"distill": (True,), "num_heads": (2, 4)}),
            "0.8 to 1, linear; only with distill = true and num_heads = 2 or 4",
        ),
    ],
)
def test_a_dimension_is_one_readable_line(dimension: Dimension, text: str) -> None:
    assert describe(dimension) == text


def test_the_default_space_is_a_file_without_fault_that_lies_in_the_package() -> None:
    faults: list[str] = []
    assert read_space(DEFAULT, faults) == default_space()
    assert faults == []
    assert tuple(in_order(default_space(), faults)) == tuple(default_space())
    assert faults == []
    tables = [line for line in DEFAULT.read_text().splitlines() if line.startswith("[")]
    assert len(tables) == len(default_space()) == 6


@pytest.mark.parametrize(
    "parameter", [each for each in hyperparameters() if each.name not in SHARED], ids=lambda each: each.name
)
def test_every_hyperparameter_but_those_that_all_trials_share_can_be_searched(
    parameter: Hyperparameter,
) -> None:
    if parameter.type is bool:
        values = ["true", "false"]
    else:
        values = list(parameter.choices) or [str(parameter.default), f"{parameter.high:.10g}"]
    faults: list[str] = []
    space = read_search([f"{parameter.name}={','.join(values)}"], {}, faults)
    assert faults == []
    found = [TrialConfig(**{parameter.name: value}) for value in space[parameter.name].values]
    assert [getattr(config, parameter.name) for config in found] == list(space[parameter.name].values)
    assert len(found) == 2
