"""Run a simulated sweep with a planted bug: `python -m tests.mutants.sweep NAME run PRESET --target sim`."""

from __future__ import annotations

import sys

from sweeps.cli import main
from tests.mutants.catalogue import mutants
from tests.mutants.edit import planted

if __name__ == "__main__":
    with planted(mutants()[sys.argv.pop(1)].edits):
        main()
