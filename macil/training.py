"""One MACIL-SD training: the loop, and what it takes to stop and resume it bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
import torch

from macil.checkpoint import load_checkpoint, save_checkpoint
from macil.config import TrialConfig
from macil.data.bags import shared_bags
from macil.data.split import Split, make_split
from macil.data.store import FeatureStore
from macil.device import choose_device
from macil.distillation import momentum_at
from macil.engine import Engine, Precision
from macil.errors import DataError, DivergedError, UsageError
from macil.examination import Examiner
from macil.metrics import EpochMetrics
from macil.model import TwoStreamNetwork, VisualNetwork, parameter_counts
from macil.protocols import Protocol
from macil.record import FORMAT_VERSION, describe_environment

__all__ = [
    "BagDtype",
    "KeptScores",
    "Precision",
    "Trainer",
    "learning_rate_at",
    "load_checkpoint",
    "save_checkpoint",
    "trainer_from_record",
]

BagDtype = Literal["float32", "float16"]
KeptScores = Literal["ends", "all"]

# Record fields that a resumed training must share with the one that was stopped.
_IDENTITY = ("config", "protocol", "split_hash", "store_hash", "dtype", "bags", "precision", "lockstep")


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
        precision: `fp32`, `bf16` for autocast (losses stay in float32), or `fp64`; None is bf16 on a GPU, fp32 else.
        bags: Precision of the training features as kept: `float16` or `float32`; None is float16 on a GPU and the
            store's own elsewhere.
        threads: CPU threads; None keeps PyTorch's number. Part of what the digits depend on.
        keep_scores: Test scores kept in `test_scores` and in checkpoints: `ends` are those of the chosen and of the
            last epoch, `all` those of every epoch too, as `epoch_N`. No digit depends on it.
        lockstep: Seeds that are trained along on the device, `config.seed` among them: what a member of a lockstep
            group (`macil.lockstep`) needs to come out with the same digits again.
        engine: The engine of a lockstep group that trains this seed; `train_epoch` is then the group's to call.
        examiner: The examiner that the group shares.

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
        precision: Precision | None = None,
        bags: BagDtype | None = None,
        threads: int | None = None,
        keep_scores: KeptScores = "ends",
        lockstep: Sequence[int] | None = None,
        engine: Engine | None = None,
        examiner: Examiner | None = None,
    ) -> None:
        self.config = config
        self.store = store
        self.protocol: Protocol = _one_of("protocol", protocol, get_args(Protocol))
        self.device = choose_device(device)
        self.precision: Precision = _one_of(
            "precision",
            precision or ("bf16" if self.device.type == "cuda" else "fp32"),
            get_args(Precision),
        )
        self.threads = threads or torch.get_num_threads()
        self.keep_scores: KeptScores = _one_of("keep_scores", keep_scores, get_args(KeptScores))
        self.split = _resolve_split(store, protocol, split, split_seed)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.chosen_epoch: int | None = None
        self.test_scores: dict[str, np.ndarray] = {}
        self._best_score = -math.inf
        self._resumed_from: list[dict[str, Any]] = []
        self._owns_engine = engine is None
        self.engine = engine or self._make_engine(lockstep or [config.seed], bags)
        self._slot = self.engine.seeds.index(config.seed)
        self._examiner = examiner or Examiner(store, protocol, self.split, self.device)
        self._counts = parameter_counts(config, store.visual_dim, store.audio_dim)

    @property
    def network(self) -> TwoStreamNetwork:
        """The audio-visual network; a view of what is trained."""
        return cast(TwoStreamNetwork, self.engine.audio_visual.networks[self._slot])

    @property
    def visual_network(self) -> VisualNetwork | None:
        """The visual network likewise; None without self-distillation."""
        visual = self.engine.visual
        return None if visual is None else cast(VisualNetwork, visual.networks[self._slot])

    @property
    def examiner(self) -> Examiner:
        """What measures an epoch."""
        return self._examiner

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
            UsageError: All epochs are done, or a lockstep group trains this seed.
        """
        if not self._owns_engine:
            raise UsageError("this seed is trained in lockstep with others; call train_epoch of the group")
        started = time.perf_counter()
        losses = self.train_engine()
        return self.take_epoch(losses[self._slot], started)

    def member_of_group(self) -> Trainer:
        """Leave the engine to a lockstep group from now on; returns itself."""
        self._owns_engine = False
        return self

    def train_engine(self) -> list[list[float]]:
        """Train the engine for this trainer's next epoch, up to the infusion; the four losses of every seed.

        Raises:
            UsageError: All epochs are done.
        """
        if self.finished:
            raise UsageError(f"all {self.config.epochs} epochs are done; raise `epochs` to train on")
        torch.set_num_threads(self.threads)
        losses = self.engine.train_epoch(self.epoch, self._learning_rates()).tolist()
        self.engine.infuse(momentum_at(self.epoch, self.config.momentum, self.config.momentum_epochs))
        return cast(list[list[float]], losses)

    def take_epoch(self, losses: Sequence[float], started: float) -> dict[str, Any]:
        """Take in an epoch that the engine has trained: evaluate, measure, remember.

        Args:
            losses: What `train_engine` gave for this seed.
            started: When the epoch began, by `time.perf_counter`.

        Returns, Raises: As `train_epoch`.
        """
        learning_rate = self._learning_rates()[0]
        loss_mil, loss_v2b, loss_v2n, loss_visual = losses
        if not math.isfinite(sum(losses)):
            raise DivergedError(f"diverged in epoch {self.epoch + 1}: the loss is no finite number")
        self.epoch += 1
        measured = self._evaluate()
        metrics = EpochMetrics(
            epoch=self.epoch,
            **measured,
            loss_mil=loss_mil,
            loss_v2b=loss_v2b if self.config.contrast else None,
            loss_v2n=loss_v2n if self.config.contrast else None,
            loss_visual=loss_visual if self.config.distill else None,
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
            "bags": str(self.engine.bags.dtype).removeprefix("torch."),
            "precision": self.precision,
            "lockstep": self.engine.seeds,
            **describe_environment(self.device, self.threads),
            "resumed_from": self._resumed_from,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: plain values and tensors, safe to load with `weights_only=True`.

        Random numbers are functions of seed, epoch and step (`macil.random`): there is no generator to save.
        """
        state: dict[str, Any] = {
            "record": self.record(),
            "epoch": self.epoch,
            "history": self.history,
            "chosen_epoch": self.chosen_epoch,
            "best_score": self._best_score,
            "test_scores": {
                name: torch.from_numpy(scores.copy()) for name, scores in self.test_scores.items()
            },
            "features": {"visual_dim": self.store.visual_dim, "audio_dim": self.store.audio_dim},
            **self.engine.state_of(self._slot),
        }
        if self._owns_engine and len(self.engine.seeds) > 1:
            others = enumerate(self.engine.seeds)
            state["others"] = {
                str(seed): self.engine.state_of(slot) for slot, seed in others if slot != self._slot
            }
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
        others = state.get("others", {})
        if self._owns_engine and len(others) + 1 != len(self.engine.seeds):
            raise DataError(
                f"this checkpoint holds one seed of the lockstep group {self.engine.seeds}; resume the whole group"
            )
        self.epoch = state["epoch"]
        self.history = [dict(metrics) for metrics in state["history"]]
        self.chosen_epoch = state["chosen_epoch"]
        self._best_score = state["best_score"]
        self.test_scores = {name: scores.numpy().copy() for name, scores in state["test_scores"].items()}
        self.engine.load_state_of(self._slot, state)
        for seed, other in others.items():
            self.engine.load_state_of(self.engine.seeds.index(int(seed)), other)
        here = describe_environment(self.device, self.threads)
        before = {name: theirs[name] for name in here}
        self._resumed_from = list(theirs["resumed_from"])
        if before != here and before not in self._resumed_from:
            self._resumed_from.append(before)

    def _make_engine(self, seeds: Sequence[int], bags: BagDtype | None) -> Engine:
        if self.config.seed not in seeds:
            raise UsageError(f"seed {self.config.seed} is not among those of its lockstep group: {seeds}")
        dtype = None if bags is None else getattr(torch, _one_of("bags", bags, get_args(BagDtype)))
        trained = self.split.train if self.split else None
        shared = shared_bags(self.store, trained, self.config.max_snippets, self.device, dtype)
        return Engine(self.config, seeds, shared, precision=self.precision)

    def _evaluate(self) -> dict[str, Any]:
        """Figures of the protocol after this epoch; keeps the test scores of the chosen and of the last epoch."""
        with self.engine.autocast():
            found = self._examiner.examine(self.network, self.visual_network)
        if found.flaw is not None:
            raise DivergedError(f"diverged in epoch {self.epoch}: {found.flaw}")
        if found.steering is None or found.steering > self._best_score:
            self.chosen_epoch = self.epoch
            self._best_score = -math.inf if found.steering is None else found.steering
            self.test_scores |= {f"{which}chosen": scores for which, scores in found.test_scores.items()}
        self.test_scores |= {f"{which}last": scores for which, scores in found.test_scores.items()}
        if self.keep_scores == "all":
            self.test_scores |= {
                f"{which}epoch_{self.epoch}": scores for which, scores in found.test_scores.items()
            }
        return {
            **found.figures,
            "chosen_epoch": self.chosen_epoch,
            "selection_score": None if found.steering is None else self._best_score,
        }

    def _learning_rates(self) -> tuple[float, float]:
        config = self.config
        initial = config.learning_rate, config.visual_learning_rate
        first, second = (learning_rate_at(self.epoch, rate, config.cosine_epochs) for rate in initial)
        return first, second


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
        options = {name: record[name] for name in ("precision", "threads", "bags", "lockstep")}
        device, split_seed = device or record["device"], record["split_seed"] or 0
    except (KeyError, TypeError) as error:
        raise DataError(f"this is no record of a training: it lacks {error}") from None
    if version != FORMAT_VERSION:
        raise DataError(f"the record has format_version {version}; this version reads {FORMAT_VERSION}")
    if store.content_hash != wanted:
        raise DataError(
            f"{store.path} is not the data set of this record: its content hash is {store.content_hash}, "
            f"the record's {wanted}; give the store that it was trained on"
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
    return split.check(store)


def _one_of(what: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise UsageError(f"{what} {value!r} is not known; expected {', '.join(allowed)}")
    return value
