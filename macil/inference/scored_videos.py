"""Scores of many videos, each whole, from a store or from feature files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from macil.data.choosing import choose
from macil.data.pairing import EXPECTED, are_far_apart, axes_look_swapped, fit_audio
from macil.data.store.feature_store import FeatureStore
from macil.data.xd.annotations import SNIPPET_FRAMES
from macil.data.xd.arrays import ArrayError
from macil.data.xd.feature_files import FeatureFiles, VideoFiles, header_faults, load_finite, stack_crops
from macil.errors import DataError
from macil.evaluation.whole_videos import require_widths, score_videos
from macil.io.progress import Advance, show_progress
from macil.model import TwoStreamNetwork

# Fewer are scored before anybody asks how far it is.
_WORTH_A_BAR = 20


@dataclass(frozen=True)
class ScoredVideos:
    """Snippet scores by video: `lengths` (V,) snippets of each, `scores` (sum of lengths,) float32.

    `audio_lengths` (V,) rows of audio of each: those beyond its snippets were cut, those missing were zeros. None: as
    many as snippets.

    Raises:
        DataError: These do not fit each other.
    """

    names: tuple[str, ...]
    lengths: np.ndarray
    scores: np.ndarray
    snippet_frames: int
    audio_lengths: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse what `__iter__` would cut in silence."""
        if len(self.names) != len(self.lengths) or self.lengths.sum() != len(self.scores):
            raise DataError(
                f"{len(self.names)} names and {len(self.lengths)} lengths, {self.lengths.sum()} snippets in all, for "
                f"{len(self.scores)} scores; expected a length a name and a score a snippet"
            )

    @property
    def audio_gaps(self) -> np.ndarray:
        """(V,) rows that were cut from the audio of each video; less than zero: rows of zeros that were added."""
        rows = self.lengths if self.audio_lengths is None else self.audio_lengths
        return rows - self.lengths

    def count_audio(self) -> dict[str, int]:
        """Rows of audio that were cut and filled, and of how many videos, as they stand in `segments.json`."""
        gaps = self.audio_gaps
        return {
            "rows_cut": int(gaps[gaps > 0].sum()),
            "videos_cut": int((gaps > 0).sum()),
            "rows_filled": -int(gaps[gaps < 0].sum()),
            "videos_filled": int((gaps < 0).sum()),
        }

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name and snippet scores (T,) of every video."""
        return zip(self.names, np.split(self.scores, np.cumsum(self.lengths)[:-1]), strict=True)


def score_store(
    network: TwoStreamNetwork,
    store: FeatureStore,
    split: Literal["train", "test"],
    names: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> ScoredVideos:
    """Score videos of a split of a store, in the order of `names`, or all of them.

    Raises:
        DataError: Other widths than the network reads, or names that the split does not have.
    """
    require_widths(network, store)
    videos = store.videos(split)
    chosen = np.array(choose(names, videos.names, f"the {split} videos of {store.path}"), np.int64)
    with _progress(len(chosen)) as advance:
        scores = score_videos(network, store, videos, chosen, device, advance)
    picked = tuple(videos.names[i] for i in chosen)
    found = ScoredVideos(
        picked,
        videos.lengths[chosen],
        scores.snippets,
        store.snippet_frames,
        videos.audio_lengths[chosen],
    )
    return _sound(found, lambda _: str(store.path))


def score_files(
    network: TwoStreamNetwork,
    files: FeatureFiles,
    snippet_frames: int = SNIPPET_FRAMES,
    *,
    fill_audio: bool = False,
) -> ScoredVideos:
    """Score videos from their files, one at a time in memory, on the network's device.

    Every file is looked at, whatever is wrong with another; with a fault nothing is scored.

    Args:
        network: In evaluation mode.
        files: The files.
        snippet_frames: Frames of a snippet.
        fill_audio: Cut audio of any length, or fill it with zeros; else at most a row.

    Raises:
        DataError: Names everything that is wrong: `files.problems`, headers, values.
    """
    widths = network.fc_v.in_features, network.fc_a.in_features
    faults: dict[Path, str] = {}
    for video in files.videos:
        faults |= header_faults(video, *widths, fill_audio=fill_audio)
    scores, audio_lengths = [], []
    with _progress(len(files.videos)) as advance:
        for video in files.videos:
            arrays = _load(video, faults)
            if not (faults or files.problems):
                visual, audio = stack_crops(video, arrays), arrays[video.audio]
                scores.append(score_arrays(network, visual, audio, fill_audio=fill_audio))
                audio_lengths.append(len(audio))
            advance(1)
    problems = [*files.problems, *(f"{path}: {reason}" for path, reason in faults.items())]
    if problems:
        raise DataError("these features cannot be scored:", problems)
    lengths = np.array([len(each) for each in scores], np.int64)
    names = tuple(video.name for video in files.videos)
    found = ScoredVideos(
        names, lengths, np.concatenate(scores), snippet_frames, np.array(audio_lengths, np.int64)
    )
    paths = {video.name: str(video.visual[0]) for video in files.videos}
    return _sound(found, paths.__getitem__)


@torch.inference_mode()
def score_arrays(
    network: TwoStreamNetwork, visual: np.ndarray, audio: np.ndarray, *, fill_audio: bool = False
) -> np.ndarray:
    """Snippet scores (T,) float32 of one video by the test rule, without a store.

    Args:
        network: In evaluation mode; the arrays go to its device.
        visual: (crops, T, Dv) float32.
        audio: (T, Da) float32; a row too many or too few is cut or zero.
        fill_audio: Cut audio of any length, or fill it with zeros.

    Raises:
        DataError: Other shapes than these; says which.
    """
    _require_pair(network, visual.shape, audio.shape, fill_audio)
    crops, length, _ = visual.shape
    weight = network.fc_v.weight
    sizes = torch.full((crops,), length, device=weight.device)
    fitted = np.empty((length, audio.shape[1]), audio.dtype)
    fit_audio(audio, fitted)
    both = [torch.from_numpy(x).to(weight.device, weight.dtype) for x in (visual, fitted)]
    logits = network.snippet_logits(both[0], both[1].expand(crops, -1, -1), sizes).float()
    return torch.sigmoid(logits).mean(0).cpu().numpy()


def _require_pair(
    network: TwoStreamNetwork, visual: tuple[int, ...], audio: tuple[int, ...], fill_audio: bool
) -> None:
    widths = network.fc_v.in_features, network.fc_a.in_features
    shapes = f"visual features of shape {visual} and audio of shape {audio}"
    if len(visual) != 3 or len(audio) != 2 or (visual[2], audio[1]) != widths or 0 in (*visual, *audio):
        raise DataError(
            f"{shapes}; expected (crops, snippets, {widths[0]}) and (snippets, {widths[1]}), none of them empty"
        )
    if axes_look_swapped(visual, audio[0], fill_audio=fill_audio):
        raise DataError(
            f"{shapes}: the axes look like (snippets, crops, features); expected (crops, snippets, features)"
        )
    if are_far_apart(visual[1], audio[0]) and not fill_audio:
        raise DataError(
            f"{shapes}: {visual[1]} snippets and {audio[0]} rows of audio; {EXPECTED}, or fill_audio=True"
        )


def _sound(scored: ScoredVideos, where: Callable[[str], str]) -> ScoredVideos:
    bad = [name for name, scores in scored if not np.isfinite(scores).all()]
    if bad:
        raise DataError(
            "the network gives scores that are no finite numbers: it diverged, or the features are damaged, of:",
            [f"{name} ({where(name)})" for name in bad],
        )
    return scored


def _load(video: VideoFiles, faults: dict[Path, str]) -> dict[Path, np.ndarray]:
    """The arrays of the files without a fault; new faults go into `faults`."""
    arrays = {}
    for path in video.files:
        if path not in faults:
            try:
                arrays[path] = load_finite(path)
            except ArrayError as error:
                faults[path] = str(error)
    return arrays


def _progress(count: int) -> AbstractContextManager[Advance]:
    return show_progress("scoring", count, "videos", enabled=count >= _WORTH_A_BAR)
