"""Types that all modules of the core share."""

from __future__ import annotations

from enum import IntEnum

NodeId = str
"""Name of a node. The name is its identity, never an address."""


class Role(IntEnum):
    """Role of a node (paper, Figure 4), with the pre-candidate of the dissertation, section 9.6.

    The numbers are those of Role in proto/inspection.proto.
    """

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3
