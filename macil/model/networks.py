"""The two networks of MACIL-SD: the audio-visual two-stream network and the visual network it learns from.

Axes: B bags, T snippets, d hidden width, Dv and Da widths of the visual and audio features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from macil.config import TrialConfig
from macil.errors import DataError
from macil.model.attention import (
    AttentionLayer,
    Context,
    Parameters,
    heads_of,
    keys_and_values,
    linear,
    transform,
)
from macil.model.dropout import Noise, Rates, row_numbers
from macil.model.pooling import full_precision, k_max_mean
from macil.model.random_numbers import fold_in, make_generator, make_keys

VISUAL_DIM = 1024  # I3D RGB
AUDIO_DIM = 128  # VGGish


class NetworkOutput(NamedTuple):
    """The output of any two-stream network that MA-CIL reads."""

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
    """The output of the visual network."""

    logits: Tensor
    """(B, T)"""
    video_logits: Tensor
    """(B,)"""
    lengths: Tensor
    """(B,) int64"""


class _Network(nn.Module):
    """The base of both networks: initialisation, the layer for whole batches, dropout that never repeats."""

    def __init__(self, config: TrialConfig) -> None:
        super().__init__()
        self.config = config
        self.rates = Rates.of(config)
        self.draws = 0
        """Training passes so far: each has its own dropout, a function of `config.seed` and this number."""

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
                    first = layer.attention["query"]
                    for other in ("key", "value", "output"):
                        layer.attention[other].load_state_dict(first.state_dict())

    def _parameters_of_one(self) -> dict[str, Tensor]:
        return {name: parameter[None] for name, parameter in self.named_parameters()}

    def _layer(self, p: Parameters, streams: Sequence[Tensor], key_mask: Tensor | None) -> Tensor:
        """All snippets of D streams (1, B, T, d), (1, D, B, T, d); `key_mask` (B or 1, T) bool."""
        _, bags, snippets, _ = streams[0].shape
        device = streams[0].device
        keys, values = heads_of([keys_and_values(p, x) for x in streams], self.config.num_heads)
        bias = None
        if key_mask is not None:
            bias = torch.where(key_mask, 0.0, -torch.inf).expand(bags, snippets)[None]
        noise = self._noise(snippets, device) if self.training else None
        numbers, positions = (torch.arange(count, device=device) for count in (bags, snippets))
        rows = row_numbers(numbers[None], len(streams), positions[None, None, None])
        own = torch.stack(list(streams), 1).flatten(2, 3)
        context = Context(keys, values, bias, None)
        x = transform(p, own, [context], [rows], self.config.num_heads, noise)
        return x.unflatten(2, (bags, snippets))

    def _noise(self, snippets: int, device: torch.device) -> Noise | None:
        self.draws += 1
        keys = fold_in(make_keys([self.config.seed], type(self).__name__ + "/dropout", device), self.draws)
        longest = max(snippets, self.config.hidden_dim, self.config.feedforward_dim)
        return Noise.make(keys, longest, self.rates)

    def _key_mask(self, lengths: Tensor, snippets: int) -> Tensor:
        """Which keys training attends to, (B or 1, T) bool.

        The released code cuts a batch to its longest valid length and attends to padding up to there; with batches of
        a fixed width, keys beyond the longest are masked instead, which gives the same numbers.
        """
        last = lengths if self.config.mask_padding else lengths.amax(0, keepdim=True)
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
            self.layer = AttentionLayer(config)
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

        Raises:
            DataError: The shapes disagree; says how.
        """
        _require_shapes(lengths, visual, audio)
        snippets = visual.shape[1]
        key_mask = None if lengths is None else self._key_mask(lengths, snippets)
        visual_h, audio_h, visual_l, audio_l = self._encode(visual, audio, key_mask)
        fused = visual_l + audio_l
        if lengths is None:
            lengths = torch.full((visual.shape[0],), snippets, device=visual.device)
            return NetworkOutput(visual_h, audio_h, visual_l, audio_l, fused, fused.mean(1), lengths)
        return NetworkOutput(visual_h, audio_h, visual_l, audio_l, fused, k_max_mean(fused, lengths), lengths)

    def snippet_logits(self, visual: Tensor, audio: Tensor, lengths: Tensor) -> Tensor:
        """Fused logits (B, T) of whole videos batched together; padding is invisible, unlike in training.

        Arguments and errors are those of `forward`, with lengths.
        """
        _require_shapes(lengths, visual, audio)
        mask = torch.arange(visual.shape[1], device=visual.device) < lengths[:, None]
        _, _, visual_logits, audio_logits = self._encode(visual, audio, mask)
        return visual_logits + audio_logits

    def _encode(
        self, visual: Tensor, audio: Tensor, key_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        p = self._parameters_of_one()
        both = self._layer(p, [linear(p, "fc_v", visual[None]), linear(p, "fc_a", audio[None])], key_mask)
        logits = stream_logits(p, both)[0]
        return both[0, 0], both[0, 1], logits[0], logits[1]


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
            self.layer = AttentionLayer(config)
            self.head_v = nn.Linear(config.hidden_dim, 1)
        self._initialise(generator)

    def forward(self, visual: Tensor, lengths: Tensor | None = None) -> VisualOutput:
        """Logits and video logits of `visual` (B, T, Dv); `lengths` and errors as in `TwoStreamNetwork.forward`."""
        _require_shapes(lengths, visual)
        snippets = visual.shape[1]
        if lengths is None:
            logits = self._encode(visual, None)
            lengths = torch.full((visual.shape[0],), snippets, device=visual.device)
            return VisualOutput(logits, logits.mean(1), lengths)
        logits = self._encode(visual, self._key_mask(lengths, snippets))
        return VisualOutput(logits, k_max_mean(logits, lengths), lengths)

    def snippet_logits(self, visual: Tensor, audio: Tensor, lengths: Tensor) -> Tensor:
        """See `TwoStreamNetwork.snippet_logits`; `audio` is ignored."""
        return self._encode(visual, torch.arange(visual.shape[1], device=visual.device) < lengths[:, None])

    def _encode(self, visual: Tensor, key_mask: Tensor | None) -> Tensor:
        p = self._parameters_of_one()
        return stream_logits(p, self._layer(p, [linear(p, "fc_v", visual[None])], key_mask))[0, 0]


def _require_shapes(lengths: Tensor | None, *streams: Tensor) -> None:
    """Refuse what would be broadcast."""
    bags = streams[0].shape[:2]
    fits = all(stream.ndim == 3 and stream.shape[:2] == bags for stream in streams)
    if not fits or (lengths is not None and lengths.shape != bags[:1]):
        expected = [f"{name} (B, T, features)" for name in ("visual", "audio")[: len(streams)]]
        found = [str(tuple(each.shape)) for each in (*streams, *([] if lengths is None else [lengths]))]
        raise DataError(
            f"shapes {', '.join(found)} disagree; expected {', '.join(expected)} and lengths (B,) or None"
        )


def stream_logits(p: Parameters, embeddings: Tensor) -> Tensor:
    """Logits (S, D, ...) of the embeddings (S, D, ..., d) of each stream, in full precision.

    The audio stream, the second, has a head of its own where there is one (`shared_head`).
    """
    if "head_a.weight" not in p:
        return full_precision(linear(p, "head_v", embeddings).squeeze(-1))
    streams = zip(("head_v", "head_a"), embeddings.unbind(1), strict=True)
    return full_precision(torch.stack([linear(p, name, x).squeeze(-1) for name, x in streams], 1))
