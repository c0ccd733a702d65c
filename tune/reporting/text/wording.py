"""How the report says a number: never without what it is, and never one that was not measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from macil.io import wording
from tune.reporting.statistics.intervals import FEWEST_SEEDS, Bounds, Estimate

NOT_MEASURED = "—"

PROTOCOLS = {
    "published": "published: trained on all training videos, test AP measured every epoch",
    "heldout": "heldout: trained on 80 % of the training videos, selection score on the other 20 %, test labels unread",
    "refit": "refit: trained on all training videos for the winner's chosen number of epochs, test labels unread",
}
# What a trial of a protocol is trained on.
TRAINED_ON = {
    "published": "all training videos",
    "heldout": "80 % of the videos",
    "refit": "all training videos",
}
EPOCH_RULES = {
    "last": "last epoch",
    "chosen": "chosen epoch (the first with the best held-out score)",
}
DEFINITIONS = {
    "ap_trapezoid": "trapezoidal area under the precision–recall curve, the published definition",
    "ap": "step-wise sum, scikit-learn's average_precision_score",
}
SHORT_DEFINITIONS = {"ap_trapezoid": "trapezoidal", "ap": "step-wise"}


def selection_metric(protocol: str) -> str:
    """The metric of which the selection score is the best, in words."""
    return "best test AP" if protocol == "published" else "best held-out score"


def chance_beside(chance: float | None) -> str:
    """The AP of guessing, to stand behind an AP; "" where it is not known."""
    return "" if chance is None else f" (chance {percent(chance)})"


def percent(value: float | None) -> str:
    """A share in percent, without the sign: 0.8340 -> "83.40"."""
    return NOT_MEASURED if value is None else f"{100 * value:.2f}".replace("-", "−")


def points(value: float | None) -> str:
    """A difference of two percentages with its sign."""
    return NOT_MEASURED if value is None else f"{value:+.2f}".replace("-", "−")


def decimal(value: float | None) -> str:
    """A score with fixed digits."""
    return NOT_MEASURED if value is None else f"{value:.4f}".replace("-", "−")


def count(value: int | None) -> str:
    """A whole number with thousands separated."""
    return NOT_MEASURED if value is None else f"{value:,}"


def duration(seconds: float | None) -> str:
    """A length of time."""
    return NOT_MEASURED if seconds is None else wording.duration(seconds)


def value(item: Any, digits: int = 6) -> str:
    """A hyperparameter as a person writes it: 0.0004, not 4e-04; `digits` significant ones at most."""
    if item is None:
        return NOT_MEASURED
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, float):
        return _plain(item, digits)
    return str(item)


def seed_count(n: int) -> str:
    """Number of seeds: "one seed", "3 seeds"."""
    return "one seed" if n == 1 else f"{n} seeds"


def seeds(n: int) -> str:
    """Number of seeds and the kind of interval that goes with it."""
    if n == 0:
        return "no seed finished"
    if n == 1:
        return "one seed, no interval"
    if n < FEWEST_SEEDS:
        return f"{n} seeds, both values: {NEEDED}"
    return f"{n} seeds, 95 % t interval"


# Of how many seeds `FEWEST_SEEDS` is.
NEEDED = "an interval needs three or more"


def measured_by(flag: str) -> str:
    """Advice on how to measure the differences between seeds."""
    return f"{flag} {FEWEST_SEEDS} measures it"


def estimate_text(figure: Estimate | None) -> str:
    """Mean in percent with its interval, `CUT` where that is; of two seeds both values instead."""
    return _estimate(figure, percent)


def score_text(figure: Estimate | None) -> str:
    """`estimate_text` for a score, which is no percentage."""
    return _estimate(figure, decimal)


def points_text(figure: Estimate | None, scale: float = 100) -> str:
    """`estimate_text` for a difference, in points with signs; `scale` 1 is for differences that are points already."""
    return _estimate(figure, lambda value: points(scale * value))


def score_difference_text(figure: Estimate | None) -> str:
    """`estimate_text` for a difference of two scores, with signs."""
    return _estimate(figure, signed)


# Behind an interval that would reach beyond what can be.
CUT = "(cut)"


def interval_notes(figures: Iterable[Estimate | None], within: Bounds) -> list[str]:
    """Sentences that explain the intervals of a table; none where all are plain ones.

    Args:
        figures: What the table shows.
        within: What its numbers lie between, in the table's unit.
    """
    known = [figure for figure in figures if figure is not None]
    messages = []
    if any(figure.values for figure in known):
        messages.append(f"In round brackets: both values of two seeds, since {NEEDED}.")
    return [*messages, *(f"{note}." for note in cut_notes(known, within))]


def cut_notes(figures: Iterable[Estimate | None], within: Bounds) -> list[str]:
    """The meaning of `CUT`, without a full stop; nothing where no interval is cut."""
    if not any(figure and figure.cut for figure in figures):
        return []
    ends = " or ".join(f"{end:g}".replace("-", "−") for end in within)
    return [f"{CUT}: the interval reached further, and no such number lies beyond {ends}"]


def signed(value: float | None) -> str:
    """A difference of two scores with its sign."""
    return NOT_MEASURED if value is None else f"{value:+.4f}".replace("-", "−")


def ap_definition(definition: str, protocol: str, epoch_rule: str) -> str:
    """A description of an AP without the seeds: definition, protocol, epoch rule."""
    return f"{DEFINITIONS[definition]}; protocol {protocol}; {EPOCH_RULES.get(epoch_rule, epoch_rule)}"


def ap_statement(definition: str, protocol: str, epoch_rule: str, n: int) -> str:
    """A description of an AP: definition, protocol, epoch rule, number of seeds, interval."""
    return f"{ap_definition(definition, protocol, epoch_rule)}; {seeds(n)}"


def ap_basis(protocol: str, epoch_rule: str, n: int) -> str:
    """The same for a table that holds both definitions in columns of their own."""
    each = "each row one seed, no interval" if n == 1 else f"each row {seeds(n)}"
    return (
        f"Test AP in %, frame level; protocol {protocol}; {EPOCH_RULES.get(epoch_rule, epoch_rule)}; {each}."
    )


def _estimate(figure: Estimate | None, show: Callable[[float], str]) -> str:
    if figure is None:
        return NOT_MEASURED
    mean = show(figure.mean)
    if figure.values:
        return f"{mean} ({' and '.join(show(value) for value in figure.values)})"
    if figure.low is None or figure.high is None:
        return mean
    return f"{mean} [{show(figure.low)}, {show(figure.high)}]" + f" {CUT}" * figure.cut


def _plain(number: float, significant: int) -> str:
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    digits = significant - 1 - math.floor(math.log10(abs(number)))
    text = f"{round(number, digits):.{max(digits, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
