"""Which epochs a checkpoint is of, without its weights: a report asks a thousand of them."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

from macil.errors import DataError


def saved_epochs(checkpoint: Path) -> dict[str, int | None]:
    """`last` and `chosen` epoch of a trainer.pt.

    PyTorch's format is an archive of a pickle and the tensors; torch.load rebuilds every tensor, ten times as long as
    reading the pickle alone. Whatever the pickle names is replaced by an inert mapping, so nothing in it can run.

    Raises:
        DataError: It is damaged, or no checkpoint.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            state = _Inert(io.BytesIO(archive.read(name))).load()
        return {"last": state["epoch"], "chosen": state["chosen_epoch"]}
    except Exception as error:  # a damaged pickle raises anything
        raise DataError(" ".join(str(error).split())[:200] or type(error).__name__) from None


class _Nothing(dict[Any, Any]):
    """Stands for any object: takes all arguments and any state, and does nothing with them."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        return


class _Inert(pickle.Unpickler):
    def find_class(self, _module: str, _name: str) -> Any:
        return _Nothing

    def persistent_load(self, _pid: Any) -> Any:
        return None  # a tensor's storage
