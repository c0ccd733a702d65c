"""How a step is run: as it is written, compiled, or recorded once and replayed.

On an accelerator a step of this small model is a few hundred kernels of microseconds each, and launching them takes
longer than running them. A CUDA graph launches a whole step at once; compiling merges its kernels. Both want fixed
shapes, and neither may read a value on the host, which the steps keep to on every device. Where one of them cannot be
had (no compiler, a driver that refuses) the next simpler one is used, and a warning says so.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from macil.training.fused_step import step_losses

_LOG = logging.getLogger(__name__)
# Steps run one by one before a graph is recorded: libraries choose and load their kernels in them.
_WARMUP = 3
# Combinations of shapes that a process may compile.
_SHAPES = 64


@functools.cache
def compiled_losses(backend: str = "inductor") -> Callable[..., Tensor]:
    """`step_losses`, compiled for fixed shapes, once a process: trials of the same shapes share it."""
    import torch._dynamo  # late: it takes seconds, and only compiling needs it

    # A worker meets more combinations of shapes than the 8 that are allowed by default: widths, batches, data sets.
    torch._dynamo.config.recompile_limit = _SHAPES
    return torch.compile(step_losses, backend=backend, dynamic=False, fullgraph=True)


class Accelerator:
    """Runs the steps of one engine.

    Args:
        device: Where.
        enabled: False runs every step as it is written.
    """

    def __init__(self, device: torch.device, *, enabled: bool = True) -> None:
        self._device = device
        self._graph_wanted = self._compile_wanted = enabled and device.type == "cuda"
        self._whole = True
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._output: Tensor | None = None

    @property
    def mode(self) -> str:
        """The mode really used, known after some steps: "eager", "compiled", "graph" or "compiled graph"."""
        parts = ["compiled"] if self._compile_wanted else []
        return " ".join([*parts, "graph"] if self._graph is not None else parts) or "eager"

    def run(self, step: Callable[..., Tensor], inputs: tuple[Tensor, ...], *, whole: bool) -> Tensor:
        """`step(*inputs)`, from a recording where there can be one.

        Args:
            step: Always the same function; all its effects are on tensors of the device.
            inputs: Tensors of the device.
            whole: Whether the shapes are those of every step but the last of an epoch; others run as they are.

        Returns:
            What the step gives; overwritten by the next call.
        """
        # Compiling for the odd batch at an epoch's end would take longer than it saves.
        self._whole = whole
        if not self._graph_wanted or not whole:
            return step(*inputs)
        if self._graph is None:
            if self._steps < _WARMUP:
                self._steps += 1
                return self._warm_up(step, inputs)
            if not self._record(step, inputs):
                return step(*inputs)
        assert self._graph is not None
        assert self._output is not None
        for static, given in zip(self._inputs, inputs, strict=True):
            static.copy_(given)
        self._graph.replay()
        return self._output

    def losses(self, *arguments: Any) -> Tensor:
        """`macil.training.fused_step.step_losses`, compiled where that can be had."""
        if not self._compile_wanted or not self._whole:
            return step_losses(*arguments)
        try:
            return compiled_losses()(*arguments)
        except Exception as error:
            # Compilers fail in as many ways as there are machines; a step that is at fault itself fails again below.
            if torch.cuda.is_current_stream_capturing():
                raise
            self._compile_wanted = False
            _LOG.warning("steps are not compiled: %s", _first_line(error))
            return step_losses(*arguments)

    def _warm_up(self, step: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        # On another stream than the default, as recording will be.
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            result = step(*inputs)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        return result

    def _record(self, step: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> bool:
        self._inputs = tuple(given.clone() for given in inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            # Nothing is computed while recording: no state changes, whether it works or not.
            with torch.cuda.graph(graph):
                self._output = step(*self._inputs)
        except Exception as error:
            self._graph_wanted = False
            _LOG.warning("steps are not recorded as a CUDA graph: %s", _first_line(error))
            return False
        self._graph = graph
        return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
