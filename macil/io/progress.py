"""Progress of a long loop: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int], None]

# A log should show that the command lives without being flooded.
SECONDS_BETWEEN_LINES = 15.0


@contextlib.contextmanager
def show_progress(title: str, total: int, unit: str, *, enabled: bool = True) -> Iterator[Advance]:
    """Yield a function to call with the number of units that were finished; everything is written to stderr.

    Args:
        title: What is being done, in the -ing form.
        total: Number of units in all.
        unit: Plural name of a unit ("files", "videos").
        enabled: Show nothing at all when false.
    """
    if not enabled:
        yield _ignore
    elif sys.stderr.isatty():
        with _make_bar() as bar:
            task = bar.add_task(title, total=total, unit=unit)
            yield lambda count: bar.advance(task, count)
    else:
        yield _make_line_printer(title, total, unit)


def _ignore(count: int) -> None:
    pass


def _make_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _make_line_printer(title: str, total: int, unit: str) -> Advance:
    started = printed = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, printed
        done += count
        now = time.monotonic()
        if done >= total or now - printed >= SECONDS_BETWEEN_LINES:
            printed = now
            print(f"{title}: {done}/{total} {unit}, {now - started:.0f} s", file=sys.stderr, flush=True)

    return advance
