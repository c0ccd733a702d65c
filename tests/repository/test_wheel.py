"""What pip installs: every file of the packages, commands that run from anywhere, and the commands that they print."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import macil
from macil.data.store.feature_store import FeatureStore
from tests.support.repository import ROOT

DATA = {
    "macil/py.typed",
    "macil/data/demo/speech.npz",
    "macil/data/demo/NOTICE",
    "tune/py.typed",
    "tune/planning/default_space.toml",
    "tune/reporting/pages/templates/report.html",
}
LICENSES = {"LICENSE", "LICENSES/CC-BY-SA-4.0.txt", "macil/data/demo/NOTICE"}
INFO = f"macil_tune-{macil.__version__}.dist-info"


def tracked() -> list[str]:
    """The files of the packages and those that they are built from, as git has them, or will."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "macil", "tune"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [name for name in listed if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the sdist, built from a copy: a build leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    for name in [*tracked(), "pyproject.toml", "README.md", "LICENSE", "LICENSES/CC-BY-SA-4.0.txt"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    script = (
        "from setuptools import build_meta\n"
        "print(build_meta.build_sdist('../dist'), build_meta.build_wheel('../dist'))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sdist, wheel = done.stdout.splitlines()[-1].split()
    return {"sdist": folder / "dist" / sdist, "wheel": folder / "dist" / wheel}


def test_the_wheel_holds_every_file_of_the_packages_with_licences_and_commands(
    built: dict[str, Path],
) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = set(wheel.namelist())
        commands = wheel.read(f"{INFO}/entry_points.txt").decode()
        metadata = wheel.read(f"{INFO}/METADATA").decode()
    files = {name for name in tracked() if not name.endswith("README.md")}
    assert files >= DATA
    assert {name for name in names if not name.startswith(INFO)} == files
    assert {f"{INFO}/licenses/{name}" for name in LICENSES} <= names
    for command in ("macil", "macil-search", "macil-report"):
        assert re.search(rf"^{command} = (macil|tune)\.commands\.", commands, re.MULTILINE), commands
    assert "License-Expression: MIT AND CC-BY-SA-4.0" in metadata


def test_the_sdist_holds_what_the_wheel_is_built_from(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {*tracked(), *LICENSES, "pyproject.toml", "README.md"} <= names


def test_the_classifiers_name_the_versions_of_python_that_it_was_run_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {text.rpartition(" ")[2] for text in project["classifiers"] if "Python :: 3." in text}
    assert named == {"3.11"}  # further ones when they have been run


@pytest.fixture(scope="module")
def installed(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own into which pip has installed the wheel; its dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("clean") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    command = [*pip, "install", "--quiet", "--no-index", "--no-deps", str(built["wheel"])]
    subprocess.run(command, check=True, capture_output=True)
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # Packages of this environment, without what makes the checkout importable: files that name others are not read.
    others = {sysconfig.get_path("purelib"), *site.getsitepackages()} - {own}
    (Path(own) / "others.pth").write_text("\n".join(sorted(others)) + "\n")
    return folder


def call(command: str, cwd: Path) -> str:
    environment = {name: each for name, each in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.usefixtures("_no_shared_ray")
def test_what_pip_has_installed_searches_from_anywhere_and_says_how_to_go_on(
    installed: Path, demo_store: FeatureStore, tmp_path: Path
) -> None:
    own = installed / "bin"
    where = call(f"{own}/python -c 'import macil, tune; print(macil.__file__, tune.__file__)'", tmp_path)
    assert all(path.startswith(str(installed)) for path in where.split()), where
    small = "--trials 1 --epochs 1 --hidden-dim 16 --feedforward-dim 16 --cpus-per-trial 1"
    data = shlex.quote(str(demo_store.path))
    output = call(f"{own}/macil-search --data {data} {small} --name first --no-report", tmp_path)
    (command,) = re.findall(r"^write the report: (.+)$", output, re.MULTILINE)
    assert command.startswith(f"{own}/macil-report ")
    assert "report.html" in call(f"{command} --no-figures", tmp_path)
    assert "first" in call(f"{own}/macil-search --status first", tmp_path)
    assert f"Usage: {own}/macil evaluate" in call(f"{own}/macil evaluate --help", tmp_path)
    measured = call(f"{own}/macil evaluate runs/first {data}", tmp_path)
    assert "AP (step-wise)" in measured
    assert call(f"{own}/macil-search --print-space", tmp_path).startswith("#")


@pytest.fixture
def _no_shared_ray(without_ray: object) -> None:
    assert callable(without_ray)
    without_ray()


def interpreter(version: str) -> Path | None:
    """A Python of that version on this machine that starts."""
    found: list[str | Path] = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if on_path := shutil.which(f"python{version}"):
        found.insert(0, on_path)
    for each in found:
        if subprocess.run([each, "--version"], capture_output=True, check=False).returncode == 0:
            return Path(each)
    return None


@pytest.mark.nightly
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_tested_versions_can_be_had_for_later_interpreters(
    version: str, built: dict[str, Path], tmp_path: Path
) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not on this machine")
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(tmp_path / "env" / "bin" / "python")]
    command = [*pip, "install", "--dry-run", "--quiet", "--only-binary=:all:"]
    command += ["--constraint", str(ROOT / "constraints.txt"), str(built["wheel"])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
