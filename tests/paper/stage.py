"""Plays stories of Raft command by command, in the language of figure7.txt and figure8.txt.

A story begins with a table: the term that all servers have reached, then each server with its name and the terms of its
log's entries. Each command is on a line of its own behind `>`. The indented lines below it are what is seen. Another
table begins another story. Text behind a `#` is a comment.

    > S1 stands               time passes for S1 alone, until it stands for election
    > S1 goes on              time passes for S1 alone: a leader sends heartbeats and repeats requests
    > S1 is asked for x       a client proposes x
    > S1 crashes              S1 keeps only what is on its disk
    > S1 restarts
    > only S1 S2 talk         only the links among these servers work; messages on other links are lost
    > all talk
    > lose entries of term 4  AppendEntries with such an entry are lost; `lose nothing` ends that
    > logs                    shows the log of every server, with the committed part in brackets

Messages are delivered at once, in the order in which they were sent, until there are none. Disks are quick: a write is
durable within the step that asked for it. The plain paper is played: no pre-vote, no check quorum, one entry per
AppendEntries. `python -m tests.paper.stage FILE` prints a story as it is seen now.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from pathlib import Path

from raft_actor_node.core import (
    AppendEntries,
    AppendEntriesReply,
    Event,
    HardState,
    Log,
    Message,
    Persisted,
    Propose,
    RaftNode,
    Receive,
    RequestVoteReply,
    TraceEvent,
)
from tests.core.harness import RPC_TIMEOUT, parameters, payload

GOING_ON = 2 * RPC_TIMEOUT
"""Long enough for a leader to repeat lost requests and get answers."""

TOLD = {
    "became_candidate": "stands for term {term}",
    "became_leader": "leads term {term}",
    "vote_granted": "votes for {peer} in term {term}",
    "leader_heard": "follows {peer} in term {term}",
    "log_truncated": "erases its log from {index} on",
    "commit": "knows that {index} is committed",
}


class Stage:
    """Servers that only commands move; `seen` has the lines of what they did since it was cleared."""

    def __init__(self, term: int, logs: dict[str, list[int]]) -> None:
        self.names = list(logs)
        self.parameters = parameters(pre_vote=False, check_quorum=False, max_batch_entries=1)
        self.seen: list[str] = []
        self._now = dict.fromkeys(logs, 0.0)  # each server has a clock of its own, which only commands move
        self._talking = set(logs)
        self._lost_term = 0
        self._mail: deque[Message] = deque()
        self._nodes: dict[str, RaftNode] = {}
        self._crashed: dict[str, RaftNode] = {}
        for name, terms in logs.items():
            log = Log(terms, [payload(index, term) for index, term in enumerate(terms, 1)])
            self._start(name, HardState(term), log)

    def act(self, command: str) -> None:
        """Perform one command, and add what is seen to `seen`."""
        match command.split():
            case [name, "stands"]:
                started = self._nodes[name].counters.elections_started
                while self._nodes[name].counters.elections_started == started:
                    self._time_out(name)
            case [name, "goes", "on"]:
                end = self._now[name] + GOING_ON
                while self._nodes[name].next_deadline() < end:
                    self._time_out(name)
            case [name, "is", "asked", "for", word]:
                self._step(name, Propose(0, [word.encode()]))
            case [name, "crashes"]:
                self._crashed[name] = self._nodes.pop(name)
            case [name, "restarts"]:
                old = self._crashed.pop(name)  # every write was durable at once
                self._start(name, HardState(old.current_term, old.voted_for), old.log)
            case ["only", *names, "talk"]:
                self._talking = set(names)
            case ["all", "talk"]:
                self._talking = set(self.names)
            case ["lose", "nothing"]:
                self._lost_term = 0
            case ["lose", "entries", "of", "term", term]:
                self._lost_term = int(term)
            case ["logs"]:
                self.seen += self._table()
            case _:
                raise ValueError(f"no such command: {command}")
        self._deliver_all()

    def _time_out(self, name: str) -> None:
        self._step(name, at=max(self._now[name], self._nodes[name].next_deadline()))
        self._deliver_all()

    def _deliver_all(self) -> None:
        while self._mail:
            self._deliver(self._mail.popleft())

    def _start(self, name: str, hard_state: HardState, log: Log) -> None:
        self._nodes[name] = RaftNode(
            name,
            self.names,
            self.parameters,
            rng=random.Random(name),
            now=self._now[name],
            hard_state=hard_state,
            log=log,
        )
        self._step(name)

    def _step(self, name: str, *events: Event, at: float | None = None) -> None:
        self._now[name] = self._now[name] if at is None else at
        effects = self._nodes[name].step(events, self._now[name])
        told = list(effects.trace)
        self._mail += effects.messages
        while effects.persist:
            effects = self._nodes[name].step([Persisted(effects.persist.number)], self._now[name])
            told += effects.trace
            self._mail += effects.messages
        self.seen += [f"{name} {line}" for event in told if (line := self._line(event))]

    @staticmethod
    def _line(event: TraceEvent) -> str:
        return TOLD.get(event.kind, "").format(term=event.term, index=event.index, peer=event.peer_id)

    def _deliver(self, message: Message) -> None:
        entries = message.entry_terms if isinstance(message, AppendEntries) else ()
        if self._lost_term in entries or not {message.from_id, message.to_id} <= self._talking & self._nodes.keys():
            return
        match message:
            case RequestVoteReply(vote_granted=False):
                self.seen.append(f"{message.from_id} refuses {message.to_id} its vote")
            case AppendEntries(entry_terms=[term]):
                where = f"behind {message.prev_log_index} of term {message.prev_log_term}"
                self.seen.append(f"{message.from_id} sends {message.to_id} an entry of term {term} {where}")
            case AppendEntriesReply(success=False, conflict_term=0, conflict_index=index):
                self.seen.append(f"{message.from_id} tells {message.to_id} that its log ends before {index}")
            case AppendEntriesReply(success=False, conflict_term=term, conflict_index=index):
                self.seen.append(f"{message.from_id} tells {message.to_id} of its term {term}, from {index} on")
            case AppendEntriesReply(success=False):
                pass
        self._step(message.to_id, Receive(message))

    def _table(self) -> list[str]:
        """The log of every server, the committed part in brackets."""
        lines = []
        for name in self.names:
            node = self._nodes.get(name) or self._crashed[name]
            terms = [str(term) for term in node.log.terms(1, node.log.last_index + 1)]
            committed, rest = terms[: node.commit_index], terms[node.commit_index :]
            log = [f"[{' '.join(committed)}]", *rest] if committed else rest
            lines.append(" ".join([name, *log, *["crashed"] * (name in self._crashed)]))
        return lines


def play(story: str) -> str:
    """Return the story with the present observations below each command, and all other lines as they are."""
    term, logs = 0, dict[str, list[int]]()
    stage: Stage | None = None
    told: list[str] = []
    for line in story.splitlines():
        words = line.partition("#")[0].split()
        if words[:1] == [">"]:
            stage = stage or Stage(term, logs)
            stage.seen.clear()
            stage.act(" ".join(words[1:]))
            told += [line, *(f"    {seen}" for seen in stage.seen)]
        elif words[:1] == ["term"]:
            term, logs, stage = int(words[1]), {}, None
            told.append(line)
        elif words and stage is None:
            logs[words[0]] = [int(word) for word in words[1:]]
            told.append(line)
        elif not words:
            told.append(line)
    return "\n".join(told) + "\n"


if __name__ == "__main__":
    sys.stdout.write(play(Path(sys.argv[1]).read_text(encoding="utf-8")))
