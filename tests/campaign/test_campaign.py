"""Campaigns of many seeds: sums, verdicts, the display, and how a campaign ends."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from chaos.checks.finding import Finding, Verdict
from sweeps.campaign.campaign import (
    BARS,
    Campaign,
    CampaignReport,
    CampaignView,
    describe,
    program,
    replay_command,
    run_on_ray,
    run_seeds,
    run_serial,
)
from sweeps.campaign.display import CampaignLiveView, CampaignPlainView, closing, make_view, progress_line, screen
from sweeps.campaign.life import SeedResult
from sweeps.cli import main


def seed_result(seed: int, verdict: Verdict = "ok", *, forced: bool = False, **coverage: int) -> SeedResult:
    return SeedResult(
        seed=seed,
        profile="storm",
        forced=forced,
        verdict=verdict,
        findings=(Finding("invariants", verdict, "two leaders in term 4"),),
        coverage={name.replace("_", " "): count for name, count in coverage.items()},
        operations={"ok": 190, "info": 10},
        options="profile=storm nodes=5",
        digest=f"d{seed}",
        seconds=0.25,
        virtual_s=9.0,
    )


def full(count: int, **missing: int) -> Campaign:
    """A campaign whose seeds all reach every situation, except those that only some of them are to reach."""
    campaign = Campaign(0, count)
    for seed in range(count):
        coverage = {name: 2 for name in BARS if seed < missing.get(name.replace(" ", "_").replace("-", "_"), count)}
        campaign.add(SeedResult(**{**vars(seed_result(seed)), "coverage": coverage}))
    return campaign


def text(renderable: object) -> str:
    console = Console(width=120, record=True, quiet=True)
    with console.capture() as capture:
        Console(width=120, file=console.file)
        console.quiet = False
        console.print(renderable)
    return capture.get()


# ---------------------------------------------------------------------------------- the verdict


def test_a_full_campaign_is_ok() -> None:
    campaign = full(100)
    assert (campaign.verdict, campaign.exit_code, campaign.rare()) == ("ok", 0, [])
    assert campaign.times["leader changes"] == 200


def test_a_campaign_that_rarely_reached_something_is_unknown() -> None:
    campaign = full(100, torn_tails_cut=BARS["torn tails cut"] - 1)
    assert (campaign.verdict, campaign.exit_code) == ("unknown", 4)
    assert campaign.rare() == ["torn tails cut: reached by 11 of 100 seeds, below the bar of 12"]


def test_bars_scale_with_the_campaign_and_a_handful_is_not_judged() -> None:
    assert full(200, torn_tails_cut=23).verdict == "unknown"
    assert full(200, torn_tails_cut=24).verdict == "ok"
    assert full(1, **{name.replace(" ", "_").replace("-", "_"): 0 for name in BARS}).verdict == "ok"


def test_a_campaign_of_one_profile_is_not_judged_by_its_coverage() -> None:
    campaign = Campaign(0, 100, "flaky")
    for seed in range(100):
        campaign.add(seed_result(seed))
    assert campaign.verdict == "ok"


def test_a_violation_goes_before_an_unknown() -> None:
    campaign = full(10)
    campaign.add(seed_result(11, "unknown"))
    assert (campaign.verdict, campaign.exit_code) == ("unknown", 4)
    campaign.add(seed_result(10, "violated"))
    assert (campaign.verdict, campaign.exit_code) == ("violated", 3)
    assert [failure.seed for failure in campaign.failures] == [10, 11]


def test_a_seed_without_a_result_is_a_failure_and_an_interruption_is_no_pass() -> None:
    broken = full(10)
    broken.broken.append("seeds 3 to 6: its worker is gone")
    assert (broken.verdict, broken.exit_code) == ("unknown", 1)
    interrupted = full(10)
    interrupted.interrupted = True
    assert (interrupted.verdict, interrupted.exit_code) == ("unknown", 130)


@pytest.mark.parametrize("done", [0, 9])
def test_a_campaign_that_did_not_run_all_of_its_seeds_is_no_pass(done: int) -> None:
    campaign = full(10)
    campaign.done = done
    assert (campaign.verdict, campaign.exit_code) == ("unknown", 4)


def fails_at_3(seed: int, **_: object) -> SeedResult:
    if seed == 3:
        raise KeyError("kind")
    return seed_result(seed, "violated" if seed == 1 else "ok")


def test_a_seed_that_fails_costs_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another seed of the same task keeps its result, and so does the violation that it found."""
    monkeypatch.setattr("sweeps.campaign.campaign.run_seed", fails_at_3)
    outcomes = run_seeds([0, 1, 2, 3])
    assert [outcome.seed for outcome in outcomes if isinstance(outcome, SeedResult)] == [0, 1, 2]
    assert outcomes[3] == "seed 3: KeyError: 'kind'"
    campaign = Campaign(0, 5)
    run_serial(campaign, CampaignView())
    assert (campaign.done, campaign.broken, campaign.exit_code) == (4, ["seed 3: KeyError: 'kind'"], 3)
    later = Campaign(2, 3)
    run_serial(later, CampaignView())
    assert (later.done, later.verdict, later.exit_code) == (2, "unknown", 1)


# ---------------------------------------------------------------------------------- what is shown


def test_a_failure_says_its_seed_its_options_and_how_to_see_it_again() -> None:
    assert describe(seed_result(17, "violated")) == [
        "seed 17: violated",
        "  invariants: two leaders in term 4",
        "  options: profile=storm nodes=5",
        "  digest:  d17",
        f"  replay:  {program()} simulate --seed 17 --seeds 1 --story",
    ]
    assert replay_command(seed_result(17, forced=True)).endswith("--seeds 1 --profile storm --story")


def test_the_command_that_is_printed_is_one_that_starts() -> None:
    done = subprocess.run([*program().split(), "simulate", "--help"], capture_output=True, text=True, check=True)
    assert "--story" in done.stdout


def test_the_display_shows_progress_coverage_and_failures() -> None:
    campaign = full(50, torn_tails_cut=1)
    campaign.add(seed_result(50, "violated"))
    shown = text(screen(campaign))
    for part in ("51 of 50 seeds", "leader changes", "1 failed", "seed 50: violated", "--seed 50 --seeds 1 --story"):
        assert part in shown
    assert "rare: torn tails cut" in text(closing(campaign))
    assert "1 failed" in progress_line(campaign)


def test_plain_lines_where_there_is_no_terminal() -> None:
    campaign = Campaign(0, 20)
    assert isinstance(make_view(Console(force_terminal=True), campaign, plain=False), CampaignLiveView)
    assert isinstance(make_view(Console(force_terminal=True), campaign, plain=True), CampaignPlainView)
    assert isinstance(make_view(Console(force_terminal=False), campaign, plain=False), CampaignPlainView)


# ---------------------------------------------------------------------------------- the command


def simulate(*arguments: str, out: Path) -> Result:
    return CliRunner().invoke(main, ["simulate", "--plain", "--out", str(out), *arguments])


def test_simulate_in_this_process(tmp_path: Path) -> None:
    result = simulate("--seeds", "4", "--seed", "8", "--serial", out=tmp_path)
    assert result.exit_code == 0, result.output
    assert "4 of 4 seeds" in result.output
    [path] = (tmp_path / "simulate").glob("*/campaign.json")
    written = json.loads(path.read_text(encoding="utf-8"))
    assert (written["verdict"], written["first_seed"], written["done"]) == ("ok", 8, 4)


def test_a_violation_is_told_with_its_story_and_exit_code_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raft_actor_node.core.node.RaftNode._hears_leader", lambda self: False)
    monkeypatch.setattr("raft_actor_node.core.log.Log.up_to_date", lambda self, *_: True)
    result = simulate("--seeds", "2", "--serial", "--profile", "lagging-follower", out=tmp_path)
    assert result.exit_code == 3, result.output
    assert f"replay:  {program()} simulate --seed 0 --seeds 1 --profile lagging-follower --story" in result.output
    [story] = (tmp_path / "simulate").glob("*/seed-0.txt")
    lines = story.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "seed 0: violated"
    assert any("became_leader" in line for line in lines)


def test_a_history_that_is_not_linearizable_is_shown_as_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_seed(seed: int, *, story: bool = False, **_: object) -> SeedResult:
        return replace(seed_result(seed, "violated"), picture="<svg>" if story else "")

    monkeypatch.setattr("sweeps.campaign.campaign.run_seed", run_seed)
    monkeypatch.setattr("sweeps.campaign.command.run_seed", run_seed)
    result = simulate("--seeds", "1", "--seed", "7", out=tmp_path)
    assert result.exit_code == 3, result.output
    [picture] = (tmp_path / "simulate").glob("*/seed-7.svg")
    assert picture.read_text(encoding="utf-8") == "<svg>"
    assert "seed-7.txt and seed-7.svg" in result.output
    assert "seed-7.txt and seed-7.svg" in simulate("--seeds", "1", "--seed", "7", "--story", out=tmp_path).output


def test_campaigns_of_the_same_second_have_a_directory_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda layout: "2026-01-01T00-00-00")
    reports = [CampaignReport(tmp_path) for _ in range(3)]
    for report in reports:
        report.summary(full(100))
        report.summary(full(100))
    assert [report.path.name for report in reports] == [f"2026-01-01T00-00-00{suffix}" for suffix in ("", "-2", "-3")]
    assert all((report.path / "campaign.json").exists() for report in reports)


def test_the_story_of_a_seed(tmp_path: Path) -> None:
    result = simulate("--seed", "3", "--seeds", "1", "--story", out=tmp_path)
    assert result.exit_code == 0, result.output
    assert "became_leader" in result.output
    assert len(list((tmp_path / "simulate").glob("*/seed-3.txt"))) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--profile", "calm"), "--profile: must be one of storm,"),
        (("--story",), "--story: prints the story of one seed only; use --seeds 1, not 100"),
        (("--seeds", "0"), "0 is not in the range"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    result = simulate(*arguments, out=tmp_path)
    assert result.exit_code == 2
    assert says in result.output
    assert not list(tmp_path.iterdir())


def test_on_ray_the_same_seeds_give_the_same_coverage() -> None:
    there, here = Campaign(0, 6), Campaign(0, 6)
    asyncio.run(run_on_ray(there, CampaignView(), "local"))
    run_serial(here, CampaignView())
    assert (there.done, there.verdict, there.broken) == (6, "ok", [])
    assert there.times == here.times


def test_an_interruption_ends_everything_and_keeps_what_there_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sweeps.cli", "simulate", "--plain", "--seeds", "200", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("20 of 200 seeds"):
                break
        process.send_signal(signal.SIGINT)
        told = process.stdout.read()
        assert process.wait(60) == 130, told
    assert "interrupted" in told
    [path] = (tmp_path / "simulate").glob("*/campaign.json")
    assert json.loads(path.read_text(encoding="utf-8"))["interrupted"] is True
