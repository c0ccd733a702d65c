"""What has to agree before a training step is timed, all of it in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.reference import PlainBatch, Reference
from benchmarks.synthetic import SyntheticStore
from macil.config import TrialConfig
from macil.inference.released import to_released
from macil.loss_weights import loss_weights
from macil.model import TwoStreamNetwork, VisualNetwork
from macil.objective import total_loss
from macil.training.bags import Residency, TrainingBags
from macil.training.engine import Engine, Stack

# Both contrastive weights are at their maximum.
EPOCH = 20
TO_REFERENCE = 1e-8
TO_ITSELF = 1e-9


def padded_batch(bags: TrainingBags, samples: Tensor) -> PlainBatch:
    """The samples (B,) of bags that lie on the device, as a plain batch of the full width."""
    batch = bags.batch(samples[None])
    shape = (len(samples), bags.snippets, -1)
    visual, audio = batch.visual.view(shape), batch.audio.view(shape)
    return PlainBatch(visual, audio, batch.layout.lengths[0], batch.labels[0])


def same_weights(engine: Engine, reference: Reference, batch: PlainBatch) -> None:
    """Centre our network on p = 0.5, so that both classes are predicted, and give the reference its weights."""
    assert engine.visual is not None
    network = engine.audio_visual.networks[0].eval()
    assert isinstance(network, TwoStreamNetwork)
    visual, audio = (x.to(network.fc_v.weight.dtype) for x in batch[:2])
    with torch.no_grad():
        logits = network(visual, audio, batch.lengths).video_logits.sort().values
        # Between two videos: one on p = 0.5 itself would be of this class or that by rounding, which differs by CPU.
        middle = logits[len(logits) // 2 - 1 : len(logits) // 2 + 1].mean()
        network.head_v.bias.sub_(middle / 2)  # one head, two streams
    pairs = ((network, reference.network), (engine.visual.networks[0], reference.visual_network))
    for ours, theirs in pairs:
        assert isinstance(ours, TwoStreamNetwork | VisualNetwork)
        theirs.load_state_dict(_without_unused(to_released(ours)))


def check_reference(
    config: TrialConfig,
    lengths: np.ndarray,
    snippets: int,
    device: torch.device,
    residency: Residency | None = None,
) -> float:
    """Compare losses and gradients of a step with the reference's, without dropout.

    Args:
        config: What is trained.
        lengths: Of the videos of the batch.
        snippets: Width of the batch.
        device: Where.
        residency: Where our bags are kept; None for what the device gets in a training.

    Returns:
        The largest difference, relative to the tensor's largest entry.

    Raises:
        click.ClickException: It is more than `TO_REFERENCE`, or one class is never predicted.
    """
    config = config.replace(dropout=0.0, dropout_everywhere=True, batch_size=len(lengths))
    store = SyntheticStore(lengths, np.zeros(0, np.int64), seed=1)
    ours, theirs = (
        TrainingBags(store, None, snippets, device, residency=where, dtype=torch.float64)
        for where in (residency, "resident")
    )
    samples = torch.arange(len(lengths), device=device)
    batch = padded_batch(theirs, samples)
    engine, reference = Engine(config, [0], ours, precision="fp64"), Reference(config, EPOCH, device)
    reference.network.double()
    reference.visual_network.double()
    same_weights(engine, reference, batch)
    violent = int((reference.network(batch.visual, batch.audio, batch.lengths)["p"] > 0.5).sum())
    if not 0 < violent < len(lengths):
        raise click.ClickException(
            f"{violent} of {len(lengths)} videos are predicted violent: nothing is compared"
        )

    engine.begin_epoch(EPOCH, (config.learning_rate, config.visual_learning_rate))
    *parts, visual = engine.step(ours.batch(samples[None]))[0]
    mil, background, normal = parts
    expected = reference.losses(batch)
    (expected.total + expected.visual).backward()
    terms = expected.terms
    pairs = {
        "loss_mil": (mil, expected.mil),
        "loss_v2b": (background, terms.a2v_background + terms.v2a_background),
        "loss_v2n": (normal, terms.a2v_normal + terms.v2a_normal),
        "loss": (total_loss(parts, loss_weights(config, EPOCH)), expected.total),
        "loss_visual": (visual, expected.visual),
    }
    assert engine.visual is not None
    kinds = ((engine.audio_visual, reference.network), (engine.visual, reference.visual_network))
    for stack, network in kinds:
        gradients = _gradients(stack)
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            pairs[f"{type(network).__name__} {name}"] = gradients[name].to(device), parameter.grad
    return _compare(pairs, TO_REFERENCE, "the reference")


def check_acceleration(
    config: TrialConfig,
    lengths: np.ndarray,
    snippets: int,
    device: torch.device,
    residency: Residency | None = None,
) -> float:
    """Compare weights after epochs of compiled and recorded steps with those of steps as they are written.

    Dropout is on. Where nothing is compiled or recorded, on a CPU, the two are the same.

    Args, Returns, Raises: As `check_reference`, for videos of several batches, and `TO_ITSELF`.
    """
    bags = TrainingBags(
        SyntheticStore(lengths, np.zeros(0, np.int64), seed=1), None, snippets, device, residency=residency
    )
    engines = [
        Engine(config, [0], bags, precision="fp64", accelerate=accelerate) for accelerate in (True, False)
    ]
    return compare_trainings(engines[0], {0: engines[1]}, "steps that are not accelerated")


def compare_trainings(together: Engine, alone: Mapping[int, Engine], what: str, epochs: int = 2) -> float:
    """Train some epochs, and compare every seed of `together` with its own engine: losses and weights.

    Returns:
        The largest difference, relative to the tensor's largest entry.

    Raises:
        click.ClickException: It is more than `TO_ITSELF`.
    """
    rates = (together.config.learning_rate, together.config.visual_learning_rate)
    losses: dict[int, Tensor] = {}
    for engine in (together, *alone.values()):
        for epoch in range(EPOCH, EPOCH + epochs):
            losses[id(engine)] = engine.train_epoch(epoch, rates)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for slot, other in alone.items():
        pairs[f"losses of seed {slot}"] = losses[id(together)][slot], losses[id(other)][0]
        for mine, theirs in zip(together.stacks, other.stacks, strict=True):
            for name, tensor in mine.tensors.items():
                kind = type(mine.networks[0]).__name__
                pairs[f"{kind} {name} of seed {slot}"] = tensor[slot], theirs.tensors[name][0]
    return _compare(pairs, TO_ITSELF, what)


def _compare(pairs: Mapping[str, Sequence[Tensor]], allowed: float, what: str) -> float:
    worst = 0.0
    for name, (one, other) in pairs.items():
        # A key bias has no gradient but rounding: what is smaller than 1e-6 everywhere counts as that large.
        difference = float(((one - other).abs().max() / other.abs().max().clamp(min=1e-6)).detach())
        if not difference <= allowed:
            raise click.ClickException(f"{name} differs from {what} by {difference:.2e}; nothing was timed")
        worst = max(worst, difference)
    return worst


def _gradients(stack: Stack) -> dict[str, Tensor]:
    """Gradients of a stack of one under the authors' names: the export of a network whose weights they are."""
    network = stack.networks[0]
    assert isinstance(network, TwoStreamNetwork | VisualNetwork)
    config = network.config
    carrier = TwoStreamNetwork(config) if isinstance(network, TwoStreamNetwork) else VisualNetwork(config)
    gradients = {name: t.grad[0] for name, t in stack.tensors.items() if t.grad is not None}
    carrier.double().load_state_dict(gradients)
    return to_released(carrier)


def _without_unused(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    unused = ("multiheadattn.", "feedforward.", "cma.layer.self_attn.layer_norm.")
    return {name: value for name, value in weights.items() if not name.startswith(unused)}
