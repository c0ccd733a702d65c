"""Statistical tests against chance: noise between seeds, differences on the same seeds, orders of rows.

All numbers are in one unit, which the caller chooses (the report: points of AP in percent).
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import stats

from tune.reporting.statistics.intervals import LEVEL, Bounds, Estimate, estimate, of_differences

# Below so many pairs the least p that flipping signs can give, 2 / 2^n, is above 0.05.
FEWEST_PAIRS = 6
# All 2^n signs are counted up to so many pairs (a tenth of a second); of more, so many are drawn.
_MOST_EXACT, DRAWS, _SEED = 13, 20_000, 0
_FEWEST_RANKED = 3
# Below so many trainings the least p that permuting them can give, 2 / n!, is above 0.05.
FEWEST_PERMUTED = 5
# All orders of so many trainings are counted, 40,320 of them; of more, `DRAWS` are drawn.
MOST_PERMUTED = 8


@dataclass(frozen=True)
class Noise:
    """Standard deviation between trainings that differ in the seed alone, pooled over `groups` configurations."""

    deviation: float
    degrees: int
    groups: int

    @property
    def limit(self) -> float:
        """The bound of 95 % of the differences between two single trainings of one configuration.

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
        """Whether the 95 % t interval of the mean difference leaves zero out; False where pairs are too few for one."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and not low <= 0 <= high


class Pair(NamedTuple):
    """Two rows, the larger first, and by how much."""

    above: str
    below: str
    difference: float


class RankCorrelation(NamedTuple):
    """Agreement of two orders of `n` rows that are `trainings` different ones: 1 the same, -1 the reverse.

    `p` is Kendall's, two-sided; None below `FEWEST_PERMUTED` trainings. It is `exact` up to `MOST_PERMUTED` of them.
    """

    n: int
    trainings: int
    spearman: float
    kendall: float
    p: float | None
    exact: bool


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


def paired(
    row: Mapping[int, float], reference: Mapping[int, float], within: Bounds | None = None
) -> Paired | None:
    """Differences on the same seeds, with t interval and, from `FEWEST_PAIRS` on, p; None without a common seed.

    Args:
        row: Seed to measurement.
        reference: The same for the row that it is compared with.
        within: What every measurement lies between, see `tune.reporting.statistics.intervals.estimate`.
    """
    differences = [row[seed] - reference[seed] for seed in sorted(row.keys() & reference.keys())]
    difference = estimate(differences, of_differences(within) if within else None)
    if difference is None:
        return None
    return Paired(difference, _sign_flip_p(differences) if len(differences) >= FEWEST_PAIRS else None)


def paired_with(
    rows: Mapping[str, Mapping[int, float]], reference: str, within: Bounds | None = None
) -> dict[str, Paired]:
    """Every other row against `reference`, with Holm's correction over those that have a p.

    Rows without a seed in common with the reference are left out; so is everything when the reference is not there.
    """
    found = {
        name: comparison
        for name, values in rows.items()
        if name != reference and (comparison := paired(values, rows.get(reference, {}), within))
    }
    tested = [(name, item.p) for name, item in found.items() if item.p is not None]
    adjusted = dict(zip((name for name, _ in tested), holm([p for _, p in tested]), strict=True))
    return {name: replace(item, adjusted=adjusted.get(name)) for name, item in found.items()}


def least_p(pairs: int) -> float:
    """The smallest two-sided p that flipping the signs of so many differences can give."""
    return 2 / (2**pairs if pairs <= _MOST_EXACT else DRAWS + 1)


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


def rank_correlation(
    ours: Sequence[float], published: Sequence[float], trainings: Sequence[Hashable] | None = None
) -> RankCorrelation | None:
    """Spearman's and Kendall's (tau-b) over all rows, and the p of Kendall's.

    Rows of one training are equal by construction: to count them as independent would make p too small. So p comes from
    permuting the trainings' values among their groups of rows.

    Args:
        ours: A number for each row.
        published: The same for what it is held against.
        trainings: Which training each row is; rows of one have equal numbers. None: each its own.

    Returns:
        None for fewer than three trainings, or where all of one side are equal.
    """
    names = range(len(ours)) if trainings is None else trainings
    indices = {name: index for index, name in enumerate(dict.fromkeys(names))}
    if len(indices) < _FEWEST_RANKED or min(len(set(ours)), len(set(published))) == 1:
        return None
    group = np.array([indices[name] for name in names])
    values = np.empty(len(indices))
    values[group] = ours
    kendall = float(stats.kendalltau(ours, published).statistic)
    return RankCorrelation(
        len(ours),
        len(indices),
        float(stats.spearmanr(ours, published).statistic),
        kendall,
        _permutation_p(values, group, np.asarray(published)) if len(indices) >= FEWEST_PERMUTED else None,
        len(indices) <= MOST_PERMUTED,
    )


def _permutation_p(values: np.ndarray, group: np.ndarray, published: np.ndarray) -> float:
    """Share of the orders of `values` (one for each training) whose tau-b is as far from zero.

    Args:
        values: (k,) of the trainings.
        group: (n,) which of them each row is.
        published: (n,) what the rows are held against.
    """
    first, second = np.triu_indices(len(group), 1)
    theirs = np.sign(published[first] - published[second])

    def distance(orders: np.ndarray, axis: int = -1) -> np.ndarray:
        rows = np.moveaxis(orders, axis, -1)[..., group]
        signs = np.sign(rows[..., first] - rows[..., second])
        untied = np.count_nonzero(signs, axis=-1) * np.count_nonzero(theirs)
        # All of one side equal, in no order of numbers that are not: no agreement.
        tau = np.divide(signs @ theirs, np.sqrt(untied), out=np.zeros(untied.shape), where=untied > 0)
        return np.round(np.abs(tau), 12)  # equal ones, however they were summed up

    result = stats.permutation_test(
        (values,),
        distance,
        permutation_type="pairings",
        alternative="greater",
        vectorized=True,
        n_resamples=np.inf if len(values) <= MOST_PERMUTED else DRAWS,
        batch=1000,
        rng=np.random.default_rng(_SEED),
    )
    return float(result.pvalue)


def _sign_flip_p(differences: Sequence[float]) -> float:
    result = stats.permutation_test(
        (np.asarray(differences, np.float64),),
        np.mean,
        permutation_type="samples",  # of one sample: signs are flipped
        vectorized=True,
        n_resamples=np.inf if len(differences) <= _MOST_EXACT else DRAWS,
        rng=np.random.default_rng(_SEED),
    )
    return float(result.pvalue)
