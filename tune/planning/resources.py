"""The resources of this machine, and how many trials they hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path


class Machine:
    """Processors and GPUs that this process may use."""

    def __init__(self, cpus: int, gpus: int | Callable[[], int]) -> None:
        """Keep the numbers; GPUs that have to be counted are counted when they are asked for."""
        self.cpus = cpus
        self._gpus = gpus

    @cached_property
    def gpus(self) -> int:
        """How many GPUs."""
        return self._gpus if isinstance(self._gpus, int) else self._gpus()


def this_machine() -> Machine:
    """What is here: the CPUs of this process's affinity and quota, the GPUs that PyTorch sees."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(min(cpus, _cpu_quota() or cpus), _gpus_of_torch)


def _gpus_of_torch() -> int:
    import torch  # late: an option that is refused should not wait for it

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _cpu_quota() -> int | None:
    """Whole CPUs of this control group's quota (containers), None without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period)) if quota != "max" else None
    except (OSError, ValueError):
        return None
