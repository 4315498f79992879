"""Everything known about a cell when it is over."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestration import InfrastructureError, NodeFailed, PlacementRefused
from raft_actor_node.errors import DiskError, RaftLabError
from sweeps.analysis.cell_data import CellData


class NodeDied(RaftLabError):
    """A node exited although neither the sweep nor the chaos caused it."""


@dataclass(frozen=True)
class Ending:
    """Why a cell ended early; empty if it did not."""

    error: str | None = None
    """The error, in one line."""
    detail: str = ""
    """The full error: the end of a node's log, or a traceback."""
    lost: str | None = None
    """The same line if the infrastructure failed; None otherwise."""
    refused: bool = False
    """Whether no host could take the nodes."""
    node_died: bool = False

    @classmethod
    def of(cls, failure: Exception) -> Ending:
        """Return the ending for any exception, because a bug must not prevent the following cells."""
        line = next(iter(str(failure).splitlines()), "")
        if not isinstance(failure, RaftLabError):
            return cls(f"{type(failure).__name__}: {line}", "".join(traceback.format_exception(failure)))
        refused = isinstance(failure, PlacementRefused)
        disk = isinstance(failure, NodeFailed) and failure.node_exit_code == DiskError.exit_code
        lost = line if disk or refused or isinstance(failure, InfrastructureError) else None
        return cls(line, str(failure), lost, refused, isinstance(failure, NodeDied))


@dataclass
class Record:
    """Everything known about a cell when it is over."""

    evidence: CellData
    schedule: Mapping[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """Further fields of result.json, which describe how the cell was run."""
    inspection: dict[str, Any] = field(default_factory=dict)
    """Statuses, exits and clocks of the nodes, for the judge; see `CellRun._inspected`."""
    traces: dict[str, list[str]] = field(default_factory=dict)
    """Node id -> all lines of its trace, on its own clock."""
    logs: dict[str, str] = field(default_factory=dict)
    storage: dict[str, str] = field(default_factory=dict)
    """Node id -> the folder on its host below which the node kept its write-ahead log."""
    error: str | None = None
    """What ended the cell early, in one line."""
    detail: str = ""
    """The full error: the end of a node's log, or a traceback."""
    unavailable: str | None = None
    """Why no load could begin although all nodes ran."""
    lost: str | None = None
    """What failed below the nodes, in one line: an actor, a host, a disk, Ray."""
    over: str | None = None
    """Why no further cell can run: no host can take the nodes any more, or Ray is lost."""

    def fails(self, failure: Exception, doing: str) -> None:
        """Record an error that occurred while the record was made, unless an earlier error is recorded."""
        if self.lost is None and isinstance(failure, InfrastructureError):
            self.lost = f"{doing}: {next(iter(str(failure).splitlines()), '')}"
        if self.error is None:
            line = next(iter(str(failure).splitlines()), "")
            name = "" if isinstance(failure, RaftLabError) else f"{type(failure).__name__}: "
            self.error, self.detail = f"{doing}: {name}{line}", "".join(traceback.format_exception(failure))
