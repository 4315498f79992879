"""Tables of sweeps with named cases (spec/cases.py): the expectation of each case beside its results. Pure functions.

If the cases also vary over other parameters, the table is a matrix: a row per case and number of nodes, a column
per combination of the rest. Otherwise each case has its own row, with its signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from orchestration.targets import TARGETS
from raft_actor_node.core.invariants.liveness import LIVENESS_BOUND
from sweeps.show.formats import duration, faults
from sweeps.show.tables import SIMULATED, scaled_notes
from sweeps.spec.grid import show
from sweeps.spec.metrics import LOWER_BOUNDS, METRICS
from sweeps.spec.parameters import CASE
from sweeps.spec.thresholds import parse_threshold
from sweeps.store.reader import Repeat

_NODES = "cluster.nodes"
_SWITCHES = ("raft.pre_vote", "raft.check_quorum")
"""Parameters that name a column, whether they are axes or fixed."""
_SURPRISES = {"unavailable": "UNAVAILABLE", "available": "available, not expected"}


class Found(NamedTuple):
    """The result of a cell in a few words."""

    words: str
    good: bool
    """Whether the result meets the expectation."""
    outage_ms: float | None = None


def found(result: Mapping[str, Any], expected: str) -> Found:
    """Compare the result of a cell with its expectation."""
    verdict = result.get("verdict", {})
    kind = str(verdict.get("verdict", "not judged"))
    good = result["status"] == "ok" and not verdict.get("unexpected")
    if kind == "violated":
        return Found("violated, expected" if good else "VIOLATED", good)
    if expected in ("violated", "unknown"):
        return Found(f"{kind}, expected" if good else f"{kind}, not {expected}", good)
    state, outage_ms = served(result)
    note = "" if kind == "ok" else f", verdict {kind}"
    if state is None:
        words = result["status"] if result["status"] != "ok" else "ok" if kind == "ok" else kind
        return Found(words + (note if words not in ("ok", kind) else ""), good, outage_ms)
    if expected in ("available", "unavailable") and state != expected:
        return Found(_SURPRISES.get(state, state) + note, False, outage_ms)
    if result["status"] != "ok":
        return Found(f"{state}, {result['status']}", False, outage_ms)
    return Found(state + (", expected" if state == "unavailable" else "") + note, good, outage_ms)


def served(result: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """Return whether operations succeeded under faults, and the longest outage in milliseconds.

    The first value is `available`, `barely available` or `unavailable`; None if the faults of the cell differ in it or
    were too short. Without faults, one success in the measurement is `available`.
    """
    under = result.get("availability")
    if under is not None and under["state"] is not None:
        return under["state"], under["outage_ms"]
    if result.get("faults"):
        return None, result.get("longest_gap_ms")
    ok = result.get("operations", {}).get("ok")
    return ("available" if ok else "unavailable"), result.get("longest_gap_ms") if ok else None


def has_cases(cells: Sequence[Repeat]) -> bool:
    """Whether these cells belong to a sweep with named cases."""
    return any(CASE in params["axes"] for params, _ in cells)


def view(cells: Sequence[Repeat], refused: Mapping[str, str] | None = None) -> Table:
    """Return the table of a sweep with named cases. `refused` maps the cases that could not run to their errors."""
    others = {name for params, _ in cells for name in params["axes"]} - {CASE}
    return matrix(cells) if others else cases_table(cells, refused or {})


def matrix(cells: Sequence[Repeat]) -> Table:
    """Return a row per case and number of nodes, and a column per combination of the other parameters."""
    fields: dict[tuple[str, str], dict[tuple[tuple[str, Any], ...], list[Found]]] = {}
    columns: dict[tuple[tuple[str, Any], ...], str] = {}
    for params, result in cells:
        axes = dict(params["axes"])
        row = (str(axes.pop(CASE, "")), show(axes.pop(_NODES, params["parameters"]["cluster"]["nodes"])))
        column = tuple((name, show(value)) for name, value in axes.items())
        columns.setdefault(column, _heading(column, params["parameters"]))
        expected = params["parameters"]["expect"]
        fields.setdefault(row, {}).setdefault(column, []).append(found(result, expected))
    table = _table()
    table.add_column(CASE, no_wrap=True)
    table.add_column("nodes", justify="right")
    for heading in columns.values():
        table.add_column(heading, overflow="fold")
    last = ""
    for (case, nodes), row_fields in fields.items():
        found_by_column = (_field(row_fields.get(column, ()), with_outage=True) for column in columns)
        table.add_row(Text(case if case != last else ""), nodes, *found_by_column)
        last = case
    return table


def _heading(column: Iterable[tuple[str, str]], parameters: Mapping[str, Any]) -> str:
    """Return the switches that are on in these cells: `pre vote + check quorum`, or `neither`.

    If a parameter that is not a switch varies, return the varying names with their values.
    """
    effective = {name: show(parameters.get("raft", {}).get(name.partition(".")[2], "")) for name in _SWITCHES}
    varying = dict(column)
    named = [(name.rsplit(".", 1)[-1].replace("_", " "), value) for name, value in varying.items()]
    if any(value not in ("true", "false") for _, value in named):
        return ", ".join(f"{name} {value}" for name, value in named)
    switches = {name.rsplit(".", 1)[-1].replace("_", " "): value for name, value in {**effective, **varying}.items()}
    return " + ".join(name for name, value in switches.items() if value == "true") or "neither"


def _field(repeats: Sequence[Found], *, with_outage: bool = False) -> Text:
    """Return the result of all repeats, or else the worst result and the number of repeats with it."""
    if not repeats:
        return Text("")
    worst = min(repeats, key=lambda each: each.good)
    same = [each for each in repeats if each.words == worst.words]
    of = "" if len(same) == len(repeats) else f"{len(same)} of {len(repeats)} "
    outages = [each.outage_ms for each in same if each.outage_ms is not None and "unavail" not in each.words.lower()]
    words = f"{of}{worst.words}" + (f" {duration(max(outages))}" if outages and with_outage else "")
    style = ("dim" if "expected" in worst.words else "green") if worst.good else "bold red"
    return Text(words, style)


def cases_table(cells: Sequence[Repeat], refused: Mapping[str, str]) -> Table:
    """Return a row per case: its expectation, its result, and its signature beside the measured values."""
    groups: dict[str, list[Repeat]] = {}
    for params, result in cells:
        groups.setdefault(str(params["axes"].get(CASE, "")), []).append((params, result))
    signed = bool(refused) or any(params.get("signature") for params, _ in cells)
    table = _table()
    table.add_column(CASE, overflow="fold", max_width=40)
    table.add_column("expected", no_wrap=True)
    table.add_column("found", overflow="fold", max_width=34)
    table.add_column("outage", justify="right", no_wrap=True)
    for name in ("signature", "seen") if signed else ("elections", "ok", "failed", "unknown"):
        table.add_column(name, justify="left" if signed else "right", overflow="fold")
    for case, repeats in groups.items():
        params, result = repeats[0]
        expected = params["parameters"]["expect"]
        details = _signature(params, [r for _, r in repeats]) if signed else _counts([r for _, r in repeats])
        seen = [found(result, expected) for _, result in repeats]
        outages = [each.outage_ms for each in seen if each.outage_ms is not None]
        warned = ", warned" if params.get("warnings") else ""
        table.add_row(Text(case), expected + warned, _field(seen), duration(max(outages)) if outages else "-", *details)
    for case, error in refused.items():
        rule = error.partition(" (allow_bad_parameters")[0]
        table.add_row(Text(case), "refused", Text("refused", "dim"), "", Text("the rule", "dim"), Text(rule))
    return table


def _counts(results: Sequence[Mapping[str, Any]]) -> list[Text]:
    """Return elections and outcomes of all repeats together."""
    won = [result["elections"]["won"] for result in results if result.get("elections")]
    counts = [result["operations"] for result in results if "operations" in result]
    sums = [sum(count[name] for count in counts) for name in ("ok", "failed", "unknown")]
    return [Text("-" if None in won or not won else str(sum(won))), *(Text(f"{count:,}") for count in sums)]


def _signature(params: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> list[Text]:
    """Return the conditions, and the value for each: green if the condition holds in all repeats."""
    conditions, seen = Text(), Text()
    for metric, condition in params.get("signature", {}).items():
        separator = "\n" if conditions else ""
        conditions.append(f"{separator}{metric} {condition}")
        try:
            threshold = parse_threshold(metric, condition)
        except ValueError as error:  # a condition written for an earlier version
            seen.append(f"{separator}{error}", "dim")
            continue
        values = [result.get("metrics", {}).get(metric) for result in results]
        bounds = [result.get(LOWER_BOUNDS, ()) for result in results]
        holds = all(threshold.miss({metric: each}, bound) is None for each, bound in zip(values, bounds, strict=True))
        shown = (_value(metric, each, metric in bound) for each, bound in zip(values, bounds, strict=True))
        words = ", ".join(dict.fromkeys(shown))
        seen.append(separator).append(words, "green" if holds else "dim" if set(values) == {None} else "yellow")
    return [conditions, seen]


def _value(metric: str, value: float | None, at_least: bool) -> str:
    if value is None:
        return "not measured"
    return duration(value, at_least) if METRICS[metric].is_time else f"{value:,.2f}".rstrip("0").rstrip(".")


def notes(cells: Sequence[Repeat]) -> list[str]:
    """Return the notes to these tables: how to read a field, and why cells did not meet their expectation."""
    lines = [f"{params['label']}: {note}" for params, result in cells for note in _notes(params, result)]
    if any(result.get("availability") for _, result in cells):
        lines.append(
            f"available: operations completed under the fault later than {LIVENESS_BOUND} election timeouts after the "
            "fault began; the time is the longest outage until the fault was healed"
        )
    if any(TARGETS[params["parameters"]["target"]].can.virtual_time for params, _ in cells):
        lines.append(SIMULATED)
    return lines


def _notes(params: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Return why a cell missed its expectation, how many faults were put in force, and how its load was reduced."""
    good = found(result, params["parameters"]["expect"]).good
    reasons = () if good else dict.fromkeys((result.get("reason"), result.get("verdict", {}).get("reason")))
    struck = result.get("faults", 0), result.get("faults_asked", 0)
    short = f"{faults(struck)} faults were put in force" if struck[0] < struck[1] else None
    return [note for note in (*reasons, short, *scaled_notes(result)) if note]


def _table() -> Table:
    return Table(box=None, pad_edge=False, collapse_padding=True, padding=(0, 2, 0, 0), header_style="bold")
