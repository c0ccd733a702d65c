"""The losses of a training step, with gradients for the snippets that they depend on and no others.

A loss sees a bag through K of its snippets a selection: the highest fused logits (K-max MIL), and each stream's highest
and lowest (MA-CIL), 39 of 200 at the most. The gradient with respect to the layer's output at any other snippet is
exactly zero. So all snippets are scored without gradients, and the chosen ones are computed again with them, under the
same dropout (`macil.model.random_numbers` can draw the same numbers again). Keys, values and projections keep all
their gradients. The result is that of backpropagation through everything, but for rounding.

Axes: S stacked networks, D directions, B bags, G bags of a block, R rows (`macil.model.bag_layout`), K selected
snippets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from macil.config import StepSwitches
from macil.model.attention import Context, Parameters, affine, keys_and_values, linear, transform
from macil.model.bag_layout import Layout
from macil.model.dropout import Noise, Rates, row_numbers
from macil.model.networks import NetworkOutput, stream_logits
from macil.model.pooling import (
    SNIPPETS_PER_SELECTION,
    bottom_k,
    k_max_mean,
    selected_mean,
    top_k,
)
from macil.objective import SemiBags, loss_parts, mil_loss, select_semi_bags


class StepNoise(NamedTuple):
    """Dropout of a step: keys (S,) of both networks, constants and rates; see `macil.model.dropout.Noise`."""

    audio_visual: Tensor
    visual: Tensor
    columns: Tensor
    rates: Rates

    def of(self, keys: Tensor) -> Noise | None:
        """The noise of one network; None where nothing is ever dropped."""
        return Noise(keys, self.columns, self.rates) if any(self.rates) else None


def step_losses(
    p: Parameters,
    teacher: Parameters | None,
    visual: Tensor,
    audio: Tensor,
    labels: Tensor,
    layout: Layout,
    switches: StepSwitches,
    noise: StepNoise,
    temperature: float | Tensor,
) -> Tensor:
    """`loss_mil`, `loss_v2b`, `loss_v2n` (unweighted) and `loss_visual` of S trainings, (S, 4).

    Args:
        p: Parameters of `macil.model.TwoStreamNetwork`, stacked.
        teacher: Those of `macil.model.VisualNetwork`; None without self-distillation: its loss is 0.
        visual, audio: Features (S, R, Dv) and (S, R, Da).
        labels: (S, B), in the order of the layout.
        layout: How the bags lie.
        switches: What is the same in all S trainings.
        noise: The step's dropout.
        temperature: See `macil.objective.loss_parts`.
    """
    audio_features = linear(p, "fc_a", audio)
    if teacher is None:
        visual_features = linear(p, "fc_v", visual)
    else:
        # Both networks look at the same features: one product reads them once.
        weight, bias = (
            torch.cat([p[f"fc_v.{kind}"], teacher[f"fc_v.{kind}"]], 1) for kind in ("weight", "bias")
        )
        visual_features, teacher_features = affine(visual, weight, bias).chunk(2, dim=-1)
    parts = two_stream_losses(
        p,
        [visual_features, audio_features],
        labels,
        layout,
        switches,
        noise.of(noise.audio_visual),
        temperature,
    )
    if teacher is None:
        return torch.stack([*parts, torch.zeros_like(parts[0])], 1)
    loss = visual_loss(teacher, teacher_features, labels, layout, switches, noise.of(noise.visual))
    return torch.stack([*parts, loss], 1)


def two_stream_losses(
    p: Parameters,
    streams: list[Tensor],
    labels: Tensor,
    layout: Layout,
    switches: StepSwitches,
    noise: Noise | None,
    temperature: float | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """`loss_mil`, `loss_v2b` and `loss_v2n` of S audio-visual networks, each (S,), before weighting.

    Args:
        p: Parameters of `macil.model.TwoStreamNetwork`, stacked.
        streams: What `fc_v` and `fc_a` gave, (S, R, d) each.
        labels: (S, B).
        layout: How the bags lie.
        switches: What is the same in all S trainings.
        noise: The step's dropout.
        temperature: See `macil.objective.loss_parts`.
    """
    scope = _make_scope(p, layout, switches, noise, streams)
    if switches.contrast and switches.background_pool == "batch":
        # Background may be any snippet of any bag here: nothing can be left out.
        output = _output(scope)
        return loss_parts(
            output.video_logits,
            labels,
            layout.lengths,
            select_semi_bags(output, switches),
            switches,
            temperature,
        )
    logits = _all_logits(scope)
    fused, valid = top_k(logits.sum(1), layout.lengths)  # every selection of a bag has its K
    chosen = [fused[:, None].expand(-1, 2, -1, -1)]
    selecting = logits.flip(1) if switches.stream_swap else logits  # in stream 0 and 1
    if switches.contrast:
        chosen += [select(selecting, layout.lengths[:, None])[0] for select in (top_k, bottom_k)]
    embeddings = _chosen_embeddings(scope, torch.stack(chosen, 2))  # (S, 2, 1 or 3, B, K, d)
    fused_logits = stream_logits(p, embeddings[:, :, 0]).sum(1)
    video_logits = selected_mean(fused_logits, valid)
    semi_bags = None
    if switches.contrast:
        sides = [
            SemiBags(
                embeddings[:, stream, 1],
                valid,
                embeddings[:, stream, 2].flatten(-3, -2),
                valid.flatten(-2),
            )
            for stream in (0, 1)
        ]
        visual, audio = reversed(sides) if switches.stream_swap else sides
        semi_bags = visual, audio
    return loss_parts(video_logits, labels, layout.lengths, semi_bags, switches, temperature)


def visual_loss(
    p: Parameters,
    visual: Tensor,
    labels: Tensor,
    layout: Layout,
    switches: StepSwitches,
    noise: Noise | None,
) -> Tensor:
    """The K-max MIL loss (S,) of S visual networks; `visual` (S, R, d) is what their `fc_v` gave."""
    scope = _make_scope(p, layout, switches, noise, [visual])
    fused, valid = top_k(_all_logits(scope)[:, 0], layout.lengths)
    embeddings = _chosen_embeddings(scope, fused[:, None, None])
    return mil_loss(selected_mean(stream_logits(p, embeddings)[:, 0, 0], valid), labels)


class _Scope(NamedTuple):
    """One kind of network in one step."""

    p: Parameters
    layout: Layout
    switches: StepSwitches
    noise: Noise | None
    streams: list[Tensor]  # D of (S, R, d)
    contexts: list[Context]


def _make_scope(
    p: Parameters, layout: Layout, switches: StepSwitches, noise: Noise | None, streams: list[Tensor]
) -> _Scope:
    kept = 1.0 if noise is None else noise.attention_kept
    contexts = layout.contexts(
        [keys_and_values(p, x) for x in streams],
        switches.num_heads,
        mask_padding=switches.mask_padding,
        kept=kept,
    )
    return _Scope(p, layout, switches, noise, streams, contexts)


@torch.no_grad()
def _all_logits(scope: _Scope) -> Tensor:
    """Logits of every snippet of every stream, (S, D, B, T); block by block, so that a block stays in the cache."""
    sizes = [block.rows for block in scope.layout.blocks]
    parts = zip(*(x.split(sizes, 1) for x in scope.streams), strict=True)
    blocks = []
    for streams, context, rows in zip(parts, scope.contexts, _every_row(scope), strict=True):
        x = torch.stack(streams, 1)
        embeddings = transform(scope.p, x, [context], [rows], scope.switches.num_heads, scope.noise)
        blocks.append(stream_logits(scope.p, embeddings).unflatten(2, rows.shape[-2:])[..., None])
    return scope.layout.pad(blocks, scope.layout.width)[..., 0]


def _output(scope: _Scope) -> NetworkOutput:
    """Everything with gradients, for stacked two-stream networks."""
    layout = scope.layout
    x = torch.stack(scope.streams, 1)
    x = transform(scope.p, x, scope.contexts, _every_row(scope), scope.switches.num_heads, scope.noise)
    logits = layout.pad(
        [part[..., None] for part in layout.split(stream_logits(scope.p, x), 2)], layout.width
    )
    embeddings = layout.pad(layout.split(x, 2), layout.width)  # (S, 2, B, T, d)
    visual_embeddings, audio_embeddings = embeddings.unbind(1)
    visual, audio = logits[..., 0].unbind(1)
    fused = visual + audio
    video_logits = k_max_mean(fused, layout.lengths)
    return NetworkOutput(
        visual_embeddings, audio_embeddings, visual, audio, fused, video_logits, layout.lengths
    )


def _every_row(scope: _Scope) -> list[Tensor]:
    """Row numbers (S, D, G, L) of each block."""
    device = scope.streams[0].device
    return [
        row_numbers(numbers, len(scope.streams), torch.arange(block.width, device=device)[None, None, None])
        for numbers, block in zip(
            scope.layout.split_bags(scope.layout.numbers), scope.layout.blocks, strict=True
        )
    ]


def _chosen_embeddings(scope: _Scope, chosen: Tensor) -> Tensor:
    """The layer's output at the chosen snippets, (S, D, C, B, K, d), for C choices `chosen` (S, D, C, B, K)."""
    layout = scope.layout
    most = chosen.shape[-1]
    positions, rows, shapes = [], [], []
    for part, numbers, block in zip(
        layout.split_bags(chosen, 3), layout.split_bags(layout.numbers), layout.blocks, strict=True
    ):
        # A block of short bags selects fewer; what is not valid may point anywhere inside.
        count = block.width // SNIPPETS_PER_SELECTION + 1
        inside = part[..., :count].clamp(max=block.width - 1).transpose(2, 3)  # (S, D, G, C, k)
        shapes.append(inside.shape[-2:])
        positions.append(inside.flatten(3))
        rows.append(row_numbers(numbers, len(scope.streams), positions[-1]))
    x = torch.stack(
        [_take(stream, [part[:, d] for part in positions], layout) for d, stream in enumerate(scope.streams)],
        1,
    )
    x = transform(scope.p, x, scope.contexts, rows, scope.switches.num_heads, scope.noise)
    parts = x.split([part.shape[2] * part.shape[3] for part in positions], 2)
    blocks = [
        part.unflatten(2, (block.bags, *shape)).transpose(2, 3)
        for part, block, shape in zip(parts, layout.blocks, shapes, strict=True)
    ]
    return layout.pad(blocks, most)


def _take(x: Tensor, positions: list[Tensor], layout: Layout) -> Tensor:
    """Rows of `x` (S, R, d) at `positions` (S, G, r) of each block, (S, sum of G r, d)."""
    if _by_product(x):
        return torch.cat(
            [
                (_one_hot(position, block.width).to(part.dtype) @ part).flatten(1, 2)
                for position, part, block in zip(positions, layout.split(x, 1), layout.blocks, strict=True)
            ],
            1,
        )
    offset, indices = 0, []
    for position, block in zip(positions, layout.blocks, strict=True):
        first = offset + block.width * torch.arange(block.bags)
        indices.append((position + first[:, None]).flatten(1))
        offset += block.rows
    index = torch.cat(indices, 1) + x.shape[1] * torch.arange(len(x))[:, None]
    return x.reshape(-1, x.shape[-1]).index_select(0, index.flatten()).unflatten(0, index.shape)


def _by_product(x: Tensor) -> bool:
    """Whether rows are chosen by a product with one-hot rows: on a GPU the gradient of an index is not reproducible."""
    return x.is_cuda


def _one_hot(positions: Tensor, width: int) -> Tensor:
    return positions[..., None] == torch.arange(width, device=positions.device)
