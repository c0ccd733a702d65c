"""The audio-visual network as a safetensors file: its tensors by this package's names, and what they mean.

The header's metadata are strings: `kind`, `format_version`, `config` (JSON, every hyperparameter), `visual_dim`,
`audio_dim`, `macil_version`, and `origin` (JSON: what is known of the training).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from safetensors.torch import save

from macil import __version__
from macil.commandline import command_line
from macil.errors import DataError
from macil.model import TwoStreamNetwork
from macil.reading import require_file
from macil.rebuilding import rebuild_network

SUFFIX = ".safetensors"
KIND = "macil network"
FORMAT_VERSION = 1


class Loaded(NamedTuple):
    """What a file holds."""

    network: TwoStreamNetwork
    """On the CPU, in evaluation mode."""
    origin: dict[str, Any]


def save_safetensors(network: TwoStreamNetwork, path: Path, origin: Mapping[str, Any]) -> None:
    """Write the network's tensors and metadata; `origin` holds plain values."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    path.write_bytes(save(tensors, metadata_of(network, origin)))


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
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise DataError(
            f"{path} has format_version {metadata.get('format_version')}; this version reads {FORMAT_VERSION}"
        )
    try:
        widths = int(metadata["visual_dim"]), int(metadata["audio_dim"])
        network = rebuild_network(json.loads(metadata["config"]), *widths, tensors)
        origin = json.loads(metadata["origin"])
        if not isinstance(origin, dict):
            raise ValueError("its origin is no table")
    except (KeyError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} does not fit its own description: {reason}; export it again") from None
    return Loaded(network, origin)


def metadata_of(network: TwoStreamNetwork, origin: Mapping[str, Any]) -> dict[str, str]:
    """What a file says of the network in it."""
    return {
        "kind": KIND,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(network.config.to_dict()),
        "visual_dim": str(network.fc_v.in_features),
        "audio_dim": str(network.fc_a.in_features),
        "macil_version": __version__,
        "origin": json.dumps(dict(origin)),
    }
