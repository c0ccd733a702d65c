"""Every formula of the method once more, one video at a time, as slowly and literally as it is written.

Nothing here is shared with `macil`: the formulas come from the paper (Yu et al., "Modality-Aware Contrastive
Instance Learning with Self-Distillation for Weakly-Supervised Audio-Visual Violence Detection", ACM MM 2022;
equation numbers below are the paper's) and from what the authors' released code does where the two differ.
Everything works in the dtype of its inputs; the tests use float64.

Legend: B videos, T snippets after padding, d hidden width, K instances of a semi-bag.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
LAYER = "cma.layer"


class Output(NamedTuple):
    """What the two-stream network gives; (B, T, ...) with T cut to the longest video of the batch."""

    visual_embeddings: Tensor
    audio_embeddings: Tensor
    visual_logits: Tensor
    audio_logits: Tensor
    fused_logits: Tensor
    video_logits: Tensor
    lengths: Tensor


class Terms(NamedTuple):
    """The four contrastive terms."""

    a2v_background: Tensor
    a2v_normal: Tensor
    v2a_background: Tensor
    v2a_normal: Tensor


# --- selection ----------------------------------------------------------------------------------------------


def bag_size(length: int) -> int:
    """K = floor(T / 16) + 1 (section 5.2)."""
    return length // 16 + 1


def highest(logits: Sequence[float], count: int) -> list[int]:
    """Positions of the `count` highest logits, ties to the lower position."""
    return sorted(range(len(logits)), key=lambda position: (-logits[position], position))[:count]


def lowest(logits: Sequence[float], count: int) -> list[int]:
    """Positions of the `count` lowest logits, ties to the lower position."""
    return sorted(range(len(logits)), key=lambda position: (logits[position], position))[:count]


# --- network ------------------------------------------------------------------------------------------------


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    """Normalise every row of (T, d) by its mean and its biased variance."""
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred * centred).mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(variance + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(
    query: Tensor, other: Tensor, attended: Sequence[int], weights: Weights, num_heads: int
) -> Tensor:
    """Equations 1 and 2 with several heads: query (T, d) over the rows `attended` of other (S, d)."""
    name = f"{LAYER}.self_attn.linears"
    q, k, v = (linear(x, weights, f"{name}.{i}") for i, x in enumerate((query, other, other)))
    k, v = k[list(attended)], v[list(attended)]
    width = q.shape[-1] // num_heads
    heads = []
    for head in range(num_heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / math.sqrt(width)
        exponentials = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
        heads.append(exponentials / exponentials.sum(dim=-1, keepdim=True) @ v[:, part])
    return linear(torch.cat(heads, dim=-1), weights, f"{name}.3")


def layer(own: Tensor, other: Tensor, attended: Sequence[int], weights: Weights, num_heads: int) -> Tensor:
    """One pre-norm layer of one video: normalised queries of `own` over raw keys and values of `other`."""
    query = layer_norm(own, weights, f"{LAYER}.sublayer.0.norm")
    x = own + attention(query, other, attended, weights, num_heads)
    inner = linear(layer_norm(x, weights, f"{LAYER}.sublayer.1.norm"), weights, f"{LAYER}.feed_forward.w_1")
    return x + linear(inner.clamp(min=0), weights, f"{LAYER}.feed_forward.w_2")


def attended_rows(length: int, longest: int, mask_padding: bool) -> range:
    """Keys a video looks at: its own snippets, or everything up to the batch's longest video."""
    return range(length if mask_padding else longest)


def video_logit(logits: Tensor, length: int | None) -> Tensor:
    """Mean of the K highest of the first `length` logits (equation 4); of all of them without a length."""
    if length is None:
        return logits.mean()
    chosen = highest(logits[:length].tolist(), bag_size(length))
    return sum((logits[position] for position in chosen), torch.zeros_like(logits[0])) / len(chosen)


def two_stream(
    weights: Weights,
    visual: Tensor,
    audio: Tensor,
    lengths: Tensor | None,
    *,
    num_heads: int = 4,
    mask_padding: bool = False,
    audio_head: str = "att_mmil.fc",
    visual_head: str = "att_mmil.fc",
) -> Output:
    """The audio-visual network without dropout: visual (B, T, Dv), audio (B, T, Da), lengths (B,) or None."""
    longest = visual.shape[1] if lengths is None else int(lengths.max())
    columns: tuple[list[Tensor], ...] = ([], [], [], [], [], [])
    for video in range(visual.shape[0]):
        length = None if lengths is None else int(lengths[video])
        attended = attended_rows(longest if length is None else length, longest, mask_padding)
        f_v = linear(visual[video, :longest], weights, "fc_v")
        f_a = linear(audio[video, :longest], weights, "fc_a")
        h_a = layer(f_a, f_v, attended, weights, num_heads)
        h_v = layer(f_v, f_a, attended, weights, num_heads)
        l_a = linear(h_a, weights, audio_head)[:, 0]
        l_v = linear(h_v, weights, visual_head)[:, 0]
        for column, value in zip(
            columns, (h_v, h_a, l_v, l_a, l_a + l_v, video_logit(l_a + l_v, length)), strict=True
        ):
            column.append(value)
    counts = torch.full((visual.shape[0],), longest) if lengths is None else lengths
    h_v, h_a, l_v, l_a, fused, pooled = (torch.stack(column) for column in columns)
    return Output(h_v, h_a, l_v, l_a, fused, pooled, counts)


def visual_only(
    weights: Weights,
    visual: Tensor,
    lengths: Tensor | None,
    *,
    num_heads: int = 4,
    mask_padding: bool = False,
) -> tuple[Tensor, Tensor]:
    """The visual network without dropout: logits (B, T) and video logits (B,)."""
    longest = visual.shape[1] if lengths is None else int(lengths.max())
    logits, video_logits = [], []
    for video in range(visual.shape[0]):
        length = None if lengths is None else int(lengths[video])
        attended = attended_rows(longest if length is None else length, longest, mask_padding)
        f_v = linear(visual[video, :longest], weights, "fc_v")
        logits.append(linear(layer(f_v, f_v, attended, weights, num_heads), weights, "fc")[:, 0])
        video_logits.append(video_logit(logits[-1], length))
    return torch.stack(logits), torch.stack(video_logits)


# --- objective ----------------------------------------------------------------------------------------------


def mil_loss(video_logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy between p = sigmoid(video logit) and the video label, mean over videos."""
    total = torch.zeros_like(video_logits[0])
    for logit, label in zip(video_logits, labels.tolist(), strict=True):
        total = (
            total - label * torch.log(torch.sigmoid(logit)) - (1 - label) * torch.log(torch.sigmoid(-logit))
        )
    return total / len(video_logits)


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """phi of equations 5 and 6; `y` may hold one vector a row."""
    return (x * y).sum(dim=-1) / torch.sqrt((x * x).sum(dim=-1)) / torch.sqrt((y * y).sum(dim=-1))


def info_nce(query: Tensor, positive: Tensor, negatives: Sequence[Tensor], temperature: float) -> Tensor:
    """Equations 5 and 6 for one violent semi-bag."""
    near = torch.exp(cosine(query, positive) / temperature)
    far = torch.exp(cosine(query, torch.stack(list(negatives))) / temperature).sum()
    return -torch.log(near / (near + far))


def mean_of(rows: Sequence[Tensor]) -> Tensor:
    return sum(rows[1:], rows[0]) / len(rows)


class Stream(NamedTuple):
    """Embeddings, and the logits that select among them."""

    embeddings: Tensor
    selector: Tensor


def background_of(stream: Stream, lengths: Sequence[int], pool: str) -> list[Tensor]:
    """Background instances: bottom-K of every video ("video"), or as many lowest of the batch ("batch")."""
    if pool == "video":
        return [
            stream.embeddings[video, position]
            for video, length in enumerate(lengths)
            for position in lowest(stream.selector[video, :length].tolist(), bag_size(length))
        ]
    snippets = [(video, position) for video, length in enumerate(lengths) for position in range(length)]
    logits = [stream.selector[snippet].item() for snippet in snippets]
    count = sum(bag_size(length) for length in lengths)
    return [stream.embeddings[snippets[position]] for position in lowest(logits, min(count, len(snippets)))]


def contrastive_terms(
    output: Output,
    *,
    temperature: float = 0.1,
    stream_swap: bool = True,
    bag_weighting: str = "snippet",
    background_pool: str = "video",
) -> Terms:
    """MA-CIL (section 4.2). Without a predicted-violent or a predicted-normal video every term is zero.

    `stream_swap` is the released code's slip: it takes the network's two embeddings in the wrong order, so
    that what plays the audio stream below is visual embeddings under audio logits, and the reverse.
    """
    lengths = [int(length) for length in output.lengths]
    probabilities = torch.sigmoid(output.video_logits).tolist()
    violent = [video for video, p in enumerate(probabilities) if p > 0.5]
    normal = [video for video, p in enumerate(probabilities) if p <= 0.5]
    zero = torch.zeros_like(output.video_logits[0])
    if not violent or not normal:
        return Terms(zero, zero, zero, zero)

    of_audio, of_visual = output.audio_embeddings, output.visual_embeddings
    if stream_swap:
        of_audio, of_visual = of_visual, of_audio
    audio, visual = Stream(of_audio, output.audio_logits), Stream(of_visual, output.visual_logits)

    def top(stream: Stream, video: int) -> list[Tensor]:
        logits = stream.selector[video, : lengths[video]].tolist()
        return [stream.embeddings[video, position] for position in highest(logits, bag_size(lengths[video]))]

    def term(own: Stream, other: Stream, negatives: Sequence[Tensor]) -> Tensor:
        total, weight = zero, 0
        for video in violent:
            bag, counterpart = mean_of(top(own, video)), mean_of(top(other, video))
            times = bag_size(lengths[video]) if bag_weighting == "snippet" else 1
            total = total + times * info_nce(bag, counterpart, negatives, temperature)
            weight += times
        return total / weight

    def both(own: Stream, other: Stream) -> tuple[Tensor, Tensor]:
        background = background_of(other, lengths, background_pool)
        instances = [row for video in normal for row in top(other, video)]
        return term(own, other, background), term(own, other, instances)

    return Terms(*both(audio, visual), *both(visual, audio))


def ramp_weight(epoch: int, ramp: float, maximum: float) -> float:
    """Equation 9: the weight grows by `ramp` an epoch, epochs counted from 0, up to `maximum`."""
    return min(ramp * epoch, maximum)


def total_loss(
    output: Output,
    labels: Tensor,
    epoch: int,
    *,
    ramp: float,
    lambda_v2b: float,
    lambda_v2n: float,
    contrast: bool,
    **switches: object,
) -> Tensor:
    """Equation 8."""
    loss = mil_loss(output.video_logits, labels)
    if not contrast:
        return loss
    terms = contrastive_terms(output, **switches)  # type: ignore[arg-type]
    background = ramp_weight(epoch, ramp, lambda_v2b) * (terms.a2v_background + terms.v2a_background)
    return loss + background + ramp_weight(epoch, ramp, lambda_v2n) * (terms.a2v_normal + terms.v2a_normal)


# --- schedules, distillation, optimiser ---------------------------------------------------------------------


def momentum_at(epoch: int, initial: float, period: int) -> float:
    """m rises from its first value to 1 along half a cosine (section 4.3)."""
    return 1 + 0.5 * (initial - 1) * (1 + math.cos(math.pi * epoch / period))


def learning_rate_at(epoch: int, initial: float, period: int) -> float:
    return initial * (1 + math.cos(math.pi * epoch / period)) / 2


def infuse(student: Weights, teacher: Weights, momentum: float) -> dict[str, Tensor]:
    """Equation 7 over the tensors both networks have."""
    return {
        name: momentum * value + (1 - momentum) * teacher[name] if name in teacher else value
        for name, value in student.items()
    }


def adam_steps(
    start: Tensor, gradient: Callable[[Tensor], Tensor], steps: int, learning_rate: float
) -> Tensor:
    """Adam (0.9, 0.999, 1e-8) without weight decay on one tensor."""
    x, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, steps + 1):
        g = gradient(x)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        x = x - learning_rate * (first / (1 - 0.9**step)) / (torch.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return x


# --- evaluation ---------------------------------------------------------------------------------------------


def average_precision(
    scores: Sequence[float], frame_labels: Sequence[int], snippet_frames: int
) -> tuple[float, float]:
    """Step-wise and trapezoidal area under the precision-recall curve, one threshold at a time."""
    frames = [(scores[frame // snippet_frames], label) for frame, label in enumerate(frame_labels)]
    positives = sum(label for _, label in frames)
    step = trapezoid = recall_before = 0.0
    precision_before = 1.0
    for threshold in sorted(set(scores), reverse=True):
        kept = [label for score, label in frames if score >= threshold]
        precision, recall = sum(kept) / len(kept), sum(kept) / positives
        step += (recall - recall_before) * precision
        trapezoid += (recall - recall_before) * (precision + precision_before) / 2
        precision_before, recall_before = precision, recall
    return step, trapezoid
