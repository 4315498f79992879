"""The options that a seed draws: always the same, always legal, and each choice in turn."""

from __future__ import annotations

import pytest

from sweeps.campaign import PROFILES, Options, draw

MANY = 300


def test_the_same_seed_draws_the_same() -> None:
    assert [draw(seed) for seed in range(50)] == [draw(seed) for seed in range(50)]


def test_each_profile_comes_once_in_a_turn() -> None:
    turn = len(PROFILES)
    for begin in (0, turn, 7 * turn):
        assert sorted(draw(seed).profile for seed in range(begin, begin + turn)) == sorted(PROFILES)


def test_the_order_changes_from_turn_to_turn() -> None:
    turn = len(PROFILES)
    assert [draw(seed).profile for seed in range(turn)] != [draw(seed).profile for seed in range(turn, 2 * turn)]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_can_be_asked_for(profile: str) -> None:
    options = draw(3, profile)
    assert options.profile == profile
    assert options.nodes in PROFILES[profile].nodes


def test_swarm_each_fault_is_left_out_by_some_seeds_and_overdone_by_others() -> None:
    drawn = [draw(seed) for seed in range(MANY)]
    for name in (
        "tail",
        "loss",
        "duplicate",
        "replay",
        "fsync_tail",
        "stalls_per_s",
        "disk_failure",
        "boot_crash",
        "power_loss",
    ):
        without = sum(getattr(options.sim, name) == 0 for options in drawn)
        assert MANY // 4 < without < MANY * 19 // 20, name
    assert MANY // 20 < sum(options.sim.wire for options in drawn) < MANY // 4, "it takes its time"
    assert MANY // 5 < sum(not options.sim.whole_sectors for options in drawn) < MANY // 2
    for switch in ("pre_vote", "check_quorum"):
        on = sum(getattr(options.raft, switch) for options in drawn)
        assert MANY // 4 < on < MANY * 3 // 4, switch


def test_cluster_sizes_are_1_to_7_and_mostly_3_and_5() -> None:
    sizes = [draw(seed).nodes for seed in range(MANY)]
    assert set(sizes) == set(range(1, 8))
    assert sizes.count(3) + sizes.count(5) > MANY // 2


def test_options_survive_a_round_trip_and_are_told_in_one_line() -> None:
    for seed in range(len(PROFILES)):
        options = draw(seed)
        told = options.short()
        assert Options.model_validate_json(options.model_dump_json()).short() == told
        assert "\n" not in told
        assert told.startswith(f"profile={options.profile} nodes={options.nodes}")
