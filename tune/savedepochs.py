"""Which epochs a checkpoint is of, without its weights: a report asks a thousand of them."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from macil.errors import DataError
from macil.files import read_json
from macil.reading import open_file
from tune.storage.names import SAVED_FILE

_KEYS = ("epoch", "chosen_epoch")
# Hundreds of times the description of a training's state, which is all that is read here.
_MOST_BYTES = 64 * 1024**2


def saved_epochs(checkpoint: Path) -> dict[str, int | None]:
    """`last` and `chosen` epoch of a trainer.pt.

    PyTorch's format is an archive of a pickle and the tensors. torch.load rebuilds every tensor, which takes ten times
    as long; the pickle is not loaded either, but read as the list of instructions that it is: none is carried out.

    Where the weights have stayed in a bucket, what stands beside them there says it.

    Raises:
        DataError: It is damaged, or no checkpoint.
    """
    beside = checkpoint.with_name(SAVED_FILE)
    if beside.is_file() and not checkpoint.exists():
        return _beside(beside)
    try:
        with open_file(checkpoint) as file, zipfile.ZipFile(file) as archive:
            (member,) = [member for member in archive.infolist() if member.filename.endswith("/data.pkl")]
            # torch compresses nothing; what is compressed may be a thousand times as large as its file.
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > _MOST_BYTES:
                raise ValueError("its description is compressed or too large")
            found = _find_items(archive.read(member))
        return {"last": found["epoch"], "chosen": found["chosen_epoch"]}
    except Exception as error:  # a damaged archive or pickle raises anything
        raise DataError(" ".join(str(error).split())[:200] or type(error).__name__) from None


def _beside(path: Path) -> dict[str, int | None]:
    content = read_json(path)
    found = {rule: content.get(rule) for rule in ("last", "chosen")} if isinstance(content, dict) else {}
    if type(found.get("last")) is not int or not isinstance(found["chosen"], int | None):
        raise DataError(f"{path} does not say which epochs it is of")
    return found


def _find_items(pickled: bytes) -> dict[str, int | None]:
    """The whole numbers that the outermost table of a pickle holds under `_KEYS`, None where it has None."""
    found: dict[str, int | None] = {}
    for key, value in _outermost_items(pickled):
        if key in _KEYS and (value is None or type(value) is int):
            found[key] = value
            if len(found) == len(_KEYS):
                break
    return found


class _Other:
    """Stands for what is neither text nor a number."""


_MARK, _OTHER = _Other(), _Other()
_PUT = ("BINPUT", "LONG_BINPUT", "PUT")
_GET = ("BINGET", "LONG_BINGET", "GET")
_PLAIN = ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "NONE")


def _outermost_items(pickled: bytes) -> Iterator[tuple[Any, Any]]:
    """Key and value of each item of the table that a pickle begins with, as far as they are text, numbers or None.

    The stack of the pickle machine, with everything else as `_OTHER`; it grows by one place an instruction at most.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    marks = 0
    for instruction, argument, _ in pickletools.genops(pickled):
        name = instruction.name
        if name in _PUT:
            memo[argument] = stack[-1]
            continue
        if name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
            continue
        if name == "MARK":
            stack.append(_MARK)
            marks += 1
            continue
        if name in _PLAIN:
            stack.append(argument)
        elif name in _GET:
            stack.append(memo[argument])
        else:
            marks -= _carry_over(instruction, stack)
        # The table itself, its mark, then keys and values in turn.
        if marks == 1 and len(stack) % 2 == 0 and len(stack) > 3 and stack[1] is _MARK:
            yield stack[-2], stack[-1]


def _carry_over(instruction: pickletools.OpcodeInfo, stack: list[Any]) -> int:
    """What any other instruction takes off the stack and leaves on it; the number of marks it takes."""
    taken = list(instruction.stack_before)
    marked = pickletools.markobject in taken
    if marked:
        while stack.pop() is not _MARK:
            pass
        taken = taken[: taken.index(pickletools.markobject)]
    for _ in taken:
        stack.pop()
    stack.extend(_OTHER for _ in instruction.stack_after)
    return int(marked)
