"""A store as version 1 of the format has it: names as the folder spells them, nothing on the labels' origin."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from macil.data import convert
from macil.io.files import read_json, write_json_atomic


def convert_as_version_1(layout: Path, out: Path) -> Path:
    """Convert a layout as the first version did."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("macil.data.xd.names.normalise_name", lambda name: name)
        patch.setattr("macil.data.xd.annotations.normalise_name", lambda name: name)
        # As an attribute of its package the name is the function.
        patch.setattr(importlib.import_module("macil.data.store.conversion"), "FORMAT_VERSION", 1)
        convert(layout, out)
    meta = read_json(out / "meta.json")
    del meta["label_notes"]
    write_json_atomic(out / "meta.json", meta)
    return out
