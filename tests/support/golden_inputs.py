"""The inputs behind `golden/released.json`, made from numpy seeds alone.

The figures are what the authors' released code (MIT licence) gives for these weights and this batch, in
float32 on a CPU with every dropout at 0. The order in which numbers are drawn is part of the recipe: do not
tidy it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support.repository import GOLDEN

HIDDEN = FEED_FORWARD = AUDIO_DIM = 128
VISUAL_DIM = 1024
Array = npt.NDArray[np.float32]
Shapes = dict[str, tuple[int, ...]]


def figures() -> dict[str, Any]:
    """The recorded figures."""
    path = GOLDEN / "released.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def released_shapes(
    *, visual_network: bool, hidden: int = HIDDEN, feed_forward: int = FEED_FORWARD
) -> Shapes:
    """Every tensor of one of the authors' networks, the modules they build and never call included."""
    shapes: Shapes = {}

    def affine(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (hidden,)

    for attention in ("multiheadattn", "cma.layer.self_attn"):
        for index in range(4):
            affine(f"{attention}.linears.{index}", hidden, hidden)
        norm(f"{attention}.layer_norm")
    for block in ("feedforward", "cma.layer.feed_forward"):
        affine(f"{block}.w_1", feed_forward, hidden)
        affine(f"{block}.w_2", hidden, feed_forward)
    for index in (0, 1):
        norm(f"cma.layer.sublayer.{index}.norm")
    affine("fc_v", hidden, VISUAL_DIM)
    if visual_network:
        affine("fc", 1, hidden)
    else:
        affine("fc_a", hidden, AUDIO_DIM)
        affine("att_mmil.fc", 1, hidden)
    return shapes


def released_weights(seed: int, *, visual_network: bool, head_bias: float | None = None) -> dict[str, Array]:
    """Tensors by the authors' names, drawn in order of name; the scale is 1 / sqrt(last dimension)."""
    rng = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for name, shape in sorted(released_shapes(visual_network=visual_network).items()):
        drawn = rng.normal(0.0, 1.0 / shape[-1] ** 0.5, shape).astype(np.float32)
        gain = "norm" in name and name.endswith(".weight")
        weights[name] = np.float32(1.0) + np.float32(0.1) * drawn if gain else drawn
    if head_bias is not None:
        weights["att_mmil.fc.bias"] = np.array([head_bias], dtype=np.float32)
    return weights


def two_stream_weights() -> dict[str, Array]:
    """The audio-visual network of the figures; its head bias puts some videos on either side of p = 0.5."""
    return released_weights(21, visual_network=False, head_bias=figures()["fc_bias"])


def visual_weights() -> dict[str, Array]:
    """The visual network of the figures."""
    return released_weights(22, visual_network=True)


def training_batch() -> tuple[Array, Array, npt.NDArray[np.int64], Array]:
    """Visual (16, T, 1024), audio (16, T, 128), lengths (16,), labels (16,); zeros after each length."""
    rng = np.random.default_rng(17)
    lengths = rng.integers(5, 150, 16)
    labels = np.tile(np.array([0.0, 1.0], dtype=np.float32), 8)
    visual = np.zeros((16, lengths.max(), VISUAL_DIM), dtype=np.float32)
    audio = np.zeros((16, lengths.max(), AUDIO_DIM), dtype=np.float32)
    for video, length in enumerate(lengths):
        shift = 0.2 * labels[video]
        visual[video, :length] = np.abs(rng.normal(0.0, 1.0, (length, VISUAL_DIM))) + shift
        audio[video, :length] = rng.normal(0.0, 1.0, (length, AUDIO_DIM)) + shift
    return visual, audio, lengths, labels


def five_crop_video() -> tuple[Array, Array]:
    """Five crops (5, 93, 1024) of one video and its audio (93, 128)."""
    rng = np.random.default_rng(5)
    visual = np.abs(rng.normal(0.0, 0.5, (5, 93, VISUAL_DIM))).astype(np.float32)
    return visual, rng.normal(0.0, 1.0, (93, AUDIO_DIM)).astype(np.float32)
