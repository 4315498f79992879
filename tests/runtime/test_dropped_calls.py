"""A message that link faults drop looks like a timeout to the client: it gets neither an answer nor an error."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from raft_actor_node.config import NodeConfig
from raft_actor_node.links import CLIENTS, LinkRule
from raft_actor_node.pb import kv_pb2
from raft_actor_node.runtime.budget import Answer, Caller
from raft_actor_node.runtime.faults import LinkFaults
from raft_actor_node.runtime.gate import Operation
from raft_actor_node.runtime.services import KVService


class Echo:
    """A gate that answers every request at once."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def take(self, operations: Sequence[Operation], caller: Caller) -> None:
        self.taken += [operation.id for operation in operations]
        caller.respond([Answer(id=operation.id) for operation in operations], 0)

    def left(self, caller: Caller, size: int) -> None:
        """Ignore that answers of this size have left."""

    def error(self, operation_id: int, code: Any, message: str = "") -> Answer:
        return Answer(id=operation_id, error=kv_pb2.ErrorCode.Name(code), message=message)


class Standstill:
    """A clock on which nothing is ever due."""

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        raise AssertionError(f"{callback} in {delay_s} s")


@pytest.mark.parametrize(("lost", "taken"), [("requests", []), ("replies", [1, 2])])
def test_what_is_dropped_is_not_answered(lost: Literal["requests", "replies"], taken: list[int]) -> None:
    """A dropped request never reaches the node. A dropped reply is withheld, but the operation takes effect."""
    ends = (CLIENTS, "n1") if lost == "requests" else ("n1", CLIENTS)
    rule = LinkRule(from_id=ends[0], to_id=ends[1], messages=lost, drop=1.0)
    faults = LinkFaults("n1", ["n1", "n2", "n3"], [rule], random.Random(0))
    gate, answers = Echo(), list[Answer]()
    config = NodeConfig(cluster_id="c", node_id="n1", members=["n1", "n2", "n3"], storage={"dir": "unused"})  # type: ignore[arg-type]
    service = KVService(config, gate, faults, Standstill())  # type: ignore[arg-type]
    caller = service.caller(lambda passed, _: answers.extend(passed))
    service.take("", [Operation(id=1), Operation(id=2)], caller)
    assert gate.taken == taken
    assert answers == []
    assert faults.counters.dropped == 2
    faults.replace(())
    service.take("", [Operation(id=3)], caller)
    assert [answer.id for answer in answers] == [3]
