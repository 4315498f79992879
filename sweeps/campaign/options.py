"""The options of a seed: all settings of a simulated cluster, its clients and its faults, drawn from the seed.

This is swarm testing: each seed omits most faults and exaggerates others, because many bugs show only without
interference from other faults. The profile (profiles.py) then adapts the options to its situation.
"""

from __future__ import annotations

import random
from typing import Annotated, Any

from pydantic import Field

from chaos.history import Function
from orchestration.sim_cluster.settings import SimSettings
from raft_actor_node.config import CallForm, ClientSettings, RaftSettings, Section
from raft_actor_node.links import Probability
from raft_actor_node.units import Duration, Range
from sweeps.campaign.profiles import PROFILES


class CampaignLoad(Section):
    """The load of the clients."""

    call: CallForm = "stream"
    """Form of the calls: a stream of batches, or unary calls."""
    operations: Annotated[int, Field(ge=40)] = 200
    """Planned operations, including those of the calm phase."""
    engines: Annotated[int, Field(ge=1)] = 2
    """Number of clients that know all nodes."""
    sessions: Annotated[int, Field(ge=1)] = 3
    """Sessions of each of these clients."""
    pinned: Annotated[int, Field(ge=0)] = 1
    """Sessions per node that send only to this node, and only while this node believes that it leads."""
    anonymous: Probability = 0.0
    """Share of operations without a session."""
    keys: Annotated[int, Field(ge=1)] = 2
    mix: dict[Function, float] = Field(default={"put": 1.0, "get": 1.0})
    """Operation kinds and their weights."""
    pinned_mix: dict[Function, float] = Field(default={"get": 1.0})
    """Operation kinds of the pinned sessions, and their weights."""


class Options(Section):
    """Everything besides the seed that determines the run of a seed."""

    seed: int
    profile: str
    nodes: Annotated[int, Field(ge=1, le=7)]
    raft: RaftSettings
    sim: SimSettings
    client: ClientSettings
    load: CampaignLoad
    length: Duration
    """Virtual time under faults, over which the operations are spread."""

    def short(self) -> str:
        """Return what differs from the defaults, in one line."""
        parts = [f"profile={self.profile}", f"nodes={self.nodes}"]
        for section in ("raft", "sim", "client", "load"):
            settings: Section = getattr(self, section)
            changed = settings.model_dump(mode="json", exclude_defaults=True)
            parts += [f"{section}.{name}={_shown(value)}" for name, value in changed.items()]
        return " ".join(parts)


def draw(seed: int, profile: str | None = None) -> Options:
    """Draw the options of a seed; the same seed always gets the same options.

    `profile` replaces the profile that would be drawn.
    """
    rng = random.Random(f"campaign/{seed}")  # a seed of text does not depend on PYTHONHASHSEED
    drawn = _profile(seed)
    name = profile if profile is not None else drawn
    draft = _draft(rng)
    chosen = PROFILES[name]
    draft["nodes"] = rng.choice(chosen.nodes)
    chosen.tune(draft, rng)
    # Drawn from a separate random stream: the other options stay as they were before this option existed.
    draft["load"]["call"] = random.Random(f"call/{seed}").choice(("stream", "stream", "unary"))
    return Options.model_validate({"seed": seed, "profile": name, **draft})


def _profile(seed: int) -> str:
    """Return the profile of a seed. Profiles take turns in shuffled order, so a short campaign misses none."""
    turn, position = divmod(seed, len(PROFILES))
    order = list(PROFILES)
    random.Random(f"turn/{turn}").shuffle(order)
    return order[position]


def _draft(rng: random.Random) -> dict[str, Any]:
    low = rng.choice((0.080, 0.100, 0.150))
    high = low * rng.choice((1.2, 1.5, 2.0, 2.0, 3.0))
    raft = {
        "election_timeout": Range(low, high),
        "heartbeat_interval": low / rng.choice((2.0, 2.5, 4.0)),
        "rpc_timeout": low * rng.choice((0.2, 0.4, 0.8)),
        "pre_vote": rng.random() < 0.6,
        "check_quorum": rng.random() < 0.6,
        "max_batch_entries": rng.choice((1, 1, 2, 4, 1024)),
        "max_inflight": rng.choice((1, 1, 2, 4, 64)),
        "max_inflight_bytes": rng.choice((32, 256, 1 << 20)),
    }
    client = {
        "rpc_timeout": high * rng.choice((0.2, 0.5, 1.0, 2.0)),
        "retry_budget": high * rng.choice((1.0, 4.0, 10.0)),
        "retry_backoff": Range(0.002, high * rng.choice((0.1, 0.5))),
    }
    kinds = ("put", "get", "append", "cas", "delete")
    mix = {kind: rng.choice((0.0, 1.0, 1.0, 3.0)) for kind in kinds}
    mix["get"], mix["append"] = max(mix["get"], 1.0), max(mix["append"], 0.5)
    load = {
        "engines": rng.choice((1, 2, 3)),
        "sessions": rng.choice((1, 2, 4)),
        "pinned": rng.choice((0, 1, 1, 2)),
        "anonymous": rng.choice((0.0, 0.0, 0.1)),
        "keys": rng.choice((1, 2, 2, 4)),
        "mix": {kind: weight for kind, weight in mix.items() if weight},
        "pinned_mix": {"get": 3.0, **({"append": 1.0} if rng.random() < 0.4 else {})},
    }
    return {"raft": raft, "sim": _world(rng, low, high), "client": client, "load": load, "length": 30 * high}


def _world(rng: random.Random, low: float, high: float) -> dict[str, Any]:
    """Draw network, disks and clocks. Each fault is omitted in about half of the seeds."""

    def sometimes(*values: float) -> float:
        return rng.choice(values) if rng.random() < 0.45 else 0.0

    quickest = rng.choice((0.0001, 0.0005, low / 50))
    fastest_disk = rng.choice((0.0001, 0.0005, low / 60))
    spread = sometimes(0.05, 0.1, 0.2)
    return {
        "delay": Range(quickest, quickest * rng.choice((1.0, 2.0, 5.0))),
        "tail": sometimes(0.01, 0.05, 0.1),
        "tail_delay": Range(0.1 * low, high * rng.choice((0.5, 1.0, 3.0))),
        "loss": sometimes(0.01, 0.05, 0.2),
        "duplicate": sometimes(0.02, 0.1, 0.4),
        "replay": sometimes(0.02, 0.1, 0.2),
        "replay_after": Range(0.5 * low, high * rng.choice((2.0, 10.0))),
        "fsync": Range(fastest_disk, fastest_disk * rng.choice((1.0, 3.0, 10.0))),
        "fsync_tail": sometimes(0.02, 0.1),
        "fsync_tail_latency": Range(0.1 * low, high),
        "clock_rate": (1 - spread, 1 + spread),
        "stalls_per_s": sometimes(0.5, 2.0),
        "stall": Range(0.1 * low, high * rng.choice((0.5, 2.0))),
        "boot": Range(0.001, rng.choice((0.002, 0.005, high))),
        "power_loss": sometimes(0.2, 0.5, 1.0),
        "disk_failure": sometimes(0.001, 0.005),
        "whole_sectors": rng.random() < 0.7,
        "boot_crash": sometimes(0.1, 0.4),
        "wire": rng.random() < 0.1,
    }


def _shown(value: Any) -> str:
    return str(value).replace(" ", "").replace("'", "")
