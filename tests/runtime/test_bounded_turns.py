"""Observers and malformed messages cost a node a bounded part of a turn and of the disk."""

from __future__ import annotations

import asyncio
import io
import logging
import random
from bisect import bisect_right
from collections.abc import Iterator

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_actor_node.core import TraceEvent
from raft_actor_node.kv.commands import Kind, encode
from raft_actor_node.kv.store import MARK_BYTES, Store
from raft_actor_node.pb.kv_pb2 import GET, PUT, Operation, OperationBatch
from raft_actor_node.runtime import batches
from raft_actor_node.runtime.budget import TURN_OPERATIONS
from raft_actor_node.runtime.logs import LINES, WINDOW_S, RepeatFilter
from raft_actor_node.runtime.samples import KEPT, RECENT, Samples
from raft_actor_node.runtime.tracer import REMEMBERED, Tracer


@pytest.mark.parametrize("count", [0, 1, RECENT, RECENT + 7, KEPT - 1, KEPT, KEPT + 100, 2 * KEPT + RECENT // 2])
def test_percentiles_are_those_of_the_last_samples_and_since_finds_by_time(count: int) -> None:
    clock, told = [0], random.Random(count)
    samples = Samples(lambda: clock[0])
    taken = []
    for _ in range(count):
        clock[0] += told.randrange(3)
        taken.append((clock[0], told.randrange(10**6)))
        samples.add_ns(1000 * taken[-1][1])
    recent = sorted(us for _, us in taken[-RECENT:])
    for share in (0.5, 0.9, 0.99, 1.0):
        # Nearest rank: the smallest sample that is not exceeded by this share of all samples.
        expected = next((us for us in recent if bisect_right(recent, us) >= share * len(recent)), 0)
        assert samples.percentiles(share) == [float(expected)]
    for since in (0, clock[0] // 2, clock[0] - 5, clock[0], clock[0] + 1):
        assert samples.since(since) == [us for at, us in taken[-KEPT:] if at >= since]


async def test_a_follower_of_the_trace_sees_each_event_once_and_no_old_one_again() -> None:
    tracer, seen = Tracer("n1", None), list[int]()

    async def follow(after: int) -> None:
        async for number, _, event in tracer.events(after, follow=True):
            assert event.index == number
            seen.append(number)

    def record(first: int, end: int) -> None:
        tracer.record([TraceEvent("commit", 1, index) for index in range(first, end)])

    record(1, 11)
    task = asyncio.create_task(follow(7))
    while seen != [8, 9, 10]:  # noqa: ASYNC110 - the follower is what the test is about
        await asyncio.sleep(0)
    record(11, 13)
    record(13, 14)
    while seen[-1] < 13:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert seen == list(range(8, 14))
    task.cancel()
    record(14, REMEMBERED + 100)
    assert [number async for number, _, _ in tracer.events(0, follow=False)] == list(range(100, REMEMBERED + 100))


def test_the_state_is_hashed_in_small_steps_as_it_was_at_the_first() -> None:
    store = Store(value_bytes=1 << 20)
    payloads = [encode(Kind.PUT, b"%d" % i, b"v" * (MARK_BYTES // 10)) for i in range(49)]
    store.apply(1, [1] * 50, [encode(Kind.OPEN_SESSION), *payloads])
    whole = store.state_hash()
    hashing, steps = store.hash_state(), list[None]()

    def hash_meanwhile() -> Iterator[None]:
        digests.append((yield from hashing))

    digests = list[bytes]()
    for step in hash_meanwhile():
        if not steps:
            store.apply(51, [1], [encode(Kind.PUT, b"3", b"another", session_id=1, sequence=1)])
        steps.append(step)
    assert digests == [whole], "what is applied meanwhile makes no difference"
    assert len(steps) > 5, "about 1 MiB each"
    assert store.state_hash() != whole


# ------------------------------------------------------------------------------ large messages


def test_a_message_of_names_alone_is_taken_apart_like_any_other() -> None:
    """A name takes two bytes and carries nothing: a message of 8 MiB has four million names."""
    name = b"\x0a\x00"
    parts = batches.parts(name * 40 * TURN_OPERATIONS)
    assert sum(1 for _ in parts) == 40


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=40), st.text(max_size=5), st.integers(min_value=20, max_value=200))
def test_the_parts_of_a_message_are_the_message(keys: list[bytes], client: str, room: int) -> None:
    batch = OperationBatch(client_id=client, operations=[Operation(id=i, kind=GET, key=k) for i, k in enumerate(keys)])
    message = batch.SerializeToString()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "PART_BYTES", room)
        parts = list(batches.parts(message))
    assert [operation for part in parts for operation in part.operations] == list(batch.operations)
    assert {part.client_id for part in parts} == {client}
    for part in parts:
        assert len(part.operations) <= 1 or sum(map(Operation.ByteSize, part.operations)) <= room


def test_a_large_message_is_parsed_part_by_part() -> None:
    message = OperationBatch(operations=[Operation(kind=GET, key=b"k")] * 200_000).SerializeToString()
    counts = [len(part.operations) for part in batches.parts(message)]
    assert sum(counts) == 200_000
    assert max(counts) <= TURN_OPERATIONS


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 299))
def test_a_malformed_large_message_is_refused_and_nothing_else_happens(noise: bytes, at: int) -> None:
    whole = OperationBatch(client_id="c", operations=[Operation(id=i, kind=PUT, key=b"k") for i in range(30)])
    message = bytearray(whole.SerializeToString())
    message[at : at + len(noise)] = noise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "PART_BYTES", 20)
        try:
            parts = list(batches.parts(bytes(message)))
        except DecodeError:
            return
    assert all(isinstance(part, OperationBatch) for part in parts)


# ------------------------------------------------------------------------------ logs


def test_a_line_that_repeats_is_written_a_few_times_and_then_counted() -> None:
    now, stream = [0.0], io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RepeatFilter(lambda: now[0]))
    logger = logging.Logger("repeats")
    logger.addHandler(handler)

    def complain() -> None:
        try:
            raise ValueError("malformed")
        except ValueError:
            logger.exception("message %d", 7)

    for _ in range(1000):
        complain()
    assert stream.getvalue().count("Traceback") == LINES
    logger.warning("another")
    assert "another" in stream.getvalue(), "of another place"
    for _ in range(100):
        logger.critical("the last word")
    assert stream.getvalue().count("the last word") == 100
    now[0] += WINDOW_S
    complain()
    assert f"message 7 (and {1000 - LINES} more like it before)" in stream.getvalue()
    assert stream.getvalue().count("Traceback") == LINES + 1
