"""A campaign of many seeds: run them here or as Ray tasks, count the situations that they reached, and judge them all.

A campaign is *violated* if any seed is violated. Otherwise it is *unknown* if any seed is unknown or has no result, or
if a situation was rare. For example, a campaign proves nothing about Figure 8 if no old-term entry reached a majority.

A situation is rare if fewer seeds reached it than its bar requires. Bars are per 100 seeds. They scale with the number
of seeds and are rounded down, so a small campaign is not judged by situations that it is unlikely to reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from chaos.checks.finding import Verdict
from raft_actor_node.signals import on_ending_signal
from sweeps.campaign.life import SeedResult, run_seed
from sweeps.store.files import new_directory, write_text, writing

BARS: dict[str, int] = {
    "leader changes": 50,
    "suffixes erased": 25,
    "old-term majorities": 30,
    "retries answered": 30,
    "torn tails cut": 12,
    "reads refused": 25,
    "pre-votes refused": 20,
    "votes asked again": 2,
}
"""Minimum number of seeds per 100 that must reach each situation. Usually, two to three times as many do."""
SEEDS_PER_TASK = 4
SEED_TIMEOUT_S = 60.0
STORIES = 5
"""Maximum number of failed seeds that are run again to write their stories."""
LEGEND = """\
    seconds since the beginning | node | `<` received from, `>` sent to, `*` an event, `!` a broken rule.
    Messages between nodes are listed when they arrive or are lost. `client` stands for all clients. The lines of
    `links` and `inside` are the link faults and the faults inside nodes that are in force from then on."""
EXIT_OK, EXIT_FAILED, EXIT_VIOLATED, EXIT_UNKNOWN, EXIT_INTERRUPTED = 0, 1, 3, 4, 130


class Campaign:
    """The results so far of a campaign with the seeds from `first` to `first + count - 1`."""

    def __init__(
        self, first: int, count: int, profile: str | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create an empty campaign. With a `profile`, all seeds use it, and coverage is not judged."""
        self.first, self.count, self.profile = first, count, profile
        self.done = 0
        self.failures: list[SeedResult] = []
        """Results whose verdict is not ok."""
        self.broken: list[str] = []
        """Errors of seeds or tasks that gave no result, one line each."""
        self.reached: Counter[str] = Counter()
        """Number of seeds that reached each situation."""
        self.times: Counter[str] = Counter()
        """Number of times each situation was reached."""
        self.operations: Counter[str] = Counter()
        self.seconds = 0.0
        self.virtual_s = 0.0
        self.where = ""
        self.interrupted = False
        self._clock = clock
        self._begin = clock()
        self._took: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start of the first seed to the end of the last."""
        return self._clock() - self._begin if self._took is None else self._took

    @property
    def per_second(self) -> float:
        """Seeds per second so far."""
        return self.done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Estimated seconds until the last seed ends."""
        return (self.count - self.done) / self.per_second if self.per_second else None

    def begin(self) -> None:
        """Record that the first seed begins."""
        self._begin = self._clock()

    def end(self) -> None:
        """Record that no more results follow."""
        self._took = self.elapsed_s

    def add(self, result: SeedResult) -> None:
        """Add a result."""
        self.done += 1
        self.seconds += result.seconds
        self.virtual_s += result.virtual_s
        self.operations.update(result.operations)
        for name, count in result.coverage.items():
            self.times[name] += count
            self.reached[name] += count > 0
        if result.verdict != "ok":
            self.failures.append(result)
            self.failures.sort(key=lambda failure: failure.seed)

    def bar(self, name: str) -> int:
        """Return the minimum number of the seeds so far that must have reached a situation."""
        return BARS.get(name, 0) * self.done // 100 if self.profile is None else 0

    def rare(self) -> list[str]:
        """Return the situations that too few seeds reached, one line each."""
        return [
            f"{name}: reached by {self.reached[name]} of {self.done} seeds, below the bar of {self.bar(name)}"
            for name in BARS
            if self.reached[name] < self.bar(name)
        ]

    @property
    def verdict(self) -> Verdict:
        """The verdict on the results so far."""
        if any(failure.verdict == "violated" for failure in self.failures):
            return "violated"
        open_ = self.failures or self.broken or self.interrupted or self.done < self.count or self.rare()
        return "unknown" if open_ else "ok"

    @property
    def exit_code(self) -> int:
        """The exit code of `sweep`."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        if self.verdict == "violated":
            return EXIT_VIOLATED
        if self.broken:
            return EXIT_FAILED
        return EXIT_UNKNOWN if self.verdict == "unknown" else EXIT_OK

    def as_json(self) -> dict[str, Any]:
        """Return the campaign as JSON data."""
        return {
            "verdict": self.verdict,
            "first_seed": self.first,
            "seeds": self.count,
            "done": self.done,
            "interrupted": self.interrupted,
            "elapsed_s": round(self.elapsed_s, 3),
            "seconds_of_cpu": round(self.seconds, 3),
            "virtual_s": round(self.virtual_s, 3),
            "coverage": {
                name: {"seeds": self.reached[name], "bar": self.bar(name), "times": self.times[name]}
                for name in dict.fromkeys((*BARS, *sorted(self.times)))
            },
            "rare": self.rare(),
            "operations": dict(sorted(self.operations.items())),
            "failures": [asdict(replace(failure, picture="")) for failure in self.failures],
            "broken": self.broken,
        }


class CampaignView:
    """Display of a campaign. This base class shows nothing."""

    def __enter__(self) -> CampaignView:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def seed_done(self, result: SeedResult) -> None:
        """Show that a seed ended."""

    def note(self, text: str) -> None:
        """Show a message immediately."""


def run_seeds(seeds: Sequence[int], profile: str | None = None) -> list[SeedResult | str]:
    """Run seeds in order, as one Ray task. Return a result per seed, or a one-line error if the seed has none."""
    return [_run(seed, profile) for seed in seeds]


def _run(seed: int, profile: str | None) -> SeedResult | str:
    try:
        return run_seed(seed, profile=profile)
    except Exception as error:  # a crash in one seed must not lose the results of others
        return f"seed {seed}: {type(error).__name__}: {error}"


def _take(campaign: Campaign, view: CampaignView, outcome: SeedResult | str) -> None:
    if isinstance(outcome, SeedResult):
        campaign.add(outcome)
        view.seed_done(outcome)
    else:
        campaign.broken.append(outcome)
        view.note(outcome)


def run_serial(campaign: Campaign, view: CampaignView) -> None:
    """Run all seeds in this process. A KeyboardInterrupt ends the campaign early and marks it as interrupted."""
    campaign.where = "in this process"
    try:
        for seed in range(campaign.first, campaign.first + campaign.count):
            _take(campaign, view, _run(seed, campaign.profile))
    except KeyboardInterrupt:
        campaign.interrupted = True
    finally:
        campaign.end()


async def run_on_ray(campaign: Campaign, view: CampaignView, address: str | None) -> None:
    """Run all seeds as Ray tasks, as many at a time as there are CPUs.

    SIGINT, SIGTERM and SIGHUP end the campaign early and mark it as interrupted. Raises InfrastructureError if Ray
    cannot be reached.
    """
    work = asyncio.ensure_future(_on_ray(campaign, view, address))
    with on_ending_signal(work.cancel):
        try:
            await work
        except asyncio.CancelledError:
            campaign.interrupted = True
        finally:
            campaign.end()


async def _on_ray(campaign: Campaign, view: CampaignView, address: str | None) -> None:
    # Imported here, because importing Ray takes a second.
    from orchestration import RayBackend  # noqa: PLC0415
    from orchestration.ray_cluster.tasks import run_tasks  # noqa: PLC0415

    async with RayBackend.connect(address) as backend:
        campaign.where = backend.description
        view.note(backend.description)
        await backend.pool.check_code()
        cpus = (os.cpu_count() or 1) if backend.private else int(sum(host.cpus for host in backend.hosts))
        campaign.begin()
        tasks = run_tasks(
            partial(run_seeds, profile=campaign.profile),
            _chunks(campaign, cpus),
            at_a_time=max(1, cpus),
            timeout_s=SEED_TIMEOUT_S * SEEDS_PER_TASK,
        )
        async with contextlib.aclosing(tasks) as outcomes:
            async for outcome in outcomes:
                if outcome.result is None:
                    _take(campaign, view, f"seeds {outcome.item[0]} to {outcome.item[-1]}: {outcome.error}")
                for result in outcome.result or ():
                    _take(campaign, view, result)


def _chunks(campaign: Campaign, cpus: int) -> Iterator[Sequence[int]]:
    seeds = range(campaign.first, campaign.first + campaign.count)
    size = max(1, min(SEEDS_PER_TASK, campaign.count // max(1, cpus)))
    return (seeds[at : at + size] for at in range(0, len(seeds), size))


class CampaignReport:
    """The directory with the files of a campaign.

    campaign.json holds the summary, and seed-N.txt the story of seed N. If the history of seed N is not linearizable,
    seed-N.svg shows why.
    """

    def __init__(self, out: Path) -> None:
        self._first_choice = out / "simulate" / time.strftime("%Y-%m-%dT%H-%M-%S")

    @cached_property
    def path(self) -> Path:
        """The directory, created on first access. Campaigns that start in the same second get different directories."""
        with writing(self._first_choice):
            made = new_directory(self._first_choice)
        return made  # noqa: RET504 - the type checker assumes that `writing` may suppress an error

    def story(self, result: SeedResult) -> Path:
        """Write the story of a seed, and its picture if there is one; return the path of the story."""
        path = self.path / f"seed-{result.seed}.txt"
        with writing(path):
            path.write_text(story_of(result), encoding="utf-8")
        if result.picture:
            with writing(picture := path.with_suffix(".svg")):
                picture.write_text(result.picture, encoding="utf-8")
        return path

    def summary(self, campaign: Campaign) -> None:
        """Write campaign.json."""
        text = json.dumps(campaign.as_json(), indent=1)
        write_text(self.path / "campaign.json", text + "\n")


def story_of(result: SeedResult) -> str:
    """Return the story of a seed as text, for its file and for display."""
    details = [finding.detail for finding in result.findings if finding.detail and finding.verdict != "ok"]
    return "\n".join((*describe(result), "", *details, LEGEND, "", *result.story, ""))


def describe(result: SeedResult) -> list[str]:
    """Describe a failed seed for display: findings, options, and how to replay it."""
    return [
        f"seed {result.seed}: {result.verdict}",
        *(f"  {each.check}: {each.reason}" for each in result.findings if each.verdict == result.verdict),
        f"  options: {result.options}",
        f"  digest:  {result.digest}",
        f"  replay:  {replay_command(result)}",
    ]


def replay_command(result: SeedResult) -> str:
    """Return the command that runs a seed again and prints its story."""
    forced = f" --profile {result.profile}" if result.forced else ""
    return f"{program()} simulate --seed {result.seed} --seeds 1{forced} --story"


def program() -> str:
    """Return the shell command that runs `sweep` from the current directory."""
    if shutil.which("sweep"):
        return "sweep"
    installed = Path(sys.executable).with_name("sweep")
    return os.path.relpath(installed) if installed.exists() else f"{sys.executable} -m sweeps.cli"
