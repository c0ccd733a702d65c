"""What takes the place of training: for a configuration a curve of selection scores, and what it is truly worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from tune.algorithms.simulator.curves import Curve


class Environment(ABC):
    """A source of curves; a pure function of what it is asked.

    Attributes:
        epochs: Epochs of a whole training.
    """

    epochs: int

    def settle(self, params: Mapping[str, Any], begun: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The configuration that is trained where `params` is suggested, after the trials that were begun: itself."""
        return params

    @abstractmethod
    def train(self, params: Mapping[str, Any], number: int) -> Curve:
        """The whole training of a configuration, as trial `number`. Its `quality` is that of the configuration."""
