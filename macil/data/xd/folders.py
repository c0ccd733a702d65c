"""The folders of the XD-Violence layout, and what an inspection says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from macil.io.text import printable

SplitName = Literal["train", "test"]
Part = Literal["test"]
"""A split that is enough for some commands: those that train nothing"""
Modality = Literal["visual", "audio"]

SPLITS: tuple[SplitName, SplitName] = ("train", "test")
FOLDERS: dict[tuple[Modality, SplitName], tuple[str, ...]] = {
    ("visual", "train"): ("RGB", "i3d-features/RGB"),
    ("visual", "test"): ("RGBTest", "i3d-features/RGBTest"),
    ("audio", "train"): ("vggish-features/train",),
    ("audio", "test"): ("vggish-features/test",),
}
"""Where the features of a modality and a split may lie; the first is the usual one."""

SIDE_FOLDERS = (".", "list", "lists")
"""Where annotations, frame labels and file lists may lie."""


@dataclass(frozen=True)
class Finding:
    """One fault or note: its kind (a fixed word), the file or name it is about, and the reason."""

    kind: str
    where: str
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.reason}" if self.where else self.reason)
