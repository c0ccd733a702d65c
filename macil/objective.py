"""The training objective: K-max MIL loss and modality-aware contrastive instance learning (MA-CIL).

Both work on the output tuple of any two-stream network; `macil.training.fused_step` gives them the selected snippets
alone.
Axes: B bags, T snippets, d embedding width, K selected snippets of a bag, N negatives; an axis of stacked networks may
come first. Everything is vectorised over the batch and free of host syncs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from macil.config import StepSwitches, TrialConfig
from macil.errors import DataError
from macil.loss_weights import loss_weights
from macil.model.networks import NetworkOutput
from macil.model.pooling import bottom_k, bottom_k_of_batch, full_precision, selected_count, top_k

__all__ = [
    "ContrastiveTerms",
    "SemiBags",
    "bottom_k",
    "contrastive_terms",
    "loss_parts",
    "mil_loss",
    "objective",
    "select_semi_bags",
    "top_k",
    "total_loss",
]


class ContrastiveTerms(NamedTuple):
    """The four InfoNCE terms of eq. 5, 6 and 8, each a scalar; a2v: the query stands for the audio stream."""

    a2v_background: Tensor
    a2v_normal: Tensor
    v2a_background: Tensor
    v2a_normal: Tensor


class SemiBags(NamedTuple):
    """Embeddings of the snippets that one stream's logits select."""

    highest: Tensor
    """(..., B, K, d): the highest of every bag"""
    highest_valid: Tensor
    """(..., B, K) bool"""
    lowest: Tensor
    """(..., N, d): the background, of all bags"""
    lowest_valid: Tensor
    """(..., N) bool"""


def objective(
    output: NetworkOutput, labels: Tensor, config: TrialConfig, epoch: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the audio-visual network (eq. 8).

    Args:
        output: What the network gave for the batch.
        labels: (B,) video labels, 1 violent, 0 normal.
        config: `contrast`, `lambda_v2b`, `lambda_v2n`, `ramp`, `temperature` and the objective's switches.
        epoch: Epoch t from 0, as in eq. 9.

    Returns:
        The total, a scalar, and its parts before weighting: `loss_mil`, `loss_v2b`, `loss_v2n` (each the sum of both
        directions; zero where `config.contrast` is off).

    Raises:
        DataError: The shapes of the output and of the labels disagree; says which.
    """
    _require_shapes(output, labels)
    semi_bags = select_semi_bags(output, config) if config.contrast else None
    parts = loss_parts(output.video_logits, labels, output.lengths, semi_bags, config, config.temperature)
    total = total_loss(parts, loss_weights(config, epoch))
    return total, dict(zip(("loss_mil", "loss_v2b", "loss_v2n"), parts, strict=True))


def total_loss(parts: Sequence[Tensor], weights: Sequence[float] | Sequence[Tensor]) -> Tensor:
    """Eq. 8: loss_mil + λ_v2b(t) loss_v2b + λ_v2n(t) loss_v2n, for the `parts` of `loss_parts`, each (...).

    `objective` and the training step (`macil.training.engine`) both weight by this function; a step gives the weights
    as tensors, so that a recorded step reads those of its epoch.
    """
    loss_mil, loss_v2b, loss_v2n = parts
    weight_v2b, weight_v2n = weights
    return loss_mil + (weight_v2b * loss_v2b + weight_v2n * loss_v2n)


def _require_shapes(output: NetworkOutput, labels: Tensor) -> None:
    """Refuse what would be broadcast."""
    bags, snippets = output.video_logits.shape, output.visual_logits.shape
    wanted = {
        "visual_logits": (*bags, snippets[-1] if snippets else 0),
        "audio_logits": tuple(snippets),
        "fused_logits": tuple(snippets),
        "visual_embeddings": (*snippets, output.visual_embeddings.shape[-1]),
        "audio_embeddings": tuple(output.visual_embeddings.shape),
        "lengths": tuple(bags),
        "labels": tuple(bags),
    }
    given = {**output._asdict(), "labels": labels}
    found = {name: tuple(given[name].shape) for name in wanted}
    wrong = [f"{name} {found[name]}, not {shape}" for name, shape in wanted.items() if found[name] != shape]
    if wrong:
        raise DataError(f"for video logits of shape {tuple(bags)} these shapes disagree: {'; '.join(wrong)}")


def loss_parts(
    video_logits: Tensor,
    labels: Tensor,
    lengths: Tensor,
    semi_bags: tuple[SemiBags, SemiBags] | None,
    config: TrialConfig | StepSwitches,
    temperature: float | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """`loss_mil`, `loss_v2b` and `loss_v2n` before weighting, each (...).

    Args:
        video_logits, labels, lengths: (..., B).
        semi_bags: Those of the visual and of the audio logits; None without contrast: both terms are zero then.
        config: The objective's switches.
        temperature: Of InfoNCE; a tensor where it must not be a constant of a compiled step.
    """
    loss_mil = mil_loss(video_logits, labels)
    if semi_bags is None:
        return loss_mil, torch.zeros_like(loss_mil), torch.zeros_like(loss_mil)
    terms = contrastive_terms(video_logits, lengths, *semi_bags, config, temperature)
    return loss_mil, terms.a2v_background + terms.v2a_background, terms.a2v_normal + terms.v2a_normal


def mil_loss(video_logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the video logits (..., B) with the video labels (..., B), mean over the bags, (...)."""
    logits = full_precision(video_logits)
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(-1)


def select_semi_bags(output: NetworkOutput, config: TrialConfig | StepSwitches) -> tuple[SemiBags, SemiBags]:
    """The semi-bags of the visual and of the audio logits.

    In the released code either stream's logits select among the other stream's embeddings (`stream_swap`).
    """
    visual, audio = output.visual_embeddings, output.audio_embeddings
    if config.stream_swap:
        visual, audio = audio, visual
    return (
        _semi_bags(output.visual_logits, visual, output.lengths, config),
        _semi_bags(output.audio_logits, audio, output.lengths, config),
    )


def _semi_bags(
    logits: Tensor, embeddings: Tensor, lengths: Tensor, config: TrialConfig | StepSwitches
) -> SemiBags:
    indices, valid = top_k(logits, lengths)
    highest = torch.take_along_dim(embeddings, indices[..., None], -2)  # (..., B, K, d)
    if config.background_pool == "batch":
        lowest, lowest_valid = bottom_k_of_batch(logits, lengths)
        background = torch.take_along_dim(embeddings.flatten(-3, -2), lowest[..., None], -2)
        return SemiBags(highest, valid, background, lowest_valid)
    lowest, lowest_valid = bottom_k(logits, lengths)
    background = torch.take_along_dim(embeddings, lowest[..., None], -2)
    return SemiBags(highest, valid, background.flatten(-3, -2), lowest_valid.flatten(-2))


def contrastive_terms(
    video_logits: Tensor,
    lengths: Tensor,
    visual: SemiBags,
    audio: SemiBags,
    config: TrialConfig | StepSwitches,
    temperature: float | Tensor,
) -> ContrastiveTerms:
    """The four contrastive terms of MA-CIL (sec. 4.2), each (...).

    A video is violent when its predicted p > 0.5, else normal; its K highest snippets form its semi-bag. Query and
    positive are the mean embeddings of a violent video's two semi-bags; negatives are single snippets of the positive's
    stream: the semi-bags of all normal videos, or the lowest snippets (background). Without a violent or without a
    normal video all four terms are 0 (released code; the paper does not say).

    Args:
        video_logits, lengths: (..., B).
        visual, audio: See `select_semi_bags`.
        config, temperature: See `loss_parts`.
    """
    violent = torch.sigmoid(full_precision(video_logits)) > 0.5  # (..., B)
    weight = violent.to(full_precision(audio.highest).dtype)
    if config.bag_weighting == "snippet":
        weight = weight * selected_count(lengths)
    # 0 / 1 instead of 0 / 0 without a violent video; a batch without normal ones is silenced too.
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1) * (~violent).any(-1, keepdim=True)

    sides = [_normalise(bags, violent) for bags in (audio, visual)]
    terms = []
    for query, other in (sides, reversed(sides)):
        for negatives, counted in (other.background, other.normal):
            loss = _info_nce(query.violent, other.violent, negatives, counted, temperature)
            terms.append((weight * loss).sum(-1))
    return ContrastiveTerms(*terms)


class _Side(NamedTuple):
    """One stream's part in the terms, all embeddings of unit length."""

    violent: Tensor  # (..., B, d): mean over each video's K highest
    normal: tuple[Tensor, Tensor]  # embeddings (..., N, d) and which of them count (..., N)
    background: tuple[Tensor, Tensor]


def _normalise(bags: SemiBags, violent: Tensor) -> _Side:
    highest = full_precision(bags.highest)
    mean = (highest * bags.highest_valid[..., None]).sum(-2) / bags.highest_valid.sum(-1, keepdim=True)
    normal = (bags.highest_valid & ~violent[..., None]).flatten(-2)
    return _Side(
        _unit(mean),
        (_unit(highest).flatten(-3, -2), normal),
        (_unit(full_precision(bags.lowest)), bags.lowest_valid),
    )


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1, eps=1e-8)


def _info_nce(
    query: Tensor, positive: Tensor, negatives: Tensor, counted: Tensor, temperature: float | Tensor
) -> Tensor:
    """Eq. 5 and 6 for every query (..., B, d) against its positive (..., B, d) and the shared negatives (..., N, d).

    All of unit length; the result is (..., B).
    """
    near = (query * positive).sum(-1, keepdim=True) / temperature  # (..., B, 1)
    with _no_autocast(query.device):  # a cosine in half precision is off by 0.004, and is divided by tau
        far = (query @ negatives.mT / temperature).masked_fill(
            ~counted[..., None, :], -torch.inf
        )  # (..., B, N)
    return torch.logsumexp(torch.cat([near, far], -1), -1) - near.squeeze(-1)


def _no_autocast(device: torch.device) -> AbstractContextManager[object]:
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
