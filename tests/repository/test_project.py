"""What the repository says about itself is true: documents, pins, packaging, imports."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import macil
from macil.config import TrialConfig
from macil.data import FeatureStore
from tests.support.claims import unfailing_tests
from tests.support.repository import ROOT
from tune.results.tables import EPOCHS_SCHEMA, TRIALS_SCHEMA

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [path for package in ("macil", "tune") for path in sorted((ROOT / package).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# Dependencies


def requirements(extra: str | None = None) -> list[Requirement]:
    project = PROJECT["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [Requirement(line) for line in lines]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"macil", "tune"}


@pytest.mark.parametrize(
    "requirement",
    [r for r in [*requirements(), *requirements("export"), *requirements("dev")] if r.name != "macil-tune"],
    ids=lambda r: str(r.name),
)
def test_every_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_pins_carry_no_local_version() -> None:
    assert [name for name, version in pins().items() if version.local] == []


def test_what_the_packages_import_is_declared_and_the_reverse() -> None:
    providers = packages_distributions()
    imported = {canonicalize_name(providers[name][0]) for path in SOURCES for name in imported_packages(path)}
    declared = {canonicalize_name(r.name) for r in [*requirements(), *requirements("export")]}
    assert imported == declared - {"onnxscript"}  # torch.onnx.export imports that


def test_every_dependency_is_imported_where_its_comment_says() -> None:
    providers = packages_distributions()
    wrong = []
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("dev = [")[0].splitlines():
        match = re.match(r'\s+"([a-z0-9-]+)[^"]*",\s+# (.+)', line)
        if match is None:
            continue
        for named in re.findall(r"(?:macil|tune)/[\w/]+\.py", match[2]):
            names = imported_packages(ROOT / named)
            if match[1] not in {canonicalize_name(providers[name][0]) for name in names}:
                wrong.append(f"{named} does not import {match[1]}")
    assert wrong == []


def test_macil_imports_neither_ray_nor_optuna() -> None:
    modules = [relative(path.with_suffix("")).replace("/", ".") for path in SOURCES]
    modules = [name.removesuffix(".__init__") for name in modules if name.startswith("macil.")]
    script = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'ray', 'optuna', 'tune'}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# Packaging


def test_every_file_of_the_packages_is_packaged() -> None:
    shipped = {"macil": set[Path](), "tune": set[Path]()}
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        shipped[package] = {path for pattern in patterns for path in (ROOT / package).glob(pattern)}
    for package, data in shipped.items():
        files = [p for p in (ROOT / package).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        assert {relative(p) for p in files if p.suffix != ".py"} == {relative(p) for p in data}
        assert {
            relative(p.parent) for p in files if p.suffix == ".py" and not (p.parent / "__init__.py").exists()
        } == set()


def test_changelog_begins_with_the_version_of_the_package() -> None:
    released = re.findall(
        r"^## \[(\d\S*)\] - \d{4}-\d\d-\d\d$",
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert released[0] == macil.__version__


def test_ci_runs_what_make_test_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^make test VENV=", script.read_text(encoding="utf-8"), re.MULTILINE)


def test_pre_commit_runs_only_tools_of_make_test() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0][
        "hooks"
    ]
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ntest:")[1].split("\n\n")[0]
    assert hooks
    for hook in hooks:
        tool = re.search(r"-m (\w+)( check| format)?", hook["entry"])
        assert tool is not None
        assert tool[0] in recipe


# Documents


def code_segments(path: Path) -> Iterator[str]:
    """Lines of fenced blocks, then inline code: one command each."""
    prose = []
    fenced = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced:
            yield line
        else:
            prose.append(line)
    yield from re.findall(r"`([^`]+)`", " ".join(prose))


def commands() -> dict[str, click.Command]:
    group = importlib.import_module("macil.__main__").app
    found = {f"python -m macil {name}": command for name, command in group.commands.items()}
    for script in ("search", "report"):
        module = importlib.import_module(f"tune.commands.{script}")
        (command,) = [value for value in vars(module).values() if isinstance(value, click.Command)]
        found[f"tune/{script}.py"] = command
    found["make search"] = found["tune/search.py"]
    return found


def test_the_readme_says_what_was_not_run_and_where_data_and_code_are() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    (sentence,) = re.findall(r"Nothing has been run on the real XD-Violence features yet: .*? ## ", text)
    assert "`python tune/search.py --data DIR --sweep table4 --seeds 5`" in sentence
    assert "(https://roc-ng.github.io/XD-Violence/)" in sentence
    assert "(https://github.com/JustinYuu/MACIL_SD)" in sentence


def options(command: click.Command) -> set[str]:
    return {"--help", "--debug"} | {
        name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "cluster.yaml"], ids=relative)
def test_every_command_and_option_in_the_documents_exists(path: Path) -> None:
    known = commands()
    anywhere = set().union(*(options(command) for command in known.values()))
    text = path.read_text(encoding="utf-8").splitlines()
    segments = (
        list(code_segments(path)) if path.suffix == ".md" else [line for line in text if line.startswith("#")]
    )
    unknown = []
    for segment in segments:
        called = re.search(r"tune/\w+\.py|python -m macil \w+|make search", segment)
        if called is None and not segment.startswith("--"):
            continue  # pip, ray and other people's options
        name = called[0] if called else ""
        allowed = options(known[name]) if name in known else set() if name else anywhere
        if name == "make search":
            segment = "".join(re.findall(r'ARGS="[^"]*"', segment))
        rest = segment[segment.find(name) + len(name) :].split("#")[0]
        unknown += [
            f"{option} in: {segment}"
            for option in re.findall(r"--[a-z][\w-]*", rest)
            if option not in allowed
        ]
        if name and name not in known and not (ROOT / name).is_file():
            unknown.append(f"{name} does not exist")
    assert unknown == []


def test_make_targets_in_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {
        m[1] for path in DOCUMENTS for text in code_segments(path) if (m := re.match(r"make ([a-z]+)", text))
    }
    assert {"search", "test"} <= named <= targets


def test_files_of_the_repository_that_the_documents_name_exist() -> None:
    named = {
        (path.name, name)
        for path in DOCUMENTS
        for name in re.findall(
            r"`((?:macil|tune|tests|docs|deploy|benchmarks)/[\w/.-]+\.\w+)`", path.read_text(encoding="utf-8")
        )
    }
    assert len(named) > 40
    assert {(page, name) for page, name in named if not (ROOT / name).is_file()} == set()


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=relative)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_the_python_example_of_the_readme_runs(
    demo_store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    (tmp_path / "xd.store").symlink_to(demo_store.path)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    scores = [float(line) for line in capsys.readouterr().out.splitlines()]
    assert len(scores) == 20
    assert scores == sorted(scores), "selection_score is a running best"


def test_the_columns_that_the_documents_explain_exist() -> None:
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8").split("## Reading the tables")[1]
    named = {name for name in re.findall(r"`([a-z]+(?:_[a-z]+)*)`", text) if "_" in name or name == "ap"}
    assert named <= set(TRIALS_SCHEMA.names) | set(EPOCHS_SCHEMA.names)
    assert {"ap", "ap_trapezoid", "selection_score", "epoch_rule"} <= named


def test_the_fidelity_page_names_every_switch_with_its_two_values() -> None:
    text = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    rows = {
        m[1]: (m[2], m[3])
        for m in re.finditer(r"^\| `(\w+)` \| `?(\w+)`?.*? \| `?(\w+)`?.*\|$", text, re.MULTILINE)
    }
    released, paper = TrialConfig().to_dict(), TrialConfig(fidelity="paper").to_dict()
    expected = {
        name: (str(released[name]).lower(), str(paper[name]).lower())
        for name in released
        if released[name] != paper[name] and name != "fidelity"
    }
    assert rows == expected


# Tests


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_every_test_can_fail(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert "def test_" in source
    assert unfailing_tests(source) == []


def test_what_cannot_fail_is_found() -> None:
    """Each of these tests passes whatever the code under test does."""
    source = """
CASES = []
MORE = [1, *CASES]
def helper(x):
    for each in x:
        assert each
def test_nothing(): print(1)
def test_loop(x):
    for each in x: assert each
def test_loop_of_a_filter():
    for each in [e for e in MORE if e]: assert each
def test_no_cases():
    for each in sorted(CASES): assert each
def test_all(x): assert all(each for each in x)
def test_helper(x): helper(x)
"""
    can_fail = """
def test_cases():
    for place, each in enumerate(MORE): assert each
def test_counted(x):
    assert x
    for each in x: assert each
def test_expects():
    with pytest.raises(ValueError): print(1)
def test_all_of_some(): assert all(each for each in ("a", "b"))
"""
    found = ["test_nothing", "test_loop", "test_loop_of_a_filter", "test_no_cases", "test_all", "test_helper"]
    assert unfailing_tests(source + can_fail) == found
