"""Frame labels that cannot be in frames are noticed; early violence on honest data is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from macil.data.demo.generator import DemoGenerator, DemoSize
from macil.data.xd.label_units import too_early, too_late

# Last violent frame and frames of a video -> the number that another tool writes.
UNITS: dict[str, Callable[[int, int], int]] = {
    "seconds at 24 frames": lambda end, _: end // 24,
    "seconds at 30 frames": lambda end, _: end // 30,
    "snippet numbers": lambda end, _: -(-end // 16),
    "part of the video": lambda end, frames: round(end / frames),
}


def demo(seed: int, **size: int) -> tuple[list[int], list[int]]:
    """Ends and frames of the violent test videos of a demo."""
    videos = DemoGenerator(DemoSize(seed=seed, train_videos=2, visual_dim=8, audio_dim=8, **size)).videos
    violent = [video for video in videos if video.split == "test" and video.violent]
    return [video.intervals[-1][1] for video in violent], [16 * video.length for video in violent]


SIZES = [
    {"test_videos": 12, "min_snippets": 6, "max_snippets": 12},
    {"test_videos": 40, "min_snippets": 16, "max_snippets": 40},
    {"test_videos": 6, "min_snippets": 100, "max_snippets": 300},
]


@pytest.mark.parametrize("size", SIZES)
def test_the_demo_data_are_in_frames_and_in_other_units_they_are_noticed(size: dict[str, int]) -> None:
    for seed in range(5):
        ends, frames = demo(seed, **size)
        assert too_early(ends, frames, 16) is None
        assert too_late(ends, frames, 16) is None
        for unit, convert in UNITS.items():
            message = too_early(list(map(convert, ends, frames)), frames, 16)
            assert message, unit
            assert "look like seconds or snippet numbers" in message
            assert f"in {len(ends)} of {len(ends)} violent test videos" in message
        message = too_late([end * 1000 // 24 for end in ends], frames, 16)
        assert message
        assert "milliseconds" in message


def test_per_cent_is_noticed_on_videos_that_are_much_longer_than_a_hundred_frames() -> None:
    ends, frames = demo(0, test_videos=12, min_snippets=100, max_snippets=300)
    message = too_early([100 * end // length for end, length in zip(ends, frames, strict=True)], frames, 16)
    assert message
    assert "per cent, not like frames" in message


@pytest.mark.parametrize(
    ("ends", "frames"),
    [
        ([], []),
        ([20], [4000]),
        ([20, 30], [4000, 9000]),
        # The first snippet of short clips, or less than a second of it.
        ([16] * 50, [160] * 50),
        ([14] * 50, [160] * 50),
        # The first ten seconds of short videos, the first minute of films.
        ([240] * 50, [480] * 50),
        ([1440, 1200, 1400], [14_400, 9_600, 20_000]),
        # Early in most videos, and to the end in others.
        ([20] * 8 + [900] * 2, [1000] * 10),
    ],
)
def test_early_violence_and_few_videos_are_no_reason_to_doubt(ends: list[int], frames: list[int]) -> None:
    assert too_early(ends, frames, 16) is None
    assert too_late(ends, frames, 16) is None


def test_one_line_in_ten_that_is_in_frames_does_not_hide_the_others() -> None:
    assert too_early([40] * 9 + [900], [1000] * 10, 16)


def test_seconds_are_noticed_whatever_the_length_of_a_snippet() -> None:
    for snippet_frames in (8, 16, 64):
        assert too_early([40] * 8, [1024] * 8, snippet_frames)


def test_some_ends_beyond_the_video_are_left_to_their_own_faults() -> None:
    assert too_late([900, 400, 300], [500, 500, 500], 16) is None
    message = too_late([1900, 400, 1000], [500, 500, 500], 16)
    assert message
    assert message.startswith("2 of 3 annotated videos end beyond their last snippet, 2.9 times")
