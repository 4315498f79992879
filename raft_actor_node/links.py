"""Link faults as data: what happens to messages from one node to another.

A link is directed. Its ends are node ids, not addresses, so a rule survives a restart with a new port. The runtime
enforces the rules (runtime/faults.py); chaos/shapes.py makes rules from partitions.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ANY_NODE = "*"
"""Link end that matches every node of the cluster."""
CLIENTS = "clients"
"""Link end that matches every client."""

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Milliseconds = Annotated[float, Field(ge=0.0, le=3_600_000.0)]
BytesPerSecond = Annotated[int, Field(ge=0, le=10**12)]


class LinkRule(BaseModel):
    """A fault on the messages from `from_id` to `to_id`.

    Both ends enforce a cut. The sending node alone decides loss, delay, bandwidth and duplication, once per message. On
    a link with a client, the node decides them in both directions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    from_id: str
    to_id: str
    messages: Literal["all", "requests", "replies"] = "all"
    """Messages affected. If a request is lost, it never runs. If only its reply is lost, it still takes effect."""
    cut: bool = False
    """Discard all messages."""
    drop: Probability = 0.0
    """Probability that a message is lost."""
    duplicate: Probability = 0.0
    """Probability that a message arrives twice."""
    late_ms: Milliseconds = 0.0
    """Additional delay of the second copy of a duplicated message, uniform in [0, late_ms). The copy may thus arrive
    after its term has ended. For requests of clients it has no effect: their copies arrive together."""
    delay_ms: Milliseconds = 0.0
    """Constant delay."""
    jitter_ms: Milliseconds = 0.0
    """Additional delay, uniform in [0, jitter_ms). Jitter may reorder messages."""
    tail_ms: Milliseconds = 0.0
    """Heavy-tailed additional delay (Pareto, index 1). The delay exceeds tail_ms for 1 message in 100. For 1 message in
    1000, it has its maximum, 10 x tail_ms."""
    bytes_per_s: BytesPerSecond = 0
    """Bandwidth; 0: unlimited. The size of a message is its encoded bytes, without framing (batch, gRPC, TCP).

    Between nodes, three flows share the bandwidth evenly, as TCP connections would: votes and heartbeats, replies, and
    entries (large ones in parts). Excess messages are not lost; they wait at the sender (transport.queue_bytes).

    To and from a client, messages pass in sequence. A message that would wait longer than runtime.faults.QUEUE_S is
    lost."""
