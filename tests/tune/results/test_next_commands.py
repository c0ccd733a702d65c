"""Commands that are printed to be pasted give back the options that a run was begun with."""

from __future__ import annotations

import shlex

from tune.planning.options import Options
from tune.results.next_commands import begin_command


def test_every_dimension_that_was_searched_is_an_option_again() -> None:
    options = Options(
        search=("ramp=0.1..1", " batch_size = 8 .. 64 : log "), stopping="none", space="my space.toml"
    )
    words = shlex.split(begin_command(options.flags(), "again", "runs", None))
    again = [words[number + 1] for number, word in enumerate(words) if word == "--search"]
    assert again == ["ramp=0.1..1", "batch_size=8..64:log"]
    assert words[words.index("--space") + 1] == "my space.toml"
    assert words[words.index("--stopping") + 1] == "none"
    assert Options(search=tuple(again)).flags()["--search"] == options.flags()["--search"]
