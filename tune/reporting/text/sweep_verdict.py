"""The result of a sweep, in sentences: which differences are larger than the noise, and which are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from macil.io.wording import plural
from tune.reporting.statistics.intervals import FEWEST_SEEDS, PERCENT, POINTS
from tune.reporting.statistics.significance import (
    DRAWS,
    FEWEST_PERMUTED,
    Noise,
    Pair,
    Paired,
    RankCorrelation,
    larger_pairs,
    rank_correlation,
)
from tune.reporting.statistics.sweep_rows import (
    RowResult,
    against_reference,
    compared_column,
    headline_column,
    measured_noise,
    published_difference,
    published_source,
    publisher,
    reference_name,
    reference_row,
    reference_title,
    repeated,
    seeds_asked,
    sweep_rows,
    trained_rows,
)
from tune.reporting.text import wording
from tune.results.run import RunResults
from tune.results.run_info import is_demo

# More than so many names are no longer read.
_MOST_NAMED = 6


def verdicts(results: RunResults) -> list[str]:
    """The result of the sweep, the most important sentence first; empty for a search.

    On features of one's own that is what the measured noise makes of the published table; on the demo data, whose
    noise says nothing about XD-Violence, it is how the run's own rows differ.
    """
    rows = sweep_rows(results)
    if not rows:
        return []
    if not any(row.finished for row in rows):
        return ["No row has a finished training: nothing can be compared."]
    column, _ = compared_column(results)
    noise = measured_noise(rows, column)
    own = _against_reference(results, rows)
    if noise is None or not noise.deviation:
        first = [_unmeasured(results, rows, noise), *own]
    else:
        published = _published(results, rows, noise)
        first = [*own, *published] if is_demo(results.info) else [*published, *own]
        first += [*_standing(results, rows), *_reproduced(results, rows, noise)]
    orders = _orders(results, rows, noise)
    return [*first, *orders, *equal_trainings(results, rows), *_alike(rows), *_missing(results, rows)]


def equal_trainings(results: RunResults, rows: Sequence[RowResult]) -> list[str]:
    """Which rows are one training, and that it counts once; empty where each is its own."""
    groups = [row.title for row in trained_rows(rows) if len(row.alike) > 1]
    if not groups:
        return []
    which = "Rows that are the same training in so many epochs"
    if repeated(results):
        how = (
            "they were trained apart, and are counted as the one training they are: with each seed that of the first "
            "row that finished is shown in all of them"
        )
    else:
        how = "trained once, shown in all of them and counted once"
    return [f"{which}: {'; '.join(groups)}: {how}."]


def _unmeasured(results: RunResults, rows: Sequence[RowResult], noise: Noise | None) -> str:
    published = any(row.published is not None for row in rows)
    if noise is not None:
        judged = ", and no published difference can be judged by it" if published else ""
        return (
            "All seeds of a row gave the very same number: on these data nothing shows how far seeds differ"
            f"{judged}."
        )
    if any(row.stopped and len(row.finished) > 1 for row in rows):
        return (
            "The noise between seeds was not measured: in every row with several seeds some were stopped early, and "
            "those that were let finish are alike; --stopping none trains all of them to the end."
        )
    where = ", here or published," if published else ""
    asked = seeds_asked(results, rows)
    how = f"{asked} seeds a row were asked for" if asked >= FEWEST_SEEDS else wording.measured_by("--seeds")
    return (
        "The noise between seeds was not measured, since no row has two finished seeds: no difference between rows"
        f"{where} can be told from chance; {how}."
    )


def _published(results: RunResults, rows: Sequence[RowResult], noise: Noise) -> list[str]:
    """The published table under the noise measured here; empty without two published numbers."""
    values = {row.name: row.published for row in rows if row.published is not None}
    if len(values) < 2:
        return []
    if noise.limit >= PERCENT[1]:
        wide = "The noise measured here is too wide to judge any difference of two APs by: a standard deviation of"
        return [f"{wide} {noise.deviation:.2f} points, with {_degrees(noise)}."]
    pairs = len(values) * (len(values) - 1) // 2
    larger, joint = larger_pairs(values, noise.limit), noise.joint_limit(len(values))
    beyond = sum(pair.difference > joint for pair in larger)
    widest = larger_pairs(values, -1.0)[0]
    between = f"between the published numbers ({published_source(results, rows)})"
    than = f"larger than the noise measured here, {noise.limit:.2f} points"
    if pairs == 1:
        text = f"the one difference {between}, {widest.difference:.2f} points, is {'' if larger else 'not '}{than}"
    else:
        text = f"of the {pairs} differences {between}, {_are(len(larger), pairs)} {than}"
        text += _named_pairs(larger) or ("" if larger else f" (the widest is {widest.difference:.2f})")
        text += f"; of all {pairs} together, {_are(beyond, pairs)} larger than {joint:.2f}"
    if is_demo(results.info):
        text = f"only to show how it reads, for the noise of demo data says nothing about XD-Violence: {text}"
    return [_sentence(text), _limits(results, noise, joint, pairs)]


def _limits(results: RunResults, noise: Noise, joint: float, pairs: int) -> str:
    _, rule = compared_column(results)
    rows = plural(noise.groups, "row")
    convention = ""
    if publisher(results) == "paper":
        convention = (
            ", as published"
            if results.protocol == "published"
            else ", where the paper takes the best test epoch"
        )
    text = (
        f"{noise.limit:.2f} points: two trainings of one configuration that differ in the seed alone are less far "
        f"apart in 95 of 100 cases, by a standard deviation of {noise.deviation:.2f} points, pooled over {rows} with "
        f"{_degrees(noise)} (trapezoidal AP, {rule}{convention}; a published number is one training)."
    )
    if pairs > 1:
        text += (
            f" Chance alone puts about one pair in twenty beyond that; the largest of {pairs} stays below {joint:.2f} "
            "points in 95 of 100 tables (Tukey)."
        )
    return text


def _against_reference(results: RunResults, rows: Sequence[RowResult]) -> list[str]:
    """Which rows differ from the reference; empty without a reference."""
    if reference_name(results) is None or len(trained_rows(rows)) < 2:
        return []
    where = "on demo data, " if is_demo(results.info) else ""
    reference = reference_title(results)
    column, rule = headline_column(results)
    compared = against_reference(results, rows, column)
    if not compared:
        return [_sentence(f"{where}no row has a finished seed in common with {reference}")]
    tested = {name: item for name, item in compared.items() if item.difference.low is not None}
    if not tested:
        most = max(item.difference.n for item in compared.values())
        common = wording.seed_count(most)
        too_few = "" if most == 1 else f" ({wording.NEEDED})"
        return [
            _sentence(
                f"{where}rows have {common} in common with {reference}: no difference has an interval{too_few}"
            )
        ]
    differ = {name: item for name, item in tested.items() if item.differs}
    seeds = sorted({item.difference.n for item in tested.values()})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    noun = "training" if _collapsed(rows) else "row"
    text = (
        f"{where}of {plural(len(tested), f'other {noun}')}, {_differ(len(differ), len(tested))} from "
        f"{reference} beyond the 95 % interval of the difference on the same {counted} seeds (trapezoidal AP, {rule})"
    )
    notes = wording.interval_notes((item.difference for item in differ.values()), POINTS)
    messages = " ".join([_sentence(f"{text}{_named_rows(differ, rows)}"), *notes])
    best, best_rule = compared_column(results)
    if best != column:
        also = sum(item.differs for item in against_reference(results, rows, best).values())
        messages += f" By the {best_rule}: {also or 'none'}."
    if differ and len(tested) > 1:
        messages += f" Each interval stands for itself: of 20 {noun}s without any difference, about one would be named."
    return [messages]


def _standing(results: RunResults, rows: Sequence[RowResult]) -> list[str]:
    """Where the reference stands among the means, and how far from the first or, being the first, from the next."""
    column, rule = headline_column(results)
    trained = trained_rows(rows)
    means = {row.name: 100 * figure.mean for row in trained if (figure := row.estimate(column))}
    own = reference_row(results, rows)
    reference = own.name if own else ""
    if reference not in means or len(means) < 2:
        return []
    rank = 1 + sum(mean > means[reference] for mean in means.values())
    other = max((row for row in trained if row.name in means and row != own), key=lambda row: means[row.name])
    found = against_reference(results, rows, column).get(other.name)
    if found is None:
        return []
    apart = f"row {other.title}, is {wording.points_text(found.difference, scale=1)} points from it"
    text = f"By the mean ({rule}), {reference_title(results)} is"
    count = f"{len(means)} trainings" if _collapsed(rows) else f"{len(means)}"
    if rank == 1:
        return [f"{text} the first of {count}; the next, {apart}."]
    flatters = " To be picked as the best of several flatters a row." if len(means) > 2 else ""
    return [f"{text} number {rank} of {count}; the first, {apart}.{flatters}"]


def _reproduced(results: RunResults, rows: Sequence[RowResult], noise: Noise) -> list[str]:
    """Which published numbers lie where ours do; empty on demo data, where none should."""
    if is_demo(results.info):
        return []
    column, rule = compared_column(results)
    found = {
        row.name: item
        for row in rows
        if (item := published_difference(row, column, noise)) and item.low is not None
    }
    if not found:
        return []
    away = [
        name
        for name, item in found.items()
        if item.low is not None and item.high is not None and not item.low <= 0 <= item.high
    ]
    than = f"further from our mean ({rule}) than the noise of a mean and a single training explains"
    if len(found) == 1:
        text = f"the one published number is {'' if away else 'not '}{than}"
    else:
        named = f": row {', '.join(away)}" if 0 < len(away) <= _MOST_NAMED else ""
        text = f"of {len(found)} published numbers, {_are(len(away), len(found))} {than}{named}"
    theirs = "the paper" if publisher(results) == "paper" else "what was published"
    reach = f"The noise is that of this run's data and settings: it speaks for {theirs} as far as these are the same."
    return [f"{_sentence(text)} {reach}"]


def _orders(results: RunResults, rows: Sequence[RowResult], noise: Noise | None) -> list[str]:
    """How our order agrees with the published one, and what chance makes of that."""
    column, rule = compared_column(results)
    ordered = [
        (100 * figure.mean, row.published, row.alike)
        for row in rows
        if row.published is not None and (figure := row.estimate(column))
    ]
    found = rank_correlation(*zip(*ordered, strict=True)) if ordered else None
    if found is None:
        return []
    same = "" if found.trainings == found.n else f", which are {found.trainings} trainings,"
    text = (
        f"the order of the {found.n} rows{same} by our means ({rule}) against the published: Spearman "
        f"{wording.points(found.spearman)}, Kendall {wording.points(found.kendall)}"
    )
    if noise is None or not noise.deviation:
        text += " (no p: how far seeds of a row differ was not measured)"
    elif found.p is None:
        text += f" (no p: it needs {FEWEST_PERMUTED} different trainings, these are {found.trainings})"
    else:
        text += f". {_chance(found)}"
    return [_sentence(f"on demo data, {text}" if is_demo(results.info) else text)]


def _chance(found: RankCorrelation) -> str:
    """An explanation of Kendall's p: it is about all rows together, and about no pair of them."""
    assert found.p is not None
    p = f"{found.p:.2g}" if found.exact else f"about {found.p:.2g}"
    orders = (
        f"all orders of the {found.trainings} trainings"
        if found.exact
        else f"{DRAWS:,} orders drawn at random"
    )
    reading = (
        "the orders of all rows together agree by more than chance, which says nothing of any two rows"
        if found.p < 0.05 and found.kendall > 0
        else "they disagree by more than chance"
        if found.p < 0.05
        else "chance alone could give it"
    )
    return f"Kendall's p, two-sided, is {p}, from {orders}: {reading}"


def _collapsed(rows: Sequence[RowResult]) -> bool:
    """Whether there are fewer trainings than rows."""
    return len(trained_rows(rows)) < len(rows)


def _alike(rows: Sequence[RowResult]) -> list[str]:
    """Rows between which no AP tells, though they are not known to be the same training."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for row in trained_rows(rows):
        groups.setdefault(row.numbers, []).append(row.title)
    return [
        f"Rows {', '.join(names)} have the very same test AP: what they set made no difference to it."
        for numbers, names in groups.items()
        if numbers and len(names) > 1
    ]


def _missing(results: RunResults, rows: Sequence[RowResult]) -> list[str]:
    messages = []
    asked = seeds_asked(results, rows)
    fewer = [row.name for row in rows if len(row.finished) < asked]
    if fewer:
        named = (
            f"row {', '.join(fewer)}" if len(fewer) <= _MOST_NAMED else f"{len(fewer)} of {len(rows)} rows"
        )
        messages.append(f"Not every seed has a whole training in {named}: see the column Seeds.")
    if any(row.stopped for row in rows):
        messages.append(
            "Seeds were stopped early: the means of their rows are over the better seeds, and flatter."
        )
    return messages


def _degrees(noise: Noise) -> str:
    return f"{plural(noise.degrees, 'degree')} of freedom"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _are(number: int, of: int) -> str:
    return (
        "none is" if not number else "all are" if number == of else "1 is" if number == 1 else f"{number} are"
    )


def _differ(number: int, of: int) -> str:
    return (
        "none differs"
        if not number
        else f"{'all' if 1 < number == of else number} differ{'s' if number == 1 else ''}"
    )


def _named_pairs(pairs: Sequence[Pair]) -> str:
    if not 0 < len(pairs) <= _MOST_NAMED:
        return ""
    named = [f"{pair.above} over {pair.below} ({wording.points(pair.difference)})" for pair in pairs]
    return f": {', '.join(named)}"


def _named_rows(differ: Mapping[str, Paired], rows: Sequence[RowResult]) -> str:
    if not 0 < len(differ) <= _MOST_NAMED:
        return ""
    titles = {row.name: row.title for row in rows}
    named = [
        f"{titles[name]} ({wording.points_text(item.difference, scale=1)})" for name, item in differ.items()
    ]
    return f": {', '.join(named)}"
