"""The rows of a run's two tables: one per training and one per epoch.

The fields are the columns, in order, each documented once: Arrow schemas, the files beside a report, the column tables
of `docs/report.md` and what the report shows derive from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import PurePosixPath
from typing import Any, get_args, get_type_hints

import pyarrow as pa

from macil.config import TrialConfig, hyperparameters
from tune.storage.trial_names import trial_name

Value = bool | int | float | str

_ARROW: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Its name in every file and in the documents.
        type: What its values are, where they are not null.
        unit: Their unit, "–" without one.
        meaning: What they are, as in the documents.
        null: When they are null; "never" where they never are.
    """

    name: str
    type: type[Value]
    unit: str
    meaning: str
    null: str

    @property
    def arrow(self) -> pa.DataType:
        """The type of the column in a table."""
        return _ARROW[self.type]

    def fitting(self, value: Any) -> Value | None:
        """`value` as one of this column; None where it is of another type, or no finite number."""
        if self.type in (int, float):
            whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
            if self.type is int:
                return value if whole else None
            if whole:
                return float(value) if float(value) == value else None
            return value if isinstance(value, float) and math.isfinite(value) else None
        return value if isinstance(value, self.type) else None


def _column(meaning: str, *, unit: str = "–", null: str = "never", **default: Any) -> Any:
    """A field; one that may be null is None where it is not given."""
    if null != "never":
        default.setdefault("default", None)
    return field(metadata={"meaning": meaning, "unit": unit, "null": null}, **default)


_NO_RESULT = "labels closed, or no result"
_AS_AP = "as `ap`"
_NO_RECORD = "no record was left"
_NO_EPOCH = "no epoch has ended"
_NOT_PUBLISHED = "not `published`"
_NO_CONFIGURATION = "no configuration was left"
_DIVERGED = "diverged"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One training: a (configuration, seed). `kind` tells the search's from its confirmation and the winner's refit."""

    trial_id: str = _column(
        "name of the trial, as log, leaderboard and `--replay` have it: `00004`, `10_seed0`, `confirm/00004_seed1000`, "
        "`refit/seed0`"
    )
    kind: str = _column(
        "`search`, `confirm` (again on fresh seeds) or `refit` (the winner on all training videos)"
    )
    row: str | None = _column(
        "sweep: name of the row; `confirm`: the trial that is confirmed", null="neither"
    )
    rows: str | None = _column(
        "sweep: all rows that this is the training of, `01, 04, 07`, see [Statistics](#statistics)",
        null="no sweep, or another training with this seed stands for the row",
    )
    winner: bool | None = _column(
        "search: whether this is a training of the winning configuration: its trial, a confirmation of it, or its "
        "refit",
        null="no winner is named yet, or a sweep",
    )
    # A column for each hyperparameter: what is known of the configuration, whole, in part or not at all.
    config: Mapping[str, Value] = field(default_factory=dict, hash=False)
    protocol: str | None = _column("`heldout`, `published` or `refit`", null=_NO_RECORD)
    status: str = _column(
        "`finished`, `stopped` (early), `refit` (a finished refit), `running`, `interrupted`, `pending`, `failed`, "
        "`diverged`"
    )
    epochs_run: int = _column("last epoch with a result, 0 before the first", unit="epochs", default=0)
    epoch_rule: str = _column("whose epoch `ap` and the like are of: `chosen` or `last`")
    chosen_epoch: int | None = _column(
        "first with the best selection score; the last one in a `refit`, where nothing chooses",
        unit="epoch",
        null=_NO_EPOCH,
    )
    ap: float | None = _column(
        "test AP over frames, step-wise (scikit-learn), at the epoch of the rule",
        unit="share",
        null=_NO_RESULT,
    )
    ap_trapezoid: float | None = _column(
        "the same, trapezoidal: the published definition", unit="share", null=_AS_AP
    )
    ap_last: float | None = _column("step-wise, last epoch", unit="share", null=_AS_AP)
    ap_trapezoid_last: float | None = _column("trapezoidal, last epoch", unit="share", null=_AS_AP)
    best_epoch: int | None = _column(
        "best test epoch: the published convention, which flatters", unit="epoch", null=_NOT_PUBLISHED
    )
    ap_best: float | None = _column("step-wise, at the best test epoch", unit="share", null=_NOT_PUBLISHED)
    ap_trapezoid_best: float | None = _column(
        "trapezoidal, at the best test epoch", unit="share", null=_NOT_PUBLISHED
    )
    visual_ap: float | None = _column(
        "test AP of the visual network alone, step-wise, at the epoch of the rule",
        unit="share",
        null="no distillation, or as `ap`",
    )
    heldout_ap: float | None = _column(
        "AP over held-out videos, at the epoch of the rule", unit="share", null="not `heldout`"
    )
    selection_score: float | None = _column(
        "the selection metric: running best of the held-out score; under `published`, of `ap_trapezoid`",
        unit="score",
        null="`refit`, or no epoch has ended",
    )
    video_accuracy: float | None = _column(
        "right predictions (p > 0.5) of whole videos, at the epoch of the rule: held-out ones, under `published` test "
        "ones",
        unit="share",
        null="`refit`, or no result",
    )
    parameters: int | None = _column("trainable numbers in use", null=_NO_EPOCH)
    parameters_published: int | None = _column("the same, counted as the paper does", null=_NO_EPOCH)
    seconds: float | None = _column("training and evaluation, all epochs", unit="s", null=_NO_EPOCH)
    error: str | None = _column("why it failed or diverged", null="neither")
    failures: int = _column("failed attempts, 0 without", default=0)
    store_hash: str | None = _column("content hash of the data", null=_NO_RECORD)
    demo: bool = _column("whether the data are a demo", default=False)
    threads: int | None = _column("CPU threads", null=_NO_RECORD)
    device: str | None = _column("`cpu` or `cuda`", null=_NO_RECORD)
    trial_dir: str = _column("folder, relative to the run")

    @property
    def name(self) -> str:
        """The trial's name, as `trial_id` is of a run that was read: its folder, which is also where to look."""
        return trial_name(PurePosixPath(self.trial_dir))

    @property
    def key(self) -> tuple[str, str]:
        """The key that finds the training's epochs: `EpochRow.key` of each is equal to it."""
        return self.kind, self.trial_id

    @property
    def seed(self) -> int | None:
        """The seed of its random numbers."""
        return self._whole("seed")

    @property
    def epochs(self) -> int | None:
        """Epochs that it was to have."""
        return self._whole("epochs")

    def result(self, column: str) -> float | None:
        """One of the training's results, as `ap` and `selection_score` are."""
        found: float | None = getattr(self, column)
        return found

    def configuration(self) -> TrialConfig:
        """The whole configuration.

        Raises:
            ConfigError: It is not known, or only in part.
        """
        return TrialConfig.from_dict({name: self.config.get(name) for name in TrialConfig.model_fields})

    def values(self) -> Iterator[Value | None]:
        """A value for each of `trial_columns`, in their order."""
        for each in fields(self):
            if each.name == "config":
                yield from (self.config.get(name) for name in TrialConfig.model_fields)
            else:
                yield getattr(self, each.name)

    def _whole(self, name: str) -> int | None:
        value = self.config.get(name)
        return value if isinstance(value, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """The metrics that a training reported of one epoch."""

    trial_id: str = _column("as in the trials")
    kind: str = _column("as in the trials")
    epoch: int = _column("from 1", unit="epoch")
    selection_score: float | None = _column("best so far", unit="score", null="`refit`, or diverged")
    ap: float | None = _column("test AP over frames, step-wise", unit="share", null=_NOT_PUBLISHED)
    ap_trapezoid: float | None = _column(
        "trapezoidal: the published definition", unit="share", null=_NOT_PUBLISHED
    )
    visual_ap: float | None = _column(
        "of the visual network alone, step-wise", unit="share", null="not `published`, or no distillation"
    )
    heldout_ap: float | None = _column("AP over held-out videos", unit="share", null="not `heldout`")
    heldout_loss: float | None = _column(
        "cross-entropy of the predictions for whole held-out videos", unit="nats", null="not `heldout`"
    )
    heldout_score: float | None = _column(
        "of this epoch; what it is made of stands in [search.md](search.md)",
        unit="score",
        null="not `heldout`",
    )
    video_accuracy: float | None = _column(
        "right predictions (p > 0.5) of whole videos", unit="share", null="`refit`"
    )
    loss_mil: float | None = _column(
        "K-max MIL loss, sum of both directions, mean over the epoch's bags", unit="nats", null=_DIVERGED
    )
    loss_v2b: float | None = _column(
        "contrast violent against background, not weighted by λ", unit="nats", null="no contrast"
    )
    loss_v2n: float | None = _column(
        "contrast violent against normal, not weighted by λ", unit="nats", null="no contrast"
    )
    loss_visual: float | None = _column("MIL loss of the visual network", unit="nats", null="no distillation")
    learning_rate: float | None = _column("of the audio-visual network in this epoch", null=_DIVERGED)
    parameters: int | None = _column("trainable numbers in use", null=_DIVERGED)
    parameters_published: int | None = _column("the same, counted as the paper does", null=_DIVERGED)
    seconds: float | None = _column("training and evaluation of this epoch", unit="s", null=_DIVERGED)
    chosen_epoch: int | None = _column("the one chosen so far", unit="epoch", null=_DIVERGED)
    diverged: bool = _column("whether the epoch gave no result: a loss was no finite number", default=False)

    @property
    def key(self) -> tuple[str, str]:
        """The key that finds the training: `TrialRow.key`."""
        return self.kind, self.trial_id

    @property
    def contrast(self) -> dict[str, float | None]:
        """The contrastive terms, as `macil.training.silent_terms` reads them."""
        return {"loss_v2b": self.loss_v2b, "loss_v2n": self.loss_v2n}

    def values(self) -> Iterator[Value | None]:
        """A value for each of `epoch_columns`, in their order."""
        return (getattr(self, each.name) for each in fields(self))


@cache
def trial_columns() -> tuple[Column, ...]:
    """The columns of the table of trainings."""
    return tuple(_columns(TrialRow))


@cache
def epoch_columns() -> tuple[Column, ...]:
    """The columns of the table of epochs."""
    return tuple(_columns(EpochRow))


def _columns(row: type[TrialRow | EpochRow]) -> Iterator[Column]:
    kinds = get_type_hints(row)
    for each in fields(row):
        if each.name == "config":
            for parameter in hyperparameters():
                symbol = f" ({parameter.symbol})" if parameter.symbol else ""
                meaning = f"{parameter.help}{symbol}"
                yield Column(
                    parameter.name, parameter.type, parameter.unit or "–", meaning, _NO_CONFIGURATION
                )
        else:
            (kind,) = {kinds[each.name], *get_args(kinds[each.name])} & set(_ARROW)
            yield Column(each.name, kind, **each.metadata)
