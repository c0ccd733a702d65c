"""Feature stores that anything may have happened to, by accident or on purpose."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macil.__main__ import app
from macil.config import TrialConfig
from macil.data import convert
from macil.data.store.arrow_files import write_table
from macil.data.store.columns import INDEX_SCHEMA
from macil.data.store.feature_store import AUDIO, INDEX, LABELS, VISUAL, hash_file
from macil.data.store.meta import META
from macil.inference.safetensors_format import save_safetensors
from macil.model import TwoStreamNetwork
from tests.support import fuzzing
from tests.support.faults import half_written
from tests.support.fuzzing import HOSTILE_TEXTS, HOSTILE_VALUES, Damage
from tests.support.layouts import AUDIO_DIM, VISUAL_DIM, write_layout
from tune.commands.search import search

pytestmark = fuzzing.LONG

FILES = (META, VISUAL, AUDIO, INDEX, LABELS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and a network that reads it."""
    folder = tmp_path_factory.mktemp("made")
    convert(write_layout(folder / "layout"), folder / "store")
    config = TrialConfig(hidden_dim=4, num_heads=1, feedforward_dim=4)
    network = TwoStreamNetwork(config, VISUAL_DIM, AUDIO_DIM).eval()
    save_safetensors(network, folder / "network.safetensors", {})
    return folder


def _on_a_file(damage: Damage) -> Damage:
    return lambda store, rng: damage(store / rng.choice(FILES), rng)


def _spoil_meta(store: Path, rng: random.Random) -> None:
    path = store / META
    _write(path, fuzzing.spoil_json(json.loads(path.read_text()), rng))


def _spoil_a_field(store: Path, rng: random.Random) -> None:
    path = store / META
    content = json.loads(path.read_text())
    content[rng.choice(sorted(content))] = rng.choice(HOSTILE_VALUES)
    _write(path, content)


def _write(path: Path, content: Any) -> None:
    path.write_bytes(json.dumps(content).encode("utf-8", "surrogatepass"))


def _swap(store: Path, rng: random.Random) -> None:
    first, second = (store / name for name in rng.sample(FILES, 2))
    shutil.copyfile(first, store / "kept")
    shutil.copyfile(second, first)
    shutil.copyfile(store / "kept", second)
    (store / "kept").unlink()


def _spoil_table(store: Path, rng: random.Random) -> None:
    """Another value, type, column or row in a table that is otherwise whole."""
    path = store / rng.choice([INDEX, INDEX, LABELS])
    with pa.memory_map(str(path)) as file:
        found = pa.ipc.open_file(file).read_all()
        found.validate(full=True)
    table, schema = found.to_pydict(), found.schema
    column = rng.choice(sorted(table))
    what = rng.random()
    if what < 0.15:
        del table[column]
    elif what < 0.3:
        table[column] = [rng.choice(HOSTILE_VALUES) for _ in table[column]]
    elif what < 0.4:
        table = {name: values[rng.randrange(2) :] for name, values in table.items()}
    elif what < 0.5:
        table = {name: values + values for name, values in table.items()}
    else:
        texts = [text for text in HOSTILE_TEXTS if text != "\ud800"]
        numbers = [0, -1, 1, 10**6, 2**62, -(2**63)]
        for _ in range(rng.choice([1, 1, 5])):
            old = table[column][index := rng.randrange(len(table[column]))]
            table[column][index] = rng.choice(numbers if isinstance(old, int) else texts)
    types = pa.schema([field for field in schema if field.name in table])
    for each in (types, None):
        # Of the columns' own types where they hold the values, or another type would hide another value.
        with contextlib.suppress(pa.ArrowException, OverflowError, TypeError, UnicodeEncodeError):
            write_table(path, pa.table(table, schema=each))
            break
    else:
        return  # no table at all
    _forge(store, rng)


def _forge(store: Path, rng: random.Random) -> None:
    """Make meta.json agree with the files as they are now."""
    path = store / META
    content = json.loads(path.read_text())
    content["files"] = {name: (store / name).stat().st_size for name in (VISUAL, AUDIO)}
    content["hashes"] = {name: hash_file(store / name) for name in (INDEX, LABELS)}
    _write(path, content)


def _forged(damage: Damage) -> Damage:
    def both(store: Path, rng: random.Random) -> None:
        damage(store / rng.choice(FILES[1:]), rng)
        _forge(store, rng)

    return both


def _forged_swap(store: Path, rng: random.Random) -> None:
    _swap(store, rng)
    _forge(store, rng)


def _careful(damage: Damage) -> Damage:
    def tried(store: Path, rng: random.Random) -> None:
        if all((store / name).is_file() and not (store / name).is_symlink() for name in FILES):
            try:
                damage(store, rng)
            except (ValueError, AttributeError, TypeError, KeyError, pa.ArrowException):
                return  # an earlier damage left nothing to damage so

    return tried


TABLE: dict[str, Damage] = {
    **{name: _on_a_file(damage) for name, damage in fuzzing.ANY_FILE.items()},
    **{f"forged {name}": _careful(_forged(damage)) for name, damage in fuzzing.ANY_FILE.items() if "flip" in name},
    "meta": _careful(_spoil_meta),
    "a field": _careful(_spoil_a_field),
    "another field": _careful(_spoil_a_field),
    "swap": _careful(_swap),
    "table": _careful(_spoil_table),
    "other table": _careful(_spoil_table),
    "forged swap": _careful(_forged_swap),
}  # fmt: skip


@fuzzing.examples(150)
@given(
    fuzzing.damages(TABLE, most=3),
    st.sampled_from(["evaluate", "score", "score --labels", "score train", "train", "dry run"]),
)
def test_a_damaged_store_is_used_whole_or_refused_by_name(
    made: Path, damage: list[tuple[str, int]], what: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, out = Path(folder, "store"), Path(folder, "out")
        shutil.copytree(made / "store", store)
        fuzzing.apply(TABLE, damage, store)
        network = made / "network.safetensors"
        small = ["--hidden-dim", 4, "--num-heads", 1, "--feedforward-dim", 4, "--epochs", 1, "--threads", 1]
        score = ["score", network, store, "--out", out, "--pictures", 2 if damage[0][1] % 8 == 0 else 0]
        call = {
            "evaluate": ["evaluate", network, store],
            "score": score,
            "score --labels": [*score, "--labels"],
            "score train": [*score, "--split", "train", "--format", "csv"],
            "train": ["train", store, "--out", out, *small],
            "dry run": ["--dry-run", "--data", store, "--storage", out],
        }[what]
        before = sorted(path for path in Path(folder).rglob("*"))
        ended = fuzzing.call(search if what == "dry run" else app, *call)
        new = [path for path in sorted(Path(folder).rglob("*")) if path not in before]
        assert all(path.is_relative_to(out) for path in new), "written elsewhere"
        assert half_written(Path(folder)) == []
        if what.startswith("score"):
            assert out.exists() == (ended.code == 0)
        if ended.code:
            # Of features that are whole but wrong only the training itself can tell.
            assert str(store) in ended.output or (what == "train" and "diverged" in ended.output), (
                ended.output
            )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("visual_offset", -1),
        ("visual_offset", 2**62),
        ("audio_offset", 10**6),
        ("length", 0),
        ("length", 2**62),
        ("audio_length", -(2**63)),
        ("label", 7),
        ("split", "other"),
        ("name", "../../x"),
    ],
)
def test_an_index_that_would_be_read_beyond_the_features_is_refused(
    made: Path, column: str, value: object, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(made / "store", tmp_path / "store"))
    content = pa.ipc.open_file(pa.BufferReader((store / INDEX).read_bytes())).read_all().to_pydict()
    content[column][0] = value
    write_table(store / INDEX, pa.table(content, schema=INDEX_SCHEMA))
    _forge(store, random.Random(0))
    ended = fuzzing.call(app, "evaluate", made / "network.safetensors", store)
    assert ended.code == 1
    assert f"{store / INDEX} is damaged" in ended.err


def test_texts_that_lie_beyond_their_file_are_refused(made: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(made / "store", tmp_path / "store"))
    content = (store / INDEX).read_bytes()
    names = pa.ipc.open_file(pa.BufferReader(content)).read_all()["name"].combine_chunks()
    offsets = np.frombuffer(names.buffers()[1], np.int32)[: len(names) + 1].copy()
    whole = offsets.tobytes()
    offsets[1] = 2**30
    assert content.count(whole) == 1
    (store / INDEX).write_bytes(content.replace(whole, offsets.tobytes()))
    _forge(store, random.Random(0))
    ended = fuzzing.call(app, "evaluate", made / "network.safetensors", store)
    assert ended.code == 1
    assert f"{store / INDEX} cannot be read" in ended.err
