"""What is printed when nobody reads it, when its encoding lacks a character, and when there is nowhere to print."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from macil.io.streams import lasting_streams
from tests.support.repository import ROOT


def print_to(stream: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "__stdout__"):
        monkeypatch.setattr(sys, name, stream)


PRINTING = """
import sys, click
from macil.commands.cli import echo, main
from macil.errors import UsageError
@click.command()
@click.option("--wrong", is_flag=True)
def command(wrong):
    echo("x" * 100_000)
    echo("y", err=True)
    assert not sys.stdout.isatty()
    if wrong:
        raise UsageError("z")
main(command)
"""


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run with bash; `macil` is a command that prints, and a part of a pipe that fails makes it fail."""
    macil = f"macil() {{ '{sys.executable}' -c '{PRINTING}' \"$@\"; }}; set -eo pipefail;"
    return subprocess.run(
        ["bash", "-c", f"{macil} {command}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_what_nobody_reads_any_more_is_dropped(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.openpty() if terminal else os.pipe()
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        print_to(stream, monkeypatch)
        with lasting_streams():
            print("one", flush=True)
            assert os.read(reader, 100).split() == [b"one"]
            os.close(reader)
            for _ in range(3):
                print("x" * 100_000, flush=True)
            assert os.readlink(f"/proc/self/fd/{writer}") == "/dev/null"  # noqa: PTH115 (no file)
        assert sys.stdout is stream


def test_characters_that_an_encoding_lacks_are_spelled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        print_to(stream, monkeypatch)
        with lasting_streams():
            print("Λ_v2b, τ – 1 … é", os.fsdecode(b"\xff"))
    assert (tmp_path / "out").read_text() == "Lambda_v2b, tau - 1 ... \\xe9 \\udcff\n"


def test_a_command_ends_well_whoever_reads_it_and_tells_of_a_full_disk() -> None:
    ended = shell("macil >&- 2>&-; macil --wrong 2>&1 | true")
    assert (ended.stdout, ended.stderr) == ("", "")
    assert ended.returncode == 2, "the last one alone was refused"
    ended = shell("macil > /dev/full")
    assert (ended.returncode, ended.stderr) == (1, "error: No space left on device\n")
