"""The two networks against their literal versions, and shapes, counts, dropout and initialisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from macil.config import TrialConfig
from macil.errors import DataError
from macil.model import (
    NetworkOutput,
    TwoStreamNetwork,
    VisualNetwork,
    VisualOutput,
    parameter_counts,
)
from macil.objective import mil_loss, objective
from tests.support import literal
from tests.support.weights import AUDIO_HEAD, literal_gradients, literal_weights, randomise

VISUAL, AUDIO = 7, 5
SMALL = {"hidden_dim": 8, "num_heads": 2, "feedforward_dim": 6}
TESTED = settings(max_examples=40, deadline=None, derandomize=True)
BOTH = pytest.mark.parametrize("network_class", [TwoStreamNetwork, VisualNetwork])


def small(**switches: Any) -> TrialConfig:
    return TrialConfig(**{**SMALL, **switches})


def build(network_class: Callable[..., nn.Module], config: TrialConfig) -> Any:
    widths = (VISUAL, AUDIO) if network_class is TwoStreamNetwork else (VISUAL,)
    return network_class(config, *widths)


def bags(
    lengths: Sequence[int], width: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Visual, audio and lengths; visual is zero beyond each length, audio goes on, as in the data."""
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(len(lengths), width, VISUAL, generator=generator, dtype=torch.float64)
    audio = torch.randn(len(lengths), width, AUDIO, generator=generator, dtype=torch.float64)
    for video, length in enumerate(lengths):
        visual[video, length:] = 0
    return visual.to(dtype), audio.to(dtype), torch.tensor(lengths)


def run(network: Any, visual: Tensor, audio: Tensor, lengths: Tensor | None) -> NetworkOutput | VisualOutput:
    inputs = (visual, audio) if isinstance(network, TwoStreamNetwork) else (visual,)
    output = network(*inputs, lengths)
    assert isinstance(output, NetworkOutput | VisualOutput)
    return output


def assert_equal(ours: Tensor, expected: Tensor, name: str = "") -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10, msg=lambda text: f"{name}: {text}")


def assert_equal_where_valid(ours: Tensor, expected: Tensor, lengths: Sequence[int], name: str) -> None:
    for video, length in enumerate(lengths):
        assert_equal(ours[video, :length], expected[video, :length], name)


batches = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.sampled_from([1, 2, 15, 16, 17, 33]), min_size=1, max_size=4),
        "padding": st.sampled_from([0, 3]),
        "seed": st.integers(0, 2**20),
        "num_heads": st.sampled_from([1, 2, 4]),
        "mask_padding": st.booleans(),
        "shared_head": st.booleans(),
        "whole": st.booleans(),
    }
)


@TESTED
@given(batches)
def test_the_two_stream_network_equals_the_literal_one_in_value_and_gradient(batch: dict[str, Any]) -> None:
    lengths, padding = batch["lengths"], batch["padding"]
    if batch["whole"]:  # the test rule: no lengths, nothing is padding
        lengths, padding = [max(lengths)] * len(lengths), 0
    switches = {name: batch[name] for name in ("num_heads", "mask_padding", "shared_head")}
    network = TwoStreamNetwork(small(**switches), VISUAL, AUDIO).double().eval()
    randomise(network, batch["seed"])
    visual, audio, counts = bags(lengths, max(lengths) + padding, seed=batch["seed"])
    given_lengths = None if batch["whole"] else counts
    output = network(visual, audio, given_lengths)

    weights = literal_weights(network)
    heads = {} if batch["shared_head"] else {"audio_head": AUDIO_HEAD}
    expected = literal.two_stream(
        weights,
        visual,
        audio,
        given_lengths,
        num_heads=batch["num_heads"],
        mask_padding=batch["mask_padding"],
        **heads,
    )
    for name in ("visual_embeddings", "audio_embeddings", "visual_logits", "audio_logits", "fused_logits"):
        assert_equal_where_valid(getattr(output, name), getattr(expected, name), lengths, name)
    assert_equal(output.video_logits, expected.video_logits, "video_logits")
    assert output.lengths.tolist() == lengths

    labels = torch.arange(len(lengths)) % 2
    config = small(temperature=0.3, **switches)
    objective(output, labels, config, epoch=9)[0].backward()
    literal.total_loss(
        expected, labels, 9, contrast=True, ramp=0.1, lambda_v2b=1.5, lambda_v2n=1.5, temperature=0.3
    ).backward()
    gradients = literal_gradients(network)
    assert gradients.keys() == weights.keys()
    for name, weight in weights.items():
        assert weight.grad is not None
        assert_equal(gradients[name], weight.grad, name)


@TESTED
@given(batches)
def test_the_visual_network_equals_the_literal_one_in_value_and_gradient(batch: dict[str, Any]) -> None:
    lengths, padding = batch["lengths"], batch["padding"]
    if batch["whole"]:
        lengths, padding = [max(lengths)] * len(lengths), 0
    switches = {name: batch[name] for name in ("num_heads", "mask_padding")}
    network = VisualNetwork(small(**switches), VISUAL).double().eval()
    randomise(network, batch["seed"])
    visual, _, counts = bags(lengths, max(lengths) + padding, seed=batch["seed"])
    given_lengths = None if batch["whole"] else counts
    output = network(visual, given_lengths)

    weights = literal_weights(network)
    logits, video_logits = literal.visual_only(weights, visual, given_lengths, **switches)
    assert_equal_where_valid(output.logits, logits, lengths, "logits")
    assert_equal(output.video_logits, video_logits, "video_logits")
    assert output.lengths.tolist() == lengths

    labels = torch.arange(len(lengths)) % 2
    mil_loss(output.video_logits, labels).backward()
    literal.mil_loss(video_logits, labels).backward()
    gradients = literal_gradients(network)
    for name, weight in weights.items():
        assert weight.grad is not None
        assert_equal(gradients[name], weight.grad, name)


# --- shapes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [20], [5, 20]])
@pytest.mark.parametrize("fidelity", ["released", "paper"])
def test_shapes_of_any_batch_down_to_one_video_of_one_snippet(
    lengths: list[int], fidelity: Literal["released", "paper"]
) -> None:
    config = small(fidelity=fidelity)
    size, width = len(lengths), max(lengths)
    visual, audio, counts = bags(lengths, width, dtype=torch.float32)
    for given_lengths in (counts, None):
        output = TwoStreamNetwork(config, VISUAL, AUDIO)(visual, audio, given_lengths)
        assert output._fields == literal.Output._fields
        assert output.visual_embeddings.shape == output.audio_embeddings.shape == (size, width, 8)
        for logits in (output.visual_logits, output.audio_logits, output.fused_logits):
            assert logits.shape == (size, width)
        assert output.video_logits.shape == output.lengths.shape == (size,)
        assert not output.lengths.is_floating_point()

        visual_output = VisualNetwork(config, VISUAL)(visual, given_lengths)
        assert visual_output._fields == ("logits", "video_logits", "lengths")
        assert visual_output.logits.shape == (size, width)
        assert visual_output.video_logits.shape == visual_output.lengths.shape == (size,)


@BOTH
def test_default_widths_are_the_published_features(network_class: Any) -> None:
    network = network_class(TrialConfig())
    assert tuple(network.fc_v.weight.shape) == (128, 1024)
    if network_class is TwoStreamNetwork:
        assert tuple(network.fc_a.weight.shape) == (128, 128)


@pytest.mark.parametrize(
    ("audio", "lengths"), [((2, 1), None), ((1, 5), None), ((2, 5), (1,)), ((2, 5), (2, 1))]
)
def test_streams_and_lengths_that_disagree_are_refused_and_not_broadcast(
    audio: tuple[int, ...], lengths: tuple[int, ...] | None
) -> None:
    network = TwoStreamNetwork(TrialConfig(hidden_dim=8, feedforward_dim=8), 6, 4)
    visual, audio_features = torch.ones(2, 5, 6), torch.ones(*audio, 4)
    valid = None if lengths is None else torch.full(lengths, 5)
    with pytest.raises(
        DataError, match=r"shapes \(2, 5, 6\).* disagree; expected visual \(B, T, features\), audio"
    ):
        network(visual, audio_features, valid)
    with pytest.raises(DataError, match="disagree"):
        network.snippet_logits(visual, audio_features, torch.full(lengths or (2,), 5))


def test_fused_logits_are_the_sum_of_the_streams() -> None:
    visual, audio, lengths = bags([4, 9], 9)
    output = TwoStreamNetwork(small(), VISUAL, AUDIO).double()(visual, audio, lengths)
    assert torch.equal(output.fused_logits, output.visual_logits + output.audio_logits)


# --- padding ----------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("mask_padding", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_wider_batch_gives_the_same_as_one_cut_to_its_longest_video(
    network_class: Any, mask_padding: bool, training: bool
) -> None:
    # No dropout anywhere: a wider batch draws other masks, and the training mode itself must change nothing.
    config = small(mask_padding=mask_padding, dropout=0.0, dropout_everywhere=True)
    network = build(network_class, config).double().train(training)
    randomise(network, 3)
    lengths = [4, 33, 17]
    visual, audio, counts = bags(lengths, 60, seed=1)
    cut = run(network, visual[:, :33], audio[:, :33], counts)
    wide = run(network, visual, audio, counts)
    for name in cut._fields:
        if name in ("video_logits", "lengths"):
            assert_equal(getattr(wide, name).double(), getattr(cut, name).double(), name)
        else:
            assert_equal_where_valid(getattr(wide, name), getattr(cut, name), lengths, name)


@BOTH
def test_with_masked_padding_a_video_does_not_depend_on_its_batch(network_class: Any) -> None:
    network = build(network_class, small(mask_padding=True)).double().eval()
    randomise(network, 4)
    lengths = [4, 33, 17]
    visual, audio, counts = bags(lengths, 33, seed=1)
    together = run(network, visual, audio, counts).video_logits
    for video, length in enumerate(lengths):
        one = slice(video, video + 1)
        alone = run(network, visual[one, :length], audio[one, :length], counts[one]).video_logits
        assert_equal(alone, together[one])


@BOTH
def test_the_released_network_attends_to_padding_up_to_the_longest_video(network_class: Any) -> None:
    network = build(network_class, small()).double().eval()
    randomise(network, 4)
    visual, audio, counts = bags([4, 33], 33, seed=1)
    together = run(network, visual, audio, counts).video_logits[0]
    alone = run(network, visual[:1, :4], audio[:1, :4], counts[:1]).video_logits[0]
    assert (together - alone).abs() > 1e-3


def test_padded_rows_of_a_video_influence_no_other_video() -> None:
    network = TwoStreamNetwork(small(), VISUAL, AUDIO).double().eval()
    randomise(network, 4)
    visual, audio, counts = bags([4, 33], 33, seed=1)
    before = network(visual, audio, counts)
    audio = audio.clone()
    audio[0, 4:] += 1.0
    after = network(visual, audio, counts)
    assert_equal(after.video_logits[1], before.video_logits[1])
    # In its own video, audio beyond the visual length is attended: the released code does that.
    assert (after.video_logits[0] - before.video_logits[0]).abs() > 1e-4


@BOTH
def test_snippet_logits_of_padded_whole_videos_equal_those_of_each_alone(network_class: Any) -> None:
    network = build(network_class, small()).double().eval()
    randomise(network, 4)
    lengths = [1, 33, 17]
    visual, audio, counts = bags(lengths, 40, seed=1)
    together = network.snippet_logits(visual, audio, counts)
    for video, length in enumerate(lengths):
        one = slice(video, video + 1)
        output = run(network, visual[one, :length], audio[one, :length], None)
        alone = output.fused_logits if isinstance(output, NetworkOutput) else output.logits
        assert_equal(together[one, :length], alone)


# --- counts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden_dim", "light_published", "full_published"),
    [(64, 140_865, 273_474), (128, 347_009, 677_506), (256, 955_905, 1_878_786)],
)
def test_parameter_counts_of_the_published_widths(
    hidden_dim: int, light_published: int, full_published: int
) -> None:
    config = TrialConfig(hidden_dim=hidden_dim)
    full, light = parameter_counts(config), parameter_counts(config.replace(distill=False))
    assert (light.parameters_published, full.parameters_published) == (light_published, full_published)
    d, f = hidden_dim, 128
    unused = 4 * (d * d + d) + (2 * d * f + f + d) + 4 * d
    assert light.parameters == light_published - unused
    assert full.parameters == full_published - 2 * unused


def test_parameter_counts_of_the_published_network() -> None:
    assert parameter_counts(TrialConfig()) == (478_338, 677_506)
    assert parameter_counts(TrialConfig(distill=False)) == (247_425, 347_009)


@pytest.mark.parametrize(
    "switches", [{}, {"shared_head": False}, {"distill": False}, {"feedforward_dim": 10}]
)
def test_counted_parameters_are_those_of_the_modules(switches: dict[str, Any]) -> None:
    config = small(**switches)
    networks: list[nn.Module] = [TwoStreamNetwork(config, VISUAL, AUDIO)]
    if config.distill:
        networks.append(VisualNetwork(config, VISUAL))
    expected = sum(p.numel() for network in networks for p in network.parameters())
    counts = parameter_counts(config, VISUAL, AUDIO)
    d, f = config.hidden_dim, config.feedforward_dim
    assert counts.parameters == expected
    unused = 4 * (d * d + d) + (2 * d * f + f + d) + 4 * d
    assert counts.parameters_published == expected + len(networks) * unused


@BOTH
def test_every_parameter_is_used(network_class: Any) -> None:
    for fidelity in ("released", "paper"):
        network = build(network_class, small(fidelity=fidelity))
        visual, audio, lengths = bags([4, 33], 33, dtype=torch.float32)
        run(network, visual, audio, lengths).video_logits.sum().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None] == []


# --- initialisation ---------------------------------------------------------------------------------------


@BOTH
def test_attention_projections_start_as_copies_only_under_the_switch(network_class: Any) -> None:
    for identical in (True, False):
        weights = literal_weights(build(network_class, small(identical_projections=identical)))
        for kind in ("weight", "bias"):
            first, *others = (weights[f"cma.layer.self_attn.linears.{i}.{kind}"] for i in range(4))
            assert [torch.equal(first, other) for other in others] == [identical] * 3


@BOTH
def test_initial_weights_follow_the_seed_and_leave_global_random_numbers_alone(network_class: Any) -> None:
    before = torch.get_rng_state()
    one, same, other = (build(network_class, small(seed=seed)) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.fc_v.weight, other.fc_v.weight)

    widths = (VISUAL, AUDIO) if network_class is TwoStreamNetwork else (VISUAL,)
    drawn = [network_class(small(), *widths, generator=torch.Generator().manual_seed(9)) for _ in range(2)]
    assert torch.equal(drawn[0].fc_v.weight, drawn[1].fc_v.weight)
    assert not torch.equal(drawn[0].fc_v.weight, one.fc_v.weight)


@BOTH
def test_initial_weights_have_the_range_of_the_default_initialisation(network_class: Any) -> None:
    network = network_class(TrialConfig(identical_projections=False))
    modules = list(network.modules())
    assert {nn.Linear, nn.LayerNorm} <= {type(module) for module in modules}
    for module in modules:
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            assert module.weight.abs().max() <= bound
            assert module.bias.abs().max() <= bound
            if module.weight.numel() > 1000:
                expected = torch.tensor(bound / math.sqrt(3))
                torch.testing.assert_close(module.weight.std(), expected, rtol=0.03, atol=0)
        elif isinstance(module, nn.LayerNorm):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))


def test_the_two_networks_do_not_start_as_copies() -> None:
    config = small()
    audio_visual, visual = TwoStreamNetwork(config, VISUAL, AUDIO), VisualNetwork(config, VISUAL)
    assert not torch.equal(audio_visual.fc_v.weight, visual.fc_v.weight)


# --- dropout ----------------------------------------------------------------------------------------------

HEADS, KEYS = 4, 16
PROBE = HEADS * KEYS


def attention_weights(network: TwoStreamNetwork, batch: int) -> Tensor:
    """Attention weights as the network applies them, (directions, B, heads, queries, keys), from outside.

    The network is set so that every query looks at every key alike (keys are constant), value vector j is the
    j-th unit vector in every head, own streams are zero and the feed-forward adds nothing: an embedding then is
    the list of weights of its query.
    """
    one_hot = torch.eye(KEYS).expand(batch, KEYS, KEYS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.layer.norm_attention.weight.fill_(1)
        spread = torch.eye(KEYS).repeat(HEADS, 1)  # (d, features)
        for name in ("value", "output"):
            network.get_parameter(f"layer.attention.{name}.weight").copy_(torch.eye(PROBE))
        directions = []
        for own, other in (("fc_a", "fc_v"), ("fc_v", "fc_a")):
            getattr(network, own).weight.zero_()
            getattr(network, other).weight.copy_(spread)
            output = network(one_hot, one_hot, torch.full((batch,), KEYS))
            embeddings = output.audio_embeddings if own == "fc_a" else output.visual_embeddings
            directions.append(embeddings.unflatten(-1, (HEADS, KEYS)).transpose(1, 2))
    return torch.stack(directions)


def probe(**switches: Any) -> TwoStreamNetwork:
    config = TrialConfig(hidden_dim=PROBE, num_heads=HEADS, feedforward_dim=PROBE, **switches)
    return TwoStreamNetwork(config, KEYS, KEYS).train()


def check_mask(values: Tensor, rate: float) -> Tensor:
    """`values` are 0 with probability `rate`, else 1 / (1 - rate); return which were kept."""
    kept = values != 0
    deviations = 5 * math.sqrt(rate * (1 - rate) / values.numel())
    assert abs(kept.double().mean().item() - (1 - rate)) < deviations + 2e-5
    torch.testing.assert_close(values[kept], torch.full_like(values[kept], 1 / (1 - rate)), rtol=1e-4, atol=0)
    return kept


@pytest.mark.parametrize(
    ("switches", "rate"), [({}, 0.1), ({"dropout_everywhere": True, "dropout": 0.3}, 0.3)]
)
def test_attention_dropout_has_the_right_rate_and_scale(switches: dict[str, Any], rate: float) -> None:
    network = probe(**{"dropout": 0.0, **switches})
    network.rates = network.rates._replace(branch=0)
    weights = attention_weights(network, batch=64) * KEYS
    kept = check_mask(weights, rate)
    # Every direction, video, head, query and key has its own decision.
    for axis in range(kept.ndim):
        share = kept.double().mean(dim=[other for other in range(kept.ndim) if other != axis])
        each = kept.numel() / kept.shape[axis]
        assert (share - (1 - rate)).abs().max() < 6 * math.sqrt(rate * (1 - rate) / each)
        shifted = (kept & kept.roll(1, dims=axis)).double().mean()
        assert abs(shifted - (1 - rate) ** 2) < 0.01


def test_neighbouring_decisions_are_independent() -> None:
    """Masks may be cut from wide random words: the pieces of one word must not know of one another."""
    network = probe(dropout=0.0)
    flat = (attention_weights(network, batch=64) != 0).flatten().double()
    centred = flat - flat.mean()
    for distance in (1, 2, 3, 4, 5, 8, 16, 64):
        correlation = (centred[distance:] * centred[:-distance]).mean() / centred.square().mean()
        assert abs(correlation) < 5 / math.sqrt(flat.numel())


@pytest.mark.parametrize(
    ("switches", "rate"), [({"dropout": 0.0}, 0.1), ({"dropout_everywhere": True, "dropout": 0.3}, 0.3)]
)
def test_dropout_inside_the_feed_forward(switches: dict[str, Any], rate: float) -> None:
    network = probe(**switches)
    network.rates = network.rates._replace(branch=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.get_parameter("layer.feedforward.inner.bias").fill_(1)
        network.get_parameter("layer.feedforward.outer.weight").copy_(torch.eye(PROBE))
        features = torch.zeros(64, KEYS, KEYS)
        output = network(features, features, torch.full((64,), KEYS))
    check_mask(torch.stack([output.visual_embeddings, output.audio_embeddings]), rate)


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_dropout_option_reaches_both_residual_branches(everywhere: bool) -> None:
    rate = 0.3
    network = probe(dropout=rate, dropout_everywhere=everywhere)
    network.rates = network.rates._replace(inner=0)
    features = torch.zeros(64, KEYS, KEYS)
    for branch in (network.layer.attention["output"], network.layer.feedforward["outer"]):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
            nn.init.ones_(branch.get_parameter("bias"))
            output = network(features, features, torch.full((64,), KEYS))
        check_mask(torch.stack([output.visual_embeddings, output.audio_embeddings]), rate)


@BOTH
@pytest.mark.parametrize("mask_padding", [False, True])
def test_training_with_the_rarest_dropout_is_the_evaluation(network_class: Any, mask_padding: bool) -> None:
    """The path with dropout scales, masks and mixes as the path without: nothing is dropped here but the path."""
    network = build(network_class, small(dropout=1.6e-5, dropout_everywhere=True, mask_padding=mask_padding))
    randomise(network.double(), 8)
    lengths = [4, 9]
    visual, audio, counts = bags(lengths, 12, seed=1)
    trained = run(network.train(), visual, audio, counts).video_logits
    evaluated = run(network.eval(), visual, audio, counts).video_logits
    assert not torch.equal(trained, evaluated)  # it was the other path
    torch.testing.assert_close(trained, evaluated, rtol=1e-3, atol=1e-3)


def test_the_gradient_passes_through_the_same_mask() -> None:
    network = probe(dropout=0.0)
    features = torch.randn(2, KEYS, KEYS, generator=torch.Generator().manual_seed(1))
    lengths = torch.full((2,), KEYS)

    def loss() -> Tensor:
        network.draws = 0
        logits: Tensor = network(features, features, lengths).fused_logits
        return logits.square().sum()

    network.double()
    features = features.double()
    weight = network.get_parameter("layer.attention.value.weight")
    (gradient,) = torch.autograd.grad(loss(), weight)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        weight.add_(1e-6 * direction)
        above = loss()
        weight.sub_(2e-6 * direction)
        below = loss()
    torch.testing.assert_close((above - below) / 2e-6, (gradient * direction).sum(), rtol=1e-6, atol=1e-8)


@BOTH
def test_dropout_is_a_function_of_the_seed_and_the_pass_and_nothing_else(network_class: Any) -> None:
    network = build(network_class, small()).train()
    visual, audio, lengths = bags([4, 33], 33, dtype=torch.float32)

    def logits() -> Tensor:
        return run(network, visual, audio, lengths).video_logits

    global_state = torch.get_rng_state()
    first, second = logits(), logits()
    assert not torch.equal(first, second)
    network.draws = 0
    assert torch.equal(logits(), first)
    assert torch.equal(logits(), second)
    assert torch.equal(torch.get_rng_state(), global_state)


@BOTH
def test_networks_of_other_seeds_drop_other_elements(network_class: Any) -> None:
    networks = [build(network_class, small(seed=seed)).train() for seed in (0, 0, 1)]
    for network in networks[1:]:
        network.load_state_dict(networks[0].state_dict())
    visual, audio, lengths = bags([4, 33], 33, dtype=torch.float32)
    first, same, other = (run(network, visual, audio, lengths).video_logits for network in networks)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@BOTH
def test_evaluation_has_no_dropout_and_draws_nothing(network_class: Any) -> None:
    visual, audio, lengths = bags([4, 33], 33, dtype=torch.float32)
    off = build(network_class, small(dropout=0.0, dropout_everywhere=True)).train()
    on = build(network_class, small(dropout=0.9, dropout_everywhere=True)).eval()
    on.load_state_dict(off.state_dict())
    for network in (on, off):
        first = run(network, visual, audio, lengths).video_logits
        assert torch.equal(run(network, visual, audio, lengths).video_logits, first)
    assert on.draws == 0
    ours, expected = (run(network, visual, audio, lengths).video_logits for network in (on, off))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_released_dropout_ignores_the_option_on_attention_weights() -> None:
    """With `dropout` 0 the released code still drops attention weights and feed-forward units at 0.1."""
    network = build(TwoStreamNetwork, small(dropout=0.0)).train()
    visual, audio, lengths = bags([33, 33], 33, dtype=torch.float32)
    one, other = (network(visual, audio, lengths).video_logits for _ in range(2))
    assert not torch.equal(one, other)


@BOTH
def test_a_training_pass_needs_no_value_on_the_host(network_class: Any) -> None:
    """Tensors without data raise wherever a value would be read: no cut to the longest length, no branch."""
    config = small(dropout=0.0, dropout_everywhere=True)
    network = build(network_class, config).to("meta").train()
    visual, audio, lengths = (x.to("meta") for x in bags([4, 33], 33, dtype=torch.float32))
    output = run(network, visual, audio, lengths)
    output.video_logits.sum().backward()
    assert output.video_logits.shape == (2,)


@BOTH
def test_state_dicts_hold_parameters_alone(network_class: Any) -> None:
    network = build(network_class, small())
    assert list(network.state_dict()) == [name for name, _ in network.named_parameters()]
