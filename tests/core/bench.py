"""One node on a bench: the test plays the node's peers, its disk and its clock, one message at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count
from typing import Any

from raft_actor_node.core import (
    AppendEntries,
    AppendEntriesReply,
    Effects,
    Event,
    Log,
    Message,
    Persist,
    Persisted,
    Propose,
    RaftNode,
    Receive,
    RequestVote,
    RequestVoteReply,
    Role,
)
from tests.core.harness import names, parameters, payload, stored


class Solo:
    """Node n1 of `n`. With `sync` (the default) every write is durable within the step that asked for it."""

    def __init__(
        self,
        n: int = 3,
        terms: Sequence[int] = (),
        *,
        term: int | None = None,
        voted_for: str | None = None,
        commit_index: int = 0,
        seed: int = 0,
        **changes: Any,
    ) -> None:
        self.parameters = parameters(**changes)
        disk = stored(terms, term, voted_for)
        self.node = RaftNode(
            "n1",
            names(n),
            self.parameters,
            rng=random.Random(seed),
            now=0.0,
            hard_state=disk.hard_state,
            log=Log(disk.terms, disk.payloads),
            commit_index=commit_index,
        )
        self.now, self.sync = 0.0, True
        self.pending: Persist | None = None
        self._numbers = count(1000)

    @property
    def terms(self) -> list[int]:
        """The terms of the whole log."""
        return list(self.node.log.terms(1, self.node.log.last_index + 1))

    def step(self, *events: Event, at: float | None = None) -> Effects:
        """Make one step, and with `sync` the fsyncs that it asks for; return all their effects together."""
        self.now = self.now if at is None else at
        total = self.node.step(events, self.now)
        self.pending = total.persist or self.pending
        while self.sync and self.pending:
            number, self.pending = self.pending.number, None
            more = self.node.step([Persisted(number)], self.now)
            self.pending = more.persist
            total.trace += more.trace
            total.messages += more.messages
            total.accepted += more.accepted
            total.reads += more.reads
            total.reads_refused += more.reads_refused
            total.leadership_lost |= more.leadership_lost
        return total

    def fsync(self) -> Effects:
        """Complete the write under way."""
        assert self.pending, "nothing is being written"
        number, self.pending = self.pending.number, None
        return self.step(Persisted(number))

    def receive(self, *messages: Message) -> list[Message]:
        """Return what the node answers to these messages."""
        return self.step(*map(Receive, messages)).messages

    def propose(self, *payloads: bytes) -> Effects:
        return self.step(Propose(next(self._numbers), payloads))

    def wait(self, seconds: float) -> Effects:
        return self.step(at=self.now + seconds)

    def timeout(self) -> Effects:
        """Let the node's next deadline pass."""
        return self.step(at=max(self.now, self.node.next_deadline()))

    def stand(self) -> list[RequestVote]:
        """Time out and win the pre-vote, if there is one; return the requests for real votes."""
        said = self.timeout().messages
        if self.node.role == Role.PRE_CANDIDATE:
            said = self.receive(*map(vote, requests(said)))
        assert self.node.role in (Role.CANDIDATE, Role.LEADER)  # a single node leads at once
        return requests(said)

    def lead(self) -> list[AppendEntries]:
        """Win an election; return the first AppendEntries."""
        said = self.receive(*map(vote, self.stand()))
        assert self.node.role == Role.LEADER
        return appends(said)


def vote(request: RequestVote, *, granted: bool = True, term: int | None = None) -> RequestVoteReply:
    """A peer's answer to the bench's request for a vote."""
    own = (request.term - request.pre_vote) if term is None else term
    return RequestVoteReply(
        request.to_id, request.from_id, own, request.term, granted, request.pre_vote, request.sequence
    )


def ack(request: AppendEntries, match_index: int | None = None) -> AppendEntriesReply:
    """A follower's success: it holds the request's entries, or all up to match_index, durably."""
    match = request.prev_log_index + len(request.entry_terms) if match_index is None else match_index
    return AppendEntriesReply(
        request.to_id, request.from_id, request.term, request.term, True, match, 0, 0, 0, request.sequence
    )


def refusal(request: AppendEntries, conflict_term: int, conflict_index: int) -> AppendEntriesReply:
    """The answer of a follower whose log does not match at the request's prev_log_index."""
    term, prev = request.term, request.prev_log_index
    return AppendEntriesReply(
        request.to_id, request.from_id, term, term, False, 0, prev, conflict_term, conflict_index, request.sequence
    )


def append(
    term: int,
    prev: int = 0,
    prev_term: int = 0,
    terms: Sequence[int] = (),
    commit: int = 0,
    *,
    leader: str = "n2",
    sequence: int = 1,
) -> AppendEntries:
    """AppendEntries from a leader to the bench."""
    payloads = [payload(prev + k, t) for k, t in enumerate(terms, 1)]
    return AppendEntries(leader, "n1", term, prev, prev_term, terms, payloads, commit, sequence)


def request_vote(
    term: int, last_index: int = 0, last_term: int = 0, *, candidate: str = "n2", pre_vote: bool = False
) -> RequestVote:
    """RequestVote from a candidate to the bench."""
    return RequestVote(candidate, "n1", term, last_index, last_term, pre_vote, 1)


def appends(messages: Sequence[Message], to: str | None = None) -> list[AppendEntries]:
    """The AppendEntries among the messages, to one peer or to all."""
    return [m for m in messages if isinstance(m, AppendEntries) and to in (None, m.to_id)]


def requests(messages: Sequence[Message]) -> list[RequestVote]:
    """The RequestVotes among the messages."""
    return [m for m in messages if isinstance(m, RequestVote)]
