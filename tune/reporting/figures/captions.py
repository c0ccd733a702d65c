"""Captions of the figures: protocol, epoch rule, definition, seeds, and whether the data are a demo."""

from __future__ import annotations

from macil.evaluation.protocols import epoch_rule
from tune.reporting.text import wording
from tune.results.run import RunResults
from tune.results.run_info import is_demo

ONE_SEED = "one seed a trial, no interval"
_RULES = {"last": "last epoch", "chosen": "chosen epoch (first best held-out score)"}


def basis(
    results: RunResults,
    seeds: int | str,
    *,
    definition: str | None = None,
    protocol: str | None = None,
    rule: str | None = None,
) -> str:
    """One sentence, such as "Protocol published; last epoch; trapezoidal AP (the published definition); 3 seeds.".

    Args:
        results: The run.
        seeds: Number of seeds behind each value, or another text about them.
        definition: "ap" or "ap_trapezoid"; None for what is no AP of test frames.
        protocol: Of the trainings shown; None for the run's.
        rule: "last" or "chosen", or an epoch rule in words; None for that of the protocol.
    """
    protocol = protocol or results.protocol
    rule = rule or epoch_rule(protocol)
    messages = [f"protocol {protocol}", _RULES.get(rule, rule)]
    if definition is not None:
        messages.append(
            {"ap_trapezoid": "trapezoidal AP, the published definition"}.get(definition, "step-wise AP")
        )
    messages.append(wording.seeds(seeds) if isinstance(seeds, int) else seeds)
    if is_demo(results.info):
        messages.append("demo data, made up")
    text = "; ".join(part for part in messages if part)
    return f"{text[0].upper()}{text[1:]}."


def score_basis(results: RunResults, seeds: str = ONE_SEED) -> str:
    """`basis` of the selection scores of a search's trials."""
    return basis(results, seeds, rule=f"selection score: {wording.selection_metric(results.protocol)} so far")
