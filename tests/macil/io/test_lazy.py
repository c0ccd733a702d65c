"""Packages whose public names are imported when they are used look as if all of them had been imported."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest


def declared(package: str) -> dict[str, str]:
    """Name -> module of what a package imports for whoever reads types."""
    tree = ast.parse(Path(str(import_module(package).__file__)).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    found = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in found for alias in node.names}


@pytest.mark.parametrize("package", ["macil", "macil.data", "tune"])
def test_every_public_name_is_what_the_types_say(package: str) -> None:
    module = import_module(package)
    names = declared(package)
    assert sorted(names) == sorted(module.__all__)
    assert {name: getattr(module, name) for name in names} == {
        name: getattr(import_module(home), name) for name, home in names.items()
    }
    assert set(names) <= set(dir(module))
    assert not hasattr(module, "nosuch")
