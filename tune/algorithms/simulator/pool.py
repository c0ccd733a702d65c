"""A pool of recorded configurations: a suggestion goes to the nearest one that was not tried yet.

It judges what becomes of suggestions: stopping, repeats, confirmation. It cannot judge what a sampler is worth: where
only the recorded configurations can be tried, a good suggestion is answered by a neighbour that may be far from it, and
a search that tried most of a pool would find its best by exhaustion, so that no more than a third of it may be tried.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from macil.errors import UsageError
from tune.algorithms.simulator.curves import Curve, configuration_key
from tune.algorithms.simulator.environment import Environment
from tune.algorithms.space import Space, unit_point

# The share of a pool that may be tried: one of so many.
SHARE = 3


class Pool(Environment):
    """Recorded configurations, each with several seeds.

    Args:
        curves: All trainings.
        space: What is searched.
        epochs: Epochs of a whole training.
        seed: The seed that every trial has; what a configuration is worth is its mean quality over all others.
        places: The configurations of the pool by their place among those of `curves`, in order of appearance; one may
            stand in it several times, as in a bootstrap sample. None is each once.

    Raises:
        UsageError: A configuration was not trained with this seed, or with no other.
    """

    def __init__(
        self,
        curves: Iterable[Curve],
        space: Space,
        epochs: int,
        seed: int,
        places: Sequence[int] | None = None,
    ) -> None:
        self.epochs = epochs
        self._space = space
        self._trained: dict[str, Curve] = {}
        others: dict[str, list[float]] = {}
        for curve in curves:
            if curve.seed == seed:
                self._trained[configuration_key(curve.params)] = curve
            elif curve.quality is not None:
                others.setdefault(configuration_key(curve.params), []).append(curve.quality)
        if self._trained.keys() != others.keys():
            raise UsageError(
                f"every configuration of the pool needs a training with seed {seed}, and one with another"
            )
        self._quality = {key: statistics.fmean(found) for key, found in others.items()}
        known = list(self._trained)
        self._keys = known if places is None else [known[place] for place in places]
        self._points = np.array([unit_point(space, self._trained[key].params) for key in self._keys])

    @property
    def budget(self) -> int:
        """The most trials of a search."""
        return len(self._keys) // SHARE

    @property
    def best(self) -> float:
        """The quality of the best configuration."""
        return max(self._quality[key] for key in self._keys)

    def settle(self, params: Mapping[str, Any], begun: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The configuration that lies nearest in the unit cube, of those that no trial has.

        Raises:
            UsageError: A third of the pool was tried.
        """
        if len(begun) >= self.budget:
            raise UsageError(
                f"a pool of {len(self._keys)} configurations is for {self.budget} trials at most: a search that "
                "tries more of them finds the best by exhaustion"
            )
        used = Counter(configuration_key(each) for each in begun)
        distances = np.linalg.norm(self._points - unit_point(self._space, params), axis=1)
        for place, key in enumerate(self._keys):
            if used[key]:
                used[key] -= 1
                distances[place] = np.inf
        return self._trained[self._keys[int(np.argmin(distances))]].params

    def train(self, params: Mapping[str, Any], number: int) -> Curve:
        """The recorded training of a configuration of the pool, with the mean quality of its other seeds."""
        curve = self._trained[configuration_key(params)]
        return Curve(
            curve.params,
            curve.seed,
            curve.scores,
            self._quality[configuration_key(params)],
            curve.diverged,
            curve.error,
        )
