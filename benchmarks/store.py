"""What the feature store costs and saves, against the plain `.npy` files it is made from.

Times: converting a layout folder, against loading every file and writing the values to one file on the same disk;
opening the data; reading all of them as training does, in batches of crops of videos in random order; reading all of
them in order. The files lie in the system's cache. `.npy, each time` loads a file whenever it is needed,
`.npy, mapped` maps all files when opened, `.npy, in memory` loads them all when opened.

Memory: K processes read everything through the store, in random order, and then K processes everything from arrays
they have loaded; then they let their batch go. While all of them live, their proportional set sizes (PSS: a page shared
by n processes counts 1/n in each) are summed, less those of K processes that imported the same modules and opened
nothing, in copies of the data: as the processes are, and after their allocator has returned what it kept of freed
batches (`malloc_trim`).

Before anything is timed, every value of the store is compared with the files; afterwards, a checksum of what every
process has read. The data are made up, as `python -m macil demo` makes them.

    python -m benchmarks.store
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.common import (
    Seconds,
    describe_machine,
    finish,
    json_option,
    machine_line,
    make_table,
    ratios,
    take_turns,
)
from macil.data.demo.writing import write_demo
from macil.data.store.conversion import convert
from macil.data.store.feature_store import FeatureStore
from macil.training.bags import RowBuffer

STORE, EACH_TIME, MAPPED, IN_MEMORY, COPY = (
    "store",
    ".npy, each time",
    ".npy, mapped",
    ".npy, in memory",
    "plain copy",
)
BATCH = 128
SHORTEST, LONGEST = 30, 200
SEED = 0

Kind = Literal["nothing", "store", "arrays"]


class Part(NamedTuple):
    """A file of the layout, and the rows of the store that hold it."""

    path: Path
    modality: Literal["visual", "audio"]
    start: int
    stop: int


class Bag(NamedTuple):
    """A crop of a video: a sample of training."""

    visual: Part
    audio: Part


def list_bags(store: FeatureStore, data: Path) -> list[Bag]:
    """Every crop of every video, training and test, in the order of the store."""
    bags = []
    folders = {"train": ("RGB", "vggish-features/train"), "test": ("RGBTest", "vggish-features/test")}
    for split, (visual_folder, audio_folder) in folders.items():
        videos = store.videos("train" if split == "train" else "test")
        for i, name in enumerate(videos.names):
            start, length = int(videos.audio_offsets[i]), int(videos.audio_lengths[i])
            audio = Part(data / audio_folder / f"{name}__vggish.npy", "audio", start, start + length)
            for crop in range(videos.crops):
                length = int(videos.lengths[i])
                start = int(videos.visual_offsets[i]) + crop * length
                path = data / visual_folder / f"{name}__{crop}.npy"
                bags.append(Bag(Part(path, "visual", start, start + length), audio))
    return bags


def list_parts(bags: Sequence[Bag]) -> list[Part]:
    """Every file once."""
    return list(dict.fromkeys(part for bag in bags for part in bag))


# --- ways to read ---------------------------------------------------------------------------------------------


class StoreReader:
    """Index selects on the mapped store, into memory that is used again, as `macil.training.bags` does."""

    def __init__(self, path: Path) -> None:
        self.store = FeatureStore.open(path)
        self.buffers = {"visual": RowBuffer(), "audio": RowBuffer()}

    def part(self, part: Part) -> Tensor:
        """The rows of one file, as a view."""
        features = self.store.visual if part.modality == "visual" else self.store.audio
        return features[part.start : part.stop]

    def batch(self, parts: Sequence[Part]) -> Tensor:
        """The rows of some files of one modality, as a copy that lasts until the next."""
        features = self.store.visual if parts[0].modality == "visual" else self.store.audio
        rows = torch.cat([torch.arange(part.start, part.stop) for part in parts])
        into = self.buffers[parts[0].modality].rows(len(rows), features)
        return torch.index_select(features, 0, rows, out=into)


class FileReader:
    """`.npy` files, read into memory that is used again; `arrays` are those that are open already."""

    def __init__(self, arrays: dict[Path, np.ndarray] | None = None) -> None:
        self.arrays = arrays or {}
        self.buffers = {"visual": RowBuffer(), "audio": RowBuffer()}

    def part(self, part: Part) -> Tensor:
        """The rows of one file."""
        return torch.from_numpy(self._load(part))

    def batch(self, parts: Sequence[Part]) -> Tensor:
        """The rows of some files of one modality, as a copy that lasts until the next."""
        arrays = [self._load(part) for part in parts]
        rows = sum(len(array) for array in arrays)
        into = self.buffers[parts[0].modality].rows(rows, torch.from_numpy(arrays[0]))
        np.concatenate(arrays, out=into.numpy())
        return into

    def _load(self, part: Part) -> np.ndarray:
        array = self.arrays.get(part.path)
        return np.load(part.path) if array is None else array


def load_arrays(parts: Sequence[Part], mmap_mode: Literal["c"] | None = None) -> dict[Path, np.ndarray]:
    """All files as arrays, in memory or mapped (copy on write: torch warns of arrays that are read-only)."""
    return {part.path: np.load(part.path, mmap_mode=mmap_mode) for part in parts}


def random_batches(bags: Sequence[Bag], seed: int) -> Iterator[list[Bag]]:
    """All bags once, in random order."""
    order = np.random.default_rng(seed).permutation(len(bags))
    for start in range(0, len(order), BATCH):
        yield [bags[i] for i in order[start : start + BATCH]]


def read_randomly(reader: StoreReader | FileReader, bags: Sequence[Bag], seed: int) -> int:
    """Read all bags in batches; returns the checksum of what was read."""
    total = 0
    for batch in random_batches(bags, seed):
        total += checksum(reader.batch([bag.visual for bag in batch]))
        total += checksum(reader.batch([bag.audio for bag in batch]))
    return total


def gather_randomly(reader: StoreReader | FileReader, bags: Sequence[Bag]) -> None:
    """The same without the checksum: what is timed."""
    for batch in random_batches(bags, SEED):
        reader.batch([bag.visual for bag in batch])
        reader.batch([bag.audio for bag in batch])


def read_in_order(reader: StoreReader | FileReader, parts: Sequence[Part]) -> None:
    """Pass over every value once: a view that nobody looks at would cost nothing."""
    for part in parts:
        reader.part(part).sum()


def checksum(values: Tensor) -> int:
    """Sum of the bits as integers: exact, and the same in every order."""
    return int(values.view(torch.int32).sum())


# --- correctness ----------------------------------------------------------------------------------------------


def check_values(store: FeatureStore, bags: Sequence[Bag]) -> dict[str, Any]:
    """Compare every value of the store with the files.

    Returns:
        How many were compared, their largest difference, and the checksum of reading all bags once.

    Raises:
        click.ClickException: One differs, or the store has rows that no file has.
    """
    parts = list_parts(bags)
    reader, largest, compared, sums = StoreReader(store.path), 0.0, 0, {}
    for part in parts:
        expected = torch.from_numpy(np.load(part.path))
        stored = reader.part(part)
        difference = float((stored - expected).abs().max()) if stored.shape == expected.shape else np.inf
        if difference != 0:
            raise click.ClickException(f"{part.path.name} differs by {difference:.2e}; nothing was timed")
        largest = max(largest, difference)
        compared += expected.numel()
        sums[part.path] = checksum(expected)
    held = store.visual.numel() + store.audio.numel()
    if compared != held:
        raise click.ClickException(f"the store holds {held} values, the files {compared}; nothing was timed")
    return {
        "compared_values": compared,
        "largest_difference": largest,
        "checksum": sum(sums[part.path] for bag in bags for part in bag),
    }


# --- times ----------------------------------------------------------------------------------------------------


def time_conversion(data: Path, parts: Sequence[Part], scratch: Path, repeats: int) -> dict[str, Seconds]:
    """Converting, against writing the same values to one file, both until they are on the disk."""
    target = scratch / "timed"

    def copy() -> None:
        with target.open("wb") as file:
            for part in parts:
                np.load(part.path).tofile(file)
            file.flush()
            os.fsync(file.fileno())

    def remove() -> None:
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    seconds = take_turns({COPY: copy, STORE: lambda: convert(data, target)}, repeats, 0, before=remove)
    remove()
    return seconds


def time_opening(store: Path, parts: Sequence[Part], repeats: int) -> dict[str, Seconds]:
    """Until the first row can be read."""
    return take_turns(
        {
            IN_MEMORY: lambda: load_arrays(parts),
            MAPPED: lambda: load_arrays(parts, "c"),
            STORE: lambda: FeatureStore.open(store),
        },
        repeats,
    )


def time_reading(store: Path, bags: Sequence[Bag], repeats: int) -> dict[str, dict[str, Seconds]]:
    """Everything once, in random batches and in order."""
    parts = list_parts(bags)
    readers = {
        EACH_TIME: FileReader(),
        MAPPED: FileReader(load_arrays(parts, "c")),
        IN_MEMORY: FileReader(load_arrays(parts)),
        STORE: StoreReader(store),
    }
    randomly = {name: lambda reader=reader: gather_randomly(reader, bags) for name, reader in readers.items()}
    in_order = {name: lambda reader=reader: read_in_order(reader, parts) for name, reader in readers.items()}
    return {"random": take_turns(randomly, repeats), "sequential": take_turns(in_order, repeats)}


# --- memory ---------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """The code of a process: it imports, reads, and answers."""

    kind: Kind
    store: Path
    bags: Sequence[Bag]
    modules: Sequence[str]
    seed: int


def hold(task: Task, connection: Connection) -> None:
    """A process: read everything in random order, send its checksum, live; return freed memory when asked to."""
    kind, store, bags, modules, seed = task
    import_all(modules)
    torch.set_num_threads(1)
    reader: StoreReader | FileReader | None = None
    if kind == "store":
        reader = StoreReader(store)
    elif kind == "arrays":
        reader = FileReader(load_arrays(list_parts(bags)))
    read = 0 if reader is None else read_randomly(reader, bags, seed)
    if reader is not None:
        reader.buffers.clear()  # a batch is no copy of the data, and there is one a process however large the data
    connection.send(read)
    with contextlib.suppress(EOFError):
        while True:
            connection.recv()
            with contextlib.suppress(AttributeError):  # another C library than GNU's
                ctypes.CDLL(None).malloc_trim(0)
            connection.send(None)


def import_all(modules: Sequence[str]) -> None:
    """Import what a library would import when it is first used: all processes are to hold the same code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in modules:
            with contextlib.suppress(Exception):  # names that are there without being importable
                importlib.import_module(name)


class Group:
    """Processes that live and have read everything."""

    def __init__(self) -> None:
        self.members: list[tuple[BaseProcess, Connection]] = []

    def trim(self) -> None:
        """Have all of them return freed memory to the system."""
        for _, connection in self.members:
            connection.send(None)
            connection.recv()

    def pss(self) -> dict[str, int]:
        """Bytes of `Pss`, and of its mapped and its anonymous pages, in all."""
        totals = dict.fromkeys(("Pss", "Pss_File", "Pss_Anon"), 0)
        for process, _ in self.members:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8")
            for line in rollup.splitlines():
                name, _, value = line.partition(":")
                if name in totals:
                    totals[name] += 1024 * int(value.split()[0])
        return totals


@contextlib.contextmanager
def processes(
    kind: Kind, count: int, store: Path, bags: Sequence[Bag], wanted: int, modules: Sequence[str] = ()
) -> Iterator[Group]:
    """Yield `count` processes that have read everything, each in an order of its own.

    Raises:
        click.ClickException: One of them ended, or read something else.
    """
    context = multiprocessing.get_context("spawn")
    group = Group()
    try:
        for seed in range(count):
            ours, theirs = context.Pipe()
            task = Task(kind, store, bags, modules, seed)
            process = context.Process(target=hold, args=(task, theirs), daemon=True)
            process.start()
            theirs.close()
            group.members.append((process, ours))
        for member, connection in group.members:
            try:
                total = connection.recv()
            except EOFError:
                member.join()
                raise click.ClickException(f"a process ended with exit code {member.exitcode}") from None
            if total != wanted:
                raise click.ClickException(f"a process ({kind}) read {total}, expected {wanted}")
        yield group
    finally:
        for _, connection in group.members:
            connection.close()
        for member, _ in group.members:
            member.join(10)
            if member.is_alive():
                member.terminate()


def measure_memory(count: int, store: Path, bags: Sequence[Bag], wanted: int, nbytes: int) -> dict[str, Any]:
    """Summed PSS of `count` processes beyond those that opened nothing, for the store and for arrays.

    Those live at the same time, so that the libraries' pages are shared by as many processes in both sums.
    """
    if any(str(store) in line for line in Path("/proc/self/maps").read_text("utf-8").splitlines()):
        raise click.ClickException("the store is still mapped here; its pages would count as shared")
    kinds: tuple[Kind, Kind] = ("store", "arrays")
    # This process has opened and read, so it has every module that the others might import on the way.
    modules = [name for name in sys.modules if not name.startswith("__")]
    result: dict[str, Any] = {}
    for kind in kinds:
        with (
            processes("nothing", count, store, bags, 0, modules) as idle,
            processes(kind, count, store, bags, wanted, modules) as busy,
        ):
            as_they_are = compare_pss(busy, idle, nbytes)
            busy.trim()
            idle.trim()
            result[kind] = as_they_are | {"trimmed": compare_pss(busy, idle, nbytes)}
    return result


def compare_pss(busy: Group, idle: Group, nbytes: int) -> dict[str, Any]:
    """What processes that read the data hold beyond those that did not."""
    base, held = idle.pss(), busy.pss()
    beyond = {name: held[name] - base[name] for name in held}
    return {
        "pss_bytes": held["Pss"],
        "baseline_bytes": base["Pss"],
        "beyond_bytes": beyond["Pss"],
        "beyond_file_bytes": beyond["Pss_File"],
        "beyond_anonymous_bytes": beyond["Pss_Anon"],
        "copies": beyond["Pss"] / nbytes,
    }


# --- command --------------------------------------------------------------------------------------------------


def check_room(scratch: Path, nbytes: int, count: int) -> None:
    """Refuse what would fill the disk or the memory: the data thrice, and `count` copies of arrays."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise click.ClickException("this needs Linux: /proc/PID/smaps_rollup says what processes share")
    free = shutil.disk_usage(scratch).free
    if 3.5 * nbytes > free:
        raise click.ClickException(
            f"{scratch} has {free / 1e9:.1f} GB free, {3.5 * nbytes / 1e9:.1f} are needed"
        )
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    available = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    needed = (count + 1.5) * nbytes
    if needed > available:
        raise click.ClickException(
            f"{available / 1e9:.1f} GB of memory are available, {needed / 1e9:.1f} are needed;"
            " choose fewer --gigabytes or --processes"
        )


def make_data(folder: Path, gigabytes: float) -> Path:
    """Made-up features of about that size, in videos of 30 to 200 snippets, a sixth of them test videos."""
    a_video = 4 * (5 * 1024 + 128) * (SHORTEST + LONGEST) // 2
    videos = max(4, round(gigabytes * 1e9 / a_video))
    tests = max(2, videos // 6)
    return write_demo(
        folder,
        train_videos=videos - tests,
        test_videos=tests,
        min_snippets=SHORTEST,
        max_snippets=LONGEST,
        progress=True,
    )


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.option("--gigabytes", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True)
@click.option("--processes", "count", type=click.IntRange(1), default=4, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True, help="Timed runs of each.")
@click.option("--conversions", type=click.IntRange(1), default=3, show_default=True, help="Timed ones.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of PyTorch.")
@click.option(
    "--scratch",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where to make the data; they are removed at the end [default: the system's temporary folder].",
)
@json_option
def main(
    gigabytes: float,
    count: int,
    repeats: int,
    conversions: int,
    threads: int,
    scratch: Path | None,
    json_path: Path | None,
) -> None:
    """Make the data, check, time, measure, print."""
    torch.set_num_threads(threads)
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="macil-store-", dir=scratch) as folder:
        check_room(Path(folder), int(gigabytes * 1e9), count)
        results = {"machine": machine} | run(Path(folder), gigabytes, count, repeats, conversions)
    titles = {"convert": "convert", "open": "open", "random": "read randomly", "sequential": "read in order"}
    size = results["size"]
    table = make_table(
        f"The store against .npy files in ms, {size['bytes'] / 1e9:.2f} GB, {size['videos']} videos",
        ["what", "way"],
        ["median", "min", "max", "GB/s", "ratio of\nmedians"],
    )
    for what, timings in results["seconds"].items():
        for name, timed in timings.items():
            table.add_row(
                titles[what],
                name,
                *(f"{1e3 * timed[of]:.1f}" for of in ("median", "fastest", "slowest")),
                f"{size['bytes'] / 1e9 / timed['median']:.2f}" if what != "open" else "-",
                f"{timed['median'] / timings[STORE]['median']:.2f}",
            )
        table.add_section()
    memory = make_table(
        f"Memory of {count} processes that have read everything, in MB",
        ["data in"],
        ["PSS", "PSS of as many\nthat opened nothing", "beyond", "copies of\nthe data", "copies,\ntrimmed"],
    )
    for kind, held in results["memory"].items():
        megabytes = [held[f"{name}_bytes"] / 1e6 for name in ("pss", "baseline", "beyond")]
        copies = [held["copies"], held["trimmed"]["copies"]]
        memory.add_row(kind, *(f"{value:.0f}" for value in megabytes), *(f"{value:.3f}" for value in copies))
    remark = (
        f"{results['compared_values']:,} values compared with the files, largest difference"
        f" {results['largest_difference']:.1e}; every process read the same bits."
    )
    finish([table, memory], [machine_line(machine), remark], results, json_path)


def run(folder: Path, gigabytes: float, count: int, repeats: int, conversions: int) -> dict[str, Any]:
    """Everything but the tables."""
    data = make_data(folder / "data", gigabytes)
    path = convert(data, folder / "store")
    store = FeatureStore.open(path)
    bags = list_bags(store, data)
    checked = check_values(store, bags)
    size = {
        "bytes": store.nbytes,
        "videos": len(store.videos("train")) + len(store.videos("test")),
        "bags": len(bags),
        "files": len(list_parts(bags)),
        "visual_rows": len(store.visual),
        "audio_rows": len(store.audio),
    }
    del store
    seconds = {
        "convert": time_conversion(data, list_parts(bags), folder, conversions),
        "open": time_opening(path, list_parts(bags), repeats),
        **time_reading(path, bags, repeats),
    }
    gc.collect()
    return {
        "size": size,
        **checked,
        "batch": BATCH,
        "repeats": repeats,
        "conversions": conversions,
        "seconds": seconds,
        "ratio_of_median": {what: ratios(timings, STORE) for what, timings in seconds.items()},
        "processes": count,
        "memory": measure_memory(count, path, bags, checked["checksum"], size["bytes"]),
    }


if __name__ == "__main__":
    main()
