"""What `python -m macil evaluate` and `score` do: what a trained network says of videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from macil.commands.cli import echo, given_reading
from macil.data.ground_truth import truth_of_layout, truth_of_store
from macil.data.opening import resolve
from macil.data.origin import DEMO_NOTE, is_demo_data
from macil.data.store.feature_store import FeatureStore, looks_like_store
from macil.data.xd.annotations import SNIPPET_FRAMES
from macil.data.xd.feature_files import videos_of_files, videos_of_folder
from macil.data.xd.layout import require_layout
from macil.errors import UsageError
from macil.evaluation.labelled import evaluate_network
from macil.inference.loading import load_trained
from macil.inference.score_folder import check_target, write_folder
from macil.inference.score_tables import TableFormat
from macil.inference.scored_videos import ScoredVideos, score_files, score_store
from macil.inference.segments import SegmentRule
from macil.io.wording import plural
from macil.model import TwoStreamNetwork
from macil.training.device import choose_device


def run_evaluate(
    checkpoint: Path,
    data: Path | str,
    *,
    released: bool,
    num_heads: int | None,
    device: str,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    """Print the average precision of `checkpoint`; see `macil.commands.scoring.evaluate`."""
    network, file, known = load_trained(checkpoint, released=released, num_heads=num_heads)
    origin = {"checkpoint": str(file), **known}
    store = resolve(data, reading=given_reading(options), part="test", progress=True)
    target = choose_device(device)
    measured = evaluate_network(network.to(target), store, target, name=str(file))
    found: dict[str, Any] = {
        **measured._asdict(),
        "demo": is_demo_data(store.path),
        "data_notes": list(store.notes),
        "label_notes": list(store.label_notes),
        **origin,
    }
    if as_json:
        echo(json.dumps(found, indent=2), keep="\n")
        return
    echo(f"AP (step-wise)      {measured.ap!r}")
    echo(f"AP (trapezoidal)    {measured.ap_trapezoid!r}   the published definition")
    echo(f"video accuracy      {measured.video_accuracy:.4f}")
    echo(f"positive frame rate {measured.positive_frame_rate:.4f}   the AP of random scores")
    echo(f"{measured.videos} test videos, {measured.snippets} snippets; " + _words(origin))
    for each in [*store.notes, *store.label_notes]:
        echo(f"note: {each}")
    if found["demo"]:
        echo(DEMO_NOTE)


def run_score(checkpoint: Path, features: tuple[Path, ...], out: Path, options: dict[str, Any]) -> None:
    """Write the scores of `features` into the folder `out`; see `macil.commands.scoring.score`."""
    choice = _Choice(
        options["split"],
        options["names"],
        options["snippet_frames"],
        with_labels=options["labels"],
        fill_audio=options["fill_audio"],
    )
    check_target(out, overwrite=options["overwrite"])
    network, file, known = load_trained(
        checkpoint, released=options["released"], num_heads=options["num_heads"]
    )
    target = choose_device(options["device"])
    scored, truth = _score(network.to(target), features, choice, target)
    rule = SegmentRule(
        options["threshold"],
        options["fps"],
        scored.snippet_frames,
        options["min_seconds"],
        options["merge_seconds"],
    )
    formats: list[TableFormat] = list(dict.fromkeys(options["formats"]))
    written = write_folder(
        scored,
        rule,
        out,
        formats=formats,
        pictures=options["pictures"],
        truth=truth,
        origin={"checkpoint": str(file), **known},
    )
    echo(
        f"wrote {out}: {plural(len(scored.names), 'video')}, {plural(written.snippets, 'snippet')}, "
        f"{plural(written.frames, 'frame')}; {plural(written.segments, 'violent segment')} in "
        f"{plural(written.violent_videos, 'video')}; {plural(written.pictures, 'timeline')}"
    )
    audio = scored.count_audio()
    for done in ("cut", "filled"):
        if rows := audio[f"rows_{done}"]:
            videos = plural(audio[f"videos_{done}"], "video")
            how = "cut from the audio" if done == "cut" else "of zeros added to the audio"
            echo(f"{plural(rows, 'row')} {how} of {videos}, to be as long as the visual features")


class _Choice(NamedTuple):
    """The options that choose and describe the features to score."""

    split: Literal["train", "test"] | None
    names: tuple[str, ...]
    snippet_frames: int | None
    with_labels: bool
    fill_audio: bool


def _score(
    network: TwoStreamNetwork, features: tuple[Path, ...], choice: _Choice, device: torch.device
) -> tuple[ScoredVideos, dict[str, np.ndarray] | None]:
    folders = [path for path in features if path.is_dir()]
    if folders and len(features) > 1:
        raise UsageError(f"{folders[0]} is a data folder; give it alone, or .npy files only")
    if folders:
        return _score_folder(network, folders[0], choice, device)
    given = {"--split": choice.split, "--video": choice.names, "--labels": choice.with_labels}
    if wrong := [name for name, value in given.items() if value]:
        raise UsageError(f"{', '.join(wrong)}: for a data folder only, not for {features[0]}")
    frames = choice.snippet_frames or SNIPPET_FRAMES
    return score_files(network, videos_of_files(features), frames, fill_audio=choice.fill_audio), None


def _score_folder(
    network: TwoStreamNetwork, folder: Path, choice: _Choice, device: torch.device
) -> tuple[ScoredVideos, dict[str, np.ndarray] | None]:
    split = choice.split or "test"
    if choice.with_labels and split == "train":
        raise UsageError("--labels needs --split test: training videos have no frame labels")
    if looks_like_store(folder):
        return _score_store(network, FeatureStore.open(folder), split, choice, device)
    require_layout(folder)
    files = videos_of_folder(folder, split, choice.names)
    frames = choice.snippet_frames or SNIPPET_FRAMES
    scored = score_files(network, files, frames, fill_audio=choice.fill_audio)
    if not choice.with_labels:
        return scored, None
    lengths = dict(zip(scored.names, scored.lengths.tolist(), strict=True))
    return scored, truth_of_layout(folder, lengths, frames)


def _score_store(
    network: TwoStreamNetwork,
    store: FeatureStore,
    split: Literal["train", "test"],
    choice: _Choice,
    device: torch.device,
) -> tuple[ScoredVideos, dict[str, np.ndarray] | None]:
    if choice.snippet_frames not in (None, store.snippet_frames):
        raise UsageError(
            f"--snippet-frames {choice.snippet_frames}: the store {store.path} has {store.snippet_frames}; "
            "leave the option out"
        )
    if choice.fill_audio:
        raise UsageError(
            f"--fill-audio: the audio in the store {store.path} fits already; leave the option out"
        )
    truth = truth_of_store(store) if choice.with_labels else None
    return score_store(network, store, split, choice.names, device), truth


def _words(origin: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in origin.items())
