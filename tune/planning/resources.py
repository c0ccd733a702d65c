"""The resources of this machine, and how many trials they hold."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """Processors and GPUs that this process may use."""

    cpus: int
    gpus: int


def this_machine() -> Machine:
    """Count what is here: the CPUs of this process's affinity and quota, the GPUs that PyTorch sees."""
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        min(cpus, _cpu_quota() or cpus), torch.cuda.device_count() if torch.cuda.is_available() else 0
    )


def _cpu_quota() -> int | None:
    """Whole CPUs of this control group's quota (containers), None without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period)) if quota != "max" else None
    except (OSError, ValueError):
        return None
