"""Layout folders that anything may have happened to."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
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
from tests.support.fuzzing import HOSTILE_TEXTS, Damage
from tests.support.layouts import AUDIO_DIM, NORMAL, VISUAL_DIM, save_ground_truth, write_layout
from tests.support.layouts import frame_labels as true_labels

pytestmark = fuzzing.LONG


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MACIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    config = TrialConfig(hidden_dim=4, num_heads=1, feedforward_dim=4)
    save_safetensors(TwoStreamNetwork(config, VISUAL_DIM, AUDIO_DIM).eval(), path, {})
    return path


def _arrays(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.npy") if path.is_file() and not path.is_symlink())


def _one(root: Path, rng: random.Random) -> Path:
    return rng.choice(_arrays(root) or [root / "none"])


def _on_a_file(damage: Damage) -> Damage:
    return lambda root, rng: damage(_one(root, rng), rng)


def _other_array(root: Path, rng: random.Random) -> None:
    arrays: list[Any] = [
        np.zeros((0, 6), np.float32),
        np.zeros((3, 6), np.float32),
        np.ones((3, 7), np.float32),
        np.ones((1, 1), np.float32),
        np.ones((200, 6), np.float16),
        np.ones((3, 6), np.int64),
        np.ones((3, 6), np.complex64),
        np.full((3, 6), 1e300),
        np.full((3, 6), np.nan, np.float32),
        np.full((3, 6), np.inf, np.float32),
        np.ones((3, 6), ">f4"),
        np.ones((3, 6), np.longdouble),
        np.asfortranarray(np.ones((5, 6), np.float32)),
        np.ones((5, 3, 6), np.float32),
        np.float32(1.0),
        np.array([object()] * 3),
        np.array([["a", "b"]]),
        np.zeros(3, [("x", "f4"), ("y", "f4")]),
        np.zeros((3, 6), "M8[s]"),
        np.zeros((3, 6), "V8"),
    ]
    np.save(_one(root, rng), rng.choice(arrays), allow_pickle=True)


def _false_header(root: Path, rng: random.Random) -> None:
    shapes = [
        "(99999999999, 6)",
        "(3,)",
        "(-3, 6)",
        "(3, 6, 1)",
        "()",
        "(" * 300,
        "(1e9, 6)",
        "None",
        f"({10**30}, {10**30})",
    ]
    kind, shape = rng.choice(["<f4", "|O", ">f8", "|V0", "zz"]), rng.choice(shapes)
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}"
    text = header.encode() + b" " * rng.choice([0, 40, 9000]) + b"\n"
    version = rng.choice([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"])
    size = (
        len(text).to_bytes(2 if version[0] == 1 else 4, "little")
        if rng.random() < 0.8
        else b"\xff\xff\xff\x7f"
    )
    _one(root, rng).write_bytes(b"\x93NUMPY" + version + size + text + bytes(rng.choice([0, 72, 500])))


def _archive_by_its_name(root: Path, rng: random.Random) -> None:
    with _one(root, rng).open("wb") as file:
        np.savez(file, a=np.ones((3, 6), np.float32))


def _rename(root: Path, rng: random.Random) -> None:
    path = _one(root, rng)
    end = path.name[path.name.rfind("__") :]
    names = [
        "..__label_A",
        "a\nb_label_A",
        "<script>alert(1)<_script>_label_B1-0-0",
        "\x1b[31mred_label_A",
        "-rf_label_A",
        "x" * 230 + "_label_A",
        "ü" * 100 + "_label_A",
        "no label",
        "_label_",
        "a_label_A-B1",
        "a_label_Q9-0-0",
        "$x^2$_label_A",
        " _label_A",
        "a,b;c\"'_label_A",
        "=1+1_label_A",
        os.fsdecode(b"\xff\xfe_label_A"),
    ]
    ends = [
        end,
        end,
        end,
        "__99999999999999999999.npy",
        "__1000000.npy",
        "__٣.npy",
        "__-1.npy",
        ".npy",
        "__vggish.npy",
    ]
    path.rename(path.with_name(rng.choice(names) + rng.choice(ends)))


def _copy_under_other_name(root: Path, rng: random.Random) -> None:
    source = _one(root, rng)
    folder = rng.choice(
        ["RGB", "RGBTest", "vggish-features/train", "vggish-features/test", "i3d-features/RGB"]
    )
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / source.name).write_bytes(source.read_bytes())


def _loop(root: Path, rng: random.Random) -> None:
    folder = root / rng.choice(["RGB", "vggish-features/test"])
    (folder / "loop__0.npy").symlink_to(root / "RGB" / "loop__0.npy")
    (folder / "more").symlink_to(root)


def _folder_away(root: Path, rng: random.Random) -> None:
    folder = root / rng.choice(["RGB", "RGBTest", "vggish-features", "vggish-features/test"])
    target = root.parent / f"moved{rng.randrange(10**6)}"
    folder.rename(target)
    what = rng.random()
    if what < 0.3:
        folder.write_bytes(b"")
    elif what < 0.6:
        folder.symlink_to(target)
    elif what < 0.8:
        folder.symlink_to(folder)


_LINES = (
    b"",
    b"v=zz__#00-00-00_00-01-00_label_A 1 2",
    b"v=yy__#1_label_B4-0-0",
    b"v=yy__#1_label_B4-0-0 1",
    b"v=yy__#1_label_B4-0-0 9 3",
    b"v=yy__#1_label_B4-0-0 -5 3",
    b"v=yy__#1_label_B4-0-0 0 999999999999999999999999999",
    b"v=yy__#1_label_B4-0-0 " + b"9" * 5000 + b" " + b"9" * 5001,
    b"v=yy__#1_label_B4-0-0 0 10 5 20 0 64",
    b"v=yy__#1_label_B4-0-0 1.5 1e3",
    "v=yy__#1_label_B4-0-0 ١ ٢".encode(),
    b"\xff\xfe\x00",
    b"../../etc/passwd 1 2",
    b"<script>_label_B1-0-0 1 2",
    b"\x1b[31m 1 2",
    b"x" * 10000 + b" 1 2",
    b"   _label_ _label_ " * 50,
)


def _annotate(root: Path, rng: random.Random) -> None:
    path = root / "annotations.txt"
    if path.is_symlink() or not path.is_file():
        return
    lines = path.read_bytes().splitlines()
    for _ in range(rng.choice([1, 1, 3])):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(_LINES))
    if rng.random() < 0.3:
        lines.pop(rng.randrange(len(lines)))
    path.write_bytes(rng.choice([b"\n", b"\n", b"\r\n", b"\x0c"]).join(lines))


def _frame_labels(root: Path, rng: random.Random) -> None:
    path = root / "gt.npy"
    if path.exists() or path.is_symlink():
        return
    save_ground_truth(root, true_labels())
    what = rng.randrange(8)
    if what == 0:
        np.save(path, np.full(192, 0.5))
    elif what == 1:
        np.save(path, np.load(path)[: rng.randrange(192)])
    elif what == 2:
        np.save(path, np.array([object()]), allow_pickle=True)
    elif what == 3:
        with path.open("wb") as file:
            np.savez(file, gt=np.zeros(192))
    elif what == 4:
        others: list[Any] = [np.zeros((192, 1)), np.zeros(192, complex), np.full(192, np.nan), np.float64(1)]
        np.save(path, rng.choice(others))
    elif what == 5:
        text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    else:
        rng.choice(list(fuzzing.ANY_FILE.values()))(path, rng)


def _lists(root: Path, rng: random.Random) -> None:
    (root / "list").mkdir(exist_ok=True)
    name = rng.choice(["rgb.list", "rgb_test.list", "audio.list", "audio_test.list", "flow.list"])
    names = [path.name for path in _arrays(root)]
    lines = [rng.choice([*names, *(t for t in HOSTILE_TEXTS if t != "\ud800")]) for _ in range(5)]
    (root / "list" / name).write_bytes(
        "\n".join(lines).encode("utf-8", "surrogateescape") + rng.choice([b"", b"\xff"])
    )


TABLE: dict[str, Damage] = {
    **{name: _on_a_file(damage) for name, damage in fuzzing.ANY_FILE.items()},
    "other array": _other_array,
    "false header": _false_header,
    "archive": _archive_by_its_name,
    "rename": _rename,
    "rename again": _rename,
    "copy": _copy_under_other_name,
    "loop": _loop,
    "folder away": _folder_away,
    "annotate": _annotate,
    "annotate again": _annotate,
    "annotations": lambda root, rng: rng.choice(list(fuzzing.ANY_FILE.values()))(root / "annotations.txt", rng),
    "gt": _frame_labels,
    "lists": _lists,
}  # fmt: skip


@fuzzing.examples(70)
@given(fuzzing.damages(TABLE), st.sampled_from(["float32", "float16"]))
def test_a_damaged_layout_is_converted_whole_or_refused_by_name(
    damage: list[tuple[str, int]], dtype: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, out = write_layout(Path(folder, "data")), Path(folder, "store")
        fuzzing.apply(TABLE, damage, root)
        checked = fuzzing.call(app, "check", root, "--deep")
        converted = fuzzing.call(app, "convert", root, out, "--dtype", dtype)
        if converted.code == 0:
            assert checked.code == 0, checked.output
            assert FeatureStore.open(out).test_labels().names
            assert half_written(out.parent) == []
            assert fuzzing.call(app, "convert", root, out, "--dtype", dtype).code == 0, "the same again"
        else:
            assert not out.exists()
            assert str(root) in converted.err or str(out) in converted.err
            left = half_written(out.parent)
            assert all(name in converted.err for name in left), (left, converted.err)
            # Only what a narrower type cannot hold may be found as late as that.
            assert checked.code == 1 or dtype == "float16", converted.err


@fuzzing.examples(50)
@given(
    fuzzing.damages(TABLE, most=2),
    st.sampled_from(["score", "score --labels", "score train", "score files", "evaluate", "check", "train"]),
)
def test_a_damaged_layout_is_used_whole_or_refused_by_name(
    network: Path, damage: list[tuple[str, int]], what: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, out = write_layout(Path(folder, "data")), Path(folder, "out")
        fuzzing.apply(TABLE, damage, root)
        small = ["--hidden-dim", 4, "--num-heads", 1, "--feedforward-dim", 4, "--epochs", 1, "--threads", 1]
        files = _arrays(root / "RGBTest")
        score = ["score", network, root, "--out", out, "--pictures", 1 if damage[0][1] % 8 == 0 else 0]
        call = {
            "score": score,
            "score --labels": [*score, "--labels"],
            "score train": [*score, "--split", "train", "--format", "csv"],
            "score files": ["score", network, *files, "--out", out, "--pictures", 0] if files else score,
            "evaluate": ["evaluate", network, root],
            "check": ["check", root, "--quick"],
            "train": ["train", root, "--out", out, *small],
        }[what]
        ended = fuzzing.call(app, *call)
        assert half_written(Path(folder)) == []
        if what.startswith("score"):
            assert out.exists() == (ended.code == 0)
        if ended.code:
            assert str(root) in ended.output or what == "check"


def _by_name(name: str) -> Damage:
    """All files of a video under another name, so that nothing is missing."""

    def rename(root: Path, rng: random.Random) -> None:
        for path in _arrays(root):
            if path.name.startswith(f"{NORMAL}__"):
                path.rename(path.with_name(path.name.replace(NORMAL, name)))

    return rename


def _crop_number(root: Path, rng: random.Random) -> None:
    (root / "RGB" / f"{NORMAL}__0.npy").rename(root / "RGB" / f"{NORMAL}__99999999999999999999.npy")


def _pipe(name: str) -> Damage:
    def put(root: Path, rng: random.Random) -> None:
        (root / name).unlink(missing_ok=True)
        os.mkfifo(root / name)

    return put


def _promising_labels(root: Path, rng: random.Random) -> None:
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }\n"
    (root / "gt.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)


def _archived_labels(root: Path, rng: random.Random) -> None:
    with (root / "gt.npy").open("wb") as file:
        np.savez(file, gt=np.zeros(192))


FOUND: dict[str, Damage] = {
    "the number of a frame for that of a crop": _crop_number,
    "a name that is not UTF-8": _by_name(os.fsdecode(b"\xff_label_A")),
    "a name that commands the terminal": _by_name("\x1b]0;title\x07_label_A"),
    "a pipe for a feature file": _pipe(f"RGB/{NORMAL}__0.npy"),
    "a pipe for a list": _pipe("rgb.list"),
    "labels that promise more than there is memory": _promising_labels,
    "an archive for labels": _archived_labels,
}


@pytest.mark.parametrize("name", FOUND)
def test_what_once_broke_a_command_is_refused_by_name(network: Path, name: str, tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data")
    FOUND[name](root, random.Random(0))
    assert fuzzing.call(app, "check", root).code == 1
    assert str(root) in fuzzing.call(app, "convert", root, tmp_path / "store").err
    fuzzing.call(app, "score", network, root, "--out", tmp_path / "out", "--split", "train")
    assert half_written(tmp_path) == []
