"""The audio-visual network as an ONNX graph, for runtimes without PyTorch.

Inputs `visual` (N, T, Dv) and `audio` (N, T, Da), float32, any N and T; outputs `scores` (N, T), the sigmoid of the
fused logits over all T snippets (the test rule), and `logits` (N, T). A video's score is the mean over its crops.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from macil.errors import UsageError
from macil.inference.safetensors_format import metadata_of
from macil.model import TwoStreamNetwork

OPSET = 20  # read by ONNX Runtime since 1.17 (2024)
_NEEDED = ("onnx", "onnxruntime", "onnxscript")


class _Scores(nn.Module):
    """The network under the test rule."""

    def __init__(self, network: TwoStreamNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(visual, audio).fused_logits
        return torch.sigmoid(logits), logits


def require_onnx() -> None:
    """Refuse, with the line that installs them, when a package of the extra is missing.

    Raises:
        UsageError: Names what is missing.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"exporting to ONNX needs {', '.join(missing)}; "
            "pip install --constraint constraints.txt --editable '.[export]'"
        )


def save_onnx(network: TwoStreamNetwork, path: Path, origin: Mapping[str, Any]) -> None:
    """Write the graph, with the metadata of a safetensors export as its properties.

    Raises:
        UsageError: A package of the extra is missing.
    """
    require_onnx()
    import onnx

    example = tuple(torch.zeros(2, 3, linear.in_features) for linear in (network.fc_v, network.fc_a))
    axes = {0: "videos", 1: "snippets"}
    with _quiet():
        program = torch.onnx.export(
            _Scores(network).eval(),
            example,
            input_names=["visual", "audio"],
            output_names=["scores", "logits"],
            opset_version=OPSET,
            dynamic_shapes={"visual": axes, "audio": axes},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_where_it_was_made(model.graph)
    onnx.helper.set_model_props(model, metadata_of(network, origin).to_texts())
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)


def open_onnx(path: Path) -> Callable[[Tensor, Tensor], tuple[np.ndarray, np.ndarray]]:
    """The graph of a file as a function from visual and audio features to scores and logits, on the CPU.

    Raises:
        UsageError: A package of the extra is missing.
    """
    require_onnx()
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(visual: Tensor, audio: Tensor) -> tuple[np.ndarray, np.ndarray]:
        scores, logits = session.run(["scores", "logits"], {"visual": visual.numpy(), "audio": audio.numpy()})
        return scores, logits

    return run


def _forget_where_it_was_made(graph: Any) -> None:
    """The exporter notes stack traces, with paths of this machine, on every node and value."""
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph):
        del item.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of what it chooses itself; none of it concerns the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
