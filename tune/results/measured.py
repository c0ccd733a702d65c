"""Test metrics that were computed when the labels were opened, kept so that nobody has to open them again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from macil.errors import DataError
from macil.io.files import read_json
from macil.io.formats import FileFormat
from macil.io.reading import open_file
from tune.results.rows import TrialRow
from tune.results.trial_folder import newest_scores
from tune.storage.names import MEASURED_FILE
from tune.storage.root_files import kept_file

NO_SCORES = "no scores"
# The arrays of a trial's scores.npz that are measured; it may hold those of every epoch too.
MEASURED_SCORES = ("chosen", "last", "visual_chosen", "visual_last")
COLUMNS = ("ap", "ap_trapezoid", "ap_last", "ap_trapezoid_last", "visual_ap")
Column = Annotated[str, Field(pattern=f"^({'|'.join(COLUMNS)})$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Measured(BaseModel):
    """Metrics of one trial's stored scores; `stamp` identifies the scores, `problems` lists missing metrics."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    stamp: str
    metrics: dict[Column, Share]
    problems: list[str]

    def filled_into(self, row: TrialRow) -> TrialRow:
        """`row` with these test metrics."""
        metrics: dict[str, Any] = dict(self.metrics)
        return replace(row, **metrics)


class MeasuredFile(FileFormat):
    """`measured.json`: the test metrics of the trials that were trained without test labels, by folder.

    Attributes:
        labels_hash: Of the labels that they were measured with.
        chance: Share of violent frames among the test frames.
        hash: Of everything else: a flipped digit would be another result, which nothing else shows. A file of an
            earlier version has none.
    """

    WHAT: ClassVar[str] = "what was measured on the test labels"

    format_version: int = 1
    labels_hash: str
    chance: Share | None = None
    trials: dict[str, Measured]
    hash: str | None = None


def stamp_of(folder: Path, epochs_run: int, chosen_epoch: int | None) -> str:
    """Changes whenever the scores or the epochs they stand for do; stays when the run is copied elsewhere."""
    path = newest_scores(folder)
    epochs = f"epochs {epochs_run}, chosen {chosen_epoch}"
    if path is None:
        return f"{NO_SCORES}, {epochs}"
    try:
        # The checksums in the archive's directory: the scores themselves are not read.
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            sums = sorted(
                (member.filename, member.CRC)
                for member in archive.infolist()
                if member.filename.removesuffix(".npy") in MEASURED_SCORES
            )
    except Exception:  # a damaged archive raises anything
        return f"unreadable scores, {epochs}"
    return f"{path.parent.name}, {', '.join(f'{name} {crc:08x}' for name, crc in sums)}, {epochs}"


def read_measured(run: Path, problems: list[str]) -> tuple[str | None, dict[str, Measured]]:
    """Hash of the labels and the trials measured with them, by trial folder; empty before the first label access."""
    if not kept_file(run, MEASURED_FILE).exists():
        return None, {}
    try:
        kept = _read(run)
    except DataError as error:
        problems.append(f"{'; '.join(str(error).splitlines())}; the test metrics in it are not used")
        return None, {}
    return kept.labels_hash, kept.trials


def measured_chance(run: Path) -> float | None:
    """The share of violent frames among the test frames, as the last access found it; None where it is not kept."""
    try:
        return _read(run).chance
    except DataError:
        return None


def write_measured(run: Path, labels_hash: str, chance: float, trials: dict[str, Measured]) -> None:
    """Replace what is kept; `chance` is the share of violent frames."""
    kept = MeasuredFile(labels_hash=labels_hash, chance=chance, trials=trials)
    kept.model_copy(update={"hash": _hash(kept.model_dump(mode="json"))}).write(run / MEASURED_FILE)


def _read(run: Path) -> MeasuredFile:
    """Raises DataError: it is absent, damaged or of another version."""
    path = kept_file(run, MEASURED_FILE)
    content = read_json(path)
    damaged = DataError(f"{path.name} is damaged")
    if not isinstance(content, dict) or "format_version" not in content:
        raise damaged
    kept = MeasuredFile.parse(content, path.name)
    if kept.hash not in (None, _hash(content)):
        raise damaged
    return kept


def _hash(content: dict[str, Any]) -> str:
    text = json.dumps({key: content[key] for key in sorted(content) if key != "hash"}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
