"""Which tests share a process where several run (`pytest --numprocesses 2 --dist loadgroup`), and which come first.

pytest-xdist 3.8 does that by marks, through an attribute that pytest 9.2 does not have any more: there it silently
hands out every test by itself. Here the processes that collect the tests write down the groups, and the one that hands
them out reads that.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

_FILE = "groups_of_tests"
_FOLDER = pytest.StashKey["tempfile.TemporaryDirectory[str]"]()


def group_of(item: pytest.Item) -> str | None:
    """What an item has to share a process with, None if nothing.

    All that starts a Ray, so that no two of them meet on the same cores. All that needs the S3 server. Tests that share
    a fixture of their file.
    """
    if item.get_closest_marker("ray"):
        return "ray"
    fixtures: dict[str, Sequence[pytest.FixtureDef[object]]] = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    if "s3" in fixtures:
        return "s3"
    if any(each.scope in ("module", "class", "package") for found in fixtures.values() for each in found):
        return item.nodeid.split("::")[0]
    return None


def order(items: list[pytest.Item]) -> None:
    """Order the tests: those with Ray take longest and come first, and what shares a process stays together."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out groups as a whole, and every other test by itself."""

    groups: dict[str, str]

    def schedule(self) -> None:
        """Hand out tests; the groups are known as soon as the tests are."""
        self.groups = json.loads(_groups_file(self.config).read_text(encoding="utf-8"))
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return self.groups.get(nodeid, nodeid)


def tell_worker(node: Any) -> None:
    """Tell a process that is being started where the groups are to be written."""
    stash = node.config.stash
    if _FOLDER not in stash:
        stash[_FOLDER] = tempfile.TemporaryDirectory(prefix="groups-of-tests-")
        node.config.add_cleanup(stash[_FOLDER].cleanup)
    node.workerinput[_FILE] = str(_groups_file(node.config))


def write_groups(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Write down the groups, in a process that was given the file; all of them write the same."""
    path = getattr(config, "workerinput", {}).get(_FILE)
    if path is not None:
        found = {item.nodeid: group for item in items if (group := group_of(item)) is not None}
        Path(path).write_text(json.dumps(found), encoding="utf-8")


def _groups_file(config: pytest.Config) -> Path:
    return Path(config.stash[_FOLDER].name) / "groups.json"
