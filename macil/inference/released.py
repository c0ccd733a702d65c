"""Weights of the authors' released code, to and from this package's networks.

The released networks build an attention block, a feed-forward and two LayerNorms that they never call; they are
ignored on reading and filled with PyTorch's neutral values on writing, so that the export loads strictly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from macil.config import TrialConfig
from macil.errors import ConfigError, DataError
from macil.io.torch_files import read_tensors
from macil.model.counts import unused_shapes
from macil.model.networks import TwoStreamNetwork, VisualNetwork
from macil.model.rebuilding import is_plain

_NetworkT = TypeVar("_NetworkT", TwoStreamNetwork, VisualNetwork)

_LAYER = {
    "attention.query": "self_attn.linears.0",
    "attention.key": "self_attn.linears.1",
    "attention.value": "self_attn.linears.2",
    "attention.output": "self_attn.linears.3",
    "feedforward.inner": "feed_forward.w_1",
    "feedforward.outer": "feed_forward.w_2",
    "norm_attention": "sublayer.0.norm",
    "norm_feedforward": "sublayer.1.norm",
}
_SHARED = {"fc_v": "fc_v"} | {f"layer.{ours}": f"cma.layer.{theirs}" for ours, theirs in _LAYER.items()}
_TWO_STREAM = {**_SHARED, "fc_a": "fc_a", "head_v": "att_mmil.fc"}
_VISUAL = {**_SHARED, "head_v": "fc"}


def load_released(source: str | Path | Mapping[str, Tensor], num_heads: int = 4) -> TwoStreamNetwork:
    """The audio-visual network from the authors' weights, on the CPU, in evaluation mode.

    Args:
        source: A weight file (read with `weights_only=True`) or its state dict. Widths are read from the tensors.
        num_heads: Attention heads; the weights do not record them.

    Raises:
        DataError: The file cannot be read, or tensors are missing, misshapen or unknown; names every one.
        ConfigError: `num_heads` does not divide the hidden width.
    """
    weights = _read(source)
    config = _config_of(weights, num_heads)
    network = TwoStreamNetwork(config, weights["fc_v.weight"].shape[1], _width(weights, "fc_a.weight"))
    return _fill(network, weights)


def load_released_visual(source: str | Path | Mapping[str, Tensor], num_heads: int = 4) -> VisualNetwork:
    """The visual network from the authors' weights; as `load_released`."""
    weights = _read(source)
    network = VisualNetwork(_config_of(weights, num_heads), weights["fc_v.weight"].shape[1])
    return _fill(network, weights)


def to_released(network: TwoStreamNetwork | VisualNetwork) -> dict[str, Tensor]:
    """All keys of the authors' network, so that their code loads the result strictly.

    Raises:
        DataError: The network has one head a modality (`shared_head` off), which the released code cannot hold.
    """
    if isinstance(network, TwoStreamNetwork) and not network.config.shared_head:
        raise DataError(
            "this network has one logit head a modality (shared_head = false); the released code has one for both"
        )
    weights = {
        theirs: network.state_dict()[ours].detach().cpu().clone()
        for ours, theirs in _names_of(network).items()
    }
    for name, shape in unused_shapes(network.config.hidden_dim, network.config.feedforward_dim).items():
        weights[name] = torch.ones(shape) if name.endswith("norm.weight") else torch.zeros(shape)
    return weights


def _names_of(network: TwoStreamNetwork | VisualNetwork) -> dict[str, str]:
    table = _TWO_STREAM if isinstance(network, TwoStreamNetwork) else _VISUAL
    return {
        f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in table.items() for kind in ("weight", "bias")
    }


def _read(source: str | Path | Mapping[str, Tensor]) -> dict[str, Tensor]:
    weights: Any = source
    if isinstance(source, str | Path):
        weights = read_tensors(source, "weight file")
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise DataError("released weights are a mapping of names to tensors; this is something else")
    # Networks saved from torch.nn.DataParallel carry a prefix.
    return {str(name).removeprefix("module."): value for name, value in weights.items()}


def _width(weights: Mapping[str, Tensor], name: str, axis: int = 1) -> int:
    if name not in weights:
        raise DataError(
            f"released weights lack {name}; is this the other of the two networks, or another model?"
        )
    if weights[name].ndim != 2:
        raise DataError(f"{name} should be a matrix, not of shape {tuple(weights[name].shape)}")
    return int(weights[name].shape[axis])


def _config_of(weights: Mapping[str, Tensor], num_heads: int) -> TrialConfig:
    widths = {
        "hidden_dim": _width(weights, "fc_v.weight", 0),
        "feedforward_dim": _width(weights, "cma.layer.feed_forward.w_1.weight", 0),
    }
    try:
        of_one_head = TrialConfig(**widths, num_heads=1)
    except ConfigError as error:
        raise DataError(
            "these are not the released weights of any network:", str(error).splitlines()
        ) from None
    return of_one_head.replace(num_heads=num_heads)


def _fill(network: _NetworkT, weights: dict[str, Tensor]) -> _NetworkT:
    state = network.state_dict()
    names = _names_of(network)
    ignored = set(unused_shapes(network.config.hidden_dim, network.config.feedforward_dim))
    problems = []
    for ours, theirs in names.items():
        if theirs not in weights:
            problems.append(f"{theirs} is missing, expected shape {tuple(state[ours].shape)}")
        elif weights[theirs].shape != state[ours].shape:
            problems.append(
                f"{theirs} has shape {tuple(weights[theirs].shape)}, expected {tuple(state[ours].shape)}"
            )
    problems += [f"{name} is unknown" for name in weights.keys() - set(names.values()) - ignored]
    if problems:
        raise DataError("these are not the released weights of this network:", sorted(problems))
    if odd := sorted(theirs for theirs in names.values() if not is_plain(weights[theirs])):
        raise DataError("these weights are no plain tensors of floating-point numbers:", odd)
    network.load_state_dict({ours: weights[theirs] for ours, theirs in names.items()})
    return network.eval()
