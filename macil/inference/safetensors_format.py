"""The audio-visual network as a safetensors file: its tensors by this package's names, and what they mean.

The header's metadata are texts: see `NetworkMetadata`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save

from macil import __version__
from macil.errors import DataError
from macil.io.command_line import command_line
from macil.io.formats import FileFormat
from macil.io.reading import require_file
from macil.model import TwoStreamNetwork
from macil.model.rebuilding import rebuild_network

SUFFIX = ".safetensors"
KIND: Literal["macil network"] = "macil network"


class NetworkMetadata(FileFormat):
    """The metadata of the network in a file; there every value is a text, JSON where it is more than that."""

    WHAT: ClassVar[str] = "a network of this project"
    MARK: ClassVar[str | None] = "kind"
    ADVICE: ClassVar[str] = "; export it again"

    kind: Literal["macil network"] = KIND
    format_version: int = 1
    config: dict[str, Any]
    """Every hyperparameter"""
    visual_dim: Annotated[int, Field(ge=1)]
    audio_dim: Annotated[int, Field(ge=1)]
    macil_version: str = __version__
    origin: dict[str, Any]
    """Facts about the training, plain values"""

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], where: str) -> NetworkMetadata:
        """Read the metadata of a file; errors as `parse`."""
        plain = {"kind", "macil_version"}
        content: dict[str, Any] = {}
        for name, text in texts.items():
            try:
                content[name] = text if name in plain else json.loads(text)
            except (ValueError, RecursionError):
                content[name] = text
        return cls.parse(content, where)

    def to_texts(self) -> dict[str, str]:
        """The values as texts, as they are written into a file."""
        return {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in dict(self).items()
        }


class Loaded(NamedTuple):
    """The content of a file."""

    network: TwoStreamNetwork
    """The network, on the CPU and in evaluation mode."""
    origin: dict[str, Any]


def save_safetensors(network: TwoStreamNetwork, path: Path, origin: Mapping[str, Any]) -> None:
    """Write the network's tensors and metadata; `origin` holds plain values."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    path.write_bytes(save(tensors, metadata_of(network, origin).to_texts()))


def load_safetensors(path: str | Path) -> Loaded:
    """The network of a file that `save_safetensors` wrote.

    Raises:
        DataError: Missing, damaged, of something else or of another format version; names the file.
    """
    try:
        with safe_open(require_file(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise DataError(f"safetensors file {path} does not exist") from None
    except Exception as error:  # a damaged header raises anything
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"safetensors file {path} cannot be read: {reason}") from None
    if metadata.get("kind") != KIND:
        made = command_line("macil", "export", "RUN", "--to", "safetensors", "--out", path)
        raise DataError(f"{path} is not a network of this project; make one with `{made}`")
    described = NetworkMetadata.from_texts(metadata, str(path))
    try:
        network = rebuild_network(described.config, described.visual_dim, described.audio_dim, tensors)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} does not fit its own description: {reason}; export it again") from None
    return Loaded(network, described.origin)


def metadata_of(network: TwoStreamNetwork, origin: Mapping[str, Any]) -> NetworkMetadata:
    """Read the metadata of the network in a file."""
    return NetworkMetadata(
        config=network.config.to_dict(),
        visual_dim=network.fc_v.in_features,
        audio_dim=network.fc_a.in_features,
        origin=dict(origin),
    )
