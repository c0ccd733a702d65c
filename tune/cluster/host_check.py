"""The check that a host of a cluster meets the requirements of the search, before it trains anything.

It needs the same code and versions, and, for storage that hosts share, the same folder: each host reads what the
search wrote there. A host that fails the check is no trial's fault; the search stops and names it.
"""

from __future__ import annotations

import hashlib
import platform
import socket
import uuid
from importlib import metadata
from pathlib import Path

import macil
import tune
from macil.errors import DataError, MacilError
from macil.io.files import write_text_atomic
from tune.planning.run_spec import HostRequirements

# File in the run's folder that every host must be able to read.
MARKER = ".shared"
# What numbers depend on, or what passes between processes.
_PACKAGES = ("torch", "ray", "numpy", "pyarrow", "scikit-learn", "pydantic")


class HostError(MacilError):
    """A host cannot serve the search; the search stops, and can be resumed when that is mended."""


def host_requirements(shared: Path | None) -> HostRequirements:
    """What this search requires of hosts; for storage that hosts share, its folder `shared` gets the marker."""
    token = uuid.uuid4().hex
    if shared is not None:
        write_text_atomic(shared / MARKER, token)
    marker = None if shared is None else str(shared / MARKER)
    return HostRequirements(versions=versions_here(), code=code_here(), marker=marker, token=token)


def versions_here() -> dict[str, str]:
    """The versions in this process; a package that is missing is "missing"."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        **{name: _version(name) for name in _PACKAGES},
    }


def code_here() -> str:
    """A hash of the sources that this process runs."""
    digest = hashlib.blake2b(digest_size=8)
    for package in (macil, tune):  # which need not lie beside each other on a worker
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            name = f"{package.__name__}/{path.relative_to(folder).as_posix()}"
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def differences(requirements: HostRequirements, host: str) -> list[str]:
    """The differences between this process and the search, one line each."""
    here = versions_here()
    found = [
        f"{name} {here.get(name, 'missing')} on {host}, {version} in the search"
        for name, version in requirements.versions.items()
        if here.get(name) != version
    ]
    if not found and code_here() != requirements.code:
        found.append(f"the code of macil-tune on {host} is not that of the search")
    return found


_CHECKED: set[str] = set()


def check_host(requirements: HostRequirements | None) -> None:
    """Compare this host with the requirements; once a process.

    Raises:
        HostError: It does not meet them.
    """
    if requirements is None or requirements.token in _CHECKED:
        return
    host = socket.gethostname()
    found = differences(requirements, host)
    if found:
        raise HostError(
            f"host {host} has other versions than the search: {'; '.join(found)}. Install the same there "
            "(constraints.txt), or copy the code again, then go on with --resume"
        )
    if requirements.marker is not None:
        try:
            content = Path(requirements.marker).read_text(encoding="utf-8")
        except OSError as error:
            content = error.strerror or type(error).__name__
        if content != requirements.token:
            what = (
                f"it reads {content[:80]!r} there"
                if len(content) != len(requirements.token)
                else "it is another folder"
            )
            raise HostError(
                f"host {host} does not share the run's folder: {requirements.marker} is not what the search wrote "
                f"({what}); --storage must be a folder that every host sees under the same path, or a URI such as "
                "s3://bucket/runs"
            )
    _CHECKED.add(requirements.token)


def data_error_of_host(error: DataError) -> HostError:
    """Data that are missing on one host only."""
    return HostError(f"host {socket.gethostname()}: {error}")


def _version(package: str) -> str:
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        return "missing"
