"""The clients of a seed: sessions that put, get, delete, compare-and-swap and append on few keys, and their history.

There are two kinds of clients. Some know all nodes and look for the leader, as usual. Others are pinned to a single
node and send only while this node believes that it leads, because a deposed leader could give a stale answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

from chaos.history import Function
from chaos.history import Operation as Entry
from raft_actor_node.client_engine import FAIL, OK, UNKNOWN, ClientEngine, Operation, Session
from raft_actor_node.config import ClientSettings
from raft_actor_node.kv.commands import Kind
from sweeps.campaign.options import CampaignLoad

ID_BYTES = 8
"""Length of each written id: a value is a sequence of ids."""
_KINDS: dict[Function, Kind] = {
    "put": Kind.PUT,
    "get": Kind.GET,
    "delete": Kind.DELETE,
    "cas": Kind.COMPARE_AND_SWAP,
    "append": Kind.APPEND,
}
_NAMES = {int(kind): name for name, kind in _KINDS.items()}
_OUTCOMES: dict[int, Any] = {OK: "ok", FAIL: "fail", UNKNOWN: "info"}
PACE = 0.7
"""Pauses of the clients, as a share of the time; operations take the rest."""
_IDLE_SHARE = 0.25
"""Mean wait before a client that may not send checks again, as a share of the usual pause."""


@dataclass(eq=False)
class _Client:
    """One session, with at most one operation at a time."""

    engine: ClientEngine
    session: Session
    process: int
    may_ask: Callable[[], bool]
    mix: Mapping[Function, float]
    known: dict[int, bytes | None] = field(default_factory=dict)
    """Last known values of the keys, which a compare-and-swap expects."""


class Clients:
    """All clients of a seed. Call `connect`, `start`, wait for `finished`, `drain`, read `history`."""

    def __init__(
        self,
        load: CampaignLoad,
        settings: ClientSettings,
        engine: Callable[..., ClientEngine],
        rng: random.Random,
    ) -> None:
        self.history: list[Entry] = []
        self.finished = asyncio.Event()
        """Set while all planned operations are begun and decided."""
        self.completed = 0
        """Number of operations that succeeded."""
        self._load, self._settings, self._new_engine, self._rng = load, settings, engine, rng
        self._engines: list[tuple[ClientEngine, str | None]] = []
        self._clients: list[_Client] = []
        self._processes = 0
        self._written = 0
        self._left = 0
        self._outstanding = 0
        self._running = False
        self._pause_s = 0.0
        self._loop = asyncio.get_running_loop()

    async def connect(
        self, addresses: Mapping[str, str], leads: Callable[[str], bool], patient: ClientSettings
    ) -> None:
        """Open all sessions, with the retry budget of `patient`. `leads` returns whether a node believes that it leads.

        Raises OperationError. Sessions belong to the cluster, not to a connection, so one client opens them all.
        """
        load = self._load
        plan: list[tuple[str, str | None, int]] = [
            (f"c{number}", None, load.sessions) for number in range(load.engines)
        ]
        plan += [(f"at-{node_id}", node_id, load.pinned) for node_id in addresses if load.pinned]
        opener = await self._engine("opener", addresses, patient)
        try:
            sessions = iter(await opener.open_sessions(sum(count for _, _, count in plan)))
        finally:
            await opener.close()
        for name, pin, count in plan:
            engine = await self._engine(name, addresses if pin is None else {pin: addresses[pin]}, self._settings)
            self._engines.append((engine, pin))
            may_ask = (lambda: True) if pin is None else partial(leads, pin)
            mix = load.mix if pin is None else load.pinned_mix
            for _ in range(count):
                self._clients.append(_Client(engine, next(sessions), self._processes, may_ask, mix))
                self._processes += 1

    async def _engine(self, name: str, addresses: Mapping[str, str], settings: ClientSettings) -> ClientEngine:
        rng = random.Random(self._rng.random())
        engine = self._new_engine(
            addresses, client_id=name, on_done=self._done, settings=settings, rng=rng, call=self._load.call
        )
        engine.start()
        return engine

    def update_addresses(self, addresses: Mapping[str, str]) -> None:
        """Use these addresses from now on."""
        for engine, pin in self._engines:
            engine.update_addresses(addresses if pin is None else {pin: addresses[pin]})

    def start(self, operations: int, length_s: float) -> None:
        """Begin this many operations, spread over about `length_s` seconds, as far as the cluster responds."""
        self._running, self._left = True, operations
        # Of the pinned clients, only those of the leader send at any one time.
        asking = self._load.engines * self._load.sessions + self._load.pinned
        self._pause_s = PACE * length_s * asking / max(1, operations)
        for client in self._clients:
            self._later(client, self._rng.uniform(0, 2))

    def go_on(self, operations: int) -> None:
        """Begin this many more operations, at the same pace."""
        self._left += operations
        self.finished.clear()

    def stop(self) -> None:
        """Begin no more operations."""
        self._running = False
        self._look()

    async def drain(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` seconds until all outstanding operations are decided; then abandon the rest."""
        self.stop()
        try:
            async with asyncio.timeout(timeout_s):
                await self.finished.wait()
        except TimeoutError:
            pass
        for engine, _ in self._engines:
            await engine.close()

    async def read_all(self, addresses: Mapping[str, str], timeout_s: float) -> int:
        """Read each key once, each with its own client; return how many reads succeeded in time.

        These reads reveal a lost acknowledged write, even if no earlier read did.
        """
        settings = self._settings.model_copy(update={"retry_budget": timeout_s})
        engine = await self._engine("last", addresses, settings)
        self.finished.clear()
        before = self.completed
        self._outstanding = self._load.keys
        reads = []
        for key in range(self._load.keys):
            client = _Client(engine, Session(0), self._processes, lambda: False, {})
            self._processes += 1
            reads.append(Operation(Kind.GET, b"k%d" % key, token=(client, key, 0, None)))
        engine.submit(reads)
        await self.finished.wait()
        await engine.close()
        return self.completed - before

    # ------------------------------------------------------------------------------ one operation

    def _later(self, client: _Client, pauses: float) -> None:
        self._loop.call_later(self._pause_s * pauses, self._next, client)

    def _next(self, client: _Client) -> None:
        if not self._running:
            return
        if not self._left or not client.may_ask():
            self._later(client, self._rng.uniform(0, 2 * _IDLE_SHARE))
        else:
            self._left -= 1
            self._outstanding += 1
            client.engine.submit([self._operation(client)])

    def _operation(self, client: _Client) -> Operation:
        [name] = self._rng.choices(list(client.mix), list(client.mix.values()))
        key = self._rng.randrange(self._load.keys)
        written, value, expected = 0, b"", None
        if name in ("put", "cas", "append"):
            self._written += 1
            written = self._written
            value = written.to_bytes(ID_BYTES, "big")
        if name == "cas":
            expected = client.known.get(key)
        token = (client, key, written, expected)
        # Without a session retries are not recognised: an attempt that may have taken effect must not be retried.
        session = None if self._rng.random() < self._load.anonymous else client.session
        return Operation(_KINDS[name], b"k%d" % key, value, expected=expected, session=session, token=token)

    def _done(self, operations: list[Operation]) -> None:
        for operation in operations:
            client: _Client = operation.token[0]
            self._record(client, operation)
            self._outstanding -= 1
            if operation.outcome == UNKNOWN:
                # The operation may still take effect, concurrently with the client's next one: use a new process.
                client.process = self._processes
                self._processes += 1
            if self._running:
                self._later(client, self._rng.expovariate(1))
        self._look()

    def _look(self) -> None:
        if not self._outstanding and not (self._running and self._left):
            self.finished.set()

    def _record(self, client: _Client, operation: Operation) -> None:
        _, key, written, expected = operation.token
        name, ok = _NAMES[operation.kind], operation.outcome == OK
        observed: Any = None
        self.completed += ok
        if ok:
            if name == "get":
                observed, client.known[key] = _ids(operation.result), operation.result
            elif name == "cas":
                client.known[key] = operation.value if operation.found else operation.result
                observed = None if operation.found else _ids(operation.result)
            elif name == "append":
                observed = operation.number
            else:
                observed = operation.found if name == "delete" else None
                client.known[key] = None if name == "delete" else operation.value
        self.history.append(
            Entry(
                process=client.process,
                f=name,
                key=key,
                value=written or None,
                expected=_ids(expected),
                outcome=_OUTCOMES[operation.outcome],
                observed=observed,
                swapped=name != "cas" or operation.found,
                size=ID_BYTES if written else None,
                invoke_ns=operation.start_ns,
                return_ns=inf if operation.outcome == UNKNOWN else operation.end_ns,
            )
        )


def _ids(value: bytes | None) -> tuple[int, ...] | None:
    """Split a value into the ids that it consists of."""
    if value is None:
        return None
    return tuple(int.from_bytes(value[at : at + ID_BYTES], "big") for at in range(0, len(value), ID_BYTES))
