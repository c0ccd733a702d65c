"""One training: it learns, it stops and resumes bit for bit, and it reads only what its protocol allows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError, DivergedError, UsageError
from macil.evaluation.average_precision import frame_average_precision
from macil.evaluation.whole_videos import score_videos
from macil.inference.loading import load_trained
from macil.model.random_numbers import fold_in, make_keys, permutation
from macil.objective import mil_loss, objective
from macil.training.bags import TrainingBags
from macil.training.checkpoint import load_checkpoint, load_network, save_checkpoint
from macil.training.distillation import infuse, momentum_at
from macil.training.trainer import Trainer, learning_rate_at, trainer_from_record

CPU = torch.device("cpu")
SMALL = TrialConfig(
    epochs=3, batch_size=24, hidden_dim=16, feedforward_dim=16, max_snippets=20, learning_rate=2e-3
)


def digits(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history without wall times."""
    return [{name: value for name, value in metrics.items() if name != "seconds"} for metrics in history]


def train(trainer: Trainer, epochs: int | None = None) -> Trainer:
    while not trainer.finished and (epochs is None or trainer.epoch < epochs):
        trainer.train_epoch()
    return trainer


@pytest.fixture(scope="module")
def whole(demo_store: FeatureStore) -> Trainer:
    """An undisturbed held-out training."""
    return train(Trainer(SMALL, demo_store, protocol="heldout", threads=1))


def test_a_training_is_saved_and_gone_on_with_from_its_file_alone(
    whole: Trainer, demo_store: FeatureStore, tmp_path: Path
) -> None:
    train(Trainer(SMALL, demo_store, protocol="heldout", threads=1), 1).save(tmp_path / "last.pt")
    resumed = train(Trainer.resume(tmp_path / "last.pt", demo_store))
    assert digits(resumed.history) == digits(whole.history)
    network = load_trained(tmp_path / "last.pt").network
    assert network.config == SMALL
    with pytest.raises(DataError, match="does not exist"):
        Trainer.resume(tmp_path / "nothing.pt", demo_store)


def test_seeds_that_were_saved_together_go_on_together(demo_store: FeatureStore, tmp_path: Path) -> None:
    config = SMALL.replace(epochs=2)
    together = Trainer(config, demo_store, seeds=[3, 4], threads=1)
    train(together, 1).save(tmp_path / "group.pt")
    resumed = Trainer.resume(tmp_path / "group.pt", demo_store)
    assert [member.seed for member in resumed.members] == [3, 4]
    expected, found = train(together), train(resumed)
    for one, other in zip(expected.members, found.members, strict=True):
        assert digits(one.history) == digits(other.history)
    assert len(found.history) == 2


def test_scores_need_no_labels_and_an_evaluation_opens_them(
    whole: Trainer, demo_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = Trainer.resume(whole.state_dict(), demo_store).evaluate()
    ap = frame_average_precision(
        whole.test_scores["last"], demo_store.test_labels().frame_labels, demo_store.snippet_frames
    )
    assert (last.ap, last.ap_trapezoid) == ap
    assert (last.videos, last.snippets) == (10, len(whole.test_scores["last"]))
    assert 0 < last.positive_frame_rate < 1

    def closed(_: FeatureStore) -> None:
        raise AssertionError("labels were read")

    monkeypatch.setattr(FeatureStore, "test_labels", closed)
    np.testing.assert_array_equal(whole.score().snippets, whole.test_scores["last"])
    assert len(whole.score(split="train").videos) == 24
    with pytest.raises(AssertionError, match="labels were read"):
        whole.evaluate()


@pytest.mark.parametrize("stop", [1, 2])
def test_resuming_after_any_epoch_gives_the_same_digits(
    stop: int, whole: Trainer, demo_store: FeatureStore, tmp_path: Path
) -> None:
    first = train(Trainer(SMALL, demo_store, protocol="heldout", threads=1), stop)
    save_checkpoint(first, tmp_path / "last.pt")
    train(
        Trainer(SMALL.replace(seed=5), demo_store, protocol="heldout", threads=1), 1
    )  # the process is used meanwhile
    torch.rand(7)  # global random state means nothing

    resumed = Trainer(SMALL, demo_store, protocol="heldout", threads=1)
    resumed.load_state_dict(load_checkpoint(tmp_path / "last.pt"))
    train(resumed)

    assert digits(resumed.history) == digits(whole.history)
    for name, scores in whole.test_scores.items():
        np.testing.assert_array_equal(resumed.test_scores[name], scores)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], tensor), name


def test_a_fresh_process_resumes_to_the_same_digits(
    whole: Trainer, demo_store: FeatureStore, tmp_path: Path
) -> None:
    save_checkpoint(train(Trainer(SMALL, demo_store, protocol="heldout", threads=1), 1), tmp_path / "last.pt")
    script = """
import json, sys
from macil.training.checkpoint import load_checkpoint
from macil.data.store.feature_store import FeatureStore
from macil.training.trainer import trainer_from_record
state = load_checkpoint(sys.argv[1])
trainer = trainer_from_record(state["record"], FeatureStore.open(sys.argv[2]))
trainer.load_state_dict(state)
while not trainer.finished:
    trainer.train_epoch()
print(json.dumps(trainer.history))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "last.pt"), str(demo_store.path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert digits(json.loads(done.stdout)) == digits(json.loads(json.dumps(whole.history)))


def test_the_same_seed_gives_the_same_digits_and_another_seed_others(
    whole: Trainer, demo_store: FeatureStore
) -> None:
    again = train(Trainer(SMALL, demo_store, protocol="heldout", threads=1), 1)
    other = train(Trainer(SMALL.replace(seed=1), demo_store, protocol="heldout", threads=1), 1)
    assert digits(again.history) == digits(whole.history)[:1]
    assert other.history[0]["loss_mil"] != whole.history[0]["loss_mil"]


def test_a_training_leaves_global_random_state_alone(demo_store: FeatureStore) -> None:
    torch.manual_seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    train(Trainer(SMALL, demo_store, protocol="heldout", threads=1), 1)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index] # noqa: NPY002


def test_an_epoch_is_the_written_out_recipe(demo_store: FeatureStore) -> None:
    """Train, infuse, evaluate: against the same steps by hand, with PyTorch's own scheduler."""
    config = SMALL.replace(epochs=2, dropout=0.0, dropout_everywhere=True)
    trainer = Trainer(config, demo_store, threads=1)
    by_hand = Trainer(config, demo_store, threads=1)
    network, visual_network = by_hand.network, by_hand.visual_network
    assert visual_network is not None
    bags = TrainingBags(demo_store, None, config.max_snippets, CPU, residency="resident")
    optimizers = [
        torch.optim.Adam(network.parameters(), config.learning_rate),
        torch.optim.Adam(visual_network.parameters(), config.visual_learning_rate),
    ]
    schedulers = [
        torch.optim.lr_scheduler.CosineAnnealingLR(each, config.cosine_epochs) for each in optimizers
    ]
    labels = demo_store.test_labels()
    for epoch in range(config.epochs):
        network.train(), visual_network.train()
        order = permutation(fold_in(make_keys([config.seed], "shuffle"), epoch), len(bags))
        for samples in order.split(config.batch_size, 1):
            batch = bags.batch(samples)
            shape = (samples.shape[1], bags.snippets, -1)
            visual, audio = batch.visual.view(shape), batch.audio.view(shape)
            labels_of_bags, lengths = batch.labels[0], batch.layout.lengths[0]
            total, _ = objective(network(visual, audio, lengths), labels_of_bags, config, epoch)
            output = visual_network(visual, lengths)
            for each in optimizers:
                each.zero_grad()
            total.backward()  # two backward passes, as published
            mil_loss(output.video_logits, labels_of_bags).backward()
            for each in optimizers:
                each.step()
        for scheduler in schedulers:
            scheduler.step()
        infuse(network, visual_network, momentum_at(epoch, config.momentum))
        scores = score_videos(network, demo_store, demo_store.videos("test"))
        expected = frame_average_precision(scores.snippets, labels.frame_labels)
        metrics = trainer.train_epoch()
        assert metrics["ap_trapezoid"] == pytest.approx(expected.ap_trapezoid, abs=1e-4)
        np.testing.assert_allclose(trainer.test_scores["last"], scores.snippets, atol=2e-5)


def test_the_test_scores_of_every_epoch_are_kept_on_request(
    whole: Trainer, demo_store: FeatureStore, tmp_path: Path
) -> None:
    def begin() -> Trainer:
        return Trainer(SMALL, demo_store, protocol="heldout", threads=1, keep_scores="all")

    first = train(begin(), 2)
    save_checkpoint(first, tmp_path / "last.pt")
    kept = begin()
    kept.load_state_dict(load_checkpoint(tmp_path / "last.pt"))
    train(kept)
    assert digits(kept.history) == digits(whole.history), "no digit depends on it"
    epochs = {f"{which}epoch_{epoch}" for which in ("", "visual_") for epoch in (1, 2, 3)}
    assert set(kept.test_scores) == set(whole.test_scores) | epochs
    assert whole.chosen_epoch is not None
    for rule, epoch in (("last", 3), ("chosen", whole.chosen_epoch)):
        np.testing.assert_array_equal(kept.test_scores[f"epoch_{epoch}"], whole.test_scores[rule])
    assert not np.array_equal(kept.test_scores["epoch_1"], kept.test_scores["epoch_2"])
    np.testing.assert_array_equal(kept.test_scores["epoch_2"], first.test_scores["last"])
    with pytest.raises(UsageError, match="keep_scores 'some' is not known; expected ends, all"):
        Trainer(SMALL, demo_store, keep_scores="some")  # type: ignore[arg-type]


def test_learning_rate_is_that_of_pytorchs_scheduler() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 4e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
    for epoch in range(50):
        assert learning_rate_at(epoch, 4e-4, 60) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_training_learns_the_labels_it_is_given(demo_store: FeatureStore) -> None:
    config = SMALL.replace(epochs=15, learning_rate=5e-3, contrast=False, distill=False)
    trainer = train(Trainer(config, demo_store, threads=1))
    assert trainer.history[-1]["loss_mil"] < 0.6 * trainer.history[0]["loss_mil"]


@pytest.mark.parametrize(("contrast", "distill"), [(False, False), (False, True), (True, False)])
def test_what_a_configuration_does_not_have_is_null(
    contrast: bool, distill: bool, demo_store: FeatureStore
) -> None:
    trainer = Trainer(SMALL.replace(contrast=contrast, distill=distill), demo_store, threads=1)
    metrics = trainer.train_epoch()
    assert (metrics["loss_v2b"] is None, metrics["loss_v2n"] is None) == (not contrast, not contrast)
    assert (metrics["loss_visual"] is None, metrics["visual_ap"] is None) == (not distill, not distill)
    assert {"chosen", "last"} <= set(trainer.test_scores)
    assert ("visual_last" in trainer.test_scores) == distill


def test_published_measures_the_test_set_and_selects_by_it(demo_store: FeatureStore) -> None:
    trainer = train(Trainer(SMALL, demo_store, threads=1))
    aps = [metrics["ap_trapezoid"] for metrics in trainer.history]
    assert [metrics["selection_score"] for metrics in trainer.history] == np.maximum.accumulate(aps).tolist()
    assert trainer.chosen_epoch == int(np.argmax(aps)) + 1
    assert all(metrics["heldout_ap"] is None for metrics in trainer.history)
    labels = demo_store.test_labels().frame_labels
    chosen = frame_average_precision(trainer.test_scores["chosen"], labels)
    assert chosen.ap_trapezoid == max(aps)


def test_heldout_and_refit_never_open_the_test_labels(
    demo_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FeatureStore) -> None:
        raise AssertionError("test labels were opened")

    monkeypatch.setattr(FeatureStore, "test_labels", refuse)
    for protocol in ("heldout", "refit"):
        metrics = Trainer(SMALL, demo_store, protocol=protocol, threads=1).train_epoch()
        assert metrics["ap"] is metrics["ap_trapezoid"] is metrics["visual_ap"] is None
        assert (metrics["selection_score"] is None) == (protocol == "refit")


def test_refit_trains_on_every_training_video(demo_store: FeatureStore) -> None:
    heldout = Trainer(SMALL, demo_store, protocol="heldout", threads=1).engine.bags
    refit = Trainer(SMALL, demo_store, protocol="refit", threads=1).engine.bags
    assert len(heldout) < len(refit) == len(demo_store.videos("train").names) * demo_store.crops


def test_a_diverged_training_names_its_epoch(demo_store: FeatureStore) -> None:
    trainer = Trainer(SMALL, demo_store, threads=1)
    trainer.train_epoch()
    with torch.no_grad():
        trainer.network.fc_v.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="epoch 2"):
        trainer.train_epoch()
    assert len(trainer.history) == 1


def test_constant_scores_are_no_result(demo_store: FeatureStore) -> None:
    trainer = Trainer(SMALL.replace(distill=False, learning_rate=1e-12), demo_store, threads=1)
    with torch.no_grad():
        trainer.network.head_v.weight.zero_()
    with pytest.raises(DivergedError, match="every score"):
        trainer.train_epoch()


def test_a_checkpoint_of_another_training_is_refused_by_name(demo_store: FeatureStore) -> None:
    state = Trainer(SMALL, demo_store, threads=1).state_dict()
    with pytest.raises(DataError, match="protocol: the checkpoint has published"):
        Trainer(SMALL, demo_store, protocol="heldout", threads=1).load_state_dict(state)
    with pytest.raises(DataError, match="config"):
        Trainer(SMALL.replace(ramp=0.3), demo_store, threads=1).load_state_dict(state)


def test_a_record_runs_the_training_again_and_refuses_other_data(
    whole: Trainer, demo_store: FeatureStore
) -> None:
    record = json.loads(json.dumps(whole.record()))
    assert digits(train(trainer_from_record(record, demo_store)).history) == digits(whole.history)
    with pytest.raises(DataError, match="content hash"):
        trainer_from_record({**record, "store_hash": "0"}, demo_store)
    with pytest.raises(DataError, match="split"):
        trainer_from_record({**record, "split_hash": "0"}, demo_store)
    with pytest.raises(DataError, match="format_version is 99"):
        trainer_from_record({**record, "format_version": 99}, demo_store)
    with pytest.raises(DataError, match="lacks"):
        trainer_from_record({}, demo_store)


@pytest.mark.parametrize("threads", [-1, 0, 1025, 2**63, 10**400])
def test_threads_beyond_any_machine_are_refused_in_a_record_too(
    threads: int, whole: Trainer, demo_store: FeatureStore
) -> None:
    with pytest.raises(
        UsageError, match=r"threads = .* is not allowed: expected a whole number from 1 to 1024"
    ):
        trainer_from_record({**whole.record(), "threads": threads}, demo_store)


def test_resuming_on_other_threads_is_written_down(whole: Trainer, demo_store: FeatureStore) -> None:
    resumed = Trainer(SMALL, demo_store, protocol="heldout", threads=2)
    resumed.load_state_dict(whole.state_dict())
    assert [before["threads"] for before in resumed.record()["resumed_from"]] == [1]


def test_the_network_of_a_checkpoint_scores_as_it_did(
    whole: Trainer, demo_store: FeatureStore, tmp_path: Path
) -> None:
    save_checkpoint(whole, tmp_path / "last.pt")
    scores = score_videos(load_network(tmp_path / "last.pt"), demo_store, demo_store.videos("test"))
    np.testing.assert_array_equal(scores.snippets, whole.test_scores["last"])


@pytest.mark.parametrize("damage", ["truncate", "garbage", "foreign", "missing"])
def test_a_damaged_checkpoint_is_named(damage: str, whole: Trainer, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(whole, path)
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "garbage":
        path.write_bytes(b"not a checkpoint")
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(2)}, path)
    else:
        path.unlink()
    with pytest.raises(DataError, match=str(path)):
        load_checkpoint(path)


@pytest.mark.parametrize("precision", ["bf16"])
def test_bf16_autocast_trains_close_to_fp32(precision: str, demo_store: FeatureStore) -> None:
    exact = train(Trainer(SMALL, demo_store, threads=1), 1).history[0]
    rounded = Trainer(SMALL, demo_store, precision=precision, threads=1).train_epoch()  # type: ignore[arg-type]
    assert rounded["loss_mil"] == pytest.approx(exact["loss_mil"], rel=0.02)
    assert rounded["loss_mil"] != exact["loss_mil"]


def test_impossible_requests_are_refused_by_name(demo_store: FeatureStore) -> None:
    with pytest.raises(UsageError, match="protocol 'x'"):
        Trainer(SMALL, demo_store, protocol="x")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="device 'tpu'"):
        Trainer(SMALL, demo_store, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no GPU here"):
            Trainer(SMALL, demo_store, device="cuda")
    done = train(Trainer(SMALL.replace(epochs=1), demo_store, threads=1))
    with pytest.raises(UsageError, match="all 1 epochs are done"):
        done.train_epoch()
