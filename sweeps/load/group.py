"""A load on several hosts, with the interface of a single generator.

Each chosen host runs a load generator (generator.py) in its own actor. Clients and rate are divided among the
generators. Their records return as arrays, which are converted to the driver's clock and merged.

If a host is lost, the operations of its generator are lost too. The other generators and the measurement continue.
However, the history of the remaining clients proves nothing, because the operations of the lost clients are unknown.
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
from orchestration.placement import host_named
from orchestration.plan import OnHosts
from sweeps.load.generator import READ_TOGETHER, LoadGenerator, LoadResult
from sweeps.load.recorder import LoadSnapshot
from sweeps.load.results import Generator, GroupResult
from sweeps.spec.parameters import LoadSettings, Parameters

T = TypeVar("T")

MOST_GENERATORS = 256
"""Maximum number of generators: one byte of each operation's row identifies its generator."""
_CALL_S, _RESULT_S = 30.0, 120.0
# Timeouts of repeated calls, short because an unreachable host must not delay the caller. _HASTE_S applies to a
# generator that missed the previous update of addresses.
_LOOK_S, _HASTE_S = 2.0, 0.5


def generator_hosts(
    on: str | OnHosts, hosts: Sequence[Host], node_hosts: Sequence[Host], leader_host: Host
) -> tuple[Host | None, ...]:
    """Return the host of each load generator; None is the driver's.

    `hosts` are all hosts, `node_hosts` those of the nodes, one entry per node. Raises PlacementRefused.
    """
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
    """Divide the load into `count` parts, but at most one part per client.

    Clients are divided as evenly as possible; the first parts get one more. The rate is divided in proportion.
    """
    count = min(count, load.clients)
    each, more = divmod(load.clients, count)
    shares = [each + 1] * more + [each] * (count - more)
    return [
        load.model_copy(update={"clients": share, "rate": load.rate and load.rate * share / load.clients})
        for share in shares
    ]


def seed_of(seed: int, number: int) -> int:
    """Derive the seed of a generator from the seed of the cell. The first generator uses the cell's seed unchanged."""
    if not number:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}:generator {number}".encode()).digest()[:6], "big")


class _Member:
    """The group's view of one generator."""

    def __init__(self, number: int, load: LoadSettings, first_client: int, host: Host | None) -> None:
        self.number, self.load, self.first_client, self.host = number, load, first_client, host
        self.worker: Worker | None = None
        self.lost: str | None = None
        self.stale = False
        """Whether the generator missed the last update of addresses."""
        self.seen = LoadSnapshot()
        """Its last snapshot."""

    async def call(self, method: str, *args: Any, timeout_s: float = _CALL_S) -> Any:
        """Call a method of the generator. Raises InfrastructureError, and the errors of the method."""
        assert self.worker is not None
        return await self.worker.call(method, *args, timeout_s=timeout_s)

    async def until_lost(self, work: Awaitable[T]) -> T | None:
        """Await `work` and return its result. On an InfrastructureError, mark the generator as lost and return None."""
        try:
            return await work
        except InfrastructureError as error:
            self.lost = self.lost or str(error).splitlines()[0]
            return None


class LoadGroup:
    """The load generators of a cell, with the interface of a single generator.

    Call `open`, then the methods of a LoadGenerator in the same order. Until `start` has returned, failures raise
    InfrastructureError. Afterwards the group skips a generator that does not respond. A generator that fails in
    `drain`, `read_back` or `result` is lost.
    """

    def __init__(self, backend: Backend, parameters: Parameters, seed: int, hosts: Sequence[Host | None]) -> None:
        """Plan one generator on each of these hosts of the backend; None is the driver's host."""
        self._backend, self._parameters, self._seed = backend, parameters, seed
        shares = divided(parameters.load, len(hosts))
        first = np.cumsum([0, *(share.clients for share in shares)]).tolist()
        self._members = [
            _Member(number, share, first[number], host)
            for number, (share, host) in enumerate(zip(shares, hosts, strict=False))
        ]
        self.left_out = len(hosts) - len(shares)
        """Number of hosts without a generator because there are fewer clients than hosts."""
        self._addresses: dict[str, str] = {}

    @property
    def workers(self) -> list[Worker]:
        """The workers that run the generators; empty unless the group is open."""
        return [member.worker for member in self._members if member.worker is not None]

    @property
    def lost(self) -> list[str]:
        """Why generators were lost, one line for each."""
        return [f"the load generator on {each.host} is lost: {each.lost}" for each in self._members if each.lost]

    async def open(self) -> None:
        """Create the generators."""
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
        """Open a session per client.

        Raises OperationError if the cluster opens no session in time; `connect` may then be called again.
        """
        self._addresses = dict(addresses)
        await self._each(lambda member: member.call("connect", self._addresses, timeout_s=timeout_s))

    async def update_addresses(self, addresses: Mapping[str, str]) -> None:
        """Send new addresses to the generators. An unreachable generator gets them at the next snapshot."""
        self._addresses = dict(addresses)
        await self._each(self._tell)

    async def _tell(self, member: _Member) -> None:
        patience_s, member.stale = _HASTE_S if member.stale else _LOOK_S, True
        with contextlib.suppress(InfrastructureError):
            await member.call("update_addresses", self._addresses, timeout_s=patience_s)
            member.stale = False

    async def start(self) -> None:
        """Begin the load on all generators, at about the same time."""
        count = len(self._members)
        await self._each(lambda member: member.call("start", member.number / count))

    async def snapshot(self) -> LoadSnapshot:
        """Return the progress of the load. A generator that does not respond contributes its last known state."""

        async def look(member: _Member) -> LoadSnapshot:
            try:
                if member.stale:
                    await self._tell(member)
                member.seen = await member.call("snapshot", timeout_s=_LOOK_S)
            except InfrastructureError:
                member.seen = replace(member.seen, per_second=0.0, recent=LoadSnapshot().recent)
            return member.seen

        return LoadSnapshot.together(await self._each(look))

    async def stop(self) -> None:
        """Submit no new operations. An unreachable generator continues until `drain` reaches it."""

        async def stop(member: _Member) -> None:
            with contextlib.suppress(InfrastructureError):
                await member.call("stop", timeout_s=_LOOK_S)

        await self._each(stop)

    async def drain(self, timeout_s: float) -> int:
        """Drain all generators; return the number of abandoned operations. See LoadGenerator.drain."""

        async def drain(member: _Member) -> int:
            return int(await member.call("drain", timeout_s, timeout_s=timeout_s + _CALL_S))

        return sum(each or 0 for each in await self._each(lambda member: member.until_lost(drain(member))))

    async def read_back(self, timeout_s: float) -> None:
        """Read once each key that an acknowledged write of any generator changed; stop after `timeout_s` seconds.

        Call it after `drain`.
        """

        async def written(member: _Member) -> Any:
            return await member.call("written")

        async def found_by(member: _Member) -> Any:
            return None if member.lost else await member.until_lost(written(member))

        found = await self._each(found_by)
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
        """Fetch everything that the generators recorded. Call it after `drain`.

        Compares the clock of each host a last time. If that fails, the rows of its generator are discarded, because
        their clock error is unknown.
        """

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
        """Close all generators."""

        async def close(member: _Member) -> None:
            worker, member.worker = member.worker, None
            if worker is not None:
                await worker.close()

        await self._each(close)

    async def _each(self, work: Callable[[_Member], Awaitable[T]]) -> list[T]:
        """Run `work` for all members and return the results. Once all have ended, raise the first failure, if any."""
        outcomes = await asyncio.gather(*(work(member) for member in self._members), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return outcomes  # type: ignore[return-value]
