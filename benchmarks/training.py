"""How long one training step takes, against the plain way of writing it down.

Both train the audio-visual and the visual network on the same batch, in float32 and with dropout. The reference has
the structure of the authors' released code: one pass a direction, a Python loop over the videos for every selection,
`nn.Dropout`, two backward passes. Before anything is timed, losses and gradients of the two are compared in float64
without dropout; they must agree.

    python -m benchmarks.training --device cpu
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import click
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from macil.config import TrialConfig
from macil.data.bags import Batch, TrainingBags
from macil.data.store import FeatureStore
from macil.model import AUDIO_DIM, VISUAL_DIM, TwoStreamNetwork, VisualNetwork
from macil.objective import mil_loss, objective
from macil.released import to_released
from macil.training import Trainer

# Both weights at their maximum from the first step on.
EPOCH = 20
# Small enough that timed steps do not train all videos to one side, where a reference has less to do.
LEARNING_RATE = 1e-9
AGREEMENT = 1e-8


# --- ours -----------------------------------------------------------------------------------------------------


class OneBatch:
    """Stands in for the training bags: the same batch whatever is asked for."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def batch(self, samples: Tensor) -> Batch:
        """The batch."""
        assert len(samples) == len(self._batch.labels)
        return self._batch


class StepTrainer(Trainer):
    """`Trainer` without a data set: nothing but its step, on one batch."""

    def __init__(
        self, config: TrialConfig, batch: Batch, device: torch.device, precision: Literal["fp32", "bf16"]
    ) -> None:
        self.config, self.device, self.precision, self.epoch = config, device, precision, EPOCH
        self.store = cast(FeatureStore, SimpleNamespace(visual_dim=VISUAL_DIM, audio_dim=AUDIO_DIM))
        self._bags = cast(TrainingBags, OneBatch(batch))
        self._samples = torch.arange(len(batch.labels), device=device)
        self._build()

    def step(self) -> Tensor:
        """One step of both networks; returns the loss parts."""
        self.network.train()
        if self.visual_network is not None:
            self.visual_network.train()
        return self._step(self._samples)


# --- the reference --------------------------------------------------------------------------------------------


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
        """A batch already cut to its longest length."""
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
        """Video probabilities."""
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


def contrastive_loss(output: dict[str, Tensor], lengths: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
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
        return zero, zero
    losses = {"background": zero, "normal": zero}
    for own, other in (("a", "v"), ("v", "a")):
        query = nn.functional.normalize(torch.cat(bags[own]["violent"]), dim=-1)
        positive = nn.functional.normalize(torch.cat(bags[other]["violent"]), dim=-1)
        near = (query * positive).sum(-1, keepdim=True) / temperature
        for kind in losses:
            negatives = nn.functional.normalize(torch.cat(bags[other][kind]), dim=-1)
            scores = torch.cat([near, query @ negatives.T / temperature], dim=1)
            target = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
            losses[kind] = losses[kind] + nn.functional.cross_entropy(scores, target)
    return losses["background"], losses["normal"]


class Reference:
    """The reference's two networks and optimisers, and its step."""

    def __init__(self, config: TrialConfig, batch: Batch, device: torch.device) -> None:
        inner = config.dropout if config.dropout_everywhere else 0.1
        self.config, self.batch = config, batch
        self.network = PlainTwoStream(config, inner).to(device)
        self.visual_network = PlainVisual(config, inner).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.visual_optimizer = torch.optim.Adam(
            self.visual_network.parameters(), lr=config.visual_learning_rate
        )

    def losses(self) -> tuple[Tensor, Tensor]:
        """The two networks' losses on the batch."""
        longest = int(self.batch.lengths.max())
        visual, audio = self.batch.visual[:, :longest], self.batch.audio[:, :longest]
        output = self.network(visual, audio, self.batch.lengths)
        labels = self.batch.labels.to(output["p"].dtype)
        background, normal = contrastive_loss(output, self.batch.lengths, self.config.temperature)
        total = nn.functional.binary_cross_entropy(output["p"], labels)
        total = total + min(self.config.ramp * EPOCH, self.config.lambda_v2b) * background
        total = total + min(self.config.ramp * EPOCH, self.config.lambda_v2n) * normal
        p = self.visual_network(visual, self.batch.lengths)
        return total, nn.functional.binary_cross_entropy(p, labels)

    def step(self) -> None:
        """One step: a backward pass and an optimiser for each network."""
        losses = self.losses()
        for loss, optimizer in zip(losses, (self.optimizer, self.visual_optimizer), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


# --- one case -------------------------------------------------------------------------------------------------


def make_batch(
    size: int,
    snippets: int,
    shortest: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """A batch of random features with lengths uniform in shortest..snippets, at least one of them the longest."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, snippets + 1, (size,), generator=generator)
    lengths[0] = snippets
    labels = (torch.arange(size) % 2).float()
    strength = torch.rand(size, 1, 1, generator=generator) + 0.5
    visual = torch.randn(size, snippets, VISUAL_DIM, generator=generator).abs() * strength
    audio = torch.randn(size, snippets, AUDIO_DIM, generator=generator) * strength
    padding = (torch.arange(snippets) >= lengths[:, None])[..., None]
    visual, audio = visual.masked_fill(padding, 0), audio.masked_fill(padding, 0)
    return Batch(visual.to(device, dtype), audio.to(device, dtype), lengths.to(device), labels.to(device))


def same_weights(ours: StepTrainer, reference: Reference, batch: Batch) -> None:
    """Centre our network on p = 0.5, so that both classes are predicted, and give the reference its weights."""
    assert ours.visual_network is not None
    with torch.no_grad():
        for network in (ours.network, ours.visual_network):
            network.eval()
        middle = ours.network(batch.visual, batch.audio, batch.lengths).video_logits.median()
        ours.network.head_v.bias.sub_(middle / 2)  # one head, two streams
        reference.network.load_state_dict(_without_unused(to_released(ours.network)))
        reference.visual_network.load_state_dict(_without_unused(to_released(ours.visual_network)))


def check_agreement(
    config: TrialConfig, size: int, snippets: int, shortest: int, device: torch.device
) -> float:
    """Compare losses and gradients in float64 without dropout.

    Returns:
        The largest difference, relative to the tensor's largest entry.

    Raises:
        click.ClickException: They differ by more than `AGREEMENT`, or one class is never predicted.
    """
    config = config.replace(dropout=0.0, dropout_everywhere=True)
    batch = make_batch(size, snippets, shortest, 1, device, torch.float64)
    ours, reference = StepTrainer(config, batch, device, "fp32"), Reference(config, batch, device)
    networks = (ours.network, ours.visual_network, reference.network, reference.visual_network)
    for network in networks:
        assert network is not None
        network.double()
    same_weights(ours, reference, batch)
    assert ours.visual_network is not None

    output = ours.network(batch.visual, batch.audio, batch.lengths)
    violent = int((output.video_logits > 0).sum())
    if not 0 < violent < size:
        raise click.ClickException(f"{violent} of {size} videos are predicted violent: nothing is compared")
    total, _ = objective(output, batch.labels, config, EPOCH)
    loss_visual = mil_loss(ours.visual_network(batch.visual, batch.lengths).video_logits, batch.labels)
    (total + loss_visual).backward()
    expected, expected_visual = reference.losses()
    expected.backward()
    expected_visual.backward()

    pairs = {"loss": (total, expected), "visual loss": (loss_visual, expected_visual)}
    for mine, theirs in ((ours.network, reference.network), (ours.visual_network, reference.visual_network)):
        gradients = _gradients(mine)
        for name, parameter in theirs.named_parameters():
            assert parameter.grad is not None
            pairs[name] = gradients[name].to(device), parameter.grad
    worst = 0.0
    for name, (one, other) in pairs.items():
        # A key bias has no gradient but rounding: what is smaller than 1e-6 everywhere counts as that large.
        difference = float(((one - other).abs().max() / other.abs().max().clamp(min=1e-6)).detach())
        if not difference <= AGREEMENT:
            raise click.ClickException(
                f"{name} differs from the reference by {difference:.2e}; nothing was timed"
            )
        worst = max(worst, difference)
    return worst


def _gradients(network: TwoStreamNetwork | VisualNetwork) -> dict[str, Tensor]:
    """Gradients under the authors' names: the export of a network whose weights they are."""
    config = network.config
    carrier = TwoStreamNetwork(config) if isinstance(network, TwoStreamNetwork) else VisualNetwork(config)
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    carrier.double().load_state_dict(gradients)
    return to_released(carrier)


def _without_unused(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    unused = ("multiheadattn.", "feedforward.", "cma.layer.self_attn.layer_norm.")
    return {name: value for name, value in weights.items() if not name.startswith(unused)}


def time_steps(
    steps: dict[str, Callable[[], Any]], repeats: int, warmup: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Seconds a step, the contestants taking turns so that a busy machine is busy for all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    memory: dict[str, int] = {}
    for turn in range(-warmup, repeats):
        for name, step in steps.items():
            _wait(device, reset=True)
            started = time.perf_counter()
            step()
            _wait(device)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started)
            if device.type == "cuda":
                memory[name] = max(memory.get(name, 0), torch.cuda.max_memory_allocated(device))
    return {
        name: {"median": statistics.median(values), "fastest": min(values), "slowest": max(values)}
        | ({"peak_mib": memory[name] / 2**20} if name in memory else {})
        for name, values in seconds.items()
    }


def _wait(device: torch.device, *, reset: bool = False) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        if reset:
            torch.cuda.reset_peak_memory_stats(device)


# --- command --------------------------------------------------------------------------------------------------


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True, help="Timed steps.")
@click.option("--warmup", type=click.IntRange(0), default=1, show_default=True, help="Untimed steps before.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads [default: PyTorch's choice].")
@click.option("--batch-size", type=click.IntRange(2), default=128, show_default=True)
@click.option("--snippets", type=click.IntRange(2), default=200, show_default=True, help="Longest video.")
@click.option("--shortest", type=click.IntRange(1), default=30, show_default=True, help="Of mixed lengths.")
@click.option("--check-batch", type=click.IntRange(2), default=16, show_default=True, help="Videos compared.")
@click.option("--bf16", is_flag=True, help="Also time our step under bfloat16 autocast.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write results here."
)
def main(
    device: str,
    steps: int,
    warmup: int,
    threads: int | None,
    batch_size: int,
    snippets: int,
    shortest: int,
    check_batch: int,
    bf16: bool,
    json_path: Path | None,
) -> None:
    """Check, time, print."""
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda was asked for, but PyTorch sees no GPU here")
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(0)  # nn.Dropout of the reference
    where = torch.device(device)
    config = TrialConfig(learning_rate=LEARNING_RATE, visual_learning_rate=LEARNING_RATE)
    cases = {f"all {snippets}": snippets, f"{min(shortest, snippets)} to {snippets}": min(shortest, snippets)}
    results: dict[str, Any] = {
        "torch": torch.__version__,
        "device": _describe(where),
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
        "snippets": snippets,
        "steps": steps,
        "cases": {},
    }
    for case, least in cases.items():
        agreement = check_agreement(config, check_batch, snippets, least, where)
        batch = make_batch(batch_size, snippets, least, 2, where)
        ours, reference = StepTrainer(config, batch, where, "fp32"), Reference(config, batch, where)
        same_weights(ours, reference, batch)
        contestants: dict[str, Callable[[], Any]] = {"reference": reference.step, "macil": ours.step}
        if bf16:
            half = StepTrainer(config, batch, where, "bf16")
            half.network.load_state_dict(ours.network.state_dict())
            contestants["macil, bf16"] = half.step
        reference.network.train()
        reference.visual_network.train()
        timed = time_steps(contestants, steps, warmup, where)
        ratios = {
            f"ratio_of_{of}": timed["reference"][of] / timed["macil"][of] for of in ("median", "fastest")
        }
        results["cases"][case] = {"seconds": timed, **ratios, "largest_difference": agreement}
    _print(results)
    if json_path is not None:
        json_path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU ({torch.backends.cpu.get_cpu_capability()})"


def _print(results: dict[str, Any]) -> None:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"One training step in ms, {results['batch_size']} videos, {results['steps']} steps\n"
        f"{results['device']}, {results['threads']} CPU threads, torch {results['torch']}",
    )
    table.add_column("lengths", no_wrap=True)
    table.add_column("step", no_wrap=True)
    for column in ("median", "min", "max", "ratio of\nmedians", "ratio of\nminima", "peak\nMiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for case, result in results["cases"].items():
        plain = result["seconds"]["reference"]
        for name, timed in result["seconds"].items():
            table.add_row(
                case,
                name,
                *(f"{1e3 * timed[of]:.1f}" for of in ("median", "fastest", "slowest")),
                *(f"{plain[of] / timed[of]:.2f}" for of in ("median", "fastest")),
                f"{timed['peak_mib']:.0f}" if "peak_mib" in timed else "-",
            )
        table.add_section()
    console = Console()
    console.print(table)
    worst = max(result["largest_difference"] for result in results["cases"].values())
    console.print(f"Without dropout, in float64, losses and gradients agree to {worst:.1e}.")


if __name__ == "__main__":
    main()
