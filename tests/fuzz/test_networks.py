"""Checkpoints, exports and weight files that anything may have happened to."""

from __future__ import annotations

import io
import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from macil.__main__ import app
from macil.data.store.feature_store import FeatureStore
from macil.inference.released import to_released
from macil.inference.safetensors_format import save_safetensors
from macil.training.checkpoint import save_checkpoint
from macil.training.trainer import Trainer
from tests.support import fuzzing
from tests.support.faults import half_written
from tests.support.fuzzing import HOSTILE_VALUES, Damage
from tests.support.run_folders import BASE

pytestmark = fuzzing.LONG

NAMES = ("model.pt", "model.safetensors", "released.pth")


@pytest.fixture(scope="module")
def networks(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network in each of the formats."""
    folder = tmp_path_factory.mktemp("networks")
    trainer = Trainer(BASE, demo_store, threads=1)
    save_checkpoint(trainer, folder / "model.pt")
    save_safetensors(trainer.network.eval(), folder / "model.safetensors", {"epoch": 0})
    torch.save(to_released(trainer.network), folder / "released.pth")
    return folder


TENSORS: tuple[Any, ...] = (
    torch.zeros(3),
    torch.zeros(0),
    torch.tensor(float("nan")),
    torch.zeros(16, 64, dtype=torch.complex64),
    torch.zeros(16, 64, dtype=torch.int64),
    torch.zeros(1).expand(10**6, 10**5),
    torch.eye(16).to_sparse(),
    torch.full((16, 64), float("inf")),
)


def _other_state(path: Path, rng: random.Random) -> None:
    """A checkpoint or a weight file that is whole, of other things."""
    state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    holder = rng.choice([state, *(value for value in state.values() if isinstance(value, dict))])
    key = rng.choice(sorted(holder, key=str))
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = rng.choice([*HOSTILE_VALUES, *TENSORS])
    torch.save(state, path)


def _other_description(path: Path, rng: random.Random) -> None:
    """A safetensors file whose header says something else."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    described = header["__metadata__"]
    if rng.random() < 0.3:
        header = fuzzing.spoil_json(header, rng)
    elif rng.random() < 0.5:
        described[rng.choice(sorted(described))] = rng.choice(
            ["", "x", "-1", "9" * 5000, "10", "[]", "null", "[" * 10**5]
        )
    else:
        config = fuzzing.spoil_json(json.loads(described["config"]), rng)
        described["config"] = json.dumps(config)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def _careful(damage: Damage) -> Damage:
    def tried(path: Path, rng: random.Random) -> None:
        try:
            if path.is_file() and not path.is_symlink():
                damage(path, rng)
        except Exception:  # of another format, or damaged already
            return

    return tried


TABLE: dict[str, Damage] = fuzzing.ANY_FILE | {
    "state": _careful(_other_state),
    "another state": _careful(_other_state),
    "description": _careful(_other_description),
    "another description": _careful(_other_description),
}


@fuzzing.examples(120)
@given(
    fuzzing.damages(TABLE, most=2), st.sampled_from(NAMES), st.sampled_from(["evaluate", "score", "export"])
)
def test_a_damaged_network_is_used_whole_or_refused_by_name(
    networks: Path, demo_store: FeatureStore, damage: list[tuple[str, int]], name: str, what: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, name), Path(folder, "out")
        shutil.copyfile(networks / name, path)
        fuzzing.apply(TABLE, damage, path)
        line: list[object] = {
            "evaluate": ["evaluate", path, demo_store.path],
            "score": ["score", path, demo_store.path, "--out", out, "--pictures", 0],
            "export": ["export", path, "--to", "released", "--out", out],
        }[what]
        ended = fuzzing.call(
            app, *line, *(["--released", "--num-heads", 2] if name == "released.pth" else [])
        )
        assert half_written(Path(folder)) == []
        assert out.exists() == (ended.code == 0 and what != "evaluate")
        if ended.code:
            wrong_weights = any(
                words in ended.err for words in ("weights", "no finite numbers", "hidden_dim")
            )
            assert str(path) in ended.err or wrong_weights, ended.err
