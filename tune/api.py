"""Searches and sweeps from Python: what `python tune/search.py` and `tune/report.py` do, as functions.

Their keywords are the options of `python tune/search.py`, by the same names: `--search-seed 3` is `search_seed=3`, and
a hyperparameter is fixed as there, `epochs=20`. A script needs no `if __name__ == "__main__"`; a Ray that the process
is connected to already is used, and left as it is.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from macil.commands.cli import INTERRUPTED, plain_console
from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.errors import UsageError
from tune.execution.launch import RunTarget, prepare
from tune.planning.options import Options, checked, options_of, require_names
from tune.reporting.write import write_report
from tune.results.ranking import Winner
from tune.results.run import RunResults, load_run

__all__ = ["RunResults", "Winner", "keywords", "load_run", "run_search", "run_sweep", "write_report"]

Data = str | os.PathLike[str] | FeatureStore | None

_FunctionT = TypeVar("_FunctionT", bound=Callable[..., Any])
# Options that are no keyword: positional, another function's, or made from others.
_NO_KEYWORDS = {"data", "sweep", "base", "hyperparameters"}
# Keywords of a search that mean nothing to a sweep, see `tune.planning.resolve`.
_OF_A_SEARCH = {"trials", "sampler", "enqueue", "search_seed", "confirm", "confirm_seeds", "space", "search"}


def keywords(*, sweep: bool = False) -> dict[str, inspect.Parameter]:
    """The keywords of `run_search`, or of `run_sweep`: those of `Options`, of `RunTarget`, and every hyperparameter."""
    left_out = _NO_KEYWORDS | (_OF_A_SEARCH if sweep else set())
    fields = {**Options.model_fields, **RunTarget.model_fields}
    found = {
        name: inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation
        )
        for name, field in fields.items()
        if name not in left_out
    }
    for name, field in TrialConfig.model_fields.items():
        annotation = field.annotation | None if field.annotation else Any
        found[name] = inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
        )
    return found


def _with_keywords(*, sweep: bool = False) -> Callable[[_FunctionT], _FunctionT]:
    """Decorator: the signature that `help` and editors show says every keyword."""

    def decorate(function: _FunctionT) -> _FunctionT:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        parameters = [*own, *keywords(sweep=sweep).values()]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return function

    return decorate


@_with_keywords()
def run_search(data: Data = None, *, report: bool = True, quiet: bool = False, **options: Any) -> RunResults:
    """Search hyperparameters: trials, confirmation if asked for, the winner's refit, report.

    Args:
        data: Folder in the XD-Violence layout, a converted store (its path, a URI or a `FeatureStore`); None is the
            demo data set.
        report: Write the report, which opens the test labels of a held-out search once it has ended.
        quiet: Print nothing.
        options: Those of `python tune/search.py`, and hyperparameters, which leave the space. None is the default.
            `config` may be a `TrialConfig`, `search` a mapping such as `{"learning_rate": "1e-5..1e-2:log"}`;
            `resume` goes on with a run.

    Returns:
        What was measured: `trials` and `epochs` are Arrow tables, `winner.config` and `winner.load()` the result.

    Raises:
        UsageError: Options that contradict one another or ask for the impossible, named as on the command line.
        DataError: The data, or the run to resume, are not what they should be.
        NoWinnerError: Every trial failed.
        KeyboardInterrupt: Ctrl-C; what is done is saved, and `resume` goes on.
    """
    if "sweep" in options:
        raise UsageError("a sweep is trained by run_sweep(data, sweep), not by run_search")
    return _run(data, options, report=report, quiet=quiet)


@_with_keywords(sweep=True)
def run_sweep(
    data: Data, sweep: str | os.PathLike[str], *, report: bool = True, quiet: bool = False, **options: Any
) -> RunResults:
    """Train a fixed list of configurations: a sweep of the paper, or a file's.

    Args:
        data: As for `run_search`.
        sweep: `table3`, `table4`, `figure3`, `tau`, `hidden`, or the path of a .toml file.
        report: As for `run_search`.
        quiet: As for `run_search`.
        options: As for `run_search`, but for those that belong to a search; `seeds` trainings of each row.

    Returns:
        What was measured; a row of `trials` each, and no winner.

    Raises:
        UsageError: As for `run_search`; no such sweep.
        DataError: As for `run_search`.
        KeyboardInterrupt: As for `run_search`.
    """
    return _run(data, {**options, "sweep": os.fspath(sweep)}, report=report, quiet=quiet)


def _run(data: Data, options: Mapping[str, Any], *, report: bool, quiet: bool) -> RunResults:
    of_target = RunTarget.model_fields.keys()
    own = {name: value for name, value in options.items() if name not in of_target}
    require_names(own, {*Options.model_fields, *TrialConfig.model_fields} - (_NO_KEYWORDS - {"sweep"}))
    chosen = {
        name: os.fspath(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if name in of_target and value is not None
    }
    target = checked(RunTarget, chosen)
    given = options_of({**own, "data": data.path if isinstance(data, FeatureStore) else data})
    launch = prepare(given, target)
    code = launch.go(plain_console(quiet=quiet), report=report, own_process=False)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise SystemExit(code)  # SIGTERM, which would have ended the process
    return load_run(launch.run.path)
