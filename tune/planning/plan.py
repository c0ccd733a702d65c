"""The plan of a run, resolved once; `plan.json` holds it, and a resume goes on by the recorded plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, computed_field

from macil.config import TrialConfig
from macil.data.reading import Reading
from macil.evaluation.protocols import EpochRule, epoch_rule
from macil.io.files import read_json
from macil.io.formats import FileFormat, FileModel
from macil.io.wording import plural
from tune.algorithms.samplers.registry import SAMPLERS, SamplerName
from tune.algorithms.space import Dimension
from tune.algorithms.stopping.registry import StoppingSettings
from tune.planning.options import Options, as_flags
from tune.planning.paper_sweeps import Row
from tune.planning.run_spec import RunProtocol, TrainingSettings
from tune.storage.names import PLAN_FILE
from tune.storage.run_file import Count, Positive, Scalar, Seed

# A range in the words of an earlier version.
_IN_WORDS = re.compile(r"(\S+) to (\S+), (logarithmic|linear)")

FORMAT_VERSION: Literal[1] = 1


def _dimension(content: object) -> object:
    """The fields of a dimension from what earlier versions recorded: words, or a distribution in Optuna's JSON."""
    if isinstance(content, str):
        try:
            if found := _IN_WORDS.fullmatch(content):
                return {"low": float(found[1]), "high": float(found[2]), "log": found[3] == "logarithmic"}
            return {"choices": [int(choice) for choice in content.split(" or ")]}
        except ValueError:
            raise ValueError("it is no range and no list of whole numbers") from None
    if not isinstance(content, Mapping) or not isinstance(content.get("attributes"), Mapping):
        return content
    fields = {"low", "high", "log", "step", "choices"}
    return {name: value for name, value in content["attributes"].items() if name in fields}


PlannedDimension = Annotated[Dimension, BeforeValidator(_dimension)]


class PlannedRow(Row):
    """A row of the run's sweep.

    Attributes:
        name: Of any letters: a report reads runs of other programs too.
        trained_as: The row whose trainings are its own: itself, or an earlier one that is the same training.
    """

    name: str
    trained_as: str | None = None


class PlannedConfirmation(FileModel):
    """How many configurations are confirmed, with which seeds: none that the run trains with otherwise."""

    configurations: Positive
    seeds: tuple[Seed, ...]


class Plan(Reading, TrainingSettings, FileFormat):
    """A run: what is trained, selected and measured how, with which resources."""

    WHAT: ClassVar[str] = "the plan of a run"

    format_version: Literal[1] = FORMAT_VERSION
    data: str | None
    """Folder, store or URI as given; None for the demo data set."""
    protocol: RunProtocol
    split: str | None = None
    """The file of the held-out split, whose content is the run's split.json; None where it is made from the seed."""
    split_hash: str | None = None
    """Hash of that file's lists."""
    base: TrialConfig
    fixed: dict[str, Scalar]
    """Hyperparameters that the command line, or a default of this kind of run, sets."""
    space: dict[str, PlannedDimension]
    """The search space; empty for a sweep."""
    first: dict[str, Scalar]
    """The first suggestion: the paper's values of what is searched."""
    enqueued: tuple[dict[str, Scalar], ...]
    """What is tried after it, whole or in part: what a point leaves out is suggested."""
    sampler: SamplerName | None
    """Who suggests; None for a sweep."""
    startup: Count
    """Random suggestions before the model of the scores is used."""
    search_seed: int | None
    sweep: str | None
    """The sweep's name; None for a search."""
    title: str | None
    source: str | None
    reference: str | None
    """The row that the others are compared with."""
    rows: tuple[PlannedRow, ...]
    trials: Positive
    """Suggestions to try, or trainings of the sweep."""
    seeds: tuple[Seed, ...]
    """Seeds of each row of a sweep, or of the winner's refit."""
    stopping: StoppingSettings | None
    """Who stops trials early; None: nobody."""
    confirm: PlannedConfirmation | None
    trial_timeout: float
    """Seconds without a report after which a trial is ended."""
    cpus_per_trial: float
    gpus_per_trial: float
    concurrent: Positive
    refit_cpus: float
    lockstep: bool
    """Whether a configuration's seeds are trained as one trial."""
    notes: tuple[str, ...]

    @property
    def reading(self) -> Reading:
        """How the data folder is read."""
        return Reading(**{name: getattr(self, name) for name in Reading.model_fields})

    @computed_field  # type: ignore[prop-decorator]
    @property
    def kind(self) -> Literal["sweep", "search"]:
        """Whether rows are trained or suggestions."""
        return "search" if self.sweep is None else "sweep"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def epoch_rule(self) -> EpochRule:
        """The epoch whose AP is the headline."""
        return epoch_rule(self.protocol)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def refits(self) -> bool:
        """Whether the winner is trained again on all training videos."""
        return self.sweep is None and self.protocol == "heldout"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def most_epochs(self) -> int:
        """Epochs in all if nothing is stopped early."""
        return sum(self.epochs_by_kind.values())

    @property
    def epochs_by_kind(self) -> dict[str, int]:
        """Epochs if nothing is stopped early, by the kind of the training (see `tune.planning.counts`)."""
        refits = len(self.seeds) if self.refits else 0
        confirmed = (self.confirm.configurations + 1) * len(self.confirm.seeds) if self.confirm else 0
        trainings = {"search": self.trials, "confirm": confirmed, "refit": refits}
        return {kind: number * self.base.epochs for kind, number in trainings.items()}

    @property
    def trained_rows(self) -> tuple[PlannedRow, ...]:
        """The rows of the sweep that are trained: one of those that are the same training."""
        return tuple(row for row in self.rows if row.trained_as in (None, row.name))

    @property
    def groups_of_seeds(self) -> int:
        """Trials of Tune that train all seeds of one configuration."""
        return 1 if self.lockstep else len(self.seeds)

    @property
    def confirm_seeds(self) -> tuple[int, ...]:
        """Fresh seeds of the confirmation; none without one."""
        return self.confirm.seeds if self.confirm else ()

    @property
    def confirm_together(self) -> bool:
        """Whether the confirmation trains a configuration's seeds as one trial."""
        return len(self.confirm_seeds) > 1 and (self.lockstep or self.gpus_per_trial > 0)

    @property
    def tune_trials(self) -> int:
        """Trials of Tune; a lockstep group is one."""
        return self.trials if self.sweep is None else len(self.trained_rows) * self.groups_of_seeds

    @property
    def refit_threads(self) -> int:
        """CPU threads of the winner's refit, which runs when the trials are done."""
        return max(1, int(self.refit_cpus))

    @property
    def suggestions(self) -> str:
        """Who suggests what is searched, in words; "" for a sweep."""
        if self.sampler is None:
            return ""
        sampler = SAMPLERS[self.sampler]
        known = f"{plural(len(self.enqueued), 'known point')} first; " if self.enqueued else ""
        return known + (
            f"{self.startup} random ones, then {sampler.title}" if sampler.learns else sampler.title
        )

    @property
    def early_stopping(self) -> str:
        """Who stops trials early, in words."""
        return self.stopping.describe(self.base.epochs) if self.stopping else "none"

    @property
    def grace(self) -> int | None:
        """Epochs that every trial gets; None where none is stopped."""
        return self.stopping.grace if self.stopping else None

    @property
    def rungs(self) -> list[int]:
        """Epochs at which trials are compared by a rule that does so at some alone."""
        return self.stopping.rungs(self.base.epochs) if self.stopping else []

    def flags(self) -> dict[str, Scalar]:
        """The options that would give this plan again: flag -> value; those of the sweep and of files are not known."""
        own: dict[str, Any] = {
            name: getattr(self, name) for name in Options.model_fields if name in type(self).model_fields
        }
        own |= {
            "sweep": None,
            "trials": None if self.sweep else self.trials,
            "seeds": len(self.seeds),
            "stopping": self.stopping.rule if self.stopping else "none",
            "grace": self.grace,
            "confirm": self.confirm and self.confirm.configurations,
            "confirm_seeds": len(self.confirm_seeds) or None,
            "space": None,
            "base": None,
        }
        return as_flags({name: each for name, each in own.items() if each is not None} | self.fixed)


def read_plan(run: Path) -> Plan | None:
    """The plan in `plan.json`; None where it is of the version before, which recorded no format_version.

    Raises:
        DataError: It is missing, damaged or of another version.
    """
    path = run / PLAN_FILE
    content: object = read_json(path)
    if isinstance(content, Mapping) and "format_version" not in content:
        return None
    return Plan.parse(upgraded(content), str(path))


def upgraded(content: object) -> object:
    """What a plan.json holds in the fields of this version: an earlier one knew TPE alone, and ASHA or nothing."""
    if not isinstance(content, Mapping) or "asha" not in content:
        return content
    asha = content["asha"]
    if isinstance(asha, Mapping):
        asha = {"rule": "asha", "grace": asha.get("grace_period"), "reduction": asha.get("reduction_factor")}
    sampler = "tpe" if content.get("sweep") is None else None
    others = {name: each for name, each in content.items() if name != "asha"}
    return {"sampler": sampler, "enqueued": [], **others, "stopping": asha}


def write_plan(run: Path, plan: Plan) -> None:
    """Write `plan.json`, in one step."""
    plan.write(run / PLAN_FILE)
