"""Dropout that draws from its network's own generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# 16 random bits decide over one element, so a rate is met to within 2**-17.
_LEVELS = 1 << 16


class DropoutSource:
    """The generator that all dropout layers of one network share.

    Owned by the network rather than global, so that a training's random numbers can be saved, restored and kept apart
    from those of other trainings in the same process.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator


class Dropout(nn.Module):
    """Inverted dropout: zero with probability `rate`, else scaled so that the mean stays.

    The random bits are drawn as 64-bit words, four elements a word: on two CPU cores 0.08 s instead of 0.21 s by
    `Tensor.bernoulli_` for the 41 million attention weights of a step (128 bags of 200 snippets, both directions).
    """

    def __init__(self, rate: float, source: DropoutSource) -> None:
        super().__init__()
        self.rate = rate
        self._source = source
        self._dropped = round(rate * _LEVELS)

    @property
    def active(self) -> bool:
        """Whether the layer does anything now."""
        return self.training and self._dropped > 0

    @property
    def scale(self) -> float:
        """What a kept element is multiplied by: 1 / (1 - rate), of the rate that is really met."""
        return _LEVELS / (_LEVELS - self._dropped)

    def dropped(self, shape: torch.Size, device: torch.device) -> Tensor:
        """Draw which elements go: a bool tensor of `shape`."""
        count = shape.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64, device=device)
        words.random_(-(2**63), None, generator=self._source.generator)
        bits = words.view(torch.int16)[:count].view(shape)
        return bits < self._dropped - _LEVELS // 2

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of `x` of any shape; the identity in evaluation mode or at rate 0."""
        if not self.active:
            return x
        return x.masked_fill(self.dropped(x.shape, x.device), 0) * self.scale

    def extra_repr(self) -> str:
        """What `repr` of the network shows of this layer."""
        return f"rate={self.rate}"
