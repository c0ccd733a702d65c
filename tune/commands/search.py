"""The options of `python tune/search.py`; what they begin is in `tune.execution.launch`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from macil.commands import cli
from macil.errors import UsageError
from tune.algorithms.samplers.registry import SAMPLERS
from tune.algorithms.stopping.registry import RULES
from tune.planning.options import CONFIRM, options_of
from tune.planning.paper_sweeps import SWEEPS

if TYPE_CHECKING:
    from tune.planning.plan import Plan

# What may stand beside --status, and beside --replay, on the command line.
_WITH_STATUS = ("--status", "--storage")
_WITH_REPLAY = ("--replay", "--storage", "--seed", "--data")
_ALL_RUNS = "*"  # what --status is without a name, which no run has
# Titles of the sections of --help, beside those of `macil.commands.cli`.
_TRAINED, _SEARCHED, _RUN, _MACHINES = "What is trained", "What is searched", "The run", "Machines"
_EXAMPLES = (
    ("a search on the demo data", ""),
    ("on your data; the best three again on fresh seeds", "--data DIR --trials 40 --confirm"),
    ("the paper's Table 4, of five seeds a row", "--data DIR --sweep table4 --seeds 5"),
    ("one range more, one value fixed", "--search learning_rate=1e-5..1e-2:log --ramp 0.1"),
    ("go on with a run that was stopped", "--resume NAME"),
)
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.command(
    cls=cli.SectionedCommand,
    context_settings=_CONTEXT,
    examples=_EXAMPLES,
    epilog="--debug, anywhere on the line, shows the traceback of an error.",
)
@cli.option(
    "--data",
    type=cli.PATH_OR_URI,
    help="Folder in the XD-Violence layout, a manifest (.csv, .parquet) or a converted store (path or s3://…); default "
    "the demo data set.",
    section=cli.DATA,
    common=True,
)
@cli.reading_options
@cli.option(
    "--trials",
    type=int,
    help="Configurations to try; default 10 on the demo data, else 40.",
    section=_TRAINED,
    common=True,
)
@cli.option(
    "--sweep",
    type=cli.WORD,
    metavar="NAME|FILE",
    help=f"Train a fixed list instead of searching: {', '.join(SWEEPS)} of the paper, or a .toml file of your own.",
    section=_TRAINED,
    common=True,
)
@cli.option(
    "--seeds",
    type=int,
    help="Sweep: trainings of each row. Search: trainings of the winner's refit. Default 1.",
    section=_TRAINED,
    common=True,
)
@cli.option(
    "--confirm",
    type=int,
    is_flag=False,
    flag_value=CONFIRM,
    metavar="[K]",
    help="Train the K best configurations, and the paper's values, on fresh seeds before the winner is named; "
    f"K is {CONFIRM} if left out.",
    section=_TRAINED,
    common=True,
)
@cli.option("--confirm-seeds", type=int, help="Fresh seeds of each of them; default 5.", section=_TRAINED)
@cli.option(
    "--enqueue",
    type=cli.PATH,
    metavar="FILE",
    help="Try known configurations right after the paper's: [[points]] of a .toml file, or the trials.csv or "
    "trials.parquet of a report.",
    section=_TRAINED,
)
@cli.option(
    "--search",
    multiple=True,
    metavar="NAME=SPEC",
    callback=lambda _context, _option, value: value or None,
    help="Search this too, or within other limits: learning_rate=1e-5..1e-2:log, hidden_dim=64..256:step=64, "
    "contrast=true,false. Repeatable.",
    section=_SEARCHED,
    common=True,
)
@cli.option(
    "--space",
    type=cli.PATH,
    metavar="FILE",
    help="Search the dimensions of a .toml file instead of the default ones; --print-space prints such a file.",
    section=_SEARCHED,
    common=True,
)
@cli.option(
    "--print-space",
    is_flag=True,
    help="Print the space that would be searched, as a file, and stop.",
    section=_SEARCHED,
)
@cli.option(
    "--sampler",
    type=click.Choice(list(SAMPLERS)),
    help="Who suggests configurations: "
    + ", ".join(f"{name} ({sampler.title})" for name, sampler in SAMPLERS.items())
    + "; default tpe.",
    section=_SEARCHED,
    common=True,
)
@cli.option("--search-seed", type=int, help="Seed of the suggestions; default 0.", section=_SEARCHED)
@cli.option(
    "--protocol",
    type=click.Choice(["heldout", "published"]),
    help="Default heldout, for a sweep published.",
    section=cli.COMPARED,
    common=True,
)
@cli.option("--split-seed", type=int, help="Seed of the held-out split; default 0.", section=cli.COMPARED)
@cli.split_by_option
@cli.option(
    "--split",
    type=cli.PATH,
    metavar="FILE",
    help="Hold out the videos that a split.json lists, of another run or of a lab.",
    section=cli.COMPARED,
)
@cli.option(
    "--stopping",
    type=click.Choice([*RULES, "none"]),
    help="Who stops the weaker trials early; default asha for a search from 4 trials on, none for a sweep.",
    section=cli.COMPARED,
    common=True,
)
@cli.option(
    "--asha/--no-asha",
    default=None,
    help="The same as --stopping asha, and as --stopping none.",
    section=cli.COMPARED,
)
@cli.option(
    "--grace",
    type=int,
    help="Epochs that every trial gets before any is stopped; default 15, at most half of the epochs.",
    section=cli.COMPARED,
    common=True,
)
@cli.option(
    "--keep-scores",
    type=click.Choice(["ends", "all"]),
    help="Test scores kept of each trial: of the chosen and last epoch, or of all; default ends.",
    section=cli.COMPARED,
)
@cli.option(
    "--name", type=cli.WORD, help="Name of the run; default its kind and the time.", section=_RUN, common=True
)
@cli.option(
    "--storage",
    type=cli.WORD,
    help="Folder or URI (s3://bucket/…) of the runs; default ./runs.",
    section=_RUN,
    common=True,
)
@cli.option("--overwrite", is_flag=True, help="Replace a run of the same name.", section=_RUN, common=True)
@cli.option(
    "--no-report",
    is_flag=True,
    help="End without writing the report, and so without opening test labels; the command that writes it is printed.",
    section=_RUN,
    common=True,
)
@cli.option("--dry-run", is_flag=True, help="Print the resolved plan and stop.", section=_RUN, common=True)
@cli.option(
    "--resume",
    type=cli.WORD,
    metavar="NAME",
    help="Go on with a run that was stopped or killed; with a larger --trials extend it.",
    section=_RUN,
    common=True,
)
@cli.option(
    "--finish",
    is_flag=True,
    help="With --resume: no more trials; end the run with what there is.",
    section=_RUN,
    common=True,
)
@cli.option(
    "--hours",
    type=float,
    help="End the trials in time for confirmation, refit and report, so that all takes about so long.",
    section=_RUN,
    common=True,
)
@cli.option(
    "--status",
    is_flag=False,
    flag_value=_ALL_RUNS,
    type=cli.WORD,
    metavar="[NAME]",
    help="Show where a run stands, or without NAME which runs there are, from any shell, and stop.",
    section=_RUN,
    common=True,
)
@cli.option(
    "--replay",
    nargs=2,
    type=cli.WORD,
    metavar="RUN TRIAL",
    help="Train a recorded trial again, without Ray, and compare every number; --seed N trains it with another seed.",
    section=_RUN,
    common=True,
)
@cli.option(
    "--address",
    type=cli.WORD,
    help="Ray cluster to use, as for ray.init; default this machine alone.",
    section=_MACHINES,
    common=True,
)
@cli.option(
    "--shared-storage",
    is_flag=True,
    help="With --address: the folder --storage is one that every host sees under the same path; each proves it.",
    section=_MACHINES,
)
@cli.option(
    "--concurrent",
    type=int,
    help="Trials at once; default as many as there is room for.",
    section=_MACHINES,
    common=True,
)
@cli.option(
    "--cpus-per-trial",
    type=float,
    help="CPUs, and so threads, of a trial; default shares all of them out.",
    section=_MACHINES,
)
@cli.option(
    "--gpus-per-trial",
    type=float,
    help="GPUs of a trial, may be a fraction; default 1 where there is one.",
    section=_MACHINES,
    common=True,
)
@cli.option(
    "--trial-timeout",
    type=float,
    metavar="SECONDS",
    help="End a trial that has reported nothing for so long; default 3600.",
    section=_MACHINES,
)
@cli.config_options
@cli.hyperparameter_options
def search(
    name: str | None,
    storage: str | None,
    shared_storage: bool,
    resume: str | None,
    finish: bool,
    hours: float | None,
    overwrite: bool,
    replay: tuple[str, str] | None,
    address: str | None,
    no_report: bool,
    print_space: bool,
    dry_run: bool,
    status: str | None,
    **options: Any,
) -> int:
    """Search the hyperparameters of MACIL-SD with Ray Tune and Optuna, or train a sweep of the paper.

    A hyperparameter that is given is fixed: it leaves the space.
    """
    context, storage = click.get_current_context(), storage or "./runs"
    options["config"] = options.pop("config_file")
    if status is not None:
        _refuse_others(context, _WITH_STATUS, "--status shows a run and changes nothing")
        from tune.commands.status import show_runs, show_status

        if status == _ALL_RUNS:
            return show_runs(storage, cli.plain_console())
        return show_status(status, storage, cli.plain_console())
    if replay is not None:
        _refuse_others(context, _WITH_REPLAY, "--replay trains what was recorded")
        from tune.results.replay import replay_trial

        data = None if options["data"] is None else str(options["data"])
        return replay_trial(*replay, storage, data, options["seed"], cli.plain_console())
    options["stopping"] = _stopping(options["stopping"], options.pop("asha"))
    given = options_of(options)
    # Late: what is refused above does not wait for what runs.
    from tune.execution.launch import RunTarget, planned, prepare

    target = RunTarget(
        name=name,
        storage=storage,
        resume=resume,
        finish=finish,
        hours=hours,
        overwrite=overwrite,
        address=address,
        shared_storage=shared_storage,
    )
    if print_space:
        click.echo(_space_text(planned(given, target)[0]), nl=False)
        return 0
    launch = prepare(given, target)
    console = cli.plain_console()
    if dry_run:
        from tune.planning.bags import bags_at_hand
        from tune.planning.view import print_plan

        print_plan(console, launch.plan, launch.run, address, bags_at_hand(launch.plan))
        return 0
    debug = "--debug" in sys.argv  # `macil.commands.cli.main` takes it off before the options are parsed
    return launch.go(console, report=not no_report, debug=debug)


def _refuse_others(context: click.Context, allowed: Sequence[str], why: str) -> None:
    """Refuse every option of the command line but those that are allowed, of which the first one asks for that.

    Raises:
        UsageError: Another option was given; `why`, and which.
    """
    given = [
        option.opts[0]
        for option in context.command.params
        if option.opts[0] not in allowed
        and context.get_parameter_source(str(option.name)) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        rest = " and ".join(allowed[1:])
        raise UsageError(f"{why}; leave out {', '.join(given)} (only {rest} may be given)")


def _stopping(stopping: str | None, asha: bool | None) -> str | None:
    """What --stopping says, or the two flags that say it in another way."""
    if asha is None:
        return stopping
    flag, same = ("--asha", "asha") if asha else ("--no-asha", "none")
    if stopping not in (None, same):
        raise UsageError(f"{flag} is --stopping {same}, and not --stopping {stopping}; give one of the two")
    return same


def _space_text(plan: Plan) -> str:
    if not plan.space:
        raise UsageError(f"--print-space prints what is searched; --sweep {plan.sweep} searches nothing")
    from tune.planning.space import space_text

    return space_text(plan.space)


def main() -> None:
    """Entry point."""
    cli.main(search)
