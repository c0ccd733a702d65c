"""Self-distillation: the visual network's knowledge is infused into the audio-visual network (sec. 4.3)."""

from __future__ import annotations

import math

import torch
from torch import nn


def momentum_at(epoch: int, initial: float, period: int = 50) -> float:
    """M = 1 + (initial - 1) (1 + cos(pi epoch / period)) / 2: from `initial` at epoch 0 to 1 at `period`.

    `period` is a constant of the released code (50), whatever its number of epochs.
    """
    return 1 + 0.5 * (initial - 1) * (1 + math.cos(math.pi * epoch / period))


@torch.no_grad()
def infuse(student: nn.Module, teacher: nn.Module, momentum: float) -> list[str]:
    """theta_student = m theta_student + (1 - m) theta_teacher, in place, for parameters of the same name (eq. 7).

    Works on any two modules; optimiser state is not touched.

    Returns:
        The names infused.

    Raises:
        ValueError: A name is shared but the shapes differ, or nothing is shared.
    """
    twins = dict(teacher.named_parameters())
    infused = []
    for name, parameter in student.named_parameters():
        if name not in twins:
            continue
        if parameter.shape != twins[name].shape:
            raise ValueError(
                f"cannot infuse {name}: {tuple(parameter.shape)} and {tuple(twins[name].shape)} differ"
            )
        parameter.mul_(momentum).add_(twins[name], alpha=1 - momentum)
        infused.append(name)
    if not infused:
        raise ValueError("the two networks share no parameter name; there is nothing to infuse")
    return infused
