"""Counter-based random numbers: functions of their key, uniform, and independent of one another."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from macil.model.random_numbers import (
    columns,
    fold_in,
    lanes,
    make_keys,
    mix,
    permutation,
    row_keys,
    stream_seed,
    uniform,
)

WORD = (1 << 64) - 1


def literal_mix(x: int) -> int:
    """The finaliser of splitmix64 on unsigned numbers."""
    x &= WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def grid(rows: int, count: int, seed: int = 3) -> Tensor:
    """Lanes of `rows` rows, (rows, count)."""
    keys = row_keys(make_keys([seed], "test"), torch.arange(rows)[None])
    return lanes(keys, columns(count), count)[0]


@settings(max_examples=200, derandomize=True)
@given(st.integers(-(2**63), 2**63 - 1))
def test_mixing_is_the_finaliser_of_splitmix64(x: int) -> None:
    assert mix(torch.tensor([x])).item() == signed(literal_mix(x & WORD))


@settings(max_examples=50, derandomize=True)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40))
def test_numbers_of_the_host_and_of_the_device_fold_in_alike(key: int, data: int) -> None:
    keys = torch.tensor([key])
    assert torch.equal(fold_in(keys, data), fold_in(keys, torch.tensor([data])))


def test_streams_of_other_seeds_and_purposes_differ() -> None:
    found = {stream_seed(seed, purpose) for seed in range(50) for purpose in ("init", "shuffle", "dropout")}
    assert len(found) == 150


def test_lanes_are_uniform() -> None:
    values = grid(4000, 200).long() + (1 << 15)
    for counts in (torch.bincount(values.flatten() >> 8), torch.bincount(values.flatten() & 255)):
        expected = values.numel() / 256
        chi_square = ((counts - expected) ** 2 / expected).sum().item()
        assert abs(chi_square - 255) < 5 * math.sqrt(2 * 255)
    for lane in range(4):  # each piece of a word for itself
        mean = values[:, lane::4].double().mean().item()
        assert abs(mean - 32767.5) < 5 * 65536 / math.sqrt(12 * values.numel() / 4)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_decisions_of_rows_columns_keys_and_steps_are_independent(rate: float) -> None:
    threshold = round(rate * 65536) - 32768
    kept = (grid(3000, 200) < threshold).double() - rate
    bound = 5 * rate * (1 - rate)
    for distance in (1, 2, 3, 4, 5, 7, 8, 16, 64, 199):
        shifted = (kept[:, distance:] * kept[:, :-distance]).mean().item()
        assert abs(shifted) < bound / math.sqrt(kept[:, distance:].numel())
    for distance in (1, 2, 3, 64, 1024):
        shifted = (kept[distance:] * kept[:-distance]).mean().item()
        assert abs(shifted) < bound / math.sqrt(kept[distance:].numel())
    other = (grid(3000, 200, seed=4) < threshold).double() - rate
    assert abs((kept * other).mean().item()) < bound / math.sqrt(kept.numel())
    by_column = kept.mean(0).abs().max().item()
    assert by_column < 6 * math.sqrt(rate * (1 - rate) / len(kept))


def test_triples_of_lanes_of_a_word_are_independent() -> None:
    kept = (grid(20000, 8) < 0).double() - 0.5
    for a, b, c in ((0, 1, 2), (0, 1, 3), (1, 2, 3), (0, 4, 5)):
        assert abs((kept[:, a] * kept[:, b] * kept[:, c]).mean().item()) < 5 * 0.125 / math.sqrt(len(kept))


def test_a_row_is_the_same_alone_and_among_others_and_however_long() -> None:
    keys = make_keys([5, 6], "test")
    rows = torch.arange(24).view(1, 2, 12)
    many = lanes(row_keys(keys, rows), columns(50), 50)
    some = lanes(row_keys(keys[1:], rows[:, 1:, 3:4]), columns(9), 9)
    assert torch.equal(many[1:, 1:, 3:4, :9], some)


def test_uniform_numbers_fill_the_unit_interval() -> None:
    values = uniform(row_keys(make_keys([1], "test"), torch.arange(100_000)[None]))
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean().item() - 0.5) < 5 / math.sqrt(12 * 100_000)
    assert abs(values.var().item() - 1 / 12) < 0.002


def test_a_permutation_holds_everything_once_and_follows_its_key() -> None:
    order = permutation(make_keys([1, 2, 1], "shuffle"), 1000)
    assert torch.equal(order.sort(1).values, torch.arange(1000).expand(3, -1))
    assert torch.equal(order[0], order[2])
    assert not torch.equal(order[0], order[1])
    # Nothing stays near its place: the mean distance of a random order is a third.
    assert abs((order[0] - torch.arange(1000)).abs().double().mean().item() - 333) < 40
