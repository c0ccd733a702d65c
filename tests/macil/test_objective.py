"""The vectorised objective against its literal version (values and gradients, float64), and its promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from macil.config import TrialConfig
from macil.errors import DataError
from macil.loss_weights import ramp_weight
from macil.model import NetworkOutput, bottom_k_of_batch, k_max_mean, selected_count
from macil.objective import (
    ContrastiveTerms,
    bottom_k,
    contrastive_terms,
    mil_loss,
    objective,
    select_semi_bags,
    top_k,
)
from tests.support import literal

TESTED = settings(max_examples=150, deadline=None, derandomize=True)
LENGTHS = st.lists(st.sampled_from([1, 2, 3, 15, 16, 17, 31, 32, 33, 47, 50]), min_size=1, max_size=5)
MOODS = st.sampled_from(["mixed", "mixed", "mixed", "violent", "normal", "undecided"])
SWITCHES = st.fixed_dictionaries(
    {
        "stream_swap": st.booleans(),
        "bag_weighting": st.sampled_from(["video", "snippet"]),
        "background_pool": st.sampled_from(["video", "batch"]),
        "temperature": st.sampled_from([0.05, 0.1, 0.5, 2.0]),
    }
)


def make_output(
    lengths: Sequence[int],
    *,
    seed: int = 0,
    padding: int = 0,
    levels: int = 0,
    mood: str = "mixed",
    d: int = 5,
) -> NetworkOutput:
    """A network's output made by hand, in float64, with gradients.

    `levels` > 0 draws logits from a few values (ties everywhere); padding holds the most tempting ones.
    """
    rng = np.random.default_rng(seed)
    shape = (len(lengths), max(lengths) + padding)

    def draw(*size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        return rng.integers(-levels, levels + 1, size) / 4 if levels else rng.normal(0, 1.5, size)

    logits = [draw(*shape) for _ in range(3)]
    for array in logits:
        for video, length in enumerate(lengths):
            array[video, length:] = rng.choice([-99.0, 99.0], shape[1] - length)
    p = {
        "mixed": draw(len(lengths)),
        "violent": np.abs(draw(len(lengths))) + 0.01,
        "normal": -np.abs(draw(len(lengths))),
        "undecided": np.zeros(len(lengths)),
    }[mood]
    arrays = (*rng.normal(0, 1, (2, *shape, d)), *logits, p)
    v, a, l_v, l_a, fused, pooled = (torch.tensor(array, requires_grad=True) for array in arrays)
    return NetworkOutput(v, a, l_v, l_a, fused, pooled, torch.tensor(lengths))


def converted(output: NetworkOutput, to: torch.dtype | str) -> NetworkOutput:
    """The same output in another dtype or on another device, as new leaves."""
    v, a, l_v, l_a, fused, pooled = (x.detach().to(to).requires_grad_() for x in output[:-1])
    lengths = output.lengths.to(to) if isinstance(to, str) else output.lengths
    return NetworkOutput(v, a, l_v, l_a, fused, pooled, lengths)


def terms_of(output: NetworkOutput, config: TrialConfig) -> ContrastiveTerms:
    """The four terms of a network's output."""
    semi_bags = select_semi_bags(output, config)
    return contrastive_terms(output.video_logits, output.lengths, *semi_bags, config, config.temperature)


def gradients(loss: Tensor, output: NetworkOutput) -> list[Tensor]:
    leaves = list(output[:-1])
    if not loss.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))


def assert_equal(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def assert_same(ours: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for one, other in zip(ours, expected, strict=True):
        assert_equal(one, other)


batches = st.fixed_dictionaries(
    {
        "lengths": LENGTHS,
        "seed": st.integers(0, 2**20),
        "padding": st.sampled_from([0, 1, 20]),
        "levels": st.sampled_from([0, 1, 3]),
        "mood": MOODS,
    }
)


@TESTED
@given(batches, SWITCHES)
def test_contrastive_terms_equal_the_literal_ones_in_value_and_gradient(
    batch: dict[str, Any], switches: dict[str, Any]
) -> None:
    output = make_output(**batch)
    ours = terms_of(output, TrialConfig(**switches))
    expected = literal.contrastive_terms(literal.Output(*output), **switches)
    assert_same(ours, expected)
    # Unequal weights, so that a gradient cannot hide in the wrong term.
    weighted, by_hand = (t[0] + 2 * t[1] + 3 * t[2] + 5 * t[3] for t in (ours, expected))
    assert_same(gradients(weighted, output), gradients(by_hand, output))


@TESTED
@given(batches, SWITCHES, st.booleans(), st.integers(0, 40), st.integers(0, 2**5 - 1))
def test_the_total_equals_equation_8_in_value_and_gradient(
    batch: dict[str, Any], switches: dict[str, Any], contrast: bool, epoch: int, label_bits: int
) -> None:
    output = make_output(**batch)
    labels = torch.tensor([float(label_bits >> i & 1) for i in range(len(batch["lengths"]))])
    weights = {"ramp": 0.07, "lambda_v2b": 1.3, "lambda_v2n": 0.4}
    config = TrialConfig(contrast=contrast, **weights, **switches)
    total, parts = objective(output, labels, config, epoch)
    expected = literal.total_loss(
        literal.Output(*output), labels.double(), epoch, contrast=contrast, **weights, **switches
    )
    assert_equal(total, expected)
    assert_same(gradients(total, output), gradients(expected, output))

    assert set(parts) == {"loss_mil", "loss_v2b", "loss_v2n"}
    terms = literal.contrastive_terms(literal.Output(*output), **switches)
    v2b, v2n = terms.a2v_background + terms.v2a_background, terms.a2v_normal + terms.v2a_normal
    assert_equal(parts["loss_mil"], literal.mil_loss(output.video_logits, labels))
    assert_equal(parts["loss_v2b"], v2b if contrast else 0 * v2b)
    assert_equal(parts["loss_v2n"], v2n if contrast else 0 * v2n)


@TESTED
@given(batches)
def test_selections_take_the_lowest_index_of_ties_and_never_padding(batch: dict[str, Any]) -> None:
    output = make_output(**batch)
    logits, lengths = output.audio_logits, output.lengths
    for select, by_hand in ((top_k, literal.highest), (bottom_k, literal.lowest)):
        indices, valid = select(logits, lengths)
        for video, length in enumerate(batch["lengths"]):
            expected = by_hand(logits[video, :length].tolist(), literal.bag_size(length))
            assert indices[video][valid[video]].tolist() == expected
    assert selected_count(lengths).tolist() == [literal.bag_size(length) for length in batch["lengths"]]

    indices, valid = bottom_k_of_batch(logits, lengths)
    width = logits.shape[1]
    positions = [(video, i) for video, length in enumerate(batch["lengths"]) for i in range(length)]
    values = [logits[position].item() for position in positions]
    chosen = literal.lowest(values, int(selected_count(lengths).sum()))
    assert indices[valid].tolist() == [positions[i][0] * width + positions[i][1] for i in chosen]


@TESTED
@given(batches)
def test_k_max_pooling_equals_the_literal_one_in_value_and_gradient(batch: dict[str, Any]) -> None:
    output = make_output(**batch)
    ours = k_max_mean(output.fused_logits, output.lengths)
    rows = zip(output.fused_logits, batch["lengths"], strict=True)
    expected = torch.stack([literal.video_logit(row, length) for row, length in rows])
    assert_equal(ours, expected)
    weights = torch.arange(1.0, len(ours) + 1)
    assert_same(gradients((ours * weights).sum(), output), gradients((expected * weights).sum(), output))


@pytest.mark.parametrize("switch", ["stream_swap", "bag_weighting", "background_pool"])
def test_every_switch_changes_the_terms(switch: str) -> None:
    output = make_output([50, 3, 33, 16], seed=4)
    changed = TrialConfig(fidelity="paper").to_dict()[switch]
    one = torch.stack(terms_of(output, TrialConfig()))
    other = torch.stack(terms_of(output, TrialConfig(**{switch: changed})))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("fidelity", ["released", "paper"])
@pytest.mark.parametrize(
    "mood_and_lengths",
    [("violent", [33, 1]), ("normal", [33, 1]), ("violent", [1]), ("normal", [20]), ("mixed", [1, 1])],
)
def test_degenerate_batches_give_finite_losses_and_gradients(
    fidelity: Literal["released", "paper"], mood_and_lengths: tuple[str, list[int]]
) -> None:
    mood, lengths = mood_and_lengths
    for dtype in (torch.float64, torch.float32):
        made = make_output(lengths, mood=mood, padding=3)
        output = converted(made, dtype)
        total, parts = objective(output, torch.ones(len(lengths)), TrialConfig(fidelity=fidelity), epoch=30)
        assert all(torch.isfinite(value) for value in (total, *parts.values()))
        assert all(torch.isfinite(gradient).all() for gradient in gradients(total, output))
        if mood in ("violent", "normal"):
            assert parts["loss_v2b"] == parts["loss_v2n"] == 0
            torch.testing.assert_close(total, parts["loss_mil"])


@pytest.mark.parametrize("field", [*NetworkOutput._fields, "labels"])
def test_shapes_that_disagree_are_refused_and_not_broadcast(field: str) -> None:
    bags, snippets, width = 3, 5, 4
    many = torch.ones(bags, snippets, width)
    logits = torch.ones(bags, snippets)
    output = NetworkOutput(many, many, logits, logits, logits, logits[:, 0], torch.full((bags,), snippets))
    labels = torch.ones(bags)
    objective(output, labels, TrialConfig(), epoch=0)
    if field == "labels":
        labels = labels[:1]
    else:
        output = output._replace(**{field: getattr(output, field)[:1]})
    with pytest.raises(DataError, match="these shapes disagree: "):
        objective(output, labels, TrialConfig(), epoch=0)


def test_embeddings_of_zero_norm_do_not_make_nan() -> None:
    made = make_output([20, 20], seed=1)
    p = torch.tensor([1.0, -1.0], dtype=torch.float64, requires_grad=True)
    output = made._replace(
        visual_embeddings=torch.zeros_like(made.visual_embeddings).requires_grad_(), video_logits=p
    )
    total, _ = objective(output, torch.tensor([1.0, 0.0]), TrialConfig(), epoch=20)
    assert torch.isfinite(total)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(total, output))


def test_a_cold_temperature_does_not_overflow() -> None:
    output = make_output([20, 20], seed=1)
    output = output._replace(video_logits=torch.tensor([1.0, -1.0], dtype=torch.float64, requires_grad=True))
    single = converted(output, torch.float32)
    for each in (output, single):
        total, _ = objective(each, torch.tensor([1.0, 0.0]), TrialConfig(temperature=0.005), epoch=20)
        assert torch.isfinite(total)
        assert all(torch.isfinite(gradient).all() for gradient in gradients(total, each))


def test_confident_wrong_predictions_keep_a_finite_loss() -> None:
    logits = torch.tensor([800.0, -800.0], requires_grad=True)
    loss = mil_loss(logits, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(loss, torch.tensor(800.0))
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_whole_number_labels_are_labels_too() -> None:
    logits = torch.tensor([0.3, -2.0])
    expected = mil_loss(logits, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(mil_loss(logits, torch.tensor([1, 0])), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_are_compared_in_float32(dtype: torch.dtype) -> None:
    made = make_output([33, 20, 40], seed=2)
    half = converted(made, dtype)
    rounded = converted(half, torch.float64)
    total, _ = objective(half, torch.tensor([1, 0, 1]), TrialConfig(), epoch=20)
    expected, _ = objective(rounded, torch.tensor([1, 0, 1]), TrialConfig(), epoch=20)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fidelity", ["released", "paper"])
def test_autocast_does_not_reach_the_losses(fidelity: Literal["released", "paper"]) -> None:
    output = converted(make_output([33, 20, 40], seed=2), torch.float32)
    labels, config = torch.tensor([1, 0, 1]), TrialConfig(fidelity=fidelity)
    expected, _ = objective(output, labels, config, epoch=20)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = objective(output, labels, config, epoch=20)
    assert torch.equal(total, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_does_not_round_a_weak_violent_video_to_normal(dtype: torch.dtype) -> None:
    made = make_output([33, 20], seed=2)
    output = converted(made._replace(video_logits=torch.tensor([1e-4, -1.0])), dtype)
    assert torch.sigmoid(output.video_logits[0]) == 0.5  # half precision alone cannot tell
    _, parts = objective(output, torch.tensor([1, 0]), TrialConfig(), epoch=20)
    assert parts["loss_v2b"] > 0


@pytest.mark.parametrize(
    ("epoch", "ramp", "maximum", "expected"),
    [
        (0, 0.1, 1.5, 0.0),
        (7, 0.1, 1.5, 0.7),
        (15, 0.1, 1.5, 1.5),
        (49, 0.1, 1.5, 1.5),
        (3, 0.0, 1.5, 0.0),
        (1, 5.0, 0.2, 0.2),
    ],
)
def test_the_weight_grows_by_the_ramp_from_epoch_zero(
    epoch: int, ramp: float, maximum: float, expected: float
) -> None:
    assert ramp_weight(epoch, ramp, maximum) == pytest.approx(expected, abs=1e-15)
    assert ramp_weight(epoch, ramp, maximum) == literal.ramp_weight(epoch, ramp, maximum)


def test_short_runs_cannot_tell_large_weights_apart() -> None:
    output, labels = make_output([33, 20, 40], seed=2), torch.tensor([1.0, 0.0, 1.0])
    one, three_halves = TrialConfig(lambda_v2b=1.0, lambda_v2n=1.0), TrialConfig()
    for epoch in range(11):
        assert torch.equal(
            objective(output, labels, one, epoch)[0], objective(output, labels, three_halves, epoch)[0]
        )
    assert not torch.equal(
        objective(output, labels, one, 11)[0], objective(output, labels, three_halves, 11)[0]
    )


@pytest.mark.parametrize(
    "switch", ["num_heads", "hidden_dim", "shared_head", "mask_padding", "dropout_everywhere"]
)
def test_nothing_of_the_network_reaches_the_objective(switch: str) -> None:
    other = {
        "num_heads": 2,
        "hidden_dim": 64,
        "shared_head": False,
        "mask_padding": True,
        "dropout_everywhere": True,
    }
    output, labels = make_output([33, 20], seed=2), torch.tensor([1.0, 0.0])
    total, _ = objective(output, labels, TrialConfig(), 12)
    assert torch.equal(total, objective(output, labels, TrialConfig(**{switch: other[switch]}), 12)[0])


class Operations(TorchDispatchMode):
    """Counts what reaches the dispatcher and refuses whatever waits for a value."""

    WAITING = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "is_nonzero",
        "_unique2",
        "unique_dim",
        "equal",
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.WAITING, f"{name} makes the host wait for the device"
        self.counts[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("fidelity", ["released", "paper"])
def test_the_number_of_operations_does_not_depend_on_the_batch(
    fidelity: Literal["released", "paper"],
) -> None:
    counts = []
    for lengths in ([50, 3, 33], [50, 20, 3, 33, 1, 16, 50, 2, 40, 41, 42, 43]):
        output = make_output(lengths, seed=1)
        labels = torch.ones(len(lengths))
        with Operations() as operations:
            total, _ = objective(output, labels, TrialConfig(fidelity=fidelity), epoch=20)
            total.backward()
        counts.append(operations.counts)
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) > 20


@pytest.mark.parametrize("fidelity", ["released", "paper"])
def test_no_value_is_read_on_the_host(fidelity: Literal["released", "paper"]) -> None:
    """Tensors without data raise wherever a value would be read, `tolist` and `numpy` included."""
    made = make_output([50, 3, 33])
    output = converted(made, "meta")
    config = TrialConfig(fidelity=fidelity)
    total, _ = objective(output, torch.ones(3, device="meta"), config, epoch=20)
    total.backward()
    assert total.shape == ()
    assert output.visual_embeddings.grad is not None
