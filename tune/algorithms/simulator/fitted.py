"""Curves drawn from a model that was fitted to recorded ones: any configuration can be tried, and its worth is known.

- What a configuration is worth is a Gaussian process over the unit cube: kernel and length scales by the likelihood of
  the recorded means over seeds, each with the variance that its seeds leave it. A *world* is one draw of what the
  records leave open, so that several worlds differ where nobody has looked.
- After an epoch a configuration lies off the mean curve by a share of what it does at the end, by regression over the
  recorded configurations.
- A training adds to both what one recorded training, drawn at random among those with the same seed, lay off the mean
  of its configuration: whole curves with their tails, such as a seed that collapses, and with what a seed does to all
  configurations alike. As in a real search, all trials of a world have one seed.

Scores are running bests: where the sum of the parts falls, the best so far stays.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, Matern

from macil.errors import UsageError
from tune.algorithms.simulator.curves import Curve, configuration_key
from tune.algorithms.simulator.environment import Environment
from tune.algorithms.space import Space, from_unit, unit_point

# A world is drawn at so many points of the unit cube beside the recorded ones, and lies smoothly between them.
_DRAWN = 128
# The best of a world is looked for at so many points.
_SEARCHED = 2048
_FEWEST = 4

Floats = npt.NDArray[np.float64]


class CurveModel:
    """The model of recorded curves.

    Args:
        curves: Recorded whole trainings, of each configuration at least two seeds; those that failed are left out.
        space: What is searched.
        epochs: Epochs of a whole training.

    Raises:
        UsageError: Fewer than four configurations, or one with a single seed.
    """

    def __init__(self, curves: Iterable[Curve], space: Space, epochs: int) -> None:
        self.space, self.epochs = space, epochs
        points, seeds, scores, quality = _by_configuration(curves, space, epochs)
        means = np.array([each.mean(axis=0) for each in scores])
        self.mean_curve: Floats = means.mean(axis=0)
        final = means[:, -1] - self.mean_curve[-1]
        spread = max(float(final @ final), 1e-12)
        # The share of its final effect that a configuration shows after each epoch.
        self.shown: Floats = (means - self.mean_curve).T @ final / spread
        self.effect = _Surface(points, final, _error_of_means([each[:, -1] for each in scores]))
        worth = np.array([each.mean() for each in quality])
        self.mean_quality = float(worth.mean())
        # What of the quality goes with the score, and what does not.
        centred = worth - self.mean_quality
        self.slope = float(centred @ final) / spread
        self.rest = _Surface(points, centred - self.slope * final, _error_of_means(quality))
        # As far off as one training is, not as the mean of so many makes it look.
        noise: dict[int, list[Floats]] = {}
        for each, of_each in zip(scores, seeds, strict=True):
            off = (each - each.mean(axis=0)) * np.sqrt(len(each) / (len(each) - 1))
            for seed, row in zip(of_each, off, strict=True):
                noise.setdefault(seed, []).append(row)
        self.noise: list[Floats] = [np.array(noise[seed]) for seed in sorted(noise)]

    def world(self, number: int) -> FittedWorld:
        """One world."""
        return FittedWorld(self, number)


class FittedWorld(Environment):
    """One draw of the truth, and of the noise of all trials.

    Args:
        model: What it is drawn from.
        number: Which one.
    """

    def __init__(self, model: CurveModel, number: int) -> None:
        self.epochs = model.epochs
        self._model, self._number = model, number
        self._effect, self._rest = model.effect.drawn(2 * number), model.rest.drawn(2 * number + 1)
        self._seeds = np.random.default_rng(number).permutation(len(model.noise))

    def quality(self, params: Mapping[str, Any]) -> float:
        """What a configuration is worth: its mean quality over all seeds there could be."""
        return float(self._qualities(unit_point(self._model.space, params)[None])[0])

    @cached_property
    def best(self) -> float:
        """The highest quality among many configurations all over the space."""
        space = self._model.space
        cube = qmc.Sobol(len(space), rng=np.random.default_rng(1)).random(_SEARCHED)
        points = [unit_point(space, from_unit(space, point)) for point in cube]
        return float(self._qualities(np.array(points)).max())

    def _qualities(self, points: Floats) -> Floats:
        model = self._model
        return model.mean_quality + model.slope * self._effect(points) + self._rest(points)

    def train(self, params: Mapping[str, Any], number: int, fresh: int = 0) -> Curve:
        """A training of a configuration, as trial `number`, with the seed of the search or with the n-th fresh one."""
        model = self._model
        draw = np.random.default_rng([self._number, fresh, number])
        rows = model.noise[self._seeds[fresh % len(self._seeds)]]
        noise = rows[draw.integers(len(rows))]
        effect = float(self._effect(unit_point(model.space, params)[None])[0])
        scores = np.maximum.accumulate(model.mean_curve + model.shown * effect + noise)
        return Curve(params, fresh, tuple(map(float, scores)), self.quality(params))


class _Surface:
    """A function over the unit cube of which noisy values are known at some points."""

    def __init__(self, points: Floats, values: Floats, errors: Floats) -> None:
        self._scale = max(float(values.std()), 1e-9)
        kernel = ConstantKernel(1.0, (1e-3, 1e2)) * Matern(np.ones(points.shape[1]), (0.1, 30.0), nu=2.5)
        self._known = _process(points, values / self._scale, errors / self._scale**2, kernel)
        self._drawn: Floats = qmc.Sobol(points.shape[1], rng=np.random.default_rng(0)).random(_DRAWN)

    def drawn(self, draw: int) -> Callable[[Floats], Floats]:
        """One of the functions that it may be, of points `(number, dimensions)`."""
        (sample,) = self._known.sample_y(self._drawn, random_state=draw).T
        between = _process(self._drawn, sample, np.full(_DRAWN, 1e-6), self._known.kernel_, fit=False)
        return lambda points: np.asarray(between.predict(points)) * self._scale


def _process(
    points: Floats, values: Floats, errors: Floats, kernel: Kernel, *, fit: bool = True
) -> GaussianProcessRegressor:
    process = GaussianProcessRegressor(
        kernel, alpha=np.maximum(errors, 1e-8), optimizer="fmin_l_bfgs_b" if fit else None
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # a length scale at its bound: a dimension without effect
        return process.fit(points, values)


def _by_configuration(
    curves: Iterable[Curve], space: Space, epochs: int
) -> tuple[Floats, list[list[int]], list[Floats], list[Floats]]:
    """Points `(configurations, dimensions)`; of each one seeds, scores `(seeds, epochs)` and qualities `(seeds,)`."""
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        if len(curve.scores) == epochs and None not in curve.scores and curve.quality is not None:
            found.setdefault(configuration_key(curve.params), []).append(curve)
    if len(found) < _FEWEST or any(len(each) < 2 for each in found.values()):
        raise UsageError(
            f"a model needs whole trainings of {_FEWEST} configurations, each with two seeds; there are "
            f"{len(found)}, one with {min(map(len, found.values()), default=0)}"
        )
    groups = list(found.values())
    points = np.array([unit_point(space, group[0].params) for group in groups])
    scores = [np.array([curve.scores for curve in group], dtype=float) for group in groups]
    quality = [np.array([curve.quality for curve in group], dtype=float) for group in groups]
    seeds = [[curve.seed for curve in group] for group in groups]
    return points, seeds, scores, quality


def _error_of_means(values: list[Floats]) -> Floats:
    """The variance of each configuration's mean, from the mean variance between seeds of all of them."""
    variance = float(np.mean([each.var(ddof=1) for each in values]))
    return np.array([variance / len(each) for each in values])
