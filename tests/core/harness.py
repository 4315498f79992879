"""A world for pure Raft nodes: virtual time, a faulty network, and disks that lose what was not synced.

`World` drives any number of nodes, and the product's ClusterInvariants check every step. bench.py drives one node
alone. The seed determines everything, and nothing sleeps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any

from raft_actor_node.core import (
    Event,
    HardState,
    Log,
    Message,
    Persist,
    Persisted,
    Propose,
    RaftNode,
    RaftParameters,
    Read,
    Receive,
    Role,
)
from raft_actor_node.core.invariants.cluster import ClusterInvariants
from raft_actor_node.core.log import entries_bytes
from raft_actor_node.core.messages import fault
from raft_actor_node.names import node_names

ET_MIN, ET_MAX, HEARTBEAT, RPC_TIMEOUT = 0.150, 0.300, 0.050, 0.100


def parameters(**changes: Any) -> RaftParameters:
    """The default times of the tests, in seconds, with changes."""
    times = {"election_timeout_min": ET_MIN, "election_timeout_max": ET_MAX}
    return RaftParameters(**{**times, "heartbeat_interval": HEARTBEAT, "rpc_timeout": RPC_TIMEOUT, **changes})


def names(n: int) -> list[str]:
    return list(node_names(n))


def payload(index: int, term: int) -> bytes:
    """The payload of the entry at `index` of `term`, always the same, as log matching demands."""
    return b"%d.%d" % (index, term)


@dataclass
class Disk:
    """The durable state of one node's disk; `write` is called when an fsync returns."""

    hard_state: HardState = field(default_factory=HardState)
    terms: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    commit_index: int = 0

    def write(self, persist: Persist, *, entries: bool = True) -> None:
        """Write the hard state, then the entries as one unit; a power failure in between drops the entries."""
        self.hard_state = persist.hard_state or self.hard_state
        if entries and persist.terms:
            self.terms[persist.first_index - 1 :] = persist.terms
            self.payloads[persist.first_index - 1 :] = persist.payloads
            self.commit_index = max(self.commit_index, min(persist.commit_index, len(self.terms)))


@dataclass
class Applied:
    """A substitute for a state machine: its state is the log up to an index."""

    last_applied: int = 0

    def get(self, _: bytes) -> None:
        return None

    def state_hash(self) -> bytes:
        return b"%d" % self.last_applied


def stored(terms: Sequence[int], term: int | None = None, voted_for: str | None = None) -> Disk:
    """A disk with a log of these terms."""
    hard_state = HardState((terms[-1] if terms else 0) if term is None else term, voted_for)
    return Disk(hard_state, list(terms), [payload(i, t) for i, t in enumerate(terms, 1)])


class World:
    """Nodes n1..nN on one virtual clock. Times are seconds; `delay` and `disk` are ranges of latency."""

    def __init__(
        self,
        n: int,
        seed: int = 0,
        *,
        delay: tuple[float, float] = (0.001, 0.004),
        disk: tuple[float, float] = (0.0005, 0.003),
        loss: float = 0.0,
        duplicate: float = 0.0,
        disks: dict[str, Disk] | None = None,
        **changes: Any,
    ) -> None:
        self.ids, self.seed, self.now = names(n), seed, 0.0
        self.rng = random.Random(seed)
        self.delay, self.disk_latency, self.loss, self.duplicate = delay, dict.fromkeys(self.ids, disk), loss, duplicate
        self.parameters = parameters(**changes)
        self.disks = {i: (disks or {}).get(i, Disk()) for i in self.ids}
        self.nodes: dict[str, RaftNode] = {}
        self.mail: dict[str, list[Event]] = {}  # of paused nodes
        self.cuts: set[tuple[str, str]] = set()  # (from, to)
        self.stalled: dict[str, int | None] = {}  # stalled disks: the incarnation whose write hangs, if any
        self.lose: Callable[[Message], bool] = lambda _: False
        self.sent: list[Message] = []  # all sent messages, lost or not, for tests to read
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket, self._life, self._writing = count(), dict.fromkeys(self.ids, 0), dict[str, Persist]()
        self.invariants = ClusterInvariants()
        self.leaders, self.read_results = self.invariants.leaders, dict[int, int | None]()
        self._applied = {i: Applied() for i in self.ids}
        for i in self.ids:
            self.restart(i)

    @property
    def committed(self) -> list[tuple[int, bytes]]:
        """(term, payload) of every committed entry."""
        return list(zip(self.invariants.committed_terms, self.invariants.committed_payloads, strict=True))

    # ------------------------------------------------------------------------------ faults

    def crash(self, node_id: str) -> None:
        """Power loss: of the write under way, the disk holds nothing, only the hard state, or everything."""
        del self.nodes[node_id]
        self.invariants.crashed(node_id, self.now)
        self.mail.pop(node_id, None)
        self._life[node_id] += 1
        if persist := self._writing.pop(node_id, None):
            kept = self.rng.randrange(3)
            if kept:
                self.disks[node_id].write(persist, entries=kept == 2)

    def restart(self, node_id: str) -> None:
        disk, life = self.disks[node_id], self._life[node_id]
        self.nodes[node_id] = RaftNode(
            node_id,
            self.ids,
            self.parameters,
            rng=random.Random(f"{self.seed} {node_id} {life}"),
            now=self.now,
            hard_state=disk.hard_state,
            log=Log(disk.terms, list(disk.payloads)),  # a Log keeps the list it is given
            commit_index=disk.commit_index,
        )
        self._applied[node_id] = Applied()
        self.invariants.started(self.nodes[node_id], self.now)
        self._step(node_id, [])

    def pause(self, node_id: str) -> None:
        self.mail[node_id] = []

    def resume(self, node_id: str) -> None:
        self._step(node_id, self.mail.pop(node_id))

    def stall(self, *node_ids: str) -> None:
        """Let the disks of these nodes hang from now on."""
        self.stalled |= dict.fromkeys(node_ids)

    def unstall(self, *node_ids: str) -> None:
        """Let the disks of these nodes answer again; the hanging writes become durable."""
        for node_id in node_ids:
            life = self.stalled.pop(node_id)
            if life is not None:
                self._synced(node_id, life)

    def cut(self, a: str, b: str, *, both: bool = True) -> None:
        self.cuts |= {(a, b), (b, a)} if both else {(a, b)}

    def isolate(self, *group: str) -> None:
        """Cut every link between the group and the rest."""
        for a in group:
            for b in set(self.ids) - set(group):
                self.cut(a, b)

    def heal(self) -> None:
        """Heal everything: links are whole and quick, no message is lost, disks answer, and every node runs."""
        self.unstall(*self.stalled)
        self.cuts.clear()
        self.delay = (0.001, 0.004)
        self.loss = self.duplicate = 0.0
        self.lose = lambda _: False
        for i in self.ids:
            if i not in self.nodes:
                self.restart(i)
            elif i in self.mail:
                self.resume(i)

    # ------------------------------------------------------------------------------ clients

    def leader(self) -> RaftNode | None:
        """The leader of the highest term among the running nodes, if that term has one."""
        up = [n for n in self.nodes.values() if n.role == Role.LEADER and n.node_id not in self.mail]
        return max(up, key=lambda n: n.current_term, default=None)

    def propose(self, node_id: str, *payloads: bytes) -> None:
        self.give(node_id, Propose(next(self._ticket), payloads))

    def read(self, node_id: str) -> int:
        """A read arrives; `read_results` will hold its index, or None if it was refused."""
        read_id = next(self._ticket)
        self.give(node_id, Read(read_id))
        return read_id

    def give(self, node_id: str, event: Event) -> None:
        if node_id in self.mail:
            self.mail[node_id].append(event)
        elif node_id in self.nodes:
            self._step(node_id, [event])

    # ------------------------------------------------------------------------------ time

    def run(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def run_until(self, done: Callable[[], bool], limit: float) -> bool:
        """Let time pass until the condition holds; return whether it did within `limit` seconds."""
        end = self.now + limit
        while not done():
            due, who = self._queue[0][0] if self._queue else inf, ""
            for i, node in self.nodes.items():
                if i not in self.mail and node.next_deadline() < due:
                    due, who = node.next_deadline(), i
            if due > end:
                self.now = end
                return False
            self.now = max(self.now, due)
            if who:
                self._step(who, [])
                assert self.nodes[who].next_deadline() > self.now, f"{who} is due again at once: a busy loop"
            else:
                heappop(self._queue)[2]()
        return True

    def led(self, limit: float = 10 * ET_MAX) -> bool:
        """Wait for any leader."""
        return self.run_until(lambda: self.leader() is not None, limit)

    def elect(self, *, after: int = 0) -> RaftNode:
        """Wait for a leader of a term above `after` whose no-op is committed, and return it."""
        done = self.run_until(lambda: (n := self.settled_leader()) is not None and n.current_term > after, 10 * ET_MAX)
        leader = self.settled_leader()
        assert done, f"seed {self.seed}: no leader"
        assert leader is not None
        return leader

    def settled_leader(self) -> RaftNode | None:
        leader = self.leader()
        return leader if leader and leader.log.term_at(leader.commit_index) == leader.current_term else None

    def converged(self) -> bool:
        """Whether every node is up and holds the same log durably, and knows all of it to be committed."""
        state = {(n.log.last_index, n.log.last_term, n.durable_index, n.commit_index) for n in self.nodes.values()}
        committed = len(self.invariants.committed_terms)
        return len(self.nodes) == len(self.ids) and len(state) == 1 and state.pop()[0] == committed

    def _at(self, latency: tuple[float, float], act: Callable[[], None]) -> None:
        heappush(self._queue, (self.now + self.rng.uniform(*latency), next(self._ticket), act))

    def _step(self, node_id: str, events: list[Event]) -> None:
        node = self.nodes[node_id]
        before = node.snapshot()
        try:
            effects = node.step(events, self.now)
            self.invariants.stepped(node, before, events, effects, self.now)
            waiting = node.log.payloads(node.durable_index + 1, node.log.last_index + 1)
            assert node.unsynced_bytes == entries_bytes(waiting), "the account of what waits for the disk"
            self._apply(node)
        except Exception as error:
            error.add_note(f"seed {self.seed}, t={self.now:.4f}, {node_id}: {events}")
            raise
        if effects.persist:
            assert node_id not in self._writing, "two writes under way"
            self._writing[node_id] = effects.persist
            self._at(self.disk_latency[node_id], partial(self._synced, node_id, self._life[node_id]))
        self.read_results |= {ready.read_id: ready.index for ready in effects.reads}
        self.read_results |= dict.fromkeys(effects.reads_refused)
        self.sent += effects.messages
        for message in effects.messages:
            assert not fault(message), f"seed {self.seed}: {fault(message)}"
            for _ in range(1 + (self.rng.random() < self.duplicate)):
                if self.rng.random() >= self.loss and not self.lose(message):
                    self._at(self.delay, partial(self._deliver, message))

    def _apply(self, node: RaftNode) -> None:
        state, commit = self._applied[node.node_id], node.commit_index
        if commit > state.last_applied:
            first, state.last_applied = state.last_applied + 1, commit
            self.invariants.applied(node.node_id, first, [None] * (commit + 1 - first), state, self.now)

    def _deliver(self, message: Message) -> None:
        if (message.from_id, message.to_id) not in self.cuts:
            self.give(message.to_id, Receive(message))

    def _synced(self, node_id: str, life: int) -> None:
        if node_id in self.stalled:
            self.stalled[node_id] = life
        elif life == self._life[node_id]:
            persist = self._writing.pop(node_id)
            self.disks[node_id].write(persist)
            self.invariants.synced(node_id, persist, self.now)
            self.give(node_id, Persisted(persist.number))
