"""Reading what `torch.save` wrote, without ever running code that a file may carry."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from macil.errors import DataError


def read_tensors(path: str | Path, what: str) -> Any:
    """Read tensors and plain values to the CPU.

    Args:
        path: The file.
        what: What it should be, for the message ("checkpoint", "weight file").

    Raises:
        DataError: Missing, cut short, or with anything but tensors and plain values in it; names the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of a foreign pickle is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{what} {path} does not exist") from None
    except IsADirectoryError:
        raise DataError(f"{what} {path} is a folder; give the file in it") from None
    except pickle.UnpicklingError:
        raise DataError(
            f"{what} {path} cannot be read: it is damaged, or holds more than plain tensors, which is not loaded "
            "because it could run code"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{what} {path} cannot be read: {reason}") from None
