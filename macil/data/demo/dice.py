"""Random numbers that are the same on every host and with every NumPy: whole numbers from the raw words of PCG64.

NumPy keeps the words of a bit generator for a seed; what its `Generator` makes of them may change.
"""

from __future__ import annotations

import numpy as np

_BITS = np.uint64(32)
# Of the sum of four bytes, each evenly from 0 to 255: sqrt(4 (256^2 - 1) / 12) = 147.8.
_MEAN, _DEVIATION = 510, 148


class Dice:
    """Numbers that depend on the key alone."""

    def __init__(self, *key: int) -> None:
        self._words = np.random.PCG64(key)

    def below(self, bound: int, count: int) -> np.ndarray:
        """`count` numbers from 0 to `bound` - 1, int64."""
        words = self._words.random_raw(count) >> _BITS
        return ((words * np.uint64(bound)) >> _BITS).astype(np.int64)

    def between(self, low: int, high: int) -> int:
        """A number from `low` to `high`."""
        return low + int(self.below(high - low + 1, 1)[0])

    def pick(self, choices: np.ndarray) -> int:
        """One of the numbers."""
        return int(choices[self.between(0, len(choices) - 1)])

    def order(self, count: int) -> np.ndarray:
        """The numbers from 0 to `count` - 1 in random order."""
        return np.argsort(self._words.random_raw(count), kind="stable")

    def noise(self, rows: int, columns: int, deviation: int) -> np.ndarray:
        """Nearly normal noise (rows, columns) of mean 0, int64; an even number of columns."""
        words = self._words.random_raw(rows * columns // 2).astype("<u8")
        sums = words.view(np.uint8).reshape(rows, columns, 4).sum(-1, dtype=np.int64)
        return (sums - _MEAN) * deviation // _DEVIATION
