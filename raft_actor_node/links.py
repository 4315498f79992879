"""Link faults as data: what happens to messages from one node to another.

A link is directed. Its ends are node ids, not addresses, so a rule survives a restart with a new port. The runtime
enforces the rules (runtime/faults.py); chaos/shapes.py makes rules from partitions.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ANY_NODE = "*"
"""End of a link that stands for every node of the cluster."""
CLIENTS = "clients"
"""End of a link that stands for every client."""

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Milliseconds = Annotated[float, Field(ge=0.0, le=3_600_000.0)]
BytesPerSecond = Annotated[int, Field(ge=0, le=10**12)]


class LinkRule(BaseModel):
    """A fault on the messages from `from_id` to `to_id`.

    Both ends enforce a cut. Loss, delay, bandwidth and duplication are decided once per message: by the sending node,
    or, on a link with a client, by the node.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    from_id: str
    to_id: str
    messages: Literal["all", "requests", "replies"] = "all"
    """Messages affected. A lost request never runs; the effects of a request stay even if its reply is lost."""
    cut: bool = False
    """Nothing passes."""
    drop: Probability = 0.0
    """Probability that a message is lost."""
    duplicate: Probability = 0.0
    """Probability that a message arrives twice."""
    late_ms: Milliseconds = 0.0
    """Additional delay of the second copy, uniform in [0, late_ms): an old message, perhaps of an earlier term. Both
    copies of a client's request arrive together regardless."""
    delay_ms: Milliseconds = 0.0
    """Constant delay."""
    jitter_ms: Milliseconds = 0.0
    """Additional delay, uniform in [0, jitter_ms); it reorders messages."""
    tail_ms: Milliseconds = 0.0
    """Heavy-tailed additional delay (Pareto, index 1): above tail_ms for 1 message in 100; 1 in 1000 gets the maximum
    of 10 tail_ms."""
    bytes_per_s: BytesPerSecond = 0
    """Bandwidth; 0 is no limit. Between nodes, three flows share it evenly, as TCP connections would: votes and
    heartbeats, answers, and entries (large ones in parts). Messages beyond it are not lost; they wait at the sender
    (transport.queue_bytes). To and from a client, messages pass in sequence; a message that would wait longer than
    runtime.faults.QUEUE_S is lost. A message counts with its encoded bytes, without framing (batch, gRPC, TCP)."""
