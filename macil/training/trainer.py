"""One MACIL-SD training, of one seed or of several in lockstep, and what it takes to resume it bit for bit.

Seeds of one configuration are trained together on one device, each with the numbers it has alone. On a GPU a step of
this model is bound by what does not grow with the seeds, launching kernels above all. On a CPU five seeds cost five
times as much as one, and separate trainings are the better use of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch

from macil.config import TrialConfig
from macil.data.silence import require_audio
from macil.data.split import Split, SplitBy, make_split
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError, DivergedError, UsageError
from macil.evaluation.evaluator import Evaluator
from macil.evaluation.labelled import LabelledEvaluation, evaluate_network
from macil.evaluation.protocols import Protocol
from macil.evaluation.whole_videos import VideoScores, require_widths, score_videos
from macil.io.text import brief
from macil.model import TwoStreamNetwork, VisualNetwork, parameter_counts
from macil.training.bags import shared_bags
from macil.training.checkpoint import load_checkpoint, save_checkpoint
from macil.training.device import choose_device
from macil.training.distillation import momentum_at
from macil.training.engine import Engine, Precision
from macil.training.member import Member
from macil.training.record import TrainingRecord, describe_environment, require_equal
from macil.training.settings import MOST_THREADS, KeptScores

BagDtype = Literal["float32", "float16"]
SplitName = Literal["train", "test"]


def learning_rate_at(epoch: int, initial: float, period: int = 60) -> float:
    """Lr (1 + cos(pi epoch / period)) / 2, epoch from 0; `period` is 60 in the released code, 50 in the paper."""
    return initial * (1 + math.cos(math.pi * epoch / period)) / 2


class Trainer:
    """A full training of a configuration on a store, with one seed or with several.

    What is one seed's (`history`, `network`, `test_scores`, …) is that of the first one; `members` has every seed's.

    Args:
        config: What to train.
        store: The data.
        seeds: All different; in place of `config.seed`. None is that one alone.
        protocol: `published` trains on all training videos and measures test AP every epoch; `heldout` trains on
            80 % of them, takes its selection score from the rest and never reads test labels; `refit` trains on all
            of them and reads no test labels either.
        split: The held-out split; by default made from `split_seed`. Only for `heldout`.
        split_seed: Seed of the split, apart from `config.seed`.
        split_by: What the split keeps on one side, see `macil.data.split.split_videos`.
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one.
        precision: `fp32`, `bf16` for autocast (losses stay in float32), or `fp64`; None is bf16 on a GPU, fp32 else.
        bags: Precision of the training features as kept: `float16` or `float32`; None is float16 on a GPU and the
            store's own elsewhere.
        threads: CPU threads; None keeps PyTorch's number. Part of what the digits depend on.
        keep_scores: Test scores kept in `test_scores` and in checkpoints: `ends` are those of the chosen and of the
            last epoch, `all` those of every epoch too, as `epoch_N`. No digit depends on it.
        lockstep: All seeds that the device trains, in order, `seeds` among them; None is `seeds`. The digits of a
            seed depend on the others beside it, so that running its record again takes them along, unmeasured.

    Attributes:
        config: What is trained, with the first seed.
        members: What each of `seeds` has come to, in their order.
        engine: What trains.
        evaluator: What measures an epoch.

    Raises:
        DataError: The store cannot serve the protocol (no split possible, no test labels, ...).
        UsageError: No such device, protocol or precision; no seeds, or one given twice.
    """

    def __init__(
        self,
        config: TrialConfig,
        store: FeatureStore,
        *,
        seeds: Sequence[int] | None = None,
        protocol: Protocol = "published",
        split: Split | None = None,
        split_seed: int = 0,
        split_by: SplitBy = "source",
        device: str = "auto",
        precision: Precision | None = None,
        bags: BagDtype | None = None,
        threads: int | None = None,
        keep_scores: KeptScores = "ends",
        lockstep: Sequence[int] | None = None,
    ) -> None:
        require_audio(store.audio_dim, store.path)
        seeds = [config.seed] if seeds is None else list(seeds)
        lockstep = seeds if lockstep is None else list(lockstep)
        _require_seeds(seeds, lockstep)
        self.config = config.replace(seed=seeds[0])
        self.store = store
        self.protocol: Protocol = _one_of("protocol", protocol, get_args(Protocol))
        self.device = choose_device(device)
        self.precision: Precision = _one_of(
            "precision",
            precision or ("bf16" if self.device.type == "cuda" else "fp32"),
            get_args(Precision),
        )
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise UsageError(
                f"threads = {brief(threads)} is not allowed: expected a whole number from 1 to {MOST_THREADS}"
            )
        self.threads = threads or torch.get_num_threads()
        self.split_by: SplitBy = _one_of("split_by", split_by, get_args(SplitBy))
        self.keep_scores: KeptScores = _one_of("keep_scores", keep_scores, get_args(KeptScores))
        self.split = _resolve_split(store, protocol, split, split_seed, split_by)
        dtype = None if bags is None else getattr(torch, _one_of("bags", bags, get_args(BagDtype)))
        trained = self.split.train if self.split else None
        shared = shared_bags(store, trained, config.max_snippets, self.device, dtype)
        self.engine = Engine(self.config, lockstep, shared, precision=self.precision)
        self.evaluator = Evaluator(store, protocol, self.split, self.device)
        self.members = [self._make_member(seed) for seed in seeds]
        self._resumed_from: list[dict[str, Any]] = []

    @property
    def network(self) -> TwoStreamNetwork:
        """The audio-visual network; a view of what is trained."""
        return self.members[0].network

    @property
    def visual_network(self) -> VisualNetwork | None:
        """The visual network likewise; None without self-distillation."""
        return self.members[0].visual_network

    @property
    def history(self) -> list[dict[str, Any]]:
        """The `EpochMetrics` of every epoch, as dicts."""
        return self.members[0].history

    @property
    def chosen_epoch(self) -> int | None:
        """The epoch chosen so far; None before the first."""
        return self.members[0].chosen_epoch

    @property
    def test_scores(self) -> dict[str, np.ndarray]:
        """Test snippet scores by name, see `keep_scores`."""
        return self.members[0].test_scores

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return max(member.epoch for member in self._sound() or self.members)

    @property
    def finished(self) -> bool:
        """Whether all epochs of the configuration are done, or every seed has diverged."""
        return not self._sound() or self.epoch >= self.config.epochs

    def train_epoch(self) -> dict[str, Any]:
        """One epoch: learning rates, steps, infusion, evaluation.

        Returns:
            The epoch's `EpochMetrics` as a dict; also appended to `history`.

        Raises:
            DivergedError: The loss is no finite number, or the scores are all the same; names the epoch. Other seeds
                than the first have been trained all the same, and say so in `Member.error` when they diverge.
            UsageError: All epochs are done, or every seed has diverged.
        """
        if self.finished:
            raise UsageError(self._why_finished())
        torch.set_num_threads(self.threads)
        started, epoch, config, sound = time.perf_counter(), self.epoch, self.config, self._sound()
        initial = config.learning_rate, config.visual_learning_rate
        rates = [learning_rate_at(epoch, rate, config.cosine_epochs) for rate in initial]
        losses = self.engine.train_epoch(epoch, rates).tolist()
        self.engine.infuse(momentum_at(epoch, config.momentum, config.momentum_epochs))
        share = (time.perf_counter() - started) / len(sound)
        kept_as = ["last", *([f"epoch_{epoch + 1}"] if self.keep_scores == "all" else [])]
        with self.engine.autocast():
            for member in sound:
                member.end_epoch(losses[self._slot(member)], rates[0], share, self.evaluator, kept_as)
        if (error := self.members[0].error) is not None:
            raise error
        return self.history[-1]

    def save(self, path: str | Path) -> None:
        """Write a checkpoint in one step: what `resume` goes on from, and what `macil.load_trained` opens.

        Raises:
            WriteError: The disk is full, or the folder cannot be written.
        """
        save_checkpoint(self, path)

    @classmethod
    def resume(
        cls,
        checkpoint: str | Path | Mapping[str, Any],
        store: FeatureStore,
        *,
        split: Split | None = None,
        device: str | None = None,
    ) -> Trainer:
        """The training of a checkpoint, to go on with; on the same kind of machine every digit stays.

        Args:
            checkpoint: A file of `save`, or its content (`macil.training.checkpoint.load_checkpoint`).
            store: Must be the data of the checkpoint.
            split: The held-out split where it was not made from its seed.
            device: Overrides the checkpoint's.

        Raises:
            DataError: No checkpoint, or one of another data set, split or version; names the difference.
        """
        state = dict(checkpoint) if isinstance(checkpoint, Mapping) else load_checkpoint(checkpoint)
        records = (
            [each["record"] for each in state["members"].values()]
            if "members" in state
            else [state["record"]]
        )
        seeds = [record["config"]["seed"] for record in records]
        trainer = trainer_from_record(records[0], store, seeds=seeds, split=split, device=device)
        trainer.load_state_dict(state)
        return trainer

    def score(self, store: FeatureStore | None = None, split: SplitName = "test") -> VideoScores:
        """Score whole videos with the audio-visual network as it is now; no label is read.

        Args:
            store: Other data of the same widths; None is what is trained on.
            split: Which of its videos.

        Returns:
            `snippets` (sum of lengths,) and `videos` (V,), in the order of `store.videos(split)`.

        Raises:
            DataError: The store has other widths.
        """
        store = store or self.store
        require_widths(self.network, store)
        with self.engine.autocast():
            return score_videos(self.network, store, store.videos(split), device=self.device)

    def evaluate(self, store: FeatureStore | None = None) -> LabelledEvaluation:
        """Measure the audio-visual network as it is now on test videos, whose labels are opened for it.

        What is chosen by this number is chosen on the test set, whatever the protocol of the training.

        Args:
            store: Other data of the same widths; None is what is trained on.

        Raises:
            DataError: The store has other widths, no test labels, or no violent test frame.
            DivergedError: The scores are no finite numbers, or all the same.
        """
        with self.engine.autocast():
            return evaluate_network(self.network, store or self.store, self.device)

    def record(self, member: Member | None = None) -> dict[str, Any]:
        """All that the digits of a seed depend on, as JSON-able values; `trainer_from_record` runs it again."""
        record = TrainingRecord(
            config=(member or self.members[0]).config.to_dict(),
            protocol=self.protocol,
            split_seed=self.split.seed if self.split else None,
            split_by=self.split_by,
            split_hash=self.split.hash if self.split else None,
            store_hash=self.store.content_hash,
            reading=self.store.reading,
            dtype=self.store.dtype,
            bags=str(self.engine.bags.dtype).removeprefix("torch."),
            precision=self.precision,
            lockstep=self.engine.seeds,
            **describe_environment(self.device, self.threads),
            resumed_from=self._resumed_from,
        )
        return record.model_dump()

    def state_of(self, member: Member) -> dict[str, Any]:
        """Everything about one seed: record, epochs, scores, weights and optimisers."""
        return {
            "record": self.record(member),
            **member.state_dict(),
            "features": {"visual_dim": self.store.visual_dim, "audio_dim": self.store.audio_dim},
            **self.engine.state_of(self._slot(member)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: plain values and tensors, safe to load with `weights_only=True`.

        Of one seed it is `state_of` it; of several, of each under `members`. Random numbers are functions of seed,
        epoch and step (`macil.model.random_numbers`): there is no generator to save.
        """
        states = {str(member.seed): self.state_of(member) for member in self.members}
        state = states[str(self.config.seed)]
        if len(states) > 1:
            diverged = {str(member.seed): str(member.error) for member in self.members if member.error}
            state = {"epoch": self.epoch, "members": states, "diverged": diverged}
        if unmeasured := self._unmeasured():
            state["others"] = {str(seed): self.engine.state_of(slot) for seed, slot in unmeasured.items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of an equal training; on the same kind of machine every digit stays.

        Raises:
            DataError: The state belongs to other seeds, another configuration, protocol, split or data set; names the
                differences.
        """
        states = list(state["members"].values() if "members" in state else [state])
        found = [each["record"]["config"]["seed"] for each in states]
        if found != [member.seed for member in self.members]:
            raise DataError(
                f"this checkpoint holds the seeds {found}, this training has {[member.seed for member in self.members]}"
            )
        theirs = states[0]["record"]
        require_equal(self.record(), theirs)
        others, unmeasured = state.get("others", {}), self._unmeasured()
        if len(others) != len(unmeasured):
            raise DataError(
                f"this checkpoint holds one seed of the lockstep group {self.engine.seeds}; resume the whole group"
            )
        for member, own in zip(self.members, states, strict=True):
            member.load_state_dict(own)
            reason = state.get("diverged", {}).get(str(member.seed))
            member.error = None if reason is None else DivergedError(reason)
            self.engine.load_state_of(self._slot(member), own)
        for seed, slot in unmeasured.items():
            self.engine.load_state_of(slot, others[str(seed)])
        here = describe_environment(self.device, self.threads)
        before = {name: theirs[name] for name in here}
        self._resumed_from = list(theirs["resumed_from"])
        if before != here and before not in self._resumed_from:
            self._resumed_from.append(before)

    def _make_member(self, seed: int) -> Member:
        slot, visual = self.engine.seeds.index(seed), self.engine.visual
        return Member(
            self.config.replace(seed=seed),
            cast(TwoStreamNetwork, self.engine.audio_visual.networks[slot]),
            None if visual is None else cast(VisualNetwork, visual.networks[slot]),
            parameter_counts(self.config, self.store.visual_dim, self.store.audio_dim),
        )

    def _sound(self) -> list[Member]:
        """The members that have not diverged."""
        return [member for member in self.members if member.error is None]

    def _slot(self, member: Member) -> int:
        return self.engine.seeds.index(member.seed)

    def _unmeasured(self) -> dict[int, int]:
        """Seed to slot of those that are trained along."""
        measured = {member.seed for member in self.members}
        return {seed: slot for slot, seed in enumerate(self.engine.seeds) if seed not in measured}

    def _why_finished(self) -> str:
        if not self._sound():
            return "every seed of this training has diverged"
        return f"all {self.config.epochs} epochs are done; raise `epochs` to train on"


def trainer_from_record(
    record: Mapping[str, Any],
    store: FeatureStore,
    *,
    seeds: Sequence[int] | None = None,
    split: Split | None = None,
    device: str | None = None,
) -> Trainer:
    """The training that a record describes, from its start.

    Args:
        record: What `Trainer.record` gave.
        store: Must be the data of the record.
        seeds: Those of its lockstep group that are measured; None is the record's own.
        split: The held-out split where it was not made from its seed.
        device: Overrides the record's.

    Raises:
        DataError: Another data set, split, or record format.
    """
    given = TrainingRecord.parse(record, "the record")
    if store.content_hash != given.store_hash:
        raise DataError(
            f"{store.path} is not the data set of this record: its content hash is {store.content_hash}, "
            f"the record's {given.store_hash}; give the store that it was trained on"
        )
    split_seed = given.split_seed or 0
    options: dict[str, Any] = given.model_dump(
        include={"protocol", "precision", "threads", "bags", "lockstep", "split_by"}
    )
    trainer = Trainer(
        TrialConfig.from_dict(given.config),
        store,
        seeds=seeds,
        split=split,
        split_seed=split_seed,
        device=device or given.device,
        **options,
    )
    if trainer.split is not None and trainer.split.hash != given.split_hash:
        raise DataError(
            f"the split made from seed {split_seed} has the hash {trainer.split.hash}, the record's "
            f"{given.split_hash}; give the split file of the run"
        )
    return trainer


def _require_seeds(seeds: Sequence[int], lockstep: Sequence[int]) -> None:
    for given in (seeds, lockstep):
        if not given or len(set(given)) < len(given):
            raise UsageError(f"a training needs different seeds, at least one; not {list(given)}")
    for seed in seeds:
        if seed not in lockstep:
            raise UsageError(f"seed {seed} is not among those of its lockstep group: {list(lockstep)}")


def _resolve_split(
    store: FeatureStore, protocol: str, split: Split | None, seed: int, by: SplitBy
) -> Split | None:
    if protocol != "heldout":
        if split is not None:
            raise UsageError(f"a split belongs to the heldout protocol, not to {protocol}")
        return None
    return make_split(store, seed, by) if split is None else split.check_given(store)


def _one_of(what: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise UsageError(f"{what} {value!r} is not known; expected {', '.join(allowed)}")
    return value
