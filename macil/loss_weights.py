"""How much each loss counts in an epoch: the weights of eq. 8, which grow as eq. 9 says."""

from __future__ import annotations

from macil.config import TrialConfig


def loss_weights(config: TrialConfig, epoch: int) -> tuple[float, float]:
    """λ_v2b(t) and λ_v2n(t) of epoch t, from 0."""
    return (
        ramp_weight(epoch, config.ramp, config.lambda_v2b),
        ramp_weight(epoch, config.ramp, config.lambda_v2n),
    )


def ramp_weight(epoch: int, ramp: float, maximum: float) -> float:
    """lambda(t) = min(r t, maximum), t from 0 (eq. 9)."""
    return min(ramp * epoch, maximum)
