"""How fast trials are trained, and so how long what is left will take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Pace:
    """The epochs of one phase of a run, as they are reported."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._epochs = 0
        # A search may have thousands of trials: sums, and no list.
        self._ended = self._epochs_of_ended = 0

    def take_in(self, result: Mapping[str, Any]) -> None:
        """An epoch, as Tune reports it."""
        seconds = result.get("time_this_iter_s")
        if isinstance(seconds, int | float) and seconds > 0:
            self._seconds += seconds
            self._epochs += 1

    def end(self, epochs: int) -> None:
        """A trial has ended after so many epochs."""
        self._ended += 1
        self._epochs_of_ended += epochs

    @property
    def per_epoch(self) -> float | None:
        """Seconds of an epoch in the mean; None before the first."""
        return self._seconds / self._epochs if self._epochs else None

    def left(self, waiting: int, running: Sequence[int], epochs: int) -> float | None:
        """Seconds until all trials have ended, if those that are to come are as long as those that have ended.

        Args:
            waiting: Trials that have not begun.
            running: The epochs that each running trial has had.
            epochs: Of a whole training.

        Returns:
            None where nothing is running, or no epoch was measured.
        """
        if self.per_epoch is None or not running:
            return None
        each = self._epochs_of_ended / self._ended if self._ended else epochs
        # One that has outlived the usual length goes on to its end.
        going = [(each if done < each else epochs) - done for done in running]
        return self.per_epoch * max(*going, (waiting * each + sum(going)) / len(running))
