"""A run from its beginning to its end: data, trainings, report."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from macil import __version__
from macil.commands.cli import INTERRUPTED
from macil.data.split import Split
from macil.errors import MacilError
from macil.io.files import write_text_atomic
from macil.io.text import printable
from macil.io.wording import now
from tune.execution.interrupts import Interrupted, catching
from tune.planning.options import Options
from tune.planning.plan import Plan, write_plan
from tune.planning.space import space_text
from tune.planning.view import print_plan
from tune.results.next_commands import report_command, resume_command
from tune.storage.names import CONFIG_FILE, LOG_FILE, SPACE_FILE, TRIALS_FOLDER
from tune.storage.run_folder import Workspace, clear, versions

_REASON = 2000  # characters of an error that run.json keeps


def begin(run: Workspace, plan: Plan, given: Options) -> None:
    """Write what a run is, before anything of it is done; `given` is the command line without any default."""
    clear(run)
    write_plan(run.path, plan)
    plan.base.save(run.path / CONFIG_FILE)
    if plan.split is not None:
        Split.load(plan.split).save(run.split)
    if plan.space:
        write_text_atomic(run.path / SPACE_FILE, space_text(plan.space))
    run.update(
        name=run.name,
        status="running",
        phase="trials",
        created=now(),
        command=[printable(word) for word in sys.argv],
        protocol=plan.protocol,
        epoch_rule=plan.epoch_rule,
        sweep=plan.sweep,
        metric="selection_score",
        seeds=list(plan.seeds),
        trials=plan.trials,
        refit=None,
        given=given.flags(),
        versions={"macil": __version__, **versions()},
    )
    run.sync.flush()


def run_to_end(
    run: Workspace,
    plan: Plan,
    console: Console,
    address: str | None,
    *,
    report: bool = True,
    hours: float | None = None,
    debug: bool = False,
    own_process: bool = True,
    fresh: bool = False,
) -> int:
    """Everything from data to report; leaves `run.json` saying how it went.

    Args:
        run: The run, locked.
        plan: What it does.
        console: Where to.
        address: Ray cluster, None for this machine.
        report: Write the report; otherwise the command that writes it is printed.
        hours: From now until the run is to have ended; None is no limit.
        debug: Show the messages of Ray and Tune.
        own_process: The process is there for the run alone: a second signal ends it.
        fresh: It is begun here: where it fails before anything is trained, nothing of it is kept.

    Returns:
        The exit status: 0, or 128 and the number of the signal that stopped the run.
    """
    with catching(lambda: run.update(status="interrupted"), own_process=own_process) as interrupts:
        try:
            run.update(status="running", address=address, failure=None)
            # Imported late: torch and pyarrow are not needed to show a plan.
            from tune.execution.run_data import describe_data, open_data
            from tune.planning.bags import bags_of

            store = open_data(run, plan)
            describe_data(run, plan, store)
            if run.info.phase != "report":
                split = Split.load(run.split) if plan.protocol == "heldout" else None
                print_plan(console, plan, run, address, bags_of(plan, store, split))
                for doubt in run.info.data_notes or ():
                    console.print(f"note: {doubt}", highlight=False, markup=False, soft_wrap=True)
                # Imported late: a dry run or a wrong option should not wait for Ray.
                from tune.execution.phases import train

                train(run, plan, store, console, interrupts, address, hours=hours, debug=debug)
            interrupts.check()
            run.update(status="finished")
            finish(run, console, report=report)
        except (Interrupted, KeyboardInterrupt) as stop:
            with contextlib.suppress(MacilError):
                run.update(status="interrupted")
            code = getattr(stop, "exit_code", INTERRUPTED)
            saved = sum(1 for _ in run.experiment(TRIALS_FOLDER).glob(f"*/{LOG_FILE}"))
            print(
                f"interrupted: {run.location} holds what is done ({saved} trials with results)\n"
                f"go on: {resume_command(run.location, address)}",
                file=sys.stderr,
            )
            return int(code)
        except BaseException as error:
            with contextlib.suppress(MacilError):  # of the two errors, the first says what happened
                error.add_note(_leave(run, address, error, fresh=fresh))
            raise
    return 0


def _leave(run: Workspace, address: str | None, error: BaseException, *, fresh: bool) -> str:
    """Write why a run failed, or take it back where nothing of it was trained; gives what to do next."""
    from tune.results.ranking import NoWinnerError

    trained = run.experiment(TRIALS_FOLDER)
    if fresh and not (trained.is_dir() and any(path.is_dir() for path in trained.iterdir())):
        clear(run)
        return f"nothing was trained and nothing is kept: the name {run.name} is free again"
    # What has failed for good is not trained again by a resume.
    resumable = not isinstance(error, NoWinnerError)
    reason = " ".join(str(error).split()) or type(error).__name__
    run.update(status="failed", failure={"reason": reason[:_REASON], "resumable": resumable})
    if not resumable:
        return f"write the report: {report_command(run.location)}"
    return f"when that is put right, go on: {resume_command(run.location, address)}"


def finish(run: Workspace, console: Console, *, report: bool = True) -> None:
    """Write the report, print what was found and where to look further; or print the command that writes it."""

    def show(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    if not report:
        run.sync.flush()
        _show_place(run, show)
        show(f"write the report: {report_command(run.location)}")
        return
    from tune.reporting.pages.terminal import print_ending
    from tune.reporting.text.next_steps import next_steps
    from tune.reporting.write import write_report
    from tune.results.run import load_run

    console.print("writing the report ...", highlight=False)
    run.sync.pull()
    page = write_report(run.path)
    results = load_run(run.path)
    print_ending(console, results)
    run.sync.flush()
    _show_place(run, show, page)
    for what, command in next_steps(results, page):
        show(f"{what}: {command}")


def _show_place(run: Workspace, show: Callable[[str], None], page: Path | None = None) -> None:
    """Where the model, the report and the run are."""
    if run.model.exists():
        show(f"model   {run.model}")
    elif run.bucket and run.info.winner:  # its weights have stayed there
        show(f"model   {run.bucket}/{run.model.name}")
    if page is not None:
        show(f"report  {page}")
    if run.bucket:
        show(f"run     {run.bucket}, where all of this lies too")
    elif page is None:
        show(f"run     {run.path}")
