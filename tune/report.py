"""`python tune/report.py RUN [RUN ...]`: runs as tables and figures, in pages that need no network and in files."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    if not __package__:
        # As a script: this folder is first on the path, its parent, which holds both packages, is not on it at all.
        sys.path[0] = str(folder.parent)

    from macil.io.packages import require_own

    require_own("tune", folder)

    from tune.commands.report import main

    main()
