"""Mean and interval over seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
# Of two seeds the t interval is nine times as wide as they are apart: it says nothing that they do not.
FEWEST_SEEDS = 3

Bounds = tuple[float, float]
# Limits of a share; of one in percent; of the difference of two such, in points; and of the margin by which a held-out
# search selects, a difference of two shares.
SHARE: Bounds = (0.0, 1.0)
PERCENT: Bounds = (0.0, 100.0)
POINTS: Bounds = (-100.0, 100.0)
MARGIN: Bounds = (-1.0, 1.0)


@dataclass(frozen=True)
class Estimate:
    """Mean of `n` seeds, and an interval that holds the truth in 95 of 100 cases.

    Attributes:
        n: Seeds.
        mean: Of them.
        deviation: Standard deviation (n - 1); None for one seed.
        low: Lower end of the interval; None for fewer than `FEWEST_SEEDS`.
        high: Upper end.
        values: The measurements, where they are shown in place of an interval: of two seeds.
        cut: Whether the interval reached beyond what can be, and ends there.
    """

    n: int
    mean: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    values: tuple[float, ...] = ()
    cut: bool = False


def estimate(values: Iterable[float | None], within: Bounds | None = None) -> Estimate | None:
    """Mean, standard deviation (n - 1) and, from `FEWEST_SEEDS` on, 95 % t interval of the mean; None without a value.

    Args:
        values: One measurement per seed; None is a seed that has none and counts for nothing.
        within: What every measurement lies between. The interval is cut there, and loses no coverage by it.
    """
    measured = np.array([value for value in values if value is not None], np.float64)
    n, mean = len(measured), float(measured.mean()) if len(measured) else 0.0
    if n == 0:
        return None
    if n == 1:
        return Estimate(1, mean)
    if np.ptp(measured) == 0:  # scipy gives NaN for a scale of zero, and a mean may be off by a last digit
        deviation, margin = 0.0, 0.0
    else:
        deviation = float(measured.std(ddof=1))
        margin = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * stats.sem(measured))
    if n < FEWEST_SEEDS:
        return Estimate(n, mean, deviation, values=tuple(measured.tolist()))
    return around(n, mean, deviation, margin, within)


def around(n: int, mean: float, deviation: float | None, margin: float, within: Bounds | None) -> Estimate:
    """A mean with an interval of half-width `margin`, cut where no such number can lie."""
    low, high = mean - margin, mean + margin
    if within is None or not within[0] <= mean <= within[1]:  # what a damaged file says may lie anywhere
        return Estimate(n, mean, deviation, low, high)
    inside = max(low, within[0]), min(high, within[1])
    return Estimate(n, mean, deviation, *inside, cut=inside != (low, high))


def of_differences(within: Bounds) -> Bounds:
    """The bounds of the difference of two numbers that lie within the same bounds."""
    return within[0] - within[1], within[1] - within[0]


def bounds_of(column: str, protocol: str) -> Bounds:
    """The bounds of a column of the trials: an AP is a share, and under `heldout` the selection score a margin."""
    return MARGIN if column == "selection_score" and protocol == "heldout" else SHARE
