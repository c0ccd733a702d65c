"""The trials of one run, by their configuration: what a search that does as that run did is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from macil.errors import DataError
from tune.algorithms.simulator.curves import Curve, configuration_key
from tune.algorithms.simulator.environment import Environment


class RecordedRun(Environment):
    """The curves of a run.

    Args:
        curves: Its trials; of several with one configuration the first.
        epochs: Epochs of a whole training.
    """

    def __init__(self, curves: Iterable[Curve], epochs: int) -> None:
        self.epochs = epochs
        self._curves: dict[str, Curve] = {}
        for curve in curves:
            self._curves.setdefault(configuration_key(curve.params), curve)

    def train(self, params: Mapping[str, Any], number: int) -> Curve:
        """The recorded training of a configuration, whichever trial it was.

        Raises:
            DataError: There is none.
        """
        curve = self._curves.get(configuration_key(params))
        if curve is None:
            raise DataError(f"the run did not train what trial {number} is to: {dict(params)}")
        return curve
