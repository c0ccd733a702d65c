"""Selection of the highest and lowest snippets of padded bags, without loops and without host syncs.

Axes: B bags, T snippets, K the most that any bag of T snippets selects; any number of axes may come before.
"""

from __future__ import annotations

import torch
from torch import Tensor

# One snippet is selected for each full 16, plus one (sec. 5.2: K = floor(T / 16 + 1)).
SNIPPETS_PER_SELECTION = 16


def selected_count(lengths: Tensor) -> Tensor:
    """K = floor(length / 16) + 1 of each bag, (..., B) int64."""
    return lengths // SNIPPETS_PER_SELECTION + 1


def top_k(logits: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The K highest valid snippets of every bag, highest first, ties by the lowest index.

    Args:
        logits: (..., B, T).
        lengths: (..., B) int64, valid snippets, at least 1.

    Returns:
        indices (..., B, K) int64 and valid (..., B, K) bool; where not valid the index means nothing.
    """
    return _first_k(logits, lengths, descending=True)


def bottom_k(logits: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The K lowest valid snippets of every bag, lowest first, ties by the lowest index; as `top_k`."""
    return _first_k(logits, lengths, descending=False)


def bottom_k_of_batch(logits: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The sum-of-K lowest valid snippets of the whole batch, ties by bag, then snippet.

    Returns:
        indices (..., M) into the flattened (B * T) snippets and valid (..., M) bool, M the most that B bags may select.
    """
    bags, snippets = logits.shape[-2:]
    masked = logits.detach().masked_fill(~_is_valid(logits, lengths), torch.inf).flatten(-2)
    order = torch.sort(masked, stable=True).indices[..., : bags * (snippets // SNIPPETS_PER_SELECTION + 1)]
    counts = selected_count(lengths).sum(-1, keepdim=True)
    return order, torch.arange(order.shape[-1], device=logits.device) < counts


def k_max_mean(logits: Tensor, lengths: Tensor) -> Tensor:
    """Mean of the K highest valid logits of every bag (K-max activation, eq. 4 before the sigmoid), (..., B)."""
    indices, valid = top_k(logits, lengths)
    return selected_mean(logits.gather(-1, indices), valid)


def selected_mean(logits: Tensor, valid: Tensor) -> Tensor:
    """Mean of the logits (..., B, K) that are `valid`, (..., B)."""
    return logits.masked_fill(~valid, 0).sum(-1) / valid.sum(-1)


def full_precision(x: Tensor) -> Tensor:
    """Half precision as float32: its many ties must not decide a selection or a loss. float64 stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _first_k(logits: Tensor, lengths: Tensor, *, descending: bool) -> tuple[Tensor, Tensor]:
    last = -torch.inf if descending else torch.inf
    masked = logits.detach().masked_fill(~_is_valid(logits, lengths), last)
    # torch.topk leaves the order of ties open; a stable sort does not.
    order = torch.sort(masked, dim=-1, descending=descending, stable=True).indices
    indices = order[..., : logits.shape[-1] // SNIPPETS_PER_SELECTION + 1]
    valid = torch.arange(indices.shape[-1], device=logits.device) < selected_count(lengths)[..., None]
    return indices, valid


def _is_valid(logits: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(logits.shape[-1], device=logits.device) < lengths[..., None]
