"""Run a real node with a planted bug: `python -m tests.mutants.node NAME --config FILE`.

In a sweep: `-o 'cluster.command=.venv/bin/python -m tests.mutants.node read-without-confirmation'`.
"""

from __future__ import annotations

import sys

from raft_actor_node.__main__ import main
from tests.mutants.catalogue import mutants
from tests.mutants.edit import planted

if __name__ == "__main__":
    with planted(mutants()[sys.argv.pop(1)].edits):
        sys.exit(main())
