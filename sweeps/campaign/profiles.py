"""Scenario generators: each drives a cluster repeatedly into a situation in which Raft implementations often fail.

Random faults alone rarely reach such situations. Examples are an uncommitted entry of an old term on a majority, and a
request to a deposed leader. A script sees the whole state of the cluster, aims its faults by it, and draws its variants
from the seed. It abandons a round whose situation is not reached in time. All faults are healed between two rounds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from chaos.shapes import SHAPES, Between, Direction, touching
from raft_actor_node.core.quorum import largest_minority, quorum_size
from raft_actor_node.links import ANY_NODE, CLIENTS, LinkRule
from raft_actor_node.units import Range
from sweeps.campaign.nemesis import Nemesis
from sweeps.campaign.watch import POINTS, Point, holds_old_term_on_majority

CHANCES = ("tail", "loss", "duplicate", "replay", "fsync_tail", "stalls_per_s", "disk_failure", "boot_crash")
"""Settings of the simulated world that cause random faults."""
DIRECTIONS: tuple[Direction, ...] = ("both", "in", "out")
Draft = dict[str, Any]
"""Options by section (options.py), before validation."""


@dataclass(frozen=True)
class Profile:
    """A kind of scenario for a seed."""

    script: Callable[[Nemesis], Awaitable[None]]
    """Runs one round. All faults that it leaves in force are healed before the next round."""
    nodes: tuple[int, ...] = (3, 3, 5, 5, 4, 7)
    """Cluster sizes to draw from."""
    tune: Callable[[Draft, random.Random], None] = lambda draft, rng: None
    """Changes the drawn options so that the situation becomes likely."""
    ending: Callable[[Nemesis], Awaitable[None]] | None = None
    """Injects the last faults before the final healing and liveness check. None: crash the leader, in some seeds."""


# ---------------------------------------------------------------------------------- logs that differ


async def figure_8(n: Nemesis) -> None:
    """A later leader replicates an entry of an old term to a majority (paper, Figure 8)."""
    first = await n.settle()
    if first is None:
        return
    # (a) The leader writes an entry that reaches only a minority.
    few = [first, *n.others(first)[: largest_minority(len(n.members)) - 1]]
    rest = n.others(*few)
    await n.split("few", few, rest, clients=0)
    reached = await n.until(lambda: all(_uncommitted(n, node) for node in few), within=1.5)
    await n.crash(*few)
    if not reached:
        return
    # (b) Another node leads, with the votes of the rest; its own entry reaches only its own disk.
    second = await n.reach("elected", within=8, of=lambda node: node in rest)
    if second is None:
        return
    await n.cut("second", touching([second], n.members, between="all"))
    await n.until(lambda: _durable(n, second), within=1)
    await n.crash(second, power=False)
    # (c) The first leader restarts. Every node that can win now has the first leader's entry, and replicates it.
    await n.links("second", [])
    await n.lift("few")
    await n.restart(*few)
    counted = await n.until(lambda: _counts_old_term(n), within=10)
    if counted and n.rng.random() < 0.8:
        # (d) The leader crashes before its own entry is on a majority. The second leader may return and overwrite the
        # entry that was on a majority.
        third = n.leading()
        if third is not None:
            await n.crash(third)
        await n.restart(second)
        await n.until(lambda: n.settled() is not None, within=6)


def _uncommitted(n: Nemesis, node_id: str) -> int:
    """Return the number of entries beyond the node's commit index; 0 while the node is down."""
    core = n.core(node_id)
    return core.log.last_index - core.commit_index if core is not None else 0


def _durable(n: Nemesis, node_id: str) -> bool:
    core = n.core(node_id)
    return core is None or core.durable_index == core.log.last_index


def _counts_old_term(n: Nemesis) -> bool:
    leader = n.leading()
    core = n.core(leader) if leader is not None else None
    return core is not None and holds_old_term_on_majority(core)


async def long_stale_log(n: Nemesis) -> None:
    """A deposed leader has the longer log, others have a later last term: the longer log must lose (section 5.4.1)."""
    first = await n.settle()
    if first is None:
        return
    rest = n.others(first)
    await n.split("first", [first], rest, clients=0)
    await n.until(lambda: _uncommitted(n, first) >= 4, within=2)
    second = await n.settle(rest)
    if second is None:
        return
    # The nodes that stay up cannot elect a leader without the first.
    down = [second, *[node for node in rest if node != second][: largest_minority(len(n.members)) - 1]]
    await n.crash(*down)
    await n.lift("first")
    await n.until(lambda: n.settled() is not None, within=n.rng.uniform(3, 6))
    await n.restart(*down)
    await n.settle()


async def lagging_follower(n: Nemesis) -> None:
    """A follower without the latest committed entries of the same term requests votes (section 5.4.1)."""
    leader = await n.settle()
    if leader is None:
        return
    late = n.others(leader)[: largest_minority(len(n.members))]
    await n.split("late", late, [node for node in n.members if node not in late], clients=1)
    core = n.core(leader)
    if core is not None:
        enough = core.commit_index + n.rng.randint(1, 4)
        await n.until(lambda: core.commit_index >= enough, within=2)
    if n.rng.random() < 0.5:
        await n.sleep(0.5, 2.5)  # without pre-vote, its term runs ahead
    await n.crash(leader)
    await n.lift("late")
    await n.until(lambda: n.settled() is not None, within=n.rng.uniform(2, 5))
    await n.restart(leader)
    await n.sleep(0.2, 1)


# ------------------------------------------------------------------------------------------ reads


async def deposed_leader(n: Nemesis) -> None:
    """Clients read from a leader that has not noticed its isolation; the others elect and write (section 8)."""
    leader = await n.settle()
    if leader is None:
        return
    core, rest = n.core(leader), n.others(leader)
    way = n.pick(("both", "both", "out", "late answers", "pause", "delay"))
    if way == "late answers":
        # All responses reach the leader late, when another node already leads.
        wait_ms = n.rng.uniform(1.2, 3) * n.et * 1e3
        late = LinkRule(from_id=ANY_NODE, to_id=leader, messages="replies", delay_ms=wait_ms)
        await n.links("late", [late])
        await n.sleep(0.2, 0.6)
        await n.cut("out", touching([leader], n.members, "out"))
    elif way == "pause":
        await n.pause(leader)
    elif way == "delay":
        await n.links("slow", [LinkRule(from_id=leader, to_id=ANY_NODE, delay_ms=n.rng.uniform(1, 3) * n.et * 1e3)])
    else:
        await n.cut("out", touching([leader], n.members, "both" if way == "both" else "out"))
    second = await n.settle(rest, within=5)
    if second is not None:
        await n.sleep(0.3, 1.5)  # clients write at the new leader, and read at the old one
    await n.resume(leader)
    if way == "pause" or core is None or n.rng.random() < 0.5:
        await n.sleep(0, 0.5)
    await n.heal()
    await n.sleep(0.1, 0.5)


async def unheard_commit(n: Nemesis) -> None:
    """A leader commits, responds and fails before any follower receives the new commit index.

    The next leader receives reads at once. Its commit index is stale until its own first entry is committed
    (section 8).
    """
    leader = await n.settle()
    if leader is None or await n.reach("commit", within=3, of=lambda node: node == leader) is None:
        return
    # The response to the client is on its way; all further messages to the followers are lost.
    await n.cut("out", touching([leader], n.members, "both"))
    await n.sleep(0.01, 0.05)
    if n.rng.random() < 0.7:
        await n.crash(leader)
    await n.reach("elected", within=6, of=lambda node: node != leader)
    await n.sleep(0.2, 1)
    await n.heal()
    await n.sleep(0.1, 1)


async def paused(n: Nemesis) -> None:
    """Processes, most often the leader, are paused for longer than an election takes, and resume."""
    leader = n.leading() or n.any_of(n.members)[0]
    count = n.pick((0, 0, 0, 1, len(n.members) // 2))
    nodes = [leader, *n.others(leader)[:count]] if n.rng.random() < 0.8 else n.others(leader)[: count + 1]
    await n.pause(*nodes)
    await n.sleep(0.5, 4)
    await n.resume(*nodes)
    await n.sleep(0.1, 2)


# -------------------------------------------------------------------------------- crashes, and disks


async def crash_points(n: Nemesis) -> None:
    """A node crashes at a named moment: between a promise and its fsync, an fsync and the response, and so on."""
    points: list[Point] = n.any_of(POINTS, n.rng.randint(1, 3))
    if n.rng.random() < 0.3:
        points = ["vote", "granted"]
    node = await n.reach(*points, within=3)
    if node is None:
        await n.crash(*n.any_of([n.leading() or n.members[0]]))
        await n.sleep(0, 1)
        await n.restart(*n.members)
        return
    await n.crash(node)
    await n.sleep(0, n.pick((0, 0.02, 0.3, 2)))
    await n.restart(node)
    await n.sleep(0, n.pick((0.05, 0.5)))
    if n.rng.random() < 0.3:  # most of the points occur in elections
        await n.crash(*filter(None, [n.leading()]))
        await n.sleep(0, 0.3)


async def forgotten_votes(n: Nemesis) -> None:
    """Voters crash as they vote, restart during the election, and get another vote request (section 5.2)."""
    leader = n.leading()
    if leader is not None:
        await n.crash(leader) if n.rng.random() < 0.5 else await n.cut("old", touching([leader], n.members))
    for _ in range(n.rng.randint(2, 6)):
        point: Point = n.pick(("vote", "vote", "granted", "granted", "synced vote", "candidate"))
        voter = await n.reach(point, within=2)
        if voter is None:
            break
        if n.rng.random() < 0.6:
            # The candidate that got the vote is isolated for the rest of this election.
            candidate = n.core(voter)
            chosen = candidate.voted_for if candidate is not None else None
            if chosen is not None and chosen != voter:
                await n.cut("candidate", touching([chosen], n.members))
        await n.sleep(0, 0.02)
        await n.crash(voter)
        await n.sleep(0, 0.02)
        await n.restart(voter)
        if n.rng.random() < 0.3:
            await n.lift("candidate")
    await n.heal()
    await n.sleep(0.2, 2)


async def rapid_restarts(n: Nemesis) -> None:
    """Nodes crash and restart faster than an election takes."""
    for _ in range(n.rng.randint(3, 12)):
        nodes = n.any_of(n.members, n.pick((1, 1, 1, 2, len(n.members))))
        await n.crash(*nodes)
        await n.sleep(0, 0.3)
        await n.restart(*nodes)
        await n.sleep(0, 0.4)
    await n.sleep(0.5, 3)


async def power_cuts(n: Nemesis) -> None:
    """The power fails on all nodes, or on a majority, while they write."""
    await n.reach(n.pick(POINTS), within=1)
    nodes = n.members if n.rng.random() < 0.6 else n.any_of(n.members, quorum_size(len(n.members)))
    await n.crash(*nodes, power=True)
    await n.sleep(0, 0.3)
    await n.restart(*n.any_of(nodes, len(nodes)))
    await n.sleep(0.3, 3)


async def sick_disks(n: Nemesis) -> None:
    """Disks fail at a write or an fsync, permanently or once, or fill up; then the power may fail as well."""
    victims = n.any_of(n.members, n.rng.randint(1, max(1, largest_minority(len(n.members)))))
    if n.rng.random() < 0.3:
        victims = [n.leading() or victims[0]]
    for node in victims:
        n.sicken(node, n.pick(("write", "sync", "sync once", "sync once", "full")))
    await n.sleep(0.2, 1.5)
    n.cure(*victims)
    await n.sleep(0, 0.5)
    if n.rng.random() < 0.8:
        await n.crash(*victims, power=True)
    await n.sleep(0, 0.2)
    await n.restart(*n.members)
    await n.sleep(0.1, 1)


async def replaced_while_written(n: Nemesis) -> None:
    """The slow disk of a deposed leader is still writing entries when the next leader replaces them.

    The completed write must not count for the entries that replaced them.
    """
    leader = await n.settle()
    if leader is None:
        return
    n.slow_down(leader, n.rng.uniform(3, 6))
    # Cut only what the old leader sends. Its refusals would wait for its slow disk anyway, so it gets the new entries
    # in time only if the next leader sends them without waiting for a reply.
    await n.cut("old", touching([leader], n.members, "out"))
    if await n.reach("append", within=2, of=lambda node: node == leader) is None:
        return
    await n.settle(n.others(leader), within=5)
    await n.sleep(0.3, 2)  # until the new entries reach the indexes that are being written
    await n.lift("old")
    await n.sleep(1, 4)


async def slow_disks(n: Nemesis) -> None:
    """Some disks are slow, often the leader's. A leader must not count its own copy before its own fsync."""
    leader = n.leading()
    victims = n.any_of(n.members, max(1, largest_minority(len(n.members))))
    for node in [leader] if leader is not None and n.rng.random() < 0.6 else victims:
        n.slow_down(node, n.pick((0.1, 0.5, 2)))
    await n.sleep(0.5, 2)
    if n.rng.random() < 0.7:
        await n.crash(*n.any_of([leader or victims[0], *victims]), power=True)
    await n.sleep(0, 1)
    await n.restart(*n.members)
    await n.sleep(0.2, 1)


async def hanging_disks(n: Nemesis) -> None:
    """The leader's disk hangs, and perhaps others: entries commit without the leader's copy, or not at all."""
    leader = await n.settle()
    if leader is None:
        return
    others = n.pick((0, 0, 0, 1, largest_minority(len(n.members))))
    await n.hang(leader, *n.any_of(n.others(leader), others))
    core = n.core(leader)
    await n.until(lambda: core is None or core.commit_index > core.durable_index, within=n.rng.uniform(0.5, 3))
    way = n.rng.random()
    if way < 0.3:
        await n.crash(leader, power=n.rng.random() < 0.7)
    elif way < 0.5:
        await n.cut("hung", touching([leader], n.members))
    await n.sleep(0.5, 4)
    await n.hang()
    await n.lift("hung")
    await n.restart(*n.members)
    await n.settle()


async def rotten_disks(n: Nemesis) -> None:
    """A bit flips on the disk of a node that is down: it must refuse corrupt data, and repair what it can."""
    [node] = n.any_of(n.members)
    await n.crash(node, power=False)
    await n.sleep(0, 0.5)
    await n.rot(node)
    await n.sleep(0.5, 2)


# ------------------------------------------------------------------------------ networks, elections


async def contested(n: Nemesis) -> None:
    """Several candidates run at once; their messages arrive twice, late, and again much later."""
    leader = n.leading()
    if leader is not None:
        await n.cut("old", touching([leader], n.members)) if n.rng.random() < 0.5 else await n.crash(leader)
    if n.rng.random() < 0.5:
        half = n.any_of(n.members, len(n.members) // 2)
        await n.split("half", half, [node for node in n.members if node not in half])
        await n.sleep(0.3, 1.5)
        await n.lift("half")
    await n.until(lambda: n.settled() not in (None, leader), within=n.rng.uniform(0.5, 3))
    await n.heal()
    await n.sleep(0, 1)


async def old_messages(n: Nemesis) -> None:
    """Leaders change and return, nodes crash and restart, and the network replays old messages."""
    leader = await n.settle(within=4)
    if leader is None:
        return
    await n.links("slow", [LinkRule(from_id=ANY_NODE, to_id=leader, delay_ms=n.rng.uniform(0.2, 2) * n.et * 1e3)])
    await n.sleep(0.3, 1)
    await n.cut("away", touching([leader], n.members, n.pick(DIRECTIONS)))
    await n.settle(n.others(leader), within=4)
    if n.rng.random() < 0.4:
        await n.crash(*n.any_of(n.members))
    await n.lift("away")
    await n.lift("slow")
    await n.restart(*n.members)
    # The same node leads again in a later term, and receives responses to its earlier term.
    rest = n.others(leader)
    await n.pause(*n.any_of(rest, largest_minority(len(n.members))))
    await n.until(lambda: n.leading() == leader, within=2)
    await n.resume(*rest)
    await n.sleep(0.1, 1)


async def shapes(n: Nemesis) -> None:
    """Partitions of all named shapes, and one-way cuts of any node, with the clients on one side or on both."""
    leader = n.leading()
    members = n.others(leader) if leader is not None else n.others()
    if leader is not None:
        members.insert(n.pick((0, len(members), n.rng.randint(0, len(members)))), leader)
    fitting = [shape for shape in SHAPES.values() if len(members) >= shape.min_nodes]
    if fitting and n.rng.random() < 0.6:
        groups = n.pick(fitting).groups(members)
        clients = n.pick((None, *range(len(groups))))
        await n.split("shape", *groups, clients=clients)
    else:
        chosen = n.any_of([leader or members[0], *n.any_of(members)])
        way: Direction = n.pick(("in", "out"))
        between: Between = n.pick(("nodes", "nodes", "all"))
        await n.cut("shape", touching(chosen, n.members, way, between))
    await n.sleep(0.5, 4)
    await n.lift("shape")
    await n.sleep(0.1, 2)


async def halves(n: Nemesis) -> None:
    """An even cluster splits in the middle: neither half may elect a leader, and nothing commits."""
    half = len(n.members) // 2
    leader = await n.settle(within=4)
    order = n.others(leader) if leader is not None else n.others()
    order = [leader, *order] if leader is not None else order
    await n.split("half", order[:half], order[half:])
    if n.rng.random() < 0.3:
        await n.crash(*n.any_of(order[:half]))
    await n.sleep(2, 6)
    await n.heal()
    await n.sleep(0.3, 2)


async def lost_answers(n: Nemesis) -> None:
    """Clients lose responses, retry, and reach another leader (section 8)."""
    late = n.pick((0.5, 2)) * n.et * 1e3
    rules = [
        LinkRule(from_id=ANY_NODE, to_id=CLIENTS, messages="replies", drop=n.rng.uniform(0.3, 0.9)),
        LinkRule(from_id=ANY_NODE, to_id=CLIENTS, messages="replies", jitter_ms=late),
        LinkRule(from_id=CLIENTS, to_id=ANY_NODE, messages="requests", jitter_ms=late, duplicate=n.pick((0, 0.5))),
    ]
    await n.links("answers", n.any_of(rules, n.rng.randint(1, 3)))
    await n.sleep(0.5, 2)
    leader = n.leading()
    if leader is not None:
        act = n.pick((n.crash, n.crash, n.pause))
        await n.reach("commit", within=1)
        await act(leader)
        if n.rng.random() < 0.6:
            await n.lift("answers")
        await n.settle(n.others(leader), within=4)
        await n.sleep(0.3, 1)
    await n.heal()
    await n.sleep(0.1, 0.5)


async def stale_candidate(n: Nemesis) -> None:
    """A node with an old log keeps starting elections before all other nodes.

    It must neither win nor prevent the election of eligible nodes (sections 5.2, 5.4.1).
    """
    await n.settle()
    late = n.fastest()
    rest = n.others(late)
    await n.cut("late", touching([late], n.members))
    leader = await n.settle(rest)
    core = n.core(leader) if leader is not None else None
    if leader is None or core is None:
        return
    # Wait until all other nodes have entries that the late node lacks.
    goal = core.commit_index + 1
    await n.until(lambda: all((c := n.core(node)) is not None and c.commit_index >= goal for node in rest), within=3)
    await n.sleep(0, 2)
    await n.crash(leader, power=False)
    await n.lift("late")
    if n.rng.random() < 0.5:
        await n.restart(leader)


# ------------------------------------------------------------------------------------------- all


async def storm(n: Nemesis) -> None:
    """A few faults of any kind at the same time."""

    async def after(delay: tuple[float, float], round_: Callable[[Nemesis], Awaitable[None]]) -> None:
        await n.sleep(*delay)
        await round_(n)

    kinds = n.rng.choices(
        (shapes, paused, rapid_restarts, power_cuts, crash_points, sick_disks, lost_answers, flaky, contested), k=3
    )
    async with asyncio.TaskGroup() as group:
        for kind in kinds:
            group.create_task(after((0, 1.5), kind))


async def flaky(n: Nemesis) -> None:
    """Some links drop, duplicate and delay messages."""
    rules = [
        LinkRule(
            from_id=a,
            to_id=b,
            drop=n.pick((0.0, 0.05, 0.2, 0.5)),
            duplicate=n.pick((0.0, 0.3, 0.8)),
            delay_ms=n.pick((0.0, 0.1, 0.6)) * n.et * 1e3,
            jitter_ms=n.pick((0.0, 0.1, 1.0)) * n.et * 1e3,
        )
        for a in n.members
        for b in n.members
        if a != b and n.rng.random() < 0.5
    ]
    await n.links("flaky", rules)
    await n.sleep(1, 4)
    await n.lift("flaky")
    await n.sleep(0.1, 1)


# ----------------------------------------------------------------------------------- the options


def _quiet(draft: Draft, rng: random.Random) -> None:
    """Mostly disable random faults, because they would disturb the situation of a script."""
    if rng.random() < 0.7:
        draft["sim"] |= dict.fromkeys(CHANCES, 0.0)


def _for_figure_8(draft: Draft, rng: random.Random) -> None:
    _quiet(draft, rng)
    draft["raft"] |= {"max_batch_entries": 1, "max_inflight": 1}
    draft["load"] |= {"engines": 2, "sessions": 3, "mix": {"put": 2.0, "append": 2.0, "get": 1.0}}


def _for_long_logs(draft: Draft, rng: random.Random) -> None:
    _quiet(draft, rng)
    draft["load"] |= {"engines": 3, "sessions": 3, "mix": {"put": 3.0, "append": 2.0, "get": 1.0}}


def _for_candidates(draft: Draft, rng: random.Random) -> None:
    _quiet(draft, rng)
    draft["raft"]["pre_vote"] = rng.random() < 0.3


def _for_reads(draft: Draft, rng: random.Random) -> None:
    _quiet(draft, rng)
    draft["raft"]["check_quorum"] = rng.random() < 0.4
    draft["load"] |= {"engines": 2, "sessions": 2, "pinned": 2, "keys": rng.choice((1, 2))}
    draft["load"] |= {"mix": {"put": 3.0, "append": 1.0, "get": 1.0}, "pinned_mix": {"get": 1.0}}


def _for_unheard_commits(draft: Draft, rng: random.Random) -> None:
    _for_reads(draft, rng)
    low = draft["raft"]["election_timeout"].min_s
    draft["sim"] |= {"delay": Range(0.0001, 0.0005), "fsync": Range(low * 0.05, low * 0.2)}


def _for_retries(draft: Draft, rng: random.Random) -> None:
    high = draft["raft"]["election_timeout"].max_s
    draft["client"] |= {"rpc_timeout": high * rng.choice((0.3, 0.6)), "retry_budget": high * 15}
    draft["load"]["mix"] = {"append": 3.0, "cas": 1.0, "put": 1.0, "get": 1.0}
    _in_sessions(draft, rng)


def _in_sessions(draft: Draft, rng: random.Random) -> None:
    """Use sessions only: without a session a duplicated request takes effect twice, which is not a bug."""
    draft["load"]["anonymous"] = 0.0


def _for_contests(draft: Draft, rng: random.Random) -> None:
    low = draft["raft"]["election_timeout"].min_s
    draft["raft"] |= {"election_timeout": Range(low, low * rng.choice((1.05, 1.2))), "pre_vote": rng.random() < 0.2}
    draft["raft"]["check_quorum"] = rng.random() < 0.3
    draft["sim"] |= {"duplicate": rng.choice((0.3, 0.8)), "replay": rng.choice((0.0, 0.2))}


def _for_old_messages(draft: Draft, rng: random.Random) -> None:
    low, high = draft["raft"]["election_timeout"]
    draft["sim"] |= {"replay": 0.3, "replay_after": Range(low, 12 * high), "duplicate": rng.choice((0.0, 0.3))}
    draft["sim"] |= {"tail": rng.choice((0.05, 0.15)), "tail_delay": Range(0.2 * low, 3 * high)}


def _for_stale_candidates(draft: Draft, rng: random.Random) -> None:
    _quiet(draft, rng)
    low = draft["raft"]["election_timeout"].min_s
    draft["raft"] |= {"election_timeout": Range(low, low * 1.02), "pre_vote": rng.random() < 0.3}
    draft["sim"] |= {"clock_rate": (0.7, 1.3), "delay": Range(0.0001, 0.0005), "fsync": Range(0.0001, 0.0005)}


def _for_sick_disks(draft: Draft, rng: random.Random) -> None:
    draft["sim"] |= {"disk_failure": rng.choice((0.0, 0.005, 0.02)), "power_loss": rng.choice((0.3, 1.0))}


def _for_hanging_disks(draft: Draft, rng: random.Random) -> None:
    _in_sessions(draft, rng)
    low = draft["raft"]["election_timeout"].min_s
    draft["raft"]["yield_after"] = rng.choice((None, low, 2 * low))


_SMALL_TOO = (1, 2, 3, 3, 5)

PROFILES: dict[str, Profile] = {
    "storm": Profile(storm, (1, 2, 3, 3, 4, 5, 5, 6, 7), _in_sessions),
    "figure-8": Profile(figure_8, (3, 5, 5), _for_figure_8),
    "long-stale-log": Profile(long_stale_log, (3, 3, 5), _for_long_logs),
    "lagging-follower": Profile(lagging_follower, (3, 3, 5), _for_candidates),
    "deposed-leader": Profile(deposed_leader, (3, 3, 5), _for_reads),
    "unheard-commit": Profile(unheard_commit, (3, 3, 5), _for_unheard_commits),
    "paused": Profile(paused, (3, 3, 5), _for_reads),
    "crash-points": Profile(crash_points, _SMALL_TOO),
    "forgotten-votes": Profile(forgotten_votes, (3, 3, 5), _for_candidates),
    "rapid-restarts": Profile(rapid_restarts, _SMALL_TOO),
    "power-cuts": Profile(power_cuts, _SMALL_TOO),
    "sick-disks": Profile(sick_disks, _SMALL_TOO, _for_sick_disks),
    "slow-disks": Profile(slow_disks),
    "hanging-disks": Profile(hanging_disks, (1, 2, 3, 3, 5), _for_hanging_disks),
    "replaced-while-written": Profile(replaced_while_written, (3, 3, 5), _for_long_logs),
    "rotten-disks": Profile(rotten_disks, _SMALL_TOO),
    "contested": Profile(contested, (3, 5, 5, 4), _for_contests),
    "old-messages": Profile(old_messages, (3, 3, 5), _for_old_messages),
    "shapes": Profile(shapes, (3, 4, 5, 5, 7)),
    "halves": Profile(halves, (2, 4, 4, 6)),
    "lost-answers": Profile(lost_answers, (3, 3, 5), _for_retries),
    "flaky": Profile(flaky),
    "stale-candidate": Profile(lagging_follower, (3, 3, 5), _for_stale_candidates, stale_candidate),
}
"""All profiles by name."""
