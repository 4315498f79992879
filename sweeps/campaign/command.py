"""`sweep simulate`: a campaign from its options to its exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from raft_actor_node.errors import ConfigError, RaftLabError
from sweeps.campaign.campaign import (
    STORIES,
    Campaign,
    CampaignReport,
    CampaignView,
    describe,
    run_on_ray,
    run_serial,
    story_of,
)
from sweeps.campaign.display import closing, make_view
from sweeps.campaign.life import SeedResult, run_seed
from sweeps.campaign.profiles import PROFILES
from sweeps.judge.exit_codes import ends_with


def simulate(
    console: Console,
    *,
    first: int,
    count: int,
    profile: str | None = None,
    serial: bool = False,
    story: bool = False,
    out: Path = Path("results"),
    address: str | None = None,
    plain: bool = False,
) -> int:
    """Run a campaign, show it, and write its report; return the exit code of `sweep`.

    Raises ConfigError for an unknown profile or conflicting options, InfrastructureError if Ray cannot be reached, and
    WriteFailed if the report cannot be written.
    """
    if profile is not None and profile not in PROFILES:
        raise ConfigError(f"--profile: must be one of {', '.join(PROFILES)}, not {profile!r}")
    if story and count != 1:
        raise ConfigError(f"--story: prints the story of one seed only; use --seeds 1, not {count}")

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    campaign, report = Campaign(first, count, profile), CampaignReport(out)
    report.summary(campaign)  # an unwritable folder fails before the first seed
    try:
        if story:
            told: Iterable[SeedResult] = (_tell(campaign, say),)
        else:
            with make_view(console, campaign, plain=plain) as view:
                _run(campaign, view, serial=serial or count == 1, address=address)
            for failure in campaign.failures:
                say("\n".join(describe(failure)))
            told = (run_seed(failure.seed, profile=profile, story=True) for failure in campaign.failures[:STORIES])
        # Print all findings before writing any: the disk may be full.
        console.print(closing(campaign))
        report.summary(campaign)
        for result in told:
            path = report.story(result)
            say(f"story of seed {result.seed}: {path}" + (f" and {path.stem}.svg" if result.picture else ""))
        say(str(report.path))
    except (RaftLabError, OSError) as error:
        ends_with(error, campaign.exit_code)
        raise
    return campaign.exit_code


def _run(campaign: Campaign, view: CampaignView, *, serial: bool, address: str | None) -> None:
    if serial:
        run_serial(campaign, view)
    else:
        asyncio.run(run_on_ray(campaign, view, address))


def _tell(campaign: Campaign, say: Callable[[str], None]) -> SeedResult:
    """Run one seed, and print its story."""
    result = run_seed(campaign.first, profile=campaign.profile, story=True)
    campaign.add(result)
    campaign.end()
    say(story_of(result))
    return result
