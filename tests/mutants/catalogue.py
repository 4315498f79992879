"""Read the planted bugs, which are mistakes that a programmer might really make, from planted/*.diff.

## name
What the program does with the bug, in one paragraph.
breaks: section of the paper, or another promise that the bug breaks
known: the item of KNOWN that it implements (if any)
test: the test below tests/ that finds it, if campaigns rarely or never do
real: the same, if no campaign can find it because the simulation replaces the changed code
@ module:function
 a line that stays       (indented as if the function stood alone)
-a line to remove
+a line to add
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants.edit import Edit

HERE = Path(__file__).parent

KNOWN = (
    "vote not persisted before the reply",
    "a vote of an older term counted, or counted twice",
    "term lowered",
    "prev_log check skipped",
    "suffix erased by a duplicate or old AppendEntries",
    "an old-term entry committed by counting (Figure 8)",
    "logs compared by length only",
    "commit = min(leader_commit, last) without max",
    "match_index set, not maxed",
    "reply before fsync (also with N = 1)",
    "fsync retried after EIO",
    "pre-vote that bumps the term",
    "quorum over reachable nodes",
    "dedupe only in the leader's memory",
    "leader reads without confirmation",
    "leader reads before its no-op",
    "leader reads with acknowledgements older than the read",
    "election timer reset by any RPC",
    "a dropped call failing early",
    "a WAL that truncates at a bad checksum in the middle",
    "half a batch accepted at recovery",
    "a missing directory fsync",
    "the leader counts itself before its fsync",
    "quorum N//2 for even N",
    "commit_index = min(leader_commit, last log index)",
    "late replies of an earlier term counted",
    "another candidate granted in the same term after a restart",
    "a stale address epoch that sends to the wrong node",
)
"""Known mistakes in implementations of Raft: at least one mutant must implement each."""


@dataclass
class Mutant:
    """A planted bug."""

    name: str
    group: str
    sentence: str = ""
    breaks: str = ""
    known: list[str] = field(default_factory=list)
    test: str = ""
    """The test that finds it if no campaign does: a pytest id below tests/."""
    simulated: bool = True
    """Whether a simulation runs the changed code; if not, no seeds are run."""
    edits: list[Edit] = field(default_factory=list)


def mutants() -> dict[str, Mutant]:
    """Return all planted bugs by name."""
    found = [mutant for path in sorted((HERE / "planted").glob("*.diff")) for mutant in _read(path)]
    by_name = {mutant.name: mutant for mutant in found}
    assert len(by_name) == len(found), "two mutants have the same name"
    return by_name


def _read(path: Path) -> Iterator[Mutant]:
    _, *parts = path.read_text(encoding="utf-8").split("\n## ")
    for part in parts:
        head, *hunks = part.rstrip("\n").split("\n@ ")
        name, *fields = head.splitlines()
        mutant = Mutant(name, path.stem)
        for line in fields:
            key, _, value = line.partition(": ")
            match key:
                case "breaks":
                    mutant.breaks = value
                case "known":
                    mutant.known.append(value)
                case "test" | "real":
                    mutant.test, mutant.simulated = value, key == "test"
                case _:
                    mutant.sentence = f"{mutant.sentence} {line}".strip()
        for hunk in hunks:
            where, *lines = hunk.splitlines()
            old = tuple(line[1:] for line in lines if line[0] in " -")
            new = tuple(line[1:] for line in lines if line[0] in " +")
            mutant.edits.append(Edit(where, old, new))
        yield mutant
