"""Test metrics that were computed when the labels were opened, kept so that nobody has to open them again."""

from __future__ import annotations

import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from macil.errors import DataError
from macil.files import read_json, write_json_atomic
from tune.trialfolder import newest_scores

FILE = "report/measured.json"
FORMAT_VERSION = 1

NO_SCORES = "no scores"
# The arrays of a trial's scores.npz that are measured; it may hold those of every epoch too.
MEASURED_SCORES = ("chosen", "last", "visual_chosen", "visual_last")
COLUMNS = ("ap", "ap_trapezoid", "ap_last", "ap_trapezoid_last", "visual_ap")


@dataclass(frozen=True)
class Measured:
    """What one trial's stored scores gave; `stamp` tells which scores, `problems` what they did not give."""

    stamp: str
    metrics: dict[str, float]
    problems: list[str]


def stamp_of(folder: Path, epochs_run: int, chosen_epoch: int | None) -> str:
    """Changes whenever the scores or the epochs they stand for do; stays when the run is copied elsewhere."""
    path = newest_scores(folder)
    epochs = f"epochs {epochs_run}, chosen {chosen_epoch}"
    if path is None:
        return f"{NO_SCORES}, {epochs}"
    try:
        # The checksums in the archive's directory: the scores themselves are not read.
        with zipfile.ZipFile(path) as archive:
            sums = sorted(
                (member.filename, member.CRC)
                for member in archive.infolist()
                if member.filename.removesuffix(".npy") in MEASURED_SCORES
            )
    except (OSError, zipfile.BadZipFile):
        return f"unreadable scores, {epochs}"
    return f"{path.parent.name}, {', '.join(f'{name} {crc:08x}' for name, crc in sums)}, {epochs}"


def read_measured(run: Path, problems: list[str]) -> tuple[str | None, dict[str, Measured]]:
    """Hash of the labels and the trials measured with them, by trial folder; empty before the first opening."""
    path = run / FILE
    if not path.exists():
        return None, {}
    try:
        content = read_json(path)
        if content["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{path} has format_version {content['format_version']}; this version reads {FORMAT_VERSION}"
            )
        trials = {str(folder): _measured(entry) for folder, entry in content["trials"].items()}
        return str(content["labels_hash"]), trials
    except DataError as error:
        problems.append(f"{error}; its test metrics are left out")
    except (KeyError, TypeError, ValueError, AttributeError):
        problems.append(f"{FILE} is damaged; its test metrics are left out")
    return None, {}


def write_measured(run: Path, labels_hash: str, trials: dict[str, Measured]) -> None:
    """Replace what is kept."""
    content = {
        "format_version": FORMAT_VERSION,
        "labels_hash": labels_hash,
        "trials": {folder: asdict(entry) for folder, entry in trials.items()},
    }
    write_json_atomic(run / FILE, content)


def _measured(entry: dict[str, Any]) -> Measured:
    metrics = {name: float(entry["metrics"][name]) for name in COLUMNS if name in entry["metrics"]}
    return Measured(str(entry["stamp"]), metrics, [str(problem) for problem in entry["problems"]])
