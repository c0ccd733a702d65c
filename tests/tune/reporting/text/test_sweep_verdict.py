"""The plain sentences: counted again by brute force, and what they say when little or nothing was measured."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.support.made_runs import Seeds, sweep_results
from tune.planning.paper_sweeps import SWEEPS
from tune.reporting.tables.sweep_table import sweep_table
from tune.reporting.text.sweep_verdict import verdicts
from tune.results.run import RunResults

PUBLISHED = {"a": 82.0, "b": 83.0, "c": 83.4, "d": 80.0}
SEEDS: dict[str, Seeds] = {
    "a": [80.0, 80.6, 81.0],
    "b": [80.2, 80.4, 81.4],
    "c": [80.4, 80.0, 80.8],
    "d": [79.9, 80.9, 80.4],
}


def noise_limit(rows: dict[str, Seeds]) -> float:
    values = [np.array(seeds, float) for seeds in rows.values()]
    degrees = sum(len(row) - 1 for row in values)
    squares = sum(float(((row - row.mean()) ** 2).sum()) for row in values)
    return float(stats.t.ppf(0.975, degrees) * np.sqrt(2 * squares / degrees))


def one(results: RunResults, pattern: str) -> str:
    (sentence,) = [sentence for sentence in verdicts(results) if re.search(pattern, sentence)]
    return sentence


def test_the_first_sentence_says_which_published_differences_are_larger_than_the_noise() -> None:
    limit = noise_limit(SEEDS)
    assert limit == pytest.approx(2.306 * 0.5188 * 2**0.5, abs=1e-3)  # t(0.975, 8), from any table
    first, second, *_ = verdicts(sweep_results(SEEDS, published=PUBLISHED, source="Table 9", sweep="table4"))
    assert first == (
        "Of the 6 differences between the published numbers (Table 9), 3 are larger than the noise measured here, "
        "1.69 points: c over d (+3.40), b over d (+3.00), a over d (+2.00); of all 6 together, 2 are larger than 2.35."
    )
    deviation = limit / stats.t.ppf(0.975, 8) / np.sqrt(2)
    assert second.startswith("1.69 points: two trainings of one configuration that differ in the seed alone")
    assert (
        f"standard deviation of {deviation:.2f} points, pooled over 4 rows with 8 degrees of freedom"
        in second
    )
    assert "trapezoidal AP, best test epoch, as published" in second
    assert (
        f"{stats.studentized_range.ppf(0.95, 4, 8) * deviation:.2f} points in 95 of 100 tables (Tukey)"
        in second
    )


ap = st.integers(700, 900).map(lambda value: value / 10)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(ap, ap, ap), min_size=2, max_size=9))
def test_the_counts_are_those_of_a_brute_force_over_pairs(rows: list[tuple[float, float, float]]) -> None:
    seeds: dict[str, Seeds] = {f"r{n}": [first, second] for n, (first, second, _) in enumerate(rows)}
    published = {f"r{n}": number for n, (_, _, number) in enumerate(rows)}
    results = sweep_results(seeds, published=published)
    distinct = {tuple(values): name for name, values in seeds.items()}  # equal numbers are one training
    limit = noise_limit({name: list(values) for values, name in distinct.items()})
    pairs = list(itertools.combinations(published.values(), 2))
    gaps = [abs(a - b) for a, b in pairs]
    if limit < 1e-9:
        assert "the very same number" in verdicts(results)[0]
        return
    if min(abs(gap - limit) for gap in gaps) < 1e-9:
        return
    larger = sum(gap > limit for gap in gaps)
    first = verdicts(results)[0]
    if len(pairs) == 1:
        assert ("is not larger" in first) == (larger == 0)
    else:
        share = {0: "none is", 1: "1 is", len(pairs): "all are"}.get(larger, f"{larger} are")
        assert f"Of the {len(pairs)} differences" in first
        assert f", {share} larger than the noise measured here, {limit:.2f} points" in first


def test_table_4_is_judged_pair_by_pair() -> None:
    sweep = SWEEPS["table4"]
    rng = np.random.default_rng(0)
    rows: dict[str, Seeds] = {row.name: rng.normal(82, 1.5, 3).tolist() for row in sweep.rows}
    published = {row.name: row.published_ap for row in sweep.rows if row.published_ap is not None}
    results = sweep_results(rows, published=published, sweep="table4", reference="10", source=sweep.source)
    assert verdicts(results)[0].startswith(
        "Of the 66 differences between the published numbers (Table 4 of the paper), none is larger than the noise "
        "measured here, "
    )
    assert "(the widest is 2.03)" in verdicts(results)[0]


def test_on_demo_data_the_own_rows_come_first_and_the_paper_is_not_judged() -> None:
    results = sweep_results(SEEDS, published=PUBLISHED, reference="a", demo=True)
    first, second, *others = verdicts(results)
    assert first.startswith("On demo data, of 3 other rows, none differs from row a")
    assert second.startswith(
        "Only to show how it reads, for the noise of demo data says nothing about XD-Violence: of the 6 differences"
    )
    assert not any("further from our mean" in sentence for sentence in others)
    assert any(sentence.startswith("On demo data, the order of the 4 rows") for sentence in others)


def test_rows_that_differ_from_the_reference_are_named_with_their_interval() -> None:
    rows: dict[str, Seeds] = {**SEEDS, "e": [90.0, 90.5, 91.1]}
    results = sweep_results(rows, reference="a")
    sentence = one(results, "from row a beyond")
    expected = stats.ttest_rel(rows["e"], rows["a"]).confidence_interval(0.95)
    assert sentence.startswith(
        "Of 4 other rows, 1 differs from row a beyond the 95 % interval of the difference on the same 3 seeds "
        f"(trapezoidal AP, last epoch): e (+10.00 [+{expected.low:.2f}, +{expected.high:.2f}])."
    )
    assert "By the best test epoch: 1." in sentence
    assert "of 20 rows without any difference, about one would be named" in sentence
    assert "of 20 rows" not in one(sweep_results(SEEDS, reference="a"), "from row a beyond")


def test_where_the_reference_stands_among_the_means() -> None:
    first = one(sweep_results(SEEDS, reference="b", sweep="table4"), "By the mean")
    assert first.startswith("By the mean (last epoch), row b is the first of 4; the next, row a")
    third = one(sweep_results(SEEDS, reference="d"), "By the mean")
    assert third.startswith("By the mean (last epoch), row d is number 3 of 4; the first, row b, is +0.27 [")
    assert third.endswith("To be picked as the best of several flatters a row.")


def test_published_numbers_far_from_ours_are_named() -> None:
    results = sweep_results(SEEDS, published={"a": 81.0, "b": 95.0, "c": 60.0})
    assert one(results, "further from our mean").startswith(
        "Of 3 published numbers, 2 are further from our mean (best test epoch) than the noise of a mean and a single "
        "training explains: row b, c."
    )
    single = sweep_results(SEEDS, published={"a": 81.0})
    assert one(single, "further from our mean").startswith("The one published number is not further")
    assert not any("differences between the published" in sentence for sentence in verdicts(single))


def test_two_published_numbers_have_one_difference() -> None:
    (sentence,) = [
        text
        for text in verdicts(sweep_results(SEEDS, published={"a": 81.0, "b": 81.5}, protocol="heldout"))
        if "between the published" in text
    ]
    assert sentence == (
        "The one difference between the published numbers (as published), 0.50 points, is not larger than the noise "
        "measured here, 1.69 points."
    )


def test_under_heldout_the_noise_is_that_of_the_chosen_epoch_and_says_so() -> None:
    results = sweep_results(SEEDS, published=PUBLISHED, protocol="heldout", sweep="table4")
    assert "chosen epoch, where the paper takes the best test epoch" in one(results, "degrees of freedom")


@pytest.mark.parametrize("protocol", ["published", "heldout"])
def test_a_sweep_of_ones_own_says_nothing_of_the_paper(protocol: str) -> None:
    for rows in (SEEDS, {name: seeds[:1] for name, seeds in SEEDS.items()}):
        results = sweep_results(rows, published=PUBLISHED, reference="a", protocol=protocol)
        table = sweep_table(results)
        assert table is not None
        headings = " ".join(column.group for column in table.columns)
        text = " ".join([*verdicts(results), table.caption, headings])
        assert "paper" not in text.lower()
        assert "Published" in headings


@pytest.mark.parametrize("protocol", ["heldout", "published"])
def test_what_a_sweep_file_gives_as_published_is_not_said_to_be_the_papers(protocol: str) -> None:
    text = " ".join(verdicts(sweep_results(SEEDS, published=PUBLISHED, source="our lab", protocol=protocol)))
    assert "it speaks for what was published" in text
    assert "paper" not in text
    assert ", as published" not in text


def test_one_seed_measures_no_noise_and_says_how_to_measure_it() -> None:
    rows: dict[str, Seeds] = {name: seeds[:1] for name, seeds in SEEDS.items()}
    first, second, third = verdicts(sweep_results(rows, published=PUBLISHED, reference="a"))
    assert first == (
        "The noise between seeds was not measured, since no row has two finished seeds: no difference between rows, "
        "here or published, can be told from chance; --seeds 3 measures it."
    )
    assert second == "Rows have one seed in common with row a: no difference has an interval."
    assert third.startswith("The order of the 4 rows")


def test_what_was_asked_for_already_is_no_advice_and_nothing_published_is_not_spoken_of() -> None:
    first = verdicts(sweep_results({"a": [80.0, "running"], "b": [81.0]}, seeds=3))[0]
    assert "no difference between rows can be told from chance; 3 seeds a row were asked for." in first


def test_seeds_that_were_let_finish_are_no_measure_of_noise() -> None:
    rows: dict[str, Seeds] = {"a": [80.0, 81.0, "stopped"], "b": [82.0, 81.0, "stopped"]}
    first, *others = verdicts(sweep_results(rows, published=PUBLISHED))
    assert "some were stopped early" in first
    assert others == [
        "Not every seed has a whole training in row a, b: see the column Seeds.",
        "Seeds were stopped early: the means of their rows are over the better seeds, and flatter.",
    ]


def test_seeds_without_any_spread_judge_nothing() -> None:
    rows: dict[str, Seeds] = {"a": [100.0, 100.0], "b": [100.0, 100.0]}
    first, *others = verdicts(sweep_results(rows, published=PUBLISHED, best=0.0))
    assert first.startswith("All seeds of a row gave the very same number")
    assert others == ["Rows a, b have the very same test AP: what they set made no difference to it."]


def test_a_sweep_that_has_measured_nothing_says_that_alone() -> None:
    nothing = ["No row has a finished training: nothing can be compared."]
    assert verdicts(sweep_results({"a": ["failed", "stopped"], "b": ["running"]}, reference="a")) == nothing
    assert verdicts(sweep_results({"a": [], "b": []}, seeds=2)) == nothing
    assert verdicts(sweep_results({})) == []
    assert verdicts(sweep_results({"a": [80.0, 81.0]})) == [], "one row and nothing to compare it with"


def test_missing_seeds_and_a_reference_without_a_training_are_said() -> None:
    results = sweep_results({"a": ["failed", "failed"], "b": [80.0, 81.0]}, reference="a")
    assert verdicts(results) == [
        "No row has a finished seed in common with row a.",
        "Not every seed has a whole training in row a: see the column Seeds.",
    ]
    many = sweep_results({f"r{n}": [80.0 + n, 81.0, "failed"] for n in range(8)})
    assert "Not every seed has a whole training in 8 of 8 rows: see the column Seeds." in verdicts(many)
