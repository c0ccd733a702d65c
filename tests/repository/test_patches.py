"""Code that tests put into other processes names what is there; see `tests.support.patches`."""

from __future__ import annotations

import ast
import importlib

import pytest

from tests.support.patches import Texts, files_of_tests, has_name, missing_of_patch, missing_of_program
from tests.support.repository import ROOT

FILES = files_of_tests(ROOT / "tests")
OWN = "repository/test_patches.py"


@pytest.fixture(scope="module", autouse=True)
def modules_of_others() -> None:
    """Ray's modules are imported with the package, as in the processes that are patched."""
    importlib.import_module("ray")


def test_what_a_patch_replaces_and_reads_is_in_its_module() -> None:
    found = [(name, patch) for name, texts in FILES.items() if name != OWN for patch in texts.patches()]
    missing = [
        f"tests/{name}:{patch.line}: {patch.module} has no {each}"
        for name, patch in found
        for each in missing_of_patch(patch.module, patch.code)
    ]
    assert missing == []
    assert {name.split("/")[0] for name, _ in found} >= {"cluster", "end_to_end", "faults", "tune"}
    assert len(found) >= 30


def test_where_a_process_is_held_is_a_function() -> None:
    found = [(name, place) for name, texts in FILES.items() if name != OWN for place in texts.places()]
    missing = [
        f"tests/{name}:{line}: {module} has no {function}"
        for name, (line, module, function) in found
        if not has_name(module, function)
    ]
    assert missing == []
    assert len(found) >= 8


def test_programs_import_what_is_there() -> None:
    found = [(name, each) for name, texts in FILES.items() if name != OWN for each in texts.programs()]
    missing = [
        f"tests/{name}:{line}: {each}" for name, (line, tree) in found for each in missing_of_program(tree)
    ]
    assert missing == []
    assert len(found) >= 8


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("def with_retry(write, where, **_):\n    return write()\n", []),
        ("_RETRY_SECONDS = 0.0\n", []),
        ("def with_patience(write):\n    return write()\n", ["with_patience"]),
        ("_SECONDS = 0.0\n", ["_SECONDS"]),
        (
            "_whole = with_retry\ndef with_retry(*given):\n    return _whole(*given)\n",
            [],
        ),
        ("_whole = patient\ndef patient(*given):\n    return _whole(*given)\n", ["patient"]),
        ("StorageError.told = lambda self: None\n", ["StorageError.told"]),
        ("def with_retry(write):\n    return StorageError.told\n", ["StorageError.told"]),
        ("def with_retry(write):\n    return nothing\n", ["nothing"]),
    ],
)
def test_a_name_that_is_not_there_is_found(code: str, missing: list[str]) -> None:
    assert missing_of_patch("tune.storage.retry", code) == missing


def test_patches_places_and_programs_are_found_however_they_are_written() -> None:
    texts = Texts(
        "CODE = 'x = {run!r}\\n'\n"
        "def made(seconds):\n"
        "    code = f'def y():\\n{seconds}    return 1\\n'\n"
        "    return {'tune.storage.retry': code, 'macil.io.files': CODE.format(run=1), 'other': 'z = 1'}\n"
        "patch['tune.storage.retry'] += ('a = 1\\n' f'b = {CODE}\\n')\n"
        "held = pause('macil.io.files:Class.name', 1)\n"
        "run('from macil.io.files import a\\nprint(b)\\n')\n"
    )
    assert sorted((patch.module, patch.code) for patch in texts.patches()) == [
        ("macil.io.files", "x = None\n"),
        ("tune.storage.retry", "a = 1\nb = None\n"),
        ("tune.storage.retry", "def y():\n    pass\n    return 1\n"),
    ]
    assert [place[1:] for place in texts.places()] == [("macil.io.files", "Class.name")]
    ((_, program),) = texts.programs()
    assert missing_of_program(program) == ["macil.io.files.a", "b"]
    assert missing_of_program(ast.parse("from macil.io.files import read_json\nread_json(1)\n")) == []
