"""When a training in progress is worth a checkpoint.

A checkpoint only saves the training since the last one from being done again after a worker failure: the digits are
the same either way, so its moment may depend on time. It is due as soon as writing it costs little beside what it would
save.
"""

from __future__ import annotations

# Training since the last save, in costs of a save: 2 % of the time goes into saving ...
_COSTS = 50
# ... and this much of each epoch, in seconds.
_PER_EPOCH = 0.01
# Seconds of training that a worker failure may cost, at most, whatever a save costs ...
_LONGEST = 30.0
# ... but for storage so slow that saves this often would take more than 4 % of the time.
_LEAST_COSTS = 25
# Seconds assumed for a save until one has been measured.
_GUESS = 0.02


class SavePolicy:
    """Decides, from measured times, whether the training of a worker's current trial should be saved.

    The cost of a save is that of the last one on this worker; it is kept from trial to trial.
    """

    def __init__(self) -> None:
        self._cost = _GUESS
        self._seconds = 0.0
        self._epochs = 0

    @property
    def due(self) -> bool:
        """Whether a save is due now."""
        return is_save_due(self._cost, self._seconds, self._epochs)

    def begun(self) -> None:
        """A trial begins, or goes on from its checkpoint: nothing would be lost."""
        self._seconds, self._epochs = 0.0, 0

    def trained(self, seconds: float) -> None:
        """Take in an epoch of `seconds`."""
        self._seconds += seconds
        self._epochs += 1

    def saved(self, seconds: float) -> None:
        """Take in a save, which took `seconds`."""
        self._cost = seconds
        self.begun()


def is_save_due(cost: float, seconds: float, epochs: int) -> bool:
    """Whether to save now, at `cost` seconds, what was trained since the last save: `epochs` in `seconds`."""
    if seconds >= _LONGEST:
        return seconds >= _LEAST_COSTS * cost
    return seconds >= _COSTS * cost and epochs * _PER_EPOCH >= cost
