"""The command line: `sweep run | resume | plan | show | check | history | simulate | doctor | clean` and a few more.

Exit codes: 0 all good, 1 a cell failed (or the infrastructure was missing), 2 usage or spec, 3 a safety violation,
4 unknown verdicts, 130 interrupted. If several apply, the order is 130, 2, 3, 1, 4, 0.
Slow imports are made by the command that needs them.
"""

# ruff: noqa: PLC0415 - imports in functions, for the reason above
from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestration.targets import TARGETS, Place
from raft_actor_node.descriptors import open_standard_descriptors
from raft_actor_node.signals import raise_keyboard_interrupt

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.api import Sweep
    from sweeps.show.terminal import Output

F = TypeVar("F", bound=Callable[..., Any])


class _Group(click.Group):
    """The command group. It reports errors of this project in one line, with a traceback only under --debug."""

    output: Output | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program: SIGTERM and SIGHUP end it as Ctrl-C does.

        The exit does not wait for a call into Ray that never returns. A pipe closed by its reader is not reported.
        """
        from sweeps.show.terminal import Output

        open_standard_descriptors()
        self.output = Output()
        raise_keyboard_interrupt()
        try:
            return super().__call__(*args, **kwargs)
        except SystemExit as end:
            end.code = self.output.end(end.code)
            calls = sys.modules.get("orchestration.ray_cluster.calls")
            if calls is not None and calls.hangs():
                sys.stderr.flush()
                os._exit(end.code if isinstance(end.code, int) else 1)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        from raft_actor_node.errors import RaftLabError
        from sweeps.show.terminal import echo

        try:
            return super().invoke(ctx)
        except RaftLabError as error:
            if ctx.params.get("debug"):
                raise
            echo("; ".join([f"sweep: {error}", *getattr(error, "__notes__", ())]), err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if ctx.params.get("debug"):
                raise
            if self.output is None or self.output.problem is None:  # otherwise Output.end reports it
                echo("; ".join([f"sweep: {error}", *getattr(error, "__notes__", ())]), err=True)
            ctx.exit(getattr(error, "exit_code", 1))
        except click.UsageError as error:
            echo(f"sweep: {error.format_message()}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Measure real Raft clusters: how they elect, replicate, fail and recover, over axes of parameters."""


def _spec_arguments(command: F) -> F:
    """Add the arguments PRESET or FILE, -o and --seed."""
    for decorate in (
        click.option("--seed", type=click.IntRange(min=0), help="Seed of the order, the load and the faults."),
        click.option(
            "-o",
            "options",
            multiple=True,
            metavar="KEY=VALUE[,VALUE...]",
            help="Set a parameter (-o load.clients=64), or make it an axis (-o cluster.nodes=3,5,7).",
        ),
        click.argument("spec", metavar="[PRESET | FILE.yaml]", default="quick"),
    ):
        command = decorate(command)
    return command


_out = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder of the results."
)


_address = click.option("--address", help="Ray cluster to use; default: RAY_ADDRESS, else a private one is started.")
_target = click.option(
    "--target",
    type=click.Choice(list(TARGETS)),
    help="; ".join(f"{kind.name}: {kind.about}" for kind in TARGETS.values()) + ". Same as -o target=...",
)
_plain = click.option("--plain", is_flag=True, help="Print a line per cell instead of the live display.")


@main.command()
@_spec_arguments
@_target
@_out
@_address
@_plain
@click.pass_context
def run(
    ctx: click.Context,
    spec: str,
    options: Sequence[str],
    seed: int | None,
    target: str | None,
    out: Path,
    address: str | None,
    plain: bool,
) -> None:
    """Run a sweep; show what it measured, and whether the system was correct."""
    from sweeps.api import Sweep, make_view

    sweep = Sweep.from_options(spec, (*options, *_as_options(target)), seed)
    console = _console()
    _warn(sweep, console)
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    code, path = asyncio.run(
        sweep.execute(
            out, sys.argv, Place(address), lambda progress: make_view(console, progress, plain=plain), announce=say
        )
    )
    _show(path, console)
    ctx.exit(code)


@main.command()
@click.argument("run_name", metavar="[RUN]", required=False)
@_out
@_address
@_plain
@click.pass_context
def resume(ctx: click.Context, run_name: str | None, out: Path, address: str | None, plain: bool) -> None:
    """Complete a run that was interrupted, was killed, or lost hosts. RUN is a directory, NAME, or NAME/TIME; default:
    the latest. Finished cells do not run again."""
    from sweeps.api import Sweep, make_view
    from sweeps.store.reader import find_run

    console = _console()
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    path = find_run(out, run_name)
    code, _ = asyncio.run(
        Sweep.resume(
            path, sys.argv, Place(address), lambda progress: make_view(console, progress, plain=plain), announce=say
        )
    )
    _show(path, console)
    ctx.exit(code)


@main.command()
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@click.option("--address", help="Ray cluster whose hosts are cleaned too; default: RAY_ADDRESS, else this host only.")
@click.pass_context
def clean(ctx: click.Context, dry_run: bool, address: str | None) -> None:
    """Remove what your killed programs left on this host, or on all hosts of a Ray cluster: node processes, their
    folders (including kept logs), and private Ray instances. Anything that a running program uses stays."""
    from orchestration.ray_cluster.leftovers import clean_hosts
    from sweeps.show.terminal import echo

    async def work() -> int:
        code = 0
        async for host, leftovers, error in clean_hosts(address, dry_run):
            for each in leftovers:
                echo(f"{host}: {'would remove' if dry_run else 'removed'} {each}")
            if error is not None:
                code = 1
                echo(f"{host}: could not be cleaned: {error}", err=True)
            elif not leftovers:
                echo(f"{host}: nothing is left over")
        return code

    ctx.exit(asyncio.run(work()))


@main.command()
@_spec_arguments
@_target
@_out
@_address
@_plain
def plan(spec: str, options: Sequence[str], seed: int | None, target: str | None, **_: Any) -> None:
    """Show the cells, their time, and the resources they need. Runs nothing.

    It takes the options of `run`; --out, --address and --plain have no effect on the plan.
    """
    from sweeps.api import Sweep
    from sweeps.show.plan import cells_table, needs_lines

    sweep = Sweep.from_options(spec, (*options, *_as_options(target)), seed)
    console = _console()
    console.print(cells_table(sweep.spec, sweep.cells))
    console.print("\n".join(needs_lines(sweep.cells)), markup=False, highlight=False, soft_wrap=True)
    _warn(sweep, console)


@main.command()
@click.argument("run_name", metavar="[RUN]", required=False)
@_out
def show(run_name: str | None, out: Path) -> None:
    """Show the summary of a run. RUN is a directory, NAME, or NAME/TIME; default: the latest."""
    from sweeps.store.reader import find_run

    _show(find_run(out, run_name), _console())


@main.command()
@click.argument("run_name", metavar="[RUN]", required=False)
@click.option(
    "--history",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Check this history (JSON lines) instead of a run.",
)
@click.option("--time-limit", metavar="DURATION", help="Maximum time to check one history, such as 60s.")
@click.option("--memory-limit", metavar="SIZE", help="Maximum memory for one check, such as 2GiB.")
@_out
@click.pass_context
def check(
    ctx: click.Context,
    run_name: str | None,
    history: Path | None,
    time_limit: str | None,
    memory_limit: str | None,
    out: Path,
) -> None:
    """Judge a finished run, again or for the first time, and rewrite its results; or judge one history.

    RUN is a directory, NAME, or NAME/TIME; default: the latest. Exit codes: 0 ok, 1 a cell failed, 3 a safety
    violation, 4 unknown.
    """
    from sweeps.spec.overrides import check_bounds

    bounds = check_bounds(time_limit, memory_limit)
    if history is not None:
        if run_name is not None:
            raise click.UsageError("give either RUN or --history, not both")
        ctx.exit(_check_history(history, bounds))
    from sweeps.judge.checking import check_run
    from sweeps.show.live import verdict_words
    from sweeps.show.terminal import echo
    from sweeps.store.reader import find_run

    path = find_run(out, run_name)

    def note(params: Any, result: Any) -> None:
        echo(f"{params['cell']}  {params['label']}  {verdict_words(result)}")

    code = asyncio.run(check_run(path, bounds, note))
    _show(path, _console())
    ctx.exit(code)


@main.command()
@click.argument("run_name", metavar="[RUN]", required=False)
@click.option("--cell", metavar="ID", help="The cell; required if the run has several.")
@click.option("--output", type=click.Path(path_type=Path), help="File to write; default: standard output.")
@_out
def history(run_name: str | None, cell: str | None, output: Path | None, out: Path) -> None:
    """Write the history of a cell as JSON lines, for other checkers; `sweep check --history` reads them."""
    from sweeps.judge.histories import export

    export(out, run_name, cell, output)


@main.command()
@click.option("--seeds", type=click.IntRange(min=1), default=100, show_default=True, help="Number of seeds to run.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="First seed.")
@click.option(
    "--profile",
    help="Run only this kind of scenario; an unknown name lists all kinds. Coverage is then not judged.",
)
@click.option("--serial", is_flag=True, help="Run in this process, without Ray.")
@click.option("--story", is_flag=True, help="Print the story of a single seed, line by line, and write it to a file.")
@_out
@_address
@_plain
@click.pass_context
def simulate(
    ctx: click.Context,
    seeds: int,
    seed: int,
    profile: str | None,
    serial: bool,
    story: bool,
    out: Path,
    address: str | None,
    plain: bool,
) -> None:
    """Run many simulated clusters under faults in virtual time, and check each of them.

    Everything in a simulation is drawn from its seed, so a failed seed can be run again, with its story.
    """
    from sweeps.campaign.command import simulate as run_campaign

    code = run_campaign(
        _console(),
        first=seed,
        count=seeds,
        profile=profile,
        serial=serial,
        story=story,
        out=out,
        address=address,
        plain=plain,
    )
    ctx.exit(code)


@main.command()
@_address
@click.option(
    "--storage-dir",
    metavar="DIR",
    default="auto",
    show_default=True,
    help="Folder of the node logs on each host: storage.dir of the spec.",
)
@click.option("--plain", is_flag=True, help="Print lines of text instead of tables.")
@click.pass_context
def doctor(ctx: click.Context, address: str | None, storage_dir: str, plain: bool) -> None:
    """Examine versions, links, clocks, disks and limits of the hosts of the Ray cluster, and say what to do.

    Exit codes: 0 if there are no findings or only notes, 1 if something is wrong.
    """
    from orchestration import RayBackend
    from sweeps.show.doctor import doctor as examine

    ctx.exit(examine(_console(), functools.partial(RayBackend.connect, address), storage_dir, plain=plain))


@main.command()
def presets() -> None:
    """Show the built-in sweeps, with their sizes and purposes."""
    from sweeps.api import Sweep
    from sweeps.show.plan import presets_table
    from sweeps.spec.source import PRESETS

    names = sorted(file.stem for file in PRESETS.glob("*.yaml"))
    sweeps = [Sweep.from_preset(name) for name in names]
    _console().print(presets_table([(sweep.spec, sweep.cells) for sweep in sweeps]))


@main.command()
def schema() -> None:
    """Print the JSON schema of a spec, for editors."""
    from sweeps.spec.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _as_options(target: str | None) -> Sequence[str]:
    return () if target is None else (f"target={target}",)


def _check_history(path: Path, bounds: Mapping[str, Any]) -> int:
    from sweeps.judge.checking import check_history
    from sweeps.judge.exit_codes import EXIT_OK, EXIT_UNKNOWN, EXIT_VIOLATED
    from sweeps.show.terminal import echo
    from sweeps.spec.parameters import CheckSettings

    verdict, text = check_history(path, CheckSettings().model_copy(update=bounds))
    echo(text)
    return {"ok": EXIT_OK, "violated": EXIT_VIOLATED}.get(verdict, EXIT_UNKNOWN)


def _console() -> Console:
    from sweeps.show.terminal import console

    return console()


def _warn(sweep: Sweep, console: Console) -> None:
    for warning in dict.fromkeys(line for cell in sweep.cells for line in cell.warnings):
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _show(path: Path, console: Console) -> None:
    from sweeps.show import matrix, tables
    from sweeps.store.reader import not_resumable, read_run, resume_command
    from sweeps.store.writer import is_done

    stored = read_run(path)
    cells = [(cell.params, cell.result) for cell in stored.cells]
    if matrix.has_cases(cells):
        console.print(matrix.view(cells, stored.manifest.get("refused", {})))
        notes = matrix.notes(cells)
    else:
        arrays = {cell.params["cell"]: cell.operations for cell in stored.cells}
        results = tables.rows(cells, lambda identity: arrays[identity]())
        if results:
            console.print(tables.summary(results))
        notes = tables.notes(results)
    for note in notes:
        console.print(f"- {note}", style="dim", markup=False, highlight=False, soft_wrap=True)
    problem = None
    if not stored.manifest.get("complete"):
        why = stored.manifest.get("stopped") or "the run was interrupted, or it still runs"
        problem, remedy = f"incomplete: {why}", f"`{resume_command(path)}` completes it"
    elif any(not is_done(result) for _, result in cells):
        problem, remedy = "cells lost their infrastructure", f"`{resume_command(path)}` runs them again"
    if problem is not None:
        words = f"{problem}; {not_resumable(stored.manifest) or remedy}"
        console.print(words, style="bold red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{path}", style="dim", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
