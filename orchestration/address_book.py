"""The address book: the current address of each node.

A node is identified by its id; a restarted node has a new port. Each entry carries an epoch that grows with
every incarnation of its node, so a reader that gets two entries out of order keeps the newer one.
The book is plain data: it uses neither Ray nor sockets, and its listeners distribute it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import NamedTuple

from raft_actor_node.patience import Patience

log = logging.getLogger(__name__)

_LISTENER_TIMEOUT_S = 2.0


class Entry(NamedTuple):
    """The address of a node, and the number of its incarnation."""

    address: str
    """host:port"""
    epoch: int
    """1 for the first incarnation; each restart adds 1."""


Listener = Callable[["AddressBook"], Awaitable[None] | None]


class AddressBook(Mapping[str, Entry]):
    """A map from node id to address and epoch, with listeners for its changes."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._listeners: list[Listener] = []

    def __getitem__(self, node_id: str) -> Entry:
        return self._entries[node_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def set(self, node_id: str, address: str) -> Entry:
        """Enter a new incarnation of a node. Listeners are called only at `publish`."""
        old = self._entries.get(node_id)
        entry = self._entries[node_id] = Entry(address, old.epoch + 1 if old else 1)
        return entry

    def addresses(self) -> dict[str, str]:
        """Return a map from node id to host:port, without epochs."""
        return {node_id: entry.address for node_id, entry in self._entries.items()}

    def to_json(self) -> dict[str, dict[str, str | int]]:
        """Return the book as node processes receive it (`{"n1": {"address": ..., "epoch": ...}}`)."""
        return {node_id: entry._asdict() for node_id, entry in self._entries.items()}

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener`, sync or async, with the book at each `publish`. Returns a function that unsubscribes it."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    async def publish(self) -> None:
        """Call every listener. A listener that fails or times out is logged, and the next listener is called."""
        for listener in tuple(self._listeners):
            try:
                answer = listener(self)
                if inspect.isawaitable(answer):
                    async with Patience(_LISTENER_TIMEOUT_S):
                        await answer
            except Exception:
                log.warning("an address book listener failed", exc_info=True)
