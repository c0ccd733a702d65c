from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from macil.config import TrialConfig
from tune.storage.trial_params import TrialParams, read_params, write_params

CONFIG = TrialConfig(hidden_dim=16, seed=7)


@pytest.mark.parametrize("number", [None, 3])
def test_what_is_written_is_read_again(tmp_path: Path, number: int | None) -> None:
    path, problems = tmp_path / "params.json", list[str]()
    write_params(path, CONFIG, number=number, row="10", trial_id="a_00003")
    found = read_params(path, problems)
    assert found.hyperparameters == CONFIG.to_dict()
    assert (found.number, found.row, found.trial_id) == (number, "10", "a_00003")
    assert ("number" in json.loads(path.read_text())) == (number is not None)
    assert problems == []


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "params.json"
    path.write_text(
        json.dumps({"config": {"seed": 7}, "row": {"name": "10", "changes": {}}, "hidden_dim": 16})
    )
    found = read_params(path, [])
    assert found.hyperparameters == {"hidden_dim": 16, "seed": 7}
    assert found.row == "10"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "params.json is not valid JSON"),
        ("[1]", "params.json holds no table of names and values"),
        (
            '{"seed": 7, "sede": 8}',
            "params.json has fields that this version does not know: ['sede']; left out",
        ),
        ('{"seed": 7, "trial_id": [1], "number": "x"}', "params.json: number = 'x' is of no use; left out"),
    ],
)
def test_what_is_of_no_use_is_told_and_the_rest_is_read(tmp_path: Path, content: str, message: str) -> None:
    path, problems = tmp_path / "params.json", list[str]()
    path.write_text(content)
    found = read_params(path, problems)
    assert problems[0].startswith(message)
    whole: dict[str, Any] = {"seed": 7} if "seed" in content else {}
    assert found.hyperparameters == whole


def test_a_trial_that_left_no_file_has_no_configuration(tmp_path: Path) -> None:
    problems: list[str] = []
    assert read_params(tmp_path / "params.json", problems) == TrialParams()
    assert problems == []
