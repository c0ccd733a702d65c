"""The audio-visual network as a safetensors file: its tensors by this package's names, and what they mean.

The header's metadata are strings: `kind`, `format_version`, `config` (JSON, every hyperparameter), `visual_dim`,
`audio_dim`, `macil_version`, and `origin` (JSON: what is known of the training).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from macil import __version__
from macil.config import TrialConfig
from macil.errors import ConfigError, DataError
from macil.model import TwoStreamNetwork

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
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise DataError(f"safetensors file {path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"safetensors file {path} cannot be read: {error}") from None
    if metadata.get("kind") != KIND:
        raise DataError(f"{path} is not a network of this project; make one with `python -m macil export`")
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise DataError(
            f"{path} has format_version {metadata.get('format_version')}; this version reads {FORMAT_VERSION}"
        )
    try:
        config = TrialConfig.from_dict(json.loads(metadata["config"]))
        network = TwoStreamNetwork(config, int(metadata["visual_dim"]), int(metadata["audio_dim"]))
        network.load_state_dict(tensors)
        origin = json.loads(metadata["origin"])
    except (KeyError, ValueError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} does not fit its own description: {reason}; export it again") from None
    return Loaded(network.eval(), origin)


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
