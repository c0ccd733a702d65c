"""Whether the numbers of several runs may be held against one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tune.results.run import RunResults
from tune.results.run_info import is_demo

DIGEST = 8  # characters of a content hash that are shown

NO, UNKNOWN = "Not comparable", "Not known to be comparable"


def incomparable(runs: Mapping[str, RunResults]) -> list[str]:
    """Why not, in sentences; empty when nothing speaks against it.

    Args:
        runs: By the name that a sentence calls them.
    """
    messages = []
    demo = [name for name, run in runs.items() if is_demo(run.info)]
    if 0 < len(demo) < len(runs):
        messages.append(f"{NO}: demo data in {', '.join(demo)}, and other data in the rest.")
    for what, field, short in (
        ("training and test data", "store_hash", DIGEST),
        ("test labels", "labels_hash", DIGEST),
        ("protocol", "protocol", None),
        ("epoch rule of the headline", "epoch_rule", None),
    ):
        values = {name: str(own)[:short] for name, run in runs.items() if (own := getattr(run.info, field))}
        if len(set(values.values())) > 1:
            each = ", ".join(f"{name} {value}" for name, value in values.items())
            messages.append(f"{NO}: they differ in their {what} ({each}).")
        unknown = [name for name in runs if name not in values]
        if unknown:
            messages.append(f"{UNKNOWN}: the {what} of {', '.join(unknown)} is not recorded.")
    heldout = [(name, run.plan) for name, run in runs.items() if run.protocol == "heldout"]
    for how, splits in (
        ("with different seeds", {name: str(plan.split_seed) for name, plan in heldout}),
        ("from different files", {name: str(plan.split_hash)[:8] for name, plan in heldout}),
        ("by different rules", {name: str(plan.split_by) for name, plan in heldout}),
    ):
        if len(set(splits.values())) > 1:
            messages.append(
                f"Selection scores are not comparable: the held-out videos were drawn {how} "
                f"({', '.join(f'{name} {each}' for name, each in splits.items())})."
            )
    return messages


def verdict(reasons: Sequence[str]) -> str:
    """The verdict over the reasons of `incomparable`."""
    if any(reason.startswith(NO) for reason in reasons):
        return "No: see the warnings above."
    if any(reason.startswith(UNKNOWN) for reason in reasons):
        return "Not known: see the warnings above."
    return "Test APs, yes: the same data, test labels, protocol and epoch rule."
