"""The file formats that a network is exported to."""

from __future__ import annotations

from typing import Literal, get_args

Format = Literal["safetensors", "onnx", "released"]
FORMATS: tuple[Format, ...] = get_args(Format)
