"""A network's weights and gradients under the names that the literal formulas use."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from macil.inference.released import to_released
from macil.model import TwoStreamNetwork, VisualNetwork

Network = TwoStreamNetwork | VisualNetwork
AUDIO_HEAD = "audio_head"
"""Name of the second head where streams have one each; the authors' code has no name for it."""


def randomise(network: Network, seed: int) -> None:
    """Give every parameter a value that matters: norms off 1, biases off 0, projections unlike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            drawn = drawn / parameter.shape[-1] ** 0.5
            gain = "norm" in name and name.endswith("weight")
            parameter.copy_(1 + 0.3 * drawn if gain else drawn)


def literal_weights(network: Network, values: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The used tensors of `network` (or `values`, by parameter name) as leaves under the authors' names."""
    values = dict(network.named_parameters()) if values is None else values
    config = network.config.replace(shared_head=True)
    if isinstance(network, TwoStreamNetwork):
        twin: Network = TwoStreamNetwork(config, network.fc_v.in_features, network.fc_a.in_features)
    else:
        twin = VisualNetwork(config, network.fc_v.in_features)
    twin.to(next(iter(values.values())).dtype)
    second = {name: value for name, value in values.items() if name.startswith("head_a.")}
    twin.load_state_dict({name: value for name, value in values.items() if name not in second})
    named = to_released(twin) | {name.replace("head_a", AUDIO_HEAD): value for name, value in second.items()}
    unused = ("multiheadattn.", "feedforward.", "cma.layer.self_attn.layer_norm.")
    return {
        name: value.detach().clone().requires_grad_()
        for name, value in named.items()
        if not name.startswith(unused)
    }


def literal_gradients(network: Network) -> dict[str, Tensor]:
    """The gradients in `network` under the authors' names; zero where there is none."""
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in network.named_parameters()
    }
    return {name: value.detach() for name, value in literal_weights(network, gradients).items()}
