"""The held-out split: a fifth of the training videos, chosen by source so that no film is on both sides.

The source of a video is what its name says; `macil.data.xd.names.source_doubts` says when that is doubtful.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from macil.data.choosing import find_names
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError, UsageError
from macil.io.formats import FileFormat
from macil.io.reading import parse_json
from macil.io.text import brief

_FOLDS = 5  # one of five folds is held out: 20 %
SplitBy = Literal["source", "video"]
BY_VIDEO = "use --split-by video, which may put clips of one film on both sides"
_ADVICE = "use --protocol published, or more videos"


class SplitFile(FileFormat):
    """split.json, which can be handed to another lab."""

    WHAT: ClassVar[str] = "a split"

    format_version: int = 1
    seed: int
    hash: str
    """`Split.hash` of the lists: another one means that they were changed"""
    heldout: list[str]
    train: list[str]


@dataclass(frozen=True)
class Split:
    """Names of the training videos that are trained on and that are held out, with all their crops."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]
    seed: int

    @property
    def hash(self) -> str:
        """Hash of both lists: equal splits have equal hashes, whatever seed or file they came from."""
        text = "\n".join(["train", *sorted(self.train), "heldout", *sorted(self.heldout)])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write a `SplitFile`."""
        heldout, train = list(self.heldout), list(self.train)
        SplitFile(seed=self.seed, hash=self.hash, heldout=heldout, train=train).write(path)

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read what `save` wrote.

        Raises:
            DataError: Not such a file, or its lists do not give its hash.
        """
        return cls._of(SplitFile.read(path), str(path))

    @classmethod
    def parse(cls, text: str, where: str) -> Split:
        """What such a file holds; errors as `load`, which name it as `where`."""
        return cls._of(SplitFile.parse(parse_json(text), where), where)

    @classmethod
    def _of(cls, content: SplitFile, where: str) -> Split:
        split = cls(tuple(content.train), tuple(content.heldout), content.seed)
        if split.hash != content.hash:
            raise DataError(
                f"{where} was changed by hand: its lists give the hash {split.hash}, it says {content.hash}"
            )
        return split

    def check(self, store: FeatureStore) -> Split:
        """This split in the names of the store: a file made from an older conversion may spell them otherwise.

        Raises:
            DataError: Both lists together are not the store's training videos, each once.
        """
        present = store.videos("train").names
        found = find_names([*self.train, *self.heldout], present)
        train, heldout = (
            tuple(present[found[name]] if name in found else name for name in part)
            for part in (self.train, self.heldout)
        )
        listed, known = [*train, *heldout], set(present)
        problems = [f"{name} is not a training video of {store.path}" for name in sorted(set(listed) - known)]
        problems += [f"{name} is in neither list" for name in sorted(known - set(listed))]
        problems += [f"{name} is listed twice" for name in sorted({n for n in listed if listed.count(n) > 1})]
        if problems:
            raise DataError("the split does not fit the data set:", problems[:20])
        return Split(train, heldout, self.seed)

    def check_given(self, store: FeatureStore) -> Split:
        """`check` of a split that somebody made otherwise, which must hold both classes on both sides.

        Raises:
            DataError: As `check`; or a side has a single class.
        """
        split, videos = self.check(store), store.videos("train")
        labels = {} if videos.labels is None else dict(zip(videos.names, videos.labels.tolist(), strict=True))
        for what, names in (("trained on", split.train), ("held out", split.heldout)):
            if len({labels.get(name) for name in names}) < 2:
                raise DataError(
                    f"the split cannot serve: of the {len(names)} videos that are {what} at least one must be violent "
                    "and one normal"
                )
        return split


def make_split(store: FeatureStore, seed: int = 0, by: SplitBy = "source") -> Split:
    """Hold out about 20 % of the training videos, stratified by label; see `split_videos`.

    Args:
        store: Its training videos are split; the test videos are not looked at.
        seed: Seed of the split, apart from the seed of a training.
        by: What is kept on one side.

    Raises:
        DataError: Too few sources for a held-out part with both classes.
        UsageError: No such seed.
    """
    videos = store.videos("train")
    train, heldout = split_videos(videos.labels, videos.sources, seed, by)
    names = np.array(videos.names)
    return Split(tuple(names[train].tolist()), tuple(names[heldout].tolist()), seed)


def split_videos(
    labels: np.ndarray | None, sources: Sequence[str], seed: int, by: SplitBy = "source"
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the videos that are trained on and of those that are held out.

    Args:
        labels: 0 or 1 of each video.
        sources: Of each video.
        seed: Of the split.
        by: `source` keeps the videos of a source on one side; `video` does not.

    Raises:
        DataError: Too few sources or videos for a held-out part with both classes.
        UsageError: No such seed.
    """
    if not 0 <= seed < 2**32:  # what scikit-learn takes
        raise UsageError(
            f"split seed {brief(seed)} is not allowed: expected a whole number from 0 to {2**32 - 1}"
        )
    groups = np.array(sources) if by == "source" else np.arange(len(sources))
    counts = np.bincount(labels, minlength=2) if labels is not None else np.zeros(2, int)
    if len(set(groups.tolist())) < _FOLDS or min(counts) < _FOLDS:
        enough = f"at least {_FOLDS} sources and {_FOLDS} videos of either class are needed"
        advice = _ADVICE if min(counts) < _FOLDS or by == "video" else f"{BY_VIDEO}, {_ADVICE}"
        raise DataError(
            f"cannot hold out a part of {len(sources)} training videos from {len(set(sources))} sources ({counts[0]} "
            f"normal, {counts[1]} violent): {enough}; {advice}"
        )
    # Half of the time that importing this package would take; only a new split needs it.
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, heldout in folds.split(groups, labels, groups):
        if labels is not None and all(len(set(labels[part])) == 2 for part in (train, heldout)):
            return train, heldout
    raise DataError(f"no split by source has both classes on both sides; {BY_VIDEO}, {_ADVICE}")


def split_doubt(split: Split, store: FeatureStore, by: SplitBy) -> str | None:
    """What to tell of every number of a split by video, or of one that parts sources; None of one by source."""
    if by == "source":
        videos = store.videos("train")
        source_of = dict(zip(videos.names, videos.sources, strict=True))
        trained, heldout = (
            {source_of.get(name, name) for name in part} for part in (split.train, split.heldout)
        )
        if not (both := len(trained & heldout)):
            return None
        return (
            f"of {len(heldout)} held-out sources {both} are trained on too: clips of one film lie on both sides, so "
            "that the score on the held-out part flatters"
        )
    return (
        "the held-out split is by video (--split-by video): clips of one film lie on both sides, so that the score on "
        "the held-out part flatters"
    )
