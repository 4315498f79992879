"""A violation, as text and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

from chaos.history import Key, Operation
from chaos.linearizability.problem import shown, shown_value

_LANE_PX = 46
_BAR_PX = 26
_LEFT_PX = 90
_TOP_PX = 74
_FOOT_PX = 84
_CHARACTER_PX = 7.1
"""Width of a character of the bars' text; slightly too wide, because fonts differ."""
_MIN_GAP_PX, _MAX_GAP_PX = 14.0, 150.0
_COLOURS = {"ok": ("#cfe3f7", "#2f6ea8"), "info": ("#f3ead2", "#a8883a"), "impossible": ("#f9d0cf", "#c22f2b")}
_STYLE = """
  text { font-family: DejaVu Sans Mono, Menlo, Consolas, monospace; font-size: 11px; fill: #222 }
  .title { font-size: 13px; font-weight: bold }
  .small { font-size: 10px; fill: #666 }
  .lane { stroke: #ddd }
  .time { stroke: #e4e4e4; stroke-dasharray: 2 3 }"""


@dataclass(frozen=True)
class Violation:
    """A small set of operations on one key that no sequential order explains."""

    key: Key
    operations: tuple[Operation, ...]
    """Sorted by invocation."""
    impossible: Operation
    """The operation whose return made every order impossible. The others alone have a valid order."""
    reason: str
    """Why no order is possible, in one line."""
    left_out: int
    """Number of further operations on the key that the violation does not need: see shrink.py."""

    def as_text(self) -> str:
        """Return the title, the foot and a table for a person, with one operation per line."""
        begin, unit = self.operations[0].invoke_ns, _unit(self.operations)
        rows = [("", "client", f"from {unit}", f"to {unit}", "operation", "")]
        for operation in self.operations:
            end = "-" if math.isinf(operation.return_ns) else _time(operation.return_ns - begin, unit)
            mark, note = (">>", "impossible") if operation is self.impossible else ("", "")
            note = "unknown outcome" if operation.outcome == "info" else note
            since = _time(operation.invoke_ns - begin, unit)
            rows.append((mark, str(operation.process), since, end, said(operation), note))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        right = (False, True, True, True, False, False)
        table = [
            "  ".join(
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(row, widths, right, strict=True)
            ).rstrip()
            for row in rows
        ]
        return "\n".join([self.title(), self.foot(), "", *table, ""])

    def as_svg(self) -> str:
        """Return a picture: bars over time, one lane per client. Bars of unknown outcome are open to the right."""
        return _picture(self)

    def title(self) -> str:
        """Return the key and the reason, in one line."""
        return f"key {shown(self.key)}: {self.reason}"

    def foot(self) -> str:
        """Return how many operations are left out, and how accurate the times are, in one line."""
        error_ns = max(operation.error_ns for operation in self.operations)
        times = f" Times are from several clocks, accurate to {error_ns / 1e6:.3f} ms." if error_ns else ""
        if not self.left_out:
            return f"These are all operations on the key.{times}"
        return (
            f"Other operations on the key, left out: {self.left_out}. No order exists even if each of them took effect "
            f"at any moment after it began, or never.{times}"
        )


def said(operation: Operation) -> str:
    """Return an operation and its answer as text."""
    ok = operation.outcome == "ok"
    match operation.f:
        case "get":
            return f"get -> {shown_value(operation.observed)}"
        case "delete":
            return "delete" + {True: " -> found", False: " -> not found", None: ""}[operation.observed if ok else None]
        case "cas":
            asked = f"cas {shown_value(operation.expected)} => {shown_value(operation.written)}"
            if not ok:
                return asked
            return f"{asked} -> swapped" if operation.swapped else f"{asked} -> saw {shown_value(operation.observed)}"
        case "append" if ok and operation.observed is not None:
            return f"append {shown_value(operation.written)} -> {operation.observed} B"
    return f"{operation.f} {shown_value(operation.written)}"


def _unit(operations: Sequence[Operation]) -> str:
    """Return the unit of times: ns if the times are small numbers, as in a history without times."""
    last = max((o.return_ns for o in operations if not math.isinf(o.return_ns)), default=operations[-1].invoke_ns)
    return "ms" if last - operations[0].invoke_ns >= 10_000 else "ns"


def _time(nanoseconds: float, unit: str) -> str:
    return f"{nanoseconds / 1e6:.3f}" if unit == "ms" else f"{nanoseconds:.0f}"


_Lane = tuple[int, int]
"""(client, lane number). After an operation of unknown outcome, a client continues in another lane."""


def _picture(violation: Violation) -> str:
    x = _axis(violation.operations)
    lanes = _lanes(violation.operations)
    y = {lane: _TOP_PX + at * _LANE_PX for at, lane in enumerate(sorted(set(lanes.values())))}
    right, bottom = max(x.values()) + 60, _TOP_PX + len(y) * _LANE_PX
    bars = []
    for operation in violation.operations:
        kind = "impossible" if operation is violation.impossible else operation.outcome
        begin, text = x[operation.invoke_ns], said(operation)
        end = right if math.isinf(operation.return_ns) else x[operation.return_ns]
        bars += _bar(kind, begin, end, y[lanes[id(operation)]], text)
        right = max(right, begin + _text_px(text))
    title, foot = violation.title(), violation.foot()
    note = f"{_unit(violation.operations)} since the first invocation, not to scale; red: no order explains it; "
    note += "open to the right: unknown outcome"
    width = max(right, *(16 + len(line) * 8.4 for line in (title, foot, note))) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{bottom + _FOOT_PX}">',
        f"<style>{_STYLE}\n</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text class="title" x="16" y="26">{escape(title)}</text>',
        f'<text class="small" x="16" y="44">{escape(foot)}</text>',
        *_ticks(x, bottom, violation.operations[0].invoke_ns, _unit(violation.operations)),
    ]
    for (process, row), top in y.items():
        middle = top + _BAR_PX / 2
        parts.append(f'<line class="lane" x1="{_LEFT_PX}" x2="{right:.1f}" y1="{middle}" y2="{middle}"/>')
        if row == 0:
            parts.append(f'<text x="16" y="{middle + 4}">client {process}</text>')
    parts += [*bars, f'<text class="small" x="16" y="{bottom + _FOOT_PX - 10}">{note}</text>', "</svg>", ""]
    return "\n".join(parts)


def _axis(operations: Sequence[Operation]) -> dict[int | float, float]:
    """Return the position of each moment at which an operation began or ended.

    Positions are to scale, with two exceptions: the length of a gap is bounded, and each bar has room for its text.
    """
    times = {o.invoke_ns for o in operations} | {o.return_ns for o in operations if not math.isinf(o.return_ns)}
    ordered = sorted(times)
    gaps = [after - before for before, after in pairwise(ordered)]
    scale = _MAX_GAP_PX / max(1, sorted(gaps)[len(gaps) * 3 // 4]) if gaps else 1.0
    drawn: dict[int | float, float] = {ordered[0]: _LEFT_PX + 10.0}
    for (before, after), gap in zip(pairwise(ordered), gaps, strict=True):
        room = [drawn[o.invoke_ns] + _text_px(said(o)) for o in operations if o.return_ns == after > o.invoke_ns]
        drawn[after] = max(drawn[before] + min(max(gap * scale, _MIN_GAP_PX), _MAX_GAP_PX), *room, 0.0)
    return drawn


def _text_px(text: str) -> float:
    return len(text) * _CHARACTER_PX + 14


def _lanes(operations: Sequence[Operation]) -> dict[int, _Lane]:
    """Return the lane of each operation, by its id()."""
    ends: dict[_Lane, float] = {}
    lanes = {}
    for operation in operations:
        row = 0
        while ends.get((operation.process, row), -math.inf) > operation.invoke_ns:
            row += 1
        lane = operation.process, row
        ends[lane] = operation.return_ns
        lanes[id(operation)] = lane
    return lanes


def _bar(kind: str, begin: float, end: float, top: float, text: str) -> list[str]:
    """Return the parts of one bar, open to the right when the outcome is unknown."""
    fill, line = _COLOURS[kind]
    width, bottom = max(end - begin, 3.0), top + _BAR_PX
    if kind == "info":
        frame = f"M {end:.1f} {top} H {begin:.1f} V {bottom} H {end:.1f}"
        shape = f'<path d="{frame}" fill="{fill}" stroke="{line}" stroke-dasharray="5 3"/>'
    else:
        heavy = 2.5 if kind == "impossible" else 1
        place = f'x="{begin:.1f}" y="{top}" width="{width:.1f}" height="{_BAR_PX}" rx="3"'
        shape = f'<rect {place} fill="{fill}" stroke="{line}" stroke-width="{heavy}"/>'
    weight = ' font-weight="bold"' if kind == "impossible" else ""
    return [shape, f'<text x="{begin + 6:.1f}" y="{top + _BAR_PX / 2 + 4}"{weight}>{escape(text)}</text>']


def _ticks(x: dict[int | float, float], bottom: float, zero_ns: int, unit: str) -> list[str]:
    """Return a line and a time label for each moment. The labels are slanted so that they do not overlap."""
    parts = []
    for time_ns, at in x.items():
        parts.append(f'<line class="time" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP_PX - 8}" y2="{bottom}"/>')
        turned = f'transform="translate({at + 3:.1f} {bottom + 8}) rotate(50)"'
        parts.append(f'<text class="small" {turned}>{_time(time_ns - zero_ns, unit)}</text>')
    return parts
