"""Command lines that nobody meant, of the three programs; a search is planned only, and no training takes long."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macil.__main__ import app
from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.inference.safetensors_format import save_safetensors
from macil.model import TwoStreamNetwork
from tests.support import fuzzing
from tests.support.faults import half_written
from tests.support.fuzzing import HOSTILE_TEXTS
from tests.support.run_folders import RunFolder
from tune.commands.report import report
from tune.commands.search import search

pytestmark = fuzzing.LONG

# No argument of a process holds a null byte, and bytes that are not UTF-8 arrive as surrogate escapes.
WORDS = [
    *(text for text in HOSTILE_TEXTS if "\x00" not in text and "\ud800" not in text),
    os.fsdecode(b"\xff\xfe"),
    "-", "--", "---", "-1", "0", "1", "2", "0.5", "1e400", "-inf", "1e-320", "9" * 5000, "true", "cpu", "cuda",
    "x.toml", "x.yaml", "x.safetensors", "x.onnx", "x.npy", "file", "folder", ".", "/", "/dev/null", "~", "$HOME", "*",
    "nowhere://x", "file:///nowhere", "http://[", "heldout", "published", "table3", "figure3", "onnx", "released",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command's own files go below the test's folder; no network."""
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    here = Path.cwd()
    yield
    os.chdir(here)


def options(command: click.Command) -> list[click.Option]:
    found = [option for option in command.params if isinstance(option, click.Option)]
    return [option for option in found if option.name != "debug"]  # which shows tracebacks


def fitting(option: click.Option, known: list[str]) -> st.SearchStrategy[str]:
    """Values that the option may take, most of which go well."""
    kind = option.type
    if isinstance(kind, click.Choice):
        return st.sampled_from(list(kind.choices))
    if isinstance(kind, click.types.IntParamType):
        return st.integers(1, 40).map(str)
    if isinstance(kind, click.types.FloatParamType):
        return st.floats(0, 1).map(str)
    if isinstance(kind, click.types.BoolParamType):
        return st.sampled_from(["true", "false"])
    return st.sampled_from([*known, "new", "new.toml", "file", "folder"])


def part(option: click.Option, known: list[str]) -> st.SearchStrategy[list[str]]:
    """An option as it should be, or with a value of another kind, or none, or one too many."""
    name = st.sampled_from([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return name.map(lambda flag: [flag])
    value = fitting(option, known)
    hostile = st.one_of(
        st.sampled_from(WORDS),
        st.integers(-3, 10**20).map(str),
        st.floats().map(str),
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8),
    )
    return st.one_of(
        st.tuples(name, *[value] * option.nargs).map(list),
        st.tuples(name, *[value] * option.nargs).map(list),
        st.tuples(name, *[hostile] * option.nargs).map(list),
        st.tuples(name, hostile).map(lambda pair: ["=".join(pair)]),
        name.map(lambda flag: [flag]),
    )


def lines(command: click.Command, known: list[str]) -> st.SearchStrategy[list[str]]:
    """Options of the command, and now and then a word more."""
    chosen = st.sampled_from(options(command)).flatmap(lambda option: part(option, known))
    word = st.sampled_from([*WORDS, *known]).map(lambda text: [text])
    return st.lists(st.one_of(*[chosen] * 9, word), max_size=3).map(
        lambda parts: [word for part in parts for word in part]
    )


def run(command: click.Command, *arguments: str) -> fuzzing.Outcome:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("file").write_text("x")
        Path("folder").mkdir()
        ended = fuzzing.call(command, *arguments)
        assert half_written(Path(folder)) == []
        os.chdir("/")
        return ended


@pytest.fixture
def store_path(demo_store: FeatureStore, tmp_path: Path) -> str:
    """A copy: a line may name it as the folder to write into."""
    return str(shutil.copytree(demo_store.path, tmp_path / "store"))


@pytest.fixture(scope="module")
def network(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    config = TrialConfig(hidden_dim=4, num_heads=1, feedforward_dim=4)
    model = TwoStreamNetwork(config, demo_store.visual_dim, demo_store.audio_dim).eval()
    save_safetensors(model, path, {})
    return str(path)


@fuzzing.examples(100)
@given(st.data(), st.sampled_from(sorted(set(app.commands) - {"demo", "train"})))
def test_any_line_of_macil_ends_as_documented(
    store_path: str, network: str, demo_layout: Path, data: st.DataObject, name: str
) -> None:
    """Each begins with what would do."""
    good: list[str] = {
        "check": [str(demo_layout)],
        "convert": [str(demo_layout), "store"],
        "config": [],
        "evaluate": [network, store_path],
        "score": [network, store_path, "--out", "scores", "--pictures", "0"],
        "export": [network, "--to", "safetensors", "--out", "x.safetensors"],
    }[name]
    line = data.draw(lines(app.commands[name], [store_path, network, str(demo_layout)]))
    ended = run(app, name, *good, *line)
    assert ended.code != 1 or "error:" in ended.err or name == "check"


@fuzzing.examples(30)
@given(st.data(), st.sampled_from(["demo", "train"]))
def test_any_line_of_a_command_that_writes_ends_as_documented(
    store_path: str, data: st.DataObject, name: str
) -> None:
    """Bounds that keep the work small stand last, where they win."""
    good = {"demo": ["new"], "train": [store_path, "--out", "new"]}[name]
    line = good + data.draw(lines(app.commands[name], [store_path]))
    bounds = {
        "demo": "--train-videos 2 --test-videos 2 --min-snippets 2 --max-snippets 4 --visual-dim 8 --audio-dim 8",
        "train": "--epochs 1 --hidden-dim 4 --num-heads 1 --feedforward-dim 4 --max-snippets 8 --threads 1",
    }[name]
    run(app, name, *line, *bounds.split())


@fuzzing.examples(70)
@given(st.data())
def test_any_line_of_a_search_is_planned_or_refused(store_path: str, data: st.DataObject) -> None:
    line = [word for word in data.draw(lines(search, [store_path])) if word not in ("--replay", "--resume")]
    run(search, *line, "--data", store_path, "--dry-run")
    assert not (Path(store_path).parent / "runs").exists()


@pytest.fixture(scope="module")
def trained(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    made = RunFolder(tmp_path_factory.mktemp("runs") / "made", demo_store).begin(trials=1)
    made.add("00000", epochs=1)
    return str(made.path)


@fuzzing.examples(20)
@given(st.data())
def test_any_line_of_a_report_ends_as_documented(store_path: str, trained: str, data: st.DataObject) -> None:
    run(report, trained, *data.draw(lines(report, [store_path, trained])), "--no-figures")


@pytest.mark.parametrize("flag", ["--seeds", "--trials", "--confirm-seeds"])
def test_more_trainings_than_anybody_has_time_for_are_refused(store_path: str, flag: str) -> None:
    line = ["--data", store_path, "--dry-run", "--confirm", "1", flag, str(10**9)]
    ended = run(search, *line)
    assert ended.code == 2
    assert f"{flag} {10**9} is not allowed" in ended.err
