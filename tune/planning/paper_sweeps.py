"""The paper's fixed sweeps as data: configurations by row, with the published numbers and their source beside them.

A published number is shown next to a measured one and enters no training and no choice. Sweeps of one's own are TOML
files (`tune.planning.sweep_file`), and have the same model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from macil.config import PRESETS, TrialConfig
from macil.errors import ConfigError
from macil.io.formats import FileModel
from macil.io.text import brief, printable
from tune.storage.run_file import Scalar

# Part of folder names.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=-]{0,59}\z")]
_MOST_ROWS = 1000
# What a row may not set, and what to do instead.
_NOT_HERE = {
    "seed": "every row is trained with the same seeds; give --seed and --seeds",
    "epochs": "all rows are trained equally long; give --epochs",
}


class Row(FileModel):
    """One row of a sweep.

    Attributes:
        name: Unique within the sweep; part of the trials' folder names.
        changes: Hyperparameters that the row sets; all others are the run's.
        published_ap: Trapezoidal AP in percent at the best test epoch, one seed, as printed in the paper; None
            where the paper gives no figure in text.
        source: Where the published number stands.
    """

    name: _Name
    changes: dict[str, Scalar]
    published_ap: Annotated[float, Field(ge=0, le=100)] | None = None
    source: str | None = None

    @field_validator("changes", mode="before")
    @classmethod
    def _are_hyperparameters(cls, changes: object) -> object:
        """Every fault of a row at once; whether width and heads fit is checked in the plan, which knows both."""
        if not isinstance(changes, dict):
            return changes
        faults = [f"{name}: {why}" for name, why in _NOT_HERE.items() if name in changes]
        try:
            TrialConfig.from_dict(changes)
        except ConfigError as error:
            faults += [line for line in str(error).splitlines() if "is not divisible by" not in line]
        if faults:
            raise ValueError("\n".join(faults))
        return changes


class Sweep(FileModel):
    """A list of configurations, each trained with every seed.

    Attributes:
        name: What it is called: what `--sweep` takes, or the name in its file.
        title: One line for plan and report.
        source: Where the published numbers stand, or where the sweep comes from.
        reference: The row that the others are compared with; in the paper's sweeps its own setting.
        rows: In the paper's order.
    """

    name: _Name
    title: str
    source: str
    rows: Annotated[tuple[Row, ...], Field(strict=False)]
    reference: str

    @field_validator("rows")
    @classmethod
    def _are_some_of_different_names(cls, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        if not rows:
            raise ValueError("expected at least one [[rows]] with name and changes")
        if len(rows) > _MOST_ROWS:
            raise ValueError(f"{len(rows)} of them; expected at most {_MOST_ROWS}")
        # Names of folders may not distinguish upper from lower case.
        folded = [row.name.casefold() for row in rows]
        twice = [row.name for index, row in enumerate(rows) if folded.index(folded[index]) < index]
        if twice:
            raise ValueError("\n".join(f"the name {brief(name)} is given more than once" for name in twice))
        return rows

    @field_validator("reference")
    @classmethod
    def _is_a_row(cls, reference: str, info: ValidationInfo) -> str:
        names = [row.name for row in info.data.get("rows", ())]
        if names and reference not in names:
            raise ValueError(f"{brief(reference)} is none of the rows: {printable(', '.join(names))[:500]}")
        return reference

    @property
    def swept(self) -> tuple[str, ...]:
        """The hyperparameters that the rows set, which the command line therefore may not fix."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.changes))


def _row(
    name: str, changes: Mapping[str, Scalar], published_ap: float | None = None, source: str | None = None
) -> Row:
    return Row(name=name, changes=dict(changes), published_ap=published_ap, source=source)


def _table3() -> tuple[Row, ...]:
    published = {"two-stream": 71.37, "two-stream+sd": 74.01, "light": 82.17, "full": 83.40}
    return tuple(
        _row(
            preset,
            {"contrast": PRESETS[preset].contrast, "distill": PRESETS[preset].distill},
            ap,
            f"Table 3, row {number}",
        )
        for number, (preset, ap) in enumerate(published.items(), start=1)
    )


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
            number = len(rows) + 1
            changes = {"lambda_v2b": lambda_v2b, "lambda_v2n": lambda_v2n, "ramp": ramp}
            rows.append(_row(f"{number:02d}", changes, ap, f"Table 4, row {number}"))
    return tuple(rows)


def _figure3() -> tuple[Row, ...]:
    # The curve is printed as a picture; the text names its best m, whose AP is the model's.
    values = (0.81, 0.83, 0.85, 0.87, 0.89, 0.91, 0.93, 0.95, 0.97, 0.99, 1.0)
    best = {0.91: (83.40, "section 5.6 (best m) and Table 4, row 10")}
    return tuple(_row(f"m={m:.2f}", {"momentum": m}, *best.get(m, (None, None))) for m in values)


def _around(symbol: str, name: str, values: Iterable[float]) -> tuple[Row, ...]:
    """Rows over one hyperparameter that the paper keeps at its default; only that one has a published number."""
    default = getattr(TrialConfig(), name)
    best = {default: (83.40, f"Table 4, row 10; the paper trains with {symbol} = {default:g} only")}
    return tuple(
        _row(f"{symbol}={value:g}", {name: value}, *best.get(value, (None, None))) for value in values
    )


SWEEPS: Mapping[str, Sweep] = MappingProxyType(
    {
        sweep.name: sweep
        for sweep in (
            Sweep(
                name="table3",
                title="components: two-stream network, MA-CIL, self-distillation",
                source="Table 3 of the paper",
                rows=_table3(),
                reference="full",
            ),
            Sweep(
                name="table4",
                title="loss control: Λ_v2n, Λ_v2b and r",
                source="Table 4 of the paper",
                rows=_table4(),
                reference="10",
            ),
            Sweep(
                name="figure3",
                title="control hyperparameter m of self-distillation",
                source="Figure 3 of the paper; its text gives the best m only, "
                "so the other rows have no published number",
                rows=_figure3(),
                reference="m=0.91",
            ),
            Sweep(
                name="tau",
                title="temperature τ of the contrastive terms",
                source="section 5.2 of the paper, which trains with τ = 0.1 only",
                rows=_around("tau", "temperature", (0.03, 0.05, 0.1, 0.2, 0.5, 1.0)),
                reference="tau=0.1",
            ),
            Sweep(
                name="hidden",
                title="width d of both streams, with its parameter counts",
                source="Table 1 of the paper, which has d = 128 only",
                rows=_around("d", "hidden_dim", (32, 64, 128, 256)),
                reference="d=128",
            ),
        )
    }
)
