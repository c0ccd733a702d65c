"""The benchmarks still run, and compare before they time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import benchmarks.evaluation
import benchmarks.precision
import benchmarks.seeds
import benchmarks.store
import benchmarks.synthetic
import benchmarks.training
from benchmarks.agreement import check_acceleration, check_reference, compare_trainings
from benchmarks.common import ratios, take_turns
from benchmarks.reference import PlainBatch, Reference
from macil.config import TrialConfig
from macil.data import FeatureStore, convert, write_demo
from macil.evaluation.average_precision import AveragePrecision, frame_average_precision
from macil.training.bags import Batch, Residency, TrainingBags
from macil.training.engine import Engine
from tests.support import golden_inputs
from tests.support.repository import ROOT


def run(module: Any, folder: Path, *options: str) -> Any:
    """What a benchmark writes; it runs in this process."""
    done = CliRunner().invoke(module.main, ["--json", str(folder / "result.json"), *options])
    assert done.exit_code == 0, done.output
    return json.loads((folder / "result.json").read_text("utf-8"))


# training

SMALL = ["--batch-size=4", "--snippets=20", "--shortest=2", "--check-batch=5", "--steps=1", "--threads=1"]


def test_the_training_benchmark_compares_and_times_steps_and_an_epoch(tmp_path: Path) -> None:
    result = run(benchmarks.training, tmp_path, *SMALL, "--epoch-bags=10")
    assert list(result["cases"]) == ["all 20", "2 to 20", "epoch"]
    assert [(case["bags"], case["steps"]) for case in result["cases"].values()] == [(4, 1), (4, 1), (10, 3)]
    assert result["cases"]["all 20"]["mean_length"] == 20
    for case in result["cases"].values():
        assert 0 < case["largest_difference"] < 1e-8
        assert case["largest_difference_accelerated"] == 0  # nothing is, on a CPU
        assert list(case["seconds"]) == ["reference", "macil", "macil, bf16"]
        for name, timed in case["seconds"].items():
            ratio = case["seconds"]["reference"]["median"] / timed["median"]
            assert case["ratio_of_median"][name] == pytest.approx(ratio)
        assert case["mode"] == {"macil": "eager", "macil, bf16": "eager"}
        assert case["goal"] is None  # of other sizes
    assert result["at_scale"] is None
    assert result["machine"]["threads"] == 1


def test_epochs_at_scale_say_where_the_time_went(tmp_path: Path) -> None:
    scale = ["--epochs-at-scale=2", "--videos=6", "--bandwidth-gbs=10"]
    trained = run(benchmarks.training, tmp_path, *SMALL, "--epoch-bags=5", "--no-bf16", *scale)["at_scale"]
    assert (trained["epochs"], trained["bags"], trained["steps"]) == (2, 30, 16)
    assert (trained["test_videos"], trained["test_snippets"]) == (2, 221)
    parts = trained["parts"]
    assert list(parts) == ["train", "evaluate", "infuse", "other"]
    assert all(seconds >= 0 for seconds in parts.values())
    assert sum(parts.values()) == pytest.approx(trained["seconds"])
    assert trained["step_ms"] == pytest.approx(1e3 * parts["train"] / 16)
    moved = trained["step_bytes"]
    assert moved["all"] == moved["features"] + moved["activations"] + moved["parameters"]
    assert trained["achieved_gbs"] == pytest.approx(moved["all"] * 16 / parts["train"] / 1e9)
    assert trained["bandwidth_share"] == pytest.approx(trained["achieved_gbs"] / 10)
    assert trained["first_epoch_seconds"] > 0
    assert trained["mode"] == "eager"
    assert 0 < trained["last_ap"] <= 1
    assert trained["goal_seconds"] is None


def test_made_up_data_have_the_published_size() -> None:
    synthetic = benchmarks.synthetic
    bags = synthetic.training_lengths(synthetic.TRAIN_VIDEOS).clip(max=200)
    assert 105 < bags.mean() < 115
    assert 0.15 < (bags == 200).mean() < 0.3
    test = synthetic.evaluated_lengths(synthetic.TEST_VIDEOS, synthetic.TEST_SNIPPETS)
    assert (len(test), test.sum(), test.min() > 0) == (800, 145_649, True)


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_made_up_store_serves_every_row_it_lists(overlapping: bool) -> None:
    lengths = [np.array(own, np.int64) for own in ([7, 3, 30], [4, 9])]
    store = benchmarks.synthetic.SyntheticStore(*lengths, crops=2, overlapping=overlapping)
    assert store.visual.shape == (2 * 53, 1024)
    assert store.audio.shape == (53, 128)
    assert len(store.nonzero) == 2 * 53
    assert len(store.visual.unique(dim=0)) == 2 * 53
    last = store.videos("test")
    assert last.visual_offsets[-1] + 2 * 9 == 2 * 53
    assert last.audio_offsets[-1] + 9 == 53
    labels = store.test_labels()
    assert len(labels.frame_labels) == 16 * 13
    assert labels.frame_labels[-1] == labels.video_labels[-1] == 1
    bags = TrainingBags(store, None, 20, torch.device("cpu"))
    assert bags.lengths.tolist() == [7, 7, 3, 3, 20, 20]


def golden_reference() -> tuple[Reference, PlainBatch]:
    """The reference with the recorded weights, in the epoch and with the weights of the recorded total."""
    visual, audio, lengths, labels = (torch.from_numpy(array) for array in golden_inputs.training_batch())
    config = TrialConfig(
        lambda_v2b=0.7,
        lambda_v2n=0.4,
        ramp=0.1,
        dropout=0.0,
        dropout_everywhere=True,
        visual_learning_rate=8e-5,
    )
    reference = Reference(config, 10, torch.device("cpu"))
    pairs = (
        (reference.network, golden_inputs.two_stream_weights()),
        (reference.visual_network, golden_inputs.visual_weights()),
    )
    for network, arrays in pairs:
        used = network.state_dict().keys()
        network.load_state_dict({name: torch.from_numpy(arrays[name]) for name in used})
    return reference, PlainBatch(visual, audio, lengths, labels)


def test_the_reference_meets_the_authors_figures() -> None:
    figures = golden_inputs.figures()

    def close(expected: Any) -> Any:
        return pytest.approx(expected, rel=1e-5, abs=1e-5)

    reference, batch = golden_reference()
    losses = reference.losses(batch)
    p = reference.network(batch.visual, batch.audio, batch.lengths)["p"]
    assert p.tolist() == close(figures["probabilities"])
    assert losses.mil.item() == close(figures["bce"])
    assert losses.visual.item() == close(figures["bce_visual"])
    assert {name: term.item() for name, term in losses.terms._asdict().items()} == close(figures["terms"])
    (losses.total + losses.visual).backward()
    networks = ((reference.network, "gradient_norms"), (reference.visual_network, "gradient_norms_visual"))
    for network, key in networks:
        norms = {name: p.grad.norm().item() for name, p in network.named_parameters() if p.grad is not None}
        assert norms == close({name: figures[key][name] for name in norms})
        assert len(norms) == len(list(network.parameters()))


def test_the_reference_makes_the_recorded_steps() -> None:
    reference, batch = golden_reference()
    steps = golden_inputs.figures()["steps"]
    assert len(steps) > 1
    for expected in steps:
        losses = reference.losses(batch)
        assert [losses.total.item(), losses.visual.item()] == pytest.approx(expected, rel=1e-5)
        reference.step(batch)


# As on a CPU, and as on a GPU but for the device.
RESIDENCIES = pytest.mark.parametrize("residency", [None, "resident"])


@RESIDENCIES
def test_a_step_that_differs_from_the_reference_is_not_timed(
    residency: Residency | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = np.array([20, 3, 11, 8, 20], np.int64)
    config, device = TrialConfig(), torch.device("cpu")
    assert check_reference(config, lengths, 20, device, residency) < 1e-8
    # The check has to see a gradient that is off while every loss is right.
    step = Engine.step

    def off(self: Engine, batch: Batch) -> torch.Tensor:
        losses = step(self, batch)
        gradient = self.audio_visual.tensors["layer.norm_attention.bias"].grad
        assert gradient is not None
        gradient[0, 5] += 1e-6 * gradient.abs().max()
        return losses

    monkeypatch.setattr(Engine, "step", off)
    with pytest.raises(click.ClickException, match=r"norm\.bias differs .* by 1\.00e-06; nothing was timed"):
        check_reference(config, lengths, 20, device, residency)


def test_the_agreement_counts_a_value_that_is_no_number_as_a_difference() -> None:
    engines = [Engine(TrialConfig(batch_size=2), [0], small_bags(), precision="fp64") for _ in range(2)]
    assert compare_trainings(engines[0], {0: engines[1]}, "itself", epochs=1) == 0
    engines[0].audio_visual.tensors["fc_a.bias"].data[0, 0] = torch.nan
    with pytest.raises(click.ClickException, match="differs from itself by nan"):
        compare_trainings(engines[0], {0: engines[1]}, "itself", epochs=1)


def small_bags() -> TrainingBags:
    store = benchmarks.synthetic.SyntheticStore(np.array([9, 4, 6, 2, 9], np.int64), np.zeros(0, np.int64))
    return TrainingBags(store, None, 9, torch.device("cpu"))


def test_what_is_timed_on_a_gpu_runs_on_a_cpu_too() -> None:
    config, device = TrialConfig(batch_size=2, max_snippets=9), torch.device("cpu")
    case = benchmarks.training.Case("resident", np.array([9, 4, 6, 2, 9]), 1, False, None)
    assert check_acceleration(config, case.lengths, 9, device, "resident") == 0
    turns = benchmarks.training.make_turns(case, config, device, half=True, residency="resident")
    assert turns.steps == 3
    seconds = benchmarks.training.time_case(turns, 1, 0, device, epoch=False)
    assert list(seconds) == ["reference", "macil", "macil, bf16"]


@pytest.mark.parametrize("module", [benchmarks.training, benchmarks.seeds, benchmarks.precision])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(module: Any) -> None:
    done = CliRunner().invoke(module.main, ["--device=cuda"])
    assert done.exit_code == 2
    assert "PyTorch sees no GPU here" in done.stderr
    assert not done.stdout


def test_a_benchmark_is_a_command() -> None:
    command = [sys.executable, "-m", "benchmarks.evaluation", "--snippets=10", "--repeats=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "scikit-learn" in done.stdout


# seeds


def test_the_seeds_benchmark_compares_and_times_lockstep(tmp_path: Path) -> None:
    small = ["--seeds=2", "--seeds=3", "--bags=5", "--batch-size=2", "--snippets=12", "--repeats=1"]
    result = run(benchmarks.seeds, tmp_path, *small, "--threads=1")
    assert 0 <= result["largest_difference"] < 1e-9
    assert list(result["seconds"]) == ["1", "2", "3"]
    assert result["steps"] == 3
    for count, timed in result["seconds"].items():
        ratio = timed["median"] / result["seconds"]["1"]["median"]
        assert result["ratio_of_median"][count] == pytest.approx(ratio)
        assert result["ratio_to_separate"][count] == pytest.approx(ratio / int(count))
    assert result["goal"] is None  # of a GPU


def test_seeds_that_differ_in_lockstep_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "macil.training.engine.make_keys", lambda seeds, *rest: torch.full((len(seeds),), 5 * len(seeds))
    )
    with pytest.raises(click.ClickException, match=r"differs from the seed alone .*; nothing was timed"):
        benchmarks.seeds.check_lockstep(TrialConfig(), 12, torch.device("cpu"))


# precision


def test_the_precision_benchmark_compares_every_seed_with_its_own(tmp_path: Path) -> None:
    folder = write_demo(tmp_path / "layout", train_videos=6, test_videos=3, max_snippets=20, crops=1)
    store = convert(folder, tmp_path / "store")
    options = [f"--data={store}", "--seeds=2", "--epochs=1", "--batch-size=4", "--threads=1"]
    result = run(benchmarks.precision, tmp_path, *options)
    names = ["float32", "float64", "float16 bags", "bfloat16", "both"]
    assert list(result["values"]) == names
    assert list(result["differences"]) == names[1:]
    assert (result["seeds"], result["epochs"], result["batch_size"]) == ([0, 1], 1, 4)
    for name, difference in result["differences"].items():
        for definition in ("ap", "ap_trapezoid"):
            each = [
                one[definition] - other[definition]
                for one, other in zip(result["values"][name], result["values"]["float32"], strict=True)
            ]
            found = difference[definition]
            assert found["each"] == pytest.approx(each, abs=1e-15)
            assert found["mean"] == pytest.approx(np.mean(each), abs=1e-15)
            assert found["deviation"] == pytest.approx(np.std(each, ddof=1), abs=1e-15)
            assert (found["low"], found["high"]) == (None, None), "two seeds have no interval"
            assert found["values"] == found["each"]
    again = benchmarks.precision.last_ap(
        FeatureStore.open(store),
        TrialConfig(epochs=1, batch_size=4, seed=1),
        benchmarks.precision.VARIANTS["float32"],
        torch.device("cpu"),
    )
    assert again == pytest.approx(result["values"]["float32"][1], abs=1e-3)


# evaluation


def test_the_evaluation_benchmark_compares_and_times_three_ways(tmp_path: Path) -> None:
    result = run(benchmarks.evaluation, tmp_path, "--snippets=300", "--repeats=2")
    assert (result["snippets"], result["frames"]) == (300, 4800)
    assert result["distinct_scores"] < 300
    assert result["mixed_snippets"] > 0
    values = result["values"]
    assert list(values) == ["macil", "scikit-learn, one curve", "scikit-learn, two calls"]
    scores, labels = benchmarks.evaluation.make_case(300, 0)
    assert values["macil"] == pytest.approx(frame_average_precision(scores, labels)._asdict(), abs=1e-12)
    measured = [abs(values["macil"][of] - value[of]) for value in values.values() for of in value]
    assert result["largest_difference"] == max(measured) < 1e-9
    assert set(result["seconds"]) == set(values)
    assert set(result["ratio_of_median"]) == set(values) - {"macil"}
    assert result["machine"]["device"]


@pytest.mark.parametrize("definition", [0, 1])
def test_the_evaluation_benchmark_refuses_what_differs(
    definition: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, labels = benchmarks.evaluation.make_case(100, 1)
    _, difference = benchmarks.evaluation.check_agreement(scores, labels)
    assert difference < 1e-9

    def off(scores: np.ndarray, labels: np.ndarray) -> AveragePrecision:
        values = list(frame_average_precision(scores, labels))
        values[definition] += 1e-6
        return AveragePrecision(*values)

    monkeypatch.setattr(benchmarks.evaluation, "frame_average_precision", off)
    with pytest.raises(click.ClickException, match=r"differ by 1\.00e-06; nothing was timed"):
        benchmarks.evaluation.check_agreement(scores, labels)


# store


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/PID/smaps_rollup")
def test_the_store_benchmark_compares_times_and_measures(tmp_path: Path) -> None:
    small = ["--gigabytes=0.01", "--processes=2", "--repeats=1", "--conversions=1"]
    result = run(benchmarks.store, tmp_path, *small, f"--scratch={tmp_path}")
    size = result["size"]
    assert (size["videos"], size["bags"], size["files"]) == (4, 20, 24)
    assert result["compared_values"] == 1024 * size["visual_rows"] + 128 * size["audio_rows"]
    assert size["bytes"] == 4 * result["compared_values"]
    assert result["largest_difference"] == 0
    assert set(result["seconds"]) == {"convert", "open", "random", "sequential"}
    for what, timed in result["seconds"].items():
        assert set(result["ratio_of_median"][what]) == set(timed) - {"store"}
    assert result["processes"] == 2
    for held in result["memory"].values():
        assert held["beyond_bytes"] == held["pss_bytes"] - held["baseline_bytes"]
        assert held["copies"] == held["beyond_bytes"] / size["bytes"]
        assert held["trimmed"]["copies"] == held["trimmed"]["beyond_bytes"] / size["bytes"]
        assert held["baseline_bytes"] > 0
    # Every process holds its arrays; the store's pages are mapped.
    assert result["memory"]["arrays"]["beyond_anonymous_bytes"] > 1.9 * size["bytes"]
    assert result["memory"]["store"]["beyond_file_bytes"] > 0.9 * size["bytes"]
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "layout"
    return write_demo(folder, train_videos=3, test_videos=2, max_snippets=20, visual_dim=8, audio_dim=8)


@pytest.mark.parametrize("features", ["visual", "audio"])
def test_the_store_benchmark_refuses_a_value_that_differs(
    features: str, layout: Path, tmp_path: Path
) -> None:
    path = convert(layout, tmp_path / "store")
    store = FeatureStore.open(path)
    bags = benchmarks.store.list_bags(store, layout)
    assert benchmarks.store.check_values(store, bags)["largest_difference"] == 0

    last = getattr(store, features)[-1].numpy().tobytes()
    content = (path / f"{features}.arrow").read_bytes()
    changed = np.frombuffer(last, np.float32) + np.float32(0.5)
    del store
    (path / f"{features}.arrow").write_bytes(content.replace(last, changed.tobytes()))
    with pytest.raises(click.ClickException, match=r"differs by 5\.00e-01; nothing was timed"):
        benchmarks.store.check_values(FeatureStore.open(path), bags)


def test_the_store_benchmark_refuses_rows_that_were_not_compared(layout: Path, tmp_path: Path) -> None:
    store = FeatureStore.open(convert(layout, tmp_path / "store"))
    bags = benchmarks.store.list_bags(store, layout)
    with pytest.raises(click.ClickException, match="nothing was timed"):
        benchmarks.store.check_values(store, bags[:-1])


def test_all_ways_read_the_same_bits_in_any_order(layout: Path, tmp_path: Path) -> None:
    path = convert(layout, tmp_path / "store")
    store = FeatureStore.open(path)
    bags = benchmarks.store.list_bags(store, layout)
    arrays = benchmarks.store.load_arrays(benchmarks.store.list_parts(bags))
    readers: list[benchmarks.store.StoreReader | benchmarks.store.FileReader] = [
        benchmarks.store.StoreReader(path),
        benchmarks.store.FileReader(),
        benchmarks.store.FileReader(arrays),
    ]
    wanted = benchmarks.store.check_values(store, bags)["checksum"]
    totals = {benchmarks.store.read_randomly(reader, bags, seed) for reader in readers for seed in range(2)}
    assert totals == {wanted}
    first = arrays[bags[0].visual.path]
    first[0, 0] += 1
    assert benchmarks.store.read_randomly(readers[2], bags, 0) != wanted


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/PID/smaps_rollup")
def test_the_store_benchmark_refuses_a_process_that_read_something_else(layout: Path, tmp_path: Path) -> None:
    path = convert(layout, tmp_path / "store")
    bags = benchmarks.store.list_bags(FeatureStore.open(path), layout)
    with (
        pytest.raises(click.ClickException, match="expected 1"),
        benchmarks.store.processes("store", 1, path, bags, 1),
    ):
        pass


# taking turns


def test_variants_take_turns_and_each_begins_one() -> None:
    calls: list[str] = []
    variants = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = take_turns(variants, repeats=2, warmup=1, before=lambda: calls.append("-"))
    assert "".join(calls) == "-a-b-b-a-a-b"
    assert all(timed["fastest"] <= timed["median"] <= timed["slowest"] for timed in seconds.values())


def test_a_ratio_says_how_many_times_as_long_the_other_takes() -> None:
    seconds = {"ours": {"median": 2.0}, "other": {"median": 6.0}}
    assert ratios(seconds, "ours") == {"other": 3.0}
