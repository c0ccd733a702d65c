"""The one transformer layer of MACIL-SD, used with cross-attention (two streams) or self-attention (visual network).

The layer is a function of its parameters, so that the same code serves one network, S networks with stacked
parameters, every snippet of a batch or only some of them.

Axes: S stacked networks, D directions (2 or 1), G bags of a block, R queries, L keys, H heads, d hidden width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macil.config import TrialConfig
from macil.model.dropout import Noise, Site, head_numbers

Parameters = Mapping[str, Tensor]
"""Parameters by name, each with a leading axis S."""


class AttentionLayer(nn.Module):
    """The parameters of a pre-norm transformer layer: x = x + attention(LN(x), context); x = x + feedforward(LN(x)).

    The query is the normalised own stream, key and value are the raw projected context (released code; the paper's
    equations 1 and 2 name no norm). Biases everywhere, scale 1 / sqrt(d / H).
    """

    def __init__(self, config: TrialConfig) -> None:
        super().__init__()
        d, f = config.hidden_dim, config.feedforward_dim
        self.norm_attention = nn.LayerNorm(d)
        self.attention = nn.ModuleDict(
            {name: nn.Linear(d, d) for name in ("query", "key", "value", "output")}
        )
        self.norm_feedforward = nn.LayerNorm(d)
        self.feedforward = nn.ModuleDict({"inner": nn.Linear(d, f), "outer": nn.Linear(f, d)})


class Folded(NamedTuple):
    """Equal padded keys folded into one: n e^s instead of n times e^s."""

    column: Tensor
    """(S, G) int64: which key stands for them"""
    counts: Tensor
    """(S, G) int64: how many, n; 0 where nothing is padded"""
    table: Tensor
    """(S, G, M) float64: `macil.model.dropout.binomial_distribution` of the counts"""


class Context(NamedTuple):
    """The keys and values that the queries of a block attend to."""

    keys: Tensor
    """(S, D, G, H, L, d / H)"""
    values: Tensor
    """(S, D, G, H, L, d / H)"""
    bias: Tensor | None
    """(S, G, L): added to the scores: 0, -inf for a key that is not attended, log n for a folded one"""
    folded: Folded | None


def linear(p: Parameters, name: str, x: Tensor) -> Tensor:
    """The linear map `name` of `x` (S, ..., in), (S, ..., out)."""
    return affine(x, p[f"{name}.weight"], p[f"{name}.bias"])


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`x` (S, ..., in) times `weight` (S, out, in) plus `bias` (S, out)."""
    if len(weight) == 1:
        return F.linear(x, weight[0], bias[0])
    flat = torch.baddbmm(bias[:, None], x.flatten(1, -2), weight.mT)
    return flat.view(*x.shape[:-1], weight.shape[1])


def layer_norm(p: Parameters, name: str, x: Tensor) -> Tensor:
    """The LayerNorm `name` of `x` (S, ..., d)."""
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    if len(weight) == 1:
        return F.layer_norm(x, weight.shape[1:], weight[0], bias[0])
    shape = (len(weight), *[1] * (x.ndim - 2), -1)
    return F.layer_norm(x, weight.shape[1:]) * weight.view(shape) + bias.view(shape)


def keys_and_values(p: Parameters, x: Tensor) -> Tensor:
    """Key and value projections of a stream `x` (S, ..., d), side by side, in one product, (S, ..., 2 d)."""
    weight, bias = (
        torch.cat([p[f"layer.attention.{name}.{kind}"] for name in ("key", "value")], 1)
        for kind in ("weight", "bias")
    )
    return affine(x, weight, bias)


def heads_of(streams: Sequence[Tensor], num_heads: int) -> tuple[Tensor, Tensor]:
    """Keys and values, each (S, D, G, H, L, d / H), for the queries of D streams.

    Args:
        streams: What `keys_and_values` gave for each stream, (S, G, L, 2 d). Two streams attend to each other, one to
            itself.
        num_heads: H.
    """
    # Stacked in this order the copy is the one that the products below need anyway.
    both = [x.unflatten(-1, (2, num_heads, -1)).movedim(-3, 0).transpose(-3, -2) for x in reversed(streams)]
    keys, values = (torch.stack([x[part] for x in both], 1) for part in (0, 1))
    return keys, values


def transform(
    p: Parameters, x: Tensor, contexts: list[Context], rows: list[Tensor], num_heads: int, noise: Noise | None
) -> Tensor:
    """The layer's output for some queries of every block.

    Args:
        p: Parameters of a network that has the layer as `layer`.
        x: (S, D, N, d): the own stream at the queries, block after block, bag after bag.
        contexts: What each block attends to.
        rows: Row numbers of each block, (S, D, G, R): N is the sum of their G R. Both directions need the same R.
        num_heads: H.
        noise: Dropout; None in evaluation.
    """
    shapes = [block.shape[-2:] for block in rows]
    queries = linear(p, "layer.attention.query", layer_norm(p, "layer.norm_attention", x))
    mixed = torch.cat(
        [
            attend(part.unflatten(2, shape), context, block, num_heads, noise).flatten(2, 3)
            for part, shape, context, block in zip(
                queries.split([math.prod(shape) for shape in shapes], 2), shapes, contexts, rows, strict=True
            )
        ],
        2,
    )
    branch = linear(p, "layer.attention.output", mixed)
    if noise is None:
        x = x + branch
        inner = F.relu(linear(p, "layer.feedforward.inner", layer_norm(p, "layer.norm_feedforward", x)))
        return x + linear(p, "layer.feedforward.outer", inner)
    every = torch.cat([block.flatten(2) for block in rows], 2)  # (S, D, N)
    x = x + noise.drop(Site.ATTENTION_BRANCH, branch, every)
    inner = F.relu(linear(p, "layer.feedforward.inner", layer_norm(p, "layer.norm_feedforward", x)))
    outer = linear(p, "layer.feedforward.outer", noise.drop(Site.FEEDFORWARD, inner, every))
    return x + noise.drop(Site.FEEDFORWARD_BRANCH, outer, every)


def attend(queries: Tensor, context: Context, rows: Tensor, num_heads: int, noise: Noise | None) -> Tensor:
    """Scaled dot-product attention of `queries` (S, D, G, R, d), in H heads, with dropout on its weights."""
    q, k, v = queries.unflatten(-1, (num_heads, -1)).transpose(-3, -2), context.keys, context.values
    if noise is None or noise.rates.inner == 0:
        mask = context.bias
        if mask is not None:
            mask = mask[:, None].expand(-1, q.shape[1], -1, -1).flatten(0, 2)[:, None, None].to(q.dtype)
        mixed = F.scaled_dot_product_attention(
            q.flatten(0, 2), k.flatten(0, 2), v.flatten(0, 2), attn_mask=mask
        ).view(q.shape)
    else:
        numbers = head_numbers(rows, num_heads)
        weights = _weights(q, k, context, numbers, noise)
        # Scaling the result instead of the weights spares a pass over (.., R, L).
        mixed = (weights @ v) * noise.scale(Site.ATTENTION)
    return mixed.transpose(-3, -2).flatten(-2)


def _weights(q: Tensor, k: Tensor, context: Context, numbers: Tensor, noise: Noise) -> Tensor:
    """Softmax weights (S, D, G, H, R, L) after dropout, not yet scaled up."""
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.mT
    if context.bias is not None:
        scores.add_(context.bias[:, None, :, None, None])
    weights = scores.softmax(-1).to(q.dtype)
    kept = noise.kept(Site.ATTENTION, numbers, weights.shape[-1], weights.dtype)
    assert kept is not None
    if context.folded is None:
        return weights * kept if torch.is_grad_enabled() else weights.mul_(kept)
    # Of n folded keys a binomial number is kept, instead of all or nothing.
    column, counts, table = context.folded
    column = column[:, None, :, None, None, None].expand(*weights.shape[:-1], 1)
    share = noise.kept_share(numbers, counts, table)[..., None].to(weights.dtype)
    share = torch.where((counts > 0)[:, None, :, None, None, None], share, kept.gather(-1, column))
    kept = kept.scatter_(-1, column, share)
    return weights * kept if torch.is_grad_enabled() else weights.mul_(kept)
