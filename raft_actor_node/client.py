"""The key-value client: leader discovery, retries and sessions behind plain awaitable calls.

    async with KVClient({"n1": "127.0.0.1:41233", "n2": "127.0.0.1:41234"}) as kv:
        await kv.put(b"k", b"v")
        assert await kv.get(b"k") == b"v"

client_engine.py sends and retries the operations and decides their outcomes.
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
    """Result of a compare-and-swap."""

    swapped: bool
    """Whether the new value was set."""
    current: bytes | None
    """If not swapped: the value found instead; None if the key does not exist."""


class KVClient:
    """A client of the replicated store, for any number of concurrent calls.

    A call raises OperationFailed if the operation certainly had no effect. It raises OperationUnknown if the operation
    may or may not have taken effect, now or later. Both errors carry `code` and all `attempts`.

    Retries of a write keep its session and sequence, so the write takes effect at most once. Each concurrent write has
    its own session, which the client opens when needed and then reuses. A retry budget of 0s means one attempt, and no
    session, because there is no retry to recognise.

    A client belongs to the event loop that starts it. On another loop (a second `asyncio.run`) every call raises
    RuntimeError. So does every call after a fork, because gRPC does not survive forks. Start processes with
    `subprocess`, or with the multiprocessing method "spawn".
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
        """Set up a client of the nodes in `addresses`: node id -> "host:port", or a list of "host:port".

        Without node ids, the client finds the leader by trying each address. `client_id` names this client in link
        faults. `engine` is the factory of its engine. Raises ConfigError for an address without host or port, and
        TypeError for a string in place of a list.
        """
        settings = settings or ClientSettings()
        self._with_sessions = settings.retry_budget > 0
        self._engine = engine(
            addresses, client_id=client_id, on_done=self._completed, settings=settings, transport=transport
        )
        self._sessions: list[Session] = []

    def start(self) -> None:
        """Begin to connect to all nodes, without waiting. `async with` calls this."""
        self._engine.start()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all open operations with the error CANCELLED and close the connections."""
        await self._engine.close()

    def update_addresses(self, addresses: Mapping[str, str] | Iterable[str]) -> None:
        """Replace the address book and connect to changed addresses at once."""
        self._engine.update_addresses(addresses)

    @property
    def leader(self) -> str | None:
        """The node that this client believes to lead; None if unknown."""
        return self._engine.leader

    async def put(self, key: bytes, value: bytes) -> None:
        """Set a key."""
        await self._call(Kind.PUT, key, value)

    async def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, linearizably; None if the key does not exist."""
        return (await self._call(Kind.GET, key)).result

    async def delete(self, key: bytes) -> bool:
        """Remove a key. Return whether it existed."""
        return (await self._call(Kind.DELETE, key)).found

    async def compare_and_swap(self, key: bytes, expected: bytes | None, value: bytes) -> Swap:
        """Set a key if its value is `expected`; None expects that the key does not exist."""
        operation = await self._call(Kind.COMPARE_AND_SWAP, key, value, expected)
        return Swap(operation.found, operation.result)

    async def append(self, key: bytes, value: bytes) -> int:
        """Append to the value of a key and return the new length. A missing key counts as empty."""
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
            # The write was never sent, so it had no effect, whether or not the session was opened.
            raise OperationFailed(f"{what}: {error}", error.code, error.attempts) from None

    def _completed(self, operations: list[Operation]) -> None:
        for operation in operations:
            # The session returns to the pool here and not in `_call`, because the caller may have been cancelled.
            if operation.session is not None and operation.error != "SESSION_UNKNOWN":
                self._sessions.append(operation.session)
            if not operation.token.done():
                operation.token.set_result(None)
