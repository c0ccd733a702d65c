"""The plain way of writing a training step: the contestant that `benchmarks.training` times ours against.

It has the structure of the authors' released code: a pass a direction, a Python loop over the videos for every
selection, `nn.Dropout`, a backward pass and an optimiser a network, everything padded to the full width. That code cuts
a batch to its longest video; here nothing is cut, and at the published sizes nothing would be: nearly every batch has a
video of the full 200 snippets.

Axes: B videos, T snippets, d hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from macil.config import TrialConfig
from macil.model import AUDIO_DIM, VISUAL_DIM

RELEASED_INNER_DROPOUT = 0.1


class PlainBatch(NamedTuple):
    """A batch, padded with zeros."""

    visual: Tensor
    """(B, T, Dv)"""
    audio: Tensor
    """(B, T, Da)"""
    lengths: Tensor
    """(B,) int64"""
    labels: Tensor
    """(B,)"""


class Terms(NamedTuple):
    """The four contrastive terms before weighting, as `macil.objective.ContrastiveTerms`."""

    a2v_background: Tensor
    a2v_normal: Tensor
    v2a_background: Tensor
    v2a_normal: Tensor


class PlainAttention(nn.Module):
    """Multi-head attention, every step spelt out."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, other: Tensor) -> Tensor:
        """(B, T, d) over (B, T, d)."""
        parts = [query, other, other]
        q, k, v = (
            linear(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for linear, x in zip(self.linears, parts, strict=False)
        )
        weights = torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1)
        mixed = (self.dropout(weights) @ v).transpose(1, 2).reshape(query.shape)
        return self.linears[3](mixed)


class PlainFeedForward(nn.Module):
    """Two linear maps."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d)."""
        return self.w_2(self.dropout(torch.relu(self.w_1(x))))


class PlainResidual(nn.Module):
    """Norm first, dropout on the branch."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, T, d)."""
        return x + self.dropout(branch(self.norm(x)))


class PlainLayer(nn.Module):
    """One transformer layer of one direction."""

    def __init__(self, config: TrialConfig, inner_dropout: float) -> None:
        super().__init__()
        self.self_attn = PlainAttention(config.hidden_dim, config.num_heads, inner_dropout)
        self.feed_forward = PlainFeedForward(config.hidden_dim, config.feedforward_dim, inner_dropout)
        self.sublayer = nn.ModuleList(PlainResidual(config.hidden_dim, config.dropout) for _ in range(2))

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """(B, T, d) and (B, T, d)."""
        x = self.sublayer[0](own, lambda query: self.self_attn(query, other))
        return self.sublayer[1](x, self.feed_forward)


class PlainTwoStream(nn.Module):
    """The audio-visual network under the authors' parameter names."""

    def __init__(self, config: TrialConfig, inner_dropout: float) -> None:
        super().__init__()
        self.fc_v = nn.Linear(VISUAL_DIM, config.hidden_dim)
        self.fc_a = nn.Linear(AUDIO_DIM, config.hidden_dim)
        self.cma = nn.ModuleDict({"layer": PlainLayer(config, inner_dropout)})
        self.att_mmil = nn.ModuleDict({"fc": nn.Linear(config.hidden_dim, 1)})

    def forward(self, visual: Tensor, audio: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Embeddings (B, T, d), logits (B, T) and video probabilities (B,)."""
        f_v, f_a = self.fc_v(visual), self.fc_a(audio)
        h_v, h_a = self.cma["layer"](f_v, f_a), self.cma["layer"](f_a, f_v)
        l_v, l_a = self.att_mmil["fc"](h_v).squeeze(-1), self.att_mmil["fc"](h_a).squeeze(-1)
        p = probabilities(l_a + l_v, lengths)
        return {"h_v": h_v, "h_a": h_a, "l_v": l_v, "l_a": l_a, "p": p}


class PlainVisual(nn.Module):
    """The visual network under the authors' parameter names."""

    def __init__(self, config: TrialConfig, inner_dropout: float) -> None:
        super().__init__()
        self.fc_v = nn.Linear(VISUAL_DIM, config.hidden_dim)
        self.cma = nn.ModuleDict({"layer": PlainLayer(config, inner_dropout)})
        self.fc = nn.Linear(config.hidden_dim, 1)

    def forward(self, visual: Tensor, lengths: Tensor) -> Tensor:
        """Video probabilities (B,)."""
        f_v = self.fc_v(visual)
        return probabilities(self.fc(self.cma["layer"](f_v, f_v)).squeeze(-1), lengths)


def probabilities(logits: Tensor, lengths: Tensor) -> Tensor:
    """K-max pooling, video by video."""
    means = []
    for video in range(len(logits)):
        count = int(lengths[video]) // 16 + 1
        highest = torch.topk(logits[video, : lengths[video]], count).values
        means.append(highest.mean())
    return torch.sigmoid(torch.stack(means))


def contrastive_terms(output: dict[str, Tensor], lengths: Tensor, temperature: float) -> Terms:
    """Violent against background and against normal, both directions, selections video by video."""
    zero = output["p"].new_zeros(())
    bags: dict[str, dict[str, list[Tensor]]] = {}
    # As released: the logits of one stream select among the embeddings of the other.
    for stream, logits, embeddings in (("a", "l_a", "h_v"), ("v", "l_v", "h_a")):
        kinds: dict[str, list[Tensor]] = {"violent": [], "normal": [], "background": []}
        for video in range(len(lengths)):
            length = int(lengths[video])
            count = length // 16 + 1
            scores = torch.sigmoid(output[logits][video, :length])
            highest = output[embeddings][video, torch.topk(scores, count).indices]
            lowest = output[embeddings][video, torch.topk(scores, count, largest=False).indices]
            if output["p"][video] > 0.5:
                kinds["violent"].append(highest.mean(0, keepdim=True).repeat(count, 1))
            else:
                kinds["normal"].append(highest)
            kinds["background"].append(lowest)
        bags[stream] = kinds
    if not bags["a"]["violent"] or not bags["a"]["normal"]:
        return Terms(zero, zero, zero, zero)
    terms = []
    for own, other in (("a", "v"), ("v", "a")):
        query = nn.functional.normalize(torch.cat(bags[own]["violent"]), dim=-1)
        positive = nn.functional.normalize(torch.cat(bags[other]["violent"]), dim=-1)
        near = (query * positive).sum(-1, keepdim=True) / temperature
        for kind in ("background", "normal"):
            negatives = nn.functional.normalize(torch.cat(bags[other][kind]), dim=-1)
            scores = torch.cat([near, query @ negatives.T / temperature], dim=1)
            target = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
            terms.append(nn.functional.cross_entropy(scores, target))
    return Terms(*terms)


class Losses(NamedTuple):
    """What a batch gives."""

    mil: Tensor
    terms: Terms
    total: Tensor
    """Of the audio-visual network, weighted"""
    visual: Tensor
    """Of the visual network"""


class Reference:
    """The reference's two networks and optimisers, and its step.

    Args:
        config: What is trained.
        epoch: The contrastive weights are those of this epoch, from 0.
        device: Where; networks start in training mode.
    """

    def __init__(self, config: TrialConfig, epoch: int, device: torch.device) -> None:
        inner = config.dropout if config.dropout_everywhere else RELEASED_INNER_DROPOUT
        self.config, self.epoch = config, epoch
        self.network = PlainTwoStream(config, inner).to(device)
        self.visual_network = PlainVisual(config, inner).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.visual_optimizer = torch.optim.Adam(
            self.visual_network.parameters(), lr=config.visual_learning_rate
        )

    def losses(self, batch: PlainBatch) -> Losses:
        """The two networks' losses on the batch."""
        output = self.network(batch.visual, batch.audio, batch.lengths)
        labels = batch.labels.to(output["p"].dtype)
        terms = contrastive_terms(output, batch.lengths, self.config.temperature)
        mil = nn.functional.binary_cross_entropy(output["p"], labels)
        grown = self.config.ramp * self.epoch
        total = mil + min(grown, self.config.lambda_v2b) * (terms.a2v_background + terms.v2a_background)
        total = total + min(grown, self.config.lambda_v2n) * (terms.a2v_normal + terms.v2a_normal)
        p = self.visual_network(batch.visual, batch.lengths)
        return Losses(mil, terms, total, nn.functional.binary_cross_entropy(p, labels))

    def step(self, batch: PlainBatch) -> None:
        """One step: a backward pass and an optimiser for each network."""
        losses = self.losses(batch)
        pairs = ((losses.total, self.optimizer), (losses.visual, self.visual_optimizer))
        for loss, optimizer in pairs:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def train_epoch(self, batches: Iterable[PlainBatch]) -> None:
        """A step for every batch."""
        for batch in batches:
            self.step(batch)
