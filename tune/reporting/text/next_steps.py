"""Next steps after a run has ended: commands to paste, and only those that work for it."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from itertools import count
from pathlib import Path

from macil.data.store.feature_store import FeatureStore, looks_like_store
from macil.data.xd.feature_files import videos_of_files, videos_of_folder
from macil.errors import DataError
from macil.io.command_line import command_line
from macil.io.remote import is_uri
from macil.training.files import MODEL_FILE, newest_checkpoint
from tune.planning.paper_sweeps import SWEEPS
from tune.planning.resolve import confirmable
from tune.reporting.statistics.intervals import FEWEST_SEEDS
from tune.reporting.statistics.outcome import find_outcome
from tune.results.next_commands import begin_command, name_and_storage, open_command
from tune.results.run import RunResults
from tune.results.run_info import given_data

# Characters of a run's name that leave room for what is added to it.
_NAME = 80
# Files of one's own, whose names are to be filled in.
_ANY: tuple[str | Path, ...] = ("VISUAL.npy", "AUDIO.npy")


def next_steps(results: RunResults, page: Path) -> list[tuple[str, str]]:
    """A command and its purpose.

    Args:
        results: The run.
        page: Its report.
    """
    steps = [("open the report", open_command(page))] if _has_browser() else []
    model = _model(results)
    if model is not None:
        name, features = results.path.name, _features(results)
        out = Path(_free(f"{name}-scores", lambda each: Path(each).exists()))
        what = "score a video of your own" if features == _ANY else "score a video"
        steps.append((what, command_line("macil", "score", model, *features, "--out", out)))
        file = Path(
            _free(f"{name}-model", lambda each: Path(f"{each}.safetensors").exists()) + ".safetensors"
        )
        exported = command_line("macil", "export", model, "--to", "safetensors", "--out", file)
        steps.append(("export the model", exported))
    return [*steps, *_again(results)]


def _features(results: RunResults) -> tuple[str | Path, ...]:
    """A test video of the run's data: its file, or its name in a store; else what is to be filled in."""
    given = given_data(results.info)[1]
    try:
        if given and not is_uri(given) and not looks_like_store(Path(given)):
            video = videos_of_folder(Path(given), "test").videos[0]
            file = video.visual[0]
            alone = videos_of_files([file])
            return (file,) if alone.videos == (video,) else (Path(given), f"--video={video.name}")
        store = Path(str(results.info.data))
        return store, f"--video={FeatureStore.open(store).videos('test').names[0]}"
    except (DataError, OSError, IndexError):
        return _ANY


def _model(results: RunResults) -> Path | None:
    """The path for `score` and `export`: of a search its model, of a sweep the reported training."""
    if (results.path / MODEL_FILE).is_file():
        return results.path
    trial = find_outcome(results).replayed if results.info.sweep else None
    folder = results.path / trial.trial_dir if trial else None
    return folder if folder and newest_checkpoint(folder) else None


def _again(results: RunResults) -> list[tuple[str, str]]:
    """The same command with what this run has not measured: how the best do on fresh seeds, or a row's noise."""
    given, trials = results.info.given, results.info.trials
    if given is None or results.plan.confirm:  # `given` is not in runs of an earlier version
        return []
    name, storage = name_and_storage(results.location.shown)
    if results.info.sweep:
        sweep = str(given.get("--sweep"))
        if len(results.info.seeds or ()) >= FEWEST_SEEDS or not (sweep in SWEEPS or Path(sweep).is_file()):
            return []
        what, more, name = (
            "measure the noise between seeds",
            {"--seeds": FEWEST_SEEDS},
            f"{name[:_NAME]}-seeds",
        )
        given = {
            flag: value for flag, value in given.items() if flag not in ("--asha", "--stopping", "--grace")
        }  # those let finish are alike
    else:
        what = "search again, and confirm the best on fresh seeds"
        more = {"--confirm": confirmable(trials)}
        name = f"{name[:_NAME]}-confirmed"
    free = name if is_uri(storage) else _free(name, lambda each: (Path(storage) / each).exists())
    return [(what, begin_command({**given, **more}, free, storage, results.info.address))]


def _free(name: str, taken: Callable[[str], bool]) -> str:
    """`name`, with a number where it is taken."""
    return next(each for number in count(1) if not taken(each := name if number == 1 else f"{name}-{number}"))


def _has_browser() -> bool:
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
