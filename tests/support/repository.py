"""Where things lie in the repository, whatever folder a test lies in."""

from __future__ import annotations

from pathlib import Path

import tests

ROOT = Path(tests.__file__).resolve().parent.parent
SEARCH_SCRIPT = ROOT / "tune" / "search.py"
REPORT_SCRIPT = ROOT / "tune" / "report.py"
GOLDEN = ROOT / "tests" / "golden"
INJECTED = ROOT / "tests" / "injected"
"""On PYTHONPATH, runs code in the modules that a process imports."""
