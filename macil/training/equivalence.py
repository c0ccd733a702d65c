"""Which configurations are the same training: some differences need more epochs, or a module that is switched off."""

from __future__ import annotations

from collections.abc import Hashable

from macil.config import TrialConfig
from macil.loss_weights import loss_weights

_CONTRAST = ("stream_swap", "bag_weighting", "background_pool", "temperature")
_WEIGHTS = ("lambda_v2b", "lambda_v2n", "ramp")
_DISTILL = ("momentum", "momentum_epochs", "visual_learning_rate")
# The rate inside attention and feed-forward when `dropout_everywhere` is off (released code).
_INNER_DROPOUT = 0.1


def training_key(config: TrialConfig) -> Hashable:
    """Equal for configurations whose audio-visual network is trained alike for `config.epochs`, on any data.

    The loss weights count by their values in those epochs: λ(t) = min(r t, Λ) with r = 0.1 makes Λ = 1.0 and 1.5 equal
    before epoch 10. What belongs to a module that is switched off does not count, nor does the name of a preset.
    """
    values = config.to_dict()
    del values["fidelity"]
    weights = tuple(loss_weights(config, epoch) for epoch in range(config.epochs))
    contrast = config.contrast and any(any(pair) for pair in weights)
    inert = {*_WEIGHTS, *(() if contrast else _CONTRAST), *(() if config.distill else _DISTILL)}
    if config.distill and config.momentum == 1:
        inert.add("momentum_epochs")
    if config.dropout == _INNER_DROPOUT:
        inert.add("dropout_everywhere")
    values = {name: value for name, value in values.items() if name not in inert}
    return (*(values | {"contrast": contrast}).items(), weights if contrast else ())
