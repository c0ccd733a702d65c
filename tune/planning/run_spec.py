"""The specification that all trials of a run share, and how a trial's configuration is composed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from macil.config import TrialConfig
from macil.data.reading import AS_USUAL, Reading
from macil.data.split import SplitBy
from macil.evaluation.protocols import Protocol
from macil.io.formats import FileModel
from macil.training.settings import KeptScores

RunProtocol = Literal["heldout", "published"]


class TrainingSettings(FileModel):
    """How a run trains, beside configuration and data: the plan has these fields, every trial is trained with them.

    Each is an argument of `macil.training.trainer.Trainer` of the same name. One that is also an option of that name
    is taken over from the command line.
    """

    protocol: Protocol
    split_seed: int = 0
    split_by: SplitBy = "source"
    device: Literal["cuda", "cpu"]
    threads: int
    """CPU threads of a trial."""
    keep_scores: KeptScores = "ends"

    def training_settings(self) -> dict[str, Any]:
        """The fields that are of every training, by name."""
        return {name: getattr(self, name) for name in TrainingSettings.model_fields}


class HostRequirements(FileModel):
    """The requirements that a host of a cluster must meet before it trains anything."""

    versions: dict[str, str]
    """Name -> version; of Python without its last number, of packages without the tag of a build."""
    code: str
    """Hash of the sources of both packages."""
    marker: str | None
    """Path of a file in the run's folder, for storage that hosts share; None when they share none."""
    token: str
    """The content of the marker file."""


class RunSpec(TrainingSettings):
    """Settings that all trials of a batch share; the rest of a trial's configuration are its own hyperparameters."""

    base: TrialConfig
    """The run's configuration."""
    store: str
    """Absolute path, since a worker's current folder is its trial's; or a URI."""
    store_hash: str
    labels_hash: str | None = None
    """Hash of the store's test labels."""
    data: str | None = None
    """The folder that the store was made from; None for the demo data set."""
    reading: Reading = AS_USUAL
    """How that folder was read."""
    bucket: str | None = None
    """URI of the run, where it lies in a bucket."""
    hosts: HostRequirements | None = None
    """The requirements of every host; None on one machine."""
    split: str | None = None
    """Absolute path of the split's file, for `heldout`."""
    split_hash: str | None = None


def compose_config(base: TrialConfig, own: Mapping[str, Any], seed: int | None = None) -> TrialConfig:
    """A trial's configuration: the run's, what its row changes, what the search suggests, its seed; later ones win.

    Args:
        base: The run's configuration.
        own: What Tune hands the trial: its `row` with the `changes`, suggestions and seed by name. What is no
            hyperparameter is left out.
        seed: Of one training of a trial that trains several.

    Raises:
        ConfigError: They do not go together.
    """
    changes = (own.get("row") or {}).get("changes", {})
    suggested = {name: value for name, value in own.items() if name in TrialConfig.model_fields}
    return base.replace(**{**changes, **suggested, **({} if seed is None else {"seed": seed})})
