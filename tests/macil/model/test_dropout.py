"""Folding equal padded keys under dropout: the law of the unfolded layer."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from torch import Tensor

from macil.config import TrialConfig
from macil.model.attention import Context, Folded, attend
from macil.model.bag_layout import Layout, dense_layout
from macil.model.dropout import Noise, Rates, Site, binomial_distribution, row_numbers
from macil.model.random_numbers import columns, make_keys

HEADS, WIDTH = 2, 8
VARIANCE_BOUND = 0.13  # six deviations of a ratio of two variances of 20,000 draws


def noise(rate: float, longest: int, seeds: int = 1) -> Noise:
    return Noise(
        make_keys(list(range(seeds)), "test"), columns(longest), Rates(inner=round(rate * 65536), branch=0)
    )


@pytest.mark.parametrize("probability", [0.9, 0.5, 0.1])
def test_the_distribution_is_the_binomial_one(probability: float) -> None:
    counts = torch.tensor([[0, 1, 2, 7], [40, 100, 199, 200]])
    table = binomial_distribution(counts, 200, probability)
    assert table.shape[:2] == counts.shape
    for n, row in zip(counts.flatten().tolist(), table.flatten(0, 1), strict=True):
        expected = scipy.stats.binom.cdf(range(n), n, probability)
        torch.testing.assert_close(row[:n], torch.from_numpy(expected), rtol=1e-9, atol=1e-12)
        assert (row[n:] == 2).all()


@pytest.mark.parametrize("count", [1, 3, 170])
def test_the_kept_share_of_padded_keys_has_the_binomial_law(count: int) -> None:
    counts = torch.tensor([[count]])
    rows = row_numbers(torch.zeros(1, 1, dtype=torch.int64), 1, torch.arange(40_000)[None, None, None])
    source = noise(0.1, 200)
    table = binomial_distribution(counts, 200, source.attention_kept)
    share = source.kept_share(rows[..., None, :], counts, table).flatten()
    kept = torch.bincount((share * count).round().long(), minlength=count + 1).double()
    expected = torch.from_numpy(scipy.stats.binom.pmf(range(count + 1), count, source.attention_kept))
    likely = expected * len(share) > 5
    chi_square = ((kept - expected * len(share)) ** 2 / (expected * len(share)))[likely].sum().item()
    freedom = max(1, int(likely.sum()) - 1)
    assert chi_square < freedom + 6 * math.sqrt(2 * freedom)


def fold_and_spread(layout: Layout, draws: int, rate: float) -> tuple[Tensor, Tensor]:
    """Outputs (draws, R, d) of attention over one bag, its padding folded and spread out, many dropouts of each."""
    generator = torch.Generator().manual_seed(0)
    present, width = int(layout.present), layout.width
    both = torch.randn(1, width, 2 * WIDTH, generator=generator).double()  # keys and values
    both[:, present:] = both[:, present]  # padding is all alike
    queries = torch.randn(1, 1, 1, 3, WIDTH, generator=generator).double().expand(draws, -1, -1, -1, -1)
    source = noise(rate, width, draws)
    (folded,) = layout.contexts([both], HEADS, mask_padding=False, kept=source.attention_kept)
    spread = Context(folded.keys, folded.values, None, None)
    rows = row_numbers(torch.zeros(1, 1, dtype=torch.int64), 1, torch.arange(3)[None, None, None])
    if folded.folded is not None:
        folded = folded._replace(
            folded=Folded(*(x.expand(draws, *x.shape[1:]).contiguous() for x in folded.folded))
        )
    first, second = (attend(queries, each, rows, HEADS, source).flatten(1, 2) for each in (folded, spread))
    return first[:, 0], second[:, 0]


def one_bag(present: int, longest: int) -> Layout:
    layout = dense_layout(torch.tensor([[longest]]), torch.tensor([[longest]]), longest)
    return layout._replace(present=torch.tensor([[present]]))


def test_without_dropout_folded_keys_are_exactly_the_spread_ones() -> None:
    folded, spread = fold_and_spread(one_bag(4, 20), 1, rate=0.0)
    torch.testing.assert_close(folded, spread, rtol=1e-12, atol=1e-12)


def test_under_dropout_folded_keys_have_the_mean_and_the_variance_of_the_spread_ones() -> None:
    draws = 20_000
    folded, spread = fold_and_spread(one_bag(3, 12), draws, rate=0.3)
    deviation = spread.std(0) / math.sqrt(draws)
    assert ((folded.mean(0) - spread.mean(0)).abs() < 5 * math.sqrt(2) * deviation).all()
    assert (folded.var(0) / spread.var(0) - 1).abs().max() < VARIANCE_BOUND


def test_all_or_nothing_would_have_another_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above would see if a folded key were kept or dropped as one key."""

    def as_one_key(source: Noise, rows: Tensor, counts: Tensor, table: Tensor) -> Tensor:
        kept = source.kept(Site.PADDING, rows, 1, torch.float64)
        assert kept is not None
        return kept[..., 0]

    monkeypatch.setattr(Noise, "kept_share", as_one_key)
    folded, spread = fold_and_spread(one_bag(3, 12), 20_000, rate=0.3)
    assert (folded.var(0) / spread.var(0) - 1).abs().max() > 5 * VARIANCE_BOUND


def test_the_rate_is_met_to_within_a_hundred_thousandth() -> None:
    assert abs(Rates.of(TrialConfig()).at(Site.ATTENTION) / 65536 - 0.1) < 1e-5
