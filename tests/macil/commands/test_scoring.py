"""`python -m macil score`, `evaluate` and `export`, as a person calls them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from macil.__main__ import app
from macil.commands.cli import main
from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.evaluation.evaluator import Evaluator
from macil.inference.released import to_released
from macil.training.checkpoint import load_network, save_checkpoint
from macil.training.trainer import Trainer

CONFIG = TrialConfig(epochs=2, hidden_dim=16, feedforward_dim=16, batch_size=24, max_snippets=20)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(app, [str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def run_folder(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with the network it found."""
    folder = tmp_path_factory.mktemp("run")
    trainer = Trainer(CONFIG, demo_store, protocol="published", threads=1)
    trainer.train_epoch()
    save_checkpoint(trainer, folder / "model.pt")
    return folder


@pytest.fixture(scope="module")
def evaluated(run_folder: Path, demo_store: FeatureStore) -> np.ndarray:
    network = load_network(run_folder / "model.pt")
    return (
        Evaluator(demo_store, "published", None, torch.device("cpu")).evaluate(network, None).test_scores[""]
    )


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_store_is_scored_into_tables_segments_and_timelines(
    run_folder: Path, demo_store: FeatureStore, evaluated: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    options = [
        "--format",
        "csv",
        "--format",
        "parquet",
        "--pictures",
        "2",
        "--threshold",
        "0.5",
        "--fps",
        "25",
    ]
    assert run("score", run_folder, demo_store.path, "--out", out, *options) == 0
    videos = demo_store.videos("test")
    pictures = {f"timelines/{name}.{kind}" for name in videos.names[:2] for kind in ("png", "svg")}
    tables = {f"{what}.{kind}" for what in ("snippets", "frames") for kind in ("csv", "parquet")}
    assert files_below(out) == {"segments.json", *tables, *pictures}
    assert [path.name for path in tmp_path.iterdir()] == ["scores"]

    snippets = pq.read_table(out / "snippets.parquet")
    np.testing.assert_array_equal(snippets["score"].to_numpy(), evaluated)
    assert snippets["video"].to_pylist() == np.repeat(videos.names, videos.lengths).tolist()
    frames = pq.read_table(out / "frames.parquet")
    np.testing.assert_array_equal(frames["score"].to_numpy(), np.repeat(evaluated, 16))
    with (out / "snippets.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [np.float32(row["score"]) for row in rows] == evaluated.tolist()
    assert (rows[1]["snippet"], rows[1]["first_frame"], rows[1]["end_frame"]) == ("1", "16", "32")

    found = json.loads((out / "segments.json").read_text())
    assert (found["kind"], found["format_version"]) == ("macil segments", 1)
    assert (found["fps"], found["snippet_frames"], found["threshold"]) == (25, 16, 0.5)
    assert found["network"]["checkpoint"] == str(run_folder / "model.pt")
    assert [video["name"] for video in found["videos"]] == list(videos.names)
    marked = np.concatenate([mark(video, 16) for video in found["videos"]])
    np.testing.assert_array_equal(marked, evaluated > 0.5)


def mark(video: dict[str, object], snippet_frames: int) -> np.ndarray:
    """Which snippets the segments of a video hold."""
    frames, segments = video["frames"], video["segments"]
    assert isinstance(frames, int)
    assert isinstance(segments, list)
    marked = np.zeros(frames // snippet_frames, bool)
    for segment in segments:
        assert segment["start_seconds"] == pytest.approx(segment["start_frame"] / 25)
        marked[segment["start_frame"] // snippet_frames : segment["end_frame"] // snippet_frames] = True
    return marked


def test_layout_crops_and_arrays_give_the_scores_of_the_store(
    run_folder: Path, demo_store: FeatureStore, demo_layout: Path, evaluated: np.ndarray, tmp_path: Path
) -> None:
    layout = tmp_path / "mine"
    shutil.copytree(demo_layout / "RGBTest", layout / "RGBTest")
    shutil.copytree(demo_layout / "vggish-features/test", layout / "vggish-features/test")
    crops = sorted((layout / "RGBTest").iterdir())
    name = demo_store.videos("test").names[3]
    mine = [path for path in crops if path.name.startswith(f"{name}__")]
    np.save(tmp_path / "clip.npy", np.stack([np.load(path) for path in mine]))
    sound = layout / "vggish-features/test" / f"{name}__vggish.npy"
    calls = {"layout": [layout], "crops": crops, "arrays": [tmp_path / "clip.npy", sound]}
    videos = demo_store.videos("test")
    own = slice(int(videos.lengths[:3].sum()), int(videos.lengths[:4].sum()))
    for what, features in calls.items():
        options = ["--out", tmp_path / what, "--pictures", "0"]
        assert run("score", run_folder / "model.pt", *features, *options) == 0
        assert files_below(tmp_path / what) == {"snippets.parquet", "frames.parquet", "segments.json"}
        scores = pq.read_table(tmp_path / what / "snippets.parquet")["score"].to_numpy()
        np.testing.assert_allclose(scores, evaluated[own] if what == "arrays" else evaluated, atol=2e-6)


def test_chosen_videos_with_their_labels_in_the_pictures(
    run_folder: Path, demo_store: FeatureStore, demo_layout: Path, tmp_path: Path
) -> None:
    violent = next(name for name in demo_store.videos("test").names if not name.endswith("_A"))
    pictures = {}
    for what, data in (("store", demo_store.path), ("layout", demo_layout)):
        for labels in ([], ["--labels"]):
            out = tmp_path / f"{what}{len(labels)}"
            assert run("score", run_folder, data, "--out", out, "--video", violent, *labels) == 0
            pictures[what, bool(labels)] = (out / "timelines" / f"{violent}.svg").read_text()
            segments = json.loads((out / "segments.json").read_text())
            assert [video["name"] for video in segments["videos"]] == [violent]
    assert all(("annotated" in picture) == shown for (_, shown), picture in pictures.items())
    spans = {key: picture.count("#e69f00") for key, picture in pictures.items()}
    assert spans["store", True] == spans["layout", True] > 0
    assert spans["store", False] == spans["layout", False] == 0


def test_labels_are_only_read_when_they_are_asked_for(
    run_folder: Path, demo_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = tmp_path / "blind"
    shutil.copytree(demo_store.path, blind)
    (blind / "labels.arrow").unlink()
    assert run("score", run_folder, blind, "--out", tmp_path / "a", "--pictures", "1") == 0
    assert run("score", run_folder, blind, "--out", tmp_path / "b", "--labels") == 1
    assert "labels.arrow is missing" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_segments_follow_the_options_and_many_videos_show_progress(
    run_folder: Path, demo_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--threshold",
        "0",
        "--fps",
        "16",
        "--min-seconds",
        "15",
        "--pictures",
        "0",
        "--split",
        "train",
    ]
    assert run("score", run_folder, demo_store.path, "--out", tmp_path / "s", *options) == 0
    found = json.loads((tmp_path / "s" / "segments.json").read_text())
    lengths = dict(
        zip(demo_store.videos("train").names, demo_store.videos("train").lengths.tolist(), strict=True)
    )
    assert len(found["videos"]) == len(lengths)
    for video in found["videos"]:
        assert len(video["segments"]) == (lengths[video["name"]] >= 15), (
            "all is violent; a snippet is a second"
        )
        assert video["seconds"] == lengths[video["name"]]
    assert "scoring: 24/24 videos" in capsys.readouterr().err


def test_scores_are_replaced_only_when_asked_and_nothing_else_ever(
    run_folder: Path, demo_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s"
    out.mkdir()
    again = ["score", run_folder, demo_store.path, "--out", out]
    assert run(*again, "--pictures", "3") == 0
    before = files_below(out)
    assert run(*again) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert files_below(out) == before
    assert run(*again, "--pictures", "0", "--format", "csv", "--overwrite") == 0
    assert files_below(out) == {"segments.json", "snippets.csv", "frames.csv"}
    (out / "diary.txt").write_text("mine")
    assert run(*again, "--overwrite") == 2
    assert "holds diary.txt, which no scoring wrote" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_every_export_can_be_used_again(
    run_folder: Path, demo_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for to, name in (("safetensors", "m.safetensors"), ("released", "m.pkl")):
        assert run("export", run_folder, "--to", to, "--out", tmp_path / name) == 0
        shown = capsys.readouterr()
        assert "largest difference 0 in scores" in shown.out
        assert shown.err == ""
    expected = to_released(load_network(run_folder / "model.pt"))
    written = torch.load(tmp_path / "m.pkl", weights_only=True)
    assert {name: value.tolist() for name, value in written.items()} == {
        name: value.tolist() for name, value in expected.items()
    }
    tables = []
    for i, arguments in enumerate((["model.pt"], ["m.safetensors"], ["m.pkl", "--released"])):
        path = (run_folder if i == 0 else tmp_path) / arguments[0]
        options = ["--pictures", "0", "--format", "csv", *arguments[1:]]
        assert run("score", path, demo_store.path, "--out", tmp_path / f"s{i}", *options) == 0
        tables.append((tmp_path / f"s{i}" / "snippets.csv").read_text())
    assert tables[0] == tables[1] == tables[2]
    capsys.readouterr()
    results = []
    for path in (run_folder, tmp_path / "m.safetensors"):
        assert run("evaluate", path, demo_store.path, "--json") == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0].pop("checkpoint") == str(run_folder / "model.pt")
    assert results[1].pop("checkpoint") == str(tmp_path / "m.safetensors")
    assert results[0] == results[1]


def test_exporting_to_onnx_says_nothing_but_the_result(
    run_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("export", run_folder, "--to", "onnx", "--out", tmp_path / "m.onnx") == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    assert len(shown.out.splitlines()) == 2
    assert "visual 64 and audio 16 wide" in shown.out


def test_other_numbers_of_heads_are_reported_and_given(
    demo_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(Trainer(CONFIG.replace(num_heads=2), demo_store, threads=1), tmp_path / "two.pt")
    assert run("export", tmp_path / "two.pt", "--to", "released", "--out", tmp_path / "two.pkl") == 0
    assert "num_heads=2" in capsys.readouterr().out
    tables = []
    for i, arguments in enumerate((["two.pt"], ["two.pkl", "--released", "--num-heads", "2"])):
        options = ["--pictures", "0", "--format", "csv", *arguments[1:]]
        assert (
            run("score", tmp_path / arguments[0], demo_store.path, "--out", tmp_path / f"s{i}", *options) == 0
        )
        tables.append((tmp_path / f"s{i}" / "snippets.csv").read_text())
    assert tables[0] == tables[1]


@pytest.fixture
def paths(run_folder: Path, demo_store: FeatureStore, demo_layout: Path, tmp_path: Path) -> dict[str, Path]:
    inputs = tmp_path / "inputs"
    inputs.mkdir()

    def save(name: str, array: np.ndarray) -> Path:
        np.save(inputs / f"{name}.npy", array)
        return inputs / f"{name}.npy"

    training = inputs / "training"
    training.mkdir()
    shutil.copy(run_folder / "model.pt", training / "last.pt")
    (inputs / "text.npy").write_text("x")
    (inputs / "empty").mkdir()
    return {
        "RUN": run_folder,
        "STORE": demo_store.path,
        "LAYOUT": demo_layout,
        "V": save("v", np.ones((5, 3, 64), np.float32)),
        "A": save("a", np.ones((3, 16), np.float32)),
        "SWAPPED": save("swapped", np.ones((9, 3, 64), np.float32)),
        "LONG": save("long", np.ones((9, 16), np.float32)),
        "WIDE": save("wide", np.ones((3, 65), np.float32)),
        "FLAT": save("flat", np.ones(64, np.float32)),
        "NAN": save("nan", np.full((3, 64), np.nan, np.float32)),
        "NONE": save("none", np.ones((0, 64), np.float32)),
        "INT": save("int", np.ones((3, 64), np.int64)),
        "CROP": save("clip__0", np.ones((3, 64), np.float32)),
        "TEXT": inputs / "text.npy",
        "FOLDER": inputs / "empty",
        "TRAINING": training,
        "ABSENT": inputs / "absent.npy",
        "OUT": tmp_path / "out",
        "MODEL": tmp_path / "model.safetensors",
    }


@pytest.mark.parametrize(
    ("arguments", "status", "texts"),
    [
        (["score", "RUN", "V", "A"], 2, ["Missing option '--out'"]),
        (["score", "RUN", "--out", "OUT"], 2, ["Missing argument 'FEATURES"]),
        (["score", "RUN", "V", "--out", "OUT"], 1, ["v.npy: stands alone"]),
        (["score", "RUN", "WIDE", "A", "--out", "OUT"], 1, ["wide.npy: is 65 wide", "64 wide"]),
        (["score", "RUN", "A", "V", "--out", "OUT"], 1, ["a.npy: is 16 wide", "v.npy: has shape (5, 3, 64)"]),
        (["score", "RUN", "FLAT", "A", "--out", "OUT"], 1, ["flat.npy: has shape (64,), expected (snippets"]),
        (["score", "RUN", "NAN", "A", "--out", "OUT"], 1, ["nan.npy: holds 192 values that are NaN"]),
        (["score", "RUN", "NONE", "A", "--out", "OUT"], 1, ["none.npy: is empty"]),
        (["score", "RUN", "INT", "A", "--out", "OUT"], 1, ["int.npy: holds int64"]),
        (["score", "RUN", "TEXT", "A", "--out", "OUT"], 1, ["text.npy: is not a .npy file"]),
        (["score", "RUN", "ABSENT", "A", "--out", "OUT"], 1, ["absent.npy: does not exist"]),
        (["score", "RUN", "CROP", "--out", "OUT"], 1, ["clip: its audio is missing", "clip__vggish.npy"]),
        (
            ["score", "RUN", "WIDE", "A", "NAN", "A", "TEXT", "A", "ABSENT", "CROP", "--out", "OUT"],
            1,
            ["wide.npy", "nan.npy", "text.npy", "absent.npy", "clip: its audio"],
        ),
        (["score", "RUN", "LAYOUT", "V", "A", "--out", "OUT"], 2, ["give it alone"]),
        (["score", "RUN", "FOLDER", "--out", "OUT"], 1, ["is empty; expected RGB/"]),
        (["score", "RUN", "LAYOUT", "--video", "nobody", "--out", "OUT"], 1, ["not among the test videos"]),
        (["score", "RUN", "STORE", "--video", "nobody", "--out", "OUT"], 1, ["not among the test videos"]),
        (
            ["score", "RUN", "V", "A", "--video", "v", "--labels", "--out", "OUT"],
            2,
            ["--video, --labels: for a data"],
        ),
        (["score", "RUN", "STORE", "--snippet-frames", "8", "--out", "OUT"], 2, ["leave the option out"]),
        (
            ["score", "RUN", "STORE", "--labels", "--split", "train", "--out", "OUT"],
            2,
            ["needs --split test"],
        ),
        (["score", "RUN", "V", "A", "--threshold", "1.5", "--out", "OUT"], 2, ["1.5 is not in the range"]),
        (["score", "RUN", "V", "A", "--fps", "0", "--out", "OUT"], 2, ["0.0 is not in the range"]),
        (["score", "RUN", "V", "A", "--min-seconds", "-1", "--out", "OUT"], 2, ["-1.0 is not in the range"]),
        (
            ["score", "RUN", "V", "A", "--fps", "nan", "--out", "OUT"],
            2,
            ["--fps nan: expected a finite number"],
        ),
        (["score", "RUN", "V", "A", "--min-seconds", "inf", "--out", "OUT"], 2, ["--min-seconds inf"]),
        (["score", "RUN", "V", "A", "--format", "xlsx", "--out", "OUT"], 2, ["'xlsx' is not one of"]),
        (
            ["score", "RUN", "V", "LONG", "--out", "OUT"],
            1,
            ["long.npy: has 9 rows, the visual", "v.npy have 3 snippets; at most one row", "--fill-audio"],
        ),
        (["score", "RUN", "SWAPPED", "LONG", "--out", "OUT"], 1, ["swapped.npy: has shape (9, 3, 64)"]),
        (
            ["score", "RUN", "STORE", "--fill-audio", "--out", "OUT"],
            2,
            ["--fill-audio: the audio in the store"],
        ),
        (["score", "RUN", "V", "A", "--out", "TEXT"], 2, ["text.npy is a file"]),
        (["score", "RUN", "V", "A", "--out", "LAYOUT"], 2, ["which no scoring wrote"]),
        (["score", "TRAINING", "V", "A", "--out", "OUT"], 1, ["holds no model.pt", "last.pt"]),
        (["score", "FOLDER", "V", "A", "--out", "OUT"], 1, ["holds no model.pt; a search writes it"]),
        (["score", "TEXT", "V", "A", "--out", "OUT"], 1, ["text.npy cannot be read"]),
        (["score", "RUN", "V", "A", "--num-heads", "2", "--out", "OUT"], 2, ["belongs to --released"]),
        (["evaluate", "RUN", "FOLDER"], 1, ["is empty"]),
        (["export", "RUN", "--out", "MODEL"], 2, ["Missing option '--to'"]),
        (["export", "RUN", "--to", "onnx", "--out", "MODEL"], 2, ["must end in .onnx"]),
        (["export", "RUN", "--to", "safetensors", "--out", "TEXT"], 2, ["must end in .safetensors"]),
        (["export", "RUN", "--to", "released", "--out", "TEXT"], 2, ["exists; name another file"]),
        (["export", "RUN", "--to", "released", "--out", "RUN"], 2, ["is a folder"]),
        (["export", "TRAINING", "--to", "released", "--out", "MODEL"], 1, ["holds no model.pt"]),
    ],
)
def test_bad_input_is_one_clear_message_and_no_file(
    arguments: list[str],
    status: int,
    texts: list[str],
    paths: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files_below(tmp_path)
    assert run(*(paths.get(argument, argument) for argument in arguments)) == status
    shown = capsys.readouterr()
    message = " ".join(shown.err.replace("│", " ").split())
    for text in texts:
        assert text in message
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert files_below(tmp_path) == before
    assert not paths["OUT"].exists()


@pytest.mark.parametrize(("sound", "message"), [
    ("A", None),
    ("LONG", "6 rows cut from the audio of 1 video, to be as long as the visual features"),
    ("SHORT", "1 row of zeros added to the audio of 1 video, to be as long as the visual features"),
])  # fmt: skip
def test_what_is_done_to_the_audio_is_reported(
    sound: str,
    message: str | None,
    paths: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(tmp_path / "short.npy", np.ones((2, 16), np.float32))
    audio = {**paths, "SHORT": tmp_path / "short.npy"}[sound]
    options = ["--pictures", "0", *(["--fill-audio"] if sound == "LONG" else [])]
    assert run("score", paths["RUN"], paths["V"], audio, "--out", paths["OUT"], *options) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ([message] if message else [])


def test_a_source_is_not_overwritten_by_its_export(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.pt"
    shutil.copy(run_folder / "model.pt", model)
    before = model.read_bytes()
    assert run("export", model, "--to", "released", "--out", model, "--overwrite") == 2
    assert "is the file that is to be exported" in capsys.readouterr().err
    assert model.read_bytes() == before
