"""Write a demo, of `macil.data.demo.digits` or `macil.data.demo.generator`, as a folder in the XD-Violence layout."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np

from macil.data.demo.digits import DEMO, DEMO_VERSION, DigitsDemo
from macil.data.demo.generator import GENERATOR_VERSION, DemoGenerator, DemoSize
from macil.data.demo.video import Demo, DemoVideo
from macil.data.origin import DEMO_FILE
from macil.data.xd.annotations import SNIPPET_FRAMES, rasterise
from macil.data.xd.arrays import ArrayError, read_header
from macil.data.xd.folders import FOLDERS, SPLITS
from macil.errors import DataError, UsageError, WriteError
from macil.io.files import is_full, refusal
from macil.io.folders import replace_folder, require_creatable
from macil.io.formats import FileFormat
from macil.io.notes import note
from macil.io.progress import show_progress
from macil.io.remote import local_path

NOTICE = "NOTICE"
_MADE_UP = "made-up features in the XD-Violence layout, written by `python -m macil demo`"
_DIGITS = "real digits in a made-up story in the XD-Violence layout, written by `python -m macil demo`"

# Annotations whose name ends in .mp4: 14 of 500 in XD-Violence.
_MP4_SHARE = 0.03


class _Origin(FileFormat):
    what: str = _MADE_UP
    generator_version: int = GENERATOR_VERSION
    ground_truth: bool
    """Whether gt.npy is there"""


class GeneratedFile(DemoSize, _Origin):  # the fields of the last base come first in the file
    """demo.json of the generated set, which marks a folder as a demo and says how it was made."""

    WHAT: ClassVar[str] = "the description of a generated demo"
    MARK: ClassVar[str | None] = "what"


class DigitsFile(FileFormat):
    """demo.json of the embedded demo."""

    WHAT: ClassVar[str] = "the description of the embedded demo"
    MARK: ClassVar[str | None] = "what"

    what: str = _DIGITS
    demo_version: int = DEMO_VERSION
    license: str = "CC-BY-SA-4.0"
    """SPDX identifier; NOTICE beside it says whose work it is"""
    ground_truth: bool
    """Whether gt.npy is there"""

    @property
    def nbytes(self) -> int:
        """Bytes of features, about."""
        return DEMO.nbytes


def write_demo(
    out: str | os.PathLike[str],
    *,
    generated: bool = False,
    ground_truth: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    **size: int,
) -> Path:
    """Write a demo data set and return its folder; equal arguments give equal files.

    Work happens in `OUT.partial`, which becomes `OUT` at the end; a run that was killed is taken up where it stopped.

    Args:
        out: Folder to make.
        generated: Write the generated set, in its own size where none is given, in place of the embedded demo.
        ground_truth: Write `gt.npy` too.
        overwrite: Replace an older demo.
        progress: Show progress on stderr.
        **size: Fields of `DemoSize`, each of which means the generated set: train_videos, test_videos, min_snippets,
            max_snippets, visual_dim, audio_dim, crops, seed.

    Raises:
        UsageError: A size is out of range, `out` cannot be written or is taken, or the disk is too small.
    """
    parameters = DemoSize(**size) if generated or size else None
    out = local_path(out).absolute()
    _check_target(out, overwrite)
    partial = out.with_name(out.name + ".partial")
    try:
        if parameters is None:
            _prepare(partial, DigitsFile(ground_truth=ground_truth))
            shutil.copyfile(Path(__file__).with_name(NOTICE), partial / NOTICE)
            demo: Demo = DigitsDemo()
        else:
            _prepare(partial, GeneratedFile(ground_truth=ground_truth, **dict(parameters)))
            demo = DemoGenerator(parameters)
        write_videos(partial, demo, ground_truth=ground_truth, progress=progress)
        replace_folder(partial, out)
    except OSError as error:
        refused = refusal(error.filename or out, error)
        kept = f"finished videos are kept in {partial.name}"
        raise WriteError(out if is_full(error) else refused.path, f"{refused.reason}; {kept}") from None
    return out


def write_videos(folder: Path, demo: Demo, *, ground_truth: bool = False, progress: bool = False) -> None:
    """Write features and annotations of a demo; features that are there are kept.

    Args:
        folder: Where to.
        demo: What to write.
        ground_truth: Write `gt.npy` too.
        progress: Show progress on stderr.

    Raises:
        OSError: As the disk says.
    """
    for modality in ("visual", "audio"):
        for split in SPLITS:
            (folder / FOLDERS[modality, split][0]).mkdir(parents=True, exist_ok=True)
    _write_features(folder, demo, progress)
    _write_labels(folder, demo, ground_truth)


def _check_target(out: Path, overwrite: bool) -> None:
    if out.is_dir() and any(out.iterdir()):
        # Only what this function wrote may be deleted by it.
        is_demo = (out / DEMO_FILE).is_file()
        if not is_demo:
            raise UsageError(f"{out} is not empty; name a folder that does not exist yet")
        if not overwrite:
            raise UsageError(
                f"{out} holds a demo already; name another folder, or replace it with --overwrite"
            )
    require_creatable(out)


def _prepare(partial: Path, description: GeneratedFile | DigitsFile) -> None:
    """Take up an unfinished folder of the same demo, or begin a new one."""
    if partial.exists() and not _is_of(partial, description):
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(partial).free + sum(path.stat().st_size for path in partial.rglob("*.npy"))
    if description.nbytes > free:
        needed = f"the demo needs {description.nbytes / 1e9:.2f} GB"
        raise UsageError(f"{needed}, the disk of {partial.parent} has {free / 1e9:.2f} GB free")
    description.write(partial / DEMO_FILE)


def _is_of(folder: Path, description: GeneratedFile | DigitsFile) -> bool:
    try:
        return type(description).read(folder / DEMO_FILE) == description
    except (DataError, UsageError):
        return False


def _write_features(partial: Path, demo: Demo, progress: bool) -> None:
    videos = demo.videos
    first = next((i for i, video in enumerate(videos) if not _is_written(partial, demo, video)), len(videos))
    if first:
        note(f"taking up the demo at video {min(first + 1, len(videos))} of {len(videos)} ({partial})")
    with show_progress("writing the demo", len(videos), "videos", enabled=progress) as advance:
        for index, video in enumerate(videos):
            if index >= first and not _is_written(partial, demo, video):
                visual, audio = demo.draw(video)
                for path, crop in zip(_visual_paths(partial, demo, video), visual, strict=True):
                    _save(path, crop)
                # The audio comes last and whole: where it is, the video is finished.
                path = _audio_path(partial, video)
                temporary = path.with_name(f".{path.name}")
                _save(temporary, audio)
                os.replace(temporary, path)
            advance(1)


def _save(path: Path, array: np.ndarray) -> None:
    # Not straight into the file: NumPy's own write hides from its error that the disk is full.
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    path.write_bytes(buffer.getbuffer())


def _is_written(partial: Path, demo: Demo, video: DemoVideo) -> bool:
    _, width = demo.visual_shape
    shapes = dict.fromkeys(_visual_paths(partial, demo, video), (video.length, width))
    shapes[_audio_path(partial, video)] = (video.audio_length, demo.audio_dim)
    try:
        headers = {path: read_header(path) for path in shapes}
    except ArrayError:
        return False
    return all((header.rows, header.width) == shapes[path] for path, header in headers.items())


def _visual_paths(folder: Path, demo: Demo, video: DemoVideo) -> list[Path]:
    crops, _ = demo.visual_shape
    return [folder / FOLDERS["visual", video.split][0] / f"{video.name}__{c}.npy" for c in range(crops)]


def _audio_path(folder: Path, video: DemoVideo) -> Path:
    return folder / FOLDERS["audio", video.split][0] / f"{video.name}__vggish.npy"


def _write_labels(partial: Path, demo: Demo, ground_truth: bool) -> None:
    videos = sorted((video for video in demo.videos if video.split == "test"), key=lambda video: video.name)
    violent = [video for video in videos if video.violent]
    rng = np.random.default_rng([GENERATOR_VERSION, len(videos), len(violent)])
    lines = [
        _annotate(video, rng, mp4=i == 0 or rng.random() < _MP4_SHARE) for i, video in enumerate(violent)
    ]
    (partial / "annotations.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if ground_truth:
        ordered = violent + [video for video in videos if not video.violent]
        frames = [rasterise(video.intervals, SNIPPET_FRAMES * video.length) for video in ordered]
        _save(partial / "gt.npy", np.concatenate(frames).astype(np.float32))


def _annotate(video: DemoVideo, rng: np.random.Generator, *, mp4: bool) -> str:
    last = SNIPPET_FRAMES * video.length
    numbers = []
    for start, end in video.intervals:
        # The real features lack the last frames of a video, its annotation does not.
        numbers += [start, end + int(rng.integers(0, SNIPPET_FRAMES + 1)) if end == last else end]
    return " ".join([video.name + (".mp4" if mp4 else ""), *map(str, numbers)])
