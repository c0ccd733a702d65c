"""Dropout whose decisions are a pure function of key, site, row and element.

The same decision can be taken again for some rows only, in another layout of the batch, or for many seeds at once.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from macil.config import TrialConfig
from macil.model.random_numbers import columns, fold_in, lanes, row_keys, uniform

# 16 random bits decide over one element, so a rate is met to within 2**-17.
_LEVELS = 1 << 16
# Whatever the `dropout` option says, the released code keeps this rate on attention weights and in the feed-forward.
RELEASED_INNER_DROPOUT = 0.1
# Row numbers leave room for so many heads and positions.
_HEADS, _POSITIONS = 64, 1 << 24


class Site(IntEnum):
    """Where a network drops something."""

    ATTENTION = 1
    ATTENTION_BRANCH = 2
    FEEDFORWARD = 3
    FEEDFORWARD_BRANCH = 4
    PADDING = 5


class Rates(NamedTuple):
    """Thresholds of the two rates of a network, in 2**-16."""

    inner: int
    """Attention weights and the inside of the feed-forward"""
    branch: int
    """The two residual branches"""

    @classmethod
    def of(cls, config: TrialConfig) -> Rates:
        """The rates that `config` asks for (`dropout`, `dropout_everywhere`)."""
        inner = config.dropout if config.dropout_everywhere else RELEASED_INNER_DROPOUT
        return cls(round(inner * _LEVELS), round(config.dropout * _LEVELS))

    def at(self, site: Site) -> int:
        """The threshold at `site`."""
        return self.branch if site in (Site.ATTENTION_BRANCH, Site.FEEDFORWARD_BRANCH) else self.inner


class Noise(NamedTuple):
    """The dropout of one step of S networks.

    A row is a snippet in a direction of a bag (see `row_numbers`); elements are counted along the last axis.
    """

    keys: Tensor
    """(S,) int64: one key a seed, another one in every step"""
    columns: Tensor
    """`macil.model.random_numbers.columns` of the longest row"""
    rates: Rates

    @classmethod
    def make(cls, keys: Tensor, longest: int, rates: Rates) -> Noise | None:
        """Noise for rows of up to `longest` elements; None where nothing is ever dropped."""
        return cls(keys, columns(longest, keys.device), rates) if any(rates) else None

    def kept(self, site: Site, rows: Tensor, count: int, dtype: torch.dtype) -> Tensor | None:
        """1 for elements that stay, else 0: (S, ..., count) for row numbers (S or 1, ...); None where all stay."""
        dropped = self.rates.at(site)
        if dropped == 0:
            return None
        bits = lanes(row_keys(fold_in(self.keys, site), rows), self.columns, count)
        if bits.device.type != "cpu" or torch.compiler.is_compiling():
            return (bits >= dropped - _LEVELS // 2).to(dtype)
        # Written as numbers at once: on a CPU a bool tensor takes seven times as long to make, and as long to use.
        kept = torch.empty(bits.shape, dtype=dtype)
        return torch.ge(bits, dropped - _LEVELS // 2, out=kept)

    @property
    def attention_kept(self) -> float:
        """Probability that an attention weight stays."""
        return 1 - self.rates.inner / _LEVELS

    def scale(self, site: Site) -> float:
        """The factor of a kept element: 1 / (1 - rate), for the rate that is really met."""
        return _LEVELS / (_LEVELS - self.rates.at(site))

    def drop(self, site: Site, x: Tensor, rows: Tensor) -> Tensor:
        """`x` (S, ..., n) with elements of its rows dropped and the others scaled."""
        kept = self.kept(site, rows, x.shape[-1], x.dtype)
        return x if kept is None else x * kept.mul_(self.scale(site))

    def kept_share(self, rows: Tensor, counts: Tensor, table: Tensor) -> Tensor:
        """Share of n equal padded keys that stay: a draw of Binomial(n, 1 - rate) / n for every row, float64.

        The law of the sum of n equal weights under dropout, so that they can be folded into one key.

        Args:
            rows: Row numbers (S, D, G, H, R).
            counts: n of each bag, (S, G) int64; where it is 0 the result means nothing.
            table: `binomial_distribution` of `counts` and the share that is kept, (S, G, M).
        """
        drawn = uniform(row_keys(fold_in(self.keys, Site.PADDING), rows)).transpose(1, 2)  # (S, G, D, H, R)
        kept = torch.searchsorted(table, drawn.flatten(2).contiguous(), right=True).view(drawn.shape)
        return (kept / counts.clamp(min=1)[..., None, None, None]).transpose(1, 2)


def binomial_distribution(counts: Tensor, most: int, probability: float) -> Tensor:
    """P(X <= k) of X ~ Binomial(n, probability) for k = 0 to n - 1, and 2 from there on, float64.

    Args:
        counts: n, (...) int64, from 0 to `most`.
        most: Width M of the result, (..., M).
        probability: Strictly between 0 and 1.
    """
    device = counts.device
    k = torch.arange(most, device=device)
    rest = counts[..., None] - k
    log_factorial = torch.lgamma(torch.arange(1, most + 2, device=device, dtype=torch.float64))
    chosen = log_factorial[counts][..., None] - log_factorial[k] - log_factorial[rest.clamp(min=0)]
    mass = torch.exp(chosen + k.double() * math.log(probability) + rest.double() * math.log1p(-probability))
    # From n on the sum is 1 but for rounding; 2 is above every draw.
    return mass.masked_fill(rest < 0, 0).cumsum(-1).masked_fill_(rest <= 0, 2)


def row_numbers(bags: Tensor, directions: int, positions: Tensor) -> Tensor:
    """Numbers (S, D, G, R) of rows that are the same in every layout of a batch.

    Args:
        bags: (S, G) int64: the index of each bag in the step's list of samples.
        directions: D, 2 for a two-stream network.
        positions: (S or 1, D or 1, G or 1, R) int64: snippets.
    """
    direction = torch.arange(directions, device=bags.device)[:, None]
    first = (bags[:, None] * 2 + direction) * _POSITIONS  # (S, D, G)
    return first[..., None] + positions


def head_numbers(rows: Tensor, heads: int) -> Tensor:
    """Numbers (S, D, G, H, R) of the rows of every head."""
    return rows[..., None, :] * _HEADS + torch.arange(heads, device=rows.device)[:, None]
