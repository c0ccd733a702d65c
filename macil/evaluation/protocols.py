"""The protocols of a training: which videos it sees, by what its epoch is chosen, and whether test labels are read."""

from __future__ import annotations

from typing import Literal

Protocol = Literal["published", "heldout", "refit"]
EpochRule = Literal["chosen", "last"]

# Trainings that keep test scores and read no test label.
CLOSED_PROTOCOLS = ("heldout", "refit")
_EPOCH_RULES: dict[str, EpochRule] = {"published": "last", "heldout": "chosen", "refit": "last"}


def epoch_rule(protocol: str, recorded: str | None = None) -> EpochRule:
    """The epoch whose test metrics are the headline of a training: the one that its score chose, or the last.

    Args:
        protocol: Of the training.
        recorded: What a run says; counts where the protocol is not known.
    """
    return _EPOCH_RULES.get(protocol, "chosen" if recorded == "chosen" else "last")
