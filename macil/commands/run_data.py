"""What `python -m macil check`, `convert` and `demo` do: data before any training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from macil import data
from macil.commands.cli import PlainConsole, echo, given_reading
from macil.data.foresight import foresee
from macil.data.store.feature_store import FeatureStore, looks_like_store
from macil.data.store.meta import DTYPES, Dtype
from macil.data.store.verification import verify_store
from macil.data.xd.audit import DEEP_BY_DEFAULT_BYTES, AuditReport
from macil.data.xd.folders import SPLITS, SplitName
from macil.data.xd.grouping import sections_of
from macil.data.xd.names import source_doubts
from macil.io.command_line import command_line
from macil.io.notes import note
from macil.io.wording import plural


def run_check(folder: Path, mode: str | None, options: Mapping[str, Any]) -> int:
    """Print what is wrong in `folder`, and give the exit status; see `macil.commands.data.check`."""
    deep = {"quick": False, "deep": True, None: None}[mode]
    reading = given_reading(options)
    if looks_like_store(folder):
        if reading.words:
            data.resolve(folder, reading=reading)
        return _check_store(folder, deep=deep is not False)
    report = data.audit(folder, deep=deep, reading=reading, progress=True)
    trained = report.layout.of_split("train")
    labels, sources = (
        [video.parsed.label for video in trained],
        [video.parsed.source for video in trained],
    )
    report.notes += foresee(labels, sources, report.layout.crops)
    _print_report(report)
    return 0 if report.ok else 1


def run_convert(
    folder: Path, out: Path, dtype: Dtype, *, overwrite: bool, options: Mapping[str, Any]
) -> None:
    """Convert `folder` into the store `out`; see `macil.commands.data.convert`."""
    with _naming_what_is_kept(out):
        path = data.convert(
            folder, out, dtype=dtype, reading=given_reading(options), overwrite=overwrite, progress=True
        )
    store = FeatureStore.open(path)
    echo(f"{path}: {store.describe()}")
    for each in [*store.notes, *store.label_notes]:
        note(each)


def run_demo(
    out: Path, *, generated: bool, ground_truth: bool, overwrite: bool, size: Mapping[str, int | None]
) -> None:
    """Write the demo data set into `out`; see `macil.commands.data.demo`."""
    given = {name: value for name, value in size.items() if value is not None}
    with _naming_what_is_kept(out):
        path = data.write_demo(
            out, generated=generated, ground_truth=ground_truth, overwrite=overwrite, progress=True, **given
        )
    echo(f"wrote {path}")
    echo(f"next: {command_line('macil', 'check', out)}")


def _check_store(path: Path, *, deep: bool) -> int:
    problems = verify_store(path, deep=deep, progress=True)
    if problems:
        echo(f"faults ({len(problems)}):")
    for problem in problems:
        echo(f"  {problem}")
    store = FeatureStore.open(path)
    echo(f"{path}: {store.describe()}")
    videos = {split: store.videos(split) for split in SPLITS if store.meta.part in (None, split)}
    echo(_describe_sources({split: each.sources for split, each in videos.items()}))
    notes = [*store.notes, *store.label_notes]
    if (trained := videos.get("train")) and trained.labels is not None:
        notes += source_doubts(trained.names, trained.sources)
        notes += map(str, foresee(trained.labels, trained.sources, store.crops))
    for each in notes:
        echo(f"note: {each}")
    echo(
        "every byte was compared with what was converted"
        if deep
        else "the layout and the small files were compared with what was converted; --deep reads the features"
    )
    if problems:
        echo(
            f"convert again: {command_line('macil', 'convert', _converted_from(store), path, '--overwrite')}"
        )
    echo(plural(len(problems), "fault") if problems else "no faults")
    return 1 if problems else 0


def _converted_from(store: FeatureStore) -> str | Path:
    """The folder that a store was made from, where it says so and that is still there."""
    source = store.meta.source.get("path")
    return Path(source) if source is not None and Path(source).is_dir() else "DIR"


@contextlib.contextmanager
def _naming_what_is_kept(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        echo(f"finished videos are kept in {out}.partial; run the same command again to go on", err=True)
        raise


def _print_report(report: AuditReport) -> None:
    console = PlainConsole(highlight=False, soft_wrap=True)
    _print_lines(console, f"faults ({len(report.faults)})", report.fault_lines())
    _print_lines(console, f"notes ({len(report.notes)})", report.note_lines())
    if sections := sections_of([*report.faults, *report.notes]):
        console.print(f"what these mean: {', '.join(sections)}", markup=False)
    table = Table(title=None, box=None, pad_edge=False)
    table.add_column("")
    table.add_column("here", justify="right")
    table.add_column("published", justify="right")
    for total in report.totals:
        published = "" if total.published is None else f"{total.published:,}"
        table.add_row(total.name, f"{total.value:,}", published)
    console.print(table)
    read = {split: [video.parsed.source for video in report.layout.of_split(split)] for split in SPLITS}
    console.print(_describe_sources(read))
    console.print(_describe_mode(report))
    sizes = ", ".join(f"{report.store_bytes(dtype) / 1e9:.2f} GB as {dtype}" for dtype in DTYPES)
    console.print(f"a store of it takes {sizes}")
    console.print("no faults" if report.ok else plural(len(report.faults), "fault"))


def _print_lines(console: Console, title: str, lines: list[str]) -> None:
    if lines:
        console.print(f"{title}:")
    for line in lines:
        console.print(f"  {line}", markup=False)


def _describe_sources(sources: Mapping[SplitName, Sequence[str]]) -> str:
    words: dict[SplitName, str] = {"train": "training", "test": "test"}
    counts = [
        f"{len(set(sources[split]))} in the names of {len(sources[split])} {words[split]} videos"
        for split in sources
    ]
    return f"sources read: {', '.join(counts)}"


def _describe_mode(report: AuditReport) -> str:
    limit = f"{DEEP_BY_DEFAULT_BYTES / 1024**3:.0f} GiB"
    if report.mode == "deep":
        return "every value was read" + ("" if report.chosen else f" (the default up to {limit} of features)")
    default = "" if report.chosen else f" (the default beyond {limit} of features; --deep reads every value)"
    return f"headers and a sample of the values were read{default}"
