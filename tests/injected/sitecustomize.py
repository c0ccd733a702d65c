"""Puts faults into processes that tests start, or takes safeguards away: code run at the end of a module's import.

Python imports this file at its start when its folder is on PYTHONPATH; Ray's workers inherit that. MACIL_TEST_PATCH
holds a JSON object of module names to code, which is run in the module's own namespace. See
`tests.support.search_command`.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
from collections.abc import Sequence
from types import ModuleType

_PATCHES: dict[str, str] = json.loads(os.environ.get("MACIL_TEST_PATCH", "{}"))


class _Loader(importlib.abc.Loader):
    def __init__(self, inner: importlib.abc.Loader, code: str) -> None:
        self._inner = inner
        self._code = code

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        exec(self._code, module.__dict__)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, _PATCHES[fullname])
        return spec


if _PATCHES:
    sys.meta_path.insert(0, _Finder())
