"""How a count, a length of time and the time of day are written: in messages, logs, files and reports."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def plural(number: float, noun: str) -> str:
    """A number and what it counts: "1 row", "1,200 rows", "0.5 CPUs"."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun}{plural_s(number)}"


def plural_s(number: float) -> str:
    """The ending of a noun of which there are so many, where the number itself stands elsewhere: "" or "s"."""
    return "" if number == 1 else "s"


def duration(seconds: float) -> str:
    """A length of time: seconds below two minutes, then minutes, then hours and minutes."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def clock(seconds: float) -> str:
    """Minutes and seconds as a clock shows them: "2:05"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def now() -> str:
    """The time, to the second, in UTC: "2026-11-30T09:41:00+00:00"."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def now_in_name() -> str:
    """The same time as a part of a file name: "20261130-094100"."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}"


def seconds_since(when: Any) -> float | None:
    """Seconds from a time as `now` writes it until now; None where `when` is no such time."""
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(str(when))).total_seconds())
    except (ValueError, TypeError):
        return None
