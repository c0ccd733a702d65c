"""A search space as a TOML file, and one dimension of it as `--search NAME=SPEC`.

format_version = 1

[learning_rate]                   # any hyperparameter but seed and epochs
low = 1e-5
high = 1e-2
log = true                        # optional: equal ratios are equally likely, not equal differences

[hidden_dim]
low = 64
high = 256
step = 64                         # optional: only low and whole steps above it

[contrast]
choices = [true, false]           # in place of a range

[temperature]
low = 0.03
high = 1.0
when = { contrast = true }        # optional: searched only where others have this value, or one of a list
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from macil.config import Hyperparameter, hyperparameters
from macil.io.text import brief, printable
from tune.algorithms.space import Dimension, Space
from tune.planning.toml_files import read_toml
from tune.storage.run_file import Scalar

FORMAT_VERSION = 1
DEFAULT = Path(__file__).with_name("default_space.toml")
# Hyperparameters that all trials share, with the reason.
SHARED = {
    "seed": "all trials of a search have one seed, so that only their values tell them apart; give --seed",
    "epochs": "all trials of a search may take as many epochs, by which they are compared; give --epochs",
}
_KEYS = ("low", "high", "log", "step", "choices", "when")
_VERSION = "format_version"
_PARAMETERS = {parameter.name: parameter for parameter in hyperparameters()}
_WHOLE = re.compile(r"[+-]?\d{1,30}")
_GRAMMAR = "expected NAME=LOW..HIGH, NAME=LOW..HIGH:log, NAME=LOW..HIGH:step=STEP or NAME=VALUE,VALUE"


@cache
def default_space() -> Space:
    """The space without --space and --search, with its conditions."""
    return read_space(DEFAULT, [])


def read_space(path: Path, faults: list[str]) -> Space:
    """The dimensions of a space file.

    Args:
        path: The file.
        faults: Every fault is appended, with its table and key; a dimension that has one is left out.

    Raises:
        UsageError: It cannot be read or is no TOML.
    """
    content = read_toml(path, "--space")
    version = content.pop(_VERSION, None)
    if type(version) is not int or version != FORMAT_VERSION:
        found = f"{_VERSION} is missing" if version is None else f"{_VERSION} = {brief(version)}"
        faults.append(f"{found}; expected {_VERSION} = {FORMAT_VERSION}, above the first table")
    if not content:
        faults.append("no dimension; expected a table such as [learning_rate] with low and high, or choices")
    space: Space = {}
    for name, table in content.items():
        own: list[str] = []
        dimension = _dimension(name, table, own)
        if dimension is not None:
            space[name] = dimension
        faults += [f"[{printable(name[:60])}] {fault}" for fault in own]
    return space


def read_search(texts: Iterable[str], when: Space, faults: list[str]) -> Space:
    """The dimensions that `--search` gives, as `NAME=SPEC`.

    Args:
        texts: Each `NAME=LOW..HIGH`, with `:log` or `:step=STEP` behind it or not, or `NAME=VALUE,VALUE,…`.
        when: The space that they change: a dimension that is replaced keeps its condition.
        faults: Every fault is appended; a dimension that has one is left out.
    """
    space: Space = {}
    given: set[str] = set()
    for text in texts:
        name, equals, spec = (part.strip() for part in text.partition("="))
        own: list[str] = []
        if not (name and equals and spec):
            own.append(_GRAMMAR)
        elif name in given:
            own.append(f"{name} is given twice; leave one out")
        else:
            given.add(name)
            table = _table(name, spec, own)
            dimension = None if own else _dimension(name, table, own)
            if dimension is not None:
                kept = when[name].when if name in when else {}
                space[name] = dimension.model_copy(update={"when": kept})
        faults += [f"--search {printable(text[:120])}: {fault}" for fault in own]
    return space


def in_order(space: Space, faults: list[str]) -> Space:
    """The dimensions such that one comes after those that its condition names, else as they are.

    Conditions that go in a circle, that name a continuous range, or a value that the other dimension does not have,
    are appended to `faults`.
    """
    for name, dimension in space.items():
        for other, values in dimension.when.items():
            searched = space.get(other)
            if searched is None or other == name:
                continue
            if searched.size is None:
                faults.append(
                    f"[{name}] when: {other} is a continuous range; a condition needs choices, steps or whole numbers"
                )
            elif never := [value for value in values if not searched.holds(value)]:
                faults.append(
                    f"[{name}] when: {other} is never {_listed(never)}; it is searched as {describe(searched)}"
                )
    ordered: Space = {}
    left = dict(space)
    while left:
        ready = next((name for name, each in left.items() if not each.when.keys() & left.keys()), None)
        if ready is None:
            faults.append(f"conditions go in a circle: {_circle(left)}")
            return ordered | left
        ordered[ready] = left.pop(ready)
    return ordered


def to_text(space: Space) -> str:
    """The space as a file that `--space` reads."""
    lines = [f"{_VERSION} = {FORMAT_VERSION}"]
    for name, dimension in space.items():
        lines += ["", f"[{name}]"]
        for key in _KEYS:
            value = getattr(dimension, key)
            if not (value is None or value is False or value == {}):  # 0.0 is a value
                lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def describe(dimension: Dimension) -> str:
    """A dimension in one readable line."""
    if dimension.choices is not None:
        text = _listed(dimension.choices)
    else:
        text = f"{dimension.low:.10g} to {dimension.high:.10g}, "
        if dimension.step is not None:
            text += f"in steps of {dimension.step:.10g}"
        else:
            text += "whole numbers, " * dimension.whole + ("logarithmic" if dimension.log else "linear")
    conditions = [f"{name} = {_listed(values)}" for name, values in dimension.when.items()]
    return text + (f"; only with {' and '.join(conditions)}" if conditions else "")


def text_of(value: object) -> str:
    """A value as it is written in a space file and on the command line; text without its quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _listed(values: Iterable[Scalar]) -> str:
    return " or ".join(map(text_of, values))


def _toml(value: object) -> str:
    """A value in one line; TOML's text in quotes is JSON's where nothing is escaped."""
    if isinstance(value, Mapping):
        conditions = (
            f"{name} = {_toml(each[0] if len(each) == 1 else each)}" for name, each in value.items()
        )
        return f"{{ {', '.join(conditions)} }}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def _circle(left: Space) -> str:
    """One circle among dimensions none of which comes first."""
    walked = [next(iter(left))]
    while walked.count(walked[-1]) < 2:
        walked.append(next(name for name in left[walked[-1]].when if name in left))
    return ", ".join(
        f"{one} only with {other}"
        for one, other in zip(
            walked[walked.index(walked[-1]) :], walked[walked.index(walked[-1]) + 1 :], strict=False
        )
    )


def _table(name: str, spec: str, faults: list[str]) -> dict[str, Any]:
    """What a space file would say in the dimension's table."""
    if ".." not in spec:
        values = [_scalar(part) for part in spec.split(",")]
        if len(values) == 1 and name in _PARAMETERS:
            faults.append(
                f"a single value is not searched; fix it with --{name.replace('_', '-')} {spec}"
                if ":" not in spec
                else _GRAMMAR
            )
        return {"choices": values}
    ends, *scale = spec.split(":")
    low, _, high = ends.partition("..")
    table: dict[str, Any] = {"low": _scalar(low), "high": _scalar(high)}
    for each in scale:
        key, equals, value = (part.strip() for part in each.partition("="))
        if key == "log" and not equals:
            table["log"] = True
        elif key == "step" and equals:
            table["step"] = _scalar(value)
        else:
            faults.append(f"{brief(each)} behind the range; expected log or step=STEP")
    return table


def _scalar(text: str) -> Scalar:
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _dimension(name: str, table: object, faults: list[str]) -> Dimension | None:
    parameter = _PARAMETERS.get(name)
    if parameter is None:
        faults.append(_unknown(name))
        return None
    if name in SHARED:
        faults.append(f"is not searched: {SHARED[name]}")
        return None
    if not isinstance(table, Mapping):
        faults.append(f"{brief(table)} is no table; expected low and high, or choices")
        return None
    before = len(faults)
    unknown = [key for key in table if key not in _KEYS]
    faults += [f"{printable(key[:60])}: unknown{_close(key, _KEYS, 'expected')}" for key in unknown]
    fields = _range(parameter, table, faults) | _choices(parameter, table, faults)
    if "when" in table:
        fields["when"] = _when(name, table["when"], faults)
    if len(faults) > before:
        return None
    try:
        return Dimension(**fields)
    except ValidationError as error:
        faults += [fault["msg"].removeprefix("Value error, ") for fault in error.errors(include_url=False)]
        return None


def _range(parameter: Hyperparameter, table: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """The fields of a range that the table has."""
    found: dict[str, Any] = {}
    if parameter.type in (bool, str):
        if keys := [key for key in ("low", "high", "log", "step") if key in table]:
            names = (
                "true, false"
                if parameter.type is bool
                else ", ".join(f'"{each}"' for each in parameter.choices)
            )
            faults.append(f"{', '.join(keys)}: {parameter.name} is no number; expected choices = [{names}]")
        return found
    for key in ("low", "high"):
        if key in table:
            found[key] = _value(parameter, key, table[key], faults)
    if "log" in table:
        found["log"] = table["log"]
        if not isinstance(table["log"], bool):
            faults.append(f"log = {brief(table['log'])} is not allowed: expected true or false")
    if "step" in table:
        step = table["step"]
        kinds = int if parameter.type is int else (int, float)
        if isinstance(step, bool) or not isinstance(step, kinds) or not 0 < step < 1e12:
            kind = "a whole number" if parameter.type is int else "a number"
            faults.append(f"step = {brief(step)} is not allowed: expected {kind} above 0")
        else:
            found["step"] = parameter.type(step)
    return found


def _choices(parameter: Hyperparameter, table: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    if "choices" not in table:
        return {}
    choices = table["choices"]
    if not isinstance(choices, list):
        faults.append(f"choices = {brief(choices)} is not allowed: expected a list such as [1, 2]")
        return {}
    return {"choices": tuple(_value(parameter, "a choice", each, faults) for each in choices)}


def _when(name: str, table: object, faults: list[str]) -> dict[str, tuple[Any, ...]]:
    if not isinstance(table, Mapping):
        faults.append(f"when = {brief(table)} is not allowed: expected a table such as {{ contrast = true }}")
        return {}
    conditions = {}
    for other, given in table.items():
        parameter = _PARAMETERS.get(other)
        if parameter is None:
            faults.append(f"when: {_unknown(other)}")
        elif other == name or other in SHARED:
            why = (
                "a dimension cannot depend on itself" if other == name else "all trials of a search share it"
            )
            faults.append(f"when: {other}: {why}")
        elif given == []:
            faults.append(f"when: {other} = [] is not allowed: expected a value, or a list of some")
        else:
            values = given if isinstance(given, list) else [given]
            conditions[other] = tuple(_value(parameter, f"when: {other}", each, faults) for each in values)
    return conditions


def _value(parameter: Hyperparameter, key: str, value: Any, faults: list[str]) -> Scalar | None:
    """A value as the hyperparameter has it: 1 is 1.0 of a number that need not be whole."""
    if _allowed(parameter, value):
        return parameter.type(value)
    faults.append(f"{key} = {brief(value)} is not allowed: expected {parameter.allowed}")
    return None


def _allowed(parameter: Hyperparameter, value: object) -> bool:
    if parameter.choices:
        return value in parameter.choices
    if parameter.type is bool or isinstance(value, bool):
        return parameter.type is bool and isinstance(value, bool)
    if not isinstance(value, int | float) or (parameter.type is int and not isinstance(value, int)):
        return False
    assert parameter.low is not None
    assert parameter.high is not None
    return parameter.low <= value <= parameter.high and not (
        parameter.low_exclusive and value == parameter.low
    )


def _unknown(name: str) -> str:
    known = [each for each in _PARAMETERS if each not in SHARED]
    return f"unknown hyperparameter {brief(name)}{_close(name, known, 'known are')}"


def _close(name: str, known: Sequence[str], otherwise: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; {otherwise} {', '.join(known)}"
