"""The momentum schedule and the infusion of the visual network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from macil.config import TrialConfig
from macil.model import TwoStreamNetwork, VisualNetwork
from macil.training.distillation import infuse, momentum_at
from tests.support import literal
from tests.support.weights import AUDIO_HEAD, literal_weights, randomise

# What a name of the visual network is called in the audio-visual one, where they differ.
TWINS = {"fc": "att_mmil.fc"}


def networks(**switches: Any) -> tuple[TwoStreamNetwork, VisualNetwork]:
    config = TrialConfig(hidden_dim=8, num_heads=2, feedforward_dim=6, **switches)
    student, teacher = TwoStreamNetwork(config, 7, 5).double(), VisualNetwork(config, 7).double()
    randomise(student, 1)
    randomise(teacher, 2)
    return student, teacher


def literal_twins(teacher: VisualNetwork) -> dict[str, torch.Tensor]:
    weights = literal_weights(teacher)
    for ours, twin in TWINS.items():
        weights |= {f"{twin}.{kind}": weights.pop(f"{ours}.{kind}") for kind in ("weight", "bias")}
    return weights


@pytest.mark.parametrize("initial", [0.0, 0.5, 0.91, 1.0])
@pytest.mark.parametrize("period", [1, 7, 50])
def test_the_momentum_rises_along_half_a_cosine(initial: float, period: int) -> None:
    values = [momentum_at(epoch, initial, period) for epoch in range(period + 1)]
    assert values[0] == pytest.approx(initial, abs=1e-15)
    assert values[-1] == 1.0
    assert values == sorted(values)
    assert values == pytest.approx(
        [literal.momentum_at(e, initial, period) for e in range(period + 1)], abs=1e-15
    )


def test_the_period_is_fifty_epochs_however_long_the_training() -> None:
    assert [momentum_at(e, 0.91) for e in range(80)] == [momentum_at(e, 0.91, 50) for e in range(80)]


@pytest.mark.parametrize("shared_head", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.93, 1.0])
def test_infusion_mixes_every_parameter_with_a_twin(shared_head: bool, momentum: float) -> None:
    student, teacher = networks(shared_head=shared_head)
    before, twins = literal_weights(student), literal_twins(teacher)
    infuse(student, teacher, momentum)
    after = literal_weights(student)
    for name, expected in literal.infuse(before, twins, momentum).items():
        torch.testing.assert_close(after[name], expected, rtol=1e-15, atol=1e-15)

    alone = {name for name in before if name not in twins}
    second = {f"{AUDIO_HEAD}.{kind}" for kind in ("weight", "bias")} if not shared_head else set()
    assert alone == {"fc_a.weight", "fc_a.bias"} | second
    for name in before:
        same = torch.equal(after[name], before[name])
        assert same == (name in alone or momentum == 1.0), name


def test_infusion_leaves_the_teacher_the_optimiser_and_the_parameters_themselves_alone() -> None:
    student, teacher = networks()
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-3)
    visual, audio = torch.ones(2, 3, 7).double(), torch.ones(2, 3, 5).double()
    student(visual, audio, torch.tensor([3, 2])).video_logits.sum().backward()
    optimiser.step()
    parameters = {name: (id(p), p.data_ptr(), p.grad) for name, p in student.named_parameters()}
    moments = {id(p): state["exp_avg"].clone() for p, state in optimiser.state.items()}
    taught = {name: p.detach().clone() for name, p in teacher.named_parameters()}

    infuse(student, teacher, 0.5)

    assert {name: (id(p), p.data_ptr(), p.grad) for name, p in student.named_parameters()} == parameters
    assert all(torch.equal(state["exp_avg"], moments[id(p)]) for p, state in optimiser.state.items())
    assert all(torch.equal(p, taught[name]) for name, p in teacher.named_parameters())
    assert all(p.is_leaf and p.requires_grad for p in student.parameters())


class Shared(nn.Module):
    """A module that has nothing to do with this package."""

    def __init__(self, inputs: int, **others: nn.Module) -> None:
        super().__init__()
        self.shared = nn.Linear(inputs, 3)
        for name, module in others.items():
            self.add_module(name, module)


def test_infusion_works_on_any_two_modules() -> None:
    own = nn.Linear(2, 2)
    student, teacher = Shared(2, own=own), Shared(2, other=nn.Linear(5, 5))
    before, own_before = student.shared.weight.detach().clone(), own.weight.detach().clone()
    assert sorted(infuse(student, teacher, 0.25)) == ["shared.bias", "shared.weight"]
    torch.testing.assert_close(student.shared.weight, 0.25 * before + 0.75 * teacher.shared.weight)
    assert torch.equal(own.weight, own_before)


def test_twins_of_other_shapes_and_strangers_are_refused_by_name() -> None:
    student = Shared(2)
    before = student.shared.weight.detach().clone()
    with pytest.raises(ValueError, match=r"shared\.weight.*\(3, 2\).*\(3, 4\)"):
        infuse(student, Shared(4), 0.5)
    with pytest.raises(ValueError, match="share no parameter"):
        infuse(student, nn.Linear(4, 4), 0.5)
    assert torch.equal(student.shared.weight, before)
