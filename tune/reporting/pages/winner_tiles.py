"""The winner of a search and what it is compared with, trainings of one kind on the same lines; the refit apart."""

from __future__ import annotations

from collections.abc import Mapping

from macil.evaluation.protocols import epoch_rule
from tune.reporting.pages.blocks import Tile
from tune.reporting.statistics.confirmation import Confirmed, confirmed_rows
from tune.reporting.statistics.intervals import PERCENT, Estimate, bounds_of, estimate
from tune.reporting.statistics.model_interval import ModelInterval
from tune.reporting.statistics.outcome import Outcome, headline_estimate
from tune.reporting.statistics.reference import reference_called
from tune.reporting.text import wording
from tune.results.ranking import reference_trial
from tune.results.rows import TrialRow
from tune.results.run import RunResults


def standing(
    results: RunResults, outcome: Outcome, intervals: Mapping[str, ModelInterval], title: str
) -> tuple[Tile, ...]:
    """The winner (or best so far, called `title`), the reference, and `model.pt` where it is another training.

    Winner and reference stand with their trainings on fresh seeds where the winner has any, else with their trials.
    Test AP where the winner has one, else the selection score. Empty before a trial has a score.
    """
    searched, reference = outcome.searched, reference_trial(results)
    if searched is None:
        return ()
    compared = [(searched, title)]
    if reference is not None and reference.name == searched.name:
        compared = [(searched, f"{title}, the {reference_called(reference)}")]
    elif reference is not None:
        compared.append((reference, _capital(reference_called(reference))))
    confirmed = {row.name: row for row in confirmed_rows(results) if row.finished}
    if searched.name not in confirmed:
        confirmed = {}
    column = "ap_trapezoid" if _figure(searched, confirmed, "ap_trapezoid") else "selection_score"
    lines = [_line(results, trial, name, confirmed, column) for trial, name in compared]
    return (*lines, *_model(results, outcome, searched, intervals, confirmed=bool(confirmed)))


def _figure(trial: TrialRow, confirmed: Mapping[str, Confirmed], column: str) -> Estimate | None:
    if not confirmed:
        return estimate([trial.result(column)])
    row = confirmed.get(trial.name)
    return row.estimate(column) if row else None


def _line(
    results: RunResults, trial: TrialRow, name: str, confirmed: Mapping[str, Confirmed], column: str
) -> Tile:
    figure = _figure(trial, confirmed, column)
    if figure is None:
        number, seeds = wording.NOT_MEASURED, "no fresh seed finished" if confirmed else "no result"
    else:
        number = _number(results, figure, column)
        seeds = wording.seed_count(figure.n)
        seeds = seeds.replace("seed", "fresh seed") if confirmed else seeds
    videos = wording.TRAINED_ON.get(results.protocol, "protocol not known")
    ends = PERCENT if column == "ap_trapezoid" else bounds_of(column, results.protocol)
    cut = "".join(f"; {note}" for note in wording.cut_notes([figure], ends))
    ended = " stopped early," if trial.status == "stopped" and not confirmed else ""
    return Tile(f"{name}: trial {trial.name}", number, f"{seeds},{ended} {videos}{cut}")


def _number(results: RunResults, figure: Estimate, column: str) -> str:
    if column == "selection_score":
        return f"selection score {wording.score_text(figure)}"
    return f"{wording.estimate_text(figure)} %{wording.chance_beside(results.chance)}"


def _model(
    results: RunResults,
    outcome: Outcome,
    searched: TrialRow,
    intervals: Mapping[str, ModelInterval],
    *,
    confirmed: bool,
) -> list[Tile]:
    """`model.pt`, where it is none of the trainings above: the refit, with its difference to the trial that it repeats.

    Without a refit it is the winner's trial, which a confirmation leaves out.
    """
    refit = bool(outcome.trials) and outcome.trials[0].kind == "refit"
    if not refit and not (confirmed and results.status == "finished" and results.protocol == "published"):
        return []
    name = "the winner trained again" if refit else f"trial {searched.name} in the search"
    protocol = str(outcome.trials[0].protocol)
    rule = wording.EPOCH_RULES[epoch_rule(protocol)]
    videos = wording.TRAINED_ON.get(protocol, "protocol not known")
    figure, mean = headline_estimate(outcome, intervals), estimate(t.ap_trapezoid for t in outcome.trials)
    seeds = wording.seed_count(len(outcome.trials))
    basis = f"{seeds}, {videos}, {rule}"
    if figure is None or mean is None:
        return [Tile(f"model.pt: {name}", "test AP not measured", basis)]
    if figure.n == 1 and figure.low is not None:
        basis += f" [95 % bootstrap interval over the {_videos(intervals)} test videos]"
    if refit and searched.ap_trapezoid is not None:
        basis += f"; {_against_trial(mean.mean, searched.name, searched.ap_trapezoid)}"
    return [Tile(f"model.pt: {name}", _number(results, figure, "ap_trapezoid"), basis)]


def _against_trial(mean: float, name: str, ap: float) -> str:
    """How the refit stands to the trial that it repeats, in words; after a confirmation that one is not shown above."""
    difference = 100 * (mean - ap)
    trial = f"trial {name} in the search ({wording.percent(ap)} %)"
    repeats = f"{trial}, which it repeats on more videos"
    if difference < 0:
        return f"it lost {abs(difference):.2f} points against {repeats}"
    if difference > 0:
        return f"{difference:.2f} points more than {repeats}"
    return f"the same as {repeats}"


def _videos(intervals: Mapping[str, ModelInterval]) -> int:
    return next(iter(intervals.values())).videos


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
