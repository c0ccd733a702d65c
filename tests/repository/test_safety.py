"""Nothing that came from elsewhere runs, leaves its folder, or commands a browser, a spreadsheet or a terminal."""

from __future__ import annotations

import ast
import csv
import html
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from macil.__main__ import app
from macil.data import convert
from macil.data.store.arrow_files import write_table
from macil.data.store.feature_store import AUDIO, INDEX, LABELS, VISUAL, FeatureStore, hash_file
from macil.data.store.meta import META
from macil.errors import DataError
from macil.io.remote import Remote
from macil.io.text import file_name
from macil.training.checkpoint import save_checkpoint
from macil.training.trainer import Trainer
from tests.support import fuzzing
from tests.support.layouts import TEST_NORMAL, TEST_VIOLENT, VIOLENT, write_layout
from tests.support.repository import ROOT
from tests.support.run_folders import BASE, RunFolder
from tests.support.s3 import put_object
from tune.commands.report import report
from tune.commands.search import search
from tune.storage.location import copy_run
from tune.storage.saved_epochs import SavedEpochs, read_saved_epochs

HOSTILE = (
    "../../x",
    "/etc/passwd",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "{{7*7}}",
    "$\\frac{1}{0}$",
    "a\nb",
    "\x1b]0;title\x07",
    "=cmd|' /C calc'!A0",
)


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What a payload would make; that it would is shown first."""
    trial = tmp_path / "trial"
    pickle.loads(pickle.dumps(Payload(trial)))
    assert trial.is_dir()
    return tmp_path / "executed"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))


def torch_file(path: Path, content: object) -> None:
    """What torch.save writes of a tensor, with another pickle in it."""
    torch.save({"a": torch.zeros(2)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, pickle.dumps(content, 2) if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("kind", ["array", "bare"])
@pytest.mark.parametrize(
    "name", [f"RGB/{VIOLENT}__0.npy", f"vggish-features/test/{TEST_NORMAL}__vggish.npy", "gt.npy"]
)
def test_a_pickle_among_the_features_is_never_loaded(
    kind: str, name: str, marker: Path, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "data")
    if kind == "array":
        np.save(layout / name, np.array([Payload(marker)]), allow_pickle=True)
    else:
        (layout / name).write_bytes(pickle.dumps(Payload(marker)))
    network = tmp_path / "network.pt"
    torch_file(network, {"kind": "macil checkpoint"})
    for line in (
        ["check", layout],
        ["check", layout, "--deep"],
        ["convert", layout, tmp_path / "store"],
        ["train", layout, "--out", tmp_path / "out"],
        ["evaluate", network, layout],
        ["score", network, *sorted((layout / name).parent.glob("*.npy")), "--out", tmp_path / "scores"],
    ):
        assert fuzzing.call(app, *line).code != 0
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_pickle_in_the_place_of_a_network_is_never_loaded(
    protocol: int, name: str, marker: Path, demo_store: FeatureStore, tmp_path: Path
) -> None:
    path = tmp_path / name
    for content in (
        Payload(marker),
        {"kind": "macil checkpoint", "format_version": 2, "record": Payload(marker)},
    ):
        bare = pickle.dumps(content, protocol)
        torch_file(path, content)
        for data in (bare, path.read_bytes()):
            path.write_bytes(data)
            for line in (
                ["evaluate", path, demo_store.path],
                ["evaluate", path, demo_store.path, "--released"],
                ["score", path, demo_store.path, "--out", tmp_path / "out"],
                ["export", path, "--to", "safetensors", "--out", tmp_path / "x.safetensors"],
            ):
                assert fuzzing.call(app, *line).code != 0
    assert not marker.exists()


def test_a_pickle_in_a_training_that_is_resumed_is_never_loaded(
    marker: Path, demo_store: FeatureStore, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    small = ["--epochs", 1, "--hidden-dim", 4, "--num-heads", 1, "--feedforward-dim", 4, "--threads", 1]
    assert fuzzing.call(app, "train", demo_store.path, "--out", out, *small).code == 0
    for name in ("last.pt", "best.pt"):
        torch_file(out / name, {"kind": "macil checkpoint", "format_version": 2, "epoch": Payload(marker)})
    assert fuzzing.call(app, "train", demo_store.path, "--out", out, "--resume").code != 0
    assert not marker.exists()


def test_a_pickle_in_a_run_is_never_loaded_by_a_report(
    marker: Path, demo_store: FeatureStore, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run", demo_store).begin(trials=1)
    run.add("00000")
    trial = run.path / "trials/00000"
    for checkpoint in trial.glob("checkpoint_*"):
        torch_file(checkpoint / "trainer.pt", {"epoch": 3, "chosen_epoch": Payload(marker)})
        np.savez(
            checkpoint / "scores.npz", last=np.array([Payload(marker)]), chosen=np.array([Payload(marker)])
        )
    for name in (
        "error.pkl",
        "trials/00000/error.pkl",
        "trials/tuner.pkl",
        "trials/searcher.pkl",
        "study.journal",
    ):
        (run.path / name).write_bytes(pickle.dumps(Payload(marker)))
    ended = fuzzing.call(report, run.path, "--labels", "open")
    assert ended.code == 0, ended.output
    assert "scores.npz cannot be read" in (run.path / "report/report.html").read_text()
    assert not marker.exists()


def test_the_epochs_of_a_checkpoint_are_read_without_carrying_out_its_pickle(
    marker: Path, tmp_path: Path
) -> None:
    path = tmp_path / "trainer.pt"
    # What a pickle machine would take ages or all memory for is refused as well.
    nested: tuple[Any, ...] = ()
    for _ in range(64):
        nested = (nested, nested)
    torch_file(path, {"epoch": 7, "chosen_epoch": 3, "rest": Payload(marker)})
    pickled = [path.read_bytes()]
    for bomb in (
        b"\x80\x02}(" + b"r\xff\xff\xff\xff" + b"U\x05epochK\x01u.",
        pickle.dumps(nested, 2)[:-1] + b"}\x85R.",
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", bomb)
        pickled.append(path.read_bytes())
    for content in pickled:
        path.write_bytes(content)
        with pytest.raises(DataError):
            read_saved_epochs(tmp_path)
    assert not marker.exists()
    SavedEpochs(last=7, chosen=3).write(tmp_path / "saved.json")
    assert read_saved_epochs(tmp_path) == SavedEpochs(last=7, chosen=3)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"last": 7}', "lacks chosen"),
        ('{"last": "7", "chosen": null}', "last = '7'"),
        (
            '{"last": 7, "chosen": 3, "rule": "best"}',
            "the field 'rule', which this version of macil does not know",
        ),
        ("[7, 3]", "is not what a checkpoint is of"),
        ("{", "not valid JSON"),
    ],
)
def test_a_saved_json_that_does_not_say_its_epochs_is_told(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "saved.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_saved_epochs(tmp_path)


def source_files() -> Iterator[tuple[Path, ast.Module]]:
    for package in ("macil", "tune", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


# What is no loader of anybody's data: Tune's own error, pickled on this machine by this very process's Ray.
ALLOWED = {("tune/execution/failure_policy.py", "cloudpickle.loads")}


def test_no_source_file_calls_an_unsafe_loader() -> None:
    names = {
        "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "dill.load",
        "dill.loads", "joblib.load", "pandas.read_pickle", "pd.read_pickle", "shelve.open", "marshal.load",
        "marshal.loads", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "os.system", "os.popen",
        "shutil.unpack_archive", "tarfile.open", "tarfile.TarFile", "np.fromstring", "torch.jit.load", "torch.hub.load",
    }  # fmt: skip
    found = set()
    for path, tree in source_files():
        where = path.relative_to(ROOT).as_posix()
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            unsafe = name in names or name.endswith((".extractall", ".extract"))
            if name == "yaml.load":
                unsafe = [ast.unparse(part) for part in call.args[1:]] != ["_PlainLoader"]
            unsafe |= name == "torch.load" and keywords.get("weights_only") != "True"
            unsafe |= name in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False"
            unsafe |= keywords.get("shell") == "True" or keywords.get("trust_remote_code") == "True"
            if unsafe:
                found.add((where, name))
        for node in ast.walk(tree):  # a loader by another name is one, too
            if isinstance(node, ast.ImportFrom) and node.module in (
                "pickle",
                "marshal",
                "shelve",
                "dill",
                "joblib",
            ):
                found.add((where, f"from {node.module}"))
            if isinstance(node, ast.ClassDef) and any(
                "Unpickler" in ast.unparse(base) for base in node.bases
            ):
                found.add((where, node.name))
    assert found == ALLOWED


def test_no_template_switches_escaping_off() -> None:
    for path in (ROOT / "tune/reporting/pages/templates").iterdir():
        text = path.read_text(encoding="utf-8")
        assert "|safe" not in text.replace(" ", "")
        assert "autoescape" not in text
        assert "<script" not in text
    (kinds,) = {
        ast.unparse(keyword.value)
        for path, tree in source_files()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("Environment")
        for keyword in call.keywords
        if keyword.arg == "autoescape"
    }
    assert kinds == "True"


def rename_in_store(store: Path, table: str, column: str, names: dict[str, str]) -> None:
    """Give a column other values, and the store a description that agrees."""
    found = pa.ipc.open_file(
        pa.BufferReader((store / table).read_bytes())
    ).read_all()  # no map of what is replaced
    values = [names.get(value, value) for value in found[column].to_pylist()]
    index = found.schema.get_field_index(column)
    write_table(
        store / table, found.set_column(index, found.schema.field(column), pa.array(values, pa.string()))
    )
    meta = json.loads((store / META).read_text())
    meta["hashes"] = {name: hash_file(store / name) for name in (INDEX, LABELS)}
    meta["files"] = {name: (store / name).stat().st_size for name in (VISUAL, AUDIO)}
    (store / META).write_text(json.dumps(meta))


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "..", ".", "", "a/b", "a\nb", "\x1b]0;title\x07", "a\x00b"]
)
def test_a_store_with_a_video_name_that_is_a_path_or_commands_a_terminal_is_refused(
    name: str, tmp_path: Path
) -> None:
    store = convert(write_layout(tmp_path / "data"), tmp_path / "store")
    for table in (INDEX, LABELS):
        rename_in_store(store, table, "name", {TEST_VIOLENT: name})
    with pytest.raises(DataError, match="is no name of a test video"):
        FeatureStore.open(store)


def test_names_of_videos_stay_in_the_folder_of_their_timelines(tmp_path: Path) -> None:
    names = [*HOSTILE, "..", ".", "", "x" * 300, "ü" * 200, ".hidden", "-rf", "con", "a" * 150]
    made = [file_name(name) for name in names]
    assert len(set(made)) == len(names)
    for name in made:
        assert (tmp_path / name).parent == tmp_path
        (tmp_path / f".{name}.svg.12345678.tmp").touch()
    assert file_name("v=zz__#00-00-00_00-01-00_label_A") == "v=zz__#00-00-00_00-01-00_label_A"


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)<_script>_label_B1-0-0",
        "$x^2$_label_A",
        "{{7*7}}_label_A",
        "=1+1_label_A",
        "x" * 230 + "_label_A",
    ],
)
def test_odd_names_of_videos_are_scored_and_drawn_as_what_they_are(
    name: str, demo_store: FeatureStore, demo_layout: Path, tmp_path: Path
) -> None:
    trainer = Trainer(BASE, demo_store, threads=1)
    save_checkpoint(trainer, tmp_path / "model.pt")
    visual, audio = tmp_path / "data/RGBTest", tmp_path / "data/vggish-features/test"
    visual.mkdir(parents=True)
    audio.mkdir(parents=True)
    sound = min((demo_layout / "vggish-features/test").iterdir())
    visual_file = demo_layout / "RGBTest" / sound.name.replace("__vggish.npy", "__0.npy")
    shutil.copy(visual_file, visual / f"{name}__0.npy")
    shutil.copy(sound, audio / f"{name}__vggish.npy"[-255:])
    out = tmp_path / "scores"
    if len(name) < 200:
        files = [tmp_path / "data"]
    else:
        files = [visual / f"{name}__0.npy", sound]
        files[0] = files[0].rename(visual / f"{name}.npy")
    ended = fuzzing.call(app, "score", tmp_path / "model.pt", *files, "--out", out, "--format", "csv")
    assert ended.code == 0, ended.output
    assert {path.name for path in tmp_path.iterdir()} >= {"scores"}
    assert sorted(path.suffix for path in (out / "timelines").iterdir()) == [".png", ".svg"]
    with (out / "snippets.csv").open() as file:
        (shown,) = {row["video"] for row in csv.DictReader(file)}
    assert shown == (f"'{name}" if name.startswith("=") else name)
    picture = next((out / "timelines").glob("*.svg")).read_text()
    assert "<script" not in picture


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = io.StringIO()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.write(data)


def read_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "form", "base", "link", "svg")
        assert not any(name.startswith("on") for name in attributes), attributes
        if tag == "img":
            assert (attributes["src"] or "").startswith(
                ("data:image/png;base64,", "data:image/svg+xml;base64,")
            )
        if tag == "a":
            assert (attributes["href"] or "").startswith("#")
    return page


@pytest.fixture(scope="module")
def hostile_run(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep in which every text that can be anything is hostile, with its report and a comparison."""
    folder = tmp_path_factory.mktemp("hostile")
    run = RunFolder(folder / "run", demo_store, "published").begin(trials=len(HOSTILE))
    for index, text in enumerate(HOSTILE[:4]):
        run.add(f"{index}_seed0", row=text, epochs=1)
    for index, text in enumerate(HOSTILE[4:], start=4):
        run.add(f"{index}_seed0", "failed", 1, row=text, error=f"ValueError: {text}")
    (run.path / "trials/<img src=x onerror=alert(2)>").mkdir()
    (run.path / "trials/<img src=x onerror=alert(2)>/error.txt").write_text("\n".join(HOSTILE))
    every = " ".join(HOSTILE)
    info = json.loads((run.path / "run.json").read_text())
    info |= dict.fromkeys(("name", "sweep", "phase", "created", "updated", "command", every), every)
    info |= {
        "status": "interrupted",
        "versions": {every: every},
        "dataset": {every: 3},
        "data_notes": list(HOSTILE),
        "options": {"data": every},
    }
    (run.path / "run.json").write_text(json.dumps(info))
    rows = [{"name": text, "changes": {}, "published_ap": 50.0, "source": text} for text in HOSTILE]
    plan = {
        "sweep": every,
        "title": every,
        "source": every,
        "reference": HOSTILE[2],
        "rows": rows,
        "notes": list(HOSTILE),
    }
    (run.path / "plan.json").write_text(json.dumps(plan))
    ended = fuzzing.call(report, run.path)
    assert ended.code == 0, ended.output
    shutil.copytree(run.path, folder / "again")
    ended = fuzzing.call(report, run.path, folder / "again", "--out", folder / "both", "--no-figures")
    assert ended.code == 0, ended.output
    return folder


@pytest.mark.parametrize("name", ["run/report/report.html", "both/comparison.html"])
def test_a_report_shows_hostile_texts_as_texts(hostile_run: Path, name: str) -> None:
    page = read_page(hostile_run / name)
    shown = page.text.getvalue()
    for text in HOSTILE[:8]:
        assert text in shown or " ".join(text.split()) in " ".join(shown.split()), text
    assert "49" not in {part.strip("\"'>") for part in shown.split("onerror")[0].split()}
    assert (
        "<script"
        not in html.unescape((hostile_run / name).read_text()).split("<style>")[0].split("<title>")[0]
    )


@pytest.mark.parametrize("name", ["run/report/report.md", "both/comparison.md"])
def test_a_report_in_markdown_holds_no_html(hostile_run: Path, name: str) -> None:
    outside = [
        line
        for line in (hostile_run / name).read_text().splitlines()
        if not line.startswith("    ")  # a block of code, which is shown as it is
    ]
    text = "\n".join(outside)
    assert "<script" not in text
    assert "<img" not in text
    assert "](javascript" not in text


def test_pictures_of_a_report_are_drawn_of_hostile_names_without_reading_them_as_mathematics(
    hostile_run: Path,
) -> None:
    pictures = list((hostile_run / "run/report").glob("*.svg"))
    assert pictures
    for picture in pictures:
        assert "<script" not in picture.read_text()
        import xml.etree.ElementTree as ElementTree

        ElementTree.parse(picture)  # control characters in it would not be XML
    shown = read_page(hostile_run / "run/report/report.html").text.getvalue()
    assert "could not be drawn" not in shown


def test_tables_of_a_report_hold_no_formula(hostile_run: Path) -> None:
    for path in (hostile_run / "run/report/trials.csv", hostile_run / "both/trials.csv"):
        with path.open(newline="") as file:
            cells = [cell for row in list(csv.reader(file))[1:] for cell in row]
        assert any(cell.startswith("'=cmd") for cell in cells)
        for cell in cells:
            if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
                float(cell)


def test_everything_of_a_hostile_run_stays_in_its_folders(hostile_run: Path) -> None:
    assert {path.name for path in hostile_run.iterdir()} == {"run", "again", "both"}


def test_a_command_to_copy_from_a_hostile_run_is_one_command(
    demo_store: FeatureStore, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "x; touch hacked", demo_store).begin("interrupted", name="y; touch hacked")
    run.add("00000", "killed", 1)
    assert fuzzing.call(report, run.path, "--no-figures").code == 0
    shown = read_page(run.path / "report/report.html").text.getvalue()
    assert "--resume 'x; touch hacked'" in shown
    assert "--resume x; touch" not in shown
    assert "--resume 'y" not in shown, "a run is found by its folder, whatever its run.json says"


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "a/b", "..", "<b>", "a b", "-x", "", "a\nb", "x" * 200]
)
def test_a_run_or_row_or_sweep_of_a_name_that_is_no_folder_name_is_refused(
    name: str, demo_store: FeatureStore, tmp_path: Path
) -> None:
    storage = tmp_path / "runs"
    line = ["--dry-run", "--data", demo_store.path, "--storage", storage]
    ended = fuzzing.call(search, *line, f"--name={name}")
    assert ended.code == 2, ended.output
    sweep = tmp_path / "sweep.toml"
    for content in (
        f"name = {json.dumps(name)}\n[[rows]]\nname = 'a'\nchanges = {{}}",
        f"[[rows]]\nname = {json.dumps(name)}\nchanges = {{}}",
    ):
        sweep.write_text(content)
        assert fuzzing.call(search, *line, "--sweep", sweep).code == 2
    assert not storage.exists()


@pytest.mark.parametrize("name", ["../../../escaped", "a/../../../../escaped", "/escaped"])
def test_a_copy_of_a_run_from_a_storage_cannot_leave_its_folder(
    name: str, tmp_path: Path, bucket: str
) -> None:
    """Names in an object store may be any text."""
    put_object(bucket, f"run/{name}", b"x")
    target = tmp_path / "a/b/c/run"
    with pytest.raises(OSError, match="outside"):
        copy_run(Remote(f"{bucket}/run"), target)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "escaped").exists()


def test_members_of_an_archive_are_never_written_anywhere(demo_store: FeatureStore, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "deep/run", demo_store).begin(trials=1)
    run.add("00000")
    for path in [*run.path.rglob("scores.npz"), *run.path.rglob("trainer.pt")]:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("../../../escaped.npy", b"x")
            archive.writestr("/tmp/escaped-by-macil.npy", b"x")
    assert fuzzing.call(report, run.path, "--labels", "open", "--no-figures").code == 0
    trial = run.path / "trials/00000"
    fuzzing.call(app, "score", trial, demo_store.path, "--out", tmp_path / "scores", "--pictures", 0)
    assert not list(tmp_path.rglob("*escaped*"))
    assert not Path("/tmp/escaped-by-macil.npy").exists()


def test_a_report_is_not_written_through_a_link_out_of_the_run(
    demo_store: FeatureStore, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run", demo_store).begin(trials=1)
    run.add("00000", epochs=1)
    (tmp_path / "elsewhere").mkdir()
    (run.path / "report").symlink_to(tmp_path / "elsewhere")
    ended = fuzzing.call(report, run.path, "--no-figures")
    assert ended.code == 2
    assert "is a link" in ended.err
    assert list((tmp_path / "elsewhere").iterdir()) == []
