"""How long the average precision of a test set takes, against scikit-learn on its frames.

Both definitions of `macil.evaluation.average_precision.frame_average_precision` are wanted from arrays of snippet
scores and frame labels, made up, as many as XD-Violence's test set has. scikit-learn gets the scores repeated for
every frame, in two
ways: one precision-recall curve for both areas, and one call a definition as users write it. Before anything is timed,
all values are compared; they must agree.

    python -m benchmarks.evaluation
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from sklearn import __version__ as sklearn_version
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from benchmarks.common import (
    describe_machine,
    finish,
    json_option,
    machine_line,
    make_table,
    ratios,
    take_turns,
)
from macil.data.xd.annotations import SNIPPET_FRAMES
from macil.evaluation.average_precision import AveragePrecision, frame_average_precision

# The test set of XD-Violence: 2,330,384 frames.
SNIPPETS = 145_649
AGREEMENT = 1e-9

OURS, ONE_CURVE, TWO_CALLS = "macil", "scikit-learn, one curve", "scikit-learn, two calls"


# --- the reference --------------------------------------------------------------------------------------------


def one_curve(scores: np.ndarray, labels: np.ndarray) -> AveragePrecision:
    """scikit-learn's curve, and both areas under it."""
    precision, recall, _ = precision_recall_curve(labels, np.repeat(scores, SNIPPET_FRAMES))
    return AveragePrecision(float(-np.sum(np.diff(recall) * precision[:-1])), float(auc(recall, precision)))


def two_calls(scores: np.ndarray, labels: np.ndarray) -> AveragePrecision:
    """One call for each definition."""
    frame_scores = np.repeat(scores, SNIPPET_FRAMES)
    ap = average_precision_score(labels, frame_scores)
    precision, recall, _ = precision_recall_curve(labels, frame_scores)
    return AveragePrecision(float(ap), float(auc(recall, precision)))


# --- one case -------------------------------------------------------------------------------------------------


def make_case(snippets: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 as a network gives them, a tenth of them rounded to ties, and frame labels uint8.

    Violent events begin and end anywhere, so that snippets at their edges hold both labels.
    """
    rng = np.random.default_rng(seed)
    frames = snippets * SNIPPET_FRAMES
    starts = rng.integers(0, frames, max(1, snippets // 40))
    ends = np.minimum(starts + rng.integers(3 * SNIPPET_FRAMES, 20 * SNIPPET_FRAMES, len(starts)), frames)
    change = np.zeros(frames + 1, np.int64)
    np.add.at(change, starts, 1)
    np.add.at(change, ends, -1)
    labels = (np.cumsum(change)[:-1] > 0).astype(np.uint8)
    violence = labels.reshape(-1, SNIPPET_FRAMES).mean(1)
    scores = 1 / (1 + np.exp(2 - 2 * violence - rng.standard_normal(snippets)))
    scores = np.where(rng.random(snippets) < 0.1, scores.round(2), scores)
    return scores.astype(np.float32), labels


def check_agreement(scores: np.ndarray, labels: np.ndarray) -> tuple[dict[str, AveragePrecision], float]:
    """Compute both definitions in all three ways.

    Returns:
        The values, and the largest difference from ours.

    Raises:
        click.ClickException: It is more than `AGREEMENT`.
    """
    values = {
        OURS: frame_average_precision(scores, labels),
        ONE_CURVE: one_curve(scores, labels),
        TWO_CALLS: two_calls(scores, labels),
    }
    difference = max(
        abs(mine - other)
        for value in values.values()
        for mine, other in zip(values[OURS], value, strict=True)
    )
    if not difference <= AGREEMENT:
        raise click.ClickException(f"the values differ by {difference:.2e}; nothing was timed")
    return values, difference


# --- command --------------------------------------------------------------------------------------------------


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.option("--snippets", type=click.IntRange(1), default=SNIPPETS, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=15, show_default=True, help="Timed runs of each.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@json_option
def main(snippets: int, repeats: int, seed: int, json_path: Path | None) -> None:
    """Check, time, print."""
    machine = describe_machine()
    scores, labels = make_case(snippets, seed)
    values, difference = check_agreement(scores, labels)
    seconds = take_turns(
        {
            ONE_CURVE: lambda: one_curve(scores, labels),
            TWO_CALLS: lambda: two_calls(scores, labels),
            OURS: lambda: frame_average_precision(scores, labels),
        },
        repeats,
    )
    violent = labels.reshape(-1, SNIPPET_FRAMES).sum(1)
    results: dict[str, Any] = {
        "machine": machine | {"scikit-learn": sklearn_version},
        "snippets": snippets,
        "frames": len(labels),
        "distinct_scores": len(np.unique(scores)),
        "mixed_snippets": int(((violent > 0) & (violent < SNIPPET_FRAMES)).sum()),
        "violent_share": float(labels.mean()),
        "values": {name: value._asdict() for name, value in values.items()},
        "largest_difference": difference,
        "repeats": repeats,
        "seconds": seconds,
        "ratio_of_median": ratios(seconds, OURS),
        "ratio_of_fastest": ratios(seconds, OURS, "fastest"),
    }
    table = make_table(
        f"Both average precisions in ms, {len(labels):,} frames",
        ["way"],
        ["median", "min", "max", "ratio of\nmedians", "ratio of\nminima"],
    )
    for name, timed in seconds.items():
        table.add_row(
            name,
            *(f"{1e3 * timed[of]:.2f}" for of in ("median", "fastest", "slowest")),
            *(f"{timed[of] / seconds[OURS][of]:.1f}" for of in ("median", "fastest")),
        )
    remark = (
        f"{snippets:,} snippets, {results['distinct_scores']:,} distinct scores, {results['mixed_snippets']:,} with "
        f"both labels; the values agree to {difference:.1e}."
    )
    finish([table], [machine_line(machine), remark], results, json_path)


if __name__ == "__main__":
    main()
