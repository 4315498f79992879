"""The run of one seed: a cluster in virtual time under load and faults, then a calm phase, then a verdict.

    under faults    rounds of the profile's script, under load
    calm            no new faults; network and disks are healthy. Sometimes a minority is isolated at first.
                    A connected majority must elect a leader within 10 times the longest election timeout.
                    Then the cluster must serve the clients
    judged          all nodes reach the same state, each key is read once more, and the history of all clients
                    is checked for linearizability

The invariants of the cluster are checked after every step of every node, from beginning to end. They are checked again
on the traces of all node incarnations.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.checks.finding import Finding, Verdict, worst
from chaos.checks.invariants import judge_traces
from chaos.history import History
from chaos.linearizability import check
from chaos.shapes import Direction, touching
from orchestration import ClusterPlan
from orchestration.sim_cluster import Observers, Parts, SimCluster, run_virtual
from raft_actor_node.client_engine import ClientEngine
from raft_actor_node.config import TransportSettings
from raft_actor_node.core.invariants.cluster import ClusterInvariants
from raft_actor_node.core.invariants.liveness import LIVENESS_BOUND, established_leader, patience_s
from raft_actor_node.core.quorum import largest_minority
from raft_actor_node.errors import DataCorrupt, DiskError, InvariantViolated, OperationError
from raft_actor_node.kv.reference import Reference
from raft_actor_node.trace_lines import parse_trace
from raft_actor_node.units import Range
from sweeps.campaign.clients import Clients
from sweeps.campaign.nemesis import Nemesis
from sweeps.campaign.options import Options, draw
from sweeps.campaign.profiles import CHANCES, PROFILES
from sweeps.campaign.watch import Coverage, Moments

CONVERGENCE_TIMEOUTS = 30
LONGEST = 2.5
"""Limit of the phase under faults, as a multiple of its planned length; reached if clients wait for long."""
CALM_OPERATIONS = 20
"""Operations that are begun only after all faults are healed."""
CALM_TRIES = 3
QUICK = Range(0.0001, 0.0005)
"""Network delays and fsync times in the calm phase."""
FEW_OPERATIONS = 10
"""Minimum number of completed operations; a shorter history proves nothing."""
CHECK_LIMIT_S = 20.0


@dataclass(frozen=True)
class SeedResult:
    """The result of a seed."""

    seed: int
    profile: str
    forced: bool
    """Whether the caller chose the profile; otherwise it was drawn."""
    verdict: Verdict
    findings: tuple[Finding, ...]
    coverage: dict[str, int]
    """How often each situation was reached."""
    operations: dict[str, int]
    """Number of operations by outcome."""
    options: str
    """Options that differ from the defaults, in one line."""
    digest: str
    """SHA-256 over all events and their times; the same for the same seed and program."""
    seconds: float
    """CPU time of the process that ran it."""
    virtual_s: float
    story: tuple[str, ...] = field(default=(), repr=False)
    """One line for every event; empty unless requested."""
    picture: str = field(default="", repr=False)
    """SVG of a linearizability violation; only with the story, and only if there is a violation."""


def run_seed(
    seed: int,
    *,
    profile: str | None = None,
    options: Options | None = None,
    parts: Parts | None = None,
    story: bool = False,
) -> SeedResult:
    """Run one seed, in this process and in virtual time.

    `profile` and `options` replace those that would be drawn. `parts` replaces parts of the nodes, for tests.
    """
    begin = time.process_time()
    chosen = options or draw(seed, profile)
    life = _Life(chosen, parts or Parts(), story)
    run_virtual(life.run)
    return SeedResult(
        seed=seed,
        profile=chosen.profile,
        forced=profile is not None,
        verdict=worst(life.findings),
        findings=tuple(life.findings),
        coverage=dict(sorted(life.reached.items())),
        operations=dict(sorted(Counter(entry.outcome for entry in life.history).items())),
        options=chosen.short(),
        digest=life.digest,
        seconds=time.process_time() - begin,
        virtual_s=life.virtual_s,
        story=tuple(life.story),
        picture=life.picture,
    )


class _Life:
    """One seed while it runs; afterwards its results."""

    def __init__(self, options: Options, parts: Parts, keep_story: bool) -> None:
        self.findings: list[Finding] = []
        self.history: Sequence[Any] = ()
        self.reached: dict[str, int] = {}
        self.story: Sequence[str] = ()
        self.picture = ""
        self.digest = ""
        self.virtual_s = 0.0
        self._options = options
        self._profile = PROFILES[options.profile]
        self._parts, self._keep_story = parts, keep_story
        self._keeper: asyncio.Task[None] | None = None
        self._rng = random.Random(f"life/{options.seed}")
        self._patience_s = patience_s(options.raft.election_timeout.max_s, options.sim.clock_rate[0])

    async def run(self) -> None:
        """Run the seed and judge it."""
        options, loop = self._options, asyncio.get_running_loop()
        begin_s = loop.time()
        coverage, moments = Coverage(), Moments()
        plan = ClusterPlan(
            nodes=options.nodes,
            raft=options.raft,
            transport=_TRANSPORT,
            leader_timeout_s=0,
            seed=options.seed,
            run_id="simulation",
        )
        model = Reference(value_bytes=plan.limits.value_bytes)
        self._invariants = ClusterInvariants(slowest_clock=options.sim.clock_rate[0], model=model)
        cluster = SimCluster(
            plan,
            options.sim,
            options.seed,
            Observers(self._invariants, coverage, moments),
            parts=self._parts,
            story=self._keep_story,
        )
        self._cluster = cluster
        self._nemesis = Nemesis(cluster, moments, self._rng, options.raft.election_timeout)
        scenario = asyncio.create_task(self._scenario())
        try:
            while not (scenario.done() or self._nemesis.broken()):
                await asyncio.wait({scenario}, timeout=self._nemesis.et)
        finally:
            running = {scenario} if self._keeper is None else {scenario, self._keeper}
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            self.virtual_s = loop.time() - begin_s
            await cluster.stop()
        if not scenario.cancelled():
            scenario.result()  # a bug in this package is raised, not reported as a finding
        for unnoticed in self._nemesis.unnoticed:
            self._find("storage", unnoticed)
        told = [event for name, node in cluster.nodes.items() for event in parse_trace(node.trace, name)]
        self.findings = [*_broken_rules(self._nemesis), *self.findings, judge_traces(told, cluster.node_ids)]
        self.reached = {**coverage.counts, **_endings(cluster)}
        self.digest = cluster.digest()
        self.story = cluster.log

    # ------------------------------------------------------------------------------ the phases

    async def _scenario(self) -> None:
        cluster, nemesis, options = self._cluster, self._nemesis, self._options
        self._world(calm=True)
        await cluster.start()
        await self._need_leader(nemesis.members, "at the start")
        try:
            clients = await self._clients()
        except OperationError as error:
            self._find("liveness", f"no session could be opened: {error}")
            return
        self._world(calm=False)
        await self._disturb(clients)
        await self._freeze()
        await self._serve(clients)
        await clients.drain(options.client.retry_budget + 2 * options.client.rpc_timeout)
        await self._converge()
        answered = await clients.read_all(cluster.addresses.addresses(), self._patience_s)
        if answered < options.load.keys:
            self._find("liveness", f"without faults, only {answered} of {options.load.keys} reads were answered")
        self.history = clients.history
        self._judge_history()

    async def _clients(self) -> Clients:
        cluster, nemesis = self._cluster, self._nemesis
        clients = Clients(
            self._options.load,
            self._options.client,
            self._engine,
            random.Random(self._rng.random()),
        )

        def leads(node_id: str) -> bool:
            core = nemesis.core(node_id)
            return core is not None and core.leader_id == node_id

        patient = self._options.client.model_copy(update={"retry_budget": self._patience_s})
        await clients.connect(cluster.addresses.addresses(), leads, patient)
        cluster.addresses.subscribe(lambda book: clients.update_addresses(book.addresses()))
        return clients

    def _engine(self, *args: Any, **kwargs: Any) -> ClientEngine:
        return self._cluster.engine_factory(*args, transport=_TRANSPORT, **kwargs)

    async def _disturb(self, clients: Clients) -> None:
        """Inject faults until all operations are begun and decided, but no longer than the limit."""
        clients.start(self._options.load.operations - CALM_OPERATIONS, self._options.length)
        rounds = asyncio.create_task(self._rounds())
        try:
            async with asyncio.timeout(LONGEST * self._options.length):
                await clients.finished.wait()
        except TimeoutError:
            pass
        finally:
            rounds.cancel()
            await asyncio.wait({rounds})
        if not rounds.cancelled():
            rounds.result()

    async def _rounds(self) -> None:
        nemesis = self._nemesis
        while True:
            await self._profile.script(nemesis)
            await nemesis.heal()
            await nemesis.sleep(0.1, 0.8)

    async def _freeze(self) -> None:
        """Inject the last faults and stop; check that a connected majority elects a leader."""
        nemesis = self._nemesis
        self._world(calm=True)
        await nemesis.heal()
        await nemesis.sleep(1.5, 1.5)  # until the nodes have noticed the failures
        await nemesis.heal()
        if self._profile.ending is not None:
            await self._profile.ending(nemesis)
        elif self._rng.random() < 0.5 and (leader := nemesis.leading()) is not None:
            await nemesis.crash(leader)
        self._keeper = asyncio.create_task(nemesis.keep_up())
        if self._profile.ending is None and self._rng.random() < 0.3:
            away = nemesis.others()[: self._rng.randint(0, largest_minority(len(nemesis.members)))]
            rest = [node for node in nemesis.members if node not in away]
            await nemesis.heal()
            how = self._rng.choice(("unseen", "mute", "deaf" if self._options.raft.check_quorum else "mute"))
            if how == "unseen":
                await nemesis.split("away", away, rest, clients=1)
            else:
                # A deaf leader must step down before another can lead; it does so only with check quorum.
                direction: Direction = "in" if how == "deaf" else "out"
                await nemesis.cut("away", touching(away, nemesis.members, direction))
            await self._need_leader(rest, f"with {len(away)} nodes {how}")
        await nemesis.heal()
        await self._need_leader(nemesis.members, "after all faults were healed")

    async def _serve(self, clients: Clients) -> None:
        """Check that clients are served without faults, even if some give up early."""
        goal = clients.completed + CALM_OPERATIONS // 2
        for _ in range(CALM_TRIES):
            clients.go_on(CALM_OPERATIONS)
            await self._nemesis.until(lambda: clients.completed >= goal or clients.finished.is_set(), self._catching_up)
            if clients.completed >= goal:
                return
        self._find("liveness", "after all faults were healed, clients are not served")

    async def _converge(self) -> None:
        """Check that all nodes hold and apply the same entries once there are no faults."""
        cluster, nemesis = self._cluster, self._nemesis

        def same() -> bool:
            leader = nemesis.settled()
            if leader is None:
                return False
            last = cluster.nodes[leader].core.log.last_index  # type: ignore[union-attr]
            stores = [node.store for node in cluster.nodes.values()]
            return all(store is not None and store.last_applied == last for store in stores)

        if not await nemesis.until(same, self._catching_up):
            applied = {name: node.store and node.store.last_applied for name, node in cluster.nodes.items()}
            self._find(
                "convergence",
                f"not all nodes applied the leader's log within {self._catching_up:.3g} election timeouts: {applied}",
            )
            return
        stores = {name: node.store for name, node in cluster.nodes.items() if node.store is not None}
        try:
            self._invariants.compare_states(stores, asyncio.get_running_loop().time())
        except InvariantViolated as error:
            self._find("convergence", str(error))

    def _judge_history(self) -> None:
        done = sum(entry.outcome == "ok" for entry in self.history)
        if done < FEW_OPERATIONS:
            few = f"only {done} operations were completed, at least {FEW_OPERATIONS} are needed"
            self.findings.append(Finding("history", "unknown", few))
        judged = check(History(self.history), time_limit_s=CHECK_LIMIT_S)
        detail = judged.violation.as_text() if judged.violation is not None else ""
        if judged.violation is not None and self._keep_story:
            self.picture = judged.violation.as_svg()
        self.findings.append(Finding("linearizability", judged.verdict, judged.reason, detail))

    # ------------------------------------------------------------------------------ small things

    @property
    def _catching_up(self) -> float:
        """Election timeouts within which all logs must be equal.

        In the worst case they differ in all entries, and small batches travel one by one.
        """
        entries = 2 * self._options.load.operations
        one_s = 4 * (QUICK.max_s + QUICK.max_s)
        return CONVERGENCE_TIMEOUTS / self._options.sim.clock_rate[0] + entries * one_s / self._nemesis.et

    async def _need_leader(self, among: Sequence[str], when: str) -> None:
        """Check that a connected majority elects a leader in time."""
        nemesis = self._nemesis

        def established() -> bool:
            return established_leader(core for node in among if (core := nemesis.core(node)) is not None) is not None

        if await nemesis.until(established, self._patience_s / nemesis.et):
            self.findings.append(Finding("liveness", "ok", f"a leader in time, {when}"))
        else:
            self._find("liveness", f"{when}, no leader within {LIVENESS_BOUND} election timeouts")

    def _find(self, kind: str, reason: str) -> None:
        self.findings.append(Finding(kind, "violated", reason))

    def _world(self, *, calm: bool) -> None:
        """With `calm`, make network and disks healthy; otherwise apply the options. Clocks do not change."""
        world = self._options.sim
        well = {**dict.fromkeys(CHANCES, 0.0), "delay": QUICK, "fsync": QUICK}
        self._cluster.settings = world.model_copy(update=well) if calm else world


def _broken_rules(nemesis: Nemesis) -> list[Finding]:
    """Return the violations that observers and nodes found, or a single finding, ok, without any."""
    found = [Finding("invariants", "violated", str(violation)) for violation in nemesis.broken()]
    return found or [Finding("invariants", "ok", "after every step of every node")]


def _endings(cluster: SimCluster) -> dict[str, int]:
    """Count what nodes found on their disks, and the failures that their disks caused."""
    codes = [end.exit_code for end in cluster.exits]
    return {
        "torn tails cut": sum("torn last unit" in line for node in cluster.nodes.values() for line in node.log),
        "disks failed": codes.count(DiskError.exit_code),
        "starts refused": codes.count(DataCorrupt.exit_code),
    }


_TRANSPORT = TransportSettings(reconnect_backoff=Range(0.010, 0.050))
