"""Numbers and words formatted for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from sweeps.judge.expectations import PENDING
from sweeps.spec.metrics import LOWER_BOUNDS

Percentiles = Mapping[str, Any]
"""The value of `sweeps.analysis.latency.percentiles`."""
_BADNESS = {"violated": 3, "unknown": 2, PENDING: 1}


def percentile(found: Percentiles, name: str) -> str:
    """Format one percentile of an operation kind."""
    return duration(found.get(name), name in found.get(LOWER_BOUNDS, ()))


def faults(struck_of_asked: tuple[int, int]) -> str:
    """Format how many faults of the schedule were put in force: `24` if all were, else `12 of 24`."""
    struck, asked = struck_of_asked
    return str(struck) if struck == asked else f"{struck} of {asked}"


def duration(milliseconds: float | None, at_least: bool = False) -> str:
    """Format milliseconds with three significant digits and a unit; `≥` marks a lower bound, `-` a missing value."""
    if milliseconds is None:
        return "-"
    if at_least:
        return f"≥{duration(milliseconds)}"
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.3g} s" if milliseconds < 1e6 else f"{milliseconds / 1000:.0f} s"
    return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else "1 s"


def status(statuses: Sequence[str]) -> Text:
    """Return `ok`, or the first other status and how many of all statuses are not ok."""
    bad = [each for each in statuses if each != "ok"]
    if not bad:
        return Text("ok", "green")
    return Text(bad[0] if len(bad) == len(statuses) else f"{len(bad)} of {len(statuses)} {bad[0]}", "bold red")


def verdict(verdicts: Sequence[tuple[str, bool]], not_checked: Sequence[str] = ()) -> Text:
    """Return the worst verdict of all repeats, the number of repeats with it, and the checks that were not made."""
    if not verdicts:
        return Text("-", "dim")
    worst, good = max(verdicts, key=lambda each: (not each[1], _BADNESS.get(each[0], 0)))
    style = {"violated": "bold red", "ok": "green", PENDING: "dim"}.get(worst, "bold yellow")
    same = sum(found == worst for found, _ in verdicts)
    of = "" if same == len(verdicts) else f"{same} of {len(verdicts)} "
    text = Text(f"{of}{worst}", "green" if good and worst != PENDING else style)
    return text.append(f", not checked: {', '.join(not_checked)}", "bold yellow") if not_checked else text


def count(count: int) -> Text:
    return Text(f"{count:,}", "bold yellow" if count else "dim")


def clock(seconds: float) -> str:
    """Format seconds as 1:05 or 1:02:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(1, round(count / 2**20))} MiB"
