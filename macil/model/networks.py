"""The two networks of MACIL-SD: the audio-visual two-stream network and the visual network it learns from.

Axes: B bags, T snippets, d hidden width, Dv and Da widths of the visual and audio features.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from macil.config import TrialConfig
from macil.model.attention import AttentionLayer
from macil.model.dropout import DropoutSource
from macil.model.pooling import full_precision, k_max_mean
from macil.random import make_generator

VISUAL_DIM = 1024  # I3D RGB
AUDIO_DIM = 128  # VGGish


class NetworkOutput(NamedTuple):
    """What MA-CIL needs to know of a two-stream network, any network."""

    visual_embeddings: Tensor
    """(B, T, d)"""
    audio_embeddings: Tensor
    """(B, T, d)"""
    visual_logits: Tensor
    """(B, T)"""
    audio_logits: Tensor
    """(B, T)"""
    fused_logits: Tensor
    """(B, T)"""
    video_logits: Tensor
    """(B,); p = sigmoid of it (eq. 4)"""
    lengths: Tensor
    """(B,) int64, valid snippets of each bag"""


class VisualOutput(NamedTuple):
    """What the visual network gives."""

    logits: Tensor
    """(B, T)"""
    video_logits: Tensor
    """(B,)"""
    lengths: Tensor
    """(B,) int64"""


class _Network(nn.Module):
    """What both networks share: dropout from an own generator, initialisation, key masks."""

    def __init__(self, config: TrialConfig) -> None:
        super().__init__()
        self.config = config
        self._source = DropoutSource(make_generator(config.seed, type(self).__name__ + "/dropout"))

    @property
    def dropout_generator(self) -> torch.Generator:
        """Where every dropout mask of this network comes from; must live on the network's device."""
        return self._source.generator

    @dropout_generator.setter
    def dropout_generator(self, generator: torch.Generator) -> None:
        self._source.generator = generator

    def _initialise(self, generator: torch.Generator | None) -> None:
        """PyTorch's default initialisation, drawn from `generator` (on the CPU) and so alike on every device."""
        generator = generator or make_generator(self.config.seed, type(self).__name__ + "/init")
        for module in self.modules():
            if isinstance(module, nn.Linear) and not module.weight.is_meta:
                bound = 1 / math.sqrt(module.in_features)
                with torch.no_grad():
                    module.weight.uniform_(-bound, bound, generator=generator)
                    module.bias.uniform_(-bound, bound, generator=generator)
        if self.config.identical_projections:
            for layer in self.modules():
                if isinstance(layer, AttentionLayer):
                    first = layer.attention.query
                    for other in (layer.attention.key, layer.attention.value, layer.attention.output):
                        other.load_state_dict(first.state_dict())

    def _key_mask(self, lengths: Tensor, snippets: int) -> Tensor | None:
        """Which keys training attends to, (B or 1, T) bool; None for all.

        The released code cuts a batch to its longest valid length and attends to padding up to there; with batches of
        a fixed width, keys beyond the longest are masked instead, which gives the same numbers.
        """
        last = lengths if self.config.mask_padding else lengths.amax(0, keepdim=True)
        if last.device.type == "cpu" and bool((last == snippets).all()):
            return (
                None  # a pass over all attention weights saved; on a GPU the question alone would cost a sync
            )
        return torch.arange(snippets, device=lengths.device) < last[:, None]


class TwoStreamNetwork(_Network):
    """The audio-visual network: two projections, one attention layer for both directions, logit heads (sec. 4.1).

    Args:
        config: Widths, heads, dropout and the switches `shared_head`, `identical_projections`, `mask_padding`,
            `dropout_everywhere`.
        visual_dim: Width Dv of the visual features.
        audio_dim: Width Da of the audio features.
        generator: Source of the initial weights, on the CPU; by default seeded from `config.seed`.
    """

    def __init__(
        self,
        config: TrialConfig,
        visual_dim: int = VISUAL_DIM,
        audio_dim: int = AUDIO_DIM,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(config)
        with torch.random.fork_rng(devices=[]):  # module constructors would advance the global generator
            self.fc_v = nn.Linear(visual_dim, config.hidden_dim)
            self.fc_a = nn.Linear(audio_dim, config.hidden_dim)
            self.layer = AttentionLayer(config, self._source)
            self.head_v = nn.Linear(config.hidden_dim, 1)
            if not config.shared_head:
                self.head_a = nn.Linear(config.hidden_dim, 1)
        self._initialise(generator)

    def forward(self, visual: Tensor, audio: Tensor, lengths: Tensor | None = None) -> NetworkOutput:
        """Embeddings, logits and video logits of a batch of bags.

        Args:
            visual: (B, T, Dv), zero beyond each bag's length.
            audio: (B, T, Da).
            lengths: (B,) int64 valid snippets: the video logit is the mean of the K = floor(length / 16) + 1 largest
                fused logits. None: every snippet is valid and the video logit is their mean (the test rule).
        """
        snippets = visual.shape[1]
        key_mask = None if lengths is None else self._key_mask(lengths, snippets)
        visual_h, audio_h, visual_l, audio_l = self._encode(visual, audio, key_mask)
        fused = visual_l + audio_l
        if lengths is None:
            lengths = torch.full((visual.shape[0],), snippets, device=visual.device)
            return NetworkOutput(visual_h, audio_h, visual_l, audio_l, fused, fused.mean(1), lengths)
        return NetworkOutput(visual_h, audio_h, visual_l, audio_l, fused, k_max_mean(fused, lengths), lengths)

    def snippet_logits(self, visual: Tensor, audio: Tensor, lengths: Tensor) -> Tensor:
        """Fused logits (B, T) of whole videos batched together; padding is invisible, unlike in training."""
        mask = torch.arange(visual.shape[1], device=visual.device) < lengths[:, None]
        _, _, visual_logits, audio_logits = self._encode(visual, audio, mask)
        return visual_logits + audio_logits

    def _encode(
        self, visual: Tensor, audio: Tensor, key_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        visual, audio = self.fc_v(visual), self.fc_a(audio)
        if key_mask is not None and key_mask.shape[0] > 1:
            key_mask = torch.cat([key_mask, key_mask])
        # The layer's parameters serve both directions (eq. 1 and 2), so both run as one batch.
        both = self.layer(torch.cat([visual, audio]), torch.cat([audio, visual]), key_mask)
        visual, audio = both.chunk(2)
        head_a = self.head_v if self.config.shared_head else self.head_a
        return visual, audio, _logits(self.head_v, visual), _logits(head_a, audio)


class VisualNetwork(_Network):
    """The visual network that self-distillation infuses (sec. 4.3): the same layer with self-attention.

    Its parameters carry the names of their twins in `TwoStreamNetwork`.

    Args:
        config: As for `TwoStreamNetwork`.
        visual_dim: Width Dv of the visual features.
        generator: Source of the initial weights, on the CPU; by default seeded from `config.seed`.
    """

    def __init__(
        self, config: TrialConfig, visual_dim: int = VISUAL_DIM, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config)
        with torch.random.fork_rng(devices=[]):
            self.fc_v = nn.Linear(visual_dim, config.hidden_dim)
            self.layer = AttentionLayer(config, self._source)
            self.head_v = nn.Linear(config.hidden_dim, 1)
        self._initialise(generator)

    def forward(self, visual: Tensor, lengths: Tensor | None = None) -> VisualOutput:
        """Logits and video logits of `visual` (B, T, Dv); `lengths` as in `TwoStreamNetwork.forward`."""
        snippets = visual.shape[1]
        if lengths is None:
            logits = self._encode(visual, None)
            lengths = torch.full((visual.shape[0],), snippets, device=visual.device)
            return VisualOutput(logits, logits.mean(1), lengths)
        logits = self._encode(visual, self._key_mask(lengths, snippets))
        return VisualOutput(logits, k_max_mean(logits, lengths), lengths)

    def snippet_logits(self, visual: Tensor, audio: Tensor, lengths: Tensor) -> Tensor:
        """As `TwoStreamNetwork.snippet_logits`; `audio` is not looked at."""
        return self._encode(visual, torch.arange(visual.shape[1], device=visual.device) < lengths[:, None])

    def _encode(self, visual: Tensor, key_mask: Tensor | None) -> Tensor:
        x = self.fc_v(visual)
        return _logits(self.head_v, self.layer(x, x, key_mask))


def _logits(head: nn.Module, embeddings: Tensor) -> Tensor:
    return full_precision(head(embeddings).squeeze(-1))
