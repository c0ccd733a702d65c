"""The losses of a step with gradients for the chosen snippets alone, against backpropagation through everything."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from macil.config import TrialConfig
from macil.model import TwoStreamNetwork, VisualNetwork
from macil.model.attention import affine, linear
from macil.model.bag_layout import Block, Layout, dense_layout
from macil.model.dropout import Rates
from macil.model.random_numbers import columns, make_keys
from macil.objective import mil_loss, objective
from macil.training import fused_step as selective
from macil.training.bags import packed_layout
from macil.training.fused_step import StepNoise, step_losses
from tests.support.weights import randomise

VISUAL, AUDIO, WIDTH = 7, 5, 44
SMALL: dict[str, Any] = {"hidden_dim": 8, "num_heads": 2, "feedforward_dim": 6}
NOTHING = Rates(0, 0)

steps = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.sampled_from([1, 2, 15, 16, 17, 33, 40]), min_size=1, max_size=6),
        "beyond": st.lists(st.sampled_from([0, 0, 1, 5]), min_size=6, max_size=6),
        "seed": st.integers(0, 2**20),
        "fidelity": st.sampled_from(["released", "paper"]),
        "stream_swap": st.booleans(),
        "mask_padding": st.booleans(),
        "shared_head": st.booleans(),
        "background_pool": st.sampled_from(["video", "batch"]),
        "bag_weighting": st.sampled_from(["video", "snippet"]),
        "contrast": st.booleans(),
    }
)
TESTED = settings(max_examples=40, deadline=None, derandomize=True)


def bags(lengths: list[int], beyond: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Visual, audio (B, WIDTH, ...), lengths and present rows; audio goes on for some rows beyond a length."""
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(len(lengths), WIDTH, VISUAL, generator=generator, dtype=torch.float64)
    audio = torch.randn(len(lengths), WIDTH, AUDIO, generator=generator, dtype=torch.float64)
    present = [min(length + more, WIDTH) for length, more in zip(lengths, beyond, strict=False)]
    for bag, (length, audio_length) in enumerate(zip(lengths, present, strict=True)):
        visual[bag, length:], audio[bag, audio_length:] = 0, 0
    return visual, audio, torch.tensor(lengths), torch.tensor(present)


def networks(config: TrialConfig, visual: Tensor, audio: Tensor, lengths: Tensor, seed: int) -> Any:
    """Both networks in float64, centred on p = 0.5 so that both classes are predicted."""
    both = TwoStreamNetwork(config, VISUAL, AUDIO).double(), VisualNetwork(config, VISUAL).double()
    randomise(both[0].eval(), seed)
    randomise(both[1].eval(), seed + 1)
    with torch.no_grad():
        found = both[0](visual, audio, lengths).video_logits.sort().values
        middle = len(found) // 2
        centre = found[max(0, middle - 1) : middle + 1].mean() + (0.1 if len(found) == 1 else 0)
        both[0].head_v.bias.sub_(centre / (2 if config.shared_head else 1))
    return both


def stacked(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach()[None].clone().requires_grad_() for name, p in network.named_parameters()}


def lay(x: Tensor, layout: Layout) -> Tensor:
    """Rows of `x` (B, WIDTH, ...) as they lie in the layout, (1, R, ...)."""
    ordered = x[layout.numbers[0]]
    parts, first = [], 0
    for block in layout.blocks:
        parts.append(ordered[first : first + block.bags, : block.width].flatten(0, 1))
        first += block.bags
    return torch.cat(parts)[None]


def silent(rates: Rates = NOTHING, seeds: tuple[int, ...] = (0,)) -> StepNoise:
    return StepNoise(make_keys(list(seeds), "one"), make_keys(list(seeds), "two"), columns(WIDTH), rates)


def losses_of(
    config: TrialConfig, both: Any, data: tuple[Tensor, ...], labels: Tensor, layout: Layout, noise: StepNoise
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses (4,) and the gradients of 1, 0.7, 0.4 and 1 times them."""
    parameters, teacher = map(stacked, both)
    visual, audio = (lay(x, layout) for x in data[:2])
    found = step_losses(
        parameters,
        teacher,
        visual,
        audio,
        labels[layout.numbers],
        layout,
        config.switches,
        noise,
        config.temperature,
    )[0]
    (found @ torch.tensor([1, 0.7, 0.4, 1], dtype=torch.float64)).backward()
    gradients = {f"student.{name}": p.grad for name, p in parameters.items()}
    gradients |= {f"teacher.{name}": p.grad for name, p in teacher.items()}
    return found.detach(), {name: grad[0] for name, grad in gradients.items() if grad is not None}


@TESTED
@given(steps)
@pytest.mark.parametrize("packed", [False, True])
def test_losses_and_gradients_are_those_of_the_networks(packed: bool, step: dict[str, Any]) -> None:
    switches = {name: value for name, value in step.items() if name not in ("lengths", "beyond", "seed")}
    config = TrialConfig(**SMALL, **switches, temperature=0.3, lambda_v2b=0.7, lambda_v2n=0.4, ramp=1.0)
    data = bags(step["lengths"], step["beyond"], step["seed"])
    visual, audio, lengths, present = data
    labels = (torch.arange(len(lengths)) % 2).double()
    both = networks(config, visual, audio, lengths, step["seed"])
    layout = packed_layout(lengths, present) if packed else dense_layout(lengths[None], present[None], WIDTH)
    found, gradients = losses_of(config, both, data, labels, layout, silent())

    total, parts = objective(both[0](visual, audio, lengths), labels, config, 1)
    loss_visual = mil_loss(both[1](visual, lengths).video_logits, labels)
    (total + loss_visual).backward()
    expected = torch.stack([*parts.values(), loss_visual]).detach()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for prefix, network in zip(("student", "teacher"), both, strict=True):
        for name, parameter in network.named_parameters():
            wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            got = gradients.get(f"{prefix}.{name}", torch.zeros_like(parameter))
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10, msg=f"{prefix}.{name}")


@pytest.mark.parametrize("pool", ["video", "batch"])
def test_under_dropout_too_only_the_chosen_snippets_matter(pool: str) -> None:
    """`batch` computes everything with gradients, `video` the chosen alone: with one bag both mean the same."""
    config = TrialConfig(**SMALL, mask_padding=True, background_pool="video")
    data = bags([40], [0] * 6, 3)
    visual, audio, lengths, present = data
    both = networks(config, visual, audio, lengths, 3)
    labels = torch.ones(1, dtype=torch.float64)
    layout = dense_layout(lengths[None], present[None], WIDTH)
    noise = silent(Rates(6554, 6554))
    one = losses_of(config, both, data, labels, layout, noise)
    other = losses_of(config.replace(background_pool="batch"), both, data, labels, layout, noise)
    torch.testing.assert_close(one[0], other[0], rtol=1e-10, atol=1e-12)
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mask_padding", [False, True])
@pytest.mark.parametrize("background_pool", ["video", "batch"])
def test_under_dropout_every_layout_gives_the_same(mask_padding: bool, background_pool: str) -> None:
    config = TrialConfig(**SMALL, mask_padding=mask_padding, background_pool=background_pool)
    data = bags([3, 40, 17, 33, 40, 1], [0, 0, 1, 5, 2, 0], 5)
    visual, audio, lengths, present = data
    labels = (torch.arange(6) % 2).double()
    both = networks(config, visual, audio, lengths, 5)
    noise = silent(Rates(6554, 13107))
    layouts = [
        dense_layout(lengths[None], present[None], WIDTH),
        dense_layout(lengths[None], present[None], 40),
        packed_layout(lengths, present),
        packed_layout(lengths, present)._replace(blocks=tuple(_single_blocks(lengths, present))),
    ]
    results = [losses_of(config, both, data, labels, layout, noise) for layout in layouts]
    quiet = losses_of(config, both, data, labels, layouts[0], silent())
    assert not torch.allclose(quiet[0], results[0][0])
    for found, gradients in results[1:]:
        torch.testing.assert_close(found, results[0][0], rtol=1e-10, atol=1e-12)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, results[0][1][name], rtol=1e-9, atol=1e-12)


def _single_blocks(lengths: Tensor, present: Tensor) -> list[Any]:
    longest = int(lengths.max())
    kept = present.clamp(max=longest)
    widths = (kept + (kept < longest).long()).sort(descending=True).values.tolist()
    return [Block(1, width) for width in widths]


def test_gradients_on_an_accelerator_take_rows_by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs there instead of indexing gives the same here."""
    config = TrialConfig(**SMALL)
    data = bags([3, 40, 17, 33], [0, 1, 0, 5, 0, 0], 7)
    layout = dense_layout(data[2][None], data[3][None], WIDTH)
    labels = (torch.arange(4) % 2).double()
    both = networks(config, *data[:3], 7)
    expected = losses_of(config, both, data, labels, layout, silent(Rates(6554, 6554)))
    monkeypatch.setattr(selective, "_by_product", lambda x: True)
    found = losses_of(config, both, data, labels, layout, silent(Rates(6554, 6554)))
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, expected[1][name], rtol=1e-10, atol=1e-12)


def test_stacked_networks_are_each_network_alone() -> None:
    config = TrialConfig(**SMALL)
    data = bags([3, 40, 17, 33], [0, 1, 0, 5, 0, 0], 7)
    labels = (torch.arange(4) % 2).double()
    layout = dense_layout(data[2][None], data[3][None], WIDTH)
    both = [networks(config, *data[:3], seed) for seed in (1, 2)]
    alone = [
        losses_of(config, pair, data, labels, layout, silent(Rates(6554, 6554), (seed,)))[0]
        for seed, pair in enumerate(both)
    ]
    parameters, teacher = (
        {name: torch.cat([stacked(pair[kind])[name] for pair in both]) for name in stacked(both[0][kind])}
        for kind in (0, 1)
    )
    twice = layout._replace(
        **{name: getattr(layout, name).expand(2, -1) for name in ("numbers", "lengths", "present", "longest")}
    )
    visual, audio = (lay(x, layout).expand(2, -1, -1) for x in data[:2])
    found = step_losses(
        parameters,
        teacher,
        visual,
        audio,
        labels.expand(2, -1),
        twice,
        config.switches,
        silent(Rates(6554, 6554), (0, 1)),
        config.temperature,
    )
    torch.testing.assert_close(found, torch.stack(alone), rtol=1e-10, atol=1e-12)


def test_a_stack_of_one_multiplies_as_a_stack_of_many() -> None:
    x, weight, bias = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 5), torch.randn(2, 6)
    whole = affine(x, weight, bias)
    each = [
        linear({"a.weight": weight[i : i + 1], "a.bias": bias[i : i + 1]}, "a", x[i : i + 1]) for i in (0, 1)
    ]
    torch.testing.assert_close(whole, torch.cat(each))
