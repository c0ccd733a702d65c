"""Text files of users, as the editors of this world save them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from macil.config import TrialConfig
from macil.data.split import Split
from macil.errors import MacilError
from macil.io.reading import EncodingError, read_text
from tests.support.layouts import write_layout
from tune.planning.enqueue_file import read_points
from tune.planning.space import search_space
from tune.planning.space_file import read_space
from tune.planning.sweep_file import find_sweep

SPACE = search_space(TrialConfig())
_SPLIT = {"format_version": 1, "seed": 0, "heldout": ["é"], "train": ["b"]}
_HASH = Split(("b",), ("é",), 0).hash

# Name of a file, its content with a letter that is not ASCII, and what reads it.
READERS: list[tuple[str, str, Callable[[Path], Any]]] = [
    ("c.toml", "# é\nramp = 0.5\n", TrialConfig.load),
    ("c.yaml", "# é\nramp: 0.5\n", TrialConfig.load),
    (
        "sweep.toml",
        "title = 'é'\n[[rows]]\nname = 'a'\nchanges = { ramp = 0.5 }\n",
        lambda p: find_sweep(str(p)),
    ),
    ("space.toml", "# é\nformat_version = 1\n[ramp]\nlow = 0.1\nhigh = 1\n", lambda p: read_space(p, [])),
    ("known.toml", "# é\n[[points]]\nramp = 0.5\n", lambda p: read_points(str(p), TrialConfig(), SPACE)),
    ("known.csv", "ramp,é\n0.5,1\n", lambda p: read_points(str(p), TrialConfig(), SPACE)),
    ("split.json", json.dumps({**_SPLIT, "hash": _HASH}, ensure_ascii=False), Split.load),
]


@pytest.mark.parametrize(("name", "text", "read"), READERS, ids=[reader[0] for reader in READERS])
def test_every_text_file_may_begin_with_a_byte_order_mark(
    name: str, text: str, read: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    plain = read(path)
    path.write_text(text.replace("\n", "\r\n"), "utf-8-sig")  # as Windows writes it
    assert plain == read(path)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-16", "it is UTF-16, or no text; save it as UTF-8"),
        ("utf-16-be", "it is UTF-16, or no text; save it as UTF-8"),
        ("latin-1", "is not UTF-8 (byte 0xe9), perhaps Latin-1; save it as UTF-8"),
    ],
)
@pytest.mark.parametrize(("name", "text", "read"), READERS, ids=[reader[0] for reader in READERS])
def test_another_encoding_is_named(
    encoding: str, message: str, name: str, text: str, read: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding)
    with pytest.raises(MacilError) as refused:
        read(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_the_line_of_the_first_byte_that_is_no_utf_8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbfone\ntwo\nthr\xe9e\n")
    with pytest.raises(EncodingError, match=r"^line 3 is not UTF-8 \(byte 0xe9\)"):
        read_text(path)
    assert read_text(path, errors="replace") == "one\ntwo\nthr\ufffde\n"


def test_annotations_and_lists_in_another_encoding_are_faults_that_name_it(tmp_path: Path) -> None:
    from macil.data.xd.annotations import read_frame_labels
    from macil.data.xd.layout import read_layout

    write_layout(tmp_path)
    annotations = tmp_path / "annotations.txt"
    text = annotations.read_text()
    annotations.write_text(text, "utf-8-sig")
    assert read_frame_labels(read_layout(tmp_path), {}).faults == []
    annotations.write_text(text, "utf-16")
    (tmp_path / "rgb.list").write_text("é.npy\n", "latin-1")
    layout = read_layout(tmp_path)
    assert any("rgb.list: cannot be read: line 1 is not UTF-8" in str(fault) for fault in layout.faults)
    (fault, *_) = read_frame_labels(layout, {}).faults
    assert str(fault) == "annotations.txt: cannot be read: it is UTF-16, or no text; save it as UTF-8"
