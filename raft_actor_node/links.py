"""Link faults as data: what happens to messages from one node to another.

A link is directed and known by node ids, never by addresses, so that a rule outlives a restart with a
new port. The runtime enforces the rules (runtime/faults.py); chaos/shapes.py makes rules from partitions.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ANY_NODE = "*"
"""As an end of a link: every node of the cluster."""
CLIENTS = "clients"
"""As an end of a link: every client."""

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Milliseconds = Annotated[float, Field(ge=0.0, le=3_600_000.0)]
BytesPerSecond = Annotated[int, Field(ge=0, le=10**12)]


class LinkRule(BaseModel):
    """A fault on the messages that travel from `from_id` to `to_id`.

    A cut is enforced at both ends. Loss, delay, bandwidth and duplication are decided once per message: by
    the sending node, or, where the other end is a client, by the node.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    from_id: str
    to_id: str
    messages: Literal["all", "requests", "replies"] = "all"
    """Requests only: the handler never runs. Replies only: it runs, and its effects stay."""
    cut: bool = False
    """Nothing passes."""
    drop: Probability = 0.0
    """Probability that a message is lost."""
    duplicate: Probability = 0.0
    """Probability that a message arrives twice."""
    late_ms: Milliseconds = 0.0
    """Uniform additional delay of the second copy in [0, late_ms): an old message, perhaps of an earlier term. Of a
    client's requests the copies arrive together all the same."""
    delay_ms: Milliseconds = 0.0
    """Constant delay."""
    jitter_ms: Milliseconds = 0.0
    """Uniform additional delay in [0, jitter_ms); it reorders messages."""
    tail_ms: Milliseconds = 0.0
    """Heavy-tailed additional delay (Pareto, index 1): above tail_ms for one message in 100, above 10 tail_ms,
    where it ends, for one in 1000."""
    bytes_per_s: BytesPerSecond = 0
    """Bandwidth; 0 is no limit. Between nodes, three flows share it evenly, as TCP connections would: votes and
    heartbeats, answers, and entries, large ones in parts. Nothing is lost for lack of it: what it cannot take yet
    waits at the sender (transport.queue_bytes). From and to a client, messages go through one after the other; what
    would have to wait longer than runtime.faults.QUEUE_S for those before it is lost. A message counts with its
    encoded bytes, without what frames it (batch, gRPC, TCP)."""
