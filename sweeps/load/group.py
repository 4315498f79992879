"""Load from several hosts that looks like load from one.

On each chosen host lives a load generator (generator.py), in an actor of its own. Clients and rate are divided among
them. What they recorded comes back as arrays, is put on the driver's clock, and is merged.

A host may be lost, and the operations of its generator with it. The others go on, and so does the measurement; but
nobody knows what the lost clients wrote and saw, so that the history of the others proves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from orchestration import InfrastructureError, PlacementRefused
from orchestration.face import Backend, Host, Worker
from orchestration.plan import OnHosts
from orchestration.ray_cluster.placement import host_named
from sweeps.load.generator import READ_TOGETHER, LoadGenerator, LoadResult
from sweeps.load.recorder import Snapshot
from sweeps.load.results import Generator, GroupResult
from sweeps.spec.parameters import LoadSettings, Parameters

T = TypeVar("T")

MOST_GENERATORS = 256
"""A byte of each operation's row names its generator."""
_CALL_S, _RESULT_S = 30.0, 120.0
_LOOK_S, _HASTE_S = 2.0, 0.5
"""For calls that come again: whoever waits for them must not wait for a host that was cut off. The second one is for
what it could not be told the last time."""


def generator_hosts(
    on: str | OnHosts, hosts: Sequence[Host], node_hosts: Sequence[Host], leader_host: Host
) -> tuple[Host | None, ...]:
    """The host of each load generator; None: the driver's. `hosts` are all there are, `node_hosts` those of the nodes,
    one after the other. Raises PlacementRefused."""
    if on == "driver":
        return (None,)
    with_node = {host.host_id: host for host in node_hosts}
    match on:
        case "leader":
            chosen = [leader_host]
        case "every_host":
            chosen = sorted(with_node.values(), key=lambda host: host.address)
        case "own_host":
            chosen = [host for host in hosts if not host.is_driver and host.host_id not in with_node]
            if not chosen:
                there = ", ".join(host.address for host in hosts)
                raise PlacementRefused(
                    f"load.on: own_host needs a host that has no node and is not the driver's; the {len(node_hosts)} "
                    f"nodes are on {len(with_node)} of {len(hosts)} hosts: {there}"
                )
        case OnHosts():
            chosen = [host_named(name, hosts, "load.on") for name in on.hosts]
        case _:
            raise AssertionError(on)
    if len(chosen) > MOST_GENERATORS:
        raise PlacementRefused(f"load.on: {len(chosen)} hosts are too many, at most {MOST_GENERATORS} can have load")
    return tuple(chosen)


def divided(load: LoadSettings, count: int) -> list[LoadSettings]:
    """The load in `count` parts, or in as many as there are clients, if these are fewer. Clients are divided as evenly
    as possible, the first parts have one more; the rate is divided in proportion to them."""
    count = min(count, load.clients)
    each, more = divmod(load.clients, count)
    shares = [each + 1] * more + [each] * (count - more)
    return [
        load.model_copy(update={"clients": share, "rate": load.rate and load.rate * share / load.clients})
        for share in shares
    ]


def seed_of(seed: int, number: int) -> int:
    """The seed of a generator, from that of the cell; the first has the cell's own, as the only one does."""
    if not number:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}:generator {number}".encode()).digest()[:6], "big")


class _Member:
    """A generator as the group sees it."""

    def __init__(self, number: int, load: LoadSettings, first_client: int, host: Host | None) -> None:
        self.number, self.load, self.first_client, self.host = number, load, first_client, host
        self.worker: Worker | None = None
        self.lost: str | None = None
        self.stale = False
        """It could not be told the latest addresses."""
        self.seen = Snapshot()
        """How it stood when it was last asked."""

    async def call(self, method: str, *args: Any, timeout_s: float = _CALL_S) -> Any:
        """Raises InfrastructureError, and what the method raises."""
        assert self.worker is not None
        return await self.worker.call(method, *args, timeout_s=timeout_s)

    async def until_lost(self, work: Awaitable[T]) -> T | None:
        """What comes of the work; None when the generator is, or now gets, lost."""
        try:
            return await work
        except InfrastructureError as error:
            self.lost = self.lost or str(error).splitlines()[0]
            return None


class LoadGroup:
    """The load generators of a cell, with the face of one.

    Usage: `open`, then as a LoadGenerator: `connect`, `start`, `snapshot` as often as one likes, `stop`, `drain`,
    `read_back`, `result`, `close`. Raises InfrastructureError until the load has begun; from then on a generator that
    does not answer is left out, and is lost once its operations cannot be had.
    """

    def __init__(self, backend: Backend, parameters: Parameters, seed: int, hosts: Sequence[Host | None]) -> None:
        """One generator on each of these hosts, of the backend's (None: the driver's)."""
        self._backend, self._parameters, self._seed = backend, parameters, seed
        shares = divided(parameters.load, len(hosts))
        first = np.cumsum([0, *(share.clients for share in shares)]).tolist()
        self._members = [
            _Member(number, share, first[number], host)
            for number, (share, host) in enumerate(zip(shares, hosts, strict=False))
        ]
        self.left_out = len(hosts) - len(shares)
        """Hosts without a generator, because there are not so many clients."""
        self._addresses: dict[str, str] = {}

    @property
    def workers(self) -> list[Worker]:
        """That hold the generators, while they are open."""
        return [member.worker for member in self._members if member.worker is not None]

    @property
    def lost(self) -> list[str]:
        """Why generators were lost, a line for each that was."""
        return [f"the load generator on {each.host} is lost: {each.lost}" for each in self._members if each.lost]

    async def open(self) -> None:
        """Have the generators made."""
        await self._each(self._make)

    async def _make(self, member: _Member) -> None:
        parameters = self._parameters
        member.worker = await self._backend.host(
            LoadGenerator,
            member.load,
            parameters.client,
            parameters.transport,
            on=member.host,
            seed=seed_of(self._seed, member.number),
            longest_value=parameters.limits.value_bytes,
            first_client=member.first_client,
            **self._backend.load_options,
        )
        member.host = member.worker.host

    async def connect(self, addresses: Mapping[str, str], timeout_s: float) -> None:
        """Open a session per client. Raises OperationError when the cluster grants none in time; then it may be called
        again."""
        self._addresses = dict(addresses)
        await self._each(lambda member: member.call("connect", self._addresses, timeout_s=timeout_s))

    async def update_addresses(self, addresses: Mapping[str, str]) -> None:
        """A node has a new address. Who cannot be told now is told at the next look."""
        self._addresses = dict(addresses)
        await self._each(self._tell)

    async def _tell(self, member: _Member) -> None:
        patience_s, member.stale = _HASTE_S if member.stale else _LOOK_S, True
        with contextlib.suppress(InfrastructureError):
            await member.call("update_addresses", self._addresses, timeout_s=patience_s)
            member.stale = False

    async def start(self) -> None:
        """Begin, all at about the same time."""
        count = len(self._members)
        await self._each(lambda member: member.call("start", member.number / count))

    async def snapshot(self) -> Snapshot:
        """How the load stands; of those that do not answer, how it stood."""

        async def look(member: _Member) -> Snapshot:
            try:
                if member.stale:
                    await self._tell(member)
                member.seen = await member.call("snapshot", timeout_s=_LOOK_S)
            except InfrastructureError:
                member.seen = replace(member.seen, per_second=0.0, recent=Snapshot().recent)
            return member.seen

        return Snapshot.together(await self._each(look))

    async def stop(self) -> None:
        """Send nothing new. Who cannot be told goes on until it is drained."""

        async def stop(member: _Member) -> None:
            with contextlib.suppress(InfrastructureError):
                await member.call("stop", timeout_s=_LOOK_S)

        await self._each(stop)

    async def drain(self, timeout_s: float) -> int:
        """As of a LoadGenerator; the sum."""

        async def drain(member: _Member) -> int:
            return int(await member.call("drain", timeout_s, timeout_s=timeout_s + _CALL_S))

        return sum(each or 0 for each in await self._each(lambda member: member.until_lost(drain(member))))

    async def read_back(self, timeout_s: float) -> None:
        """After `drain`: have each key read once that an acknowledged write has changed, whoever wrote it, as far as it
        can be done within `timeout_s` seconds."""

        async def written(member: _Member) -> Any:
            return await member.call("written")

        found = await self._each(lambda member: member.until_lost(written(member)))
        keys = np.unique(np.concatenate([np.empty(0, np.uint32), *(each for each in found if each is not None)]))
        readers = [member for member in self._members if not member.lost]

        async def read(member: _Member) -> None:
            if member in readers:
                share = keys[readers.index(member) :: len(readers)]
                first = self._parameters.load.clients + member.number * READ_TOGETHER
                most_s = timeout_s + _CALL_S
                await member.call("read_back", self._addresses, share, first, timeout_s, timeout_s=most_s)

        await self._each(lambda member: member.until_lost(read(member)))

    async def result(self) -> GroupResult:
        """Everything that was recorded, after `drain`. The clocks are compared a last time: rows that could be wrong by
        nobody knows how much are lost."""

        async def fetched(member: _Member) -> LoadResult:
            assert member.worker is not None
            rows: LoadResult = await member.call("result", timeout_s=_RESULT_S)
            await member.worker.compare_clocks()
            return rows

        async def result(member: _Member) -> Generator:
            assert member.worker is not None
            found = None if member.lost else await member.until_lost(fetched(member))
            return Generator(member.worker.host, member.load.clients, member.worker.clock, found, member.lost)

        return GroupResult(tuple(await self._each(result)))

    async def close(self) -> None:
        """End all of them."""

        async def close(member: _Member) -> None:
            worker, member.worker = member.worker, None
            if worker is not None:
                await worker.close()

        await self._each(close)

    async def _each(self, work: Callable[[_Member], Awaitable[T]]) -> list[T]:
        """The work of all members; when it fails for one, that is raised once all have ended."""
        outcomes = await asyncio.gather(*(work(member) for member in self._members), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return outcomes  # type: ignore[return-value]
