"""How the bags of a step lie in memory: blocks of bags of similar length, padded to the longest of each block.

On an accelerator all steps have one block of one shape, (B, T). On a CPU bags are sorted by length and cut into blocks
that fit the cache and hardly hold padding. All computations are the same; so are the numbers, but for rounding.

Axes: S seeds, B bags, G bags of a block, L snippets of a block, R = sum of G L rows, T the widest block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from macil.model.attention import Context, Folded, heads_of
from macil.model.dropout import binomial_distribution


class Block(NamedTuple):
    """Shape of a block, known without looking at the device."""

    bags: int
    width: int

    @property
    def rows(self) -> int:
        """Rows of the block."""
        return self.bags * self.width


class Layout(NamedTuple):
    """The bags of a step, in the order of the blocks."""

    blocks: tuple[Block, ...]
    numbers: Tensor
    """(S, B) int64: the index of each bag in the step's list of samples"""
    lengths: Tensor
    """(S, B) int64: valid snippets"""
    present: Tensor
    """(S, B) int64: snippets up to the last that holds features, valid or not; the rest is padding"""
    longest: Tensor
    """(S, 1) int64: the longest valid length of the step: no key beyond it is attended"""
    uniform: bool = False
    """Whether it is known that no key has to be left out or folded"""

    @property
    def width(self) -> int:
        """T."""
        return max(block.width for block in self.blocks)

    def split(self, x: Tensor, dim: int) -> list[Tensor]:
        """`x` (..., R, ...) with its rows at `dim` as blocks (..., G, L, ...)."""
        parts = x.split([block.rows for block in self.blocks], dim)
        return [part.unflatten(dim, block) for part, block in zip(parts, self.blocks, strict=True)]

    def split_bags(self, x: Tensor, dim: int = 1) -> Sequence[Tensor]:
        """`x` (S, B, ...) as blocks (S, G, ...)."""
        return x.split([block.bags for block in self.blocks], dim)

    def pad(self, blocks: Sequence[Tensor], width: int, value: float = 0) -> Tensor:
        """Blocks (..., G, L, d) as one tensor (..., B, width, d)."""
        if len(blocks) == 1 and blocks[0].shape[-2] == width:
            return blocks[0]
        padded = [F.pad(block, (0, 0, 0, width - block.shape[-2]), value=value) for block in blocks]
        return torch.cat(padded, -3)

    def contexts(
        self, streams: Sequence[Tensor], num_heads: int, *, mask_padding: bool, kept: float
    ) -> list[Context]:
        """The keys and values that the queries of every block attend to.

        Args:
            streams: Keys and values of each stream, (S, R, 2 d); see `macil.model.attention.heads_of`.
            num_heads: H.
            mask_padding: Whether padded keys are left out (paper) or attended (released code).
            kept: Probability that dropout keeps an attention weight.
        """
        heads = [
            heads_of(parts, num_heads)
            for parts in zip(*(self.split(stream, 1) for stream in streams), strict=True)
        ]
        if self.uniform:
            return [Context(*pair, None, None) for pair in heads]
        positions = [torch.arange(block.width, device=self.lengths.device) for block in self.blocks]
        if mask_padding:
            biases = [
                torch.where(position < lengths[..., None], 0.0, -torch.inf)
                for position, lengths in zip(positions, self.split_bags(self.lengths), strict=True)
            ]
            return [Context(*pair, bias, None) for pair, bias in zip(heads, biases, strict=True)]
        counts = self.longest - self.present
        table = binomial_distribution(counts, self.width, kept) if 0 < kept < 1 else None
        tables = [None] * len(self.blocks) if table is None else self.split_bags(table)
        result = []
        for pair, position, present, n, distribution in zip(
            heads, positions, self.split_bags(self.present), self.split_bags(counts), tables, strict=True
        ):
            column = present.clamp(max=len(position) - 1)
            folded = None if distribution is None else Folded(column, n, distribution)
            result.append(Context(*pair, _folding_bias(present, n, position), folded))
        return result


def dense_layout(lengths: Tensor, present: Tensor, width: int) -> Layout:
    """One block for everything, as wide as `width`; `lengths` and `present` (S, B)."""
    seeds, bags = lengths.shape
    numbers = torch.arange(bags, device=lengths.device).expand(seeds, bags)
    longest = lengths.amax(1, keepdim=True)
    return Layout((Block(bags, width),), numbers, lengths, torch.minimum(present, longest), longest)


def _folding_bias(present: Tensor, counts: Tensor, position: Tensor) -> Tensor:
    """0 for keys that are there, log n for the first padded one, which stands for all n, -inf for the rest."""
    several = torch.log(counts.double())[..., None]  # -inf where nothing is padded
    bias = torch.where(position == present[..., None], several, -torch.inf)
    return bias.masked_fill_(position < present[..., None], 0)
