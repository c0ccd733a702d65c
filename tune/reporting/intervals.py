"""Mean and interval over seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """Mean of `n` seeds; deviation and interval need two of them and are None for one."""

    n: int
    mean: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Mean, standard deviation (n - 1) and 95 % t interval of the mean; None without a value.

    Args:
        values: One measurement per seed; None is a seed that has none and counts for nothing.
    """
    measured = np.array([value for value in values if value is not None], np.float64)
    n, mean = len(measured), float(measured.mean()) if len(measured) else 0.0
    if n == 0:
        return None
    if n == 1:
        return Estimate(1, mean)
    if np.ptp(measured) == 0:  # scipy gives NaN for a scale of zero
        return Estimate(n, mean, 0.0, mean, mean)
    deviation = float(measured.std(ddof=1))
    low, high = stats.t.interval(LEVEL, n - 1, loc=mean, scale=stats.sem(measured))
    return Estimate(n, mean, deviation, float(low), float(high))
