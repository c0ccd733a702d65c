"""`python -m macil evaluate` and `score`: what a trained network says of videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from macil.checkpoint import load_checkpoint, load_network
from macil.data.resolve import resolve
from macil.data.store import FeatureStore
from macil.device import choose_device
from macil.errors import DataError, UsageError
from macil.evaluation import frame_average_precision
from macil.files import atomic_path
from macil.model import TwoStreamNetwork
from macil.released import load_released
from macil.scoring import score_videos

_CHECKPOINT = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint", type=_CHECKPOINT)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--released", is_flag=True, help="CHECKPOINT is a weight file of the authors' code.")
@click.option("--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(checkpoint: Path, data: Path, released: bool, device: str, as_json: bool) -> None:
    """Frame-level average precision of CHECKPOINT on the test videos of DATA."""
    network, origin = _load(checkpoint, released)
    store = _fitting(resolve(data), network, checkpoint)
    labels = store.test_labels()
    target = choose_device(device)
    scores = score_videos(network.to(target), store, store.videos("test"), device=target)
    ap = frame_average_precision(scores.snippets, labels.frame_labels, store.snippet_frames)
    accuracy = float(np.mean((scores.videos > 0.5) == labels.video_labels))
    found: dict[str, Any] = {
        **ap._asdict(),
        "video_accuracy": accuracy,
        "videos": len(labels.names),
        "snippets": len(scores.snippets),
        "positive_frame_rate": float(labels.frame_labels.mean()),
        **origin,
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"AP (step-wise)      {ap.ap!r}")
    click.echo(f"AP (trapezoidal)    {ap.ap_trapezoid!r}   the published definition")
    click.echo(f"video accuracy      {accuracy:.4f}")
    click.echo(f"positive frame rate {found['positive_frame_rate']:.4f}   the AP of random scores")
    click.echo(f"{found['videos']} test videos, {found['snippets']} snippets; " + _words(origin))


@click.command()
@click.argument("checkpoint", type=_CHECKPOINT)
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--split", "part", type=click.Choice(["test", "train"]), default="test", show_default=True)
@click.option("--released", is_flag=True, help="CHECKPOINT is a weight file of the authors' code.")
@click.option("--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), show_default=True)
def score(checkpoint: Path, data: Path, out: Path, part: str, released: bool, device: str) -> None:
    """Write a score for every snippet of DATA to OUT (.parquet or .csv): video, snippet, first and end frame, score.

    Labels are not read.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise UsageError(f"OUT must end in .parquet or .csv, not {out.name!r}")
    network, _ = _load(checkpoint, released)
    store = _fitting(resolve(data), network, checkpoint)
    target = choose_device(device)
    videos = store.videos("train" if part == "train" else "test")
    scores = score_videos(network.to(target), store, videos, device=target)
    snippet = np.concatenate([np.arange(length) for length in videos.lengths] or [np.arange(0)])
    table = pa.table(
        {
            "video": np.repeat(np.array(videos.names, dtype=object), videos.lengths),
            "snippet": snippet,
            "first_frame": snippet * store.snippet_frames,
            "end_frame": (snippet + 1) * store.snippet_frames,
            "score": scores.snippets,
        }
    )
    with atomic_path(out) as temporary:
        if out.suffix == ".csv":
            pa.csv.write_csv(table, temporary)
        else:
            pa.parquet.write_table(table, temporary)
    click.echo(f"wrote {table.num_rows} snippet scores of {len(videos.names)} videos to {out}")


def _load(checkpoint: Path, released: bool) -> tuple[TwoStreamNetwork, dict[str, Any]]:
    if released:
        return load_released(checkpoint).eval(), {"checkpoint": str(checkpoint), "origin": "released weights"}
    state = load_checkpoint(checkpoint)
    record = state["record"]
    return load_network(checkpoint), {
        "checkpoint": str(checkpoint),
        "epoch": state["epoch"],
        "protocol": record["protocol"],
        "seed": record["config"]["seed"],
    }


def _fitting(store: FeatureStore, network: TwoStreamNetwork, checkpoint: Path) -> FeatureStore:
    wanted = (network.fc_v.in_features, network.fc_a.in_features)
    if wanted != (store.visual_dim, store.audio_dim):
        raise DataError(
            f"{checkpoint} reads visual features of width {wanted[0]} and audio of {wanted[1]}; "
            f"{store.path} has {store.visual_dim} and {store.audio_dim}"
        )
    return store


def _words(origin: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in origin.items())
