"""Whether frame labels can be in frames: another tool may count seconds, snippets, per cent or milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Seconds are noticed at this many frames a second and more: 24 in XD-Violence.
_LEAST_RATE = 16
# A bound on the ends says something of a video that is so many times as long.
_TELLING = 4
_FEWEST_VIDEOS = 3
# One odd video in ten, an annotation mended by hand, does not hide the rest.
_SHARE = 0.9
# Were the last violent frame anywhere in its video with equal chance, ends that are all so early would come about less
# often than this. Honest data are safer than that: violence lasts (its last frame is late), and on a clip of a few
# seconds the bound of seconds or snippet numbers is less than one snippet, which no real event ends within. Four
# videos are the fewest that are noticed at 16 frames a second, three at 24.
_CHANCE = 1e-4


def too_early(ends: Sequence[int], frames: Sequence[int], snippet_frames: int) -> str | None:
    """A note for when the violence of nearly every video ends as early as numbers of another unit would make it end.

    Args:
        ends: Of each violent video, the frame after its last violent one; 0: none is violent.
        frames: Of each of these videos, how many it has.
        snippet_frames: Frames of a snippet.
    """
    last, length = np.array(ends, float), np.array(frames, float)
    bounds = {
        "seconds": length / _LEAST_RATE + 1,
        "snippet numbers": length / snippet_frames + 1,
        "per cent": np.full(len(length), 100.0),
    }
    early = {unit: _find_early(last, length, bound) for unit, bound in bounds.items()}
    units = [unit for unit, found in early.items() if found.any()]
    if not units:
        return None
    found = early[units[0]]
    part = 100 * float((last[found] / length[found]).max())
    return (
        f"in {found.sum()} of {len(length)} violent test videos the violence is over within the first {part:.1f} % of "
        f"the video: the numbers look like {' or '.join(units)}, not like frames, and then every AP is wrong. Frames "
        f"are seconds times frames a second, or snippet numbers times {snippet_frames}; if these are frames, nothing "
        "is wrong"
    )


def too_late(ends: Sequence[int], frames: Sequence[int], snippet_frames: int) -> str | None:
    """A note for when at least half of several videos are annotated beyond their end; see `too_early` for arguments."""
    last, length = np.array(ends, float), np.array(frames, float)
    beyond = last > length + snippet_frames
    if len(length) < 2 or beyond.mean() < 0.5:
        return None
    times = float(np.median(last[beyond] / length[beyond]))
    return (
        f"{beyond.sum()} of {len(length)} annotated videos end beyond their last snippet, {times:.3g} times as far as "
        "the features go (the median): do the numbers count milliseconds or frames of another rate, or has a snippet "
        f"more than {snippet_frames} frames (--snippet-frames)?"
    )


def _find_early(last: np.ndarray, length: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Which videos end so early; none unless nearly all end within their bound, and that is hardly by chance."""
    none = np.zeros(len(length), bool)
    within, telling = last <= bound, bound * _TELLING <= length
    found = within & telling
    if telling.sum() < _FEWEST_VIDEOS or within.mean() < _SHARE or found.sum() < _SHARE * telling.sum():
        return none
    from scipy.special import bdtrc  # late: no command line should wait for it

    # So many of these videos, or more, within this part, if each ends anywhere with equal chance.
    chance = bdtrc(int(found.sum()) - 1, int(telling.sum()), float((last[found] / length[found]).max()))
    return found if chance <= _CHANCE else none
