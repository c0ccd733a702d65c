"""What the digits of a training depend on, written down so that it can be run again."""

from __future__ import annotations

import platform
from typing import Any

import torch

from macil import __version__

# 2: dropout and shuffle from counter-based numbers; lockstep groups.
FORMAT_VERSION = 2


def describe_environment(device: torch.device, threads: int) -> dict[str, Any]:
    """The part of a record that comes from the machine: equal environments give equal digits."""
    gpu = device.type == "cuda"
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if gpu else platform.machine(),
        "threads": threads,
        "torch_version": str(torch.__version__),  # a str subclass that weights_only refuses
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "macil_version": __version__,
    }
