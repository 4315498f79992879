"""Views of a running sweep: a live display on a terminal, plain lines elsewhere.

The display only reads Progress, a few times per second, in a thread of rich, because it shares the machine with the
measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.judge.expectations import PENDING, not_checked
from sweeps.run.progress import PHASES, CellProgress, Progress
from sweeps.show.formats import clock, duration, faults, percentile
from sweeps.show.tables import Row, failovers_in_a_line, rows, shown_kinds, summary

REFRESH_PER_S = 3
_BARS = " ▁▂▃▄▅▆▇█"
_FIXED_LINES = 17
"""Lines of the display without the rows of the table of results."""


class PlainView:
    """A view that prints one line per cell, for logs and pipes."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console, self._progress = console, progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def cell_done(self, progress: Progress) -> None:
        """Print the result of the last cell."""
        params, result = progress.done[-1]
        self.note(cell_line(len(progress.done), len(progress.cells), params, result))

    def cell_judged(self, progress: Progress, position: int) -> None:
        """Print the verdict of a cell."""
        params, result = progress.done[position]
        self.note(f"[{position + 1}/{len(progress.cells)}] {params['label']}  {verdict_words(result)}")


class LiveView:
    """A view that redraws the state of the whole run in place."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._live = Live(
            get_renderable=lambda: screen(progress, console.height),
            console=console,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Print a line above the display."""
        self._live.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def cell_done(self, progress: Progress) -> None:
        """Do nothing: the display reads the result from Progress."""

    def cell_judged(self, progress: Progress, position: int) -> None:
        """Do nothing: the display reads the verdict from Progress."""


def cell_line(position: int, total: int, params: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return the result of a cell in one line."""
    [row] = rows([(params, result)])
    parts = [f"[{position}/{total}] {params['label']}"]
    parts.append(
        result["status"] if result["status"] == "ok" else f"{result['status'].upper()}: {result.get('reason')}"
    )
    if row.throughputs:
        parts.append(f"{row.throughputs[0]:,.0f} op/s")
        for kind in shown_kinds([row.latency_ms]):
            values = row.latency_ms[kind]
            parts.append(f"{kind} p50 {percentile(values, 'p50')} p99 {percentile(values, 'p99')}")
        parts += [f"failover {failovers_in_a_line(row.failovers_ms)}"] if row.failovers_ms else []
        parts += [f"{faults(row.faults)} faults"] if row.faults[0] < row.faults[1] else []
        parts.append(
            f"{row.failed} failed, {row.unknown} unknown" + (f", {row.dropped} dropped" if row.dropped else "")
        )
    seconds = sum(result.get("phases_s", {}).values())
    return "  ".join(
        [
            *parts,
            *([verdict_words(result)] if "verdict" in result else []),
            f"({seconds:.0f} s)",
            *(f"! {flag}" for flag in result.get("flags", ())),
        ]
    )


def verdict_words(result: Mapping[str, Any]) -> str:
    """Return `verdict ok`, or what is wrong, in one line."""
    verdict = result["verdict"]
    word = str(verdict["verdict"])
    if verdict.get("unexpected") and word != PENDING:
        word = word.upper()
    more = f": {verdict['reason']}" if verdict.get("reason") and word != PENDING else ""
    absent = ", ".join(not_checked(result))
    limits = f", not checked: {absent}" if absent else ""
    return f"verdict {word}{' (expected)' if verdict.get('expected') else ''}{limits}{more}"


def screen(progress: Progress, height: int) -> RenderableType:
    """Return the current display for a terminal of `height` lines."""
    parts: list[RenderableType] = [_header(progress)]
    if progress.current is not None:
        parts.append(_cell(progress, progress.current))
    elif progress.checking is not None:
        label = progress.done[progress.checking][0]["label"]
        parts.append(Text(f"checking cell {progress.checking + 1} of {len(progress.cells)}: {label}", "bold"))
    if progress.done:
        room = max(1, height - _FIXED_LINES)
        parts.append(
            _results([row for each in progress.done[-room:] for row in rows([each])], len(progress.done), room)
        )
    # The cursor waits on this empty line, so that the ^C of an interruption does not wrap a full line.
    return Group(*parts, Text())


def _header(progress: Progress) -> RenderableType:
    total, done = len(progress.cells), len(progress.done)
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(
        Text.assemble((progress.name, "bold"), f"  {done} of {total} cells"),
        ProgressBar(total=1.0, completed=progress.share),
        f"{clock(progress.elapsed_s)} elapsed, {clock(progress.left_s)} left",
    )
    return Group(line, Text(progress.where, "dim", no_wrap=True, overflow="ellipsis"), Text())


def _cell(progress: Progress, current: CellProgress) -> RenderableType:
    snapshot = current.snapshot
    figures = Table.grid(expand=True, padding=(0, 2))
    for _ in range(6):
        figures.add_column(ratio=1, no_wrap=True)
    figures.add_row(
        *_figure("leader", current.leader or "none", "green" if current.leader else "bold red"),
        *_figure("op/s", f"{current.throughput[-1]:,.0f}" if current.throughput else "-", "bold"),
        *_figure("ok", f"{snapshot.ok:,}"),
    )
    figures.add_row(
        *_figure("term", "-" if current.term is None else str(current.term)),
        *_figure("p50", duration(*snapshot.recent_ms("p50"))),
        *_figure("failed", f"{snapshot.failed:,}", "bold yellow" if snapshot.failed else ""),
    )
    figures.add_row(
        *_figure("elections", "-" if current.elections is None else str(current.elections)),
        *_figure("p99", duration(*snapshot.recent_ms("p99"))),
        *_figure("unknown", f"{snapshot.unknown:,}", "bold yellow" if snapshot.unknown else ""),
    )
    figures.add_row(
        *_figure("faults", faults((current.faults, current.faults_asked)), "red" if current.faults else ""),
        Text(current.last_fault, "red", overflow="ellipsis"),
        "",
        *_figure("dropped", f"{snapshot.dropped:,}", "bold yellow" if snapshot.dropped else ""),
    )
    body = Group(_phases(progress, current), Text(), figures, Text(), _Spark(current.throughput))
    title = Text.assemble(f" cell {current.position} of {len(progress.cells)}: ", (current.cell.label, "bold"), " ")
    if current.cell.repeat > 1 or any(cell.repeat > 1 for cell in progress.cells):
        title.append(f"repeat {current.cell.repeat} ", "dim")
    return Panel(body, title=title, title_align="left", box=box.ROUNDED, border_style="blue", padding=(0, 1))


def _figure(name: str, value: str, style: str = "") -> tuple[Text, Text]:
    return Text(name, "dim"), Text(value, style)


def _phases(progress: Progress, current: CellProgress) -> Text:
    """Return a line such as: boot > elect > warm up > measure 3/10 s > drain > inspect > collect > check"""
    line = Text(no_wrap=True)
    reached = PHASES.index(current.phase)
    for position, phase in enumerate(PHASES):
        line.append(" > " if position else "", "dim")
        if position != reached:
            line.append(phase, "green" if position < reached else "dim")
            continue
        length = current.phase_length_s
        of = f"/{length:.0f}" if length is not None else ""
        line.append(f"{phase} {progress.phase_s():.0f}{of} s", "bold reverse")
    return line


class _Spark:
    """The throughput of the last minutes as a row of bars that fills the available width."""

    def __init__(self, values: Iterable[float]) -> None:
        self._values = tuple(values)

    def __rich_console__(self, console: Console, options: Any) -> Iterable[RenderableType]:
        yield Text(spark(self._values, options.max_width), "cyan", no_wrap=True)


def spark(values: Sequence[float], width: int) -> str:
    """Return the last `width` values as bars; the highest value has a full bar."""
    shown = values[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return "·" * len(shown)
    return "".join(_BARS[max(1, round(value / top * (len(_BARS) - 1)))] if value > 0 else "·" for value in shown)


def _results(last: Sequence[Row], total: int, room: int) -> RenderableType:
    title = "results" if total <= room else f"results (the last {room} of {total})"
    return Group(Text(), summary(last, title=title))
