"""Run folders that anything may have happened to, given to `tune/report.py`."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import tempfile
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from macil.data.store.feature_store import FeatureStore
from tests.support import fuzzing
from tests.support.faults import half_written
from tests.support.fuzzing import HOSTILE_NUMBERS, HOSTILE_VALUES, Damage
from tests.support.run_folders import RunFolder
from tune.commands.report import report as command

pytestmark = fuzzing.LONG

JOURNAL = '{"op_code": 0, "worker_id": "a", "study_name": "search", "directions": [2]}\n'


@pytest.fixture(scope="module")
def runs(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with a confirmation and a refit, and a sweep, each with its report."""
    folder = tmp_path_factory.mktemp("runs")
    confirm = {"rows": ["00000"], "seeds": [1000], "reference": "00001"}
    searched = RunFolder(folder / "search", demo_store).begin(
        trials=3, confirm=confirm, winner={"trial": "00000"}
    )
    searched.add("00000", ramp=0.2)
    searched.add("00001", "failed", 1)
    searched.add("00002", "diverged", 1)
    searched.add("00000_seed1000", kind="confirm", ramp=0.2, seed=1000)
    searched.add("seed0", kind="refit", ramp=0.2)
    rows = [
        {"name": "a", "changes": {"ramp": 0.1}, "published_ap": 83.4},
        {"name": "b", "changes": {"ramp": 0.3}},
    ]
    swept = RunFolder(folder / "sweep", demo_store, "published").begin(sweep="mine", trials=2, seeds=[0])
    swept.add("a_seed0", row="a", ramp=0.1)
    swept.add("b_seed0", row="b", ramp=0.3)
    plan = {
        "kind": "sweep",
        "sweep": "mine",
        "title": "two",
        "rows": rows,
        "reference": "a",
        "seeds": [0],
        "notes": [],
    }
    (folder / "sweep" / "plan.json").write_text(json.dumps(plan))
    for run in ("search", "sweep"):
        (folder / run / "study.journal").write_text(JOURNAL)
        shutil.copy(folder / run / "run.json", folder / run / "split.json")
        assert fuzzing.call(command, folder / run, "--no-figures").code == 0
    assert (folder / "search/measured.json").exists()
    return folder


def _files(run: Path, *endings: str) -> list[Path]:
    found = sorted(path for path in run.rglob("*") if path.is_file() and not path.is_symlink())
    read = [path for path in found if "report" not in path.parts or path.suffix in (".json", ".jsonl")]
    return [path for path in read if path.name.endswith(endings or "")]


def _on_a_file(damage: Damage) -> Damage:
    return lambda run, rng: damage(rng.choice(_files(run) or [run]), rng)


def _dumped(content: Any) -> bytes:
    return json.dumps(content).encode("utf-8", "surrogatepass")


def _spoil_json(*names: str) -> Damage:
    def spoil(run: Path, rng: random.Random) -> None:
        path = rng.choice(_files(run, *names))
        path.write_bytes(_dumped(fuzzing.spoil_json(json.loads(path.read_text()), rng)))

    return spoil


def _spoil_a_field(run: Path, rng: random.Random) -> None:
    """Of run.json or plan.json: what is read most."""
    path = run / rng.choice(["run.json", "run.json", "plan.json"])
    content = json.loads(path.read_text())
    names = [
        "trials",
        "seeds",
        "asha",
        "stopping",
        "sampler",
        "confirm",
        "winner",
        "sweep",
        "phase",
        "versions",
        "first",
        "rows",
        "data",
    ]
    content[rng.choice([*sorted(content), *names])] = rng.choice(HOSTILE_VALUES)
    path.write_bytes(_dumped(content))


def _spoil_lines(run: Path, rng: random.Random) -> None:
    path = rng.choice(_files(run, "result.json", ".jsonl", ".journal"))
    lines = path.read_bytes().splitlines()
    for _ in range(rng.choice([1, 1, 3])):
        index = rng.randrange(len(lines))
        content = json.loads(lines[index])
        if rng.random() < 0.6:
            content[rng.choice(sorted(content))] = rng.choice(
                [*HOSTILE_NUMBERS, None, "x", [], {}, True, 10**12]
            )
        else:
            content = fuzzing.spoil_json(content, rng)
        lines[index] = _dumped(content)
    if rng.random() < 0.2:
        lines.insert(
            index, rng.choice([b"[" * 100_000, b"", b"\x00", b"9" * 5000, b"\xff", b"null", b'"x"', *lines])
        )
    path.write_bytes(b"\n".join(lines))


def _other_scores(run: Path, rng: random.Random) -> None:
    path = rng.choice(_files(run, "scores.npz"))
    arrays = [
        np.zeros(3, np.float32),
        np.zeros(0),
        np.float64(1),
        np.full(200, np.nan),
        np.full(10**6, 0.5),
        np.array(["a"]),
        np.array([object()]),
        np.zeros((3, 4)),
        np.arange(200, dtype=complex),
    ]
    with np.load(path, allow_pickle=False) as stored:
        content = {name: stored[name] for name in stored.files}
    name = rng.choice([*content, "last", "chosen", "../../x", "visual_last"])
    what = rng.random()
    if what < 0.2:
        content.pop(name, None)
    elif what < 0.4:
        content[name] = np.resize(np.array([rng.random(), 0.5], np.float32), len(content["last"]))
    else:
        content[name] = rng.choice(arrays)
    (np.savez_compressed if rng.random() < 0.3 else np.savez)(path, **content)


def _promised_scores(run: Path, rng: random.Random) -> None:
    """A member whose header promises more than there is memory."""
    path = rng.choice(_files(run, "scores.npz"))
    shape = rng.choice(["(99999999999999,)", "(-1,)", "()", "(" * 200, "(9999999,9999999)"])
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with zipfile.ZipFile(
        path, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    ) as archive:
        for name in ("last.npy", "chosen.npy", rng.choice(["../../x.npy", "x", "/x.npy"])):
            archive.writestr(
                name, b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(1000)
            )


def _other_checkpoint(run: Path, rng: random.Random) -> None:
    path = rng.choice(_files(run, "trainer.pt"))
    what = rng.randrange(6)
    if what == 0:
        path.write_bytes(pickle.dumps({"epoch": 1, "chosen_epoch": 1}))
        return
    state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    if what == 1:
        state[rng.choice(sorted(state))] = rng.choice([*HOSTILE_VALUES[:14], None, [], {}])
    elif what == 2:
        del state[rng.choice(sorted(state))]
    elif what == 3:
        state = rng.choice([[], {}, None, 1, torch.zeros(3), {"kind": "macil checkpoint"}])
    elif what == 4:
        state["record"]["config"][rng.choice(["hidden_dim", "num_heads", "ramp", "x"])] = rng.choice(
            HOSTILE_NUMBERS
        )
    else:
        state["features"] = {"visual_dim": 10**9, "audio_dim": rng.choice([0, -1, "x", 16])}
    torch.save(state, path)


def _other_lock(run: Path, rng: random.Random) -> None:
    (run / ".lock").write_text(
        rng.choice(["process 1 on x", f"process {10**30} on vm", "process -1 on vm", "\x00"])
    )


def _move(run: Path, rng: random.Random) -> None:
    trials = sorted(path for path in (run / "trials").iterdir() if path.is_dir())
    names = ["<script>alert(1)<", "a\nb", "x" * 200, "lockstep_x", "=1+1", "$x$", "\x1b[31m", "{{7*7}}", "ü"]
    rng.choice(trials).rename(run / "trials" / rng.choice(names))


def _links(run: Path, rng: random.Random) -> None:
    (run / "trials" / "around").symlink_to(run)
    (run / "trials" / "nowhere").symlink_to("/nowhere")
    folder = rng.choice(sorted(path for path in run.rglob("checkpoint_*") if path.is_dir()))
    (folder.parent / "checkpoint_999999").symlink_to(rng.choice([folder, run, Path("/nowhere")]))


def _careful(damage: Damage) -> Damage:
    def tried(run: Path, rng: random.Random) -> None:
        try:
            damage(run, rng)
        except (
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            AttributeError,
            RuntimeError,
            EOFError,
            MemoryError,
            zipfile.BadZipFile,
            pickle.PickleError,
        ):
            return  # an earlier damage left nothing to damage so

    return tried


TABLE: dict[str, Damage] = {
    name: _careful(damage)
    for name, damage in {
        **{name: _on_a_file(damage) for name, damage in fuzzing.ANY_FILE.items()},
        "run": _spoil_json("run.json"),
        "a field": _spoil_a_field,
        "another field": _spoil_a_field,
        "plan": _spoil_json("plan.json"),
        "trial": _spoil_json("params.json", "record.json"),
        "kept": _spoil_json("measured.json", "intervals.json"),
        "split": _spoil_json("split.json"),
        "lines": _spoil_lines,
        "more lines": _spoil_lines,
        "scores": _other_scores,
        "promised scores": _promised_scores,
        "checkpoint": _other_checkpoint,
        "lock": _other_lock,
        "move": _move,
        "links": _links,
    }.items()
}


class _Page(HTMLParser):
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "iframe", "object", "form", "base")
        assert not any(name.startswith("on") for name, _ in attrs), attrs


def is_whole(run: Path) -> None:
    page = (run / "report/report.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    _Page().feed(page)
    for name in ("report.md", "trials.parquet", "trials.csv", "epochs.parquet"):
        assert (run / "report" / name).stat().st_size > 0


def _reported(runs: Path, damage: list[tuple[str, int]], name: str, *options: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, name)
        shutil.copytree(runs / name, run)
        fuzzing.apply(TABLE, damage, run)
        for path in ("report.html", "report.md", "trials.csv", "trials.parquet", "epochs.parquet"):
            (run / "report" / path).unlink(missing_ok=True)
        before, half = sorted(path for path in Path(folder).iterdir()), half_written(Path(folder))
        ended = fuzzing.call(command, run, *options)
        assert sorted(path for path in Path(folder).iterdir()) == before, "written elsewhere"
        assert half_written(Path(folder)) == half
        if ended.code == 0:
            is_whole(run)
        else:
            assert str(run) in ended.err


@fuzzing.examples(45)
@given(
    fuzzing.damages(TABLE, most=3),
    st.sampled_from(["search", "search", "sweep"]),
    st.sampled_from(["auto", "open"]),
)
def test_a_damaged_run_is_reported_with_what_is_missing_or_refused_by_name(
    runs: Path, damage: list[tuple[str, int]], name: str, labels: str
) -> None:
    _reported(runs, damage, name, "--no-figures", "--labels", labels)


@pytest.mark.nightly
@fuzzing.examples(4)
@given(fuzzing.damages(TABLE, most=3), st.sampled_from(["search", "sweep"]))
def test_a_damaged_run_is_drawn_as_far_as_it_goes(
    runs: Path, damage: list[tuple[str, int]], name: str
) -> None:
    _reported(runs, damage, name)


@fuzzing.examples(5)
@given(fuzzing.damages(TABLE, most=3), st.sampled_from(["search", "sweep"]))
def test_a_damaged_run_does_not_spoil_the_comparison_with_a_whole_one(
    runs: Path, damage: list[tuple[str, int]], name: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run, whole, out = (Path(folder, part) for part in ("damaged", "whole", "comparison"))
        shutil.copytree(runs / name, run)
        shutil.copytree(runs / name, whole)
        fuzzing.apply(TABLE, damage, run)
        half = half_written(Path(folder))
        ended = fuzzing.call(command, run, whole, "--out", out, "--no-figures")
        assert (out / "comparison.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
        is_whole(whole)
        assert half_written(Path(folder)) == half
        assert ended.code == 0 or str(run) in ended.err


def _line(**changes: Any) -> Damage:
    def change(run: Path, rng: random.Random) -> None:
        path = min(run.glob("trials/*/result.json"))
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:-1], json.dumps(json.loads(lines[-1]) | changes)]))

    return change


def _content(file: str, **changes: Any) -> Damage:
    def change(run: Path, rng: random.Random) -> None:
        (run / file).write_text(json.dumps(json.loads((run / file).read_text()) | changes))

    return change


def _pipe(name: str) -> Damage:
    def put(run: Path, rng: random.Random) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return put


def _promise(run: Path, rng: random.Random) -> None:
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }\n"
    for path in _files(run, "scores.npz"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("last.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)


def _endless(name: str) -> Damage:
    def put(run: Path, rng: random.Random) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to("/dev/zero")

    return put


FOUND: dict[str, Damage] = {
    "a device for the log": _endless("trials/00000/result.json"),
    "an epoch beyond all": _line(epoch=10**12),
    "an endless epoch": _line(epoch=float("inf")),
    "metrics of other types": _line(ap_trapezoid="x", seconds=[], chosen_epoch={}, config=[]),
    "half a surrogate pair": _content("run.json", name="\ud800", created="\ud800x", **{"\ud800": ["\ud800"]}),
    "half a surrogate pair in the log": _line(reason="\ud800", diverged=True),
    "seeds that are none": _content("run.json", seeds=["x"], trials="many", confirm={"rows": 1, "seeds": [None]}),
    "hashes of other types": _content("run.json", labels_hash=1, store_hash=[], data={}, winner={"trial": {}}),
    "rows that are none": _content("plan.json", rows=[1, None, {"changes": 3}], space=7, notes=3.5),
    "rules that are none": _content("plan.json", asha={"grace_period": "x"}, first=[1], base={"ramp": []}),
    "scores that promise more than there is memory": _promise,
    "a pipe for the log": _pipe("trials/00000/result.json"),
    "a pipe for the openings": _pipe("openings.jsonl"),
    "a pipe for the lock": _pipe(".lock"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_what_once_broke_a_report_is_reported_in_it_or_refused(runs: Path, name: str, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "search", tmp_path / "search"))
    (run / "measured.json").unlink()
    FOUND[name](run, random.Random(0))
    half = half_written(tmp_path)  # the lock of a process at work is a damage too
    ended = fuzzing.call(command, run, "--no-figures")
    assert half_written(tmp_path) == half
    if ended.code == 0:
        is_whole(run)
    else:
        assert str(run) in ended.err
