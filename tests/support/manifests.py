"""A manifest of the files of the small layout, or of any folder in the layout."""

from __future__ import annotations

import csv
from pathlib import Path

from macil.data.xd.layout import read_layout
from tests.support.layouts import ANNOTATIONS

FIELDS = ("name", "split", "label", "category", "source", "visual", "audio", "frames")


def rows_of(root: Path) -> list[dict[str, str]]:
    """A row for each video of a folder in the layout, the intervals those of `tests.support.layouts`."""
    layout = read_layout(root)
    frames = {name.removesuffix(".mp4"): pairs for name, pairs in ANNOTATIONS.items()}
    return [
        {
            "name": video.name,
            "split": video.split,
            "label": str(video.parsed.label),
            "category": video.parsed.category,
            "source": video.parsed.source,
            "visual": ";".join(layout.relative(path) for path in video.visual),
            "audio": layout.relative(video.audio) if video.audio else "",
            "frames": " ".join(f"{a} {b}" for a, b in frames.get(video.name, ())),
        }
        for video in layout.videos
    ]


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    return path
