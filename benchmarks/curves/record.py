"""Record the trainings that are missing.

    python -m benchmarks.curves [SET ...]

The first seeds of all sets come first, so that a recording is of use before it is complete. A training is written when
it ends; a recording that was interrupted, by whatever, goes on where it was.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.curves.recording import (
    FIGURES,
    SCHEMA,
    TRAIN_EPOCHS,
    About,
    logits,
    read_about,
    row_of,
    write,
)
from benchmarks.curves.sets import RecordedSet, recorded_sets
from macil.config import TrialConfig
from macil.data.split import Split, make_split
from macil.data.store.feature_store import FeatureStore
from macil.errors import DivergedError
from macil.evaluation.average_precision import frame_average_precision
from macil.evaluation.protocols import Protocol
from macil.evaluation.whole_videos import WholeVideos, shared_videos
from macil.io.files import atomic_path
from macil.model import TwoStreamNetwork
from macil.model.pooling import k_max_mean
from macil.training.trainer import Trainer

# So many trainings are merged into the recording at once.
_MERGED = 66


@dataclass(frozen=True)
class Task:
    """One training, to be written to `part`."""

    store: str
    protocol: Protocol
    number: int
    config: TrialConfig
    varied: Mapping[str, Any]
    split_seed: int | None
    part: Path


def train(task: Task) -> str:
    """Train on one thread, and write the row; what it came to, in words."""
    torch.set_num_threads(1)
    started = time.process_time()
    store = FeatureStore.open(task.store)
    trainer = Trainer(
        task.config,
        store,
        protocol=task.protocol,
        split_seed=task.split_seed or 0,
        device="cpu",
        threads=1,
    )
    error, figures, scores = None, [], []
    try:
        while not trainer.finished:
            trainer.train_epoch()
            figures.append(_figures(trainer, store))
            scores.append(_scores(trainer, store))
    except DivergedError as diverged:
        error = str(diverged)
    row = row_of(
        {
            "number": task.number,
            "seed": task.config.seed,
            "split_seed": task.split_seed,
            "config": json.dumps(task.varied),
            "epochs": len(figures),
            "error": error,
            "seconds": time.process_time() - started,
            **_columns(figures, scores),
        }
    )
    with atomic_path(task.part) as partial:
        pq.write_table(pa.Table.from_pylist([row], schema=SCHEMA), partial)
    reached = f"AP {100 * row['ap'][-1]:.1f}" if figures else "nothing"
    return f"configuration {task.number}, seed {task.config.seed}: {reached}, {row['seconds']:.1f} s of CPU"


def _figures(trainer: Trainer, store: FeatureStore) -> dict[str, Any]:
    figures = {name: trainer.history[-1][name] for name in FIGURES}
    if trainer.protocol == "heldout":
        labels = store.test_labels().frame_labels
        test = frame_average_precision(trainer.test_scores["last"], labels, store.snippet_frames)
        figures |= {"ap": test.ap, "ap_trapezoid": test.ap_trapezoid}
    return figures


def _scores(trainer: Trainer, store: FeatureStore) -> dict[str, np.ndarray]:
    if trainer.protocol == "published":
        return {"test": logits(trainer.test_scores["last"])}
    split = trainer.split
    assert split is not None
    part = store.videos("train")
    chosen = _places(split, part.names)
    scores = {
        "heldout": logits(
            crop_predictions(trainer.network, shared_videos(store, part, chosen, trainer.device))
        )
    }
    if trainer.epoch > trainer.config.epochs - TRAIN_EPOCHS:
        others = np.setdiff1d(np.arange(len(part)), chosen)
        predicted = crop_predictions(trainer.network, WholeVideos(store, part, others, trainer.device))
        scores["trained"] = logits(predicted.mean(1))
    return scores


@torch.inference_mode()
def crop_predictions(network: TwoStreamNetwork, videos: WholeVideos) -> np.ndarray:
    """(V, crops) the video-level prediction of each crop; their mean is that of `score_whole`."""
    found = torch.zeros(len(videos), videos.crops, dtype=torch.float64)
    network.eval()
    for group in videos.groups():
        sizes = group.sizes.repeat_interleave(videos.crops)
        audio = group.audio.float().repeat_interleave(videos.crops, 0)
        whole = torch.sigmoid(
            k_max_mean(network.snippet_logits(group.visual.float(), audio, sizes), sizes).double()
        )
        found[group.videos] = whole.unflatten(0, (-1, videos.crops))
    network.train()
    return found.numpy()


def _columns(
    figures: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name in FIGURES:
        values = [each[name] for each in figures]
        if any(value is not None for value in values):
            columns[name] = values
    for name in ("test", "heldout", "trained"):
        kept = [each[name].ravel() for each in scores if name in each]
        if kept:
            columns[name] = np.concatenate(kept)
    return columns


def _places(split: Split, names: Sequence[str]) -> np.ndarray:
    heldout = set(split.heldout)
    return np.array([place for place, name in enumerate(names) if name in heldout], np.int64)


def about(recorded: RecordedSet, store: FeatureStore) -> About:
    """What the trainings of a set share."""
    test, train, labels = store.videos("test"), store.videos("train"), store.test_labels()
    assert train.labels is not None
    splits = range(recorded.splits) if recorded.protocol == "heldout" else ()
    numbers = {source: number for number, source in enumerate(dict.fromkeys(test.sources))}
    return About(
        store_hash=store.content_hash,
        protocol=recorded.protocol,
        base=recorded.base.to_dict(),
        searched=list(recorded.space),
        chance=labels.violent_share,
        test_lengths=test.lengths.tolist(),
        test_sources=[numbers[source] for source in test.sources],
        test_positive=labels.frame_labels.reshape(-1, store.snippet_frames).sum(1).tolist(),
        snippet_frames=store.snippet_frames,
        train_labels=train.labels.tolist(),
        heldout={str(seed): _places(make_split(store, seed=seed), train.names).tolist() for seed in splits},
        crops=train.crops,
        versions={"torch": str(torch.__version__), "numpy": np.__version__},
    )


def missing(recorded: RecordedSet, shared: About, store: FeatureStore, seeds: int) -> Iterator[Task]:
    """What is neither in the recording nor in its parts."""
    known = {tuple(map(int, part.stem.split("-"))) for part in _parts(recorded).glob("*.parquet")}
    if recorded.file.is_file():
        there = pq.read_table(recorded.file, columns=["number", "seed"]).to_pylist()
        known |= {(row["number"], row["seed"]) for row in there}
    for seed in range(min(seeds, recorded.seeds)):
        for number, config in enumerate(recorded.configurations):
            if (number, seed) not in known:
                yield Task(
                    store=str(store.path),
                    protocol=recorded.protocol,
                    number=number,
                    config=config.replace(seed=seed),
                    varied={name: getattr(config, name) for name in shared.searched},
                    split_seed=seed % recorded.splits if recorded.protocol == "heldout" else None,
                    part=_parts(recorded) / f"{number}-{seed}.parquet",
                )


def merge(recorded: RecordedSet, shared: About) -> None:
    """Take the parts into the recording."""
    parts = sorted(_parts(recorded).glob("*.parquet"))
    if parts:
        older = [recorded.file] if recorded.file.is_file() else []
        write(recorded.file, shared, [pq.read_table(path) for path in (*older, *parts)])
        for path in parts:
            path.unlink()


def _parts(recorded: RecordedSet) -> Path:
    return recorded.file.with_suffix(".parts")


@click.command(help=__doc__)
@click.argument("names", nargs=-1, metavar="[SET]...")
@click.option(
    "--seeds", type=click.IntRange(1), default=12, show_default=True, help="The first ones of each set."
)
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
def main(names: tuple[str, ...], seeds: int, processes: int) -> None:
    """Train what is missing, seed by seed."""
    known = recorded_sets()
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"no such set: {', '.join(unknown)}; there are {', '.join(known)}")
    tasks: list[tuple[RecordedSet, Task]] = []
    shared: dict[str, About] = {}
    for recorded in (known[name] for name in names or known):
        store = recorded.data()
        shared[recorded.name] = about(recorded, store)
        _require_same(recorded, shared[recorded.name])
        _parts(recorded).mkdir(parents=True, exist_ok=True)
        merge(recorded, shared[recorded.name])
        tasks += [(recorded, task) for task in missing(recorded, shared[recorded.name], store, seeds)]
    tasks.sort(key=lambda pair: pair[1].config.seed)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(train, task): recorded for recorded, task in tasks}
        try:
            for count, future in enumerate(as_completed(futures), start=1):
                recorded = futures[future]
                click.echo(
                    f"{time.strftime('%X')} {count}/{len(tasks)} {recorded.name} {future.result()}", err=True
                )
                if count % _MERGED == 0:
                    merge(recorded, shared[recorded.name])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for name in shared:
        merge(known[name], shared[name])
        _parts(known[name]).rmdir()


def _require_same(recorded: RecordedSet, shared: About) -> None:
    if recorded.file.is_file():
        before, now = asdict(read_about(recorded.file)), asdict(shared)
        if other := [name for name in now if json.loads(json.dumps(now[name])) != before[name]]:
            raise click.ClickException(
                f"{recorded.file} was recorded with another {', '.join(other)}; delete it to begin anew"
            )
