from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from macil.config import FIDELITY, PRESETS, Hyperparameter, TrialConfig, hyperparameters
from macil.errors import ConfigError, UsageError

SWITCHES = {
    "stream_swap": (True, False),
    "bag_weighting": ("snippet", "video"),
    "background_pool": ("video", "batch"),
    "mask_padding": (False, True),
    "shared_head": (True, False),
    "identical_projections": (True, False),
    "dropout_everywhere": (False, True),
    "cosine_epochs": (60, 50),
}


def test_defaults_are_the_published_constants() -> None:
    assert TrialConfig().to_dict() == {
        "lambda_v2b": 1.5,
        "lambda_v2n": 1.5,
        "ramp": 0.1,
        "temperature": 0.1,
        "momentum": 0.91,
        "hidden_dim": 128,
        "learning_rate": 4e-4,
        "visual_learning_rate": 8e-5,
        "batch_size": 128,
        "epochs": 50,
        "max_snippets": 200,
        "dropout": 0.1,
        "num_heads": 4,
        "feedforward_dim": 128,
        "momentum_epochs": 50,
        "cosine_epochs": 60,
        "seed": 0,
        "contrast": True,
        "distill": True,
        "fidelity": "released",
        "stream_swap": True,
        "bag_weighting": "snippet",
        "background_pool": "video",
        "mask_padding": False,
        "shared_head": True,
        "identical_projections": True,
        "dropout_everywhere": False,
    }


@pytest.mark.parametrize("name", SWITCHES)
def test_fidelity_presets_every_switch_and_an_explicit_value_wins(name: str) -> None:
    released, paper = SWITCHES[name]
    assert getattr(TrialConfig(fidelity="released"), name) == released
    assert getattr(TrialConfig(fidelity="paper"), name) == paper
    assert getattr(TrialConfig(fidelity="paper", **{name: released}), name) == released
    assert getattr(TrialConfig(**{name: paper}), name) == paper
    others = {
        other: value for other, value in TrialConfig(**{name: paper}).to_dict().items() if other != name
    }
    assert others == {other: value for other, value in TrialConfig().to_dict().items() if other != name}


def test_fidelity_presets_nothing_else() -> None:
    changed = {
        name
        for name, value in TrialConfig(fidelity="paper").to_dict().items()
        if value != getattr(TrialConfig(), name)
    }
    assert changed == {*SWITCHES, "fidelity"}
    assert set(FIDELITY["paper"]) == set(FIDELITY["released"]) == set(SWITCHES)


def test_presets_are_the_four_rows_of_table_3() -> None:
    rows = {name: (config.contrast, config.distill) for name, config in PRESETS.items()}
    assert rows == {
        "two-stream": (False, False),
        "two-stream+sd": (False, True),
        "light": (True, False),
        "full": (True, True),
    }
    for config in PRESETS.values():
        assert config.replace(contrast=True, distill=True) == TrialConfig()


def test_a_config_is_frozen_hashable_and_comparable() -> None:
    config = TrialConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.epochs = 3
    assert config == TrialConfig()
    assert hash(config) == hash(TrialConfig())
    assert config != config.replace(seed=1)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"lamda_v2b": 1.0}, ["lamda_v2b", "lambda_v2b"]),
        ({"zzz": 1}, ["'zzz'", "hidden_dim"]),
        ({"epochs": True}, ["epochs = True", "a whole number from 1"]),
        ({"seed": False}, ["seed = False", "from 0 to 2147483647"]),
        ({"epochs": 3.0}, ["epochs = 3.0", "a whole number"]),
        ({"epochs": "3"}, ["epochs = '3'", "a whole number"]),
        ({"epochs": None}, ["epochs = None"]),
        ({"epochs": [3]}, ["epochs = [3]"]),
        ({"learning_rate": "4e-4"}, ["learning_rate = '4e-4'", "a number above 0 to 1"]),
        ({"learning_rate": True}, ["learning_rate = True", "a number above 0 to 1"]),
        ({"lambda_v2b": False}, ["lambda_v2b = False"]),
        ({"contrast": 1}, ["contrast = 1", "true or false"]),
        ({"contrast": "yes"}, ["contrast = 'yes'", "true or false"]),
        ({"distill": 0.0}, ["distill = 0.0", "true or false"]),
        ({"fidelity": "Released"}, ["fidelity = 'Released'", "released or paper"]),
        ({"fidelity": 1}, ["fidelity = 1", "released or paper"]),
        ({"fidelity": ["paper"]}, ["fidelity = ['paper']", "released or paper"]),
        ({"bag_weighting": "batch"}, ["bag_weighting = 'batch'", "video or snippet"]),
        ({"background_pool": "snippet"}, ["background_pool = 'snippet'", "video or batch"]),
        ({"temperature": 0.0}, ["temperature = 0.0"]),
        ({"temperature": math.nan}, ["temperature = nan"]),
        ({"lambda_v2n": math.inf}, ["lambda_v2n = inf"]),
        ({"ramp": -math.inf}, ["ramp = -inf"]),
        ({"learning_rate": 0.0}, ["learning_rate = 0.0", "above 0"]),
        ({"hidden_dim": 130}, ["hidden_dim = 130", "num_heads = 4", "divisible"]),
        ({"num_heads": 3}, ["hidden_dim = 128", "num_heads = 3", "divisible"]),
    ],
)
def test_a_fault_is_refused_with_name_value_and_allowed_values(
    values: dict[str, Any], wanted: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        TrialConfig(**values)
    for text in wanted:
        assert text in str(caught.value)
    assert isinstance(caught.value, UsageError)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(ConfigError):
        TrialConfig.from_dict(values)
    with pytest.raises(ConfigError):
        TrialConfig().replace(**values)


@pytest.mark.parametrize(
    "parameter", [p for p in hyperparameters() if p.low is not None], ids=lambda p: p.name
)
def test_both_ends_of_every_range_hold(parameter: Hyperparameter) -> None:
    assert parameter.low is not None
    assert parameter.high is not None
    step = 1 if parameter.type is int else 1e-6
    others = (
        {"num_heads": 1}
        if parameter.name == "hidden_dim"
        else {"hidden_dim": 64}
        if parameter.name == "num_heads"
        else {}
    )
    inside = parameter.type(parameter.low + (step if parameter.low_exclusive else 0))
    for value in (inside, parameter.type(parameter.high)):
        assert getattr(TrialConfig(**{parameter.name: value, **others}), parameter.name) == value
    outside = parameter.type(parameter.low - (0 if parameter.low_exclusive else step))
    for value in (outside, parameter.type(parameter.high + step)):
        with pytest.raises(ConfigError, match=f"{parameter.name} = .*expected {parameter.allowed}"):
            TrialConfig(**{parameter.name: value, **others})


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TrialConfig(epochs=0, learning_rate="fast", colour="red", fidelity="none", hidden_dim=130, seed=True)
    text = str(caught.value)
    for part in (
        "epochs = 0",
        "learning_rate = 'fast'",
        "colour",
        "fidelity = 'none'",
        "hidden_dim = 130",
        "seed = True",
    ):
        assert part in text
    assert len(text.splitlines()) == 6


def test_whole_numbers_are_taken_for_numbers_and_become_floats() -> None:
    config = TrialConfig(lambda_v2b=1)
    assert isinstance(config.lambda_v2b, float)
    assert config == TrialConfig(lambda_v2b=1.0)


def test_hyperparameters_describe_every_field_once() -> None:
    described = {parameter.name: parameter for parameter in hyperparameters()}
    assert list(described) == list(TrialConfig().to_dict())
    for name, value in TrialConfig().to_dict().items():
        parameter = described[name]
        assert parameter.default == value
        assert type(value) is parameter.type
        assert parameter.help
    assert described["fidelity"].choices == ("released", "paper")
    assert {
        described[name].symbol
        for name in ("lambda_v2b", "lambda_v2n", "ramp", "temperature", "momentum", "hidden_dim")
    } == {
        "Λ_v2b",
        "Λ_v2n",
        "r",
        "τ",
        "m",
        "d",
    }


def test_replace_keeps_the_rest_and_a_new_fidelity_presets_its_switches() -> None:
    config = TrialConfig(epochs=7).replace(seed=3)
    assert (config.epochs, config.seed) == (7, 3)
    assert TrialConfig(epochs=7).replace(fidelity="paper") == TrialConfig(epochs=7, fidelity="paper")
    assert TrialConfig().replace(fidelity="paper", shared_head=True) == TrialConfig(
        fidelity="paper", shared_head=True
    )
    assert TrialConfig(mask_padding=True).replace(fidelity="released").mask_padding is True


def _values() -> st.SearchStrategy[dict[str, Any]]:
    """Any legal configuration, given only in part."""
    choices: dict[str, st.SearchStrategy[Any]] = {}
    for p in hyperparameters():
        if p.choices:
            choices[p.name] = st.sampled_from(p.choices)
        elif p.type is bool:
            choices[p.name] = st.booleans()
        elif p.type is int:
            assert p.low is not None
            assert p.high is not None
            choices[p.name] = st.integers(int(p.low), int(p.high))
        else:
            choices[p.name] = st.floats(p.low, p.high, exclude_min=p.low_exclusive)
    del choices["hidden_dim"], choices["num_heads"]
    heads = st.sampled_from([{}, {"hidden_dim": 64}, {"num_heads": 8}, {"hidden_dim": 36, "num_heads": 6}])
    return st.builds(lambda a, b: {**a, **b}, st.fixed_dictionaries({}, optional=choices), heads)


@settings(max_examples=60, deadline=None)
@given(_values())
def test_every_configuration_survives_toml_yaml_and_dict(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    config = TrialConfig(**values)
    assert TrialConfig.from_dict(config.to_dict()) == config
    folder = tmp_path_factory.getbasetemp()
    for ending in ("toml", "yaml", "yml"):
        path = folder / f"config.{ending}"
        config.save(path)
        assert TrialConfig.load(path) == config
        assert [p.name for p in folder.glob("*config*")].count(path.name) == 1


def test_saved_files_hold_every_resolved_value_under_its_own_name(tmp_path: Path) -> None:
    config = TrialConfig(fidelity="paper", learning_rate=1e-5)
    config.save(tmp_path / "a.toml")
    config.save(str(tmp_path / "a.yaml"))
    assert tomllib.loads((tmp_path / "a.toml").read_text("utf-8")) == config.to_dict()
    assert yaml.safe_load((tmp_path / "a.yaml").read_text("utf-8")) == config.to_dict()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.toml", "a.yaml"]


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("a.toml", "epochs = ", "not valid TOML"),
        ("a.yaml", "epochs: [", "not valid YAML"),
        ("a.yaml", "- 1\n- 2\n", "a table of names and values"),
        ("a.yaml", "1: 2\n", "a table of names and values"),
        ("a.toml", "epochs = 0\nseeds = 1\n", "epochs = 0"),
        ("a.yaml", "seeds: 1\n", "did you mean seed"),
        ("a.yaml", "learning_rate: 4e-4\n", "as 4.0e-4"),  # YAML takes a number without a point for text
        ("a.yaml", "epochs: '3'\n", "leave the quotes away"),
        ("a.json", "{}", ".toml, .yaml or .yml"),
        ("a", "", ".toml, .yaml or .yml"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, name: str, text: str, wanted: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        TrialConfig.load(tmp_path / name)
    assert wanted in str(caught.value)
    assert name in str(caught.value)


def test_a_missing_folder_or_binary_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("missing.toml", "folder.toml", "binary.yaml"):
        with pytest.raises(ConfigError, match=name):
            TrialConfig.load(tmp_path / name)


def test_an_empty_file_is_the_default_configuration(tmp_path: Path) -> None:
    for name in ("empty.toml", "empty.yaml"):
        (tmp_path / name).write_text("", encoding="utf-8")
        assert TrialConfig.load(tmp_path / name) == TrialConfig()


def test_unsupported_endings_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.toml"):
        TrialConfig().save(tmp_path / "config.ini")
    assert list(tmp_path.iterdir()) == []
