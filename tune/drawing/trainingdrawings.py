"""The figures of trainings: the reported one in detail (Figures 4 to 6 of the paper), and all of them over epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

from macil.io.wording import plural
from tune.drawing import figures, scorefigures, tsne
from tune.drawing.captions import basis
from tune.drawing.evidence import MOST_VIDEOS, Evidence, Trial
from tune.drawing.figures import Curves, Drawing, Entry, Group
from tune.drawing.paperfigures import training_curves
from tune.ranking import leaderboard, trial_name
from tune.reporting.intervals import Estimate
from tune.reporting.rowresults import sweep_rows, trained_rows
from tune.results import RunResults

_REPORTED, _ALL = "The reported training", "All trainings"
_LINES = "In colour: the first five by selection score; each line is one trial (one seed)."


def entries(results: RunResults) -> list[Entry]:
    """What any run gets: first its reported training, then all trainings."""
    evidence = Evidence(results)
    curves = cache(lambda: _curves(results))
    groups = cache(lambda: _groups(results))
    rows: list[tuple[str, str, str, Callable[[], Drawing | None]]] = [
        ("precision-recall", "Precision against recall", _REPORTED, lambda: _precision_recall(evidence)),
        ("training", "Accuracy and losses", _REPORTED, lambda: _training(evidence, curves())),
        ("timelines", "Scores of chosen test videos", _REPORTED, lambda: _timelines(evidence)),
        ("tsne", "Raw features and embeddings (t-SNE)", _REPORTED, lambda: _tsne(evidence)),
        (
            "selection-score",
            "Selection score over epochs",
            _ALL,
            lambda: _learning(results, groups(), curves(), "selection_score"),
        ),
        ("heldout-ap", "Held-out AP", _ALL, lambda: _learning(results, groups(), curves(), "heldout_ap")),
        ("test-ap", "Test AP", _ALL, lambda: _learning(results, groups(), curves(), "ap_trapezoid")),
        ("losses", "Losses", _ALL, lambda: _losses(results, groups(), curves())),
    ]
    return [Entry(name, title, group, make) for name, title, group, make in rows]


def _precision_recall(evidence: Evidence) -> Drawing:
    seeds = evidence.measured
    first = seeds[0]
    caption = (
        f"Frame-level precision against recall of {_reported(evidence)}; the dashed line is the share of violent "
        f"frames, which guessing reaches. {_basis(evidence, len(seeds), 'both AP definitions')}"
    )
    alt = (
        f"Precision falls as recall rises; AP {100 * first.ap_trapezoid:.2f} % trapezoidal, {100 * first.ap:.2f} % "
        f"step-wise, at {100 * first.positive.sum() / (first.frames * len(first.positive)):.1f} % violent frames."
    )
    return Drawing("Precision against recall", caption, alt, lambda: scorefigures.precision_recall(seeds))


def _training(evidence: Evidence, epochs: Curves) -> Drawing | None:
    results, trials = evidence.results, evidence.trials
    if not trials:
        return None
    groups = [Group(evidence.outcome.name, trials)]
    searched = _searched_winner(evidence)
    if searched is not None:
        groups.append(Group(f"trial {trial_name(searched)} in the search, with held-out videos", (searched,)))
    accuracy = {
        "published": "Accuracy: test videos whose prediction p > 0.5 is right.",
        "heldout": "Accuracy: held-out training videos whose prediction p > 0.5 is right.",
    }.get(results.protocol, "")
    if searched is not None:
        accuracy += " The refit has no held-out videos: the trial it repeats is drawn beside it."
    seeds = len(trials)
    caption = (
        f"Video-level accuracy and losses over epochs of {_reported(evidence)}, as Figure 4 of the paper shows them. "
        f"Losses: mean over an epoch's bags, before weighting by λ. {accuracy} "
        + basis(
            results,
            f"{seeds} seeds, thin lines, and their mean" if seeds > 1 else "one seed, no interval",
            protocol=trials[0]["protocol"],
            rule="every epoch",
        )
    )
    alt = f"Curves over {max(trial['epochs_run'] for trial in trials)} epochs of accuracy, BCE and contrastive loss."
    return Drawing(
        "Accuracy and losses (Figure 4 of the paper)", caption, alt, lambda: training_curves(groups, epochs)
    )


def _timelines(evidence: Evidence) -> Drawing | None:
    first = evidence.measured[0]
    lengths = evidence.store.videos("test").lengths
    videos = scorefigures.choose_timelines(first.scores, evidence.labels, lengths, first.frames)
    if not videos:
        return None
    caption = (
        "Snippet scores of test videos, frames labelled violent shaded. Chosen by rule, not by eye: of the videos with "
        "violent and other frames those of the highest, the median and the lowest AP of their own (step-wise), of the "
        "videos without violence those of the highest and the median peak. Seconds: "
        f"{first.frames} frames a snippet, {scorefigures.FRAMES_PER_SECOND:g} a second. "
        f"{_reported(evidence)[0].upper()}{_reported(evidence)[1:]}, seed {first.seed}. {_basis(evidence, 1)}"
    )
    alt = "; ".join(
        f"{video.why}{'' if video.ap is None else f' {100 * video.ap:.1f} %'}: {video.name}, scores from "
        f"{video.scores.min():.2f} to {video.scores.max():.2f}"
        for video in videos
    )
    return Drawing(
        "Scores of chosen test videos (as Figure 6 of the paper)",
        caption,
        f"{alt}.",
        lambda: scorefigures.timelines(videos, first.frames),
    )


def _tsne(evidence: Evidence) -> Drawing:
    sample = evidence.sample()
    layouts = {panel: tsne.project(rows) for panel, rows in sample.features.items()}
    violent, count = int(sample.violent.sum()), len(sample.violent)
    said = f"{count - violent} background and {violent} violent snippets"
    of = "all" if sample.videos < MOST_VIDEOS else "randomly chosen"
    caption = (
        f"t-SNE of raw features and of the embeddings by {_reported(evidence)}: {said}, drawn at random (seed 0) from "
        f"the first crop of {sample.videos} test videos ({of}); violent: more than half of a snippet's frames. "
        f"Settings: perplexity {tsne.perplexity(count):g}, {tsne.SETTINGS['max_iter']} iterations, PCA initialisation, "
        "seed 0; wider than 50, features are reduced to 50 principal components first. Distances between clusters mean "
        f"nothing. {_basis(evidence, 1, rule='last saved epoch')}"
    )
    alt = f"Four scatter plots of {said}: visual and audio, raw features and embeddings."
    return Drawing(
        "Raw features and embeddings (t-SNE, as Figure 5 of the paper)",
        caption,
        alt,
        lambda: tsne.draw(sample, layouts),
    )


def _learning(results: RunResults, groups: Sequence[Group], epochs: Curves, metric: str) -> Drawing:
    published = results.protocol == "published"
    title, caption, label, scale = {
        "selection_score": (
            "Selection score over epochs",
            "Running best of the test AP (trapezoidal), which flatters."
            if published
            else "Running best of the held-out score.",
            "selection score (best so far)",
            1.0,
        ),
        "heldout_ap": (
            "Held-out AP over epochs",
            "Video-level AP on the held-out training videos, step-wise definition.",
            "held-out AP, video level (%)",
            100.0,
        ),
        "ap_trapezoid": (
            "Test AP over epochs",
            "Frame-level test AP, trapezoidal (the published definition).",
            "test AP (%), trapezoidal",
            100.0,
        ),
    }[metric]
    caption = f"{caption} {_LINES} {basis(results, 'one seed a line, no interval', rule='every epoch')}"
    alt = f"{title}, a line for each of {sum(len(group.trials) for group in groups)} trials."
    return Drawing(title, caption, alt, lambda: figures.learning_curves(groups, epochs, metric, label, scale))


def _losses(results: RunResults, groups: Sequence[Group], epochs: Curves) -> Drawing:
    refits = [row for row in results.trials.to_pylist() if row["kind"] == "refit"]
    shown = [Group("refit of the winner", tuple(refits), refit=True)] if refits else []
    caption = (
        f"Mean over the epoch's bags, before weighting by λ. {_LINES}{' Black: the refit.' if refits else ''} "
        + basis(results, "one seed a line, no interval", rule="every epoch")
    )
    alt = f"Losses over epochs, a panel each, a line for each of {sum(len(group.trials) for group in groups)} trials."
    return Drawing("Losses over epochs", caption, alt, lambda: figures.losses([*shown, *groups], epochs))


def _groups(results: RunResults) -> list[Group]:
    """Rows of a sweep by mean score, or trials by rank; trials without a rank follow."""
    trials = [row for row in results.trials.to_pylist() if row["kind"] == "search"]
    if results.info.get("sweep"):
        rows = [row for row in trained_rows(sweep_rows(results)) if row.trials]
        return [
            Group(f"{row.title} ({plural(len(row.trials), 'seed')})", row.trials)
            for row in sorted(rows, key=lambda row: -_mean(row.estimate("selection_score")))
        ]
    ranks = {
        row["trial_dir"]: row["rank"] for row in leaderboard(results).to_pylist() if row["rank"] is not None
    }
    trials.sort(key=lambda row: ranks.get(row["trial_dir"], math.inf))
    return [
        Group(
            f"{ranks[row['trial_dir']]}: trial {trial_name(row)}"
            if row["trial_dir"] in ranks
            else trial_name(row),
            (row,),
        )
        for row in trials
    ]


def _searched_winner(evidence: Evidence) -> Trial | None:
    """The trial that a refit repeats; None for what is no refit."""
    return evidence.outcome.searched if evidence.trials[0]["kind"] == "refit" else None


def _curves(results: RunResults) -> Curves:
    curves: Curves = {}
    for row in results.epochs.to_pylist():
        curves.setdefault((row["kind"], row["trial_id"]), []).append(row)
    return curves


def _reported(evidence: Evidence) -> str:
    """The reported training in a sentence, and how it was picked."""
    name = evidence.outcome.name
    if evidence.trials[0]["kind"] == "refit":
        return name
    if evidence.outcome.row is not None and evidence.results.protocol == "published":
        return f"{name}, the best row by test AP, which flatters it"
    return f"{name}, the best by selection score"


def _basis(evidence: Evidence, seeds: int, definition: str = "", rule: str | None = None) -> str:
    first = evidence.trials[0]
    said = "one seed, no interval" if seeds == 1 else f"{seeds} seeds, a line each"
    text = "; ".join(part for part in (definition, said) if part)
    return basis(evidence.results, text, protocol=first["protocol"], rule=rule or first["epoch_rule"])


def _mean(figure: Estimate | None) -> float:
    return figure.mean if figure else -math.inf
