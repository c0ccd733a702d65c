"""What is used of Optuna and Ray beside their documented interfaces: in one file each, and checked by name."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from importlib import metadata

import pytest
from optuna.trial import Trial

from macil.errors import MacilError
from tests.support.repository import ROOT
from tune.algorithms import optuna_internals
from tune.algorithms.private_names import is_set, require_names
from tune.execution import ray_internals


def test_a_version_of_optuna_without_a_name_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "__init__", lambda self: None)
    monkeypatch.setattr("tune.algorithms.private_names.metadata.version", lambda _: "6.1.0")
    with pytest.raises(MacilError) as raised:
        optuna_internals.check()
    assert str(raised.value) == (
        "Optuna 6.1.0 has no optuna.trial.Trial._trial_id: this program relies on what Optuna does not promise to "
        "keep. It is known to work with Optuna 5.0.0; install that version (constraints.txt names those of all "
        "libraries): pip install 'optuna==5.0.0'"
    )


@pytest.mark.parametrize(
    "name",
    [
        "optuna.no_such_module.name",
        "optuna.trial.NoSuchClass.name",
        "optuna.trial.Trial._no_such_name",
        "optuna.trial.Trial.report(…, no_such_argument)",
    ],
)
def test_a_module_a_class_a_name_and_an_argument_are_looked_for(name: str) -> None:
    there = ["optuna.trial.Trial._trial_id", "optuna.trial.Trial.report(…, step)", "optuna.trial.Trial"]
    require_names("optuna", there, "5.0.0")
    with pytest.raises(MacilError, match=re.escape(f"has no {name}: ")):
        require_names("optuna", [*there, name], "5.0.0")


def test_the_versions_that_are_known_to_work_are_those_that_are_tested() -> None:
    pinned = dict(
        line.split("==", 1) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    assert pinned["optuna"].strip() == optuna_internals.KNOWN


LIBRARIES = ("ray", "optuna")
# Undocumented, though nothing in their names says so.
UNDOCUMENTED = ("ray.experimental.internal_kv", "ray.core.generated")
ALLOWED = ("optuna_internals.py", "ray_internals.py")
NAMED_TUPLES = {"_replace", "_asdict", "_fields"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def imported(tree: ast.AST) -> Iterator[str]:
    """All that is imported of the libraries, with its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in LIBRARIES)


def own_names(trees: list[ast.AST]) -> set[str]:
    """Private names that the project gives itself."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names |= {node.attr} if ast.unparse(node.value) == "self" else set()
    return names


def inherited(module: str) -> Iterator[tuple[str, str]]:
    """Class and private name, of classes made from one of a library's, for each name of that one which they use."""
    for name, made in inspect.getmembers(importlib.import_module(module), inspect.isclass):
        if made.__module__ != module:
            continue
        bases = [base for base in made.__mro__ if base.__module__.split(".")[0] in LIBRARIES]
        for node in ast.walk(ast.parse(inspect.getsource(made))):
            used = node.attr if isinstance(node, ast.Attribute) else getattr(node, "name", None)
            if used and is_private(used) and any(hasattr(base, used) or is_set(base, used) for base in bases):
                yield name, used


def private_uses(files: dict[str, str]) -> list[str]:
    """What modules use of the private names of the libraries, by import or on an object of theirs."""
    trees = {name: ast.parse(text) for name, text in files.items()}
    own, found = own_names(list(trees.values())) | NAMED_TUPLES, []
    for name, tree in trees.items():
        names = list(imported(tree))
        found += [
            f"{name}: {each}"
            for each in names
            if each.startswith(UNDOCUMENTED) or any(map(is_private, each.split(".")))
        ]
        found += [
            f"{name}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if names and isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own
        ]
    return found


def sources() -> dict[str, str]:
    paths = [path for top in ("macil", "tune") for path in sorted((ROOT / top).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths if path.name not in ALLOWED}


def test_no_other_module_uses_a_private_name_of_ray_or_optuna() -> None:
    assert private_uses(sources()) == []


def test_no_class_made_from_one_of_theirs_uses_what_that_keeps_private() -> None:
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name, text in sources().items()
        if list(imported(ast.parse(text))) or "ray_internals" in text
    ]
    assert len(modules) > 10
    assert [(module, *each) for module in modules for each in inherited(module)] == []


def test_the_look_for_private_names_finds_them() -> None:
    lines = [
        "from ray._private import worker",
        "from ray.tune.trial import _name",
        "import ray.experimental.internal_kv",
        "from ray.core.generated.autoscaler_pb2 import Reply",
        "import optuna\nstudy = optuna.create_study()\nstudy._storage.get_trial(0)",
    ]
    for line in lines:
        assert len(private_uses({"module.py": line})) == 1, line
    assert private_uses({"module.py": "import ray\nclass A:\n    _b = 1\nA._b"}) == []
    assert list(inherited("tune.execution.ray_internals"))


def test_a_version_of_ray_without_a_name_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("ray.tune.execution.tune_controller.TuneController._set_trial_status")
    with pytest.raises(MacilError) as raised:
        ray_internals.check()
    assert str(raised.value) == (
        f"Ray {metadata.version('ray')} has no ray.tune.execution.tune_controller.TuneController._set_trial_status: "
        "this program relies on what Ray does not promise to keep. It is known to work with Ray 2.60.0; install that "
        "version (constraints.txt names those of all libraries): pip install 'ray==2.60.0'"
    )
