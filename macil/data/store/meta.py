"""meta.json of a feature store: what it holds, and the hashes of its files."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field

from macil.data.reading import AS_USUAL, MOST_FRAMES, Reading
from macil.data.xd.folders import Part
from macil.io.formats import FileFormat
from macil.io.text import is_printable

META = "meta.json"
FORMAT: Literal["macil-feature-store"] = "macil-feature-store"
# What is written. Version 1, which is read as it is, has names as its folder spelt them, and does not say what its
# labels rest on.
FORMAT_VERSION = 2

Dtype = Literal["float32", "float16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)

# Far beyond any features there are.
_WIDEST, _MOST_CROPS = 2**20, 10_000


def _number(most: int) -> Any:
    return Field(ge=1, le=most, description=f"a whole number from 1 to {most}")


def _require_sentence(text: str) -> str:
    if not is_printable(text):
        raise ValueError("a control character")
    return text


_Hash = Annotated[str, Field(pattern=r"^[0-9A-Za-z]+$")]
_Bytes = Annotated[int, Field(ge=0, lt=2**40)]
FrameHash = Annotated[tuple[_Bytes, _Bytes, str], Field(strict=False)]
"""Of a feature file: bytes before and behind its buffers, and the hash of these."""


class StoreDescription(FileFormat):
    """The part of meta.json that the source folder alone decides, known before its features are read."""

    WHAT: ClassVar[str] = "the description of a feature store"
    MARK: ClassVar[str | None] = "format"
    READABLE: ClassVar[tuple[int, ...]] = (1, FORMAT_VERSION)
    ADVICE: ClassVar[str] = "; convert the data again, or use the version that wrote it"

    format: Literal["macil-feature-store"] = FORMAT
    format_version: int
    visual_dim: Annotated[int, _number(_WIDEST)]
    audio_dim: Annotated[int, Field(ge=0, le=_WIDEST, description=f"a whole number from 0 to {_WIDEST}")]
    """0: visual features alone, and no audio.arrow"""
    crops: Annotated[int, _number(_MOST_CROPS)]
    snippet_frames: Annotated[int, _number(MOST_FRAMES)]
    dtype: Annotated[Dtype, Field(description=" or ".join(DTYPES))]
    labels_hash: Annotated[_Hash | None, Field(description="a hash")]
    """Hash of the test labels; None without any"""
    label_notes: Annotated[
        list[Annotated[str, AfterValidator(_require_sentence)]] | None, Field(description="sentences")
    ] = None
    """Assumptions behind the test labels that no file proves; None: version 1 does not record them"""
    counts: Annotated[dict[str, int] | None, Field(description="numbers by name")] = None
    made_up: bool | None = None
    """Whether the data were generated; None: an older store does not say"""
    part: Part | None = None
    """The only split that was read; None: both"""
    reading: Reading = AS_USUAL
    """How the folder was read"""


class StoreMeta(StoreDescription):
    """All of meta.json."""

    source: Annotated[dict[str, str], Field(default_factory=dict, description="a table")]
    """`path`: where the folder lay that the store was made from"""
    content_hash: Annotated[_Hash, Field(description="a hash")]
    files: Annotated[dict[str, int], Field(description="the sizes of the feature files")]
    hashes: Annotated[
        dict[str, str | FrameHash], Field(default_factory=dict, description="the hash of each file")
    ]
    """Hashes of the files by name; an older store has none"""

    @property
    def description(self) -> StoreDescription:
        """The part that the source folder alone decides."""
        return StoreDescription(**{name: getattr(self, name) for name in StoreDescription.model_fields})
