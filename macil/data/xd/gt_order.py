"""In which order of the videos `gt.npy` holds their frame labels: it does not say, and can prove little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from macil.data.xd.layout import Layout, VideoFiles


@dataclass(frozen=True)
class Attempt:
    """`gt.npy` cut into videos in a certain order: `labels` by name, and the order in words."""

    order: str
    labels: dict[str, np.ndarray]


def cut_in_every_order(
    ground_truth: np.ndarray,
    layout: Layout,
    videos: list[VideoFiles],
    lengths: Mapping[str, int],
    snippet_frames: int,
) -> list[Attempt]:
    """Cut the labels of all test videos in each order that they may have, the likeliest first.

    Args:
        ground_truth: uint8, `snippet_frames` times the sum of `lengths`.
        layout: Its test list, where it is complete, is the likeliest order.
        videos: All test videos, by name.
        lengths: Snippets of each.
        snippet_frames: Frames of a snippet.
    """
    published = [v.name for v in videos if v.parsed.label] + [v.name for v in videos if not v.parsed.label]
    orders = {"violent videos first, then normal ones, each by name": published}
    listed = [name for name in layout.test_list or () if name in set(published)]
    if len(listed) == len(published):
        orders = {"that of the test list": listed, **orders}
    return [
        Attempt(words, _cut(ground_truth, names, lengths, snippet_frames)) for words, names in orders.items()
    ]


def contradictions(attempt: Attempt, videos: list[VideoFiles]) -> list[str]:
    """Contradictions between an order and the names: a normal video with violent frames, a violent one without."""
    return [
        f"gives {video.name} {'no violent frame' if video.parsed.label else 'violent frames'}, against its name"
        for video in videos
        if bool(attempt.labels[video.name].any()) != bool(video.parsed.label)
    ]


def order_doubt(taken: Attempt, possible: list[Attempt]) -> str:
    """The note about labels that were cut in an order which is only `possible`, without annotations."""
    doubt = (
        f"the order of the videos in it is an assumption, since there is no annotations.txt: {taken.order}. The names "
        "prove only that no normal video holds a violent frame then, and every violent one some; in another order "
        "every AP is wrong"
    )
    others = [each.order for each in possible if _differ(taken, each)]
    if others:
        doubt += f". This order would pass as well, with other labels: {'; '.join(others)}"
    return doubt


def _cut(
    ground_truth: np.ndarray, order: list[str], lengths: Mapping[str, int], snippet_frames: int
) -> dict[str, np.ndarray]:
    ends = np.cumsum([lengths[name] * snippet_frames for name in order])
    return dict(zip(order, np.split(ground_truth, ends[:-1]), strict=True))


def _differ(one: Attempt, other: Attempt) -> bool:
    return any(not np.array_equal(labels, other.labels[name]) for name, labels in one.labels.items())
