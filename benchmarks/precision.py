"""How much average precision half precision costs.

The same trainings, seed by seed, in float32, with the training features kept in float16, under bfloat16 autocast, and
with both; the test AP of the last epoch under the published protocol, and its difference from float32 on the same seed.
Float64 stands beside them: it differs from float32 by rounding alone, which on a small data set already leads a
training elsewhere; half precision costs what goes beyond that. Whatever is found holds for the data it is found on: by
default the demo, with the epochs and batch size that searches on it have.

    python -m benchmarks.precision
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from rich.table import Table

from benchmarks.common import (
    describe_machine,
    device_option,
    finish,
    json_option,
    machine_line,
    make_table,
    prepare,
    threads_option,
)
from macil.config import TrialConfig
from macil.data.opening import resolve
from macil.data.store.feature_store import FeatureStore
from macil.errors import MacilError
from macil.training.engine import Precision
from macil.training.trainer import BagDtype, Trainer
from tune.reporting.statistics.intervals import SHARE, estimate, of_differences


class Variant(NamedTuple):
    """One way of training."""

    bags: BagDtype
    precision: Precision


FULL = "float32"
VARIANTS = {
    FULL: Variant("float32", "fp32"),
    "float64": Variant("float32", "fp64"),
    "float16 bags": Variant("float16", "fp32"),
    "bfloat16": Variant("float32", "bf16"),
    "both": Variant("float16", "bf16"),
}
DEFINITIONS = {"ap_trapezoid": "trapezoid", "ap": "step-wise"}
# As a search on the demo has them.
DEMO_EPOCHS, DEMO_BATCH = 20, 128


def last_ap(
    store: FeatureStore, config: TrialConfig, variant: Variant, device: torch.device
) -> dict[str, float]:
    """Both test AP of the last epoch of one training."""
    trainer = Trainer(
        config,
        store,
        protocol="published",
        device=device.type,
        precision=variant.precision,
        bags=variant.bags,
    )
    while not trainer.finished:
        metrics = trainer.train_epoch()
    return {definition: metrics[definition] for definition in DEFINITIONS}


def compare(values: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, Any]]:
    """Differences from float32, seed by seed, with mean, standard deviation and 95 % t interval."""
    return {
        name: {definition: _difference(measured, values[FULL], definition) for definition in DEFINITIONS}
        for name, measured in values.items()
        if name != FULL
    }


def _difference(
    measured: Sequence[Mapping[str, float]], full: Sequence[Mapping[str, float]], definition: str
) -> dict[str, Any]:
    each = [one[definition] - other[definition] for one, other in zip(measured, full, strict=True)]
    found = estimate(each, of_differences(SHARE))
    assert found is not None
    return {"each": each, **asdict(found)}


# --- command --------------------------------------------------------------------------------------------------


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@device_option
@click.option("--data", help="A store, or a folder in the XD-Violence layout.  [default: the demo]")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--epochs", type=click.IntRange(1), help="[default: 20 on the demo, else 50]")
@click.option("--batch-size", type=click.IntRange(1), help="[default: 128]")
@threads_option
@json_option
def main(
    device_name: str,
    data: str | None,
    seeds: int,
    epochs: int | None,
    batch_size: int | None,
    threads: int | None,
    json_path: Path | None,
) -> None:
    """Train, compare, print."""
    device = prepare(device_name, threads)
    machine = describe_machine(device)
    usual = TrialConfig() if data else TrialConfig(epochs=DEMO_EPOCHS, batch_size=DEMO_BATCH)
    config = usual.replace(epochs=epochs or usual.epochs, batch_size=batch_size or usual.batch_size)
    values: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    try:
        store = resolve(data)
        for seed in range(seeds):
            for name, variant in VARIANTS.items():
                found = last_ap(store, config.replace(seed=seed), variant, device)
                values[name].append(found)
                click.echo(f"seed {seed}, {name}: {100 * found['ap_trapezoid']:.3f}", err=True)
    except MacilError as error:
        raise click.ClickException(str(error)) from None
    differences = compare(values)
    results: dict[str, Any] = {
        "machine": machine,
        "data": store.describe(),
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "seeds": list(range(seeds)),
        "values": values,
        "differences": differences,
    }
    remarks = [machine_line(machine), f"{results['data']}, batches of {config.batch_size} bags."]
    finish([_table(results)], remarks, results, json_path)


def _table(results: dict[str, Any]) -> Table:
    table = make_table(
        f"Test AP of the last of {results['epochs']} epochs in %, {len(results['seeds'])} seeds",
        ["area", "how"],
        ["mean", "less\nfloat32", "deviation", "95 % interval"],
    )
    for definition, text in DEFINITIONS.items():
        for name, measured in results["values"].items():
            mean = sum(one[definition] for one in measured) / len(measured)
            difference = results["differences"].get(name, {}).get(definition)
            table.add_row(text, name, f"{100 * mean:.2f}", *_cells(difference))
        table.add_section()
    return table


def _cells(difference: dict[str, Any] | None) -> list[str]:
    if difference is None:
        return ["-", "-", "-"]
    mean = f"{100 * difference['mean']:+.3f}"
    if difference["deviation"] is None:  # one seed
        return [mean, "-", "-"]
    deviation = f"{100 * difference['deviation']:.3f}"
    if difference["low"] is None:  # two seeds
        return [mean, deviation, "-"]
    low, high = (f"{100 * difference[end]:+.3f}" for end in ("low", "high"))
    return [mean, deviation, f"{low} to {high}"]


if __name__ == "__main__":
    main()
