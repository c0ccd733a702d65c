"""The search space over the hyperparameters that the paper discusses: Λ_v2b, Λ_v2n, r, τ, m and the hidden size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from macil.config import TrialConfig, departures, hyperparameters
from macil.errors import UsageError
from macil.io.command_line import command_line
from tune.algorithms.space import Dimension, Space

# (low, high, log). Narrower than what TrialConfig accepts, which is checked when the space is built.
_RANGES: Mapping[str, tuple[float, float, bool]] = {
    # A loss weight acts by its ratio to the MIL loss (weight 1), so by factors: logarithmic. Table 4 tries 1.0 and 1.5
    # and finds a point of AP between them; a factor of about four to either side leaves room to be wrong. Zero is
    # not in the space: it is another model (preset two-stream+sd).
    "lambda_v2b": (0.25, 4.0, True),
    "lambda_v2n": (0.25, 4.0, True),
    # 1/r is the number of epochs until λ = 1: from 1/3 of an epoch (3.0, the largest of Table 4: full weight at once)
    # to 50 (0.02, the length of the published training). A time scale: logarithmic.
    "ramp": (0.02, 3.0, True),
    # Logits are cosines divided by τ, their spread is 2/τ: 67 at 0.03 (nearly a hard maximum over the negatives),
    # 2 at 1 (nearly uniform). Only ratios matter: logarithmic.
    "temperature": (0.03, 1.0, True),
    # Share of its own weights that the audio-visual network keeps at an infusion: 1 is no infusion at all, 0.8 would
    # replace two thirds of them within five epochs; Figure 3 is best at 0.91. Linear: both ends are meaningful.
    "momentum": (0.8, 1.0, False),
}
# Widths with whole heads of equal size; 128 is published. Categorical: three points have no slope worth modelling.
_HIDDEN_DIMS = (64, 128, 256)

# What a switched-off module makes inert, so that searching it would compare equal trainings.
_NEEDS = {"contrast": ("lambda_v2b", "lambda_v2n", "ramp", "temperature"), "distill": ("momentum",)}

SEARCHABLE = (*_RANGES, "hidden_dim")


def search_space(base: TrialConfig, fixed: Iterable[str] = ()) -> Space:
    """Dimensions of the hyperparameters to search, by name, in a fixed order.

    Args:
        base: The configuration the suggestions are put into; modules it switches off take theirs out of the space.
        fixed: Hyperparameters given on the command line; they leave the space.

    Raises:
        UsageError: Nothing is left to search.
    """
    inert = {name for switch, names in _NEEDS.items() if not getattr(base, switch) for name in names}
    left = [name for name in SEARCHABLE if name not in inert | set(fixed)]
    widths = tuple(width for width in _HIDDEN_DIMS if width % base.num_heads == 0)
    if len(widths) < 2 and "hidden_dim" in left:
        left.remove("hidden_dim")
    if not left:
        once = command_line("macil", "train", "DATA", "--out", "DIR")
        raise UsageError(
            "nothing is left to search: every hyperparameter of the space is fixed on the command line or switched "
            f"off; leave one of {', '.join(SEARCHABLE)} open, or train once: {once}"
        )
    return {name: _dimension(name, base, widths) for name in left}


def published_point(space: Space) -> dict[str, Any]:
    """The paper's best point (Table 4 row 10, Figure 3, section 5.2), restricted to `space`: the first suggestion."""
    defaults = {parameter.name: parameter.default for parameter in hyperparameters()}
    return {name: defaults[name] for name, dimension in space.items() if dimension.holds(defaults[name])}


def reference_title(values: Mapping[str, Any]) -> str:
    """The name of the reference configuration: "the paper's setting" only where it is that."""
    return "the reference" if departures(values) else "the paper's setting"


def describe(space: Space) -> dict[str, str]:
    """One readable line per searched hyperparameter."""
    return {name: _describe(dimension) for name, dimension in space.items()}


def _dimension(name: str, base: TrialConfig, widths: tuple[int, ...]) -> Dimension:
    if name == "hidden_dim":
        return Dimension(choices=widths)
    low, high, log = _RANGES[name]
    base.replace(**{name: low})
    base.replace(**{name: high})
    return Dimension(low=low, high=high, log=log)


def _describe(dimension: Dimension) -> str:
    if dimension.choices is not None:
        return " or ".join(str(choice) for choice in dimension.choices)
    return f"{dimension.low:g} to {dimension.high:g}, {'logarithmic' if dimension.log else 'linear'}"
