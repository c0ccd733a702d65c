"""TOML files that a user hands to the command line: sweeps and spaces."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from macil.errors import UsageError
from macil.io.reading import read_text


def read_toml(path: Path, flag: str) -> dict[str, Any]:
    """The content of the file that `flag` names.

    Raises:
        UsageError: It is missing, cannot be read or is no TOML, with the line.
    """
    try:
        return tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise UsageError(f"{flag} {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{flag} {path} cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:  # also of a number too long, or of tables too deep
        raise UsageError(f"{flag} {path} is not valid TOML: {error}") from None
