"""Commands to paste: a shell reads back every word, whatever is in it, and starts what is meant from any folder."""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from macil.io import command_line as commandline
from macil.io.command_line import command_line, from_any_folder, quoted, typed_name
from tests.support.repository import ROOT

WORDS = [
    "plain",
    "",
    "my runs #1",
    "it's",
    '"$HOME"',
    "`id`",
    "a\\b",
    "x;y&z",
    "*?[a]",
    "~",
    "!1",
    "-x",
    "é",
    "\u2028",
]
WORDS += ["line\nbreak", "it's \x1b[31m red \\", "caf\udce9"]


def test_a_shell_reads_back_every_word() -> None:
    line = " ".join(map(quoted, WORDS))
    assert "\x1b" not in line
    output = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    assert output == b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in WORDS)


def test_what_lies_below_the_current_folder_is_typed_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv/bin/python"))
    monkeypatch.chdir(ROOT)
    assert command_line("tune/report.py", "x y") == ".venv/bin/python tune/report.py 'x y'"
    assert command_line("macil", "check", Path("-x")) == ".venv/bin/python -m macil check ./-x"
    monkeypatch.chdir(tmp_path)
    assert command_line("tune/report.py") == shlex.join(
        [f"{ROOT}/.venv/bin/python", f"{ROOT}/tune/report.py"]
    )
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert command_line("webbrowser") == "./python -m webbrowser"


def test_what_is_kept_does_not_depend_on_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv/bin/python"))
    monkeypatch.chdir(ROOT)
    with from_any_folder():
        assert command_line("tune/report.py").split() == [
            f"{ROOT}/.venv/bin/python",
            f"{ROOT}/tune/report.py",
        ]
    assert command_line("tune/report.py") == ".venv/bin/python tune/report.py"


def test_a_checkout_that_is_not_installed_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commandline, "_SITE", ())
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.chdir(ROOT)
    assert "PYTHONPATH" not in command_line("macil", "config")
    monkeypatch.chdir(tmp_path)
    line = command_line("macil", "config")
    assert line.startswith(f"PYTHONPATH={quoted(str(ROOT))} ")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "lambda_v2b" in done.stdout


@pytest.mark.parametrize(
    ("program", "name", "module"),
    [("macil", "macil", "macil"), ("tune/search.py", "macil-search", "tune.search")],
)
def test_what_pip_has_installed_is_called_by_its_commands_and_without_them_by_modules(
    program: str, name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commandline, "_CHECKOUT", False)
    monkeypatch.setattr(commandline, "_SITE", (str(ROOT),))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "bin"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert command_line(program, "x") == f"./python -m {module} x"
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / name
    command.touch(mode=0o755)
    assert command_line(program, "x") == f"bin/{name} x"
    assert typed_name(command) == f"bin/{name}"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert command_line(program, "x") == f"{name} x"
    with from_any_folder():
        assert command_line(program, "x") == f"{command} x"


def test_a_program_is_named_as_a_checkout_has_it_however_it_was_started() -> None:
    assert typed_name(Path("/usr/bin/macil-report")) == command_line("tune/report.py")
    assert typed_name(ROOT / "tune" / "search.py") == command_line("tune/search.py")
    assert typed_name(ROOT / "macil" / "__main__.py") == command_line("macil")
