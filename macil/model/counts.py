"""Parameter counts in both conventions: what is used, and what the paper's tables print."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from macil.config import TrialConfig
from macil.model.networks import AUDIO_DIM, VISUAL_DIM, TwoStreamNetwork, VisualNetwork


class ParameterCounts(NamedTuple):
    """Parameters of one configuration: light without self-distillation, full with it."""

    parameters: int
    """Parameters that take part in the computation."""
    parameters_published: int
    """The published convention: with the modules that the released code builds and never calls."""


def unused_shapes(hidden_dim: int, feedforward_dim: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what each released network builds and never calls.

    An attention block, a feed-forward, and the LayerNorms inside both attention blocks.
    """
    d, f = hidden_dim, feedforward_dim
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(4):
        shapes |= {f"multiheadattn.linears.{i}.weight": (d, d), f"multiheadattn.linears.{i}.bias": (d,)}
    shapes |= {"feedforward.w_1.weight": (f, d), "feedforward.w_1.bias": (f,)}
    shapes |= {"feedforward.w_2.weight": (d, f), "feedforward.w_2.bias": (d,)}
    for block in ("multiheadattn", "cma.layer.self_attn"):
        shapes |= {f"{block}.layer_norm.weight": (d,), f"{block}.layer_norm.bias": (d,)}
    return shapes


def parameter_counts(
    config: TrialConfig, visual_dim: int = VISUAL_DIM, audio_dim: int = AUDIO_DIM
) -> ParameterCounts:
    """Count the parameters of `config`: the audio-visual network, with the visual one when `config.distill`.

    Counted on the modules themselves (built without storage), so right for every width.
    """
    with torch.device("meta"):
        networks: list[nn.Module] = [TwoStreamNetwork(config, visual_dim, audio_dim)]
        if config.distill:
            networks.append(VisualNetwork(config, visual_dim))
    used = sum(parameter.numel() for network in networks for parameter in network.parameters())
    unused = sum(
        math.prod(shape) for shape in unused_shapes(config.hidden_dim, config.feedforward_dim).values()
    )
    return ParameterCounts(used, used + len(networks) * unused)
