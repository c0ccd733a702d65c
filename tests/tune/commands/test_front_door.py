"""What a mistyped or small command line waits for: neither torch nor Ray nor Optuna is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from macil.data.store.feature_store import FeatureStore
from tests.support.run_folders import RunFolder

SLOW = {"torch", "ray", "optuna"}
# Runs lines of a command in one process, and prints their exit statuses and which of the slow libraries are loaded.
CODE = """
import contextlib, importlib, io, json, sys
module, name = sys.argv[1].split(":")
command = getattr(importlib.import_module(module), name)
from macil.commands import cli
codes = []
for line in json.loads(sys.argv[2]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            cli.main(command, line)
        except SystemExit:
            codes.append(sys.exception().code)
print(json.dumps([codes, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def loaded_by(command: str, lines: list[list[str]], cwd: Path) -> tuple[list[int], set[str]]:
    arguments = [sys.executable, "-c", CODE, command, json.dumps(lines)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=cwd)
    codes, loaded = json.loads(done.stdout)
    return codes, set(loaded)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, demo_store: FeatureStore) -> Path:
    """A folder with one run, of two finished trials."""
    folder = tmp_path_factory.mktemp("door")
    made = RunFolder(folder / "runs" / "made", demo_store).begin(trials=2)
    made.add("00000")
    made.add("00001", lambda_v2b=2.0)
    return folder


def test_a_search_waits_for_no_library_before_it_has_something_to_train(storage: Path) -> None:
    lines = {
        "--help": 0,
        "--nosuch": 2,
        "--protocol nosuch": 2,
        "--trials 0": 2,
        "--hidden-dim 6": 2,
        "--sweep nosuch": 2,
        "--search nosuch=1..2": 2,
        "--name a/b --trials x": 2,
        "--resume nosuch": 2,
        "--status nosuch": 2,
        "--status made": 0,
    }
    codes, loaded = loaded_by("tune.commands.search:search", [line.split() for line in lines], storage)
    assert dict(zip(lines, codes, strict=True)) == lines
    assert loaded & SLOW == set()


def test_a_report_waits_for_no_library_before_it_has_a_run(storage: Path) -> None:
    lines = [["--help"], ["--nosuch"], [], ["made", "--labels", "nosuch"], ["made", "--out", "x"]]
    codes, loaded = loaded_by("tune.commands.report:report", lines, storage)
    assert codes == [0, 2, 2, 2, 2]
    assert loaded & SLOW == set()


def test_macil_waits_for_no_library_before_it_has_data(storage: Path) -> None:
    names = ["check", "config", "convert", "demo", "evaluate", "export", "score", "train"]
    lines = [
        *([name, "--help"] for name in names),
        *([name, "--nosuch"] for name in names),
        ["--help"],
        ["nosuch"],
        ["config"],
        ["score", "m.pt", "x", "--out", "y", "--fps", "nan"],
        ["train", "x", "--out", "y", "--resume", "--overwrite"],
    ]
    codes, loaded = loaded_by("macil.__main__:app", lines, storage)
    assert codes == [*[0] * 8, *[2] * 8, 0, 2, 0, 2, 2]
    assert loaded & SLOW == set()


def test_what_is_looked_at_would_be_seen(tmp_path: Path) -> None:
    codes, loaded = loaded_by("macil.__main__:app", [["evaluate", "nosuch.pt", "nosuch"]], tmp_path)
    assert codes == [1]
    assert loaded & SLOW == {"torch"}
