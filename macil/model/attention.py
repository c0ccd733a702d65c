"""The one transformer layer of MACIL-SD, used with cross-attention (two streams) or self-attention (visual network).

Axes: N sequences (both directions stacked), T snippets, d hidden width, H heads, f feed-forward width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macil.config import TrialConfig
from macil.model.dropout import Dropout, DropoutSource

# Whatever the `dropout` option says, the released code keeps this rate on attention weights and in the feed-forward.
RELEASED_INNER_DROPOUT = 0.1


class AttentionLayer(nn.Module):
    """Pre-norm transformer layer: x = x + attention(LN(x), context); x = x + feedforward(LN(x)).

    The query is the normalised own stream, key and value are the raw projected context (released code; the paper's
    equations 1 and 2 name no norm). Biases everywhere, scale 1 / sqrt(d / H).
    """

    def __init__(self, config: TrialConfig, source: DropoutSource) -> None:
        super().__init__()
        inner = config.dropout if config.dropout_everywhere else RELEASED_INNER_DROPOUT
        self.norm_attention = nn.LayerNorm(config.hidden_dim)
        self.attention = Attention(config.hidden_dim, config.num_heads, Dropout(inner, source))
        self.norm_feedforward = nn.LayerNorm(config.hidden_dim)
        self.feedforward = FeedForward(config.hidden_dim, config.feedforward_dim, Dropout(inner, source))
        self.dropout = Dropout(config.dropout, source)

    def forward(self, x: Tensor, context: Tensor, key_mask: Tensor | None) -> Tensor:
        """Transform `x` (N, T, d) by what it attends to in `context` (N, T, d).

        Args:
            x: The own stream.
            context: The stream that is attended; `x` itself for self-attention.
            key_mask: Bool, broadcastable to (N, T): the snippets of `context` that may be attended; None for all.
        """
        x = x + self.dropout(self.attention(self.norm_attention(x), context, key_mask))
        return x + self.dropout(self.feedforward(self.norm_feedforward(x)))


class Attention(nn.Module):
    """Multi-head scaled dot-product attention with projections W_Q, W_K, W_V, W_O."""

    def __init__(self, hidden_dim: int, num_heads: int, dropout: Dropout) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(hidden_dim, hidden_dim)
        self.key = nn.Linear(hidden_dim, hidden_dim)
        self.value = nn.Linear(hidden_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, hidden_dim)
        self.dropout = dropout

    def forward(self, query: Tensor, context: Tensor, key_mask: Tensor | None) -> Tensor:
        """Attend from `query` (N, T, d) to `context` (N, T, d); see `AttentionLayer.forward`."""
        q = self._split(self.query(query))  # (N, H, T, d / H)
        k = self._split(self.key(context))
        v = self._split(self.value(context))
        mask = None if key_mask is None else key_mask[:, None, None, :]  # (N or 1, 1, 1, T)
        if self.dropout.active:
            mixed = self._attend_with_dropout(q, k, v, mask)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _attend_with_dropout(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)  # (N, H, T, T)
        if mask is not None:
            scores.masked_fill_(~mask, -torch.inf)
        weights = scores.softmax(-1)
        weights = weights.masked_fill(self.dropout.dropped(weights.shape, weights.device), 0)
        # Scaling the values instead of the weights spares a pass over (N, H, T, T).
        return weights.to(v.dtype) @ (v * self.dropout.scale)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Linear, ReLU, dropout, linear."""

    def __init__(self, hidden_dim: int, feedforward_dim: int, dropout: Dropout) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_dim, feedforward_dim)
        self.outer = nn.Linear(feedforward_dim, hidden_dim)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, d) to (N, T, d)."""
        return self.outer(self.dropout(F.relu(self.inner(x))))
