"""`docs/api.md` is what the docstrings say today."""

from __future__ import annotations

import macil
import tune
from docs.api import PAGE, page


def test_the_page_is_made_from_the_docstrings_of_today() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: python -m docs.api"


def test_the_page_has_every_public_name() -> None:
    text = page()
    names = [*tune.__all__, *macil.__all__]
    missing = [name for name in names if f"### `{name}" not in text and f".{name}`" not in text]
    assert len(names) > 10
    assert missing == []
