"""`python tune/report.py RUN [RUN ...]`: runs as tables and figures, in pages that need no network and in files."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Run as a script: this folder is first on the path, its parent, which holds both packages, is not on it at all.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tune.commands.report import main

if __name__ == "__main__":
    main()
