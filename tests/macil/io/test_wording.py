"""Counts, lengths of time and the time of day are written in one way each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from macil.io.wording import clock, duration, now, now_in_name, plural, plural_s, seconds_since


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1200, "1,200 rows"), (1.0, "1 row"), (0.5, "0.5 rows")],
)
def test_a_count_has_its_noun_in_one_or_in_many(number: float, text: str) -> None:
    assert plural(number, "row") == text
    assert text.endswith(f"row{plural_s(number)}")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (3600, "60 min"),
        (7199, "2 h 00 min"),
        (7500, "2 h 05 min"),
        (3 * 86400, "72 h 00 min"),
    ],
)
def test_a_length_of_time_is_reported_in_the_units_that_fit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_clock_counts_minutes_beyond_the_hour() -> None:
    assert [clock(seconds) for seconds in (0, 65.9, 3600)] == ["0:00", "1:05", "60:00"]


def test_now_is_read_back_to_the_second() -> None:
    assert 0 <= seconds_since(now()) < 2  # type: ignore[operator]
    earlier = datetime.now(UTC) - timedelta(hours=2)
    assert seconds_since(earlier.isoformat()) == pytest.approx(7200, abs=1)
    assert seconds_since((earlier + timedelta(hours=5)).isoformat()) == 0, "a clock that is ahead"
    assert seconds_since(None) is seconds_since("yesterday") is None
    named = datetime.strptime(f"{now_in_name()}+0000", "%Y%m%d-%H%M%S%z")
    assert 0 <= seconds_since(named.isoformat()) < 2  # type: ignore[operator]
