"""The Python interface of sweeps, on which the command line is built."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from orchestration import ClusterPlan
from orchestration.targets import ClusterKind, Place
from raft_actor_node.errors import ConfigError, RaftLabError
from raft_actor_node.signals import on_ending_signal
from sweeps.judge.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, ends_with
from sweeps.load.latencies import Ints, Latencies
from sweeps.load.operations import Operations
from sweeps.run.progress import Progress
from sweeps.show.doctor import Examined, as_json, findings
from sweeps.show.terminal import EXIT_PIPE
from sweeps.spec.cases import refusals
from sweeps.spec.estimate import MOST_SIMULATED
from sweeps.spec.grid import Cell, make_cells
from sweeps.spec.overrides import override, parse_option
from sweeps.spec.parameters import Spec
from sweeps.spec.resolve import resolve
from sweeps.spec.source import Source, open_source
from sweeps.store.files import WriteFailed
from sweeps.store.manifest import commit, manifest
from sweeps.store.reader import StoredCell, check_resumable, read_run, resume_command
from sweeps.store.writer import RunWriter

if TYPE_CHECKING:
    from orchestration.face import Backend
    from sweeps.run.runner import CellLife
    from sweeps.run.view import View


Connect = Callable[[], AbstractAsyncContextManager["Backend"]]
"""Opens the backend that brings up clusters."""


@dataclass(frozen=True)
class Sweep:
    """A validated sweep, and its cells in the order in which they run."""

    spec: Spec
    cells: Sequence[Cell]
    refused: Mapping[str, str] = field(default_factory=dict)
    """Case -> the error with which it is refused, for the cases that must be refused."""

    @classmethod
    def from_preset(cls, name: str, overrides: Mapping[str, Any] | None = None) -> Sweep:
        """Read a built-in sweep. `overrides` maps dotted names to values; a list of values becomes an axis.

        Raises ConfigError with one line.
        """
        return cls.from_file(name, overrides)

    @classmethod
    def from_file(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> Sweep:
        """Read the sweep in a YAML file, or the preset of this name. Raises ConfigError with one line."""
        source = open_source(str(path))
        for key, value in (overrides or {}).items():
            source = override(source, key, value, f"overrides[{key!r}]")
        return cls.from_source(source)

    @classmethod
    def from_options(cls, path: str, options: Sequence[str], seed: int | None = None) -> Sweep:
        """Read the sweep of a command line: a preset or a file, `-o` options, `--seed`. Raises ConfigError."""
        source = open_source(path)
        for option in options:
            key, value = parse_option(option)
            source = override(source, key, value, f"-o {option}")
        if seed is not None:
            source = override(source, "seed", seed, f"--seed {seed}")
        return cls.from_source(source)

    @classmethod
    def from_source(cls, source: Source) -> Sweep:
        """Validate a raw spec and expand it into cells. Raises ConfigError."""
        spec = resolve(source)
        refused = refusals(spec, source)
        return cls(spec, make_cells(spec, source), refused)

    @property
    def kind(self) -> ClusterKind:
        """The kind of cluster, which is the same for all cells."""
        return self.cells[0].parameters.kind

    @property
    def simulated(self) -> bool:
        """Whether the cells run in virtual time; either all or none do."""
        return self.kind.can.virtual_time

    def run(self, out: str | Path = "results", *, address: str | None = None, connect: Connect | None = None) -> Run:
        """Run the sweep without output. `address` is that of the Ray cluster.

        A failed cell raises no error; see `Run.exit_code`. Raises ConfigError, PlacementRefused if the hosts cannot
        carry a cell, and InfrastructureError if no infrastructure is available. Raises RuntimeError if an event loop
        runs in this thread, as in a notebook: call `await asyncio.to_thread(sweep.run)` there.
        """
        from sweeps.show.live import PlainView  # noqa: PLC0415

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("Sweep.run: an event loop runs here; call `await asyncio.to_thread(sweep.run)`")
        console = Console(quiet=True)
        code, path = asyncio.run(
            self.execute(
                Path(out), ["sweeps.Sweep.run"], connect or Place(address), functools.partial(PlainView, console)
            )
        )
        return Run.read(path, code)

    async def execute(
        self,
        out: Path,
        command_line: Sequence[str],
        connect: Connect | Place,
        view: Callable[[Progress], View],
        announce: Callable[[str], None] = lambda text: None,
    ) -> tuple[int, Path]:
        """Run the sweep; return the exit code and the directory of the run.

        An interruption (SIGINT, SIGTERM, SIGHUP) raises no error: the run heals and stops its cluster, and returns the
        exit code 130.
        """
        spec = self.spec
        facts = manifest(
            seed=spec.seed, command_line=command_line, spec_name=spec.name, storage_dir=spec.base.storage.dir
        )
        if self.refused:
            facts["refused"] = dict(self.refused)
        facts["cells"] = [cell.id for cell in self.cells]
        writer = RunWriter.create(out, spec.name, spec.to_yaml(), facts)
        return await self._execute(writer, (), connect, view, announce)

    @classmethod
    async def resume(
        cls,
        path: Path,
        command_line: Sequence[str],
        connect: Connect | Place,
        view: Callable[[Progress], View],
        announce: Callable[[str], None] = lambda text: None,
    ) -> tuple[int, Path]:
        """Complete the run in a directory according to its own spec. Finished cells do not run again. See `execute`.

        Raises ConfigError if the directory is not a run, if the run still runs or has another format, or if its spec
        now gives other cells.
        """
        check_resumable(path)
        sweep = cls.from_file(path / "spec.yaml")
        facts = {"command_line": list(command_line), "commit": commit()}
        writer, done = RunWriter.reopen(path, sweep.cells, facts)
        by_id = {cell.id: cell for cell in sweep.cells}
        first = [by_id.pop(stored.params["cell"]) for stored in done]
        announce(f"{len(first)} of {len(sweep.cells)} cells are done")
        # The finished cells come first, in the order in which they ran.
        ordered = dataclasses.replace(sweep, cells=[*first, *by_id.values()])
        return await ordered._execute(writer, done, connect, view, announce)

    async def _execute(
        self,
        writer: RunWriter,
        done: Sequence[StoredCell],
        connect: Connect | Place,
        view: Callable[[Progress], View],
        announce: Callable[[str], None],
    ) -> tuple[int, Path]:
        progress = Progress(self.spec.name, self.cells, cores=os.cpu_count() or 2)
        progress.take_up([(cell.params, cell.result) for cell in done])
        results = [cell.result for cell in done]
        announce(f"results in {writer.path}")
        display = view(progress)
        work = asyncio.ensure_future(
            self._without_backend(writer, progress, display, results)
            if self.simulated or len(done) == len(self.cells)
            else self._on_backend(connect, writer, progress, display, announce, results)
        )

        interrupted = False

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            work.cancel()
            display.note("interrupted: healing the cluster and stopping its nodes")

        with on_ending_signal(interrupt):
            try:
                return await work, writer.path
            except asyncio.CancelledError:
                writer.finish(complete=False, exit_code=EXIT_INTERRUPTED)
                return EXIT_INTERRUPTED, writer.path
            except (RaftLabError, OSError) as error:  # an OSError: standard output is full, or its reader left
                if interrupted:
                    ends_with(error, EXIT_INTERRUPTED)
                closed = isinstance(error, BrokenPipeError)
                code = EXIT_PIPE if closed else getattr(error, "exit_code", EXIT_FAILED)
                with contextlib.suppress(WriteFailed):  # WriteFailed is usually the error being handled
                    writer.journal("run failed", error=str(error))
                    writer.add_facts({"stopped": str(error)})
                    writer.finish(complete=False, exit_code=code)
                if isinstance(error, RaftLabError) and not isinstance(error, ConfigError):
                    error.add_note(f"`{resume_command(writer.path)}` then runs the remaining cells")
                raise

    async def _on_backend(
        self,
        connect: Connect | Place,
        writer: RunWriter,
        progress: Progress,
        view: View,
        announce: Callable[[str], None],
        done: Sequence[Mapping[str, Any]],
    ) -> int:
        async with self.kind.open(connect) if isinstance(connect, Place) else connect() as backend:
            announce(backend.description)
            writer.add_place({"private_ray": backend.private, "ray": backend.description})
            progress.where = f"{writer.path}   {backend.description}"
            await self._check_placement(backend, announce, self.cells[len(done) :])
            if isinstance(backend, Examined):
                await self._examine(backend, backend.private, writer, announce)
            with view:
                # Imported late: these modules import gRPC.
                from sweeps.run.cell import CellRun  # noqa: PLC0415
                from sweeps.run.machine import Hosts  # noqa: PLC0415
                from sweeps.run.runner import Runner  # noqa: PLC0415

                def begin(cell: Cell, progress: Progress, run_id: str) -> CellLife:
                    return CellRun(cell, backend, Hosts(backend), progress, run_id)

                return await Runner(begin, writer, progress, view, self.spec.thresholds).run(self.cells, done)

    async def _check_placement(self, backend: Backend, announce: Callable[[str], None], cells: Sequence[Cell]) -> None:
        """Refuse cells that the hosts cannot carry before any cell starts."""
        # Imported late: this module imports gRPC.
        from sweeps.load.group import generator_hosts  # noqa: PLC0415

        clusters = [cell.parameters.cluster for cell in cells]
        plans = dict.fromkeys((cluster.nodes, cluster.placement) for cluster in clusters)
        chosen = {plan: await backend.check(ClusterPlan(nodes=plan[0], placement=plan[1])) for plan in plans}
        for cell, cluster in zip(cells, clusters, strict=True):
            hosts = chosen[cluster.nodes, cluster.placement]
            generator_hosts(
                cell.parameters.load.on, backend.hosts, hosts, leader_host=hosts[0]
            )  # no leader yet; any host will do
        if len(backend.hosts) > 1:
            counts = sorted({len(set(hosts)) for hosts in chosen.values()})
            span = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
            announce(f"placement: the nodes of a cell are on {span} of {len(backend.hosts)} hosts")

    async def _examine(
        self, backend: Examined, private: bool, writer: RunWriter, announce: Callable[[str], None]
    ) -> None:
        """Write the examination of the hosts to the manifest, and announce the findings that are wrong."""
        examination = await backend.examine(self.spec.base.storage.dir, quick=True)
        writer.add_place({"private_ray": private, "hosts": as_json(examination)})
        for finding in findings(examination):
            if finding.severity == "wrong":
                announce(str(finding))

    async def _without_backend(
        self, writer: RunWriter, progress: Progress, view: View, done: Sequence[Mapping[str, Any]]
    ) -> int:
        """Run simulated cells, or the remaining checks of real cells."""
        from sweeps.run.runner import Runner  # noqa: PLC0415
        from sweeps.run.simulated import SimulatedCell  # noqa: PLC0415

        if self.simulated:
            where = f"simulation, at most {MOST_SIMULATED} operations per cell"
            writer.add_facts({"target": self.kind.name, "most_operations": MOST_SIMULATED})
            progress.where = f"{writer.path}   {where}"
        with view:
            return await Runner(SimulatedCell, writer, progress, view, self.spec.thresholds).run(self.cells, done)


@dataclass(frozen=True)
class CellResult:
    """One cell of a run."""

    stored: StoredCell

    @property
    def id(self) -> str:
        """Id of the cell."""
        return str(self.stored.params["cell"])

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json."""
        return self.stored.result

    @property
    def verdict(self) -> str:
        """The verdict: ok, violated or unknown; pending until the cell is judged."""
        return str(self.result["verdict"]["verdict"])

    def operations(self) -> Operations:
        """Return all operations as arrays; see sweeps.load.operations."""
        return self.stored.operations()

    def latency(self, kind: str = "all") -> Ints:
        """Return latencies of completed operations of one kind in the measurement, in nanoseconds.

        `kind` is put, get, delete, cas, append or all. The array is one-dimensional int64. Outages hardly show in it,
        because failed and dropped operations are missing; see `latencies`.
        """
        latencies = self.latencies(kind)
        return latencies.ns[~latencies.at_least]

    def latencies(self, kind: str = "all") -> Latencies:
        """Return the latencies of all operations that were due in the measurement, from which percentiles are computed.

        `ns` holds nanoseconds. `at_least` marks lower bounds: operations that failed, are of unknown outcome, or were
        dropped.
        """
        return self.operations().latencies(kind)


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    exit_code: int
    cells: Sequence[CellResult]

    @classmethod
    def read(cls, path: str | Path, exit_code: int | None = None) -> Run:
        """Read a run from its directory. Raises ConfigError."""
        stored = read_run(Path(path))
        code = stored.manifest.get("exit_code", EXIT_INTERRUPTED) if exit_code is None else exit_code
        return cls(stored.path, code, [CellResult(cell) for cell in stored.cells])

    @property
    def results(self) -> list[dict[str, Any]]:
        """One record per cell: `axes`, its varying parameters, and the fields of result.json."""
        return [{"axes": cell.stored.params["axes"], **cell.result} for cell in self.cells]

    def to_dataframe(self) -> Any:
        """Read results.csv into a pandas DataFrame. Raises ImportError if pandas is not installed."""
        try:
            import pandas as pd  # noqa: PLC0415 - an optional extra
        except ImportError:
            raise ImportError("to_dataframe needs pandas: pip install 'raft-lab[dataframe]'") from None
        return pd.read_csv(self.path / "results.csv")


def make_view(console: Console, progress: Progress, *, plain: bool) -> View:
    """Return the live display if the output is a terminal, else plain lines."""
    from sweeps.show.live import LiveView, PlainView  # noqa: PLC0415

    return PlainView(console, progress) if plain or not console.is_terminal else LiveView(console, progress)
