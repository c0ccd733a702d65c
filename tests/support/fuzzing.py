"""What the fuzz tests share: damage to files, the command line under limits, and what must hold whatever it was given.

By day (`make test`) each test draws some dozens of inputs, the same ones every time, which takes seconds. By night
(`make test-all`, which sets `MACIL_FUZZ=nightly`) it draws ninety times as many, never seen before.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from macil.commands import cli

NIGHTLY = os.environ.get("MACIL_FUZZ") == "nightly"
# Of the examples a test names: a third by day, thirty times as many by night.
_DAY_SHARE, _NIGHTLY_FACTOR = 3, 30

# Seconds of processor time after which a command counts as hanging: a slow or busy machine does not change them. And
# seconds by the clock, for what waits without working.
_MOST_SECONDS, _LONGEST_WAIT = 20, 120
# What a command may allocate beyond what the process has: an input of a few kilobytes has no use for more.
_MOST_BYTES = 3 * 1024**3

LONG = pytest.mark.timeout(6 * 3600 if NIGHTLY else 300)
"""For the tests of a file: what the project allows a test is too short for a night's examples."""

Damage = Callable[[Path, random.Random], None]
"""Changes the file or the folder it is given."""


def examples(usual: int) -> settings:
    """A share of so many examples by day, and a multiple of them by night."""
    return settings(
        max_examples=usual * _NIGHTLY_FACTOR if NIGHTLY else -(-usual // _DAY_SHARE),
        derandomize=not NIGHTLY,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def output(self) -> str:
        return self.out + self.err


def call(command: click.Command, *arguments: object) -> Outcome:
    """Run a command line as a process of its own would, but for the process; it must end as documented."""
    streams = [
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors)
        for errors in ("strict", "backslashreplace")
    ]
    code: Any = None
    before = list(sys.argv)
    with _limited(), contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            cli.main(command, [str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
    sys.argv = before
    out, err = (stream.buffer.getvalue().decode() for stream in map(_flushed, streams))  # type: ignore[attr-defined]
    outcome = Outcome(code or 0, out, err)
    context = f"{arguments}\nexit status {code}\n{outcome.output[-3000:]}"
    assert outcome.code in (0, 1, 2), context
    assert "Traceback" not in outcome.output, context
    assert "internal error" not in outcome.output, context
    assert outcome.code == 0 or outcome.output.strip(), f"no message\n{context}"
    control = {c for c in outcome.output if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} - {"\n"}
    assert not control, f"{control} could command a terminal\n{context!r}"
    return outcome


def damages(table: Mapping[str, Damage], most: int = 4) -> st.SearchStrategy[list[tuple[str, int]]]:
    """One to `most` kinds of damage, each with the seed of its random choices."""
    one = st.tuples(st.sampled_from(sorted(table)), st.integers(0, 2**20))
    return st.lists(one, min_size=1, max_size=most)


def apply(table: Mapping[str, Damage], chosen: Sequence[tuple[str, int]], path: Path) -> None:
    """Damage `path`; what an earlier damage has made impossible is left out."""
    for name, seed in chosen:
        with contextlib.suppress(OSError):
            table[name](path, random.Random(seed))


# Damage to a file of any kind.


def truncate(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def flip_bytes(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 3, 30])):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)


def flip_first_bytes(path: Path, rng: random.Random) -> None:
    """In the first bytes, where formats keep what they are."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 2, 8])):
        if content:
            content[rng.randrange(min(len(content), 256))] = rng.randrange(256)
    path.write_bytes(content)


def flip_last_bytes(path: Path, rng: random.Random) -> None:
    """In the last bytes, where archives and Arrow files keep their directories."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 2, 8])):
        if content:
            content[-1 - rng.randrange(min(len(content), 512))] = rng.randrange(256)
    path.write_bytes(content)


def replace_by_noise(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.choice([0, 1, 5, 200, 5000])))


def append_noise(path: Path, rng: random.Random) -> None:
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.choice([1, 8, 300])))


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def make_folder_of(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def link_astray(path: Path, rng: random.Random) -> None:
    target = rng.choice(["/nowhere/at/all", path.name, "..", "/dev/null", "/dev/zero", "/proc/self/status"])
    path.unlink()
    path.symlink_to(target)


def make_pipe_of(path: Path, rng: random.Random) -> None:
    """Reading a pipe that nobody writes to waits for ever."""
    path.unlink()
    os.mkfifo(path)


def _to_a_file(damage: Damage) -> Damage:
    def careful(path: Path, rng: random.Random) -> None:
        # What a link leads to lies outside of the test's folder, and a pipe would make the test itself wait.
        if path.is_file() and not path.is_symlink():
            damage(path, rng)

    return careful


ANY_FILE: dict[str, Damage] = {
    each.__name__: _to_a_file(each)
    for each in (
        truncate,
        flip_bytes,
        flip_first_bytes,
        flip_last_bytes,
        replace_by_noise,
        append_noise,
        empty,
        remove,
        make_folder_of,
        link_astray,
        make_pipe_of,
    )
}

HOSTILE_TEXTS = (
    "",
    " ",
    "../../x",
    "/etc/passwd",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}}",
    "$\\frac{1}{0}$",
    "a\nb",
    "\x1b]0;title\x07",
    "\x00",
    "\ud800",
    "=1+1",
    "x" * 5000,
    "ü" * 300,
    "nan",
    "-1",
    "１２",
)
HOSTILE_NUMBERS: tuple[Any, ...] = (
    0,
    -1,
    1,
    7,
    2**31,
    -(2**63),
    2**63,
    2**64 + 1,
    10**400,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
)
HOSTILE_VALUES: tuple[Any, ...] = (
    *HOSTILE_TEXTS,
    *HOSTILE_NUMBERS,
    None,
    True,
    [],
    {},
    [None],
    [[1]],
    {"a": {"b": 1}},
    [1, "a", None],
)


def spoil_json(content: Any, rng: random.Random) -> Any:
    """The same with a few of its values or keys, at any depth, replaced, removed or added."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        holder, key = rng.choice(_places(content) or [(None, None)])
        if holder is None:
            return rng.choice(HOSTILE_VALUES)
        what = rng.random()
        if what < 0.15:
            del holder[key]
        elif what < 0.25 and isinstance(holder, dict):
            holder[rng.choice([text for text in HOSTILE_TEXTS if text.isprintable()])] = holder.pop(key)
        else:
            holder[key] = rng.choice(HOSTILE_VALUES)
    return content


def _places(content: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    inner = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in inner:
        found.append((content, key))
        found += _places(value)
    return found


def _flushed(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    return stream


class _TooLongError(BaseException):
    """No `except Exception` may take it for a fault of the data."""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Bounds on processor time and memory, so that a hang or a bomb is a failed test and not a lost machine."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLongError(f"more than {_MOST_SECONDS} s of processor time, or {_LONGEST_WAIT} s in all")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    former = signal.signal(signal.SIGPROF, stop)
    waiting = threading.Timer(_LONGEST_WAIT, signal.pthread_kill, (threading.get_ident(), signal.SIGPROF))
    waiting.daemon = True
    waiting.start()
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MOST_BYTES, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, _MOST_SECONDS)
    try:
        yield
    finally:
        waiting.cancel()
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGPROF, former)
