"""What can be told apart from chance: noise between seeds, differences on the same seeds, orders of rows.

All numbers are in one unit, which the caller chooses (the report: points of AP in percent).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import stats

from tune.reporting.intervals import LEVEL, Estimate, estimate

# Below so many pairs the least p that flipping signs can give, 2 / 2^n, is above 0.05.
FEWEST_PAIRS = 6
# All 2^n signs are counted up to so many pairs (a tenth of a second); of more, so many are drawn.
_MOST_EXACT, _DRAWS, _SEED = 13, 20_000, 0
_FEWEST_RANKED = 3


@dataclass(frozen=True)
class Noise:
    """Standard deviation between trainings that differ in the seed alone, pooled over `groups` configurations."""

    deviation: float
    degrees: int
    groups: int

    @property
    def limit(self) -> float:
        """What 95 % of the differences between two single trainings of one configuration stay below.

        t(0.975, degrees) × √2 × deviation: the least significant difference of one pair that was named beforehand.
        """
        return float(stats.t.ppf((1 + LEVEL) / 2, self.degrees)) * 2**0.5 * self.deviation

    def joint_limit(self, trainings: int) -> float:
        """The same for the largest difference among so many single trainings (Tukey): at least 2 of them."""
        return float(stats.studentized_range.ppf(LEVEL, trainings, self.degrees)) * self.deviation

    def margin(self, n: int) -> float:
        """Half-width of the 95 % interval of the difference between a mean of `n` trainings and a single one."""
        return float(stats.t.ppf((1 + LEVEL) / 2, self.degrees)) * (1 + 1 / n) ** 0.5 * self.deviation


@dataclass(frozen=True)
class Paired:
    """A row minus the reference on the seeds that both have.

    `p` is two-sided, of the permutation test that flips signs; None with fewer than `FEWEST_PAIRS`. `adjusted` is the
    same after Holm's correction over the rows compared together.
    """

    difference: Estimate
    p: float | None = None
    adjusted: float | None = None

    @property
    def differs(self) -> bool:
        """Whether the 95 % t interval of the mean difference leaves zero out; False for a single pair."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and not low <= 0 <= high


class Pair(NamedTuple):
    """Two rows, the larger first, and by how much."""

    above: str
    below: str
    difference: float


class RankCorrelation(NamedTuple):
    """Agreement of two orders of `n` rows: 1 the same, -1 the reverse. `p` is Kendall's, two-sided."""

    n: int
    spearman: float
    kendall: float
    p: float


def pooled_noise(rows: Iterable[Sequence[float]]) -> Noise | None:
    """Noise between seeds, from the rows with two or more; None without such a row.

    Args:
        rows: For each configuration its trainings, which differ in the seed alone. The deviation is taken to be the
            same in every row, which lets a few seeds a row add up to a usable number of degrees of freedom.
    """
    groups = [np.asarray(values, np.float64) for values in rows if len(values) > 1]
    degrees = sum(len(values) - 1 for values in groups)
    if not degrees:
        return None
    # The mean of equal numbers may differ from them in the last digit.
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in groups if np.ptp(values))
    return Noise((squares / degrees) ** 0.5, degrees, len(groups))


def paired(row: Mapping[int, float], reference: Mapping[int, float]) -> Paired | None:
    """Differences on the same seeds, with t interval and, from `FEWEST_PAIRS` on, p; None without a common seed.

    Args:
        row: Seed to measurement.
        reference: The same for the row that it is compared with.
    """
    differences = [row[seed] - reference[seed] for seed in sorted(row.keys() & reference.keys())]
    difference = estimate(differences)
    if difference is None:
        return None
    return Paired(difference, _sign_flip_p(differences) if len(differences) >= FEWEST_PAIRS else None)


def paired_with(rows: Mapping[str, Mapping[int, float]], reference: str) -> dict[str, Paired]:
    """Every other row against `reference`, with Holm's correction over those that have a p.

    Rows without a seed in common with the reference are left out; so is everything when the reference is not there.
    """
    found = {
        name: comparison
        for name, values in rows.items()
        if name != reference and (comparison := paired(values, rows.get(reference, {})))
    }
    tested = [(name, item.p) for name, item in found.items() if item.p is not None]
    adjusted = dict(zip((name for name, _ in tested), holm([p for _, p in tested]), strict=True))
    return {name: replace(item, adjusted=adjusted.get(name)) for name, item in found.items()}


def least_p(pairs: int) -> float:
    """The smallest two-sided p that flipping the signs of so many differences can give."""
    return 2 / (2**pairs if pairs <= _MOST_EXACT else _DRAWS + 1)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down: p values that hold for all hypotheses together, in the order given."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def larger_pairs(values: Mapping[str, float], limit: float) -> list[Pair]:
    """The pairs of rows that are more than `limit` apart, the widest first."""
    pairs = [
        Pair(a, b, values[a] - values[b]) if values[a] >= values[b] else Pair(b, a, values[b] - values[a])
        for a, b in itertools.combinations(values, 2)
    ]
    return sorted((pair for pair in pairs if pair.difference > limit), key=lambda pair: -pair.difference)


def rank_correlation(ours: Sequence[float], published: Sequence[float]) -> RankCorrelation | None:
    """Spearman's and Kendall's (tau-b); None for fewer than three rows, or where all of one side are equal."""
    if len(ours) < _FEWEST_RANKED or min(len(set(ours)), len(set(published))) == 1:
        return None
    spearman = stats.spearmanr(ours, published).statistic
    kendall = stats.kendalltau(ours, published)
    return RankCorrelation(len(ours), float(spearman), float(kendall.statistic), float(kendall.pvalue))


def _sign_flip_p(differences: Sequence[float]) -> float:
    result = stats.permutation_test(
        (np.asarray(differences, np.float64),),
        np.mean,
        permutation_type="samples",  # of one sample: signs are flipped
        vectorized=True,
        n_resamples=np.inf if len(differences) <= _MOST_EXACT else _DRAWS,
        rng=np.random.default_rng(_SEED),
    )
    return float(result.pvalue)
