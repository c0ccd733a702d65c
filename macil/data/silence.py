"""Videos without sound: their audio holds nothing but zeros, or they have no audio file."""

from __future__ import annotations

from collections.abc import Mapping

from macil.data.reading import Reading
from macil.errors import DataError
from macil.io.wording import plural

ZEROS, ABSENT = "silent_videos", "videos_without_audio"
"""Counts of a store, of those that it has or that were left out; absent where there are none."""


def silence_note(counts: Mapping[str, int], reading: Reading) -> str | None:
    """The videos without sound in numbers, and what is done about them; None without any."""
    zeros, absent = counts.get(ZEROS, 0), counts.get(ABSENT, 0)
    if not zeros + absent:
        return None
    kinds = [f"{zeros} whose audio holds nothing but zeros"] if zeros else []
    kinds += [f"{absent} without an audio file"] if absent else []
    found = f"{plural(zeros + absent, 'video')} without sound ({', '.join(kinds)})"
    if reading.silent == "leave-out":
        return f"{found} left out (--silent leave-out)"
    done = f"{found} read as audio of zeros"
    return done if reading.silent else f"{done}; --silent leave-out leaves them out"


def require_audio(audio_dim: int, where: object) -> None:
    """Refuse data without audio.

    Raises:
        DataError: Says what MACIL-SD needs.
    """
    if not audio_dim:
        raise DataError(
            f"{where} holds no audio (--visual-only): MACIL-SD trains on visual and audio features of the same videos. "
            "Give audio features too, such as VGGish, a row a snippet; --silent zeros helps where some videos have none"
        )
