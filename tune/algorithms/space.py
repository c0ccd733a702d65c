"""A search space as data: one dimension a hyperparameter, and the unit cube of all of them.

A space is a dictionary from hyperparameter to `Dimension`, in the order in which they are suggested; a dimension whose
`when` names others comes after them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, model_validator

from macil.io.formats import FileModel
from tune.storage.run_file import Scalar


def _as_tuple(values: object) -> object:
    """A list, which is what JSON and TOML have, as a tuple."""
    return tuple(values) if isinstance(values, list) else values


_Values = Annotated[tuple[Scalar, ...], BeforeValidator(_as_tuple)]
# A step that does not divide its range leaves the upper end out; so much of a step is rounding.
_ROUNDING = 1e-9


class Dimension(FileModel):
    """The values that are searched of one hyperparameter: a range of numbers, or choices.

    Attributes:
        low, high: The ends of the range, which belong to it. Two whole numbers are a range of whole numbers.
        log: Equal ratios are equally likely, not equal differences.
        step: Only `low` and whole steps above it; None for every number between the ends.
        choices: The values, in place of a range.
        when: Other hyperparameters -> their values with which this one is searched; always, if there are none.

    Raises:
        ValidationError: A range with choices, or with neither; ends in the wrong order; a step or a logarithm that
            such a range cannot have.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: _Values | None = None
    when: dict[str, _Values] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        fault = self._choices_fault() if self.choices is not None else self._range_fault()
        if fault:
            raise ValueError(fault)
        return self

    def _choices_fault(self) -> str | None:
        assert self.choices is not None
        if self.low is not None or self.high is not None or self.log or self.step is not None:
            return "choices stand alone: leave out low, high, log and step"
        if len(self.choices) < 2 or len(set(self.choices)) < len(self.choices):
            return "choices must be at least two different values; fix a single one instead"
        return None

    def _range_fault(self) -> str | None:
        if self.low is None or self.high is None:
            return "expected low and high, or choices"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            return f"low = {self.low:g} must be below high = {self.high:g}, both finite; fix a single value instead"
        if self.log and self.low <= 0:
            return f"low = {self.low:g} must be above 0 where log is true"
        if self.step is None:
            return None
        if self.log:
            return "a range has log or step, not both"
        if not 0 < self.step <= self.high - self.low:
            return f"step = {self.step:g} must be above 0 and no more than the range"
        steps = (self.high - self.low) / self.step
        if abs(steps - round(steps)) > _ROUNDING * max(1.0, steps):
            return f"step = {self.step:g} does not lead from low = {self.low:g} to high = {self.high:g}"
        return None

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def size(self) -> int | None:
        """How many values there are; None: any number."""
        if self.choices is not None:
            return len(self.choices)
        assert self.low is not None
        assert self.high is not None
        if self.step is None and not self.whole:
            return None
        return round((self.high - self.low) / (self.step or 1)) + 1

    @property
    def values(self) -> tuple[Scalar, ...]:
        """The values of choices, steps and whole numbers, in their order; none where there is any number of them."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None
        step = self.step or 1
        return tuple(self.low + number * step for number in range(self.size or 0))

    @property
    def ends(self) -> tuple[Scalar, Scalar]:
        """The smallest and the largest number; of names the first and the last."""
        if self.choices is None:
            assert self.low is not None
            assert self.high is not None
            return self.low, self.high
        numbers = [choice for choice in self.choices if not isinstance(choice, str)]
        return (min(numbers), max(numbers)) if numbers else (self.choices[0], self.choices[-1])

    def holds(self, value: object) -> bool:
        """Whether `value` can be suggested."""
        if self.choices is not None:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.whole and not isinstance(value, int):
            return False
        assert self.low is not None
        assert self.high is not None
        if not self.low <= value <= self.high:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return abs(steps - round(steps)) <= _ROUNDING * max(1.0, steps)

    def position(self, value: Any) -> float:
        """Where `value` lies between 0 and 1: of choices and steps the middle of its share."""
        if self.choices is not None:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        low, high = self._ends()
        at = math.log(value) if self.log else float(value)
        return min(1.0, max(0.0, (at - low) / (high - low)))

    def at(self, position: float) -> Scalar:
        """The value at a position between 0 and 1, such that equal shares of it are equally likely values."""
        if self.choices is not None:
            return self.choices[min(int(position * len(self.choices)), len(self.choices) - 1)]
        assert self.low is not None
        assert self.high is not None
        low, high = self._ends()
        value = low + position * (high - low)
        value = math.exp(value) if self.log else value
        if self.step is not None or self.whole:
            step = self.step or 1
            number = min(max(round((value - self.low) / step), 0), (self.size or 1) - 1)
            return self.low + number * step
        return float(min(max(value, self.low), self.high))

    def _ends(self) -> tuple[float, float]:
        """The ends on the scale on which values are equally likely; those of steps lie half a step further out."""
        assert self.low is not None
        assert self.high is not None
        low, high = float(self.low), float(self.high)
        if self.step is not None or self.whole:
            half = (self.step or 1) / 2
            low, high = low - half, high + half
        return (math.log(low), math.log(high)) if self.log else (low, high)


Space = dict[str, Dimension]


def is_active(dimension: Dimension, values: Mapping[str, Any]) -> bool:
    """Whether a dimension is searched beside these values of the others, which are active themselves."""
    return all(
        name in values and any(_is(values[name], each) for each in allowed)
        for name, allowed in dimension.when.items()
    )


def _is(value: Any, allowed: Scalar) -> bool:
    """Whether they are one value; 0.1 + 2 * 0.1, as steps are computed, is 0.3."""
    if isinstance(value, float) and isinstance(allowed, float):
        return math.isclose(value, allowed, rel_tol=_ROUNDING)
    return bool(value == allowed)


def is_whole(space: Mapping[str, Dimension], values: Mapping[str, Any]) -> bool:
    """Whether every dimension that is active beside these values has one of them."""
    active = active_values(space, values)
    return all(name in active for name, dimension in space.items() if is_active(dimension, active))


def active_values(space: Mapping[str, Dimension], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` whose dimensions are active beside one another, in the order of the space."""
    active: dict[str, Any] = {}
    for name, dimension in space.items():
        if name in values and is_active(dimension, active):
            active[name] = values[name]
    return active


def unit_point(space: Mapping[str, Dimension], values: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """The point of a configuration in the unit cube, `(len(space),)`; inactive dimensions lie in the middle."""
    active = active_values(space, values)
    return np.array(
        [dimension.position(active[name]) if name in active else 0.5 for name, dimension in space.items()]
    )


def from_unit(space: Mapping[str, Dimension], point: npt.NDArray[np.float64]) -> dict[str, Scalar]:
    """The configuration at a point of the unit cube, without inactive dimensions."""
    values = {name: dimension.at(float(x)) for (name, dimension), x in zip(space.items(), point, strict=True)}
    return active_values(space, values)
