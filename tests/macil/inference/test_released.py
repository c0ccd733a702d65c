"""Parity with the authors' released code: recorded figures, and weights in both directions."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from macil.config import TrialConfig
from macil.errors import ConfigError, DataError
from macil.inference.released import load_released, load_released_visual, to_released
from macil.model import TwoStreamNetwork, VisualNetwork, parameter_counts
from macil.objective import contrastive_terms, mil_loss, objective, select_semi_bags
from macil.training.distillation import infuse, momentum_at
from macil.training.trainer import learning_rate_at
from tests.support import golden_inputs, literal
from tests.support.weights import literal_gradients, randomise

FIGURES = golden_inputs.figures()
# In epoch 10 the weights have reached their maxima: the total of the figures, 0.7 and 0.4 times the two pairs.
WEIGHTED = TrialConfig(lambda_v2b=0.7, lambda_v2n=0.4, ramp=0.1)
WEIGHTED_EPOCH = 10
WIDTHS = pytest.mark.parametrize("width", [None, 200], ids=["cut to the longest", "fixed shape"])


def tensors(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in weights.items()}


def batch(width: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The recorded batch, as wide as its longest video or padded with zeros to `width`."""
    visual, audio, lengths, labels = (torch.from_numpy(array) for array in golden_inputs.training_batch())
    if width is not None:
        more = (0, 0, 0, width - visual.shape[1])
        visual, audio = (nn.functional.pad(x, more) for x in (visual, audio))
    return visual, audio, lengths, labels


def networks() -> tuple[TwoStreamNetwork, VisualNetwork]:
    audio_visual = load_released(tensors(golden_inputs.two_stream_weights()))
    return audio_visual, load_released_visual(tensors(golden_inputs.visual_weights()))


def close(expected: Any) -> Any:
    """To 1e-5, relative where the figure is large."""
    return pytest.approx(expected, rel=1e-5, abs=1e-5)


# --- figures ------------------------------------------------------------------------------------------------


@WIDTHS
def test_probabilities_losses_and_terms_are_the_recorded_ones(width: int | None) -> None:
    visual, audio, lengths, labels = batch(width)
    audio_visual, visual_network = networks()
    with torch.no_grad():
        output = audio_visual(visual, audio, lengths)
        taught = visual_network(visual, lengths)
    p = torch.sigmoid(output.video_logits)
    assert p.tolist() == close(FIGURES["probabilities"])
    assert (p > 0.5).sum() == FIGURES["violent"]
    assert mil_loss(output.video_logits, labels).item() == close(FIGURES["bce"])
    assert mil_loss(taught.video_logits, labels).item() == close(FIGURES["bce_visual"])
    config = TrialConfig()
    semi_bags = select_semi_bags(output, config)
    terms = contrastive_terms(output.video_logits, output.lengths, *semi_bags, config, config.temperature)
    assert {name: term.item() for name, term in terms._asdict().items()} == close(FIGURES["terms"])


@WIDTHS
def test_gradients_are_the_recorded_ones(width: int | None) -> None:
    visual, audio, lengths, labels = batch(width)
    audio_visual, visual_network = networks()
    total, _ = objective(audio_visual(visual, audio, lengths), labels, WEIGHTED, WEIGHTED_EPOCH)
    (total + mil_loss(visual_network(visual, lengths).video_logits, labels)).backward()
    for network, key in ((audio_visual, "gradient_norms"), (visual_network, "gradient_norms_visual")):
        norms = {name: gradient.norm().item() for name, gradient in literal_gradients(network).items()}
        assert norms == close(FIGURES[key])


@pytest.mark.parametrize("fused", [False, True])
def test_three_steps_of_adam_and_one_infusion_give_the_recorded_weights(fused: bool) -> None:
    visual, audio, lengths, labels = batch(None)
    audio_visual, visual_network = networks()
    optimisers = [
        torch.optim.Adam(audio_visual.parameters(), lr=4e-4, fused=fused),
        torch.optim.Adam(visual_network.parameters(), lr=8e-5, fused=fused),
    ]
    for expected in FIGURES["steps"]:
        total, _ = objective(audio_visual(visual, audio, lengths), labels, WEIGHTED, WEIGHTED_EPOCH)
        taught = mil_loss(visual_network(visual, lengths).video_logits, labels)
        assert [total.item(), taught.item()] == close(expected)
        for optimiser in optimisers:
            optimiser.zero_grad()
        (total + taught).backward()
        for optimiser in optimisers:
            optimiser.step()
    infuse(audio_visual, visual_network, 0.93)
    norms = {name: weight.norm().item() for name, weight in to_released(audio_visual).items()}
    expected = {name: norm for name, norm in FIGURES["infused_norms"].items() if not _is_unused(name)}
    assert len(expected) == 22
    # A key bias adds the same to all scores of a query, which the softmax takes away: its gradient is rounding
    # error, and Adam makes steps of full size of it. It can be anywhere that three steps lead to.
    key_bias = "cma.layer.self_attn.linears.1.bias"
    reach = 128**0.5 * 3 * (0.93 * 4e-4 + 0.07 * 8e-5)
    assert norms[key_bias] == pytest.approx(expected.pop(key_bias), abs=reach)
    assert {name: norms[name] for name in expected} == close(expected)


def test_schedules_are_the_recorded_ones() -> None:
    epochs = range(0, 51, 5)
    assert [momentum_at(epoch, 0.91) for epoch in epochs] == close(FIGURES["momentum"])
    assert [literal.momentum_at(epoch, 0.91, 50) for epoch in epochs] == close(FIGURES["momentum"])
    rates = [rate / 4e-4 for rate in FIGURES["learning_rate"]]
    assert [learning_rate_at(epoch, 4e-4) / 4e-4 for epoch in epochs] == close(rates)
    assert [literal.learning_rate_at(epoch, 4e-4, 60) / 4e-4 for epoch in epochs] == close(rates)


def test_a_test_video_scores_as_recorded() -> None:
    visual, audio = (torch.from_numpy(array) for array in golden_inputs.five_crop_video())
    audio_visual, _ = networks()
    with torch.no_grad():
        output = audio_visual(visual, audio.expand(5, -1, -1))
    assert torch.sigmoid(output.fused_logits).mean(0).tolist() == close(FIGURES["crop_scores"])


@pytest.mark.parametrize("network_class", [TwoStreamNetwork, VisualNetwork])
def test_initial_projections_are_identical_as_recorded(network_class: Any) -> None:
    weights = to_released(network_class(TrialConfig()))
    for kind in ("weight", "bias"):
        first, *others = (weights[f"cma.layer.self_attn.linears.{i}.{kind}"] for i in range(4))
        assert all(torch.equal(first, other) for other in others) == FIGURES["initial_projections_identical"]


def test_the_literal_formulas_give_the_recorded_figures_too() -> None:
    visual, audio, lengths, labels = batch(None)
    weights = [
        {name: value.double().requires_grad_() for name, value in tensors(arrays).items()}
        for arrays in (golden_inputs.two_stream_weights(), golden_inputs.visual_weights())
    ]
    output = literal.two_stream(weights[0], visual.double(), audio.double(), lengths)
    assert torch.sigmoid(output.video_logits).tolist() == close(FIGURES["probabilities"])
    terms = literal.contrastive_terms(output)
    assert {name: term.item() for name, term in terms._asdict().items()} == close(FIGURES["terms"])
    bce = literal.mil_loss(output.video_logits, labels)
    total = (
        bce
        + 0.7 * (terms.a2v_background + terms.v2a_background)
        + 0.4 * (terms.a2v_normal + terms.v2a_normal)
    )
    _, video_logits = literal.visual_only(weights[1], visual.double(), lengths)
    taught = literal.mil_loss(video_logits, labels)
    assert [bce.item(), taught.item()] == close([FIGURES["bce"], FIGURES["bce_visual"]])
    (total + taught).backward()
    for tree, key in zip(weights, ("gradient_norms", "gradient_norms_visual"), strict=True):
        norms = {name: value.grad.norm().item() for name, value in tree.items() if value.grad is not None}
        assert norms == close(FIGURES[key])


# --- weights ------------------------------------------------------------------------------------------------


def test_released_weights_survive_the_way_in_and_out() -> None:
    pairs = (
        (golden_inputs.two_stream_weights(), load_released, TwoStreamNetwork),
        (golden_inputs.visual_weights(), load_released_visual, VisualNetwork),
    )
    for arrays, load, network_class in pairs:
        network = load(tensors(arrays))
        assert type(network) is network_class
        assert not network.training
        assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
        exported = to_released(network)
        for name, array in arrays.items():
            if not _is_unused(name):
                np.testing.assert_array_equal(exported[name].numpy(), array)


@pytest.mark.parametrize("visual_network", [False, True])
@pytest.mark.parametrize("hidden", [64, 128])
def test_the_export_loads_strictly_under_the_authors_names(visual_network: bool, hidden: int) -> None:
    config = TrialConfig(hidden_dim=hidden)
    network = VisualNetwork(config) if visual_network else TwoStreamNetwork(config)
    exported = to_released(network)
    shapes = golden_inputs.released_shapes(visual_network=visual_network, hidden=hidden)
    assert {name: tuple(value.shape) for name, value in exported.items()} == shapes
    skeleton = _module_with(shapes)
    skeleton.load_state_dict(exported, strict=True)
    published = parameter_counts(config).parameters_published
    light = parameter_counts(config.replace(distill=False)).parameters_published
    counted = sum(parameter.numel() for parameter in skeleton.parameters())
    assert counted == (published - light if visual_network else light)
    assert all(torch.isfinite(value).all() for value in exported.values())


def test_our_weights_survive_the_way_out_and_in(tmp_path: Path) -> None:
    config = TrialConfig(hidden_dim=8, num_heads=2, feedforward_dim=6)
    visual, audio, lengths = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(1)), None, None
    audio, lengths = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(2)), torch.tensor([9, 4])
    audio_visual, visual_network = TwoStreamNetwork(config, 7, 5), VisualNetwork(config, 7)
    randomise(audio_visual, 1)
    randomise(visual_network, 2)
    expected = audio_visual.eval()(visual, audio, lengths)
    taught = visual_network.eval()(visual, lengths)

    torch.save(to_released(audio_visual), tmp_path / "audio-visual.pkl")
    torch.save(to_released(visual_network), tmp_path / "visual.pkl")
    for source in (
        tmp_path / "audio-visual.pkl",
        str(tmp_path / "audio-visual.pkl"),
        to_released(audio_visual),
    ):
        output = load_released(source, num_heads=2)(visual, audio, lengths)
        torch.testing.assert_close(output.fused_logits, expected.fused_logits, rtol=0, atol=1e-6)
        torch.testing.assert_close(output.video_logits, expected.video_logits, rtol=0, atol=1e-6)
    output = load_released_visual(tmp_path / "visual.pkl", num_heads=2)(visual, lengths)
    torch.testing.assert_close(output.logits, taught.logits, rtol=0, atol=1e-6)


def test_the_export_is_a_copy() -> None:
    network = TwoStreamNetwork(TrialConfig(hidden_dim=8, num_heads=2), 7, 5)
    before = network.fc_v.weight.detach().clone()
    to_released(network)["fc_v.weight"].zero_()
    assert torch.equal(network.fc_v.weight, before)


def test_the_number_of_heads_changes_the_result_and_must_fit() -> None:
    visual, audio, lengths, _ = batch(None)
    weights = tensors(golden_inputs.two_stream_weights())
    with torch.no_grad():
        four, two = (load_released(weights, num_heads=n)(visual, audio, lengths).video_logits for n in (4, 2))
    assert (four - two).abs().max() > 1e-3
    with pytest.raises(ConfigError, match="num_heads = 3"):
        load_released(weights, num_heads=3)


def test_unused_modules_may_be_absent_and_a_parallel_prefix_is_taken_off() -> None:
    weights = tensors(golden_inputs.two_stream_weights())
    trimmed = {f"module.{name}": value for name, value in weights.items() if not _is_unused(name)}
    one, other = load_released(weights), load_released(trimmed)
    assert len(trimmed) < len(weights)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("visual_network", [False, True])
def test_any_missing_tensor_is_refused_by_name(visual_network: bool) -> None:
    load = load_released_visual if visual_network else load_released
    weights = tensors(_small(visual_network))
    load(weights, num_heads=2)
    used = [name for name in weights if not _is_unused(name)]
    assert used
    for name in used:
        with pytest.raises(DataError) as caught:
            load({other: value for other, value in weights.items() if other != name}, num_heads=2)
        assert name in str(caught.value)


@pytest.mark.parametrize("visual_network", [False, True])
def test_any_misshapen_tensor_is_refused_by_name(visual_network: bool) -> None:
    load = load_released_visual if visual_network else load_released
    weights = tensors(_small(visual_network))
    used = [name for name in weights if not _is_unused(name)]
    assert used
    for name in used:
        for wrong in (weights[name][None], torch.cat([weights[name], weights[name]]), torch.tensor(1.0)):
            with pytest.raises(DataError) as caught:
                load({**weights, name: wrong}, num_heads=2)
            if name not in ("fc_v.weight", "cma.layer.feed_forward.w_1.weight"):  # these two set the widths
                assert name in str(caught.value)
                assert str(tuple(wrong.shape)) in str(caught.value)


def test_an_unknown_tensor_is_refused_by_name_and_all_faults_are_told_at_once() -> None:
    weights = tensors(_small(False))
    with pytest.raises(DataError, match="surprise"):
        load_released({**weights, "surprise.weight": torch.ones(2)}, num_heads=2)
    broken = {**weights, "surprise": torch.ones(2), "att_mmil.fc.weight": torch.ones(3, 8)}
    del broken["fc_a.bias"]
    with pytest.raises(DataError) as caught:
        load_released(broken, num_heads=2)
    for part in ("surprise", "att_mmil.fc.weight", "(3, 8)", "(1, 8)", "fc_a.bias"):
        assert part in str(caught.value)


def test_either_network_is_refused_as_the_other() -> None:
    with pytest.raises(DataError, match=r"fc_a\.weight"):
        load_released(tensors(golden_inputs.visual_weights()))
    with pytest.raises(DataError, match=r"fc_a\.weight"):
        load_released_visual(tensors(golden_inputs.two_stream_weights()))


@pytest.mark.parametrize(
    "value", [{}, {"fc_v.weight": 3}, [1, 2], {"fc_v.weight": torch.ones(3)}, {1: torch.ones(3)}]
)
def test_what_is_no_table_of_tensors_is_refused(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "weights.pkl")
    with pytest.raises(DataError):
        load_released(value)
    with pytest.raises(DataError):
        load_released(tmp_path / "weights.pkl")


class _Trap:
    """Runs a command when unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def test_a_file_that_holds_more_than_tensors_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    trap = {**tensors(_small(False)), "trap": _Trap(f"touch {tmp_path}/sprung")}
    torch.save(trap, tmp_path / "zip.pkl")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(trap, protocol=2))
    for name in ("zip.pkl", "plain.pkl"):
        with pytest.raises(DataError, match=name):
            load_released(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"not a weight file", b"PK\x03\x04broken", b"\x80\x02}q\x00."])
def test_an_unreadable_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pkl").write_bytes(content)
    with pytest.raises(DataError):
        load_released(tmp_path / "weights.pkl")


def test_truncated_missing_and_folder_are_refused_by_name(tmp_path: Path) -> None:
    torch.save(tensors(_small(False)), tmp_path / "whole.pkl")
    whole = (tmp_path / "whole.pkl").read_bytes()
    (tmp_path / "half.pkl").write_bytes(whole[: len(whole) // 2])
    for name in ("half.pkl", "missing.pkl", "."):
        with pytest.raises(DataError, match=name.replace(".", r"\.") if name != "." else tmp_path.name):
            load_released(tmp_path / name)


def test_separate_heads_cannot_be_exported() -> None:
    with pytest.raises(DataError, match="shared_head"):
        to_released(TwoStreamNetwork(TrialConfig(hidden_dim=8, num_heads=2, shared_head=False), 7, 5))


def _is_unused(name: str) -> bool:
    return name.startswith(("multiheadattn.", "feedforward.", "cma.layer.self_attn.layer_norm."))


def _small(visual_network: bool) -> dict[str, np.ndarray[Any, Any]]:
    """Released weights of a network 8 wide."""
    shapes = golden_inputs.released_shapes(visual_network=visual_network, hidden=8, feed_forward=6)
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _module_with(shapes: Mapping[str, Iterable[int]]) -> nn.Module:
    """A module tree with exactly these parameters."""
    root = nn.Module()
    for name, shape in shapes.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_parameter(last, nn.Parameter(torch.zeros(tuple(shape))))
    return root


@pytest.mark.parametrize("change", ["to_sparse", "int"])
def test_weights_that_are_no_plain_numbers_are_refused_by_name(change: str) -> None:
    weights = to_released(TwoStreamNetwork(TrialConfig()))
    name = next(name for name in weights if name.endswith(".weight"))
    weights[name] = getattr(weights[name], change)()
    with pytest.raises(DataError, match=rf"no plain tensors of floating-point numbers:\n.*{re.escape(name)}"):
        load_released(weights)
