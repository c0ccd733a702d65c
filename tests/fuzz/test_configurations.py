"""Configuration files and sweep files that nobody meant."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import yaml
from hypothesis import given
from hypothesis import strategies as st

from macil.__main__ import app
from macil.config import TrialConfig, hyperparameters
from macil.data.store.feature_store import FeatureStore
from tests.support import fuzzing
from tests.support.faults import half_written
from tests.support.fuzzing import Damage
from tune.commands.search import search

pytestmark = fuzzing.LONG

NAMES = [parameter.name for parameter in hyperparameters()]

texts = st.text(max_size=12)
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    texts,
    st.sampled_from(
        ["4e-4", "paper", "released", "video", "batch", "yes", "~", "0x10", "1_000", "2020-13-45"]
    ),
    st.dates(),
)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
settings_of_a_training = st.dictionaries(st.sampled_from(NAMES) | texts, values, max_size=6)

BOMBS = (
    "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "&a [*a]",
    "a: &a {k0: 1, k1: 2}\n" + "\n".join(
        f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "[" * 3000,
    "{a: " * 3000,
    "- " * 3000,
    "!!python/object/apply:os.system ['touch hacked']",
    "!!python/name:os.system",
    "seed: " + "9" * 5000,
    "seed: 0x" + "f" * 20000,
    "seed: 2020-99-99",
    "seed: 99:99:99:99",
    "? [a, b]\n: 1",
    "? {a: 1}\n: 1",
    "1: 2",
    "seed: !!binary x",
    "seed: !!float abc",
    "seed: !!int ''",
    "seed: !!timestamp x",
    "seed: !!set {a, b}",
    "seed: !!omap [a: 1]",
    "%YAML 9.9\n---\nseed: 1",
    "--- 1\n--- 2",
    "\ufeffseed: 1",
    "seed: \x00",
    "a = " + "[" * 3000,
    "a = " + "{a = " * 3000,
    "seed = " + "9" * 5000,
    "seed = 0x" + "f" * 20000,
    "seed = 2020-99-99",
    "seed = 1979-05-27T25:99:99Z",
    "a" + ".a" * 5000 + " = 1",
    "[" + "a." * 3000 + "a]",
    "hidden_dim = nan\nnum_heads = inf",
    "seed = '''" + "x" * 10**6 + "'''",
)  # fmt: skip


def as_toml(content: dict[str, Any]) -> bytes:
    return tomli_w.dumps(_without_none(content)).encode("utf-8", "replace")


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return [_without_none(each) for each in value if each is not None] if isinstance(value, list) else value


def as_yaml(content: dict[str, Any]) -> bytes:
    return yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "replace")


def spoil(path: Path, rng: random.Random) -> None:
    """Change, drop or double a line, or a character of one."""
    if path.is_symlink() or not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    index = rng.randrange(len(lines))
    pieces = [
        "[",
        "]",
        "{",
        "}",
        "=",
        ":",
        '"',
        "'",
        "'''",
        "&a",
        "*a",
        "- ",
        "#",
        "\t",
        "\\",
        "\x00",
        "é",
        "]]",
        ",",
    ]
    at = rng.randrange(len(lines[index]) + 1)
    lines[index] = lines[index][:at] + rng.choice(pieces) + lines[index][at + rng.randrange(2) :]
    if rng.random() < 0.3:
        lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    path.write_text("\n".join(lines), encoding="utf-8")


TABLE: dict[str, Damage] = {**fuzzing.ANY_FILE, "spoil": spoil, "spoil more": spoil}


def resolve(path: Path) -> None:
    """Print what a file resolves to, and write it; both or neither, and again it is the same."""
    out = path.parent / "out.toml"
    printed = fuzzing.call(app, "config", "--config", path)
    written = fuzzing.call(app, "config", "--config", path, "--out", out)
    assert printed.code == written.code
    assert printed.code in (0, 2)
    assert half_written(path.parent) == []
    assert out.exists() == (written.code == 0)
    if written.code == 0:
        assert TrialConfig.load(out).to_text() == printed.out
    else:
        assert str(path) in printed.err
        assert len(printed.err) < 20_000


@fuzzing.examples(70)
@given(settings_of_a_training, st.sampled_from([".toml", ".yaml", ".yml", ".YAML"]))
def test_any_values_are_resolved_or_refused_by_name(content: dict[str, Any], suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"c{suffix}")
        path.write_bytes(as_toml(content) if suffix == ".toml" else as_yaml(content))
        resolve(path)
        outcome = fuzzing.call(app, "config", "--config", path)
        unknown = [name for name in content if name not in NAMES and content[name] is not None]
        if unknown:
            assert outcome.code == 2, outcome.output


@fuzzing.examples(60)
@given(fuzzing.damages(TABLE), st.booleans(), st.sampled_from([".toml", ".yaml"]))
def test_a_damaged_file_is_resolved_or_refused_by_name(
    damage: list[tuple[str, int]], paper: bool, suffix: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"c{suffix}")
        TrialConfig(fidelity="paper" if paper else "released").save(path)
        fuzzing.apply(TABLE, damage, path)
        resolve(path)


@pytest.mark.parametrize("suffix", [".toml", ".yaml"])
@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
def test_a_bomb_is_refused_at_once(
    text: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"c{suffix}"
    path.write_text(text, encoding="utf-8")
    resolve(path)
    assert not (tmp_path / "hacked").exists()


rows = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["64", "a b", "..", "/x", "<b>", "A", "a", "x" * 70, "", "nul\x00", "ü"]) | values,
            "changes": settings_of_a_training | values,
            "published_ap": st.sampled_from([0, 50.5, 101, -1, float("nan"), 10**400, True, "83"]) | values,
            "source": values,
            "other": values,
        },
    ),
    max_size=4,
)  # fmt: skip
sweeps = st.fixed_dictionaries(
    {},
    optional={
        "rows": rows | values,
        "name": st.sampled_from(["mine", "table3", "../x", "a/b", "-rf", ""]) | values,
        "title": values,
        "source": values,
        "reference": st.sampled_from(["64", "A"]) | values,
        "more": values,
    },
)


@pytest.fixture
def store_path(demo_store: FeatureStore) -> str:
    return str(demo_store.path)


def plan(path: Path, store: str, flag: str = "--sweep") -> None:
    """What a dry run says of a sweep or a space file: the plan, or all that is wrong, and nothing is left behind."""
    storage = path.parent / "runs"
    before = sorted(path.parent.iterdir())
    outcome = fuzzing.call(search, "--dry-run", flag, path, "--data", store, "--storage", storage)
    assert sorted(path.parent.iterdir()) == before, "nothing is left behind"
    assert outcome.code in (0, 2)
    if outcome.code:
        assert str(path) in outcome.err
        assert len(outcome.err) < 50_000


@fuzzing.examples(70)
@given(sweeps)
def test_any_sweep_file_is_planned_or_refused_by_row_and_field(
    store_path: str, content: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.toml")
        path.write_bytes(as_toml(content))
        plan(path, store_path)


numbers = st.sampled_from([0, 1, 2, 4, 64, 128, 0.5, 0.001, 1e-9, 1e9, True, "1", float("nan")]) | values
conditions = st.dictionaries(
    st.sampled_from([*NAMES, "contrst"]), st.lists(numbers, max_size=3) | numbers, max_size=2
)
dimensions = st.fixed_dictionaries(
    {},
    optional={
        "low": numbers,
        "high": numbers,
        "log": st.booleans() | values,
        "step": numbers,
        "choices": st.lists(st.sampled_from([True, False, "released", "paper", 2, 4, 8, 0.5]), max_size=4)
        | values,
        "when": conditions | values,
        "other": values,
    },
)
spaces = st.fixed_dictionaries(
    {"format_version": st.just(1) | values},
    optional=dict.fromkeys(NAMES, dimensions | values) | {"rampp": dimensions},
)
changes = st.from_regex(
    r"(ramp|hidden_dim|contrast|fidelity|num_heads|x)?=?(-?[0-9.e-]{0,6}|true|paper)(\.\.|,)[0-9.e-]{0,6}(:log|:step=[0-9.]{0,4})?",
    fullmatch=True,
)


@fuzzing.examples(70)
@given(spaces)
def test_any_space_file_is_planned_or_refused_by_table_and_key(
    store_path: str, content: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.toml")
        path.write_bytes(as_toml(content))
        plan(path, store_path, "--space")


@fuzzing.examples(70)
@given(st.lists(changes, max_size=3))
def test_any_dimension_on_the_command_line_is_printed_or_refused(asked: list[str]) -> None:
    outcome = fuzzing.call(search, "--print-space", *(part for text in asked for part in ("--search", text)))
    assert outcome.code in (0, 2)
    if outcome.code == 0:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "mine.toml")
            path.write_text(outcome.out)
            assert fuzzing.call(search, "--print-space", "--space", path).out == outcome.out


GOOD = """name = "batches"
title = "batches of two sizes"
source = "our lab"
reference = "128"

[[rows]]
name = "64"
changes = { batch_size = 64 }

[[rows]]
name = "128"
changes = { batch_size = 128, ramp = 0.3 }
published_ap = 83.40
source = "Table 4, row 10"
"""


@fuzzing.examples(50)
@given(fuzzing.damages(TABLE))
def test_a_damaged_sweep_file_is_planned_or_refused_by_name(
    store_path: str, damage: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.toml")
        path.write_text(GOOD)
        fuzzing.apply(TABLE, damage, path)
        plan(path, store_path)


@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
def test_a_bomb_is_no_sweep(text: str, store_path: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    plan(path, store_path)
