"""How many bags a run trains on, and how many steps an epoch is: known when its data are."""

from __future__ import annotations

from collections.abc import Sequence

from macil.data.opening import at_hand
from macil.data.split import Split, make_split
from macil.data.store.feature_store import FeatureStore
from macil.errors import MacilError
from macil.io.wording import plural
from macil.training.bags import bag_count
from tune.planning.plan import Plan

LATER = "counted at the start, when the data are read"


def bags_of(plan: Plan, store: FeatureStore, split: Split | None) -> list[str]:
    """Bags, batch size and steps an epoch, in words; after the first line what a person should know about them.

    Args:
        plan: The run.
        store: Its data.
        split: The held-out split; None where all videos are trained on.
    """
    sizes = _batch_sizes(plan)
    trained = bag_count(store, split.train if split else None)
    videos = trained // store.crops
    whole = bag_count(store, None)
    text = f"{plural(trained, 'bag')} ({plural(videos, 'training video')} of {plural(store.crops, 'crop')}); "
    text += ", ".join(
        f"batches of {size}: {plural(_steps(trained, size), 'step')} an epoch" for size in sizes
    )
    if plan.refits and whole != trained:
        text += "; refit: " + ", ".join(
            f"{plural(whole, 'bag')}, {plural(_steps(whole, size), 'step')}" for size in sizes
        )
    return [text, *_notes(trained, sizes)]


def bags_at_hand(plan: Plan) -> list[str]:
    """See `bags_of`; where it would take a conversion or a download, a text that the bags are counted later."""
    try:
        store = at_hand(plan.data, plan.reading)
        if store is None:
            return [LATER]
        split = None
        if plan.split is not None:
            split = Split.load(plan.split).check_given(store)
        elif plan.protocol == "heldout":
            split = make_split(store, plan.split_seed, plan.split_by)
        return bags_of(plan, store, split)
    except MacilError as error:
        return ["; ".join(str(error).splitlines())]


def _batch_sizes(plan: Plan) -> list[int]:
    """The batch sizes that are trained with; of a search over them the smallest and the largest."""
    usual = plan.base.batch_size
    if "batch_size" in plan.space:
        return sorted(map(int, plan.space["batch_size"].ends))
    return sorted({int(row.changes.get("batch_size", usual)) for row in plan.rows}) or [usual]


def _notes(bags: int, sizes: Sequence[int]) -> list[str]:
    large = [str(size) for size in sizes if size >= bags]
    if not large:
        return []
    held = f"a batch of {' or '.join(large)} holds all {plural(bags, 'bag')}"
    return [f"{held}, so an epoch is one step; a smaller --batch-size gives more"]


def _steps(bags: int, size: int) -> int:
    return -(-bags // size)
