"""Whatever holds a trained network opens as one, or says what it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError, UsageError
from macil.inference.exporting import export_network
from macil.inference.loading import load_trained
from macil.training.checkpoint import load_network, save_checkpoint
from macil.training.trainer import Trainer

CONFIG = TrialConfig(epochs=2, hidden_dim=16, feedforward_dim=16, batch_size=24, max_snippets=20, seed=3)


@pytest.fixture(scope="module")
def checkpoint(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "last.pt"
    save_checkpoint(Trainer(CONFIG, demo_store, protocol="heldout", threads=1), path)
    return path


def test_every_form_holds_the_same_network(checkpoint: Path, tmp_path: Path) -> None:
    network = load_network(checkpoint)
    known = {"epoch": 0, "protocol": "heldout", "seed": 3}
    shutil.copy(checkpoint, tmp_path / "model.pt")
    export_network(network, "safetensors", tmp_path / "m.safetensors", known)
    export_network(network, "released", tmp_path / "m.pkl")
    forms = {
        tmp_path: load_trained(tmp_path),
        tmp_path / "model.pt": load_trained(tmp_path / "model.pt"),
        tmp_path / "m.safetensors": load_trained(str(tmp_path / "m.safetensors")),
        tmp_path / "m.pkl": load_trained(tmp_path / "m.pkl", released=True, num_heads=4),
    }
    for path, form in forms.items():
        assert form.file == (tmp_path / "model.pt" if path == tmp_path else path)
        assert not form.network.training
        for name, value in network.state_dict().items():
            assert torch.equal(form.network.state_dict()[name], value)
    origins = [form.origin for form in forms.values()]
    assert origins == [known, known, known, {"origin": "released weights"}]


def test_a_folder_without_a_model_names_the_checkpoints_in_it(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no model\.pt; give one of the checkpoints in it: .*last\.pt"):
        load_trained(checkpoint.parent)
    with pytest.raises(DataError, match=r"holds no model\.pt; a search writes it"):
        load_trained(tmp_path)
    with pytest.raises(DataError, match=r"absent\.pt does not exist"):
        load_trained(tmp_path / "absent.pt")


def test_a_trial_of_a_run_may_be_given_and_a_sweep_names_its_trials(checkpoint: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / "run" / "trials" / "full_seed0" / f"checkpoint_{number:06d}"
        folder.mkdir(parents=True)
        shutil.copyfile(checkpoint, folder / "trainer.pt")
    newest = load_trained(tmp_path / "run" / "trials" / "full_seed0")
    assert newest.file.parent.name == "checkpoint_000002"
    with pytest.raises(DataError, match=r"one of its 1 trained trials, as .*full_seed0"):
        load_trained(tmp_path / "run")
    with pytest.raises(DataError, match="a search writes it when"):
        load_trained(tmp_path)


def test_heads_belong_to_released_weights(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="--num-heads belongs to --released"):
        load_trained(checkpoint, num_heads=4)


def test_the_checkpoint_of_a_group_of_seeds_is_no_single_network(
    demo_store: FeatureStore, tmp_path: Path
) -> None:
    save_checkpoint(Trainer(CONFIG, demo_store, seeds=[3, 4], threads=1), tmp_path / "group.pt")
    with pytest.raises(DataError, match=r"group\.pt is what a group of seeds resumes from"):
        load_trained(tmp_path / "group.pt")
