"""The command of `python tune/search.py`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from macil.commands import cli
from macil.commands.cli import PlainConsole
from macil.errors import UsageError
from macil.io.remote import is_uri
from macil.io.wording import now_in_name
from tune.algorithms.samplers.registry import SAMPLERS
from tune.algorithms.stopping.registry import RULES
from tune.commands.status import show_status
from tune.execution.pipeline import begin, run_to_end
from tune.execution.session import quiet_ray
from tune.planning.bags import bags_at_hand
from tune.planning.earlier import flags_of_earlier_version, plan_of_earlier_version
from tune.planning.options import Options
from tune.planning.paper_sweeps import SWEEPS
from tune.planning.plan import Plan, read_plan
from tune.planning.resolve import CONFIRM, check_data_path, check_resources, resolve_plan, with_timeout
from tune.planning.resources import this_machine
from tune.planning.space import space_text
from tune.planning.view import print_plan
from tune.storage.run_file import Scalar
from tune.storage.run_folder import Workspace, existing_workspace, locked, new_workspace

# What a resumed run may be given anew: no number depends on it.
_CHANGEABLE = ("--trial-timeout",)
# What may stand beside --status on the command line.
_WITH_STATUS = ("status", "storage")
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.command(
    context_settings=_CONTEXT, epilog="--debug, anywhere on the line, shows the traceback of an error."
)
@click.option(
    "--data",
    help="Folder in the XD-Violence layout, or a converted store (path or s3://…); default the demo data set.",
)
@click.option(
    "--sweep",
    metavar="NAME|FILE",
    help=f"Train a fixed list instead of searching: {', '.join(SWEEPS)} of the paper, or a .toml file of your own.",
)
@click.option(
    "--space",
    "space_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Search the dimensions of a .toml file instead of the default ones; --print-space prints such a file.",
)
@click.option(
    "--search",
    multiple=True,
    metavar="NAME=SPEC",
    callback=lambda _context, _option, value: value or None,
    help="Search this too, or within other limits: learning_rate=1e-5..1e-2:log, hidden_dim=64..256:step=64, "
    "contrast=true,false. Repeatable.",
)
@click.option("--trials", type=int, help="Configurations to try; default 10 on the demo data, else 40.")
@click.option(
    "--seeds",
    type=int,
    help="Sweep: trainings of each row. Search: trainings of the winner's refit. Default 1.",
)
@click.option(
    "--confirm",
    type=int,
    is_flag=False,
    flag_value=CONFIRM,
    metavar="[K]",
    help="Train the K best configurations, and the paper's values, on fresh seeds before the winner is named; "
    f"K is {CONFIRM} if left out.",
)
@click.option("--confirm-seeds", type=int, help="Fresh seeds of each of them; default 5.")
@click.option(
    "--keep-scores",
    type=click.Choice(["ends", "all"]),
    help="Test scores kept of each trial: of the chosen and last epoch, or of all; default ends.",
)
@click.option("--name", help="Name of the run; default its kind and the time.")
@click.option("--storage", help="Folder or URI (s3://bucket/…) of the runs; default ./runs.")
@click.option(
    "--shared-storage",
    is_flag=True,
    help="With --address: the folder --storage is one that every host sees under the same path; each proves it.",
)
@click.option("--resume", metavar="NAME", help="Go on with a run that was stopped or killed.")
@click.option("--overwrite", is_flag=True, help="Replace a run of the same name.")
@click.option(
    "--replay",
    nargs=2,
    metavar="RUN TRIAL",
    help="Train a recorded trial again, without Ray, and compare every number; --seed N trains it with another seed.",
)
@click.option(
    "--protocol", type=click.Choice(["heldout", "published"]), help="Default heldout, for a sweep published."
)
@click.option(
    "--sampler",
    type=click.Choice(list(SAMPLERS)),
    help="Who suggests configurations: "
    + ", ".join(f"{name} ({sampler.title})" for name, sampler in SAMPLERS.items())
    + "; default tpe.",
)
@click.option(
    "--enqueue",
    "enqueue_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Try known configurations right after the paper's: [[points]] of a .toml file, or the trials.csv or "
    "trials.parquet of a report.",
)
@click.option(
    "--stopping",
    type=click.Choice([*RULES, "none"]),
    help="Who stops the weaker trials early; default asha for a search from 4 trials on, none for a sweep.",
)
@click.option("--asha/--no-asha", default=None, help="The same as --stopping asha, and as --stopping none.")
@click.option(
    "--grace",
    type=int,
    help="Epochs that every trial gets before any is stopped; default 15, at most half of the epochs.",
)
@click.option("--search-seed", type=int, help="Seed of the suggestions; default 0.")
@click.option("--split-seed", type=int, help="Seed of the held-out split; default 0.")
@click.option("--address", help="Ray cluster to use, as for ray.init; default this machine alone.")
@click.option("--concurrent", type=int, help="Trials at once; default as many as there is room for.")
@click.option(
    "--cpus-per-trial", type=float, help="CPUs, and so threads, of a trial; default shares all of them out."
)
@click.option(
    "--gpus-per-trial", type=float, help="GPUs of a trial, may be a fraction; default 1 where there is one."
)
@click.option(
    "--trial-timeout",
    type=float,
    metavar="SECONDS",
    help="End a trial that has reported nothing for so long; default 3600.",
)
@click.option(
    "--no-report",
    is_flag=True,
    help="End without writing the report, and so without opening test labels; the command that writes it is printed.",
)
@click.option(
    "--print-space", is_flag=True, help="Print the space that would be searched, as a file, and stop."
)
@click.option("--dry-run", is_flag=True, help="Print the resolved plan and stop.")
@click.option("--status", metavar="NAME", help="Show where a run stands, from any shell, and stop.")
@cli.reading_options
@cli.config_options
@cli.hyperparameter_options
def search(
    name: str | None,
    storage: str | None,
    shared_storage: bool,
    resume: str | None,
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

    A hyperparameter given below is fixed: it leaves the space.
    """
    quiet_ray()
    # A log has no width of its own; 80 columns would fold the leaderboard's every cell.
    console = PlainConsole() if sys.stdout.isatty() else PlainConsole(width=140)
    storage = storage or "./runs"
    if status is not None:
        _refuse_other_options(click.get_current_context())
        return show_status(status, storage, console)
    if replay is not None:
        return _replay(*replay, storage, options, console)
    given = _options(options)
    _check_storage(storage, resume, address, shared=shared_storage)
    machine = this_machine()
    if resume is not None:
        if name or overwrite:
            raise UsageError("--resume continues a run; leave out --name and --overwrite")
        run = existing_workspace(storage, resume)
        plan = _recorded_plan(run, given)
    else:
        if not print_space:
            check_data_path(given.data)
        plan = resolve_plan(given, machine if address is None else None)
    if print_space:
        click.echo(_space_text(plan), nl=False)
        return 0
    if address is None:
        check_resources(plan, machine, "this machine")
    if resume is None:
        run = new_workspace(storage, name or _default_name(plan), overwrite=overwrite)
    if dry_run:
        print_plan(console, plan, run, address, bags_at_hand(plan))
        return 0
    with locked(run):
        if resume is None:
            begin(run, plan, given)
        debug = "--debug" in sys.argv  # `macil.commands.cli.main` takes it off before the options are parsed
        return run_to_end(run, plan, console, address, report=not no_report, debug=debug)


def _check_storage(storage: str, resume: str | None, address: str | None, *, shared: bool) -> None:
    if address is None and shared:
        raise UsageError(
            "--shared-storage is about the hosts of a cluster; give --address too, or leave it out"
        )
    if address is not None and not shared and not is_uri(storage) and not is_uri(resume):
        raise UsageError(
            f"--storage {storage}: the hosts of the cluster at {address} write into it too. Give a URI such as "
            "s3://bucket/runs, or add --shared-storage if every host sees that folder under the same path"
        )


def _refuse_other_options(context: click.Context) -> None:
    """Nothing but --storage says anything about a status.

    Raises:
        UsageError: Another option was given.
    """
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name not in _WITH_STATUS
        and context.get_parameter_source(str(option.name)) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(
            f"--status shows a run and changes nothing; leave out {', '.join(given)} (only --storage may be given)"
        )


def _replay(run: str, trial: str, storage: str, options: dict[str, Any], console: Console) -> int:
    given = {name for name, value in options.items() if value is not None} - {"seed", "data"}
    if given:
        flags = ", ".join(f"--{name.removesuffix('_file').replace('_', '-')}" for name in sorted(given))
        raise UsageError(
            f"--replay trains what was recorded; leave out {flags} (only --seed and --data may be given)"
        )
    from tune.results.replay import replay_trial

    return replay_trial(run, trial, storage, options["data"], options["seed"], console)


def _options(options: dict[str, Any]) -> Options:
    hyperparameters = cli.given_hyperparameters(options)
    own = {name: value for name, value in options.items() if name in Options.model_fields}
    if own["data"] is not None and not is_uri(own["data"]):
        own["data"] = str(Path(own["data"]).expanduser().absolute())
    base = None
    if options["preset"] is not None or options["config_file"] is not None:
        base = cli.resolve_config(options["preset"], options["config_file"], hyperparameters)
    for name in ("config_file", "space_file", "enqueue_file"):
        own[name] = own[name] and str(own[name].absolute())
    own |= {"base": base, "stopping": _stopping(options["stopping"], options["asha"])}
    return Options(**own, hyperparameters=hyperparameters)


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
    return space_text(plan.space)


def _recorded_plan(run: Workspace, given: Options) -> Plan:
    """The plan that a resumed run goes on with.

    Raises:
        UsageError: A flag that differs from how the run was begun; a run that cannot go on.
        DataError: The plan cannot be read.
    """
    info, plan = run.info, read_plan(run.path)
    known = info.given or {}
    if plan is None:
        plan = plan_of_earlier_version(run.path, info.options)
        known = known | flags_of_earlier_version(info.options)
    _refuse_other_flags(given, {**known, **plan.flags()})
    return with_timeout(plan, given.trial_timeout)


def _refuse_other_flags(given: Options, known: Mapping[str, Scalar]) -> None:
    for flag, value in given.flags().items():
        if flag in _CHANGEABLE:
            continue
        if known.get(flag) != value:
            was = f"was begun with {known[flag]}" if flag in known else "was begun without it"
            raise UsageError(
                f"{flag} {value} cannot be changed by --resume: the run {was}; leave the flag out, or begin a new run"
            )


def _default_name(plan: Plan) -> str:
    return f"{plan.sweep or 'search'}-{now_in_name()}"


def main() -> None:
    """Entry point."""
    cli.main(search)
