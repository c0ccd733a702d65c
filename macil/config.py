"""Every hyperparameter once: name, type, default, range, unit, meaning.

The command line, the search space, the study and the report derive from `TrialConfig` through `hyperparameters()`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args, get_origin

import tomli_w
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from macil.errors import ConfigError
from macil.io.files import write_text_atomic
from macil.io.reading import read_text
from macil.io.text import brief

# Where the paper and the authors' released code differ; docs/fidelity.md says how each difference was found.
FIDELITY: dict[str, dict[str, Any]] = {
    "released": {
        "stream_swap": True,
        "bag_weighting": "snippet",
        "background_pool": "video",
        "mask_padding": False,
        "shared_head": True,
        "identical_projections": True,
        "dropout_everywhere": False,
        "cosine_epochs": 60,
    },
    "paper": {
        "stream_swap": False,
        "bag_weighting": "video",
        "background_pool": "batch",
        "mask_padding": True,
        "shared_head": False,
        "identical_projections": False,
        "dropout_everywhere": True,
        "cosine_epochs": 50,
    },
}


def _parameter(default: Any, text: str, *, unit: str = "", symbol: str = "", **limits: Any) -> Any:
    return Field(
        default=default, description=text, json_schema_extra={"unit": unit, "symbol": symbol}, **limits
    )


def head_fault(hidden_dim: int, num_heads: int) -> str | None:
    """Why these two do not go together; None where they do."""
    if hidden_dim % num_heads == 0:
        return None
    return (
        f"hidden_dim = {hidden_dim} is not divisible by num_heads = {num_heads}; "
        "every head needs the same whole width"
    )


class TrialConfig(BaseModel):
    """All that defines one training besides its data. Frozen and validated; defaults are the paper's section 5.2.

    `fidelity` presets the switches named in `FIDELITY`; a switch given explicitly overrides its preset.

    Raises:
        ConfigError: Names every field at fault with the value received and the values allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    lambda_v2b: Annotated[
        float,
        _parameter(1.5, "largest weight of violent against background", symbol="Λ_v2b", ge=0, le=100),
    ]
    lambda_v2n: Annotated[
        float,
        _parameter(1.5, "largest weight of violent against normal", symbol="Λ_v2n", ge=0, le=100),
    ]
    ramp: Annotated[
        float,
        _parameter(0.1, "growth of both weights, eq. 9", unit="per epoch", symbol="r", ge=0, le=100),
    ]
    temperature: Annotated[
        float,
        _parameter(0.1, "temperature of InfoNCE, eq. 5 and 6", symbol="τ", ge=0.005, le=10),
    ]
    momentum: Annotated[
        float,
        _parameter(0.91, "initial share of its own weights a network keeps, eq. 7", symbol="m", ge=0, le=1),
    ]
    hidden_dim: Annotated[int, _parameter(128, "width of both streams", symbol="d", ge=1, le=4096)]
    learning_rate: Annotated[
        float,
        _parameter(4e-4, "initial learning rate of the audio-visual network", gt=0, le=1),
    ]
    visual_learning_rate: Annotated[
        float,
        _parameter(8e-5, "initial learning rate of the visual network", gt=0, le=1),
    ]
    batch_size: Annotated[int, _parameter(128, "bags a step", unit="bags", ge=1, le=65536)]
    epochs: Annotated[int, _parameter(50, "passes over the training bags", unit="epochs", ge=1, le=10000)]
    max_snippets: Annotated[
        int,
        _parameter(
            200, "a longer training video is subsampled to this length", unit="snippets", ge=1, le=10000
        ),
    ]
    dropout: Annotated[float, _parameter(0.1, "dropout rate of the residual branches", ge=0, le=0.95)]
    num_heads: Annotated[int, _parameter(4, "attention heads", ge=1, le=64)]
    feedforward_dim: Annotated[
        int, _parameter(128, "width inside the feed-forward", symbol="f", ge=1, le=16384)
    ]
    momentum_epochs: Annotated[
        int,
        _parameter(50, "half period of the momentum's cosine", unit="epochs", ge=1, le=10000),
    ]
    cosine_epochs: Annotated[
        int,
        _parameter(60, "half period of the learning rates' cosine", unit="epochs", ge=1, le=10000),
    ]
    seed: Annotated[int, _parameter(0, "seed of every random number of the training", ge=0, le=2**31 - 1)]
    contrast: Annotated[bool, _parameter(True, "modality-aware contrastive instance learning (MA-CIL)")]
    distill: Annotated[bool, _parameter(True, "self-distillation from the visual network (SD)")]
    fidelity: Annotated[
        Literal["released", "paper"],
        _parameter("released", "preset of the switches below: the authors' code or the paper's text"),
    ]
    stream_swap: Annotated[
        bool,
        _parameter(True, "a stream's logits select embeddings of the other stream"),
    ]
    bag_weighting: Annotated[
        Literal["video", "snippet"],
        _parameter("snippet", "a violent video counts once, or once per selected snippet"),
    ]
    background_pool: Annotated[
        Literal["video", "batch"],
        _parameter("video", "background: bottom-K of every video, or of the whole mini-batch"),
    ]
    mask_padding: Annotated[bool, _parameter(False, "attention ignores padded snippets")]
    shared_head: Annotated[bool, _parameter(True, "one logit head for both streams instead of one each")]
    identical_projections: Annotated[
        bool,
        _parameter(True, "the four attention projections start as copies of one another"),
    ]
    dropout_everywhere: Annotated[
        bool,
        _parameter(
            False, "the dropout rate also reaches attention weights and feed-forward (else 0.1 there)"
        ),
    ]

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explain(error, values)) from None

    @model_validator(mode="before")
    @classmethod
    def _apply_fidelity(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        preset = FIDELITY.get(str(values.get("fidelity", "released")), {})
        return {**preset, **values}

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if fault := head_fault(self.hidden_dim, self.num_heads):
            raise ValueError(fault)
        return self

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrialConfig:
        """Build from a plain mapping, as read from TOML, YAML, JSON or a checkpoint.

        Raises:
            ConfigError: As the constructor; also when `values` is no mapping.
        """
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise ConfigError(f"a configuration is a table of names and values, not {brief(values)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Every hyperparameter with its resolved value, in the order of definition."""
        return self.model_dump()

    def replace(self, **changes: Any) -> TrialConfig:
        """A copy with `changes`; a new `fidelity` also presets the switches that are not among the changes."""
        values = self.to_dict()
        if changes.get("fidelity", self.fidelity) != self.fidelity:
            values = {name: value for name, value in values.items() if name not in FIDELITY[self.fidelity]}
        return type(self)(**{**values, **changes})

    @property
    def switches(self) -> StepSwitches:
        """The switches on which the code of a training step depends."""
        return StepSwitches(*(getattr(self, name) for name in StepSwitches._fields))

    def save(self, path: str | Path) -> None:
        """Write as TOML or YAML, by the ending of `path` (.toml, .yaml, .yml), in one step.

        Raises:
            ConfigError: Another ending.
        """
        write_text_atomic(path, self.to_text(_format_of(Path(path))))

    def to_text(self, kind: str = "toml") -> str:
        """The resolved configuration as TOML or YAML text."""
        if kind == "toml":
            return tomli_w.dumps(self.to_dict())
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def load(cls, path: str | Path) -> TrialConfig:
        """Read TOML or YAML, by the ending of `path`.

        Raises:
            ConfigError: Unreadable, not TOML or YAML, or values that the constructor refuses; names the file.
        """
        path = Path(path)
        kind = _format_of(path)
        try:
            text = read_text(path)
            values = _parse(text, kind)
            return cls.from_dict({} if values is None else values)
        except FileNotFoundError:
            raise ConfigError(f"configuration {path} does not exist") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"configuration {path} cannot be read: {error}") from None
        except _SyntaxError as error:
            raise ConfigError(f"configuration {path} is not valid {kind.upper()}: {error}") from None
        except ConfigError as error:
            raise ConfigError(f"in {path}: {error}") from None


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: a few hundred bytes of them stand for more values than there is memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"line {mark.line + 1}: aliases (*) are not supported; write the value")
        return super().compose_node(parent, index)


class StepSwitches(NamedTuple):
    """The fields of `TrialConfig` that decide which code a training step runs.

    Everything else in a configuration is a number or a shape that it runs on: trials that agree in these and in their
    shapes share a compiled step.
    """

    num_heads: int
    contrast: bool
    stream_swap: bool
    bag_weighting: Literal["video", "snippet"]
    background_pool: Literal["video", "batch"]
    mask_padding: bool


# Rows 1 to 4 of the paper's Table 3; rows 3 and 4 are its light and full models (Table 1).
PRESETS: dict[str, TrialConfig] = {
    "two-stream": TrialConfig(contrast=False, distill=False),
    "two-stream+sd": TrialConfig(contrast=False, distill=True),
    "light": TrialConfig(contrast=True, distill=False),
    "full": TrialConfig(),
}


def departures(values: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters in which a training is not the paper's setting, with the paper's values; empty if it is that.

    The paper's setting is section 5.2 with Table 4, row 10; its switches are all as the released code or all as the
    text has them (`fidelity`). The seed does not count. A value that is absent or None is taken not to be the paper's.

    Args:
        values: Hyperparameter to value, as `TrialConfig.to_dict` gives them.
    """
    fidelity = values.get("fidelity")
    paper = TrialConfig(fidelity=fidelity if fidelity in FIDELITY else "released").to_dict()
    return {name: own for name, own in paper.items() if name != "seed" and values.get(name) != own}


@dataclass(frozen=True)
class Hyperparameter:
    """One field of `TrialConfig`, as the command line, the search space and the report need it.

    `low` and `high` are inclusive unless `low_exclusive`; `choices` is set for named options.
    """

    name: str
    type: type[bool] | type[int] | type[float] | type[str]
    default: Any
    low: float | None
    high: float | None
    low_exclusive: bool
    choices: tuple[str, ...]
    unit: str
    symbol: str
    help: str

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return " or ".join(self.choices)
        if self.type is bool:
            return "true or false"
        kind = "a whole number" if self.type is int else "a number"
        low = f"above {self.low:g}" if self.low_exclusive else f"from {self.low:g}"
        return f"{kind} {low} to {self.high:.10g}"


def hyperparameters() -> list[Hyperparameter]:
    """Every hyperparameter in the order of `TrialConfig`."""
    return [_describe(name) for name in TrialConfig.model_fields]


def _describe(name: str) -> Hyperparameter:
    field = TrialConfig.model_fields[name]
    limits: dict[str, float] = {}
    for item in field.metadata:
        limits |= {
            key: getattr(item, key) for key in ("ge", "gt", "le") if getattr(item, key, None) is not None
        }
    choices = tuple(get_args(field.annotation)) if get_origin(field.annotation) is Literal else ()
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    kind: Any = str if choices else field.annotation
    return Hyperparameter(
        name=name,
        type=kind,
        default=field.default,
        low=limits.get("ge", limits.get("gt")),
        high=limits.get("le"),
        low_exclusive="gt" in limits,
        choices=choices,
        unit=str(extra["unit"]),
        symbol=str(extra["symbol"]),
        help=str(field.description),
    )


class _SyntaxError(Exception):
    pass


def _parse(text: str, kind: str) -> Any:
    try:
        return tomllib.loads(text) if kind == "toml" else yaml.load(text, _PlainLoader)
    except (
        Exception
    ) as error:  # both parsers let errors out that are not their own: of a date that is none, say
        raise _SyntaxError(" ".join(str(error).split())[:500] or type(error).__name__) from None


def _explain(error: ValidationError, values: dict[str, Any]) -> str:
    """One line per fault: the field, the value received, the values allowed."""
    lines = []
    for fault in error.errors(include_url=False):
        name = str(fault["loc"][0]) if fault["loc"] else ""
        if fault["type"] == "extra_forbidden":
            close = difflib.get_close_matches(name, TrialConfig.model_fields, n=1)
            hint = (
                f"; did you mean {close[0]}?"
                if close
                else f"; known are {', '.join(TrialConfig.model_fields)}"
            )
            lines.append(f"unknown hyperparameter {brief(name)}{hint}")
        elif name in TrialConfig.model_fields:
            hint = _number_hint(fault["input"]) if _describe(name).type in (int, float) else ""
            lines.append(
                f"{name} = {brief(fault['input'])} is not allowed: expected {_describe(name).allowed}{hint}"
            )
        else:
            lines.append(fault["msg"].removeprefix("Value error, "))
    # pydantic skips the check between two fields while any field is at fault; report it all the same.
    at_fault = {str(fault["loc"][0]) if fault["loc"] else "" for fault in error.errors(include_url=False)}
    if not at_fault & {"", "hidden_dim", "num_heads"}:
        hidden_dim, num_heads = (
            values.get(name, _describe(name).default) for name in ("hidden_dim", "num_heads")
        )
        if unequal := head_fault(hidden_dim, num_heads):
            lines.append(unequal)
    return "\n".join(lines)


def _number_hint(value: Any) -> str:
    """Advice about a number that arrived as text, as 4e-4 does from YAML, which wants a point in it."""
    if not isinstance(value, str):
        return ""
    try:
        float(value)
    except ValueError:
        return ""
    return "; this is text: leave the quotes away, and in YAML write an exponent with a point, as 4.0e-4"


def _format_of(path: Path) -> str:
    kinds = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
    if path.suffix.lower() not in kinds:
        raise ConfigError(f"a configuration file ends in .toml, .yaml or .yml, not {path.name!r}")
    return kinds[path.suffix.lower()]
