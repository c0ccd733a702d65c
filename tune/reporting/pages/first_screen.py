"""The first screen: what was run, what came out, whether it is better than the reference, how to get it again."""

from __future__ import annotations

from collections.abc import Mapping

from macil.config import hyperparameters
from macil.evaluation.protocols import epoch_rule
from tune.planning.resolve import confirmable
from tune.planning.space import reference_title
from tune.reporting.pages.blocks import Answer
from tune.reporting.pages.winner_tiles import standing
from tune.reporting.statistics.confirmation import against_reference, confirmed_rows
from tune.reporting.statistics.intervals import POINTS, bounds_of, of_differences
from tune.reporting.statistics.model_interval import ModelInterval
from tune.reporting.statistics.outcome import Outcome, basis, headline_estimate, replay
from tune.reporting.statistics.reference import reference_in_full
from tune.reporting.statistics.significance import Paired
from tune.reporting.statistics.sweep_rows import against_reference as row_against_reference
from tune.reporting.statistics.sweep_rows import (
    headline_column,
    is_papers,
    reference_name,
    sweep_rows,
    trained_rows,
)
from tune.reporting.statistics.sweep_rows import reference_title as row_title
from tune.reporting.tables.run_tables import varied
from tune.reporting.text import wording
from tune.reporting.text.run_facts import data_in_short, trials_in_short
from tune.reporting.text.sweep_verdict import verdicts
from tune.results.ranking import reference_trial
from tune.results.rows import TrialRow
from tune.results.run import RunResults

# To pick the larger of two sets a sign, which an interval to both sides allows for.
_FEWEST_PICKED_FROM = 3
# Characters of a sweep's first verdict that the first screen of a phone has room for.
_ROOM = 240
_BY_SEEDS = wording.measured_by("--seeds")
WITHIN = "the interval holds zero, so the difference may be nothing but noise between seeds"
BEYOND = "the interval leaves zero out, so the difference is larger than the noise between seeds"


def answers(
    results: RunResults, outcome: Outcome, intervals: Mapping[str, ModelInterval]
) -> tuple[Answer, ...]:
    """The four answers, each with a number where one was measured."""
    command = replay(results, outcome.replayed)
    return (
        Answer("What was run", messages=(what_was_run(results),)),
        _found(results, outcome, intervals),
        better_than_reference(results, outcome),
        Answer(
            "Train it again",
            messages=() if command else ("No trial has a result to replay yet.",),
            small=f"{_capital(outcome.replayed_name)}." if command else "",
            command=command,
        ),
    )


def what_was_run(results: RunResults) -> str:
    """Kind, size, data and protocol in one line."""
    return (
        f"{kind(results)}: {trials_in_short(results)}. {data_in_short(results)}; protocol {results.protocol}."
    )


def kind(results: RunResults) -> str:
    """Which sweep, or a search over what."""
    described = {parameter.name: parameter for parameter in hyperparameters()}
    names = [described[name].symbol or name for name in results.plan.space if name in described]
    sweep, title = results.info.sweep or results.plan.sweep, results.plan.title
    if sweep:
        return f"Sweep {sweep}" + (f" ({title})" if title else "")
    return "Search" + (f" over {', '.join(names)}" if names else "")


def better_than_reference(results: RunResults, outcome: Outcome) -> Answer:
    """The difference to the reference, with its interval and what that means, or why there is none."""
    if results.info.sweep:
        return _row_against_reference(results, outcome)
    return _winner_against_reference(results, outcome)


def _found(results: RunResults, outcome: Outcome, intervals: Mapping[str, ModelInterval]) -> Answer:
    question = "Best row" if results.info.sweep else _question(results, outcome)
    if not outcome.trials:
        return Answer(question, messages=(outcome.subject,))
    first = outcome.trials[0]
    names = (
        _common(results, outcome.row.alike)
        if outcome.row
        else [name for name in varied(results) if name != "seed"]
    )
    config = results.active_row(first).config
    setting = ", ".join(f"{name} {wording.value(config[name], digits=3)}" for name in names if name in config)
    messages = f"{outcome.subject}" + (f" With {setting}." if setting else "")
    if outcome.row is None:
        what = wording.ap_definition("ap_trapezoid", results.protocol, epoch_rule(results.protocol))
        lines = standing(results, outcome, intervals, question)
        if not any("%" in line.number for line in lines):
            what = (
                f"selection score: {wording.selection_metric(results.protocol)}; protocol {results.protocol}"
            )
        return Answer(question, lines=lines, messages=(messages,), small=_capital(what))
    figure = headline_estimate(outcome, intervals)
    number = "test AP not measured"
    if figure is not None:
        number = f"AP {wording.estimate_text(figure)} %{wording.chance_beside(results.chance)}"
    return Answer(question, number, (messages,), _capital(basis(outcome, intervals)))


def _common(results: RunResults, names: tuple[str, ...]) -> list[str]:
    """The hyperparameters that rows of one training set, and set alike."""
    changes = [row.changes for row in sweep_rows(results) if row.name in names]
    first = changes[0] if changes else {}
    return [
        name
        for name, value in first.items()
        if all(name in other and other[name] == value for other in changes)
    ]


def _question(results: RunResults, outcome: Outcome) -> str:
    if not outcome.trials:
        return "Result"
    return "Winner" if results.status == "finished" or results.info.winner else "Best trial so far"


def _winner_against_reference(results: RunResults, outcome: Outcome) -> Answer:
    reference, searched = reference_trial(results), outcome.searched
    if searched is None:
        return Answer("Better than the reference?", messages=("Not known yet.",))
    if reference is None:
        return Answer(
            "Better than the reference?",
            messages=("Not known: no trial of this search has the paper's values of what was searched.",),
        )
    question = f"Better than {reference_title(reference.config)}?"
    if reference.name == searched.name:
        by = (
            "by the test AP, its selection metric"
            if results.protocol == "published"
            else "on held-out videos"
        )
        by += " and fresh seeds" if confirmed_rows(results) else ""
        which = f"The {_question(results, outcome).lower()} is {reference_title(reference.config)} itself"
        return Answer(
            question,
            messages=(f"{which}: the search found nothing better {by}.",),
            small=_capital(reference_in_full(reference)),
        )
    for column, what in (("ap_trapezoid", "points of test AP"), ("selection_score", "of selection score")):
        found = against_reference(results, searched.name, column)
        if found is not None and found.difference.n > 1:
            return _confirmed_answer(results, found, column, what, searched, reference)
    return _one_seed_answer(results, searched, reference)


def _confirmed_answer(
    results: RunResults, found: Paired, column: str, what: str, searched: TrialRow, reference: TrialRow
) -> Answer:
    test = column == "ap_trapezoid"
    number = (
        wording.points_text(found.difference) if test else wording.score_difference_text(found.difference)
    )
    ends = POINTS if test else of_differences(bounds_of(column, results.protocol))
    pairs = (
        f"paired over {wording.seeds(found.difference.n).replace('seeds', 'fresh seeds')}, all trained on "
        f"{wording.TRAINED_ON.get(results.protocol, 'the same videos')}"
    )
    rule = epoch_rule(results.protocol)
    return Answer(
        f"Better than {reference_title(reference.config)}?",
        f"{number} {'points' if test else ''}".strip(),
        (_verdict(found) + _chosen_by(results, found), *_incomplete(results)),
        f"{_capital(what)}, trial {searched.name} minus {reference_in_full(reference)}: {pairs}"
        + (
            f" ({rule} epoch, trapezoidal)"
            if test
            else "; the winner was chosen by these scores, which is kind to it"
        )
        + "".join(f"; {note}" for note in wording.cut_notes([found.difference], ends)),
    )


def _chosen_by(results: RunResults, found: Paired) -> str:
    """A reserve to a "yes" of a search that selects by the test AP: the same numbers chose the winner."""
    rows = sum(1 for row in confirmed_rows(results) if row.finished)
    if results.protocol != "published" or not found.differs or rows < _FEWEST_PICKED_FROM:
        return ""
    return f" It was picked as the best of {rows} by the test AP of these trainings, so the interval is too kind to it."


def _one_seed_answer(results: RunResults, searched: TrialRow, reference: TrialRow) -> Answer:
    number, measured = "", []
    if searched.ap_trapezoid is not None and reference.ap_trapezoid is not None:
        difference = wording.points(100 * (searched.ap_trapezoid - reference.ap_trapezoid))
        number = f"{difference} points"
        measured.append(f"points of test AP ({searched.epoch_rule} epoch, trapezoidal)")
    if searched.selection_score is not None and reference.selection_score is not None:
        score = wording.signed(searched.selection_score - reference.selection_score)
        number = number or f"{score} of selection score"
        measured.append(f"selection score {score}")
    each = f"one seed, {wording.TRAINED_ON.get(results.protocol, 'the same videos')}, each"
    against = reference_in_full(reference)
    return Answer(
        f"Better than {reference_title(reference.config)}?",
        number,
        (
            f"Not known: the noise between seeds was not measured, and this may be nothing but noise; {_how(results)}.",
        ),
        f"Trial {searched.name} minus {against}; {each}: {'; '.join(measured)}"
        if measured
        else f"Against {against}",
    )


def _incomplete(results: RunResults) -> list[str]:
    """A note that fresh seeds are still missing, if they are."""
    missing = sum(row.asked - len(row.finished) for row in confirmed_rows(results))
    return [f"Not final: fresh seeds are missing, {missing} in all."] if missing else []


def _how(results: RunResults) -> str:
    """The step that measures the noise between seeds."""
    rows = confirmed_rows(results)
    if _incomplete(results):
        return "the confirmation on fresh seeds is not complete"
    if rows:
        return wording.measured_by("--confirm-seeds")
    return f"a search with --confirm {confirmable(results.info.trials)} measures it"


def _row_against_reference(results: RunResults, outcome: Outcome) -> Answer:
    reference = reference_name(results)
    question = "Better than the reference row?"
    if reference is not None and is_papers(results):
        question = "Better than the paper's setting?"
    if outcome.row is None:
        return Answer(question, messages=("Not known yet.",))
    if reference is None:
        return Answer(question, messages=("Not known: this sweep names no reference row.",))
    if reference in (outcome.row.name, *outcome.row.alike):
        # Nothing else stands in this place: a long verdict has room.
        return Answer(question, messages=("The best row is the reference itself.", *verdicts(results)[:1]))
    column, rule = headline_column(results)
    found = row_against_reference(results, sweep_rows(results), column).get(outcome.row.name)
    if found is None:
        return Answer(
            question, messages=(f"Not known: {row_title(results)} has no finished seed in common with it.",)
        )
    # Rows are compared in points already.
    number = wording.points_text(found.difference, scale=1)
    name = f"Row {outcome.row.title} minus {row_title(results)}, test AP at the {rule}, trapezoidal"
    if found.difference.n == 1:
        return Answer(
            question,
            f"{number} points",
            (f"Not known: one seed a row measures no noise, and this may be noise alone; {_BY_SEEDS}.",),
            name,
        )
    return Answer(
        question,
        f"{number} points",
        (_verdict(found) + _picked(results, found), *_first_verdict(results)),
        "; ".join(
            [
                f"{name}: paired over {wording.seeds(found.difference.n)}",
                *wording.cut_notes([found.difference], POINTS),
            ]
        ),
    )


def _verdict(found: Paired) -> str:
    if found.difference.low is None:
        return f"Not known: {found.difference.n} seeds are too few to measure the noise between them; {wording.NEEDED}."
    if not found.differs:
        return f"No evidence of a difference: {WITHIN}."
    return f"{'Yes' if found.difference.mean > 0 else 'No, it is worse'}: {BEYOND}."


def _picked(results: RunResults, found: Paired) -> str:
    """A reserve to a "yes": the row was picked by the numbers that it is now compared by."""
    rows = sum(1 for row in trained_rows(sweep_rows(results)) if row.finished)
    return (
        f" It was picked as the best of {rows}, so the interval is too kind to it." if found.differs else ""
    )


def _first_verdict(results: RunResults) -> list[str]:
    return [message for message in verdicts(results)[:1] if len(message) <= _ROOM]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
