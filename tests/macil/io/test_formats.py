"""Files of our own formats: what a message says of a file that is none, of another version, or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field

from macil.errors import DataError
from macil.io.formats import FileFormat


class Plain(FileFormat):
    WHAT: ClassVar[str] = "a plain file"
    ADVICE: ClassVar[str] = "; make it again"
    READABLE: ClassVar[tuple[int, ...]] = (1, 2)

    format_version: int = 2
    count: Annotated[int, Field(ge=1, description="a whole number from 1")]
    names: list[str]


class Marked(FileFormat):
    WHAT: ClassVar[str] = "a marked file"
    MARK: ClassVar[str | None] = "kind"

    kind: str = "macil marked"
    text: str


WHOLE = {"format_version": 2, "count": 1, "names": ["a"]}


def test_what_is_written_is_read_again_with_the_fields_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "plain.json"
    Plain(count=3, names=["b"]).write(path)
    assert path.read_text().split('"')[1::2] == ["format_version", "count", "names", "b"]
    assert Plain.read(path) == Plain(count=3, names=["b"])
    assert Plain.parse(WHOLE | {"format_version": 1}, "x").format_version == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "x.json is not a plain file: it holds [], expected a table; make it again"),
        ({}, "x.json is not a plain file: it lacks format_version; make it again"),
        (
            WHOLE | {"format_version": 9, "new": 1},
            "x.json: format_version is 9, this version of macil reads 1 and 2; make it again",
        ),
        (
            WHOLE | {"new": 1, "newer": 2},
            (
                "x.json is damaged; make it again:\n"
                "  - it has the field 'new', which this version of macil does not know\n"
                "  - it has the field 'newer', which this version of macil does not know"
            ),
        ),
        (
            {"format_version": 1, "count": True, "names": ["a", 1, 2]},
            (
                "x.json is damaged; make it again:\n"
                "  - count = True, expected a whole number from 1\n"
                "  - names.1 = 1: Input should be a valid string"
            ),
        ),
        ({"format_version": 1, "names": []}, "x.json is damaged; make it again:\n  - it lacks count"),
    ],
)
def test_a_file_that_is_not_as_expected_is_told_in_words(content: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        Plain.parse(content, "x.json")
    assert str(caught.value) == message


def test_a_file_of_another_kind_is_told_by_its_mark() -> None:
    with pytest.raises(DataError, match="x is not a marked file: kind is 'other', expected 'macil marked'"):
        Marked.parse({"kind": "other", "text": ""}, "x")
    with pytest.raises(DataError, match="kind is None"):
        Marked.parse({"text": ""}, "x")
    assert Marked.parse({"kind": "macil marked", "text": "t"}, "x").text == "t"
