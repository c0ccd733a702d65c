"""A network from the configuration and the tensors of a file, which must fit before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from macil.config import TrialConfig
from macil.model import TwoStreamNetwork


def rebuild_network(
    config: Any, visual_dim: Any, audio_dim: Any, tensors: Mapping[str, Any]
) -> TwoStreamNetwork:
    """The network, on the CPU, in evaluation mode.

    Args:
        config: A mapping of hyperparameters, as read.
        visual_dim: Width of the visual features.
        audio_dim: Width of the audio features.
        tensors: The network's state by name.

    Raises:
        ValueError: The parts do not fit one another, or are of another kind.
    """
    resolved = TrialConfig.from_dict(config)
    for name, width in (("fc_v.weight", visual_dim), ("fc_a.weight", audio_dim)):
        expected, tensor = (resolved.hidden_dim, width), tensors.get(name)
        found = tuple(tensor.shape) if isinstance(tensor, Tensor) else None
        if type(width) is not int or found != expected:
            raise ValueError(f"{name} has shape {found}, its description says {expected}")
    for name, tensor in tensors.items():
        if not is_plain(tensor):
            raise ValueError(f"{name} is no plain tensor of floating-point numbers")
    network = TwoStreamNetwork(resolved, visual_dim, audio_dim)
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())[:500]) from None
    return network.eval()


def is_plain(tensor: object) -> bool:
    """Whether it is a tensor of floating-point numbers, and neither sparse nor quantised nor without content."""
    return (
        isinstance(tensor, Tensor)
        and tensor.layout is torch.strided
        and not tensor.is_meta
        and tensor.is_floating_point()
    )
