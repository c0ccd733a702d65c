from __future__ import annotations

import pytest

from tune.execution.save_policy import SavePolicy, is_save_due


@pytest.mark.parametrize(
    ("cost", "seconds", "epochs"),
    [
        (0.03125, 1.5625, 4),  # short epochs: 2 % of the time
        (0.0625, 7.0, 7),  # longer ones: 10 ms of each
        (0.25, 30.0, 3),  # a loss costs half a minute of training at most ...
        (4.0, 100.0, 2),  # ... unless saving that often would cost more than 4 % of the time
    ],
)
def test_a_save_is_due_when_it_costs_little_beside_what_it_saves(
    cost: float, seconds: float, epochs: int
) -> None:
    assert is_save_due(cost, seconds, epochs)
    assert is_save_due(cost, seconds, epochs + 1)
    assert not is_save_due(cost, seconds * 0.99, epochs - 1)
    assert not is_save_due(cost * 4, seconds * 0.99, epochs)


def trained_until_due(policy: SavePolicy, epoch: float) -> int:
    """Epochs of `epoch` seconds until a save is due."""
    epochs = 0
    while not policy.due:
        policy.trained(epoch)
        epochs += 1
    return epochs


def test_what_the_last_save_cost_decides_about_the_next() -> None:
    policy = SavePolicy()
    policy.saved(0.0625)
    assert trained_until_due(policy, 0.125) == 25
    policy.saved(0.125)
    assert not policy.due
    assert trained_until_due(policy, 0.125) == 50


def test_epochs_of_half_a_minute_are_saved_each() -> None:
    policy = SavePolicy()
    for _ in range(3):
        policy.saved(1.0)
        assert trained_until_due(policy, 30.0) == 1


def test_a_new_trial_has_nothing_to_lose_and_remembers_what_a_save_costs() -> None:
    policy = SavePolicy()
    policy.saved(0.125)
    policy.trained(6.0)
    policy.begun()
    assert trained_until_due(policy, 0.125) == 50


def test_the_first_save_does_not_wait_for_a_measurement() -> None:
    assert 0 < trained_until_due(SavePolicy(), 0.1) <= 100
