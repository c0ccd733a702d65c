"""The training objective: K-max MIL loss and modality-aware contrastive instance learning (MA-CIL).

Both work on the output tuple of any two-stream network. Axes: B bags, T snippets, d embedding width, K selected
snippets of a bag, N negatives. Everything is vectorised over the batch and free of host syncs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from macil.config import TrialConfig
from macil.model.networks import NetworkOutput
from macil.model.pooling import bottom_k, bottom_k_of_batch, full_precision, selected_count, top_k

__all__ = [
    "ContrastiveTerms",
    "bottom_k",
    "contrastive_terms",
    "mil_loss",
    "objective",
    "ramp_weight",
    "top_k",
]


class ContrastiveTerms(NamedTuple):
    """The four InfoNCE terms of eq. 5, 6 and 8, each a scalar; a2v: the query stands for the audio stream."""

    a2v_background: Tensor
    a2v_normal: Tensor
    v2a_background: Tensor
    v2a_normal: Tensor


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
    """
    loss_mil = mil_loss(output.video_logits, labels)
    if not config.contrast:
        zero = torch.zeros_like(loss_mil)
        return loss_mil, {"loss_mil": loss_mil, "loss_v2b": zero, "loss_v2n": zero}
    terms = contrastive_terms(output, config)
    loss_v2b = terms.a2v_background + terms.v2a_background
    loss_v2n = terms.a2v_normal + terms.v2a_normal
    total = (
        loss_mil
        + ramp_weight(epoch, config.ramp, config.lambda_v2b) * loss_v2b
        + ramp_weight(epoch, config.ramp, config.lambda_v2n) * loss_v2n
    )
    return total, {"loss_mil": loss_mil, "loss_v2b": loss_v2b, "loss_v2n": loss_v2n}


def mil_loss(video_logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the video logits (B,) with the video labels (B,), mean over the bags."""
    logits = full_precision(video_logits)
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def ramp_weight(epoch: int, ramp: float, maximum: float) -> float:
    """lambda(t) = min(r t, maximum), t from 0 (eq. 9)."""
    return min(ramp * epoch, maximum)


def contrastive_terms(output: NetworkOutput, config: TrialConfig) -> ContrastiveTerms:
    """The four contrastive terms of MA-CIL (sec. 4.2).

    A video is violent when its predicted p > 0.5, else normal; its K highest snippets form its semi-bag. Query and
    positive are the mean embeddings of a violent video's two semi-bags; negatives are single snippets of the positive's
    stream: the semi-bags of all normal videos, or the lowest snippets (background). Without a violent or without a
    normal video all four terms are 0 (released code; the paper does not say).
    """
    violent = torch.sigmoid(full_precision(output.video_logits)) > 0.5  # (B,)
    visual, audio = output.visual_embeddings, output.audio_embeddings
    if config.stream_swap:
        # In the released code either stream's logits select among the other stream's embeddings.
        visual, audio = audio, visual
    visual_bags = _semi_bags(output.visual_logits, visual, output.lengths, violent, config)
    audio_bags = _semi_bags(output.audio_logits, audio, output.lengths, violent, config)

    weight = violent.to(audio_bags.violent.dtype)
    if config.bag_weighting == "snippet":
        weight = weight * selected_count(output.lengths)
    # 0 / 1 instead of 0 / 0 without a violent video; a batch without normal ones is silenced too.
    weight = weight / weight.sum().clamp(min=1) * (~violent).any()

    terms = []
    for query, other in ((audio_bags, visual_bags), (visual_bags, audio_bags)):
        for negatives in (other.background, other.normal):
            loss = _info_nce(query.violent, other.violent, *negatives, config.temperature)
            terms.append((weight * loss).sum())
    return ContrastiveTerms(*terms)


class _SemiBags(NamedTuple):
    violent: Tensor  # (B, d): mean over each video's K highest
    normal: tuple[Tensor, Tensor]  # embeddings (N, d) and which of them count (N,)
    background: tuple[Tensor, Tensor]


def _semi_bags(
    logits: Tensor, embeddings: Tensor, lengths: Tensor, violent: Tensor, config: TrialConfig
) -> _SemiBags:
    embeddings = full_precision(embeddings)
    indices, valid = top_k(logits, lengths)
    highest = torch.take_along_dim(embeddings, indices[..., None], 1)  # (B, K, d)
    mean = (highest * valid[..., None]).sum(1) / selected_count(lengths)[:, None]
    normal = highest.flatten(0, 1), (valid & ~violent[:, None]).flatten()
    if config.background_pool == "batch":
        indices, valid = bottom_k_of_batch(logits, lengths)
        background = embeddings.flatten(0, 1)[indices], valid
    else:
        indices, valid = bottom_k(logits, lengths)
        background = torch.take_along_dim(embeddings, indices[..., None], 1).flatten(0, 1), valid.flatten()
    return _SemiBags(mean, normal, background)


def _info_nce(
    query: Tensor, positive: Tensor, negatives: Tensor, counts: Tensor, temperature: float
) -> Tensor:
    """Eq. 5 and 6 for every query (B, d) against its positive (B, d) and the shared negatives (N, d), (B,)."""
    query, positive, negatives = (F.normalize(x, dim=-1, eps=1e-8) for x in (query, positive, negatives))
    near = (query * positive).sum(-1, keepdim=True) / temperature  # (B, 1)
    with _no_autocast(query.device):  # a cosine in half precision is off by 0.004, and is divided by tau
        far = (query @ negatives.T / temperature).masked_fill(~counts, -torch.inf)  # (B, N)
    return torch.logsumexp(torch.cat([near, far], 1), 1) - near.squeeze(1)


def _no_autocast(device: torch.device) -> AbstractContextManager[object]:
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
