"""How a data folder is read: the choices of whoever reads it, which stay with what is made of it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field

from macil.data.xd.annotations import SNIPPET_FRAMES
from macil.io.formats import FileModel

MOST_FRAMES = 10_000
"""Frames of a snippet: far beyond any features there are."""

Silent = Literal["zeros", "leave-out"]


class Reading(FileModel):
    """Options of reading a data folder. All are None where it is read as usual."""

    snippet_frames: Annotated[int, Field(ge=1, le=MOST_FRAMES)] | None = None
    """Frames of a snippet; None: 16, or what `gt.npy` says"""
    silent: Silent | None = None
    """Videos whose audio file holds nothing but zeros or is missing get audio of zeros, or are left out; None: zeros
    are taken as they are, and a missing file is a fault"""

    visual_only: Literal[True] | None = None
    """No audio is read, whatever there is"""
    outside: Literal[True] | None = None
    """Feature files that a manifest names may lie outside of its folder"""

    @property
    def given(self) -> dict[str, Any]:
        """The options that are given, by name."""
        fields = {name: getattr(self, name) for name in Reading.model_fields}
        return {name: each for name, each in fields.items() if each is not None}

    @property
    def chosen(self) -> dict[str, Any]:
        """Those that make other data than usual."""
        usual = {"snippet_frames": SNIPPET_FRAMES}
        return {name: each for name, each in self.given.items() if each != usual.get(name)}

    @property
    def key(self) -> str:
        """Tells folders in the cache apart; "" for what is read as usual."""
        if not self.chosen:
            return ""
        text = json.dumps(self.chosen, sort_keys=True)
        return "+" + hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    @property
    def plain(self) -> Reading:
        """The same without options that change nothing."""
        return Reading(**self.chosen)

    @property
    def words(self) -> list[str]:
        """The options as words of a command line."""
        return [
            word
            for name, each in self.given.items()
            for word in (f"--{name.replace('_', '-')}", *([] if each is True else [str(each)]))
        ]


AS_USUAL = Reading()
