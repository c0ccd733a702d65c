"""One seed of a training: its networks, its epochs so far, and the test scores kept of them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from macil.config import TrialConfig
from macil.errors import DivergedError
from macil.evaluation.evaluator import Evaluation, Evaluator
from macil.model import ParameterCounts, TwoStreamNetwork, VisualNetwork
from macil.training.metrics import EpochMetrics


class Member:
    """The state that a trainer keeps of one of its seeds.

    Args:
        config: What is trained, with this seed.
        network: The audio-visual network; a view of what the engine trains.
        visual_network: The visual network likewise; None without self-distillation.
        parameters: Of both networks.

    Attributes:
        epoch: Epochs trained.
        history: The `EpochMetrics` of every measured epoch, as dicts.
        chosen_epoch: See `EpochMetrics`; None before the first epoch.
        test_scores: Test snippet scores by name: `chosen`, `last`, `epoch_N`; of the visual network `visual_chosen`, …
        error: Why this seed has diverged, None while it has not. It is measured no more; where others go on, it is
            trained on with them, and its numbers say nothing.
    """

    def __init__(
        self,
        config: TrialConfig,
        network: TwoStreamNetwork,
        visual_network: VisualNetwork | None,
        parameters: ParameterCounts,
    ) -> None:
        self.config, self.network, self.visual_network = config, network, visual_network
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.chosen_epoch: int | None = None
        self.test_scores: dict[str, np.ndarray] = {}
        self.error: DivergedError | None = None
        self._best_score = -math.inf
        self._parameters = parameters

    @property
    def seed(self) -> int:
        """The seed."""
        return self.config.seed

    def end_epoch(
        self,
        losses: Sequence[float],
        learning_rate: float,
        seconds: float,
        evaluator: Evaluator,
        kept_as: Sequence[str],
    ) -> None:
        """Measure an epoch that has been trained, and remember it; a diverged one leaves `error` and no number.

        Args:
            losses: `loss_mil`, `loss_v2b`, `loss_v2n` and `loss_visual`.
            learning_rate: Of the audio-visual network.
            seconds: This seed's share of the training's time.
            evaluator: What measures.
            kept_as: Names under which the epoch's test scores are kept, beside `chosen` where it is that.
        """
        began = time.perf_counter()
        if not math.isfinite(sum(losses)):
            self.error = DivergedError(f"diverged in epoch {self.epoch + 1}: the loss is no finite number")
            return
        self.epoch += 1
        found = evaluator.evaluate(self.network, self.visual_network)
        if found.degenerate is not None:
            self.error = DivergedError(f"diverged in epoch {self.epoch}: {found.degenerate}")
            return
        self._choose(found, kept_as)
        assert self.chosen_epoch is not None
        loss_mil, loss_v2b, loss_v2n, loss_visual = losses
        metrics = EpochMetrics(
            epoch=self.epoch,
            **found.figures,
            chosen_epoch=self.chosen_epoch,
            selection_score=None if found.selection_metric is None else self._best_score,
            loss_mil=loss_mil,
            loss_v2b=loss_v2b if self.config.contrast else None,
            loss_v2n=loss_v2n if self.config.contrast else None,
            loss_visual=loss_visual if self.config.distill else None,
            learning_rate=learning_rate,
            **self._parameters._asdict(),
            seconds=seconds + time.perf_counter() - began,
        )
        self.history.append(metrics.to_dict())

    def state_dict(self) -> dict[str, Any]:
        """The state for `load_state_dict`, without the networks: plain values and tensors."""
        return {
            "epoch": self.epoch,
            "history": self.history,
            "chosen_epoch": self.chosen_epoch,
            "best_score": self._best_score,
            "test_scores": {
                name: torch.from_numpy(scores.copy()) for name, scores in self.test_scores.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.epoch = state["epoch"]
        self.history = [dict(metrics) for metrics in state["history"]]
        self.chosen_epoch = state["chosen_epoch"]
        self._best_score = state["best_score"]
        self.test_scores = {name: scores.numpy().copy() for name, scores in state["test_scores"].items()}

    def _choose(self, found: Evaluation, kept_as: Sequence[str]) -> None:
        """Choose this epoch if it is the best so far, and keep its test scores by the names that it has now."""
        names = list(kept_as)
        if found.selection_metric is None or found.selection_metric > self._best_score:
            self.chosen_epoch = self.epoch
            self._best_score = -math.inf if found.selection_metric is None else found.selection_metric
            names.insert(0, "chosen")
        self.test_scores |= {
            f"{which}{name}": scores for name in names for which, scores in found.test_scores.items()
        }
