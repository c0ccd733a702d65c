"""Which held-out figure predicts the test AP of a trial best, and so should be the selection metric of a search.

For each data set a search's configurations, the paper's point first and then random ones from the search space, are
trained to the end under the heldout protocol. Every epoch the candidates are computed on the held-out videos, and the
test AP beside them: the labels of these data sets are there to be read, those of a user's never take part. A search
that selects by a candidate reports each trial at the candidate's best epoch and chooses the trial of the best value.
So, for each candidate: the rank correlation over the trials of its best value with the test AP at that epoch, what the
chosen trial's AP is against the mean and the best of all trials at their last epochs, and how many trials tie at the
top. Trainings are appended to RESULTS as they end; a second call does the missing ones.

    python -m benchmarks.selection_metric selection.jsonl --data DEMO --data REAL-AV
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.table import Table
from scipy import stats
from sklearn.metrics import roc_auc_score

from benchmarks.common import describe_machine, finish, json_option, machine_line, make_table
from benchmarks.curves.sets import configurations
from macil.config import TrialConfig
from macil.data.opening import resolve
from macil.data.store.feature_store import FeatureStore
from macil.errors import DivergedError, MacilError
from macil.evaluation.average_precision import frame_average_precision
from macil.evaluation.heldout import assess_heldout
from macil.evaluation.whole_videos import VideoScores, score_whole, shared_videos
from macil.training.trainer import Trainer

TEST_AP = "ap_trapezoid"


def candidates(scores: VideoScores, lengths: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Candidates for the selection metric, each larger for better.

    Args:
        scores: Of the held-out videos.
        lengths: (V,) snippets of each.
        labels: (V,) 0 or 1.
    """
    predictions = np.clip(scores.videos, 1e-12, 1 - 1e-12)
    violent = labels == 1
    found = assess_heldout(predictions, labels)
    logits = np.log(predictions) - np.log1p(-predictions)
    spread = math.sqrt((logits[violent].var() + logits[~violent].var()) / 2 + 1e-12)
    return {
        "video AP": found.ap,
        "video AUC": float(roc_auc_score(labels, predictions)),
        "-loss": -found.loss,
        "margin of p": float(predictions[violent].mean() - predictions[~violent].mean()),
        "margin of logits": float((logits[violent].mean() - logits[~violent].mean()) / spread),
        "snippet AP, labels of videos": frame_average_precision(
            scores.snippets, np.repeat(labels, lengths), snippet_frames=1
        ).ap,
        "video AP and exp(-loss)": (found.ap + math.exp(-found.loss)) / 2,
    }


@dataclass(frozen=True)
class Task:
    """One training of the study."""

    data: str
    number: int
    config: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, int, str]:
        """What makes it that one."""
        return self.data, self.number, json.dumps(self.config, sort_keys=True)


def trial_configurations(base: TrialConfig, count: int, search_seed: int) -> list[TrialConfig]:
    """The paper's point, then random ones of the search space, each with a seed of its own."""
    found = configurations(base, count, search_seed)
    return [config.replace(seed=number) for number, config in enumerate(found)]


def train(task: Task) -> dict[str, Any]:
    """Train one configuration; candidates and test AP of every epoch. A diverged training ends early."""
    torch.set_num_threads(1)
    store = FeatureStore.open(task.data)
    trainer = Trainer(TrialConfig(**task.config), store, protocol="heldout", device="cpu", threads=1)
    assert trainer.split is not None
    videos = store.videos("train")
    names = set(trainer.split.heldout)
    chosen = np.array([index for index, name in enumerate(videos.names) if name in names], np.int64)
    heldout = shared_videos(store, videos, chosen, torch.device("cpu"))
    assert videos.labels is not None
    labels, frame_labels = videos.labels[chosen], store.test_labels().frame_labels
    epochs = []
    while not trainer.finished:
        try:
            trainer.train_epoch()
        except DivergedError:
            break
        scores = score_whole(trainer.network, heldout)
        test = frame_average_precision(trainer.test_scores["last"], frame_labels, store.snippet_frames)
        epochs.append({**candidates(scores, videos.lengths[chosen], labels), TEST_AP: test.ap_trapezoid})
    return {"data": task.data, "number": task.number, "config": dict(task.config), "epochs": epochs}


def judge(trainings: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """What each candidate would have done in a search whose trials are `trainings`."""
    curves = [training["epochs"] for training in trainings if training["epochs"]]
    names = [name for name in curves[0][0] if name != TEST_AP]
    last = np.array([curve[-1][TEST_AP] for curve in curves])
    judged = {}
    for name in names:
        values = [np.array([epoch[name] for epoch in curve]) for curve in curves]
        chosen = [int(value.argmax()) for value in values]
        best = np.array([value.max() for value in values])
        ap = np.array([curve[epoch][TEST_AP] for curve, epoch in zip(curves, chosen, strict=True)])
        constant = np.ptp(best) == 0 or np.ptp(ap) == 0
        judged[name] = {
            "spearman": math.nan if constant else float(stats.spearmanr(best, ap).statistic),
            "kendall": math.nan if constant else float(stats.kendalltau(best, ap).statistic),
            "winner": float(ap[best.argmax()]),
            "mean_at_chosen": float(ap.mean()),
            "mean_at_last": float(last.mean()),
            "best_at_last": float(last.max()),
            "ties": int((best == best.max()).sum()),
            "trials": len(curves),
        }
    return judged


def read(results: Path) -> list[dict[str, Any]]:
    """The trainings that have ended."""
    if not results.exists():
        return []
    lines = results.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


# --- command --------------------------------------------------------------------------------------------------


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--data", multiple=True, help="A store, or a folder in the XD-Violence layout.  [default: the demo]"
)
@click.option("--trials", type=click.IntRange(3), default=16, show_default=True, help="Of each data set.")
@click.option("--epochs", type=click.IntRange(1), default=16, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@json_option
def main(
    results: Path,
    data: tuple[str, ...],
    trials: int,
    epochs: int,
    batch_size: int,
    processes: int,
    json_path: Path | None,
) -> None:
    """Train what is missing, judge, print."""
    base = TrialConfig(epochs=epochs, batch_size=batch_size)
    try:
        stores = [str(resolve(each).path) for each in (data or (None,))]
    except MacilError as error:
        raise click.ClickException(str(error)) from None
    tasks = [
        Task(store, number, config.to_dict())
        for index, store in enumerate(stores)
        for number, config in enumerate(trial_configurations(base, trials, index))
    ]
    wanted = {task.key for task in tasks}
    _train_missing(results, tasks, processes)
    done = [one for one in read(results) if Task(one["data"], one["number"], one["config"]).key in wanted]
    judged = {store: judge([one for one in done if one["data"] == store]) for store in stores}
    machine = describe_machine()
    remarks = [machine_line(machine), *_remarks(judged)]
    finish([_table(judged)], remarks, {"machine": machine, "judged": judged}, json_path)


def _train_missing(results: Path, tasks: Sequence[Task], processes: int) -> None:
    known = {Task(one["data"], one["number"], one["config"]).key for one in read(results)}
    missing = [task for task in tasks if task.key not in known]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train, task) for task in missing]
        for count, future in enumerate(as_completed(futures), start=1):
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(future.result()) + "\n")
            click.echo(f"{count}/{len(missing)} trainings", err=True)


def _table(judged: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    table = make_table(
        "Candidates for the selection score, means over the data sets: Spearman's ρ and Kendall's τ with the test AP,\n"
        "test AP (%) of the trial chosen, what that is above the mean of all trials at their last epochs",
        ["candidate"],
        ["ρ", "least\nρ", "τ", "AP", "gain", "ties"],
    )
    for name in next(iter(judged.values())):
        rows = [found[name] for found in judged.values()]
        spearman = [row["spearman"] for row in rows]
        table.add_row(
            name,
            f"{np.mean(spearman):+.2f}",
            f"{np.min(spearman):+.2f}",
            f"{np.mean([row['kendall'] for row in rows]):+.2f}",
            f"{100 * np.mean([row['winner'] for row in rows]):.1f}",
            f"{100 * np.mean([row['winner'] - row['mean_at_last'] for row in rows]):+.1f}",
            f"{np.mean([row['ties'] for row in rows]):.1f}",
        )
    return table


def _remarks(judged: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    for store, found in judged.items():
        each = ", ".join(f"{name} {row['spearman']:+.2f}" for name, row in found.items())
        first = next(iter(found.values()))
        yield (
            f"{Path(store).name}: {first['trials']} trials; at the last epoch {100 * first['mean_at_last']:.1f} % "
            f"on average, {100 * first['best_at_last']:.1f} % at best. Spearman: {each}"
        )


if __name__ == "__main__":
    main()
