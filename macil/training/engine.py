"""The training steps of S seeds of one configuration, in lockstep on one device; S is 1 for a training alone.

The seeds' parameters are stacked, so that a step is one pass of batched products whatever S is. Every seed has its own
initialisation, shuffle and dropout, all functions of (seed, epoch, step, site), and so the numbers it would have alone.
Within an epoch nothing is computed on the host and nothing is waited for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from macil.config import TrialConfig
from macil.loss_weights import loss_weights
from macil.model import TwoStreamNetwork, VisualNetwork
from macil.model.dropout import Rates
from macil.model.random_numbers import columns, fold_in, make_generator, make_keys, permutation
from macil.objective import total_loss
from macil.training.acceleration import Accelerator
from macil.training.bags import Batch, TrainingBags
from macil.training.distillation import infuse
from macil.training.fused_step import StepNoise

Precision = Literal["fp32", "bf16", "fp64"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}
# Steps of an epoch, for keys that are different in every step of every epoch.
_EPOCH_STRIDE = 1 << 32


class Stack:
    """Parameters of S networks of one kind as stacked leaf tensors, and the networks as views of them.

    Attributes:
        tensors: Name to (S, ...).
        networks: Modules whose parameters are slices of `tensors`: reading or writing one is reading or writing both.
    """

    def __init__(
        self, networks: Sequence[nn.Module], learning_rate: float, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.networks = list(networks)
        self.tensors: dict[str, Tensor] = {}
        for name, _ in self.networks[0].named_parameters():
            each = [network.get_parameter(name).detach() for network in self.networks]
            stacked = torch.stack(each).to(device, dtype).requires_grad_()
            for slot, network in enumerate(self.networks):
                network.get_parameter(name).data = stacked.data[slot]
            self.tensors[name] = stacked
        gpu = device.type == "cuda"
        rate: Any = torch.tensor(learning_rate, device=device) if gpu else learning_rate
        self.optimizer = torch.optim.Adam(self.tensors.values(), lr=rate, fused=True, capturable=gpu)
        for tensor in self.tensors.values():
            # What Adam would make in its first step; made here, so that a state can be put back before it.
            state = self.optimizer.state[tensor]
            state["step"] = torch.zeros((), device=device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(tensor), torch.zeros_like(tensor)

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate for all further steps."""
        group = self.optimizer.param_groups[0]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate

    def optimizer_state(self, slot: int) -> dict[str, dict[str, Tensor]]:
        """Adam's state of one seed: parameter to `step`, `exp_avg` and `exp_avg_sq`."""
        states = {name: self.optimizer.state[tensor] for name, tensor in self.tensors.items()}
        return {
            name: {
                "step": state["step"].clone(),
                **{key: state[key][slot].clone() for key in ("exp_avg", "exp_avg_sq")},
            }
            for name, state in states.items()
        }

    def load_optimizer_state(self, slot: int, content: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put back what `optimizer_state` gave."""
        for name, tensor in self.tensors.items():
            state = self.optimizer.state[tensor]
            state["step"].copy_(content[name]["step"])
            for key in ("exp_avg", "exp_avg_sq"):
                state[key][slot].copy_(content[name][key])


class Engine:
    """Trains S seeds of one configuration.

    Args:
        config: What is trained; its own seed is not looked at.
        seeds: One for each training.
        bags: The training bags.
        precision: `fp32`, `bf16` for autocast with losses in float32, `fp64` to separate rounding from error.
        accelerate: Capture steps on an accelerator (`macil.training.acceleration`); off for measuring without.
    """

    def __init__(
        self,
        config: TrialConfig,
        seeds: Sequence[int],
        bags: TrainingBags,
        *,
        precision: Precision = "fp32",
        accelerate: bool = True,
    ) -> None:
        self.config, self.bags, self.precision = config, bags, precision
        self.seeds = list(seeds)
        self.device = bags.device
        self._dtype = _DTYPES[precision]
        visual_dim, audio_dim = bags.store.visual_dim, bags.store.audio_dim
        each = [config.replace(seed=seed) for seed in self.seeds]
        self.audio_visual = self._stack(
            [
                TwoStreamNetwork(c, visual_dim, audio_dim, generator=make_generator(c.seed, "init"))
                for c in each
            ],
            config.learning_rate,
        )
        self.visual: Stack | None = None
        if config.distill:
            self.visual = self._stack(
                [VisualNetwork(c, visual_dim, generator=make_generator(c.seed, "init/visual")) for c in each],
                config.visual_learning_rate,
            )
        self._shuffle_keys = make_keys(self.seeds, "shuffle", self.device)
        self._dropout_keys = make_keys(self.seeds, "dropout", self.device)
        self._visual_dropout_keys = make_keys(self.seeds, "dropout/visual", self.device)
        self._rates = Rates.of(config)
        self._columns = columns(max(bags.snippets, config.hidden_dim, config.feedforward_dim), self.device)
        # What changes from epoch to epoch or from trial to trial is read from tensors, never compiled in.
        self._tick = torch.zeros((), dtype=torch.int64, device=self.device)
        self._temperature = torch.tensor(config.temperature, dtype=self._dtype, device=self.device)
        self._weights = torch.zeros(2, dtype=self._dtype, device=self.device)
        self._sums = torch.zeros(len(self.seeds), 4, dtype=torch.float64, device=self.device)
        self._accelerator = Accelerator(self.device, enabled=accelerate)

    @property
    def stacks(self) -> list[Stack]:
        """One for each kind of network that is trained."""
        return [self.audio_visual, *([self.visual] if self.visual is not None else [])]

    @property
    def mode(self) -> str:
        """How steps are run: eager, graph, compiled graph."""
        return self._accelerator.mode

    def train_epoch(self, epoch: int, rates: Sequence[float]) -> Tensor:
        """All steps of one epoch.

        Args:
            epoch: From 0.
            rates: Learning rate of the audio-visual and of the visual network.

        Returns:
            `loss_mil`, `loss_v2b`, `loss_v2n` and `loss_visual` of each seed, means over the bags, (S, 4) float64, on
            the device: reading them is the epoch's one wait.
        """
        self.begin_epoch(epoch, rates)
        order = permutation(fold_in(self._shuffle_keys, epoch), len(self.bags))
        if self.bags.residency == "resident":
            for samples in order.split(self.config.batch_size, 1):
                self._accelerator.run(self._step_of_samples, (samples,), whole=self._is_whole(samples))
        else:
            for batch in self.bags.batches(order, self.config.batch_size):
                self.step(batch)
        return self._sums / len(self.bags)

    def begin_epoch(self, epoch: int, rates: Sequence[float]) -> None:
        """Set what is the same in all steps of an epoch."""
        for stack, rate in zip(self.stacks, rates, strict=False):
            stack.set_learning_rate(rate)
        self._weights.copy_(torch.tensor(loss_weights(self.config, epoch), dtype=self._dtype))
        self._tick.fill_(epoch * _EPOCH_STRIDE)
        self._sums.zero_()

    def infuse(self, momentum: float) -> None:
        """Self-distillation of every seed (eq. 7); nothing without a visual network."""
        if self.visual is not None:
            for student, teacher in zip(self.audio_visual.networks, self.visual.networks, strict=True):
                infuse(student, teacher, momentum)

    def step(self, batch: Batch) -> Tensor:
        """One step of all networks; their losses are independent, so one backward pass serves all.

        Returns:
            The losses before the step, (S, 4), see `train_epoch`; also added up for it.
        """
        losses = self.losses(batch)
        *parts, loss_visual = losses.unbind(1)
        weighted = total_loss(parts, self._weights.unbind()) + loss_visual
        for stack in self.stacks:
            stack.optimizer.zero_grad(set_to_none=True)
        weighted.sum().backward()
        for stack in self.stacks:
            stack.optimizer.step()
        losses = losses.detach()
        self._sums += losses.double() * batch.labels.shape[1]
        self._tick += 1
        return losses

    def losses(self, batch: Batch) -> Tensor:
        """`loss_mil`, `loss_v2b`, `loss_v2n` (unweighted) and `loss_visual` of each seed, (S, 4), with gradients."""
        noise = StepNoise(
            fold_in(self._dropout_keys, self._tick),
            fold_in(self._visual_dropout_keys, self._tick),
            self._columns,
            self._rates,
        )
        with self.autocast():
            return self._accelerator.losses(
                self.audio_visual.tensors,
                self.visual.tensors if self.visual is not None else None,
                self._input(batch.visual),
                self._input(batch.audio),
                batch.labels,
                batch.layout,
                self.config.switches,
                noise,
                self._temperature,
            )

    def state_of(self, slot: int) -> dict[str, Any]:
        """Weights and optimiser state of one seed."""
        state: dict[str, Any] = {}
        for name, stack in self._named_stacks().items():
            network = stack.networks[slot].state_dict()
            # Clones: to save a view would be to save the whole stack.
            state[name] = {key: tensor.detach().clone() for key, tensor in network.items()}
            state[f"{name}_optimizer"] = stack.optimizer_state(slot)
        return state

    def load_state_of(self, slot: int, state: Mapping[str, Any]) -> None:
        """Put back what `state_of` gave."""
        for name, stack in self._named_stacks().items():
            stack.networks[slot].load_state_dict(state[name])
            stack.load_optimizer_state(slot, state[f"{name}_optimizer"])

    def _named_stacks(self) -> dict[str, Stack]:
        named = {"network": self.audio_visual}
        return named if self.visual is None else {**named, "visual_network": self.visual}

    def _step_of_samples(self, samples: Tensor) -> Tensor:
        return self.step(self.bags.batch(samples))

    def _is_whole(self, samples: Tensor) -> bool:
        return samples.shape[1] == self.config.batch_size

    def _stack(self, networks: Sequence[nn.Module], learning_rate: float) -> Stack:
        return Stack(networks, learning_rate, self.device, self._dtype)

    def _input(self, x: Tensor) -> Tensor:
        return x.to(torch.bfloat16 if self.precision == "bf16" else self._dtype)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision that networks run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
