"""The specification as a replica beside the real ones: what each entry must give, and what each key must hold.

Satisfies StateModel of core/invariants/cluster.py. It is Model (model.py), which shares no logic with store.py,
fed with log entries; so a command that took effect twice, or not at all, shows at once.
"""

from __future__ import annotations

from typing import Protocol

from raft_actor_node.kv.commands import decode
from raft_actor_node.kv.model import Model
from raft_actor_node.kv.store import Result


class Replica(Protocol):
    """What is compared: a Store, or what stands for one."""

    def get(self, key: bytes) -> bytes | None: ...


class Reference:
    """Applies every entry once, in order."""

    def __init__(self, *, value_bytes: int) -> None:
        """`value_bytes` is the longest value for an append that names none."""
        self._model = Model(value_bytes=value_bytes)
        self._touched: dict[bytes, None] = {}

    def apply(self, index: int, payload: bytes) -> Result:
        """The result that the entry at `index` must have."""
        command = decode(payload) if payload else None
        if command is not None:
            self._touched[command.key] = None
        return self._model.apply(index, command)

    def mismatch(self, state: Replica) -> str:
        """The first key, changed since the last call, at which a store that applied as much differs."""
        touched, self._touched = self._touched, {}
        for key in touched:
            held, due = state.get(key), self._model.values.get(key)
            if held != due:
                return f"key {key!r} holds {held!r}, and not {due!r}"
        return ""
