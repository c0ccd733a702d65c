"""Whether the embedded demo is what it was chosen to be: cheap, learnable, steady, and worth searching on.

Judged by the recorded trainings of the paper's setting and of random configurations of the default search space, each
with the same seeds, under the published protocol and with the epochs and the batch size that a search on the demo has:
by the test AP (step-wise) of the last epoch. `python -m benchmarks.curves demo-published` records them.

1. cost: a whole training of the paper's setting takes at most 15 s of one CPU;
2. learnable: its mean AP is at least 40 points above the share of positive frames, which random scores get;
3. steady: the standard deviation of its AP between seeds is at most 4 points;
4. worth searching: among the better half of the random configurations the variance component between configurations,
   with the noise taken off (one-way random effects), is at least as large as the one between seeds.

    python -m benchmarks.demo_criteria
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.common import finish, json_option, make_table
from benchmarks.curves.recording import Recording, read
from benchmarks.curves.sets import recorded_sets

MOST_SECONDS, LEAST_POINTS, MOST_DEVIATION = 15.0, 40.0, 4.0


@dataclass(frozen=True)
class Training:
    """One training: its configuration's number, 0 for the paper's, its seed, test AP in % and seconds of CPU."""

    number: int
    seed: int
    ap: float
    seconds: float


@dataclass(frozen=True)
class Criterion:
    """What was asked for and what was measured."""

    name: str
    wanted: str
    measured: str
    met: bool


def whole_seeds(recording: Recording) -> list[Training]:
    """The trainings with the seeds that every configuration was recorded with. One that diverged has an AP of 0."""
    numbers = {one.number for one in recording.trainings}
    of_seed: dict[int, set[int]] = {}
    for one in recording.trainings:
        of_seed.setdefault(one.seed, set()).add(one.number)
    return [
        Training(one.number, one.seed, 0.0 if one.error else 100 * float(one.figures["ap"][-1]), one.seconds)
        for one in recording.trainings
        if of_seed[one.seed] == numbers
    ]


def variance_components(scores: np.ndarray) -> tuple[float, float]:
    """Between configurations, with the noise taken off, and between seeds: one-way random effects.

    Args:
        scores: (configurations, seeds), at least two of each.
    """
    seeds = scores.shape[1]
    within = float(scores.var(axis=1, ddof=1).mean())
    return float(scores.mean(axis=1).var(ddof=1)) - within / seeds, within


def better_half(scores: np.ndarray) -> np.ndarray:
    """The rows of larger means, at least two of them."""
    order = np.argsort(-scores.mean(axis=1), kind="stable")
    return scores[order[: max(2, (len(scores) + 1) // 2)]]


def judge(trainings: Sequence[Training], chance: float) -> list[Criterion]:
    """The four criteria.

    Args:
        trainings: Of each configuration with each seed.
        chance: Share of positive frames, in %.
    """
    rows: dict[int, list[float]] = {}
    for one in sorted(trainings, key=lambda one: (one.number, one.seed)):
        rows.setdefault(one.number, []).append(one.ap)
    paper = np.array(rows.pop(0))
    seconds = [one.seconds for one in trainings if one.number == 0]
    others = [one.seconds for one in trainings if one.number]
    deviation = float(paper.std(ddof=1))
    half = better_half(np.array([*rows.values()]))
    between, within = variance_components(half)
    return [
        Criterion(
            "cost",
            f"at most {MOST_SECONDS:g} s of one CPU",
            f"{np.mean(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}); "
            f"of random configurations {np.mean(others):.1f} s",
            float(np.mean(seconds)) <= MOST_SECONDS,
        ),
        Criterion(
            "learnable",
            f"at least {LEAST_POINTS:g} points above chance",
            f"{paper.mean() - chance:.1f} points: {paper.mean():.1f} %, chance {chance:.1f} %",
            bool(paper.mean() - chance >= LEAST_POINTS),
        ),
        Criterion(
            "steady",
            f"deviation between seeds at most {MOST_DEVIATION:g} points",
            f"{deviation:.1f} points over {len(paper)} seeds, {paper.min():.1f} to {paper.max():.1f} %",
            deviation <= MOST_DEVIATION,
        ),
        Criterion(
            "worth searching",
            "variance between configurations at least that between seeds",
            f"{between:.1f} against {within:.1f} points squared in the better {len(half)} of {len(rows)}",
            between >= within,
        ),
    ]


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@json_option
def main(json_path: Path | None) -> None:
    """Judge, print."""
    recorded = recorded_sets()["demo-published"]
    recording = read(recorded.file)
    trainings = whole_seeds(recording)
    chance = 100 * recording.about.chance
    criteria = judge(trainings, chance)
    configurations, seeds = len({one.number for one in trainings}), len({one.seed for one in trainings})
    table = make_table(
        f"{recorded.epochs} epochs in batches of {recorded.batch_size}; {configurations} configurations with "
        f"{seeds} seeds each",
        ["", "wanted", "measured", ""],
        [],
    )
    for one in criteria:
        table.add_row(one.name, one.wanted, one.measured, "met" if one.met else "NOT MET")
    results = {
        "chance": chance,
        "trainings": [asdict(one) for one in trainings],
        "criteria": [asdict(one) for one in criteria],
    }
    finish([table], _means(trainings), results, json_path)


def _means(trainings: Sequence[Training]) -> Iterator[str]:
    numbers = sorted({one.number for one in trainings})
    means = {number: np.mean([one.ap for one in trainings if one.number == number]) for number in numbers}
    best = sorted(numbers[1:], key=lambda number: -means[number])
    yield f"mean AP of the random configurations: {', '.join(f'{means[number]:.1f}' for number in best)}"


if __name__ == "__main__":
    main()
