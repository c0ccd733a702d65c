"""What every command line shares: options from TrialConfig, exit statuses, no tracebacks."""

from __future__ import annotations

import errno
import io
import os
import signal
import time
import unicodedata

import click
import pytest
from rich.table import Table

from macil.commands.cli import (
    PlainConsole,
    given_hyperparameters,
    hyperparameter_options,
    main,
    resolve_config,
)
from macil.config import PRESETS, TrialConfig, hyperparameters
from macil.errors import DataError, UsageError


def failing(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UsageError("no such thing"), 2, "error: no such thing"),
        (DataError("two faults", ["one", "two"]), 1, "error: two faults\n  - one\n  - two"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("oh"), 70, "internal error: ZeroDivisionError: oh"),
        (OSError(errno.EBADF, "Bad file descriptor"), 70, "internal error: OSError"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: No space left on device"),
        (FileNotFoundError(errno.ENOENT, "No usable folder", ["/a"]), 1, "error: No usable folder"),
        (OSError("the network is gone"), 1, "error: the network is gone"),
        (MemoryError(), 1, "error: there is not enough memory for this; give smaller sizes"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            1,
            "error: there is not enough memory",
        ),
    ],
)
def test_errors_become_one_message_and_a_status(
    error: BaseException, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(failing(error), [])
    assert stop.value.code == status
    shown = capsys.readouterr().err
    assert text in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_signals_that_end_a_process_let_it_put_away_what_it_began(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    put_away: list[bool] = []
    found = signal.signal(number, signal.SIG_DFL)  # whatever nohup or a shell has left

    @click.command()
    def command() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            put_away.append(True)

    with pytest.raises(SystemExit) as stop:
        main(command, [])
    assert (stop.value.code, put_away) == (128 + number, [True])
    assert capsys.readouterr().err.strip() == "interrupted"
    assert signal.getsignal(number) is signal.SIG_DFL
    signal.signal(number, found)


def test_a_closed_terminal_does_not_end_what_nohup_began() -> None:
    @click.command()
    def command() -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as stop:
            main(command, [])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert stop.value.code == 0


def test_debug_anywhere_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(failing(DataError("a fault")), ["--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_unknown_options_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(failing(ValueError()), ["--nonsense"])
    assert stop.value.code == 2
    assert "--nonsense" in capsys.readouterr().err


def test_every_hyperparameter_is_an_option_under_both_spellings() -> None:
    given: dict[str, object] = {}

    @click.command()
    @hyperparameter_options
    def command(**options: object) -> None:
        given.update(given_hyperparameters(options))

    arguments, expected = [], {}
    for i, parameter in enumerate(hyperparameters()):
        value = parameter.choices[-1] if parameter.choices else parameter.default
        spelled = parameter.name if i % 2 else parameter.name.replace("_", "-")
        arguments += [f"--{spelled}", str(value).lower() if parameter.type is bool else str(value)]
        expected[parameter.name] = value
    with pytest.raises(SystemExit):
        main(command, arguments)
    assert given == expected


def test_options_that_were_not_given_leave_the_base_alone() -> None:
    assert resolve_config("light", None, {"ramp": 0.3, "epochs": None, "other": 1}) == PRESETS[
        "light"
    ].replace(ramp=0.3)
    assert resolve_config(None, None, {}) == TrialConfig()


def test_a_value_out_of_range_is_refused_with_the_range() -> None:
    with pytest.raises(
        UsageError, match=r"temperature = -1.0 is not allowed: expected a number from 0.005 to 10"
    ):
        resolve_config(None, None, {"temperature": -1.0})


def test_a_table_writes_what_could_command_a_terminal_as_escapes() -> None:
    output = io.StringIO()
    console = PlainConsole(file=output, width=60)
    table = Table(title="run \x1b]0;x\x07")
    table.add_column("folder")
    table.add_row("/runs/\x1f[bold]")
    console.print(table, markup=False)
    console.print("a\x9b line\nand another", markup=False)
    assert not {c for c in output.getvalue() if unicodedata.category(c) == "Cc"} - {"\n"}
    assert r"\x1f[bold]" in output.getvalue()
    assert "\nand another" in output.getvalue()
