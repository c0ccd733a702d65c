"""`python tune/search.py`: the main job. Search or sweep, refit, report."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Run as a script: this folder is first on the path, its parent, which holds both packages, is not on it at all.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tune.commands.search import main

if __name__ == "__main__":
    main()
