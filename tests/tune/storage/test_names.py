from __future__ import annotations

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from macil.training import files as training_files
from macil.training.files import checkpoint_folders, checkpoint_number, in_order, newest_checkpoint
from tests.support.repository import ROOT
from tune.storage import names

# Also the names of the templates that these two are made from.
_TEMPLATES = {names.REPORT_PAGE, names.REPORT_TEXT}


def constants(module: object) -> dict[str, str]:
    return {name: value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}


def file_names(*modules: object) -> set[str]:
    """All names of files, and beginnings of names of folders; folders have names that are words."""
    found = {name for module in modules for name in constants(module).values()}
    return {name for name in found if "." in name or name.endswith("_")} - _TEMPLATES


def literals(folder: str, wanted: set[str]) -> list[str]:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        if path.parts[-2:] in (("storage", "names.py"), ("training", "files.py")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or " " in node.value:
                continue
            if any(part in wanted for part in node.value.split("/")):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}")
    return found


@pytest.mark.parametrize(
    ("package", "modules"), [("tune", (names, training_files)), ("macil", (training_files,))]
)
def test_a_file_of_a_run_is_named_in_one_module(package: str, modules: tuple[object, ...]) -> None:
    wanted = file_names(*modules)
    assert len(wanted) >= 10
    assert literals(package, wanted) == []


def test_no_file_of_a_run_is_taken_for_one_of_ray() -> None:
    assert names.TUNE_FILES
    for pattern in names.TUNE_FILES:
        assert not any(fnmatch(name, pattern) for name in file_names(names))


def test_checkpoints_are_ordered_by_number_and_nothing_else_is_one(tmp_path: Path) -> None:
    found = ["checkpoint_10", "checkpoint_9", "damaged_checkpoint_11", "checkpoint_x", "12", "checkpoint_"]
    assert in_order(found) == ["checkpoint_9", "checkpoint_10"]
    assert [checkpoint_number(name) for name in found] == [10, 9, -1, -1, -1, -1]
    assert checkpoint_folders(tmp_path / "absent") == []
    for name in found:
        (tmp_path / name).mkdir()
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint_9" / names.TRAINER_FILE).touch()
    (tmp_path / "checkpoint_10" / names.SCORES_FILE).touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint_9"
    assert newest_checkpoint(tmp_path, names.SCORES_FILE) == tmp_path / "checkpoint_10"


def test_the_page_of_the_run_folder_names_every_file_and_places_that_exist() -> None:
    page = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
    assert {name for name in file_names(names, training_files) if name not in page} == set()
    paths = re.findall(r"`((?:tune|macil)/[\w/]+\.py)`", page)
    assert len(paths) > 20
    assert {path for path in paths if not (ROOT / path).is_file()} == set()
    for model, path in re.findall(r"`(\w+)` in `((?:tune|macil)/[\w/]+\.py)`", page):
        assert re.search(rf"^(class|def) {model}\b", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
