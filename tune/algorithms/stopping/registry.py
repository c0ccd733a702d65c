"""The stopping rules by name. Without one, every trial is trained to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from tune.algorithms.stopping.asha import AshaSettings
from tune.algorithms.stopping.median import MedianSettings

RuleName = Literal["asha", "median"]
StoppingSettings = Annotated[AshaSettings | MedianSettings, Field(discriminator="rule")]

RULES: Mapping[RuleName, type[AshaSettings | MedianSettings]] = {
    "asha": AshaSettings,
    "median": MedianSettings,
}
