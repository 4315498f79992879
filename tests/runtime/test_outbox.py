"""The messages that wait for a peer, what replaces them, and how a large message travels in parts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from raft_actor_node.config import NodeConfig, TransportSettings
from raft_actor_node.core import AppendEntries, AppendEntriesReply, Message, RequestVote
from raft_actor_node.kv.commands import encode
from raft_actor_node.kv.model import Kind
from raft_actor_node.links import LinkRule
from raft_actor_node.pb import raft_pb2 as pb
from raft_actor_node.runtime.codec import Fragment, decode_fragment, encode_fragment
from raft_actor_node.runtime.faults import LinkFaults
from raft_actor_node.runtime.mail import Mail
from raft_actor_node.runtime.outbox import CONTACT_S, FRAGMENT_BYTES, Assembler, Outbox, TransportCounters

LIMIT = 8 << 20


def outbox(**settings: int) -> Outbox:
    return Outbox(TransportSettings(**settings), TransportCounters(), lambda: None)


def heartbeat(sequence: int, prev: int = 5, term: int = 3) -> AppendEntries:
    return AppendEntries("n1", "n2", term, prev, 2, (), (), prev, sequence)


def entries(sequence: int, prev: int = 5, sizes: Sequence[int] = (10,), term: int = 3) -> AppendEntries:
    payloads = [encode(Kind.PUT, b"k%d" % i, bytes([sequence % 256]) * size) for i, size in enumerate(sizes)]
    return AppendEntries("n1", "n2", term, prev, 2, [term] * len(sizes), payloads, 5, sequence)


def ballot(sequence: int, *, pre_vote: bool = False) -> RequestVote:
    return RequestVote("n1", "n2", 3, 5, 2, pre_vote, sequence)


def all_of(box: Outbox) -> list[Message | Fragment]:
    taken = []
    while len(box):
        taken += box.take()
    return taken


def over_the_wire(fragment: Fragment) -> Fragment:
    request = pb.PeerRequest.FromString(encode_fragment(fragment).SerializeToString())
    return decode_fragment(request.fragment, fragment.head.from_id, fragment.head.to_id)


def parts(message: AppendEntries) -> list[Fragment]:
    box = outbox()
    box.put(message)
    found = all_of(box)
    assert all(isinstance(each, Fragment) for each in found)
    return [over_the_wire(each) for each in found if isinstance(each, Fragment)]


def same(one: Message | None, other: AppendEntries) -> bool:
    """Whether messages are equal, whatever types of sequences hold their entries."""
    assert isinstance(one, AppendEntries)
    plain = [
        replace(each, entry_terms=list(each.entry_terms), entry_payloads=list(each.entry_payloads))
        for each in (one, other)
    ]
    return plain[0] == plain[1]


# ------------------------------------------------------------------------------ what waits


def test_of_the_heartbeats_to_a_peer_that_takes_none_the_newest_waits() -> None:
    box = outbox()
    for sequence in range(1, 60_001):
        box.put(heartbeat(sequence, prev=sequence % 7))
    assert len(box) == 1
    assert box.take() == [heartbeat(60_000, prev=60_000 % 7)]


def test_a_ballot_replaces_the_one_before_it_and_no_heartbeat() -> None:
    box = outbox()
    box.put(ballot(1, pre_vote=True))
    box.put(heartbeat(2))
    box.put(ballot(3))
    box.put(heartbeat(4))
    assert box.take() == [ballot(3), heartbeat(4)]


def test_copies_and_overtaken_messages_replace_nothing() -> None:
    """Copies made by link faults must arrive, and an older request never replaces the newest one."""
    box = outbox()
    for message in (heartbeat(7), heartbeat(7), heartbeat(3), ballot(2), ballot(1)):
        box.put(message)
    assert box.take() == [heartbeat(7), heartbeat(7), heartbeat(3), ballot(2), ballot(1)]
    box.put(entries(9, prev=5))
    box.put(entries(8, prev=4))
    box.put(entries(9, prev=5))
    assert box.take() == [entries(9, prev=5), entries(8, prev=4), entries(9, prev=5)]


def test_entries_that_are_sent_again_replace_what_waits_from_there_on() -> None:
    box = outbox()
    for prev in (5, 6, 7, 8):
        box.put(entries(prev, prev=prev))
    box.put(entries(20, prev=7, sizes=(10, 10)))
    assert box.take() == [entries(5, prev=5), entries(6, prev=6), entries(20, prev=7, sizes=(10, 10))]
    box.put(entries(21, prev=5))
    box.put(entries(22, prev=9, term=4))
    assert box.take() == [entries(22, prev=9, term=4)], "of an earlier term nothing is of use"


def test_entries_that_are_leaving_are_not_queued_once_more() -> None:
    large = entries(1, prev=5, sizes=(100_000 * 4,))
    box = outbox()
    box.put(large)
    first = box.take()
    box.put(replace(large, sequence=2))
    assert len(box) == 1
    rest = all_of(box)
    assembler = Assembler(LIMIT)
    results = [assembler.add(each) for each in (*first, *rest) if isinstance(each, Fragment)]
    assert same(results[-1], large)
    assert results[:-1] == [None] * (len(results) - 1)


def test_a_large_message_is_given_up_for_one_from_an_earlier_place() -> None:
    box = outbox()
    box.put(entries(1, prev=5, sizes=(100_000 * 4,)))
    [begun] = box.take()
    box.put(entries(2, prev=3))
    assert all_of(box) == [entries(2, prev=3)]
    assert isinstance(begun, Fragment)


def test_replies_never_replace_one_another() -> None:
    box = outbox()
    replies = [AppendEntriesReply("n1", "n2", 3, 3, True, 9 - i, 0, 0, 0, i) for i in range(5)]
    for reply in replies:
        box.put(reply)
    assert box.take() == replies


def test_what_does_not_fit_is_lost_and_counted() -> None:
    counters = TransportCounters()
    box = Outbox(TransportSettings(queue_bytes=256 * 1024), counters, lambda: None)
    for sequence in range(1, 6):
        box.put(entries(sequence, prev=sequence, sizes=(120_000,)))
    assert counters.unsent == 3
    box.take()
    box.clear()
    assert (len(box), counters.unsent) == (0, 5)


def test_small_messages_leave_together_and_large_ones_in_parts() -> None:
    box = outbox()
    small = [entries(prev, prev=prev, sizes=(1000,)) for prev in range(5, 10)]
    for message in (*small, entries(10, prev=10, sizes=(100_000 * 4,)), entries(11, prev=11)):
        box.put(message)
    assert box.take() == small
    pieces = all_of(box)
    assert pieces[-1] == entries(11, prev=11)
    fragments = [each for each in pieces if isinstance(each, Fragment)]
    assert len(fragments) == len(pieces) - 1 == 7
    assert {len(each.data) for each in fragments[:-1]} == {FRAGMENT_BYTES}


# ------------------------------------------------------------------------------ in parts


@pytest.mark.parametrize("size", [FRAGMENT_BYTES, 3 * FRAGMENT_BYTES - 40, 1 << 20])
def test_a_message_comes_out_as_it_went_in(size: int) -> None:
    message = entries(7, sizes=(size, 0, 3))
    assembler = Assembler(LIMIT)
    fragments = parts(message)
    assert [assembler.add(each) for each in fragments[:-1]] == [None] * (len(fragments) - 1)
    assert same(assembler.add(fragments[-1]), message)
    with pytest.raises(ValueError, match="does not continue"):
        assembler.add(fragments[-1])


def test_no_mixture_of_messages_is_delivered() -> None:
    """Whatever parts come in whatever order: a delivered message is one that was sent, as a whole."""
    rng = random.Random(1)
    messages = [entries(sequence, sizes=(40_000 * 4,)) for sequence in (1, 2, 3)]
    pool = [fragment for message in messages for fragment in parts(message)]
    delivered = 0
    for _ in range(300):
        assembler = Assembler(LIMIT)
        runs = [parts(rng.choice(messages)) for _ in range(2)]
        for fragment in (*rng.sample(pool, 3), *(each for run in runs for each in run[: rng.randint(1, 3)])):
            try:
                found = assembler.add(fragment)
            except ValueError:
                continue
            if found is not None:
                delivered += 1
                assert any(same(found, message) for message in messages)
    assert delivered > 100


def _malformed() -> dict[str, Sequence[Fragment]]:
    first, second, *_ = good = parts(entries(7, sizes=(50_000 * 4,)))
    other = parts(entries(8, sizes=(50_000 * 4,)))
    return {
        "begins in the middle": [second],
        "a part is missing": [first, *good[2:]],
        "a part comes twice": [first, second, second],
        "goes on with another message": [first, other[1]],
        "another size than before": [first, replace(second, total=second.total + 1)],
        "more than announced": [replace(first, total=len(first.data) - 1)],
        "nothing in it": [replace(first, data=b"")],
        "larger than allowed": [replace(first, total=LIMIT + 1)],
        "not what its head says": [replace(each, head=replace(each.head, leader_commit=4)) for each in good],
        "not a message": [replace(each, data=b"\xff" * len(each.data)) for each in good],
        "terms that decrease": parts(replace(entries(7, sizes=(50_000 * 4, 1)), entry_terms=[3, 1])),
    }


@pytest.mark.parametrize("why", sorted(_malformed()))
def test_malformed_parts_are_refused_counted_and_change_nothing(why: str) -> None:
    delivered: list[Message] = []
    mail = post(delivered)
    assembler = Assembler(LIMIT)
    heads = 0
    for fragment in _malformed()[why]:
        before = mail.counters.refused
        mail.arrived_in_part(fragment, assembler)
        heads += mail.counters.refused == before
    assert mail.counters.refused >= 1
    assert all(isinstance(each, AppendEntries) and not each.entry_payloads for each in delivered)
    assert len(delivered) <= heads
    good = entries(9, sizes=(50_000 * 4,))
    for fragment in parts(good):
        mail.arrived_in_part(fragment, assembler)
    assert same(delivered[-1], good), "the stream goes on"


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time_s = 100.0

    def now(self) -> float:
        return self.time_s

    def now_ns(self) -> int:
        return round(self.time_s * 1e9)


def post(delivered: list[Message], rules: Sequence[LinkRule] = (), clock: Hands | None = None) -> Mail:
    class Post(Mail):
        def _carry(self, message: Message) -> None:
            raise AssertionError("nothing is sent")

    config = NodeConfig.model_validate(
        {"cluster_id": "c", "node_id": "n2", "members": ["n1", "n2"], "storage": {"dir": "unused"}}
    )
    clock = clock or Hands()
    faults = LinkFaults("n2", config.members, rules, random.Random(0), clock.now)
    return Post(config, faults, delivered.append, clock)  # type: ignore[arg-type]


def test_parts_are_heartbeats_where_a_message_takes_its_time() -> None:
    delivered: list[Message] = []
    clock = Hands()
    mail, assembler = post(delivered, clock=clock), Assembler(LIMIT)
    message = entries(7, sizes=(200_000 * 4,))
    fragments = parts(message)
    head = replace(message, entry_terms=(), entry_payloads=())
    for fragment in fragments[:4]:
        clock.time_s += 2 * CONTACT_S
        mail.arrived_in_part(fragment, assembler)
    assert len(delivered) == 4
    assert all(same(each, head) for each in delivered)
    for fragment in fragments[4:]:
        mail.arrived_in_part(fragment, assembler)
    assert len(delivered) == 5, "all at once: only the message"
    assert same(delivered[-1], message)


def test_a_cut_in_the_middle_of_a_message_loses_it_whole() -> None:
    delivered: list[Message] = []
    mail, assembler = post(delivered), Assembler(LIMIT)
    fragments = parts(entries(7, sizes=(100_000 * 4,)))
    mail.arrived_in_part(fragments[0], assembler)
    seen = len(delivered)
    mail._faults.replace([LinkRule(from_id="n1", to_id="n2", cut=True)])
    mail.arrived_in_part(fragments[1], assembler)
    assert mail._faults.counters.cut == 1
    mail._faults.replace([])
    for fragment in fragments[2:]:
        mail.arrived_in_part(fragment, assembler)
    assert len(delivered) == seen
    assert mail.counters.refused == 0, "the peer has done nothing wrong"
    for fragment in fragments:
        mail.arrived_in_part(fragment, assembler)
    assert same(delivered[-1], entries(7, sizes=(100_000 * 4,))), "a second copy of it arrives whole"
