"""Files of `torch.save`: read without ever running code that they may carry."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

from macil.errors import DataError
from macil.io.reading import require_file


def dump_tensors(content: Any) -> memoryview:
    """The bytes that `torch.save` would write, for Python to write: torch hides the reason when the disk is full.

    Equal content gives equal bytes; into a file, torch would note the file's name as well.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def read_tensors(path: str | Path, what: str, *, verify: bool = False) -> Any:
    """Read tensors and plain values to the CPU.

    Args:
        path: The file.
        what: What it should be, for the message ("checkpoint", "weight file").
        verify: Compare the checksums, which torch itself does not: a flipped bit would be another number. For files
            of this package; others may lack checksums.

    Raises:
        DataError: Missing, damaged, cut short, or with anything but tensors and plain values in it; names the file.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a foreign pickle has a message of its own below
            content = torch.load(require_file(path), map_location="cpu", weights_only=True)
        if verify:
            _verify(path)
        return content
    except FileNotFoundError:
        raise DataError(f"{what} {path} does not exist") from None
    except IsADirectoryError:
        raise DataError(f"{what} {path} is a folder; give the file in it") from None
    except pickle.UnpicklingError:
        raise DataError(
            f"{what} {path} cannot be read: it is damaged, or holds more than plain tensors, which is not loaded "
            "because it could run code"
        ) from None
    except Exception as error:  # a damaged file raises anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{what} {path} cannot be read: {reason}") from None


def _verify(path: str | Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # a damaged directory raises anything, too
        raise ValueError(f"it is damaged ({error})") from None
    if damaged is not None:
        raise ValueError(f"it is damaged: {damaged} is not what was written")
