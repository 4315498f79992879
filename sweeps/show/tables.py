"""Tables of results. Pure functions: stored results become rows, and rows become a table of rich."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from orchestration.targets import TARGETS
from sweeps.analysis.latency import percentiles
from sweeps.judge.expectations import not_checked, verdict_notes
from sweeps.load.operations import KINDS, Operations, pool
from sweeps.show.formats import Percentiles, count, duration, faults, percentile, status, verdict
from sweeps.spec.grid import show
from sweeps.spec.metrics import LOWER_BOUNDS
from sweeps.store.reader import Repeat
from sweeps.store.results_csv import load_changes

SIMULATED = "simulated: times are those of the simulated world, and say nothing about this machine"


@dataclass(frozen=True)
class Row:
    """One combination of parameters with the results of its repeats."""

    axes: Mapping[str, str]
    statuses: Sequence[str]
    throughputs: Sequence[float] = ()
    latency_ms: Mapping[str, Percentiles] = field(default_factory=dict)
    """Percentiles by operation kind; repeats are pooled, never averaged."""
    failovers_ms: Sequence[float | None] = ()
    """Times from the loss of a leader to the first success under the next; None if there was no success."""
    failed: int = 0
    unknown: int = 0
    dropped: int = 0
    faults: tuple[int, int] = (0, 0)
    """Faults that were put in force, and faults in the schedule."""
    elections: int | None = None
    notes: Sequence[str] = ()
    """Reasons of failures, and flags."""
    open_loop: bool = False
    repeats: int = 1
    verdicts: Sequence[tuple[str, bool]] = ()
    """Verdict of each repeat, and whether it was expected."""
    not_checked: Sequence[str] = ()
    """Checks that were not made in at least one repeat."""
    simulated: bool = False


def rows(cells: Sequence[Repeat], arrays: Callable[[str], Operations] | None = None) -> list[Row]:
    """Return a row for each combination, in the order of their first cells.

    `arrays` returns the operations of a cell by its id. It is called only to pool repeats.
    """
    groups: dict[str, list[Repeat]] = {}
    for params, result in cells:
        groups.setdefault(repr(params["parameters"]), []).append((params, result))
    return [_row(repeats, arrays) for repeats in groups.values()]


def _row(repeats: Sequence[Repeat], arrays: Callable[[str], Operations] | None) -> Row:
    params, first = repeats[0]
    results = [result for _, result in repeats]
    some = [(p, r) for p, r in repeats if "operations" in r]
    # Repeats whose infrastructure failed measured the loss. They count only if there are no other results.
    measured = [(p, r) for p, r in some if r["status"] != "infrastructure"] or some
    counts = [result["operations"] for _, result in measured]
    told = [result for _, result in measured] or results
    elections = [result["elections"]["won"] for result in told if result.get("elections")]
    axes = params["axes"] or {"cluster.nodes": params["parameters"]["cluster"]["nodes"]}
    latency = (measured[0][1] if measured else first).get("latency_ms", {})
    if len(measured) > 1 and arrays is not None:
        stored = [arrays(p["cell"]) for p, _ in measured]
        latency = {kind: percentiles(pool(stored, kind)) for kind in measured[0][1]["latency_ms"]}
    return Row(
        axes={name: _axis(name, value, first) for name, value in axes.items()},
        statuses=[result["status"] for result in results],
        verdicts=[
            (str(result["verdict"]["verdict"]), not result["verdict"].get("unexpected"))
            for result in results
            if "verdict" in result
        ],
        not_checked=list(dict.fromkeys(name for result in results for name in not_checked(result))),
        throughputs=[result["throughput_per_s"] for _, result in measured],
        latency_ms=latency,
        failovers_ms=[each["succeeded_ms"] for result in told for each in result.get("failovers", ())],
        failed=sum(count["failed"] for count in counts),
        unknown=sum(count["unknown"] for count in counts),
        dropped=sum(count["dropped"] for count in counts),
        faults=_faults(told),
        elections=sum(elections) if elections and None not in elections else None,
        notes=[*dict.fromkeys(note for result in results for note in _notes(result)), *_shares(results)],
        open_loop=params["parameters"]["load"]["mode"] == "open",
        simulated=TARGETS[params["parameters"]["target"]].can.virtual_time,
        repeats=len(repeats),
    )


def _faults(results: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Return the number of faults put in force and in the schedule; (0, 0) for old runs, which lack the latter."""
    both = [(result["faults"], result["faults_asked"]) for result in results if "faults_asked" in result]
    return sum(struck for struck, _ in both), sum(asked for _, asked in both)


def _axis(name: str, value: Any, result: Mapping[str, Any]) -> str:
    return str(result["chaos"]) if name == "chaos" and result.get("chaos") else show(value)


def _notes(result: Mapping[str, Any]) -> list[str]:
    dropped = result.get("operations", {}).get("dropped", 0)
    earlier = f"{dropped} dropped operations are not in the percentiles: an earlier version measured this run"
    notes = (
        result.get("reason"),
        *verdict_notes(result),
        *scaled_notes(result),
        *result.get("flags", ()),
        earlier if dropped and LOWER_BOUNDS not in result else None,
    )
    return [note for note in notes if note]


def _shares(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a note if repeats had different numbers of nodes per host."""
    counts = [Counter(place["host"] for place in each.get("placement", {}).values()).values() for each in results]
    shares = dict.fromkeys("+".join(map(str, sorted(each, reverse=True))) for each in counts if each)
    return [f"its repeats had different shares of nodes per host: {', '.join(shares)}"] if len(shares) > 1 else []


def scaled_notes(result: Mapping[str, Any]) -> list[str]:
    """Return a line for each parameter of the load that was reduced for the simulation."""
    return [f"simulated with less load: {change}" for change in load_changes(result)]


def summary(results: Sequence[Row], title: str | None = None) -> Table:
    """Return the table of a run: what varied, throughput, latencies of the used kinds, what went wrong."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="dim",
        header_style="bold",
        pad_edge=False,
        collapse_padding=True,
        padding=(0, 1, 0, 0),
        box=None,
    )
    axes = list(dict.fromkeys(name for row in results for name in row.axes))
    kinds = shown_kinds(row.latency_ms for row in results)
    extra = [name for name in ("failovers_ms", "dropped", "verdicts") if any(getattr(row, name) for row in results)]
    short = any(struck < asked for struck, asked in (row.faults for row in results))
    for name in axes:
        table.add_column(name.rsplit(".", 1)[-1].replace("_", " "), overflow="fold", max_width=26)
    table.add_column("op/s", justify="right", no_wrap=True)
    for kind in kinds:
        for name in ("p50", "p99"):
            title_of = f"{kind} {name}" if name == "p50" and kind != "all" else name
            table.add_column(title_of, justify="right", no_wrap=True)
    if "failovers_ms" in extra:
        table.add_column("failover", justify="right", no_wrap=True)
    counts = ["faults"] * short + ["elections", "failed", "unknown"] + ["dropped"] * ("dropped" in extra)
    for name in counts:
        table.add_column(name, justify="right", overflow="fold")  # fold, so that no digit is cut off
    table.add_column("", no_wrap=True)
    if "verdicts" in extra:
        table.add_column("verdict", no_wrap=not any(row.not_checked for row in results))
    for row in results:
        table.add_row(
            *(Text(row.axes.get(name, "")) for name in axes),  # as Text: values of users are not markup
            _spread(row.throughputs),
            *(percentile(row.latency_ms.get(kind, {}), name) for kind in kinds for name in ("p50", "p99")),
            *([_failovers(row.failovers_ms)] if "failovers_ms" in extra else []),
            *([Text(faults(row.faults), "bold yellow" if row.faults[0] < row.faults[1] else "")] if short else []),
            "-" if row.elections is None else str(row.elections),
            count(row.failed),
            count(row.unknown),
            *([count(row.dropped)] if "dropped" in extra else []),
            status(row.statuses),
            *([verdict(row.verdicts, row.not_checked)] if "verdicts" in extra else []),
        )
    return table


def shown_kinds(latencies: Iterable[Mapping[str, Percentiles]]) -> list[str]:
    """Return the operation kinds with columns of their own: the used kinds, or `all` if more than two are used."""
    used = {kind for latency in latencies for kind in latency}
    kinds = [kind for kind in KINDS if kind in used]
    return kinds if len(kinds) <= 2 else ["all"]


def notes(results: Sequence[Row]) -> list[str]:
    """Return the notes to a table, one line each."""
    lines = [
        f"{' '.join(f'{name}={value}' for name, value in row.axes.items())}: {note}"
        for row in results
        for note in row.notes
    ]
    if any(each.get(LOWER_BOUNDS) for row in results for each in row.latency_ms.values()):
        lines.append(
            "≥: a lower bound; operations that failed, are of unknown outcome, or were dropped count with the time "
            "for which they are known to have waited"
        )
    if any(row.repeats > 1 for row in results):
        lines.append(
            "repeats: op/s is the median (lowest-highest); percentiles and failovers pool all repeats; "
            "the other numbers are sums"
        )
    if any(not row.open_loop for row in results):
        lines.append(
            "closed loop: clients that wait send nothing, so that outages are under-represented in percentiles"
        )
    if any(row.simulated for row in results):
        lines.append(SIMULATED)
    return lines


def _spread(values: Sequence[float]) -> str:
    """Return the value, or the median of several values with their range."""
    if not values:
        return "-"
    middle = f"{statistics.median(values):,.0f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.0f}-{max(values):,.0f})"


def _failovers(times_ms: Sequence[float | None]) -> str:
    """Return the time, or the median and the maximum of several; if some failovers had no success, their number."""
    if not times_ms:
        return "-"
    known = [time for time in times_ms if time is not None]
    if len(known) < len(times_ms):
        return f"{len(times_ms) - len(known)} of {len(times_ms)} none"
    worst = duration(max(known))
    return worst if len(known) == 1 else f"{duration(statistics.median(known))} (max {worst})"


def failovers_in_a_line(times_ms: Sequence[float | None]) -> str:
    """Return the failovers in words, with their number: a line has no column header to explain them."""
    known = [time for time in times_ms if time is not None]
    if len(times_ms) < 2 or len(known) < len(times_ms):
        return _failovers(times_ms)
    return f"median {duration(statistics.median(known))} max {duration(max(known))} ({len(known)})"
