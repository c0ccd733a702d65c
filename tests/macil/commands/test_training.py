"""`python -m macil train` and `evaluate`, as a person calls them."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from macil.__main__ import app
from macil.commands.cli import main
from macil.data.origin import DEMO_NOTE
from macil.data.store.feature_store import FeatureStore
from macil.io.files import read_json, write_json_atomic
from tests.support.layouts import rename, tiny_demo
from tests.support.old_stores import convert_as_version_1

SMALL = [
    "--epochs",
    "2",
    "--batch-size",
    "24",
    "--hidden-dim",
    "16",
    "--feedforward-dim",
    "16",
    "--max-snippets",
    "20",
    "--threads",
    "1",
]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(app, [str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def trained(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "run"
    assert run("train", demo_store.path, "--out", out, *SMALL, "--protocol", "heldout") == 0
    return out


def test_a_training_leaves_everything_that_explains_it(trained: Path) -> None:
    assert {file.name for file in trained.iterdir()} == {
        "best.pt",
        "last.pt",
        "record.json",
        "config.toml",
        "epochs.jsonl",
        "scores.npz",
        "split.json",
    }
    epochs = [json.loads(line) for line in (trained / "epochs.jsonl").read_text().splitlines()]
    assert [metrics["epoch"] for metrics in epochs] == [1, 2]


def test_a_record_gives_the_same_digits_again(
    trained: Path, demo_store: FeatureStore, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    assert run("train", demo_store.path, "--out", out, "--record", trained / "record.json") == 0
    with np.load(trained / "scores.npz") as first, np.load(out / "scores.npz") as second:
        assert set(first) == set(second)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])


def test_evaluate_gives_the_ap_of_the_training(
    demo_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", demo_store.path, "--out", tmp_path / "run", *SMALL) == 0
    capsys.readouterr()
    assert run("evaluate", tmp_path / "run" / "last.pt", demo_store.path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    last = json.loads((tmp_path / "run" / "epochs.jsonl").read_text().splitlines()[-1])
    assert (found["ap"], found["ap_trapezoid"]) == (last["ap"], last["ap_trapezoid"])
    assert found["demo"] is True


@pytest.mark.parametrize("labelled", [True, False])
def test_what_it_says_to_do_next_works_when_it_is_pasted(
    labelled: bool, demo_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "the data's", tmp_path / "my runs #1"
    shutil.copytree(demo_store.path, data)
    if not labelled:
        (data / "labels.arrow").unlink()
        meta = read_json(data / "meta.json")
        write_json_atomic(data / "meta.json", {**meta, "labels_hash": None})
    assert run("train", data, "--out", out, *SMALL, "--epochs", "1", "--protocol", "heldout") == 0
    command = capsys.readouterr().out.splitlines()[-1].rpartition(": ")[2]
    done = subprocess.run(
        ["bash", "-c", command], cwd=Path.cwd(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("AP (step-wise)" in done.stdout) == labelled
    assert (tmp_path / "my runs #1-scores/segments.json").is_file() != labelled


def test_contrastive_terms_that_never_acted_are_told(
    demo_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", demo_store.path, "--out", tmp_path / "one", *SMALL, "--batch-size", "1") == 0
    assert "contrastive terms exactly 0 in all 2 epochs: no batch held both" in capsys.readouterr().out


def test_numbers_on_the_demo_are_labelled_and_others_are_not(
    demo_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(demo_store.path, tmp_path / "store"))
    meta = read_json(other / "meta.json")
    write_json_atomic(other / "meta.json", {**meta, "made_up": False})
    for store, labelled in ((demo_store.path, True), (other, False)):
        out = tmp_path / f"run-{labelled}"
        assert run("train", store, "--out", out, *SMALL) == 0
        assert (DEMO_NOTE in capsys.readouterr().out) is labelled
        assert run("evaluate", out / "last.pt", store) == 0
        assert (DEMO_NOTE in capsys.readouterr().out) is labelled


def test_resume_continues_and_finishes(trained: Path, demo_store: FeatureStore, tmp_path: Path) -> None:
    from macil.training.checkpoint import load_checkpoint, save_checkpoint
    from macil.training.trainer import Trainer

    state = load_checkpoint(trained / "last.pt")
    from macil.training.trainer import trainer_from_record

    trainer: Trainer = trainer_from_record(state["record"], demo_store)
    trainer.train_epoch()
    out = tmp_path / "stopped"
    out.mkdir()
    save_checkpoint(trainer, out / "last.pt")
    (out / "record.json").write_text((trained / "record.json").read_text())
    assert run("train", demo_store.path, "--out", out, "--resume") == 0
    with np.load(trained / "scores.npz") as whole, np.load(out / "scores.npz") as resumed:
        np.testing.assert_array_equal(whole["last"], resumed["last"])


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["train", "STORE", "--out", "DONE"], 2, "--resume, or replace it with --overwrite"),
        (["train", "STORE", "--out", "NEW", "--resume"], 2, "nothing to resume"),
        (["train", "STORE", "--out", "FILE"], 2, "is a file"),
        (["train", "nowhere", "--out", "NEW"], 1, "nowhere"),
        (["train", "STORE", "--out", "NEW", "--temperature", "0"], 2, "temperature = 0.0 is not allowed"),
        (["train", "STORE", "--out", "NEW", "--hidden-dim", "x"], 2, "not a valid integer"),
        (["train", "STORE", "--out", "NEW", "--hidden-dim", "30"], 2, "not divisible by num_heads"),
        (["train", "STORE", "--out", "NEW", "--preset", "none"], 2, "none"),
        (["train", "STORE", "--out", "NEW", "--config", "absent.toml"], 2, "does not exist"),
        (["train", "STORE", "--out", "NEW", "--record", "RECORD", "--ramp", "1"], 2, "leave out --ramp"),
        (["train", "STORE", "--out", "NEW", "--threads", str(2**63)], 2, "is not in the range 1<=x<=1024"),
        (
            [
                "train",
                "STORE",
                "--out",
                "NEW",
                "--record",
                "RECORD",
                "--split-seed",
                "0",
                "--config",
                "c.toml",
            ],
            2,
            "leave out --config, --split-seed",
        ),
        (
            ["train", "STORE", "--out", "NEW", "--split-seed", "0"],
            2,
            "--split-seed belongs to --protocol heldout",
        ),
        (["train", "STORE", "--out", "NEW", "--split", "SPLIT"], 2, "belongs to --protocol heldout"),
        (["train", "STORE", "--out", "NEW", "--split-seed", "4294967296"], 2, "is not in the range 0<=x<="),
        (["evaluate", "absent.pt", "STORE"], 1, "absent.pt does not exist"),
        (["evaluate", "FILE", "STORE"], 1, "cannot be read"),
    ],
)
def test_bad_input_is_one_clear_message(
    arguments: list[str],
    status: int,
    text: str,
    trained: Path,
    demo_store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("x")
    paths = {
        "STORE": demo_store.path,
        "DONE": trained,
        "NEW": tmp_path / "new",
        "FILE": tmp_path / "file",
        "RECORD": trained / "record.json",
        "SPLIT": trained / "split.json",
    }
    assert run(*(paths.get(argument, argument) for argument in arguments)) == status
    shown = capsys.readouterr()
    assert text in " ".join(shown.err.replace("│", " ").split())
    assert "Traceback" not in shown.err
    assert not (tmp_path / "new").exists()


def test_how_a_folder_is_read_is_recorded_and_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    root, out, read_as = tiny_demo(tmp_path / "demo"), tmp_path / "out", ["--silent", "leave-out"]
    for path in sorted((root / "vggish-features/train").iterdir())[:2]:
        path.unlink()
    assert run("train", root, "--out", out, *SMALL) == 1
    assert "the audio is missing; of a video without sound it may" in capsys.readouterr().err
    assert run("train", root, "--out", out, *SMALL, *read_as) == 0
    text = capsys.readouterr().out
    assert "note: 2 videos without sound (2 without an audio file) left out (--silent leave-out)" in text
    assert read_json(out / "record.json")["reading"]["silent"] == "leave-out"
    words = shlex.split(text[text.index("look further: ") :].removeprefix("look further: ").splitlines()[0])
    assert words[-2:] == read_as
    assert run(*words[words.index("evaluate") :], "--json") == 0
    assert json.loads(capsys.readouterr().out)["data_notes"] == [
        "2 videos without sound (2 without an audio file) left out (--silent leave-out)"
    ]
    # A record and a resume read the folder in the same way by themselves.
    (out / "best.pt").unlink()
    assert run("train", root, "--out", tmp_path / "again", "--record", out / "record.json") == 0
    assert (tmp_path / "again" / "scores.npz").read_bytes() == (out / "scores.npz").read_bytes()
    assert run("train", root, "--out", out, "--resume", *read_as) == 2
    assert "leave out --silent" in capsys.readouterr().err
    assert run("train", root, "--out", out, "--resume") == 0


def test_an_order_of_the_labels_that_is_assumed_is_reported_beside_every_ap(
    trained: Path,
    demo_layout: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    message = "gt.npy: the order of the videos in it is an assumption"
    for annotated in (True, False):
        layout = Path(shutil.copytree(demo_layout, tmp_path / str(annotated)))
        if not annotated:
            (layout / "annotations.txt").unlink()
        capsys.readouterr()
        assert run("evaluate", trained / "last.pt", layout) == 0
        assert (f"note: {message}" in capsys.readouterr().out) is not annotated
        assert run("evaluate", trained / "last.pt", layout, "--json") == 0
        notes = json.loads(capsys.readouterr().out)["label_notes"]
        assert [note.startswith(message) for note in notes] == [True] * (not annotated)
    assert run("train", layout, "--out", tmp_path / "again", *SMALL, "--epochs", "1") == 0
    assert f"note: {message}" in capsys.readouterr().out


def test_a_store_that_does_not_say_what_its_labels_rest_on_is_reported_to(
    trained: Path, demo_layout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = convert_as_version_1(demo_layout, tmp_path / "old")
    message = "the store is of format_version 1, which does not say what its test labels rest on"
    capsys.readouterr()
    assert run("evaluate", trained / "last.pt", store) == 0
    assert f"note: {message}" in capsys.readouterr().out
    assert run("evaluate", trained / "last.pt", store, "--json") == 0
    assert json.loads(capsys.readouterr().out)["label_notes"][0].startswith(message)


def test_data_whose_names_tell_no_sources_are_split_by_video_and_that_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], demo_layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    layout = Path(shutil.copytree(demo_layout, tmp_path / "data"))
    rename(layout, lambda name: name.replace("__#", "_"))
    options = [*SMALL, "--epochs", "1"]
    assert run("train", layout, "--out", tmp_path / "heldout", *options, "--protocol", "heldout") == 0
    assert "note: each of the 24 training videos counts as a source of its own" in capsys.readouterr().err
    assert run("train", layout, "--out", tmp_path / "published", *options) == 0
    assert "a source of its own" not in capsys.readouterr().err
