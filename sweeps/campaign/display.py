"""Views of a campaign: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.campaign.campaign import BARS, Campaign, CampaignView, describe
from sweeps.campaign.life import SeedResult
from sweeps.show.formats import clock

REFRESH_PER_S = 3
SHOWN_FAILURES = 4
LINES = 10
"""Number of progress lines in a plain display."""
_STYLES = {"ok": "green", "violated": "bold red", "unknown": "bold yellow"}


class CampaignPlainView(CampaignView):
    """A view for logs and pipes: a line now and then, and each failure at once."""

    def __init__(self, console: Console, campaign: Campaign) -> None:
        self._console, self._campaign = console, campaign

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def seed_done(self, result: SeedResult) -> None:
        """Print a failure; after each tenth of the seeds, print the progress."""
        if result.verdict != "ok":
            self.note("\n".join(describe(result)))
        if self._campaign.done % max(1, self._campaign.count // LINES) == 0:
            self.note(progress_line(self._campaign))


class CampaignLiveView(CampaignView):
    """A view that redraws the state of the campaign in place."""

    def __init__(self, console: Console, campaign: Campaign) -> None:
        self._live = Live(
            get_renderable=lambda: screen(campaign),
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


def make_view(console: Console, campaign: Campaign, *, plain: bool) -> CampaignView:
    """Return the live display if the output is a terminal, else plain lines."""
    return (
        CampaignPlainView(console, campaign)
        if plain or not console.is_terminal
        else CampaignLiveView(console, campaign)
    )


def progress_line(campaign: Campaign) -> str:
    """Return the progress in one line."""
    failed = f"{len(campaign.failures)} failed" if campaign.failures else "none failed"
    return f"{campaign.done} of {campaign.count} seeds, {campaign.per_second:.1f} per second, {failed}"


def screen(campaign: Campaign) -> RenderableType:
    """Return the current display."""
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(justify="right", no_wrap=True)
    left = campaign.left_s
    head.add_row(
        Text.assemble(("simulate", "bold"), f"  {campaign.done:,} of {campaign.count:,} seeds"),
        ProgressBar(total=float(campaign.count), completed=float(campaign.done)),
        f"{campaign.per_second:.1f}/s  {clock(campaign.elapsed_s)} elapsed"
        + (f", {clock(left)} left" if left is not None else ""),
    )
    parts: list[RenderableType] = [head, Text(campaign.where, "dim", no_wrap=True, overflow="ellipsis"), Text()]
    parts.append(coverage_table(campaign))
    if campaign.failures:
        parts += [Text(), Text(f"{len(campaign.failures)} failed", "bold red")]
        for failure in campaign.failures[-SHOWN_FAILURES:]:
            parts.append(Text("\n".join(describe(failure)), overflow="ellipsis", no_wrap=True))
    # The cursor waits on this empty line, so that the ^C of an interruption does not wrap a full line.
    return Group(*parts, Text())


def coverage_table(campaign: Campaign) -> Table:
    """Return how many seeds reached each situation, beside its bar."""
    table = Table("reached", title="coverage", title_justify="left", title_style="bold")
    for name in ("seeds", "bar", "times"):
        table.add_column(name, justify="right")
    for name in (*BARS, *sorted(set(campaign.times) - set(BARS))):
        short = campaign.reached[name] < campaign.bar(name)
        table.add_row(
            name,
            Text(f"{campaign.reached[name]:,}", "bold yellow" if short else ""),
            f"{campaign.bar(name):,}" if name in BARS else "",
            f"{campaign.times[name]:,}",
        )
    return table


def closing(campaign: Campaign) -> RenderableType:
    """Return the summary that is printed at the end."""
    operations = "  ".join(f"{name} {count:,}" for name, count in sorted(campaign.operations.items()))
    lines: list[RenderableType] = [coverage_table(campaign), Text(f"operations: {operations}", "dim")]
    lines += [Text(f"rare: {line}", "bold yellow") for line in campaign.rare()]
    lines += [Text(line, "bold yellow") for line in campaign.broken]
    lines.append(
        Text.assemble(
            (campaign.verdict, _STYLES[campaign.verdict]),
            f"  {campaign.done:,} of {campaign.count:,} seeds in {clock(campaign.elapsed_s)}, "
            f"{campaign.per_second * 60:,.0f} per minute; {clock(campaign.virtual_s)} of virtual time",
            ("  interrupted" if campaign.interrupted else "", "bold red"),
            ("" if any(map(campaign.bar, BARS)) else "; coverage is not judged", "dim"),
        )
    )
    return Group(*lines)
