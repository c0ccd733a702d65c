"""Seeded random numbers: generators for the host, and counter-based numbers for everything inside a training step.

A counter-based number is a hash of a key and a counter. It has no state: a mask can be computed again wherever it is
needed, for some of its rows, on any device, in any layout of the batch, and a training resumes by its epoch alone.
Keys are int64 tensors with one entry a seed, so that trainings in lockstep draw what each would draw alone.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

# Odd 64-bit constants of the splitmix64 generator (Steele, Lea and Flood 2014), as signed numbers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
LANES = 4  # 16-bit pieces of a word


def stream_seed(seed: int, purpose: str) -> int:
    """Seed of the stream `purpose` of a trial: 63 bits, the same on every machine and Python version."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def make_generator(seed: int, purpose: str) -> torch.Generator:
    """Return a new generator on the CPU for one purpose ("init", ...) of a trial."""
    generator = torch.Generator()
    generator.manual_seed(stream_seed(seed, purpose))
    return generator


def make_keys(seeds: list[int], purpose: str, device: torch.device | str = "cpu") -> Tensor:
    """Keys (S,) of one purpose ("shuffle", "dropout", ...), one for each seed."""
    return torch.tensor([stream_seed(seed, purpose) for seed in seeds], device=device)


def mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64: an int64 tensor to one of its shape whose every bit depends on every bit."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def fold_in(keys: Tensor, data: Tensor | int) -> Tensor:
    """New keys out of `keys` and whole numbers; int64 tensors, broadcast against each other."""
    return mix(keys + (_mix_number(int(data)) if isinstance(data, int) else mix(data * _GOLDEN + 1)))


def row_keys(keys: Tensor, rows: Tensor) -> Tensor:
    """Keys of many rows, (S, ...), out of `keys` (S,) and row numbers (S or 1, ...); `fold_in` in half the work."""
    return mix(keys.view(-1, *[1] * (rows.ndim - 1)) + rows * _GOLDEN)


def columns(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Constants (ceil(count / 4),) that distinguish the words of a row of `count` lanes; see `lanes`."""
    return mix(torch.arange(1, (count + LANES - 1) // LANES + 1, device=device) * _GOLDEN)


def lanes(keys: Tensor, columns: Tensor, count: int) -> Tensor:
    """Uniform int16 numbers (..., count): lane j of the row whose key is in `keys` (...).

    Row keys and column constants are mixed already, so one round of multiply, shift, multiply is enough here, where
    nearly all of the random bits of a step are made.
    """
    x = keys[..., None] ^ columns[: (count + LANES - 1) // LANES]
    x = x.mul_(_MIX_1)
    x = x.bitwise_xor_(x >> 32).mul_(_MIX_2)
    return x.view(torch.int16)[..., :count]


def uniform(keys: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) of the shape of `keys`, float64, one a key."""
    return _shift(mix(keys ^ _MIX_1), 11).double() * 2.0**-53


def permutation(keys: Tensor, count: int) -> Tensor:
    """A random order of `count` things for each key (S,), (S, count) int64; computed where the keys are."""
    return row_keys(keys, torch.arange(count, device=keys.device)[None]).argsort(dim=1, stable=True)


def _mix_number(data: int) -> int:
    """`mix(data * _GOLDEN + 1)` of a number on the host, where a tensor would have to be sent to the device."""
    wrapped = (1 << 64) - 1
    x = (data * _GOLDEN + 1) & wrapped
    x = ((x ^ (x >> 30)) * _MIX_1) & wrapped
    x = ((x ^ (x >> 27)) * _MIX_2) & wrapped
    x ^= x >> 31
    return x - (1 << 64) if x >> 63 else x


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right without the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
