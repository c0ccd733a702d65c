"""One MACIL-SD training: the loop, and what it takes to stop and resume it bit for bit."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from macil.checkpoint import load_checkpoint, save_checkpoint
from macil.config import TrialConfig
from macil.data.bags import shared_bags
from macil.data.split import Split, make_split
from macil.data.store import FeatureStore
from macil.device import choose_device
from macil.distillation import infuse, momentum_at
from macil.errors import DataError, DivergedError, UsageError
from macil.examination import Examiner, Protocol
from macil.metrics import EpochMetrics
from macil.model import TwoStreamNetwork, VisualNetwork, parameter_counts
from macil.objective import mil_loss, objective
from macil.random import make_generator
from macil.record import FORMAT_VERSION, describe_environment

__all__ = [
    "Protocol",
    "Trainer",
    "learning_rate_at",
    "load_checkpoint",
    "save_checkpoint",
    "trainer_from_record",
]

Precision = Literal["fp32", "bf16"]

# Record fields that a resumed training must share with the one that was stopped.
_IDENTITY = ("config", "protocol", "split_hash", "store_hash", "dtype", "precision")


def learning_rate_at(epoch: int, initial: float, period: int = 60) -> float:
    """Lr (1 + cos(pi epoch / period)) / 2, epoch from 0; `period` is 60 in the released code, 50 in the paper."""
    return initial * (1 + math.cos(math.pi * epoch / period)) / 2


class Trainer:
    """One full training of a configuration on a store.

    Args:
        config: What to train.
        store: The data.
        protocol: `published` trains on all training videos and measures test AP every epoch; `heldout` trains on
            80 % of them, is steered by the rest and never reads test labels; `refit` trains on all of them and reads
            no test labels either.
        split: The held-out split; by default made from `split_seed`. Only for `heldout`.
        split_seed: Seed of the split, apart from `config.seed`.
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one.
        precision: `fp32`, or `bf16` for autocast (losses stay in float32).
        threads: CPU threads; None keeps PyTorch's number. Part of what the digits depend on.

    Raises:
        DataError: The store cannot serve the protocol (no split possible, no test labels, ...).
        UsageError: No such device, protocol or precision.
    """

    def __init__(
        self,
        config: TrialConfig,
        store: FeatureStore,
        *,
        protocol: Protocol = "published",
        split: Split | None = None,
        split_seed: int = 0,
        device: str = "auto",
        precision: Precision = "fp32",
        threads: int | None = None,
    ) -> None:
        self.config = config
        self.store = store
        self.protocol: Protocol = _one_of("protocol", protocol, get_args(Protocol))
        self.precision: Precision = _one_of("precision", precision, get_args(Precision))
        self.device = choose_device(device)
        self.threads = threads or torch.get_num_threads()
        self.split = _resolve_split(store, protocol, split, split_seed)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.chosen_epoch: int | None = None
        self.test_scores: dict[str, np.ndarray] = {}
        self._best_score = -math.inf
        self._resumed_from: list[dict[str, Any]] = []

        trained = self.split.train if self.split else None
        self._bags = shared_bags(store, trained, config.max_snippets, self.device)
        self._examiner = Examiner(store, protocol, self.split, self.device)
        self._counts = parameter_counts(config, store.visual_dim, store.audio_dim)
        self._build()

    @property
    def finished(self) -> bool:
        """Whether all epochs of the configuration are done."""
        return self.epoch >= self.config.epochs

    def train_epoch(self) -> dict[str, Any]:
        """One epoch: train, schedulers, infuse, evaluate.

        Returns:
            The epoch's `EpochMetrics` as a dict; also appended to `history`.

        Raises:
            DivergedError: The loss is no finite number, or the scores are all the same; names the epoch.
            UsageError: All epochs are done.
        """
        if self.finished:
            raise UsageError(f"all {self.config.epochs} epochs are done; raise `epochs` to train on")
        started = time.perf_counter()
        torch.set_num_threads(self.threads)

        learning_rate = self._set_learning_rates()
        losses = self._train()
        if self.visual_network is not None:
            m = momentum_at(self.epoch, self.config.momentum, self.config.momentum_epochs)
            infuse(self.network, self.visual_network, m)
        self.epoch += 1
        measured = self._evaluate()

        metrics = EpochMetrics(
            epoch=self.epoch,
            **measured,
            **losses,
            learning_rate=learning_rate,
            **self._counts._asdict(),
            seconds=time.perf_counter() - started,
        ).to_dict()
        self.history.append(metrics)
        return metrics

    def record(self) -> dict[str, Any]:
        """All that the digits of this training depend on, as JSON-able values; `trainer_from_record` runs it again."""
        return {
            "format_version": FORMAT_VERSION,
            "config": self.config.to_dict(),
            "protocol": self.protocol,
            "split_seed": self.split.seed if self.split else None,
            "split_hash": self.split.hash if self.split else None,
            "store_hash": self.store.content_hash,
            "dtype": self.store.dtype,
            "precision": self.precision,
            **describe_environment(self.device, self.threads),
            "resumed_from": self._resumed_from,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: plain values and tensors, safe to load with `weights_only=True`."""
        state: dict[str, Any] = {
            "record": self.record(),
            "epoch": self.epoch,
            "history": self.history,
            "chosen_epoch": self.chosen_epoch,
            "best_score": self._best_score,
            "test_scores": {
                name: torch.from_numpy(scores.copy()) for name, scores in self.test_scores.items()
            },
            "generators": {name: generator.get_state() for name, generator in self._generators().items()},
            "features": {"visual_dim": self.store.visual_dim, "audio_dim": self.store.audio_dim},
        }
        for name, part in self._parts().items():
            state[name] = part.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of an equal training; on the same kind of machine every digit stays.

        Raises:
            DataError: The state belongs to another configuration, protocol, split or data set; names the differences.
        """
        mine, theirs = self.record(), state["record"]
        differing = [name for name in _IDENTITY if mine[name] != theirs[name]]
        if differing:
            raise DataError(
                "this checkpoint belongs to another training:",
                [
                    f"{name}: the checkpoint has {theirs[name]}, this training {mine[name]}"
                    for name in differing
                ],
            )
        self.epoch = state["epoch"]
        self.history = [dict(metrics) for metrics in state["history"]]
        self.chosen_epoch = state["chosen_epoch"]
        self._best_score = state["best_score"]
        self.test_scores = {name: scores.numpy().copy() for name, scores in state["test_scores"].items()}
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for name, generator in self._generators().items():
            generator.set_state(state["generators"][name])
        here = describe_environment(self.device, self.threads)
        before = {name: theirs[name] for name in here}
        self._resumed_from = list(theirs["resumed_from"])
        if before != here and before not in self._resumed_from:
            self._resumed_from.append(before)

    def _build(self) -> None:
        config, device = self.config, self.device
        self._shuffle = make_generator(config.seed, "shuffle")
        self.network = TwoStreamNetwork(
            config, self.store.visual_dim, self.store.audio_dim, generator=make_generator(config.seed, "init")
        ).to(device)
        self.network.dropout_generator = make_generator(config.seed, "dropout", device)
        self._optimizer = _adam(self.network, config.learning_rate)
        self.visual_network: VisualNetwork | None = None
        self._visual_optimizer: torch.optim.Adam | None = None
        if config.distill:
            self.visual_network = VisualNetwork(
                config, self.store.visual_dim, generator=make_generator(config.seed, "init/visual")
            ).to(device)
            self.visual_network.dropout_generator = make_generator(config.seed, "dropout/visual", device)
            self._visual_optimizer = _adam(self.visual_network, config.visual_learning_rate)

    def _train(self) -> dict[str, Any]:
        """All steps of one epoch; the losses stay on the device until its end."""
        self.network.train()
        if self.visual_network is not None:
            self.visual_network.train()
        order = torch.randperm(len(self._bags), generator=self._shuffle).to(self.device)
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        for samples in order.split(self.config.batch_size):
            sums += self._step(samples) * len(samples)
        loss_mil, loss_v2b, loss_v2n, loss_visual = (sums / len(order)).tolist()
        if not math.isfinite(loss_mil + loss_v2b + loss_v2n + loss_visual):
            raise DivergedError(f"diverged in epoch {self.epoch + 1}: the loss is no finite number")
        return {
            "loss_mil": loss_mil,
            "loss_v2b": loss_v2b if self.config.contrast else None,
            "loss_v2n": loss_v2n if self.config.contrast else None,
            "loss_visual": loss_visual if self.config.distill else None,
        }

    def _step(self, samples: Tensor) -> Tensor:
        """One step of both networks; their losses are independent, so one backward pass serves both."""
        batch = self._bags.batch(samples)
        with self._autocast():
            output = self.network(batch.visual, batch.audio, batch.lengths)
            total, parts = objective(output, batch.labels, self.config, self.epoch)
            loss_visual = torch.zeros_like(total)
            if self.visual_network is not None:
                seen = self.visual_network(batch.visual, batch.lengths)
                loss_visual = mil_loss(seen.video_logits, batch.labels)
        for optimizer in self._optimizers():
            optimizer.zero_grad(set_to_none=True)
        (total + loss_visual).backward()
        for optimizer in self._optimizers():
            optimizer.step()
        return torch.stack([*parts.values(), loss_visual]).detach().double()

    def _evaluate(self) -> dict[str, Any]:
        """Figures of the protocol after this epoch; keeps the test scores of the chosen and of the last epoch."""
        with self._autocast():
            found = self._examiner.examine(self.network, self.visual_network)
        if found.flaw is not None:
            raise DivergedError(f"diverged in epoch {self.epoch}: {found.flaw}")
        if found.steering is None or found.steering > self._best_score:
            self.chosen_epoch = self.epoch
            self._best_score = -math.inf if found.steering is None else found.steering
            self.test_scores |= {f"{which}chosen": scores for which, scores in found.test_scores.items()}
        self.test_scores |= {f"{which}last": scores for which, scores in found.test_scores.items()}
        return {
            **found.figures,
            "chosen_epoch": self.chosen_epoch,
            "selection_score": None if found.steering is None else self._best_score,
        }

    def _set_learning_rates(self) -> float:
        period = self.config.cosine_epochs
        rate = learning_rate_at(self.epoch, self.config.learning_rate, period)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if self._visual_optimizer is not None:
            for group in self._visual_optimizer.param_groups:
                group["lr"] = learning_rate_at(self.epoch, self.config.visual_learning_rate, period)
        return rate

    def _optimizers(self) -> list[torch.optim.Adam]:
        return [optimizer for optimizer in (self._optimizer, self._visual_optimizer) if optimizer is not None]

    def _parts(self) -> dict[str, Any]:
        parts = {"network": self.network, "optimizer": self._optimizer}
        if self.visual_network is not None:
            parts |= {"visual_network": self.visual_network, "visual_optimizer": self._visual_optimizer}
        return parts

    def _generators(self) -> dict[str, torch.Generator]:
        generators = {"shuffle": self._shuffle, "dropout": self.network.dropout_generator}
        if self.visual_network is not None:
            generators["dropout/visual"] = self.visual_network.dropout_generator
        return generators

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def trainer_from_record(
    record: dict[str, Any], store: FeatureStore, *, split: Split | None = None, device: str | None = None
) -> Trainer:
    """The training that a record describes, from its start.

    Args:
        record: What `Trainer.record` gave.
        store: Must be the data of the record.
        split: The held-out split where it was not made from its seed.
        device: Overrides the record's.

    Raises:
        DataError: Another data set, split, or record format.
    """
    try:
        version, wanted = record["format_version"], record["store_hash"]
        config, protocol, split_hash = record["config"], record["protocol"], record["split_hash"]
        options = {name: record[name] for name in ("precision", "threads")}
        device, split_seed = device or record["device"], record["split_seed"] or 0
    except (KeyError, TypeError) as error:
        raise DataError(f"this is no record of a training: it lacks {error}") from None
    if version != FORMAT_VERSION:
        raise DataError(f"the record has format_version {version}; this version reads {FORMAT_VERSION}")
    if store.content_hash != wanted:
        raise DataError(
            f"{store.path} is not the data set of this record: its content hash is {store.content_hash}, "
            f"the record's {wanted}"
        )
    trainer = Trainer(
        TrialConfig.from_dict(config),
        store,
        protocol=protocol,
        split=split,
        split_seed=split_seed,
        device=device,
        **options,
    )
    if trainer.split is not None and trainer.split.hash != split_hash:
        raise DataError(
            f"the split made from seed {split_seed} has the hash {trainer.split.hash}, the record's {split_hash}; "
            "give the split file of the run"
        )
    return trainer


def _resolve_split(store: FeatureStore, protocol: str, split: Split | None, seed: int) -> Split | None:
    if protocol != "heldout":
        if split is not None:
            raise UsageError(f"a split belongs to the heldout protocol, not to {protocol}")
        return None
    split = split or make_split(store, seed)
    split.check(store)
    return split


def _adam(network: torch.nn.Module, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)


def _one_of(what: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise UsageError(f"{what} {value!r} is not known; expected {', '.join(allowed)}")
    return value
