"""Test metrics that were computed when the labels were opened, kept so that nobody has to open them again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from macil.errors import DataError
from macil.files import read_json, write_json_atomic
from macil.reading import open_file
from tune.rootfiles import kept_file
from tune.storage.names import MEASURED_FILE
from tune.trialfolder import newest_scores

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
    """Hash of the labels and the trials measured with them, by trial folder; empty before the first opening."""
    path = kept_file(run, MEASURED_FILE)
    if not path.exists():
        return None, {}
    try:
        content = read_json(path)
        if content["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{path} has format_version {content['format_version']}; this version reads {FORMAT_VERSION}"
            )
        # What an earlier version wrote has no hash.
        if content.get("hash") not in (None, _hash(content)):
            raise ValueError
        trials = {str(folder): _measured(entry) for folder, entry in content["trials"].items()}
        return str(content["labels_hash"]), trials
    except DataError as error:
        problems.append(f"{error}; the test metrics in it are not used")
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        problems.append(f"{MEASURED_FILE} is damaged; the test metrics in it are not used")
    return None, {}


def measured_chance(run: Path) -> float | None:
    """The share of violent frames among the test frames, as the last access found it; None where it is not kept."""
    try:
        content = read_json(kept_file(run, MEASURED_FILE))
        chance = content["chance"] if content.get("hash") in (None, _hash(content)) else None
    except (DataError, FileNotFoundError, KeyError, TypeError, AttributeError):
        return None
    return float(chance) if isinstance(chance, float) and 0 <= chance <= 1 else None


def write_measured(run: Path, labels_hash: str, chance: float, trials: dict[str, Measured]) -> None:
    """Replace what is kept; `chance` is the share of violent frames."""
    content = {
        "format_version": FORMAT_VERSION,
        "labels_hash": labels_hash,
        "chance": chance,
        "trials": {folder: asdict(entry) for folder, entry in trials.items()},
    }
    write_json_atomic(run / MEASURED_FILE, {**content, "hash": _hash(content)})


def _hash(content: dict[str, Any]) -> str:
    """Of everything else: a flipped digit would be another result, and nothing else would tell."""
    text = json.dumps({key: content[key] for key in sorted(content) if key != "hash"}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _measured(entry: dict[str, Any]) -> Measured:
    metrics = {name: float(entry["metrics"][name]) for name in COLUMNS if name in entry["metrics"]}
    if not all(0 <= value <= 1 for value in metrics.values()):
        raise ValueError
    return Measured(str(entry["stamp"]), metrics, [str(problem) for problem in entry["problems"]])
