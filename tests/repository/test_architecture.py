"""The house stands as docs/architecture.md says: imports go one way, names clash with none, every folder speaks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from docs.architecture import FOR_ALL_WHO_IMPORT_RAY, MAY_IMPORT_RAY, ORDER, ROOT, floor_of, imports, modules

PACKAGES = ("macil", "tune")
# The two scripts; nobody imports them.
SCRIPTS = {"tune.search", "tune.report"}


def wrong_ways(package: str, root: Path = ROOT) -> list[str]:
    """Every import from a lower floor to a higher one, and from macil to tune."""
    found = []
    for each in imports(package, root):
        if each.imported.startswith(FOR_ALL_WHO_IMPORT_RAY) and each.importer.startswith(MAY_IMPORT_RAY):
            continue
        if package == "macil" and each.imported.split(".")[0] == "tune":
            found.append(f"{each.importer}:{each.line} imports {each.imported}")
        here, there = floor_of(each.importer), floor_of(each.imported)
        if (
            each.imported.startswith(f"{package}.")
            and here is not None
            and there is not None
            and there > here
        ):
            found.append(f"{each.importer}:{each.line} imports {each.imported}, which is above it")
    return found


def ray_importers(root: Path = ROOT) -> list[str]:
    return sorted(
        f"{each.importer}:{each.line} imports {each.imported}"
        for package in PACKAGES
        for each in imports(package, root)
        if each.imported.split(".")[0] == "ray"
        and not each.importer.startswith(tuple(f"{place}." for place in MAY_IMPORT_RAY))
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_its_floor(package: str) -> None:
    outside = {name for name in modules(package) if floor_of(name) is None}
    assert outside <= {"macil", "macil.__main__", "tune", *SCRIPTS}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_from_higher_floors_to_lower_ones(package: str) -> None:
    assert wrong_ways(package) == []


def test_only_cluster_and_execution_import_ray() -> None:
    assert ray_importers() == []


def test_nobody_imports_the_scripts() -> None:
    assert [each for package in PACKAGES for each in imports(package) if each.imported in SCRIPTS] == []


def test_a_wrong_import_is_noticed_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "tune" / "storage").mkdir(parents=True)
    (tmp_path / "tune" / "storage" / "names.py").write_text(
        "def late():\n    from tune.planning import plan\n    import ray.tune\n", encoding="utf-8"
    )
    assert wrong_ways("tune", tmp_path) == [
        "tune.storage.names:2 imports tune.planning.plan, which is above it"
    ]
    assert ray_importers(tmp_path) == ["tune.storage.names:3 imports ray.tune"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_says_what_it_is_for(package: str) -> None:
    silent = [
        name
        for name, path in modules(package).items()
        if path.name == "__init__.py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_in_a_package_is_that_of_a_library(package: str) -> None:
    """A script puts its own folder first on the path, where `random.py` would be taken for Python's."""
    # What Python has loaded before it looks at any path cannot be hidden; `io` is one of those.
    command = [sys.executable, "-S", "-I", "-c", "import sys; print(*sys.modules)"]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    libraries = sys.stdlib_module_names | set(packages_distributions()) - set(PACKAGES)
    own = {name.split(".")[1] for name in modules(package) if "." in name and "__" not in name}
    assert own & libraries - loaded == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_lists_the_floors_from_the_top(package: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text[text.index(f"| floor of `{package}` |") :].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(reversed(ORDER[package]))
