"""A trained network as a file for other programs, read back and compared before it gets its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from macil.errors import DataError, MacilError, UsageError
from macil.inference.formats import Format
from macil.inference.onnx_format import open_onnx, require_onnx, save_onnx
from macil.inference.released import load_released, to_released
from macil.inference.safetensors_format import SUFFIX, load_safetensors, save_safetensors
from macil.io.files import atomic_path
from macil.io.torch_files import dump_tensors
from macil.model import TwoStreamNetwork
from macil.model.random_numbers import make_generator

Scorer = Callable[[Tensor, Tensor], tuple[np.ndarray, np.ndarray]]
"""Visual (N, T, Dv) and audio (N, T, Da) features to scores and fused logits, each (N, T)."""

SHAPES = ((1, 1), (1, 7), (3, 16), (5, 33), (2, 200))
"""Videos and snippets of the random inputs that an export is compared on."""

_SUFFIX: dict[Format, str] = {"safetensors": SUFFIX, "onnx": ".onnx"}


class ExportError(MacilError):
    """An exported file does not score as the network does."""


class Parity(NamedTuple):
    """The largest differences between a network and its export, over `SHAPES`."""

    scores: float
    """Absolute."""
    logits: float
    """Absolute, relative for logits beyond 1: a saturated sigmoid would hide what is wrong."""


# Copies of the tensors must score alike to the last digit; another runtime adds in another order.
_TOLERANCE: dict[Format, Parity] = {
    "safetensors": Parity(0.0, 0.0),
    "onnx": Parity(1e-5, 1e-4),
    "released": Parity(0.0, 0.0),
}


def export_network(
    network: TwoStreamNetwork,
    to: Format,
    out: str | Path,
    origin: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> Parity:
    """Write `network` to the file `out`; what was written is read back and compared with it first.

    Args:
        network: On the CPU, in evaluation mode.
        to: `safetensors`: tensors, configuration and widths (`macil.inference.safetensors_format`). `onnx`: the graph
            (`macil.inference.onnx_format`). `released`: a weight file with all keys of the authors' network.
        out: Its name ends in .safetensors or .onnx for these two.
        origin: Plain values about the training, kept in the file where the format allows it.
        overwrite: Replace a file.

    Raises:
        UsageError: The name does not fit, the file exists, or a package of the extra is missing.
        DataError: The format cannot hold this network (`macil.inference.released.to_released`).
        ExportError: The file scores differently; it is not kept.
    """
    out = Path(out)
    suffix = _SUFFIX.get(to)
    if suffix and out.suffix != suffix:
        raise UsageError(f"--out {out}: the name of a file for --to {to} must end in {suffix}")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a file")
    if out.exists() and not overwrite:
        raise UsageError(f"--out {out} exists; name another file, or replace it with --overwrite")
    if to == "onnx":
        require_onnx()
    with atomic_path(out) as temporary:
        _save(network, to, temporary, origin or {})
        parity = compare(network, _open(network, to, temporary))
        _require_parity(parity, to)
    return parity


def compare(network: TwoStreamNetwork, scorer: Scorer) -> Parity:
    """How far `scorer` is from the network on random features of `SHAPES`; NaN where it gives one.

    Raises:
        DataError: The network itself gives no finite numbers.
        ExportError: `scorer` gives another shape.
    """
    expected_of = _scorer(network)
    generator = make_generator(0, "export")
    scores, logits = [], []
    for shape in SHAPES:
        visual, audio = (
            torch.randn(*shape, layer.in_features, generator=generator)
            for layer in (network.fc_v, network.fc_a)
        )
        expected = expected_of(visual, audio)
        if not np.isfinite(expected).all():
            raise DataError(
                "the network scores random features with no finite numbers: its weights are damaged"
            )
        found = scorer(visual, audio)
        if found[0].shape != shape or found[1].shape != shape:
            raise ExportError(f"the exported file gives scores of shape {found[0].shape} for {shape}")
        with np.errstate(
            invalid="ignore", over="ignore"
        ):  # of a damaged file the difference may be no number
            scores.append(np.abs(found[0] - expected[0]).max())
            logits.append((np.abs(found[1] - expected[1]) / np.maximum(np.abs(expected[1]), 1)).max())
    return Parity(float(np.max(scores)), float(np.max(logits)))


def _save(network: TwoStreamNetwork, to: Format, path: Path, origin: Mapping[str, Any]) -> None:
    if to == "safetensors":
        save_safetensors(network, path, origin)
    elif to == "onnx":
        save_onnx(network, path, origin)
    else:
        path.write_bytes(dump_tensors(to_released(network)))


def _open(network: TwoStreamNetwork, to: Format, path: Path) -> Scorer:
    if to == "onnx":
        return open_onnx(path)
    if to == "safetensors":
        return _scorer(load_safetensors(path).network)
    return _scorer(load_released(path, network.config.num_heads))


def _scorer(network: TwoStreamNetwork) -> Scorer:
    @torch.inference_mode()
    def score(visual: Tensor, audio: Tensor) -> tuple[np.ndarray, np.ndarray]:
        logits = network(visual, audio).fused_logits
        return torch.sigmoid(logits).numpy(), logits.numpy()

    return score


def _require_parity(parity: Parity, to: Format) -> None:
    limits = _TOLERANCE[to]
    # Written so that a NaN is refused.
    if not (parity.scores <= limits.scores and parity.logits <= limits.logits):
        raise ExportError(
            f"the {to} export scores differently from the network: by up to {parity.scores:.3g} in scores "
            f"(allowed: {limits.scores:g}) and {parity.logits:.3g} in logits (allowed: {limits.logits:g}); "
            "no file was written"
        )
