"""A replica that runs the specification, and thus has the correct results and values.

Satisfies StateModel of core/invariants/cluster.py. It feeds log entries to Model (model.py), which shares no logic with
store.py. A command that took effect twice, or not at all, is thus detected at once.
"""

from __future__ import annotations

from typing import Protocol

from raft_actor_node.kv.commands import decode
from raft_actor_node.kv.model import Model
from raft_actor_node.kv.store import Result


class Replica(Protocol):
    """The replica to compare: a Store or a substitute."""

    def get(self, key: bytes) -> bytes | None: ...


class Reference:
    """A replica of the specification, which applies every entry once, in order."""

    def __init__(self, *, value_bytes: int) -> None:
        """`value_bytes` is the longest value for an append without its own limit."""
        self._model = Model(value_bytes=value_bytes)
        self._touched: dict[bytes, None] = {}

    def apply(self, index: int, payload: bytes) -> Result:
        """Return the correct result of the entry at `index`."""
        command = decode(payload) if payload else None
        if command is not None:
            self._touched[command.key] = None
        return self._model.apply(index, command)

    def mismatch(self, state: Replica) -> str:
        """Describe how a store that applied as much differs from this replica; empty if it does not differ.

        Compares only keys changed since the last call, and describes the first key that differs.
        """
        touched, self._touched = self._touched, {}
        for key in touched:
            held, due = state.get(key), self._model.values.get(key)
            if held != due:
                return f"key {key!r} holds {held!r} instead of {due!r}"
        return ""
