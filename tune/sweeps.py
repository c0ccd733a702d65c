"""The paper's fixed sweeps as data: configurations by row, with the published numbers beside them.

A published number is shown next to a measured one and enters no computation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from macil.config import PRESETS, TrialConfig


@dataclass(frozen=True)
class Row:
    """One row of a sweep.

    Attributes:
        name: Unique within the sweep; part of the trials' folder names.
        changes: Hyperparameters that the row sets; all others are the run's.
        published_ap: Trapezoidal AP in percent at the best test epoch, one seed, as printed in the paper; None
            where the paper gives no figure in text.
    """

    name: str
    changes: Mapping[str, Any]
    published_ap: float | None


@dataclass(frozen=True)
class Sweep:
    """A table or figure of the paper.

    Attributes:
        name: What `--sweep` calls it.
        title: One line for plan and report.
        source: Where the published numbers stand.
        rows: In the paper's order.
    """

    name: str
    title: str
    source: str
    rows: tuple[Row, ...]

    @property
    def swept(self) -> tuple[str, ...]:
        """The hyperparameters that the rows set, which the command line therefore may not fix."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.changes))


def _row(name: str, published_ap: float | None, **changes: Any) -> Row:
    return Row(name, MappingProxyType(changes), published_ap)


def _preset_row(preset: str, published_ap: float) -> Row:
    config: TrialConfig = PRESETS[preset]
    return _row(preset, published_ap, contrast=config.contrast, distill=config.distill)


def _table4() -> tuple[Row, ...]:
    # The table's first column is headed Λ_v2a; the text of section 5.6 and the released options call it Λ_v2n.
    published = {
        (1.0, 1.0): (82.62, 82.67, 82.09),
        (1.5, 1.0): (82.95, 81.37, 82.15),
        (1.0, 1.5): (83.21, 82.62, 81.68),
        (1.5, 1.5): (83.40, 81.61, 82.14),
    }
    rows: list[Row] = []
    for (lambda_v2n, lambda_v2b), values in published.items():
        for ramp, ap in zip((0.1, 0.3, 3.0), values, strict=True):
            name = f"{len(rows) + 1:02d}"
            rows.append(_row(name, ap, lambda_v2b=lambda_v2b, lambda_v2n=lambda_v2n, ramp=ramp))
    return tuple(rows)


SWEEPS: Mapping[str, Sweep] = MappingProxyType(
    {
        sweep.name: sweep
        for sweep in (
            Sweep(
                "table3",
                "components: two-stream network, MA-CIL, self-distillation",
                "Table 3 of the paper",
                (
                    _preset_row("two-stream", 71.37),
                    _preset_row("two-stream+sd", 74.01),
                    _preset_row("light", 82.17),
                    _preset_row("full", 83.40),
                ),
            ),
            Sweep("table4", "loss control: Λ_v2n, Λ_v2b and r", "Table 4 of the paper", _table4()),
            Sweep(
                "figure3",
                "control hyperparameter m of self-distillation",
                "Figure 3 of the paper; its text gives the best m only, so the other rows have no published number",
                tuple(
                    _row(f"m={m:.2f}", 83.40 if m == 0.91 else None, momentum=m)
                    for m in (0.81, 0.83, 0.85, 0.87, 0.89, 0.91, 0.93, 0.95, 0.97, 0.99, 1.0)
                ),
            ),
        )
    }
)
