"""`python tune/search.py`: the main job. Search or sweep, refit, report."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Run as a script: this folder is first on the path, its parent, which holds both packages, is not on it at all.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from macil import __version__, cli
from macil.data.split import make_split
from macil.data.store import FeatureStore
from macil.errors import DataError, UsageError
from macil.files import write_json_atomic
from tune.interrupts import Interrupted, Interrupts, catching
from tune.machine import quiet_ray, ray_running, this_machine
from tune.plan import Options, Plan, check_data_path, check_resources, resolve_plan
from tune.sweeps import SWEEPS
from tune.workspace import Workspace, clear, existing_workspace, locked, new_workspace, now, versions

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.command(
    context_settings=_CONTEXT, epilog="--debug, anywhere on the line, shows the traceback of an error."
)
@click.option(
    "--data", help="Folder in the XD-Violence layout, or a converted store; default the demo data set."
)
@click.option(
    "--sweep", type=click.Choice(list(SWEEPS)), help="Train a fixed list of the paper instead of searching."
)
@click.option("--trials", type=int, help="Configurations to try; default 10 on the demo data, else 40.")
@click.option(
    "--seeds",
    type=int,
    help="Sweep: trainings of each row. Search: trainings of the winner's refit. Default 1.",
)
@click.option("--name", help="Name of the run; default its kind and the time.")
@click.option("--storage", help="Folder of the runs; default ./runs.")
@click.option("--resume", metavar="NAME", help="Go on with a run that was stopped or killed.")
@click.option("--overwrite", is_flag=True, help="Replace a run of the same name.")
@click.option(
    "--protocol", type=click.Choice(["heldout", "published"]), help="Default heldout, for a sweep published."
)
@click.option(
    "--asha/--no-asha", default=None, help="Stop the weaker trials early; default yes from 4 trials on."
)
@click.option(
    "--grace", type=int, help="Epochs before ASHA compares trials; default 15, at most half of the epochs."
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
@click.option("--dry-run", is_flag=True, help="Print the resolved plan and stop.")
@cli.config_options
@cli.hyperparameter_options()
def search(
    name: str | None,
    storage: str | None,
    resume: str | None,
    overwrite: bool,
    address: str | None,
    dry_run: bool,
    **options: Any,
) -> int:
    """Search the hyperparameters of MACIL-SD with Ray Tune, Optuna and ASHA, or train a sweep of the paper.

    A hyperparameter given below is fixed: it leaves the search.
    """
    quiet_ray()
    # A log has no width of its own; 80 columns would fold the leaderboard's every cell.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    storage = storage or "./runs"
    given = _options(options)
    if resume is not None:
        if name or overwrite:
            raise UsageError("--resume continues a run; leave out --name and --overwrite")
        run = existing_workspace(storage, resume)
        recorded = Options.from_dict(run.info["options"])
        _refuse_other_flags(given, recorded)
        given = recorded
    else:
        check_data_path(given.data)
    machine = this_machine()
    plan = resolve_plan(given, machine if address is None else None)
    if address is None:
        check_resources(plan, machine, "this machine")
    if resume is None:
        run = new_workspace(storage, name or _default_name(plan), overwrite=overwrite)
    if dry_run:
        print_plan(console, plan, run, address)
        return 0
    with locked(run):
        if resume is None:
            begin(run, plan)
        return run_to_end(run, plan, console, address, resume=resume is not None)


def begin(run: Workspace, plan: Plan) -> None:
    """Write what a run is, before anything of it is done."""
    clear(run)
    write_json_atomic(run.path / "plan.json", plan.to_dict())
    plan.base.save(run.path / "config.toml")
    run.update(
        name=run.name,
        status="running",
        phase="trials",
        created=now(),
        command=sys.argv,
        protocol=plan.protocol,
        epoch_rule=plan.epoch_rule,
        sweep=plan.sweep and plan.sweep.name,
        metric="selection_score",
        seeds=list(plan.seeds),
        trials=plan.trials,
        asha=plan.to_dict()["asha"],
        refit=None,
        options=asdict(plan.options),
        versions={"macil": __version__, **versions()},
    )


def run_to_end(run: Workspace, plan: Plan, console: Console, address: str | None, *, resume: bool) -> int:
    """Everything from data to report; leaves `run.json` saying how it went.

    Returns:
        The exit status: 0, or 128 and the number of the signal that stopped the run.
    """
    debug = cli_debug()
    with catching(lambda: run.update(status="interrupted")) as interrupts:
        try:
            run.update(status="running")
            from macil.data.resolve import resolve

            store = resolve(plan.options.data)
            describe_data(run, plan, store)
            if run.info["phase"] != "report":
                print_plan(console, plan, run, address)
                train(run, plan, store, console, interrupts, address, resume=resume, debug=debug)
            interrupts.check()
            run.update(status="finished")
            finish(run, plan, console)
        except (Interrupted, KeyboardInterrupt) as stop:
            run.update(status="interrupted")
            code = getattr(stop, "exit_code", cli.INTERRUPTED)
            saved = sum(1 for _ in run.experiment("trials").glob("*/result.json"))
            print(
                f"interrupted: {run.path} holds what is done ({saved} trials with results)\n"
                f"go on: python tune/search.py --resume {run.name} --storage {run.path.parent}",
                file=sys.stderr,
            )
            return int(code)
        except BaseException:
            run.update(status="failed")
            raise
    return 0


def describe_data(run: Workspace, plan: Plan, store: FeatureStore) -> None:
    """Note the data in `run.json` and fix the held-out split; a resumed run must see the data it was begun with.

    Raises:
        DataError: Other data than before, or data that cannot serve the protocol.
    """
    before = run.info.get("store_hash")
    if before is not None and before != store.content_hash:
        raise DataError(
            f"{store.path} has changed since run {run.name!r} was begun: "
            f"content hash {store.content_hash}, was {before}"
        )
    if plan.protocol == "published":
        store.test_labels()
    elif not run.split.exists():
        make_split(store, plan.options.split_seed or 0).save(run.split)
    counts = {split: len(store.videos(split).names) for split in ("train", "test")}
    run.update(
        data=str(store.path), store_hash=store.content_hash, labels_hash=store.labels_hash, dataset=counts
    )


def train(
    run: Workspace,
    plan: Plan,
    store: FeatureStore,
    console: Console,
    interrupts: Interrupts,
    address: str | None,
    *,
    resume: bool,
    debug: bool,
) -> None:
    """All that needs Ray: the trials, then the winner's refit."""
    # Imported late: a dry run or a wrong option should not wait for Ray.
    from tune.batches import refit_batch, trials_batch
    from tune.display import Display
    from tune.execution import run_batch
    from tune.winner import choose_winner, publish_model

    shown = Display(
        console,
        {"trials": plan.tune_trials, "refit": plan.groups_of_seeds},
        {"trials": plan.base.epochs, "refit": 0},
    )
    with ray_running(address, this_machine(), debug=debug) as available:
        interrupts.listen()
        check_resources(plan, available, "this machine" if address is None else "the cluster")
        go = partial(run_batch, run, display=shown, interrupts=interrupts, debug=debug)
        if run.info["phase"] == "trials":
            go(trials_batch(run, plan, store), resume=resume)
            interrupts.check()
        if plan.sweep is None:
            winner = choose_winner(run.experiment("trials"))
            run.update(winner=winner.to_dict())
            model = winner.folder
            if plan.refits:
                shown.epochs["refit"] = winner.epoch
                shown.say(
                    f"winner: trial {winner.folder.name}, selection_score {winner.score:.4f} at epoch {winner.epoch}; "
                    "training it again on all training videos"
                )
                first_time = run.info["phase"] == "trials"
                run.update(phase="refit")
                go(refit_batch(run, plan, store, winner), resume=resume and not first_time)
                interrupts.check()
                folders = [f"refit/seed{seed}" for seed in plan.seeds]
                run.update(refit={"trial_dir": folders[0], "trial_dirs": folders, "epochs": winner.epoch})
                model = run.path / folders[0]
            publish_model(model, run.model)
        run.update(phase="report")


def finish(run: Workspace, plan: Plan, console: Console) -> None:
    """Write the report, print the leaderboard and where to look further."""
    from tune.report import write_report
    from tune.results import leaderboard, load_run

    report = write_report(run.path)
    print_leaderboard(console, leaderboard(load_run(run.path)).to_pylist(), plan)
    if run.model.exists():
        console.print(f"model   {run.model}", soft_wrap=True, highlight=False)
    console.print(f"report  {report}", soft_wrap=True, highlight=False)
    console.print(f"look further: python tune/report.py {run.path}", soft_wrap=True, highlight=False)


def print_plan(console: Console, plan: Plan, run: Workspace, address: str | None) -> None:
    """The resolved plan, as `--dry-run` shows it."""
    content = plan.to_dict()
    table = Table(title=f"run {run.name}", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in _plan_lines(plan, content, address):
        table.add_row(key, value)
    table.add_row("folder", str(run.path))
    console.print(table)
    notes = [*plan.notes]
    if address is not None:
        notes.append(
            f"every host of the cluster must see {run.path} under that path: give a shared folder as --storage"
        )
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def print_leaderboard(console: Console, rows: list[dict[str, Any]], plan: Plan, most: int = 15) -> None:
    """The best trials and what was searched in them; the whole table is in the report."""
    swept = list(plan.sweep.swept) if plan.sweep else list(plan.space)
    title = f"leaderboard: {plan.protocol} protocol, AP of test frames at the {plan.epoch_rule} epoch, one seed a line"
    table = Table(title=title, title_justify="left")
    for column in ("rank", "trial", "status", "epoch", "selection_score", "AP", "AP trapezoid"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("configuration", overflow="fold")
    for row in rows[:most]:
        epoch = row["chosen_epoch"] if row["epoch_rule"] == "chosen" else row["epochs_run"]
        configuration = ", ".join(f"{name} {_cell(row[name])}" for name in (*swept, "seed"))
        cells = (row["rank"], Path(row["trial_dir"]).name, row["status"], epoch)
        scores = (row["selection_score"], row["ap"], row["ap_trapezoid"])
        table.add_row(*map(_cell, cells), *(_cell(score) for score in scores), configuration)
    console.print(table)


def cli_debug() -> bool:
    """Whether `--debug` is on the command line; `macil.cli.main` takes it off before the options are parsed."""
    return "--debug" in sys.argv


def _options(options: dict[str, Any]) -> Options:
    hyperparameters = cli.given_hyperparameters(options)
    own = {name: value for name, value in options.items() if name in Options.__dataclass_fields__}
    if own["data"] is not None:
        own["data"] = str(Path(own["data"]).expanduser().absolute())
    base = None
    if options["preset"] is not None or options["config_file"] is not None:
        base = cli.resolve_config(options["preset"], options["config_file"], hyperparameters).to_dict()
    own |= {"config_file": own["config_file"] and str(own["config_file"].absolute()), "base": base}
    return Options(**own, hyperparameters=hyperparameters)


def _refuse_other_flags(given: Options, recorded: Options) -> None:
    known = recorded.flags()
    for flag, value in given.flags().items():
        if known.get(flag) != value:
            was = f"was begun with {known[flag]}" if flag in known else "was begun without it"
            raise UsageError(
                f"{flag} {value} cannot be changed by --resume: the run {was}; leave the flag out, or begin a new run"
            )


def _default_name(plan: Plan) -> str:
    return f"{plan.sweep.name if plan.sweep else 'search'}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def _plan_lines(plan: Plan, content: dict[str, Any], address: str | None) -> Iterator[tuple[str, str]]:
    epochs = plan.base.epochs
    yield "data", plan.options.data or "the demo data set (made on first use)"
    yield "protocol", f"{plan.protocol}; AP at the {plan.epoch_rule} epoch"
    if plan.sweep:
        yield "sweep", f"{plan.sweep.name}: {plan.sweep.title} ({plan.sweep.source})"
        for row in plan.sweep.rows:
            published = "" if row.published_ap is None else f"  (published {row.published_ap:.2f} %)"
            yield f"row {row.name}", ", ".join(f"{k} {v}" for k, v in row.changes.items()) + published
        yield "seeds", ", ".join(map(str, plan.seeds)) + _together(plan)
        yield (
            "trials",
            f"{len(plan.sweep.rows)} rows x {len(plan.seeds)} seeds = {plan.trials}, {epochs} epochs each",
        )
    else:
        yield (
            "trials",
            f"{plan.trials} suggestions of up to {epochs} epochs; {plan.startup} random ones, then TPE",
        )
        for name, text in content["space"].items():
            yield f"search {name}", f"{text}; first {plan.first.get(name, 'suggested')}"
        asha = content["asha"]
        yield "ASHA", "no" if asha is None else f"keeps the best third after {_rungs(plan)} epochs"
        if plan.refits:
            yield (
                "refit",
                f"the winner on all training videos, seeds {', '.join(map(str, plan.seeds))}{_together(plan)}",
            )
    for name, value in plan.options.hyperparameters.items():
        yield f"fixed {name}", str(value)
    yield "epochs", f"at most {plan.most_epochs} in all"
    gpus = f", {plan.gpus_per_trial:g} GPU" if plan.gpus_per_trial else ""
    at_once = min(plan.concurrent, plan.tune_trials)
    yield "resources", f"{at_once} at once, {plan.cpus_per_trial:g} CPU{gpus} each"
    if plan.gpus_per_trial:
        yield (
            "data",
            "one copy of the training bags on each GPU and worker, loaded from this host's one memory map",
        )
    yield "where", f"the Ray cluster at {address}" if address else "this machine"


def _together(plan: Plan) -> str:
    return ", in lockstep on one GPU" if plan.lockstep else ""


def _rungs(plan: Plan) -> str:
    return " and ".join(map(str, plan.rungs)) or f"{plan.base.epochs} (never)"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Entry point."""
    cli.main(search)


if __name__ == "__main__":
    main()
