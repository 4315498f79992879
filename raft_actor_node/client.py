"""The key-value client: leader discovery, retries and sessions behind plain awaitable calls.

    async with KVClient({"n1": "127.0.0.1:41233", "n2": "127.0.0.1:41234"}) as kv:
        await kv.put(b"k", b"v")
        assert await kv.get(b"k") == b"v"

How operations are sent, retried and judged is in client_engine.py; this is its face for people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import NamedTuple, Self

from raft_actor_node.client_engine import OK, ClientEngine, Operation, Session, operation_error
from raft_actor_node.config import ClientSettings, TransportSettings
from raft_actor_node.errors import OperationError, OperationFailed
from raft_actor_node.kv.commands import Kind

__all__ = ["KVClient", "Swap"]


class Swap(NamedTuple):
    """What came of a compare-and-swap."""

    swapped: bool
    """The new value was set."""
    current: bytes | None
    """When not swapped: the value that was there instead; None when the key does not exist."""


class KVClient:
    """A client of the replicated store, for any number of concurrent calls.

    Every call raises OperationFailed when it certainly had no effect, and OperationUnknown when it may
    or may not have taken effect, now or later; both carry `code` and all `attempts`. A write is retried
    with the same session and sequence, so it takes effect at most once; each concurrent write has a
    session of its own, opened when needed and reused after. With a retry budget of 0s there is one
    attempt, and no session: there is no retry that it could recognise.

    A client belongs to the event loop that starts it. On another loop (a second `asyncio.run`) every call raises
    RuntimeError, and so does every call after a fork: gRPC does not survive one, whichever client is used. Start
    processes with `subprocess`, or with the multiprocessing method "spawn".
    """

    def __init__(
        self,
        addresses: Mapping[str, str] | Iterable[str],
        *,
        settings: ClientSettings | None = None,
        transport: TransportSettings | None = None,
        client_id: str = "client",
        engine: Callable[..., ClientEngine] = ClientEngine,
    ) -> None:
        """`addresses`: node id -> "host:port". Without node ids (a list of "host:port") the leader is found by
        trying. `client_id` is the name by which link faults know this client; `engine` makes its engine.

        Raises ConfigError for an address without host or port, TypeError for a string in place of a list."""
        settings = settings or ClientSettings()
        self._with_sessions = settings.retry_budget > 0
        self._engine = engine(
            addresses, client_id=client_id, on_done=self._completed, settings=settings, transport=transport
        )
        self._sessions: list[Session] = []

    def start(self) -> None:
        """Begins to connect to all nodes; does not wait for them. `async with` does it too."""
        self._engine.start()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends what is under way (with the error CANCELLED) and drops the connections."""
        await self._engine.close()

    def update_addresses(self, addresses: Mapping[str, str] | Iterable[str]) -> None:
        """Replaces the address book; a node with a new address is connected to at once."""
        self._engine.update_addresses(addresses)

    @property
    def leader(self) -> str | None:
        """The node that is believed to lead."""
        return self._engine.leader

    async def put(self, key: bytes, value: bytes) -> None:
        """Sets a key."""
        await self._call(Kind.PUT, key, value)

    async def get(self, key: bytes) -> bytes | None:
        """The value of a key, linearizably; None when it does not exist."""
        return (await self._call(Kind.GET, key)).result

    async def delete(self, key: bytes) -> bool:
        """Removes a key. True when it existed."""
        return (await self._call(Kind.DELETE, key)).found

    async def compare_and_swap(self, key: bytes, expected: bytes | None, value: bytes) -> Swap:
        """Sets a key if it holds `expected`; None: if it does not exist."""
        operation = await self._call(Kind.COMPARE_AND_SWAP, key, value, expected)
        return Swap(operation.found, operation.result)

    async def append(self, key: bytes, value: bytes) -> int:
        """Appends to the value of a key, which counts as empty when it does not exist. The length after it."""
        return (await self._call(Kind.APPEND, key, value)).number

    async def _call(self, kind: Kind, key: bytes, value: bytes = b"", expected: bytes | None = None) -> Operation:
        for name, data in (("key", key), ("value", value), ("expected", expected)):
            if not isinstance(data, bytes) and not (data is None and name == "expected"):
                raise TypeError(f"{name}: must be bytes, not {type(data).__name__}")
        what = f"{kind.name.lower().replace('_', ' ')} {key[:40]!r}"
        session = await self._lease(what) if self._with_sessions and kind is not Kind.GET else None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        operation = Operation(kind, key, value, expected=expected, session=session, token=done)
        self._engine.submit([operation])
        await done
        if operation.outcome != OK:
            raise operation_error(operation, what)
        return operation

    async def _lease(self, what: str) -> Session:
        if self._sessions:
            return self._sessions.pop()
        try:
            return (await self._engine.open_sessions(1))[0]
        except OperationError as error:
            # The write itself was never sent, however the opening of its session ended.
            raise OperationFailed(f"{what}: {error}", error.code, error.attempts) from None

    def _completed(self, operations: list[Operation]) -> None:
        for operation in operations:
            # The session is given back here and not in `_call`: a caller may be cancelled before.
            if operation.session is not None and operation.error != "SESSION_UNKNOWN":
                self._sessions.append(operation.session)
            if not operation.token.done():
                operation.token.set_result(None)
