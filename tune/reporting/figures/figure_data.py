"""Figure data of one training beyond the tables: its test scores, the labels, features and embeddings.

Test labels are read here only where they are no secret any more: under `published`, whose trainings read them every
epoch, and of trainings whose scores have been measured at a logged label access (`tune.results.label_access`).
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from macil.data.pairing import fit_audio
from macil.data.store.feature_store import FeatureStore, TestLabels
from macil.errors import DataError
from macil.evaluation.average_precision import frame_average_precision
from macil.evaluation.protocols import CLOSED_PROTOCOLS
from macil.training.checkpoint import load_network
from macil.training.files import newest_checkpoint
from tune.reporting.figures.captions import basis
from tune.reporting.statistics.outcome import find_outcome
from tune.results.measured import read_measured
from tune.results.rows import TrialRow
from tune.results.run import RunResults
from tune.results.trial_folder import newest_scores
from tune.storage.names import SCORES_FILE, TRAINER_FILE
from tune.storage.score_file import read_scores

# Snippets of the t-SNE, and test videos that they are drawn from: bounds on what a picture may cost.
MOST_SNIPPETS, MOST_VIDEOS = 800, 200


class SeedScores(NamedTuple):
    """Scores of all test snippets by one training, with the labels."""

    seed: int | None
    scores: np.ndarray
    """(S,)"""
    positive: np.ndarray
    """(S,) int64: violent frames of each snippet"""
    frames: int
    """Frames of a snippet"""
    ap: float
    ap_trapezoid: float


class Sample(NamedTuple):
    """Some test snippets: raw features and embeddings of both modalities."""

    violent: np.ndarray
    """(N,) bool: more than half of the snippet's frames are labelled violent"""
    videos: int
    """Test videos that they were drawn from"""
    features: dict[tuple[str, str], np.ndarray]
    """("visual" or "audio", "raw features" or "embeddings") -> (N, width)"""


class FigureData:
    """Scores, labels and embeddings of the reported training: that of the run's outcome, with all its seeds.

    Everything is read when it is asked for, once, and whatever prevents it is a DataError that says what is missing.
    """

    def __init__(self, results: RunResults) -> None:
        self.results = results
        self.outcome = find_outcome(results)
        self.trials = self.outcome.trials

    @cached_property
    def store(self) -> FeatureStore:
        """The data of the run, if they are still where they were and what they were."""
        location = self.results.info.data
        if not location:
            raise DataError("run.json does not say where the converted data lie")
        store = FeatureStore.open(location)
        expected = {trial.store_hash for trial in self.trials if trial.store_hash}
        if expected - {store.content_hash}:
            raise DataError(f"{store.path} is not the data this run was trained on: its content hash differs")
        return store

    @cached_property
    def labels(self) -> TestLabels:
        """The test labels, where the protocol has opened them."""
        if any(trial.protocol in CLOSED_PROTOCOLS for trial in self.trials):
            measured_with, _ = read_measured(self.results.path, [])
            if not self.results.label_accesses or measured_with is None:
                raise DataError("the test labels of this run have not been opened")
            if measured_with != self.store.labels_hash:
                raise DataError("the test labels in the store are not those that the run was measured with")
        return self.store.test_labels()

    @cached_property
    def measured(self) -> list[SeedScores]:
        """Scores of every seed of the reported training that the tables hold an AP of."""
        found, problems = [], []
        for trial in self._trials():
            try:
                found.append(self._scores(trial))
            except DataError as error:
                problems.append(error.message)
        if not found:
            raise DataError(problems[0])
        return found

    @property
    def reported(self) -> str:
        """The reported training in a sentence, and how it was picked."""
        name = self.outcome.name
        if self.trials[0].kind == "refit":
            return name
        if self.outcome.row is not None and self.results.protocol == "published":
            return f"{name}, the best row by test AP, which flatters it"
        return f"{name}, the best by selection score"

    @property
    def searched_winner(self) -> TrialRow | None:
        """The trial that a refit repeats; None for what is no refit."""
        return self.outcome.searched if self.trials[0].kind == "refit" else None

    def basis(self, seeds: int, definition: str = "", rule: str | None = None) -> str:
        """`captions.basis` of a picture with a line for each of so many seeds."""
        first = self.trials[0]
        message = "one seed, no interval" if seeds == 1 else f"{seeds} seeds, a line each"
        text = "; ".join(part for part in (definition, message) if part)
        return basis(self.results, text, protocol=first.protocol, rule=rule or first.epoch_rule)

    def sample(self, seed: int = 0) -> Sample:
        """Snippets of the first crop of some test videos, as many violent as background ones where there are.

        Embeddings are those of the newest checkpoint, which is of the last epoch that was saved.

        Args:
            seed: Of the choice of videos and snippets.

        Raises:
            DataError: No checkpoint, no store, closed labels, or only one kind of snippets.
        """
        path = weights_of(self.results.path / self._trials()[0].trial_dir)
        lengths, starts = self._lengths_and_starts()
        violent = 2 * self._positive() > self.store.snippet_frames
        random = np.random.default_rng(seed)
        videos = random.permutation(len(lengths))[:MOST_VIDEOS]
        snippets = np.concatenate([np.arange(starts[video], starts[video + 1]) for video in videos])
        chosen = []
        for kind in (False, True):
            candidates = snippets[violent[snippets] == kind]
            if not len(candidates):
                raise DataError(
                    "the test videos have no snippet that is " + ("violent" if kind else "background")
                )
            chosen.append(random.permutation(candidates)[: MOST_SNIPPETS // 2])
        picked = np.sort(np.concatenate(chosen))
        return Sample(violent[picked], len(videos), self._features(path, picked, starts))

    def _scores(self, trial: TrialRow) -> SeedScores:
        positive, rule = self._positive(), trial.epoch_rule
        if trial.ap is None:
            raise DataError(f"{trial.trial_dir}: its test AP has not been measured")
        scores = _stored_scores(self.results.path / trial.trial_dir, rule)
        found = frame_average_precision(scores, self.labels.frame_labels, self.store.snippet_frames)
        if not math.isclose(found.ap, trial.ap, rel_tol=1e-9):
            # A process that was killed between report and checkpoint leaves the checkpoint an epoch behind.
            raise DataError(
                f"{trial.trial_dir}: the stored scores are of another epoch than the table's AP "
                f"({100 * found.ap:.2f} %, the table has {100 * trial.ap:.2f} %)"
            )
        return SeedScores(trial.seed, scores, positive, self.store.snippet_frames, *found)

    def _trials(self) -> tuple[TrialRow, ...]:
        if not self.trials:
            sweep = self.results.info.sweep
            raise DataError(
                "no training of a row has finished yet" if sweep else "no training has finished an epoch"
            )
        return self.trials

    def _positive(self) -> np.ndarray:
        self._trials()
        frames: np.ndarray = self.labels.frame_labels.reshape(-1, self.store.snippet_frames)
        return frames.sum(1, dtype=np.int64)

    def _lengths_and_starts(self) -> tuple[np.ndarray, np.ndarray]:
        lengths = self.store.videos("test").lengths
        return lengths, np.concatenate([[0], np.cumsum(lengths)])

    @torch.inference_mode()
    def _features(
        self, checkpoint: Path, picked: np.ndarray, starts: np.ndarray
    ) -> dict[tuple[str, str], np.ndarray]:
        """Rows of the snippets `picked`, indices among all test snippets in rising order."""
        network = load_network(checkpoint)
        rows: dict[tuple[str, str], list[np.ndarray]] = {}
        owners = np.searchsorted(starts, picked, side="right") - 1
        for video in np.unique(owners):
            own = torch.from_numpy(picked[owners == video] - starts[video])
            visual, audio = _first_crop(self.store, int(video))
            output = network(visual[None], audio[None])
            panels = {
                ("visual", "raw features"): visual,
                ("audio", "raw features"): audio,
                ("visual", "embeddings"): output.visual_embeddings[0],
                ("audio", "embeddings"): output.audio_embeddings[0],
            }
            for panel, values in panels.items():
                rows.setdefault(panel, []).append(values[own].numpy())
        return {panel: np.concatenate(parts) for panel, parts in rows.items()}


def weights_of(folder: Path) -> Path:
    """The newest weights in a trial's folder.

    Raises:
        DataError: There is none.
    """
    newest = newest_checkpoint(folder)
    if newest is None:
        raise DataError(f"{folder.name} has no checkpoint (a run read from a URI comes without its weights)")
    return newest / TRAINER_FILE


def _stored_scores(folder: Path, rule: str) -> np.ndarray:
    path = newest_scores(folder)
    if path is None:
        raise DataError(f"{folder.name} has no checkpoint with test scores")
    try:
        return read_scores(path, rule.__eq__)[rule]
    except KeyError:
        message = f"it holds no scores of the {rule} epoch"
    except DataError as error:
        message = error.message
    raise DataError(f"{folder.name}/{path.parent.name}/{SCORES_FILE} cannot be read: {message}")


def _first_crop(store: FeatureStore, video: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, Dv) and (T, Da) of a test video, float32; a row of audio too many or too few is cut or zero."""
    videos = store.videos("test")
    length, start = int(videos.lengths[video]), int(videos.visual_offsets[video])
    offset, audio = int(videos.audio_offsets[video]), torch.empty(length, store.audio_dim)
    fit_audio(store.audio[offset : offset + int(videos.audio_lengths[video])], audio)
    return store.visual[start : start + length].float(), audio
