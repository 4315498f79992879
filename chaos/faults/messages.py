"""Faults of the messages of some nodes: cut, lost, late, slow or duplicated."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from random import Random
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from chaos.faults.base import Nodes, Proof, drawn_nodes, format_moment
from chaos.faults.link_fault import CUT, LinkFault
from chaos.shapes import Between, Direction, touching
from raft_actor_node.links import LinkRule, Probability
from raft_actor_node.units import Duration, Size, format_size

DELAYED = (Proof("delayed", "message", "delayed"),)
"""Proof that messages were delayed."""


class MessageFault(LinkFault):
    """Base of the faults that affect the messages of some nodes."""

    disables: ClassVar[bool] = False

    between: Between = "nodes"
    """Links between nodes, between nodes and clients, or both."""
    direction: Direction = "both"
    """Messages to the nodes, from them, or both."""
    messages: Literal["all", "requests", "replies"] = "all"
    """Which messages are affected, of calls in either direction: all, only requests, or only replies."""

    @abstractmethod
    def touch(self) -> dict[str, Any]:
        """Return what happens to a message, as fields of a LinkRule."""

    @abstractmethod
    def how(self) -> list[str]:
        """Return the words for the effect, which `describe` puts before the nodes."""

    @property
    def among_nodes(self) -> bool:
        """Whether messages of clients are unaffected."""
        return self.between == "nodes"

    def rules(self, nodes: Sequence[str]) -> list[LinkRule]:
        """Return a rule for each link of the fault's nodes."""
        touch = self.touch()
        return [
            LinkRule(from_id=a, to_id=b, messages=self.messages, **touch)
            for a, b in touching(self.ids, nodes, self.direction, self.between)
        ]

    def describe(self) -> str:
        """Return in words the effect, the nodes, and which of their messages are affected."""
        where = self.where_in_words()
        words = self.how() + ([] if self.nodes_key == "nodes" and where == "all" else [where])
        words += [self.direction] if self.direction != "both" else []
        words += [{"nodes": "", "clients": "from clients", "all": "and clients"}[self.between]]
        words += [self.messages] if self.messages != "all" else []
        return " ".join(word for word in words if word)


class _Cut(MessageFault):
    takes = "NODES"
    proof = CUT
    ends_leadership = "sometimes"

    def touch(self) -> dict[str, Any]:
        """Let nothing pass."""
        return {"cut": True}

    def how(self) -> list[str]:
        """Return no words, because the name of the kind says enough."""
        return []


class Isolate(_Cut):
    """Cut each of the nodes off from all others."""

    kind = nodes_key = "isolate"
    happens = "each of the nodes is cut off from all others"
    disables: ClassVar[bool] = True

    isolate: Nodes

    @classmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        """Isolate the leader, a node, or a minority."""
        return cls(isolate=drawn_nodes(nodes, rng))


class OneWay(_Cut):
    """Cut one direction: the nodes receive nothing (in), or none of their messages arrive (out)."""

    kind = nodes_key = "one_way"
    happens = "nothing reaches the nodes (in) or leaves them (out)"

    one_way: Nodes
    direction: Literal["in", "out"] = Field()

    @classmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        """Cut either direction of the leader, a node, or a minority."""
        return cls.model_validate({"one_way": drawn_nodes(nodes, rng), "direction": rng.choice(["in", "out"])})


class _OnNodes(MessageFault):
    nodes_key = "nodes"

    nodes: Nodes = "all"
    """The nodes whose messages are affected."""


class Drop(_OnNodes):
    """Lose messages."""

    kind = "drop"
    takes = "PROBABILITY"
    happens = "messages are lost"
    proof = (Proof("dropped", "message", "dropped"),)
    ends_leadership = "never"

    drop: Probability

    @classmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        """Lose between a twentieth and half of all messages."""
        return cls(drop=round(rng.uniform(0.05, 0.5), 2))

    def how(self) -> list[str]:
        """Return the probability."""
        return [f"{self.drop:g}"]

    def touch(self) -> dict[str, Any]:
        """Lose messages, each independently."""
        return {"drop": self.drop}


class Delay(_OnNodes):
    """Delay messages."""

    kind = "delay"
    takes = "DURATION"
    happens = "messages arrive late; jitter or tail reorders them"
    proof = DELAYED
    ends_leadership = "never"

    delay: Annotated[Duration, Field(le=3600)]
    jitter: Annotated[Duration, Field(le=3600)] = 0.0
    """Upper bound of a uniform additional delay; it reorders messages."""
    tail: Annotated[Duration, Field(le=360)] = 0.0
    """Heavy tail: one message in a hundred is delayed by more than this, one in a thousand by ten times as much."""

    @classmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        """Delay all messages by 5 to 100 ms, with jitter."""
        return cls.model_validate({"delay": f"{rng.randint(5, 100)}ms", "jitter": f"{rng.randint(0, 50)}ms"})

    def how(self) -> list[str]:
        """Return the delay, jitter and tail."""
        words = [format_moment(self.delay)]
        words += [f"jitter {format_moment(self.jitter)}"] if self.jitter else []
        return words + ([f"tail {format_moment(self.tail)}"] if self.tail else [])

    def touch(self) -> dict[str, Any]:
        """Delay messages by a constant, jitter and tail."""
        parts = {"delay": self.delay, "jitter": self.jitter, "tail": self.tail}
        return {f"{name}_ms": round(seconds * 1e3, 6) for name, seconds in parts.items()}


class Bandwidth(_OnNodes):
    """Limit the bytes per second of each link in each direction."""

    kind = "bandwidth"
    takes = "SIZE"
    happens = "bytes per second; heartbeats and entries share them"
    terms: ClassVar = {
        "SIZE": "bytes per second (64KiB) of each link in each direction; a message counts its encoded bytes without "
        "framing. Between nodes, heartbeats, replies and entries share them evenly; messages wait at the sender and "
        "none is lost. On a link with a client, messages pass one after the other; a message that would wait for more "
        "than 1 s is lost",
    }
    proof = DELAYED
    ends_leadership = "never"

    bandwidth: Annotated[Size, Field(ge=1, le=2**39)]
    """Bytes per second, of each link in each direction."""

    @classmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        """Limit all links to 4, 16 or 64 KiB/s."""
        return cls.model_validate({"bandwidth": f"{rng.choice([4, 16, 64])}KiB"})

    def how(self) -> list[str]:
        """Return the bytes per second."""
        return [str(format_size(self.bandwidth))]

    def touch(self) -> dict[str, Any]:
        """Delay a message until the link is free."""
        return {"bytes_per_s": self.bandwidth}


class Duplicate(_OnNodes):
    """Deliver messages twice."""

    kind = "duplicate"
    takes = "PROBABILITY"
    happens = "messages arrive twice"
    terms: ClassVar = {
        "late": "a duration: upper bound of the additional delay of the copy, which may arrive in a later term; "
        "between nodes only, because a late copy of a client's request could take effect after the client was refused",
    }
    proof = (Proof("duplicated", "message", "duplicated"),)
    ends_leadership = "never"

    duplicate: Probability
    late: Annotated[Duration, Field(le=3600)] = 0.0
    """Upper bound of a uniform additional delay of the copy."""

    @model_validator(mode="after")
    def _late_between_nodes(self) -> Duplicate:
        if self.late and self.between != "nodes":
            raise ValueError(
                f"late: only with between: nodes, not {self.between}; a late copy may take effect after a refusal"
            )
        return self

    @classmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        """Duplicate between a twentieth and half of all messages, some with late copies."""
        share = round(rng.uniform(0.05, 0.5), 2)
        return cls.model_validate({"duplicate": share, "late": f"{rng.choice([0, 0, 1, 5])}s"})

    def how(self) -> list[str]:
        """Return the probability, and how late the copy is."""
        return [f"{self.duplicate:g}"] + ([f"late {format_moment(self.late)}"] if self.late else [])

    def touch(self) -> dict[str, Any]:
        """Duplicate messages, each independently."""
        return {"duplicate": self.duplicate, "late_ms": round(self.late * 1e3, 6)}
