"""The load generator: many client sessions in one event loop, with one row of numpy columns per operation.

It does not depend on Ray; orchestration hosts it in its own process. Operations that complete in the same tick of the
event loop are one batch, recorded column by column. The next operations of their clients are submitted together, so
that they travel in one message.

There are two kinds of load. Closed: each client sends its next operation when the previous one returns. Open:
operations are due at a given rate. If no client is free when an operation is due, it is dropped and counted.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raft_actor_node.client_engine import ClientEngine, Operation, Session
from raft_actor_node.config import ClientSettings, TransportSettings
from raft_actor_node.kv.commands import Kind
from raft_actor_node.patience import Patience
from sweeps.load.draws import Arrivals, Choices
from sweeps.load.latencies import Ints, Latencies
from sweeps.load.operations import FAIL, KINDS, OK, UNKNOWN, written_keys
from sweeps.load.recorder import LoadSnapshot, Recorder
from sweeps.load.values import CLIENT_SHIFT, ID_BYTES, Values
from sweeps.spec.parameters import LoadSettings

_PUT, _CAS, _APPEND = int(Kind.PUT), int(Kind.COMPARE_AND_SWAP), int(Kind.APPEND)  # plain ints, for the hot path
_MOST_APPENDED_BYTES = 128 * ID_BYTES
"""Maximum bytes appended to a value. The checker must know the whole value, and each read transfers all of it."""
READ_TOGETHER = 1000
"""Maximum number of keys read back at once, each by its own client."""
_READ_BYTES = 1 << 20
"""Maximum bytes of values read back at once."""
_READ_BUDGET_S = 86_400.0
"""Retry budget of the reads in `read_back`: effectively unlimited; its timeout ends them much earlier."""
_TICK_S = 0.001
_SAMPLE_S = 0.05


class Engine(Protocol):
    """The methods of a client engine that the generator uses."""

    def start(self) -> None: ...
    async def close(self) -> None: ...
    async def open_sessions(self, count: int) -> list[Session]: ...
    def submit(self, operations: Sequence[Operation]) -> None: ...
    def update_addresses(self, addresses: Mapping[str, str]) -> None: ...


EngineFactory = Callable[..., Engine]


@dataclass(frozen=True)
class LoadResult:
    """Everything that a load generator recorded."""

    columns: dict[str, NDArray[Any]]
    """One array per name in COLUMNS (operations.py)."""
    composite_ids: NDArray[np.uint64]
    composite_end: Ints
    dropped_ns: Ints
    dropped_kind: NDArray[np.uint8]
    sample_ns: Ints
    """Times of the samples in the two series below."""
    cpu_ns: Ints
    """CPU time of the process up to each sample."""
    loop_lag_ns: Ints
    """Delay with which the event loop ran a timer."""


class LoadGenerator:
    """Sends load to a cluster, and records every operation.

    Call its methods in this order: `connect`, `start`, `snapshot` any number of times, `stop`, `drain`, `read_back`,
    `result`, `close`. Client numbers begin at `first_client`. Values (values.py) are unique across generators only if
    no two clients share a number. `clock` returns nanoseconds; the engine uses the same clock.
    """

    def __init__(
        self,
        load: LoadSettings,
        client: ClientSettings,
        transport: TransportSettings,
        *,
        seed: int,
        longest_value: int,
        first_client: int = 0,
        engine: EngineFactory = ClientEngine,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._first_client = first_client
        self._load, self._client, self._transport, self._seed = load, client, transport, seed
        self._clock = clock
        self._values = Values(load.value_bytes)
        self._longest_appended = min(longest_value // 2, load.value_bytes + _MOST_APPENDED_BYTES)
        self._new_engine = engine
        self._engine: Engine | None = None
        self._sessions: list[Session] = []
        self._choices = Choices(load, seed)
        self._arrivals: Arrivals | None = None
        self._free = list(range(load.clients - 1, -1, -1))
        self._recorder = Recorder()
        self._submitted = 0
        self._decided = dict.fromkeys((OK, FAIL, UNKNOWN), 0)
        self._dropped = array("q")
        self._dropped_kind = array("B")
        self._written = 0
        self._known: dict[int, bytes | None] = {}
        self._full: set[int] = set()
        self._running = False
        self._idle = asyncio.Event()
        self._samples: list[tuple[int, int, int]] = []
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._seen = (0, 0, 0)

    async def connect(self, addresses: Mapping[str, str]) -> None:
        """Open a session per client.

        Raises OperationError if the cluster opens no session in time; `connect` may then be called again.
        """
        if self._engine is not None:
            await self._engine.close()
        self._engine = await self._connected(addresses, self._client, self._done)
        self._sessions = await self._engine.open_sessions(self._load.clients)

    async def _connected(
        self, addresses: Mapping[str, str], settings: ClientSettings, on_done: Callable[[list[Operation]], None]
    ) -> Engine:
        engine = self._new_engine(
            dict(addresses),
            client_id="load",
            on_done=on_done,
            settings=settings,
            transport=self._transport,
            rng=random.Random(self._seed),
            clock=self._clock,
            call=self._load.call,
        )
        engine.start()
        return engine

    async def update_addresses(self, addresses: Mapping[str, str]) -> None:
        """Use these addresses from now on."""
        if self._engine is not None:
            self._engine.update_addresses(dict(addresses))

    async def start(self, phase: float = 0.0) -> int:
        """Begin the load; return the time of the start on the monotonic clock, in nanoseconds.

        If operations are due at equal intervals, `phase` shifts them by that share of an interval. Give each generator
        its own phase, so that their operations do not coincide.
        """
        # Garbage collections during the measurement skip frozen objects, and so take less time.
        gc.collect()
        gc.freeze()
        self._running = True
        now_ns = self._clock()
        self._seen = (self._recorder.rows, len(self._dropped), now_ns)
        self._sample(now_ns)
        if self._load.mode == "open":
            self._arrivals = Arrivals(self._load, self._seed + 1, now_ns + int(phase * 1e9 / (self._load.rate or 1.0)))
            self._tick()
        else:
            clients, self._free = self._free, []
            if self._load.think:
                # Stagger the clients; otherwise they would all pause and send together.
                for position, client in enumerate(clients):
                    delay_s = self._load.think * (position + phase) / len(clients)
                    asyncio.get_running_loop().call_later(delay_s, self._next, [client])
            else:
                self._submit(clients, [now_ns] * len(clients))
        return now_ns

    async def stop(self) -> None:
        """Submit the operations that are already due, then no new ones. Outstanding operations continue."""
        if self._running and self._arrivals is not None:
            # The loop may have paused since the last tick; operations that came due meanwhile belong to the load.
            self._take_arrivals(self._arrivals)
        self._running = False
        if "tick" in self._timers:
            self._timers.pop("tick").cancel()

    async def drain(self, timeout_s: float) -> int:
        """Stop, and wait at most `timeout_s` seconds until all outstanding operations are decided.

        The remaining operations are abandoned and recorded as unknown (reads as failed). Returns their number.
        """
        await self.stop()
        try:
            async with Patience(timeout_s):
                while self._outstanding:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            pass
        given_up = self._outstanding
        await self.close()
        return given_up

    async def written(self) -> NDArray[np.uint32]:
        """Return the keys that an acknowledged write changed, in ascending order."""
        return written_keys({name: self._recorder.column(name) for name in ("kind", "outcome", "found", "key")})

    async def read_back(
        self, addresses: Mapping[str, str], keys: NDArray[np.uint32], first_client: int, timeout_s: float
    ) -> None:
        """Read each of these keys once, after `drain`; stop after `timeout_s` seconds.

        The reads are recorded as those of up to READ_TOGETHER clients, numbered from `first_client`. Pauses of this
        process do not count towards the timeout.
        """
        usual = ClientSettings()  # the load's own timeouts may be too short for any reply
        settings = usual.model_copy(
            update={"rpc_timeout": max(usual.rpc_timeout, self._client.rpc_timeout), "retry_budget": _READ_BUDGET_S}
        )
        longest = max(self._load.value_bytes, self._longest_appended if self._load.mix.append else 0, 1)
        together = min(READ_TOGETHER, max(1, _READ_BYTES // longest))
        done = asyncio.Event()

        def on_done(operations: list[Operation]) -> None:
            self._record(operations)
            if not self._outstanding:
                done.set()

        engine = await self._connected(addresses, settings, on_done)
        try:
            async with Patience(timeout_s):
                for begin in range(0, len(keys), together):
                    now_ns = self._clock()
                    reads = [
                        Operation(
                            KINDS["get"],
                            self._key(key),
                            intended_ns=now_ns,
                            token=(first_client - self._first_client + position, key, 0),
                        )
                        for position, key in enumerate(keys[begin : begin + together].tolist())
                    ]
                    self._submitted += len(reads)
                    done.clear()
                    engine.submit(reads)
                    await done.wait()
        except TimeoutError:
            pass
        finally:
            await engine.close()

    async def close(self) -> None:
        """Close the connections, and end all outstanding operations."""
        await self.stop()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await engine.close()
        gc.unfreeze()

    async def snapshot(self) -> LoadSnapshot:
        """Return the progress of the load. Cheap: it inspects only the rows since the last snapshot."""
        rows, dropped, then_ns = self._seen
        now_ns = self._clock()
        self._seen = (self._recorder.rows, len(self._dropped), now_ns)
        succeeded = self._recorder.column("outcome", rows) == OK
        decided = self._recorder.column("end_ns", rows) - self._recorder.column("intended_ns", rows)
        waiting = now_ns - np.array(self._dropped[dropped:], np.int64)
        return LoadSnapshot(
            ok=self._decided[OK],
            failed=self._decided[FAIL],
            unknown=self._decided[UNKNOWN],
            dropped=len(self._dropped),
            outstanding=self._outstanding,
            per_second=float(np.count_nonzero(succeeded)) * 1e9 / max(1, now_ns - then_ns),
            recent=Latencies.pooled(
                (Latencies(decided, ~succeeded), Latencies(waiting, np.ones(len(waiting), np.bool_)))
            ),
        )

    async def result(self) -> LoadResult:
        """Return everything that was recorded."""
        samples = np.array(self._samples, np.int64).reshape(-1, 3)
        dropped = np.array(self._dropped, np.int64), np.array(self._dropped_kind, np.uint8)
        columns = self._recorder.columns()
        columns["client"] += self._first_client
        composites = self._values.composites()
        return LoadResult(columns, *composites, *dropped, samples[:, 0], samples[:, 1], samples[:, 2])

    @property
    def _outstanding(self) -> int:
        return self._submitted - self._recorder.rows

    def _done(self, operations: list[Operation]) -> None:
        self._record(operations)
        clients = [operation.token[0] for operation in operations]
        if self._running and self._arrivals is None and not self._load.think:
            self._submit(clients, [self._clock()] * len(clients))
            return
        if self._running and self._arrivals is None:
            asyncio.get_running_loop().call_later(self._load.think, self._next, clients)
        else:
            self._free += clients
        if not self._outstanding:
            self._idle.set()

    def _next(self, clients: list[int]) -> None:
        """Submit the next operations of clients whose pause is over."""
        if self._running:
            self._submit(clients, [self._clock()] * len(clients))

    def _record(self, operations: list[Operation]) -> None:
        if self._load.mix.append:
            longest = self._longest_appended
            self._full.update(o.token[1] for o in operations if o.kind == _APPEND and o.number > longest)
        expected: list[int] | int = 0
        if self._load.mix.cas:
            self._learn(operations)
            expected = self._values.numbers([operation.expected for operation in operations])
        outcomes = [operation.outcome for operation in operations]
        for outcome in self._decided:
            self._decided[outcome] += outcomes.count(outcome)
        self._recorder.extend(
            [operation.intended_ns for operation in operations],
            [operation.start_ns for operation in operations],
            [operation.end_ns for operation in operations],
            [operation.kind for operation in operations],
            outcomes,
            [operation.attempts for operation in operations],
            [operation.token[1] for operation in operations],
            [operation.token[0] for operation in operations],
            [operation.token[2] for operation in operations],
            self._observed(operations),
            expected,
            [operation.found for operation in operations],
        )

    def _observed(self, operations: list[Operation]) -> list[int]:
        seen = self._values.numbers([operation.result for operation in operations])
        if not self._load.mix.append:
            return seen
        return [o.number or number for o, number in zip(operations, seen, strict=True)]

    def _learn(self, operations: list[Operation]) -> None:
        """Record the last value of each key in these results, for later compare-and-swaps to expect.

        Other clients may have changed the key since.
        """
        for operation in operations:
            if operation.outcome != OK:
                continue
            key, value = operation.token[1], operation.result
            if operation.kind == _APPEND:
                value = (self._known.get(key) or b"") + operation.value
            elif operation.kind == _PUT or (operation.kind == _CAS and operation.found):
                value = operation.value
            self._known[key] = value

    def _submit(self, clients: list[int], intended_ns: list[int], choices: list[tuple[int, int]] | None = None) -> None:
        """Submit one operation for each client. `choices` gives kinds and keys; without it, they are drawn."""
        if self._engine is None or not clients:
            return
        choices = choices or self._choices.take(len(clients))
        self._submitted += len(clients)
        self._engine.submit(
            [
                self._operation(client, due_ns, kind, key)
                for client, due_ns, (kind, key) in zip(clients, intended_ns, choices, strict=True)
            ]
        )

    def _operation(self, client: int, intended_ns: int, kind: int, key: int) -> Operation:
        written, value, expected = 0, b"", None
        if kind == _APPEND and key in self._full:
            # The value has grown beyond _longest_appended; a put shortens it.
            self._full.discard(key)
            kind = _PUT
        if kind in (_PUT, _CAS, _APPEND):
            self._written += 1
            written = (self._first_client + client + 1) << CLIENT_SHIFT | self._written
            value = self._values.piece(written) if kind == _APPEND else self._values.make(written)
        if kind == _CAS:
            expected = self._known.get(key)
        return Operation(
            kind,
            self._key(key),
            value,
            expected=expected,
            session=self._sessions[client],
            intended_ns=intended_ns,
            token=(client, key, written),
        )

    def _key(self, number: int) -> bytes:
        return b"%0*d" % (self._load.key_bytes, number)

    def _tick(self) -> None:
        """Submit what is due, and schedule the next tick."""
        assert self._arrivals is not None
        self._take_arrivals(self._arrivals)
        wait_s = (self._arrivals.next_ns() - self._clock()) / 1e9
        self._timers["tick"] = asyncio.get_running_loop().call_later(max(wait_s, _TICK_S), self._tick)

    def _take_arrivals(self, arrivals: Arrivals) -> None:
        """Submit a due operation for each free client; drop the other due operations."""
        due = arrivals.until(self._clock())
        choices = self._choices.take(len(due))
        ready = min(len(due), len(self._free))
        clients = [self._free.pop() for _ in range(ready)]
        self._dropped.extend(due[ready:])
        self._dropped_kind.extend(kind for kind, _ in choices[ready:])
        self._submit(clients, due[:ready], choices[:ready])

    def _sample(self, due_ns: int) -> None:
        """Sample the lag of the event loop and the CPU time, and schedule the next sample."""
        now_ns = self._clock()
        self._samples.append((now_ns, time.process_time_ns(), max(0, now_ns - due_ns)))
        next_ns = now_ns + int(_SAMPLE_S * 1e9)
        self._timers["sample"] = asyncio.get_running_loop().call_later(_SAMPLE_S, self._sample, next_ns)
