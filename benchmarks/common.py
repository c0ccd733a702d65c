"""What the benchmarks share: options, the machine in words, taking turns, tables, results."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from macil.io.files import write_json_atomic

_LOG_WIDTH = 165

Seconds = dict[str, float]
"""Median, fastest and slowest run of one contestant; on a GPU also its peak memory."""

device_option = click.option(
    "--device", "device_name", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True
)
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="CPU threads.  [default: PyTorch's choice]"
)
json_option = click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write results here."
)


def prepare(device_name: str, threads: int | None) -> torch.device:
    """Set the CPU threads; the device that was asked for.

    Raises:
        click.UsageError: There is no GPU.
    """
    if device_name == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda was asked for, but PyTorch sees no GPU here")
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.device(device_name)


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """The machine and the versions that figures belong to; `load` is the queue of processes before the run."""
    gpu = device is not None and device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if gpu else _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def machine_line(machine: Mapping[str, Any]) -> str:
    """`describe_machine` in one line, for a table's title."""
    return (
        f"{machine['device']} ({machine['cpu_capability']}), {machine['cpus']} CPUs, load {machine['load']}, "
        f"torch {machine['torch']} on {machine['threads']} threads, numpy {machine['numpy']}"
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def take_turns(
    variants: Mapping[str, Callable[[], Any]],
    repeats: int,
    warmup: int = 1,
    before: Callable[[], Any] | None = None,
    device: torch.device | None = None,
) -> dict[str, Seconds]:
    """Seconds a run of every contestant.

    They take turns, so that a busy machine is busy for all of them, and each turn begins with another one.

    Args:
        variants: What to time, by name.
        repeats: Timed turns.
        warmup: Untimed turns before.
        before: Called before every run, untimed.
        device: Waited for before and after every run; a GPU's peak memory is added as `peak_mib`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    peaks: dict[str, Seconds] = {name: {} for name in variants}
    names = list(variants)
    for turn in range(warmup + repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if before is not None:
                before()
            wait_for(device, reset_peak=True)
            started = time.perf_counter()
            variants[name]()
            wait_for(device)
            elapsed = time.perf_counter() - started
            if turn >= warmup:
                seconds[name].append(elapsed)
                peaks[name] = _highest(peaks[name], device)
    return {
        name: {"median": statistics.median(values), "fastest": min(values), "slowest": max(values)}
        | peaks[name]
        for name, values in seconds.items()
    }


def wait_for(device: torch.device | None, *, reset_peak: bool = False) -> None:
    """Wait until a GPU has finished its queue; nothing elsewhere."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        if reset_peak:
            torch.cuda.reset_peak_memory_stats(device)


def _highest(peak: Seconds, device: torch.device | None) -> Seconds:
    if device is None or device.type != "cuda":
        return {}
    return {"peak_mib": max(peak.get("peak_mib", 0.0), torch.cuda.max_memory_allocated(device) / 2**20)}


def ratios(seconds: Mapping[str, Seconds], ours: str, of: str = "median") -> dict[str, float]:
    """How many times as long as `ours` each of the others takes."""
    return {name: timed[of] / seconds[ours][of] for name, timed in seconds.items() if name != ours}


def in_ms(seconds: float) -> str:
    """Milliseconds in few digits."""
    ms = 1e3 * seconds
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.2f}"


def make_table(title: str, texts: Iterable[str], numbers: Iterable[str]) -> Table:
    """An empty table of text columns, then columns of numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title)
    for column in texts:
        table.add_column(column, no_wrap=True)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def finish(
    tables: Iterable[Table], remarks: Iterable[str], results: Mapping[str, Any], json_path: Path | None
) -> None:
    """Print tables and remarks; write the results where a path was given."""
    # A log has no width of its own.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_LOG_WIDTH)
    for table in tables:
        console.print(table)
    for remark in remarks:
        console.print(remark)
    if json_path is not None:
        write_json_atomic(json_path, results)
