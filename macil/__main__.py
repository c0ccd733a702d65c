"""`python -m macil`: data, single trainings, scores and exports, without a search."""

from __future__ import annotations

from macil.commands.app import app, main

__all__ = ["app", "main"]

if __name__ == "__main__":
    main()
