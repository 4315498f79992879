"""The address book: under which address each node can be reached now.

Identity is the node id; a restarted node has a new port. Each entry carries an epoch that grows with
every life of its node, so that whoever gets two entries in the wrong order keeps the newer one.
No Ray and no sockets here: the book is a value that others send about.
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
    """Where a node is, and in which of its lives."""

    address: str
    """host:port"""
    epoch: int
    """1 for the first life, one more with each restart."""


Listener = Callable[["AddressBook"], Awaitable[None] | None]


class AddressBook(Mapping[str, Entry]):
    """Node id to address and epoch, and those who want to know when it changes."""

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
        """Enter a new life of a node. Nobody is told before `publish`."""
        old = self._entries.get(node_id)
        entry = self._entries[node_id] = Entry(address, old.epoch + 1 if old else 1)
        return entry

    def addresses(self) -> dict[str, str]:
        """Node id to host:port, without epochs."""
        return {node_id: entry.address for node_id, entry in self._entries.items()}

    def to_json(self) -> dict[str, dict[str, str | int]]:
        """The form in which node processes get it (`{"n1": {"address": ..., "epoch": ...}}`)."""
        return {node_id: entry._asdict() for node_id, entry in self._entries.items()}

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener`, sync or async, called with the book at each `publish`. Returns how to stop that."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    async def publish(self) -> None:
        """Tell every listener. One that fails, or takes long, is logged and keeps the others from nothing."""
        for listener in tuple(self._listeners):
            try:
                answer = listener(self)
                if inspect.isawaitable(answer):
                    async with Patience(_LISTENER_TIMEOUT_S):
                        await answer
            except Exception:
                log.warning("an address book listener failed", exc_info=True)
