"""Parts shared by every command line of the project: options derived from `TrialConfig`, errors without tracebacks."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar, get_args

import click
from rich.console import Console
from rich.text import Text

from macil.config import PRESETS, Hyperparameter, TrialConfig, hyperparameters
from macil.data.reading import MOST_FRAMES, Reading, Silent
from macil.data.split import SplitBy
from macil.errors import MacilError, UsageError
from macil.io.command_line import typed_name
from macil.io.remote import is_uri, local_path
from macil.io.streams import lasting_streams
from macil.io.text import printable

_CommandT = TypeVar("_CommandT", bound=Callable[..., Any])

INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130
# In the messages of PyTorch, which has no class of its own for memory of the CPU.
_OUT_OF_MEMORY = re.compile("can't allocate memory|CUDA out of memory")


def main(command: click.Command, argv: Sequence[str] | None = None) -> NoReturn:
    """Run `command` and leave the process: 0 done, 1 data at fault, 2 usage at fault, 130 interrupted, 70 a bug.

    An error is one line (or a list) on standard error. `--debug`, anywhere on the line, shows the traceback as well.
    SIGTERM and SIGHUP end a command as Ctrl-C does, with 128 and their number; what is printed when nobody reads it any
    more is dropped.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    with lasting_streams(), _terminable():
        code = _run(command, arguments, debug=debug)
    sys.exit(code)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let the signals that end a process end it as Ctrl-C does: what is begun is put away."""

    def end(number: int, _: FrameType | None) -> None:
        raise Terminated(number)

    # One that is ignored stays so: `nohup` means it.
    ours = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL
    ]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


class Word(click.types.StringParamType):
    """Text that is not empty: `--name "$NAME"` without NAME must not mean a default."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text; see `click.ParamType.convert`."""
        text = super().convert(value, param, ctx)
        if not str(text).strip():
            self.fail("it is empty; give a value, or leave it out", param, ctx)
        return text


class Location(click.Path):
    """A path or a file:// URI, as a `Path`; where `remote` is set any other URI too, as text."""

    def __init__(self, *, remote: bool = False) -> None:
        super().__init__(path_type=Path)
        self.remote = remote

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        """The path or URI; see `click.ParamType.convert`."""
        if self.remote and is_uri(value):
            return str(value)
        try:
            return local_path(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


# Titles of sections of help, in which several commands have options.
DATA, COMPARED = "Data", "How trials are compared"
_HYPERPARAMETERS, _HELP = "Hyperparameters", "Help"
_COMMON = ("epochs", "batch_size")  # of the hyperparameters, in the short help
_ALL = "macil.help_all"
WORD, PATH, PATH_OR_URI = Word(), Location(), Location(remote=True)


class PlainConsole(Console):
    """A console that writes what could command a terminal as escapes, in tables too."""

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as rich has it; see `rich.console.Console.render_str`."""
        return super().render_str(printable(text, keep="\n"), **options)


def plain_console(*, quiet: bool = False) -> PlainConsole:
    """Where a run says how it goes: standard output, or nowhere."""
    # A log has no width of its own; 80 columns would fold the leaderboard's every cell.
    return PlainConsole(width=None if sys.stdout.isatty() else 140, quiet=quiet)


def echo(text: str, *, keep: str = "", err: bool = False, nl: bool = True) -> None:
    """Print for people: a name from data or from the command line could command the terminal, or end the line.

    Args:
        text: A line; several, where `keep` is a newline.
        keep: Characters to leave as they are.
        err: On standard error.
        nl: End the line.
    """
    # With its stream: click would not keep to one that it takes for misconfigured.
    click.echo(printable(text, keep), file=sys.stderr if err else sys.stdout, nl=nl)


class SectionedOption(click.Option):
    """An option with the title of the section in which help lists it, and whether it is among the common ones."""

    def __init__(self, *names: Any, section: str = "", common: bool = False, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.section, self.common = section, common

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Names and text: of two spellings, with - and with _, the first."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        names, text = record
        for name in self.opts[1:]:
            names = names.replace(f", {name}", "") if "_" in name else names
        return names, text


class SectionedCommand(click.Command):
    """A command whose help lists its options in sections: --help the common ones, --help-all every one.

    Args:
        settings: Those of `click.Command`; sections come in the order of their first option.
        examples: What a command line does, and the line without the command.
    """

    def __init__(self, *settings: Any, examples: Sequence[tuple[str, str]] = (), **named: Any) -> None:
        super().__init__(*settings, **named)
        self.examples = examples
        self.params.append(
            SectionedOption(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=self._show_all,
                section=_HELP,
                common=True,
                help="Show every option and exit.",
            )
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, and then the examples; see `click.Command.format_options`."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            common = getattr(parameter, "common", True) or ctx.meta.get(_ALL, False)
            if record is not None and common:
                sections.setdefault(getattr(parameter, "section", _HELP), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
        with formatter.section("Examples"):
            for meaning, words in self.examples:
                formatter.write(f"  {ctx.command_path} {words}".rstrip() + f"\n      {meaning}\n")

    @staticmethod
    def _show_all(context: click.Context, _option: click.Parameter, given: bool) -> None:
        if given and not context.resilient_parsing:
            context.meta[_ALL] = True
            click.echo(context.get_help())
            context.exit()


def option(*names: str, **settings: Any) -> Callable[[_CommandT], _CommandT]:
    """Decorator: `click.option` with `section` and `common`, see `SectionedOption`."""
    return click.option(*names, cls=SectionedOption, **settings)


def reading_options(command: _CommandT) -> _CommandT:
    """Decorator: the options of `macil.data.reading.Reading`, how a folder is read; None unless given."""
    frames = option(
        "--snippet-frames",
        section=DATA,
        type=click.IntRange(1, MOST_FRAMES),
        help="Frames of a snippet of a data folder; default 16, or what gt.npy says.",
    )
    silent = option(
        "--silent",
        section=DATA,
        type=click.Choice(get_args(Silent)),
        help="Videos of a data folder whose audio is all zero, or has no file: read as zeros, or left out. Default: "
        "zeros are taken as they are, a missing file is a fault.",
    )
    outside = option(
        "--outside",
        section=DATA,
        is_flag=True,
        callback=lambda _context, _option, value: value or None,
        help="Feature files that a manifest names may lie outside of its folder.",
    )
    visual_only = option(
        "--visual-only",
        section=DATA,
        is_flag=True,
        callback=lambda _context, _option, value: value or None,
        help="Read no audio: for data without any. MACIL-SD cannot be trained on them.",
    )
    return frames(silent(visual_only(outside(command))))


split_by_option = option(
    "--split-by",
    section=COMPARED,
    type=click.Choice(get_args(SplitBy)),
    help="What the held-out split keeps on one side; default source, all clips of a film. By video flatters.",
)


def given_reading(options: Mapping[str, Any]) -> Reading:
    """How a command is to read a folder."""
    return Reading(**{name: options[name] for name in Reading.model_fields})


def hyperparameter_options(command: _CommandT) -> _CommandT:
    """Decorator: one option for each hyperparameter, `--lambda_v2b` and `--lambda-v2b` alike, absent unless given."""
    for parameter in reversed(hyperparameters()):
        command = _option(parameter)(command)
    return command


def config_options(command: _CommandT) -> _CommandT:
    """Decorator: `--preset` and `--config`, what the hyperparameter options start from."""
    preset = option(
        "--preset",
        section=_HYPERPARAMETERS,
        common=True,
        type=click.Choice(list(PRESETS)),
        help="Start from a row of the paper's Table 3; default full.",
    )
    file = option(
        "--config",
        "config_file",
        type=PATH,
        section=_HYPERPARAMETERS,
        common=True,
        help="Start from this TOML or YAML file.",
    )
    return preset(file(command))


def resolve_config(preset: str | None, config_file: Path | None, options: dict[str, Any]) -> TrialConfig:
    """The configuration of a command line: a preset or a file, changed by the hyperparameters among `options`.

    Raises:
        UsageError: Both a preset and a file.
        ConfigError: Values that `TrialConfig` refuses.
    """
    if preset is not None and config_file is not None:
        raise UsageError("--preset and --config both say where to start from; give one of them")
    base = TrialConfig.load(config_file) if config_file is not None else PRESETS[preset or "full"]
    return base.replace(**given_hyperparameters(options))


def given_hyperparameters(options: dict[str, Any]) -> dict[str, Any]:
    """The hyperparameters that were given among a command's `options`; validated later, by `TrialConfig`."""
    return {
        name: value
        for name, value in options.items()
        if name in TrialConfig.model_fields and value is not None
    }


def _option(parameter: Hyperparameter) -> Callable[[_CommandT], _CommandT]:
    names = dict.fromkeys((f"--{parameter.name.replace('_', '-')}", f"--{parameter.name}"))
    kind: Any = click.Choice(parameter.choices) if parameter.choices else parameter.type
    unit = f" {parameter.unit}," if parameter.unit else ""
    symbol = f" ({parameter.symbol})" if parameter.symbol else ""
    text = f"{parameter.help}{symbol};{unit} default {parameter.default}"
    common = parameter.name in _COMMON
    section = {"section": _HYPERPARAMETERS, "common": common}
    return option(*names, parameter.name, type=kind, default=None, help=text, **section)


def _run(command: click.Command, arguments: list[str], *, debug: bool) -> int:
    try:
        result = command.main(
            args=arguments, standalone_mode=False, prog_name=typed_name(Path(sys.argv[0]).absolute())
        )
        sys.stdout.flush()  # here a full disk has its message
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except click.ClickException as error:
        output = io.StringIO()
        error.show(output)
        _complain(output.getvalue().rstrip("\n"))
        return error.exit_code
    except MacilError as error:
        if debug:
            traceback.print_exc()
        _complain("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as stop:
        print("interrupted", file=sys.stderr)
        cause = stop.__cause__ if isinstance(stop, click.Abort) else stop  # click makes its own of it
        return cause.exit_code if isinstance(cause, Terminated) else INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        if (refused := _refusal_of_the_system(error)) is not None:
            _complain(f"error: {refused}")
            return MacilError.exit_code
        reason = " ".join(str(error).split()) or "no message"
        _complain(f"internal error: {type(error).__name__}: {reason[:500]}")
        print("this is a bug; run again with --debug to see where, and report it", file=sys.stderr)
        return INTERNAL_ERROR
    return result if isinstance(result, int) else 0


def _refusal_of_the_system(error: Exception) -> str | None:
    """What the system refuses where no message of ours expects it; None for anything else, which is a bug."""
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        return (
            "there is not enough memory for this; give smaller sizes (--batch-size, --max-snippets, --hidden-dim), or "
            "fewer trials at once (--concurrent)"
        )
    if isinstance(error, OSError) and error.errno != errno.EBADF:
        reason = " ".join((error.strerror or str(error)).split()) or type(error).__name__
        named = isinstance(error.filename, str | bytes | os.PathLike)
        return f"{os.fsdecode(error.filename)}: {reason}" if named else reason
    return None


def _complain(text: str) -> None:
    echo(text, keep="\n", err=True)
